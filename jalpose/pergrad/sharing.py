"""Gradients of weights that are used several times, cross terms included.

A weight that is used at several places of a program (a tied embedding, a shared head),
or at each step of a `lax.scan`, has the sum over its uses as its gradient, whose norm
is not the sum of their norms. What each use saw and its cotangent are kept until the
backward pass is through, far less than a gradient for each step, and put together by
`sharing_rules`.

A scan that takes a slice of a tensor a step has as many weights: each step's norm is
then its own, and they are added up.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Shaped

from jalpose.pergrad import AnyArray, dtypes, sharing_rules
from jalpose.pergrad.rule import Rule, Settings
from jalpose.pergrad.sharing_rules import Group
from jalpose.pergrad.uses import Link, Loop, Path, Use

# What a use saw, as numbers that have a gradient, and its cotangent.
Kept = tuple[Inexact[Array, "..."], Inexact[Array, "..."]]


@dataclasses.dataclass(frozen=True)
class Shared:
    """How the uses of one tensor are put together.

    Attributes:
      groups: all its uses.
      rule: of a tuple with the data of each group [n, ...], and one of cotangents; its
        weight is the tensor, or a slice.
      of_weight: shape of the tensor, or of a slice.
      slices: weights that scans take from the tensor, each with its own gradient.
      lengths: of those scans.
      before: see `uses.Use`.
    """

    groups: tuple[Group, ...]
    rule: Rule
    of_weight: tuple[int, ...]
    slices: int
    lengths: tuple[int, ...]
    before: tuple[Link, ...]

    @property
    def paths(self) -> list[Path]:
        """Of all its uses."""
        return [use.path for group in self.groups for use in group.uses]

    def collect(self, kept: dict[Path, Kept]) -> tuple[tuple, tuple]:
        """Data and cotangents [slices, n, ...] of each group, of those by path."""
        data, cotangents = [], []
        for group in self.groups:
            pairs = [
                [_by_slice(part, use.loops) for part in kept[use.path]]
                for use in group.uses
            ]
            seen, arrived = (
                jnp.concatenate(part, axis=1) for part in zip(*pairs, strict=True)
            )
            data.append(decode(seen, group.data.dtype))
            cotangents.append(arrived)
        return tuple(data), tuple(cotangents)

    def per_slice(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Results [slices, ...] of a function, for each slice of its arguments."""
        if self.slices > 1:
            return jax.vmap(function)(*arguments)
        first = function(*jax.tree.map(lambda x: x[0], arguments))
        return jax.tree.map(lambda x: x[None], first)

    def whole(self, gradients: Float[Array, "slices ..."], shape: tuple[int, ...]):
        """An array like the tensor, of those like its slices."""
        if not self.before:
            return gradients.reshape(shape)
        stacked = gradients.reshape(*self.lengths, *gradients.shape[1:])
        return sharing_rules.back_through(self.before, shape, stacked)


def plan(
    uses: Sequence[Use],
    rules: dict[Path, Rule],
    equations: dict[Path, Any],
    shape: tuple[int, ...],
    settings: Settings,
) -> Shared | None:
    """How the gradient of a tensor is put together, None where it has no way.

    Args:
      uses: all of them, each with a rule.
      rules: by path.
      equations: by path.
      shape: of the tensor.
      settings: of the squares.
    """
    slicings = {(use.before, _lengths(use.loops, sliced=True)) for use in uses}
    if len(slicings) > 1:
        return None  # slices of one and of another kind
    before, lengths = next(iter(slicings))
    if before and len(lengths) > 1:
        return None
    found: dict[Any, list[Use]] = {}
    for use in uses:
        seen = equations[use.path].invars[rules[use.path].data].aval
        key = (rules[use.path], (seen.shape, seen.dtype), use.links)
        found.setdefault(key, []).append(use)
    groups = []
    for (rule, (of_data, dtype), _), alike in found.items():
        count = sum(math.prod(_lengths(use.loops, sliced=False)) for use in alike)
        data = jax.ShapeDtypeStruct(of_data, dtype)
        groups.append(Group(rule, tuple(alike), data, count))
    if any(group.rule.several is None for group in groups):
        return None
    links, of_weight = uses[0].links, uses[0].in_shape
    if links:
        of_weight = links[0].operation.seen[links[0].operand].shape
    if not before and (*lengths, *of_weight) != tuple(shape):
        return None
    rule = sharing_rules.of_groups(groups, of_weight, settings)
    slices = math.prod(lengths)
    return Shared(tuple(groups), rule, tuple(of_weight), slices, lengths, before)


def keeping(rule: Rule, back_to_data: Callable[..., Any]):
    """The operation of a rule, which keeps what its gradient is made of.

    (data, weight, tap) -> y, whose tap's cotangent is what it saw, encoded, and its own
    cotangent. The weight has none.

    Args:
      rule: of the operation.
      back_to_data: (rule, data, weight, cotangent) -> cotangent of the data.
    """

    @jax.custom_vjp
    def kept(data, weight, tap):
        del tap
        return rule.forward(data, weight)

    def forward(data, weight, tap):
        del tap
        return rule.forward(data, weight), (data, weight)

    def backward(residuals, cotangent):
        data, weight = residuals
        back = back_to_data(rule, data, weight, cotangent)
        return back, None, (encode(data), cotangent)

    kept.defvjp(forward, backward)
    return kept


def encode(data: Shaped[AnyArray, "..."]) -> Inexact[Array, "..."]:
    """Data as numbers that a cotangent may have: integers as two floats each."""
    data = jnp.asarray(data)
    if dtypes.has_gradient(data):
        return data
    if data.dtype.itemsize == 8:
        return data.astype(jnp.float64)  # there are none without 64 bits
    if data.dtype.itemsize < 4:
        return data.astype(jnp.float32)
    parts = jnp.stack([data >> 16, data & 0xFFFF], axis=-1)
    return parts.astype(jnp.float32)


def decode(
    encoded: Inexact[AnyArray, "..."], dtype: jax.typing.DTypeLike
) -> Shaped[Array, "..."]:
    """The data that were encoded."""
    encoded, dtype = jnp.asarray(encoded), jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.inexact) or dtype.itemsize != 4:
        return encoded.astype(dtype)
    return (encoded[..., 0].astype(dtype) << 16) | encoded[..., 1].astype(dtype)


def _lengths(loops: Sequence[Loop], *, sliced: bool) -> tuple[int, ...]:
    return tuple(loop.length for loop in loops if loop.sliced == sliced)


def _by_slice(array, loops):
    """Array [*loops, ...] as [slices, steps, ...]."""
    order = sorted(range(len(loops)), key=lambda axis: not loops[axis].sliced)
    rest = range(len(loops), array.ndim)
    steps = math.prod(_lengths(loops, sliced=False))
    slices = math.prod(_lengths(loops, sliced=True))
    shape = (slices, steps, *array.shape[len(loops) :])
    return array.transpose(*order, *rest).reshape(shape)
