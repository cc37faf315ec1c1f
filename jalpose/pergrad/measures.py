"""What can be asked of a gradient in its place: its squared norm, or a sketch of it.

Asked where the gradient is (`taps`, `exact`), so that none has to be kept.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jalpose.pergrad import dtypes, projections


@dataclasses.dataclass(frozen=True)
class Measure:
    """What is asked of the gradient of each tensor, and returned in its place.

    Attributes:
      shape: of the answer, for one gradient.
      of_layer: (rule, data, cotangents [k, *y.shape], drawn) -> [k, *shape], of the
        weight gradient of an operation that has a rule.
      of_gradient: (gradient, drawn) -> [*shape], of one that autodiff has formed.
    """

    shape: tuple[int, ...]
    of_layer: Callable[..., Array]
    of_gradient: Callable[..., Array]


SQUARES = Measure(
    shape=(),
    of_layer=lambda rule, data, cotangents, drawn: rule.square(data, cotangents),
    of_gradient=lambda gradient, drawn: dtypes.sum_of_squares(gradient),
)


@functools.lru_cache(maxsize=16)
def sketch_of(size: int) -> Measure:
    """The measure that is a random projection to so many numbers."""

    def of_layer(rule, data, cotangents, drawn):
        return rule.project(drawn, size, data, cotangents)

    def of_gradient(gradient, drawn):
        return projections.of_gradient(drawn, size, gradient)

    return Measure((size,), of_layer, of_gradient)


def zeros(measure: Measure, leaves: Sequence[PyTree]) -> list[Array]:
    """Answers of tensors that have no part in the output."""
    return [jnp.zeros(measure.shape, jnp.float32)] * len(leaves)
