"""Random projections of whole gradients, short enough to keep a pool's."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Inexact, Key, PyTree, Shaped, UInt32

from jalpose.pergrad import (
    AnyArray,
    checks,
    dtypes,
    examples,
    given,
    measures,
    projections,
)
from jalpose.pergrad.engines import Engine, engine_of
from jalpose.pergrad.projections import Shape
from jalpose.pergrad.trainable import Trainable, select

_ENGINES = ("ghost", "exact", "conv_linear")


def sketches(
    engine: str | Engine,
    apply_fn: Callable[..., Any],
    loss_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    targets: PyTree[Shaped[AnyArray, "b k ..."]],
    *,
    size: int,
    key: Key[AnyArray, ""] | UInt32[AnyArray, "2"],
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, "b k size"]:
    """Sketch of the gradient of `loss_fn` for each example and candidate.

    A sketch is S g for the whole gradient g, over all trainable parameters, and a
    random matrix S of `size` rows with E[S^T S] = 1: inner products of sketches are
    unbiased estimates of those of the gradients, squared distances of their squared
    distances, and both have a standard deviation that falls as 1 / sqrt(size). S is
    drawn from the key and the shapes of the parameters alone: one key gives one S for
    every batch, block and host, and sketches of one key, one engine and one network
    can be compared. How it is done, and its sources: `projections`.

    One backward pass a candidate, as of `api.squared_norms`, and no gradient outlives
    its layer. Each tensor has signs of its own, so that what a parameter's gradient
    has in common with another's adds no bias.

    Args:
      engine: `ghost`; `exact`, which forms all gradients, and whose S is another one;
        or `conv_linear`, of whose tensors alone the sketch is then. As an `Engine`
        with its options: `microbatch`, `products`.
      apply_fn: see `api.squared_norms`, and so for all that follow but two.
      loss_fn: see there.
      variables: see there.
      inputs: see there.
      targets: see there.
      size: numbers a sketch has, at most as many as there are parameters. 512 is
        usual.
      key: one, of S.
      mask: see there; sketches of padding are zeros.
      trainable: see there.
      mesh: see there.

    Returns:
      [b, k, size] in float32 (float64 for a network in float64).

    Raises:
      ValueError: as `api.squared_norms`; an engine that has no gradients; a size below
        one or above the number of parameters; anything but one key.
    """
    engine = _engine(engine)
    checks.network(variables)
    checks.shapes(inputs, targets)
    apply_fn, variables = select(apply_fn, variables, trainable)
    given.sketch_size(size, variables["params"])
    given.one_key(key)
    measure = measures.sketch_of(size)
    # Key arrays of their own dtype cannot enter a `shard_map` everywhere.
    typed = dtypes.is_key(key)
    kind = jax.random.key_impl(key) if typed else None
    shared = variables, jax.random.key_data(key) if typed else key

    def begin(variables, key):
        example = jax.tree.map(_one, inputs)
        shapes, slices = _shapes(engine, apply_fn, variables, example)
        # Of a key that is a constant the compiler would draw all signs itself, slowly.
        key = jax.random.wrap_key_data(jax.lax.optimization_barrier(key), impl=kind)
        drawn = projections.draw(key, shapes, size, slices)

        def one(arguments, loop):
            example, target = arguments
            output, pull, _ = examples.linearise(
                engine, apply_fn, variables, example, measure, drawn
            )
            cotangents = examples.cotangents(loss_fn, output, target, loop)
            found = pull(cotangents, examples.chunk(engine, len(cotangents[0]), loop))
            return sum(found)

        return one

    num = jax.tree.leaves(targets)[0].shape[1]
    return examples.each(
        engine, begin, apply_fn, shared, inputs, targets, num=num, mesh=mesh, mask=mask
    )


def cotangent_sketches(
    engine: str | Engine,
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    cotangents: PyTree[Inexact[AnyArray, "b k ..."]],
    *,
    size: int,
    key: Key[AnyArray, ""] | UInt32[AnyArray, "2"],
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, "b k size"]:
    """Sketch of J^T r for each example and each given cotangent r of its output.

    Random cotangents that are the same for all examples need no label: the inner
    products of the k sketches of two examples, added up, estimate the trace of
    J_x J_y^T, the neural tangent kernel, where the cotangents' covariance is one.

    Args:
      engine: as for `sketches`, and so are all arguments but the following.
      apply_fn: see there.
      variables: see there.
      inputs: see there.
      cotangents: tree like the output, each array [b, k, ...] and shaped as an
        example's.
      size: see there.
      key: see there.
      mask: see there.
      trainable: see there.
      mesh: see there.

    Returns:
      [b, k, size].

    Raises:
      ValueError: as `sketches`.
    """
    return sketches(
        engine,
        apply_fn,
        examples.inner_product,
        variables,
        inputs,
        cotangents,
        size=size,
        key=key,
        mask=mask,
        trainable=trainable,
        mesh=mesh,
    )


def _engine(engine: str | Engine) -> Engine:
    found = engine_of(engine)
    if found.name not in _ENGINES:
        raise ValueError(
            f"the engine {found.name} has no gradients of single candidates to sketch: "
            f"take one of {', '.join(_ENGINES)}"
        )
    return found


def _shapes(engine, apply_fn, variables, example) -> tuple[list[Shape], list[int]]:
    """How each tensor's gradient is looked at, and how many slices it has."""
    leaves = jax.tree.leaves(variables["params"])
    if engine.name == "exact":
        return list(map(projections.shape_of, leaves)), [1] * len(leaves)
    return examples.plan_of(engine, apply_fn, variables, example).shapes(leaves)


def _one(leaf):
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
