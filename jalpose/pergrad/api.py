"""Per-example gradient norms, sketches and sums of any network: the one entry.

>>> result = squared_norms("ghost", apply_fn, loss_fn, variables, x, y)
... # doctest: +SKIP
>>> result.total  # [b, k]  # doctest: +SKIP
>>> routes(apply_fn, variables, x)  # of each tensor  # doctest: +SKIP
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PyTree, Shaped

from jalpose.pergrad import AnyArray, checks, examples, sketch
from jalpose.pergrad.clipping import ClippedGradient, clipped_gradient
from jalpose.pergrad.engines import ENGINES, Engine, engine_of
from jalpose.pergrad.gradient_sketches import cotangent_sketches, sketches
from jalpose.pergrad.gradients import (
    NormsAndGradient,
    norms_and_gradient,
    weighted_gradient,
)
from jalpose.pergrad.inner_products import inner_products
from jalpose.pergrad.norms import (
    NormResult,
    cotangent_squared_norms,
    expected_squared_norm,
    squared_norms,
)
from jalpose.pergrad.plan import Route
from jalpose.pergrad.trainable import Trainable, select

__all__ = [
    "ENGINES",
    "ClippedGradient",
    "Engine",
    "NormResult",
    "NormsAndGradient",
    "Route",
    "Trainable",
    "clipped_gradient",
    "cotangent_sketches",
    "cotangent_squared_norms",
    "expected_squared_norm",
    "inner_products",
    "last_layer",
    "norms_and_gradient",
    "routes",
    "sketches",
    "squared_norms",
    "weighted_gradient",
]


def routes(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray | jax.ShapeDtypeStruct, "b ..."]],
    engine: str | Engine = "ghost",
    *,
    trainable: Trainable | None = None,
) -> tuple[Route, ...]:
    """Ways in which the norms of the parameter tensors are found.

    Args:
      apply_fn: see `squared_norms`.
      variables: see there; as in the inputs, shapes and dtypes are enough.
      inputs: tree of [b, ...].
      engine: see there.
      trainable: see there.

    Returns:
      A Route of each tensor that is trainable, in the order of the leaves of `params`.

    Raises:
      ValueError: unknown engines; variables without floating arrays in `params`; an
        output without floats or a row for each; `goodfellow` and `conv_linear`, a
        parameter that they cannot place.
    """
    checks.network(variables)
    example = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs
    )
    apply_fn, variables = select(apply_fn, variables, trainable)
    plan = examples.plan_of(engine_of(engine), apply_fn, variables, example)
    return plan.routes


def last_layer(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray | jax.ShapeDtypeStruct, "b ..."]],
) -> frozenset[str]:
    """Names of the tensors of the last layer, as `trainable` takes them.

    Of several, all: those whose output reaches the network's own through linear steps
    alone, with what else stands in the same modules.

    >>> names = last_layer(apply_fn, variables, x)  # doctest: +SKIP
    >>> squared_norms(..., trainable=names.__contains__)  # doctest: +SKIP

    Args:
      apply_fn: see `squared_norms`.
      variables: see there; as in the inputs, shapes and dtypes are enough.
      inputs: tree of [b, ...].

    Raises:
      ValueError: as `routes`; there is no such layer.
    """
    checks.network(variables)
    example = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs
    )
    plan = examples.plan_of(engine_of("ghost"), apply_fn, variables, example)
    names = plan.program.names
    layers, _ = sketch.last_layers(plan)
    modules = {names[plan.taps[path][1]].rpartition("/")[0] for path in layers}
    if not modules:
        raise ValueError(
            "the network's output is linear in no layer of its own: say which of the "
            "parameters count by name"
        )
    return frozenset(name for name in names if name.rpartition("/")[0] in modules)
