"""Gradients of weights that are used several times, cross terms included.

A weight that is used at several places of a program (a tied embedding, a shared head),
or at each step of a `lax.scan`, has the sum over its uses as its gradient, whose norm
is not the sum of their norms. What each use saw and its cotangent are kept until the
backward pass is through: far less than a gradient for each step. Then

- uses by equal operations, steps of a scan among them, are one operation on all that
  they saw, and go by its rule;
- rows of a table and a product with it (a tied embedding) go by their own rules and the
  inner product of the two gradients, which is one of two Gram matrices;
- of others the gradient of one example at a time is formed.

A scan that takes a slice of a tensor a step has as many weights: each step's norm is
then its own, and they are added up.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Shaped

from jalpose.pergrad import AnyArray, dtypes, projections, stable
from jalpose.pergrad.rule import Rule, Settings
from jalpose.pergrad.uses import Link, Loop, Operation, Path, Use

# What a use saw, as numbers that have a gradient, and its cotangent.
Kept = tuple[Inexact[Array, "..."], Inexact[Array, "..."]]


class Group(NamedTuple):
    """Uses by equal operations, in one place of the weight.

    Attributes:
      rule: of one of them.
      uses: all of them.
      data: shape and dtype of what one takes.
      num: of them and of the steps of scans they lie in.
    """

    rule: Rule
    uses: tuple[Use, ...]
    data: Any
    num: int


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
        return _back_through(self.before, shape, stacked)


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
    rule = _rule(groups, of_weight, settings)
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


def _rule(groups, of_weight, settings) -> Rule:
    links = [group.uses[0].links for group in groups]
    joined = [_several(group) for group in groups]
    if len(groups) == 1 and all(link.whole for link in links[0]):
        return _of_one(joined[0])
    formed = _formed(groups, joined, links, of_weight, settings)
    tied = _tied(groups, joined, links, of_weight, formed)
    return formed if tied is None else tied


def _of_one(rule: Rule) -> Rule:
    """The same rule, of tuples of one."""

    def first(function):
        def of_first(*arguments):
            *others, data, cotangents = arguments
            return function(*others, data[0], cotangents[0])

        return of_first if function is not None else None

    return dataclasses.replace(
        rule,
        square=first(rule.square),
        gradient=first(rule.gradient),
        project=first(rule.project),
        forward=lambda data, weight: (rule.forward(data[0], weight),),
    )


def _several(group: Group) -> Rule:
    assert group.rule.several is not None  # of `plan`
    return group.rule.several(group.num)


def _operation(group: Group) -> Operation:
    assert group.rule.operation is not None  # of all that `several` is of
    return group.rule.operation


def _formed(groups, joined, links, of_weight, settings) -> Rule:
    """The rule of a gradient that is formed, added up over the groups."""

    def gradient(data, cotangents):
        found = [
            jax.vmap(functools.partial(_back_through, chain, of_weight))(
                _weight_gradients(rule, group, x, g)
            )
            for group, rule, chain, x, g in zip(
                groups, joined, links, data, cotangents, strict=True
            )
        ]
        return sum(found).reshape(len(found[0]), -1)

    def square(data, cotangents):
        return jnp.sum(jnp.square(gradient(data, cotangents)), axis=1)

    def project(drawn, size, data, cotangents):
        gradients = gradient(data, cotangents).reshape(-1, *of_weight)
        of_one = functools.partial(projections.of_gradient, drawn, size)
        return jax.vmap(of_one)(gradients)

    of_gradient = 4 * math.prod(of_weight)
    options = {"loop": settings.cpu, "formed": of_gradient}
    return Rule(
        "shared",
        0,
        1,
        lambda data, weight: _forward(joined, links, data, weight),
        stable.by_example(square, **options),
        "summed",
        gradient,
        shape=projections.shape_of(jax.ShapeDtypeStruct(of_weight, jnp.float32)),
        positions=sum(rule.positions for rule in joined),
        arrange=lambda flat: flat.reshape(of_weight),
        project=project,
    )


def _tied(groups, joined, links, of_weight, formed) -> Rule | None:
    """The rule of rows taken from a table and one product with the table."""
    kinds = [rule.kind for rule in joined]
    rows = [n for n, kind in enumerate(kinds) if kind == "embedding"]
    if len(groups) != 2 or sorted(kinds) != ["dense", "embedding"]:
        return None
    (first,), second = rows, kinds.index("dense")
    product = joined[second]
    plain = all(_keeps_layout(link) for link in links[first])
    if len(of_weight) != 2 or not plain or product.route != "gram":
        return None
    if not _gives_rows(groups[second], links[second]):
        return None

    def square(data, cotangents):
        wide = dtypes.wide(*cotangents)
        taken, of_rows = joined[first].sides(data[first], cotangents[first])
        seen, of_product = product.sides(data[second], cotangents[second])
        seen, of_product = seen[0].astype(wide), of_product[:, 0].astype(wide)
        own = [
            joined[n].square(data[n], cotangents[n]).astype(wide)
            for n in (first, second)
        ]
        # <E, D> is the sum over rows taken of <cotangent, row of D>, of D = G^T A.
        picked = jnp.take(of_product, jnp.maximum(taken, 0), axis=-1)
        pairs = jnp.einsum("sd,ktd->kst", seen, of_rows.astype(wide))
        cross = 2 * jnp.sum(picked * pairs, axis=(1, 2))
        return stable.checked(own[0] + own[1] + cross, sum(own) + jnp.abs(cross))

    return dataclasses.replace(
        formed,
        square=stable.by_example(square, loop=False, again=_square_of(formed)),
        route="gram",
    )


def _square_of(formed: Rule):
    def square(data, cotangents):
        assert formed.gradient is not None  # of `_formed`
        gradients = formed.gradient(data, cotangents)
        return jnp.sum(jnp.square(gradients), axis=1)

    return square


def _gives_rows(group: Group, chain) -> bool:
    """Whether a product has a result for each row of the table: its first axis."""
    operation, weight = _operation(group), group.rule.weight
    contract, batch = (axes[weight] for axes in operation.params["dimension_numbers"])
    if len(operation.seen[weight].shape) != 2 or batch or len(contract) != 1:
        return False
    turned = False
    for link in chain:
        if link.operation.primitive.name == "transpose":
            turned ^= link.operation.params["permutation"] == (1, 0)
        elif not _keeps_layout(link):
            return False
    return tuple(contract) == (int(not turned),)


def _keeps_layout(link: Link) -> bool:
    return link.operation.primitive.name in ("convert_element_type", "copy")


def _weight_gradients(rule, group, data, cotangents):
    """Gradients [k, ...] of what an operation takes as its weight, formed."""
    if rule.gradient is not None and rule.arrange is not None:
        return jax.vmap(rule.arrange)(rule.gradient(data, cotangents))
    wide = dtypes.wide(cotangents)
    shape = _operation(group).seen[group.rule.weight].shape
    zeros = jnp.zeros(shape, wide)
    back = jax.linear_transpose(
        lambda weight: rule.forward(data, weight).astype(wide), zeros
    )
    return jax.vmap(lambda g: back(g.astype(wide))[0])(cotangents)


def _forward(joined, links, data, weight):
    return tuple(
        rule.forward(x, _through(chain, weight))
        for rule, chain, x in zip(joined, links, data, strict=True)
    )


def _through(chain: Sequence[Link], weight: Array) -> Array:
    """What operations make of a weight, with zeros beside it, in its own dtype."""
    for link in chain:
        operation = link.operation
        if operation.primitive.name == "convert_element_type":
            continue
        operands = [jnp.zeros(x.shape, weight.dtype) for x in operation.seen]
        operands[link.operand] = weight
        made = operation.primitive.bind(*operands, **operation.params)
        weight = made[link.result] if operation.primitive.multiple_results else made
    return weight


def _back_through(chain: Sequence[Link], shape: tuple[int, ...], gradient: Array):
    """Gradient of a weight of that shape, of that of what is made of it."""
    if not chain:
        return gradient
    zeros = jnp.zeros(shape, gradient.dtype)
    return jax.linear_transpose(functools.partial(_through, chain), zeros)(gradient)[0]
