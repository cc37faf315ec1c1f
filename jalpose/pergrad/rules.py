"""Operations whose per-example gradient norm has a rule.

A rule is found from the operation itself, not from the layer it came from: a
`dot_general` may be Dense, DenseGeneral, Einsum or a convolution written as patches; a
`conv_general_dilated` any convolution of one to three axes, strided, padded, dilated,
grouped or transposed; a `gather` of rows an embedding. Vectors (biases, and scales of
BatchNorm, LayerNorm, RMSNorm, GroupNorm) need none: their gradient is a sum over
positions, which autodiff takes as cheaply as anything could.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jalpose.pergrad import dtypes, projections, squares, stable, windows
from jalpose.pergrad.convolutions import convolution
from jalpose.pergrad.rule import (
    Rule,
    Settings,
    batched,
    binding,
    of_several,
    rounded,
    route_of,
)
from jalpose.pergrad.uses import Operation

__all__ = ["Rule", "Settings", "bias_rule", "find_rule"]


def find_rule(equation, operand: int, settings: Settings) -> Rule | None:
    """The rule of an operation whose operand number `operand` is the parameter.

    None where there is none, with complex numbers, and where there is nothing. Equal
    operations have the same one, whose squares are then traced and lowered once.
    """
    maker = _MAKERS.get(equation.primitive.name)
    arrays = [variable.aval for variable in (*equation.invars, *equation.outvars)]
    if maker is None or not dtypes.is_real(*arrays):
        return None
    if not all(array.size for array in arrays):
        return None
    return _made(maker, Operation.of(equation), operand, settings)


@functools.lru_cache(maxsize=1024)
def _made(maker, operation, operand, settings):
    return maker(operation, operand, settings)


def bias_rule(equation, operand: int, settings: Settings) -> Rule | None:
    """Goodfellow's rule for a vector added at every position: |g_t|^2 summed over t."""
    if equation.primitive.name != "add":
        return None
    data = 1 - operand
    shape = equation.outvars[0].aval.shape
    if equation.invars[data].aval.shape != shape:
        return None

    def forward(x, bias):
        return x + bias

    def square(x, g):
        del x
        axes = tuple(range(1, g.ndim))
        return jnp.sum(jnp.square(g.astype(dtypes.wide(g))), axis=axes)

    return Rule("bias", data, operand, forward, square, "positions")


def _dense(operation, weight, settings) -> Rule:
    contract, batch = operation.params["dimension_numbers"]
    data = 1 - weight
    x, w = operation.seen[data], operation.seen[weight]
    taken = (*batch[data], *contract[data])
    free = tuple(axis for axis in range(x.ndim) if axis not in taken)
    num_free = w.ndim - len(batch[weight]) - len(contract[weight])
    groups = math.prod(x.shape[axis] for axis in batch[data])
    positions = math.prod(x.shape[axis] for axis in free)
    by_position = settings.approximate or positions == 1

    def canonical(x, g):
        x, g = rounded(settings, x, g)
        a = x.transpose(*batch[data], *free, *contract[data])
        first, last = 1 + len(batch[data]), g.ndim
        if weight == 0:  # the result has the parameter's own axes first
            order = (*range(first + num_free, last), *range(first, first + num_free))
            g = g.transpose(*range(first), *order)
        shape = (len(g), groups, positions, -1)
        return a.reshape(groups, positions, -1), g.reshape(shape)

    def square(x, g):
        wide = dtypes.wide(x, g)
        a, g = canonical(x, g)
        if by_position:
            energy = jnp.sum(jnp.square(a.astype(wide)), axis=-1)
            return squares.per_position(energy, g, accumulate=wide)
        return squares.of_matrix(a, g, accumulate=wide)

    def by_gram(x, g):
        options = {"accumulate": dtypes.wide(x, g), "products": settings.dtype}
        return squares.of_matrix_by_gram(*canonical(x, g), **options)

    def gradient(x, g):
        wide = dtypes.wide(x, g)
        a, cots = canonical(x, g)
        found = windows.outer(a.swapaxes(0, 1), cots.swapaxes(1, 2), wide)
        return found.reshape(len(g), -1)

    def project(drawn, size, x, g):
        wide = dtypes.wide(x, g)
        return projections.of_matrix(drawn, size, *canonical(x, g), accumulate=wide)

    kept = [axis for axis in range(w.ndim) if axis not in batch[weight]]
    kept = [axis for axis in kept if axis not in contract[weight]]
    order = (*batch[weight], *kept, *contract[weight])

    def arrange(flat):
        found = flat.reshape([w.shape[axis] for axis in order])
        return found.transpose([order.index(axis) for axis in range(w.ndim)])

    depth = x.size // max(groups * positions, 1)
    width = w.size // max(groups * depth, 1)

    def way(num):
        return squares.matrix_route(num, positions, depth, width)

    # Nothing is gained by looping over examples: no patches are built.
    options = {"loop": False, "again": square}
    grams = {"gram": by_gram}
    squared = batched(settings, square, positions, way, grams, **options)
    forward, route = binding(operation, weight), route_of(settings, way(1))

    def several(count):
        """As many as one, whose data have one more axis that is free."""
        joined = _with_axis(operation, weight, count)
        place = len(batch[weight]) + (num_free if weight == 0 else 0)
        shape = list(operation.made[0].shape)
        shape.insert(place, count)
        made = jax.ShapeDtypeStruct(tuple(shape), operation.made[0].dtype)
        joined = dataclasses.replace(joined, made=(made,))
        rule = _made(_dense, joined, weight, settings)
        return of_several(plain, rule, lambda x: x, lambda y: jnp.moveaxis(y, 0, place))

    plain = Rule(
        "dense",
        data,
        weight,
        forward,
        squared,
        route,
        gradient,
        shape=projections.Shape(depth, groups * width),
        positions=positions,
        arrange=arrange,
        project=projections.by_example(project, loop=False),
        sides=canonical,
        operation=operation,
        several=several,
    )
    return plain


