"""Who is compared: engines of gradient norms, and what costs next to nothing."""

import dataclasses
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jalpose.loop.context import engine_of
from jalpose.pergrad.api import ENGINES, Engine, expected_squared_norm
from jalpose.scoring.gradients import Functions, norm_arguments
from jalpose.scoring.passes import example_keys
from jalpose.settings.checks import ConfigError, one_of

# Either gives the true norms; the first of them that takes part is the reference.
REFERENCES = ("exact", "ghost")
# Passes, and how many of them are random signs, that "sketch" alone stands for.
SKETCHES = ((1, 0), (2, 0), (3, 0), (4, 0), (8, 0), (4, 2), (8, 2))
_SKETCH = re.compile(r"sketch([0-9]+)(?:r([0-9]+))?")

# Stand-ins for the norm that need no gradient of the whole network.
RESIDUAL = "residual"
LAST_LAYER = "last layer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to score images.

    Attributes:
      label: as on the command line: an engine's name, sketch<M> or sketch<M>r<R>.
      engine: None for the residual, which takes no backward pass.
      backward_passes: an image.
    """

    label: str
    engine: Engine | None
    backward_passes: int


def contestants(
    names: Sequence[str], acquisition: ConfigDict, num_labels: int
) -> tuple[Contestant, ...]:
    """The engines of a command line, the reference first, and the residual last.

    Args:
      names: of engines; "sketch" stands for several, "sketch6" for one of 6 passes,
        "sketch6r2" for one with 2 of them random.
      acquisition: the config's section, which has the engines' other options.
      num_labels: K, candidate labels an image.

    Raises:
      ConfigError: a name is unknown, or no engine gives the true norms.
    """
    found: dict[str, Contestant] = {}
    for name in names:
        for label, engine in _engines(name, acquisition, num_labels):
            passes = min(engine.passes, num_labels)
            backward = passes if engine.name == "sketch" else num_labels
            found[label] = Contestant(
                label=label, engine=engine, backward_passes=backward
            )
    first = next((label for label in REFERENCES if label in found), None)
    if first is None:
        raise ConfigError(
            f"--engines={','.join(names)} names no engine to compare with: add "
            + " or ".join(REFERENCES)
        )
    others = [item for label, item in found.items() if label != first]
    residual = Contestant(label=RESIDUAL, engine=None, backward_passes=0)
    return (found[first], *others, residual)


def _engines(name, acquisition, num_labels):
    if name == "sketch":
        # With K passes and more it is exact, and nothing is left to be random.
        for passes, random in SKETCHES:
            if passes < num_labels or (passes == num_labels and not random):
                yield _sketch(acquisition, passes, random)
    elif matched := _SKETCH.fullmatch(name):
        yield _sketch(acquisition, int(matched[1]), int(matched[2] or 0))
    else:
        one_of("--engines", name, [*ENGINES, "sketch<passes>", "sketch<passes>r<R>"])
        yield name, engine_of(acquisition, name=name)


def _sketch(acquisition, passes, random):
    label = f"sketch{passes}" + (f"r{random}" if random else "")
    options = {"name": "sketch", "passes": passes, "remainder": random}
    try:
        return label, engine_of(acquisition, **options)
    except ValueError as error:
        raise ConfigError(f"--engines: {label}: {error}") from error


def tensor_names(model, image_size: int) -> tuple[str, ...]:
    """Paths of all parameter tensors, in the order in which the network makes them."""
    names: list[str] = []

    def init(key, images):
        variables = model.init(key, images)
        # Here, since what comes out of a traced function is sorted by name.
        names.extend(flatten_dict(variables["params"], sep="/"))
        return variables

    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    jax.eval_shape(init, jax.random.key(0), images)
    return tuple(names)


def norms_pass(model, functions: Functions, engine: Engine, names: Sequence[str]):
    """Pass: scores (expected squared norms) and their parts by tensor, [P] in order.

    And standard_error of an engine that estimates. The rows' context holds what the
    functions take, and weights.
    """

    def norms(variables, rows):
        arguments = norm_arguments(model, functions, variables, rows)
        # The signs that an acquisition would draw.
        keys = example_keys(jax.random.key(0), rows["id"])
        result = expected_squared_norm(engine, *arguments, keys=keys, by_tensor=True)
        parts = flatten_dict(result.by_tensor, sep="/")
        found = {
            "scores": result.total,
            "tensors": jnp.stack([parts[name] for name in names], axis=1),
        }
        if result.standard_error is not None:
            found["standard_error"] = result.standard_error
        return found

    return norms


def residual_pass(model, functions: Functions):
    """Pass: scores, the expected squared norm of the loss's gradient by the output.

    A forward pass: what a score is worth that never looks into the network.
    """

    def residual(variables, rows):
        arguments = norm_arguments(model, functions, variables, rows)
        apply_fn, loss_fn, variables, images, targets, weights = arguments

        def energies(output, candidates):  # [K]
            cotangents = jax.vmap(jax.grad(loss_fn), (None, 0))(output, candidates)
            squares = jnp.square(cotangents)
            return squares.sum(axis=tuple(range(1, squares.ndim)))

        found = jax.vmap(energies)(apply_fn(variables, images), targets)
        return {"scores": (weights * found).sum(axis=1)}

    return residual
