"""Rules of weights that are used several times; what their uses kept is in `sharing`.

- Uses by equal operations, steps of a scan among them, are one operation on all that
  they saw, and go by its rule.
- Rows of a table and a product with it (a tied embedding) go by their own rules and the
  inner product of the two gradients, which is one of two Gram matrices.
- Of others the gradient of one example at a time is formed.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jalpose.pergrad import dtypes, projections, stable
from jalpose.pergrad.rule import Rule, Settings
from jalpose.pergrad.uses import Link, Operation, Use


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


def of_groups(
    groups: Sequence[Group], of_weight: tuple[int, ...], settings: Settings
) -> Rule:
    """The rule of all uses: of a tuple of data [n, ...] and one of cotangents.

    Args:
      groups: in the order of the tuples.
      of_weight: shape of the weight.
      settings: of the squares.
    """
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
            jax.vmap(functools.partial(back_through, chain, of_weight))(
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
    if len(of_weight) != 2 or not plain:
        return None
    if not _gives_rows(groups[second], links[second]):
        return None

    def sides(data, cotangents):
        wide = dtypes.wide(*cotangents)
        taken, of_rows = joined[first].sides(data[first], cotangents[first])
        seen, of_product = product.sides(data[second], cotangents[second])
        return taken, of_rows, seen[0].astype(wide), of_product[:, 0].astype(wide)

    def square(data, cotangents):
        taken, of_rows, seen, of_product = sides(data, cotangents)
        own = [
            joined[n].square(data[n], cotangents[n]).astype(seen.dtype)
            for n in (first, second)
        ]
        # <E, D> is the sum over rows taken of <cotangent, row of D>, of D = G^T A.
        picked = jnp.take(of_product, jnp.maximum(taken, 0), axis=-1)
        pairs = jnp.einsum("sd,ktd->kst", seen, of_rows.astype(seen.dtype))
        cross = 2 * jnp.sum(picked * pairs, axis=(1, 2))
        return stable.checked(own[0] + own[1] + cross, sum(own) + jnp.abs(cross))

    def project(drawn, size, data, cotangents):
        taken, of_rows, seen, of_product = sides(data, cotangents)
        options = {"accumulate": seen.dtype}
        rows = projections.of_rows(drawn, size, taken, of_rows, **options)

        def of_one(g):
            # Rows of the table are results here: the sides in the other order.
            sides = g[None], seen[None, None]
            return projections.of_matrix(drawn, size, *sides, **options)[0]

        return rows + jax.vmap(of_one)(of_product)

    tied = dataclasses.replace(formed, project=project)
    if product.route != "gram":
        return tied
    return dataclasses.replace(
        tied,
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


def back_through(chain: Sequence[Link], shape: tuple[int, ...], gradient: Array):
    """Gradient of a weight of that shape, of that of what is made of it."""
    if not chain:
        return gradient
    zeros = jnp.zeros(shape, gradient.dtype)
    return jax.linear_transpose(functools.partial(_through, chain), zeros)(gradient)[0]