def _with_axis(operation, weight, count):
    """A product whose data have an axis of so many before all others."""
    contract, batch = operation.params["dimension_numbers"]
    numbers = [list(contract), list(batch)]
    for axes in numbers:
        axes[1 - weight] = tuple(axis + 1 for axis in axes[1 - weight])
    seen = list(operation.seen)
    x = seen[1 - weight]
    seen[1 - weight] = jax.ShapeDtypeStruct((count, *x.shape), x.dtype)
    options = operation.params | {"dimension_numbers": tuple(map(tuple, numbers))}
    return dataclasses.replace(
        operation, options=tuple(options.items()), seen=tuple(seen)
    )


def _embedding(operation, weight, settings) -> Rule | None:
    params, numbers = operation.params, operation.params["dimension_numbers"]
    table, indices = operation.seen
    width = table.ndim - 1  # axes of a row
    axes, gone = tuple(numbers.start_index_map), tuple(numbers.collapsed_slice_dims)
    # As autodiff has it: a row that is not there takes nothing, whatever was promised.
    clips = params["mode"] == lax.GatherScatterMode.CLIP
    first = indices.ndim - 1  # axis of the result that a row begins at
    takes_rows = (
        weight == 0
        and tuple(params["slice_sizes"]) == (1, *table.shape[1:])
        and gone in ((), (0,))
        # Where the others are said to begin, clipped, is where they begin.
        and (axes == (0,) or (clips and 0 in axes))
        and not numbers.operand_batching_dims
        and indices.shape[-1] == len(axes)
        and tuple(numbers.offset_dims)
        == tuple(range(first, first + width + (0 not in gone)))
    )
    if not takes_rows:
        return None
    rows = table.shape[0]

    def taken_rows(indices, g):
        """Rows, -1 where nothing is taken, and [k, t, p] cotangents, zeros there."""
        (g,) = rounded(settings, g)
        flat = indices[..., axes.index(0)].reshape(-1)
        if flat.dtype.itemsize < 4:  # or the number of rows might not fit
            flat = flat.astype(jnp.int32)
        if clips:
            flat = jnp.clip(flat, 0, rows - 1)
        flat = jnp.where((flat >= 0) & (flat < rows), flat, -1)
        # Where nothing is taken the output may be NaN, and so its cotangent.
        taken = (flat >= 0)[:, None]
        return flat, jnp.where(taken, g.reshape(len(g), flat.size, -1), 0)

    def square(indices, g):
        wide = dtypes.wide(g)
        flat, cots = taken_rows(indices, g)
        if settings.approximate:
            energy = (flat >= 0)[None].astype(wide)
            return squares.per_position(energy, cots[:, None], accumulate=wide)
        return squares.of_rows(flat, cots, accumulate=wide)

    def project(drawn, size, indices, g):
        flat, cots = taken_rows(indices, g)
        options = {"accumulate": dtypes.wide(g)}
        return projections.of_rows(drawn, size, flat, cots, **options)

    def several(count):
        """As many as one, by indices with one more axis."""
        offsets = tuple(axis + 1 for axis in numbers.offset_dims)
        options = params | {"dimension_numbers": numbers._replace(offset_dims=offsets)}
        shapes = [
            jax.ShapeDtypeStruct((count, *x.shape), x.dtype)
            for x in (indices, operation.made[0])
        ]
        joined = dataclasses.replace(
            operation,
            options=tuple(options.items()),
            seen=(table, shapes[0]),
            made=(shapes[1],),
        )
        rule = _made(_embedding, joined, 0, settings)
        return of_several(plain, rule, lambda x: x, lambda y: y)

    plain = Rule(
        "embedding",
        1,
        0,
        binding(operation, 0),
        stable.by_example(square, loop=False),
        route_of(settings, "gram"),
        linear=False,
        shape=projections.Shape(rows, table.size // rows),
        project=projections.by_example(project, loop=False),
        sides=taken_rows,
        operation=operation,
        several=several,
    )
    return plain


_MAKERS = {
    "dot_general": _dense,
    "conv_general_dilated": convolution,
    "gather": _embedding,
}
