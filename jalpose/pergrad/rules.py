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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from jalpose.pergrad import AnyArray, dtypes, projections, squares, stable, windows
from jalpose.pergrad.stable import Square
from jalpose.pergrad.windows import Window


@dataclasses.dataclass(frozen=True)
class Settings:
    """How squares are computed.

    Attributes:
      approximate: Goodfellow's sum over positions instead of the norm.
      dtype: activations and cotangents are rounded to it before they are multiplied;
        None: they are left as they are.
      cpu: work in blocks that fit a CPU's caches.
    """

    approximate: bool
    dtype: DTypeLike | None
    cpu: bool


# What an operation takes, indices for an embedding, and k cotangents of its result.
Data = Shaped[AnyArray, "..."]
Weight = Float[AnyArray, "..."]
Cotangents = Float[AnyArray, "k ..."]


@dataclasses.dataclass(frozen=True)
class Rule:
    """How an operation y = op(data, weight) acts, and the norm of its weight gradient.

    Attributes:
      kind: `dense`, `conv`, `embedding` or `bias`.
      data: which operand is the data.
      weight: which one the parameter.
      forward: (data, weight) -> y.
      square: (data, cotangents [k, *y.shape]) -> [k], in at least float32.
      route: what `square` does, for one cotangent.
      gradient: (data, cotangents [k, *y.shape]) -> the gradients themselves, each
        flat, in at least float32.
      input_gradient: (weight, cotangent, shape of the data) -> cotangent of the data;
        None: that of `forward` by autodiff.
      linear: whether y is linear in the data (an embedding has no such thing).
      shape: of the matrix that the weight's gradient is as `projections` sees it.
      positions: that the weight is applied at, in all.
      arrange: one of the gradients of `gradient` -> an array like the weight.
      project: (drawn of `projections`, size, data, cotangents [k, *y.shape]) ->
        sketches [k, size] of the weight's gradient, in at least float32.
    """

    kind: str
    data: int
    weight: int
    forward: Callable[[Data, Weight], Float[Array, "..."]]
    square: Square
    route: str
    gradient: Callable[[Data, Cotangents], Float[Array, "k _"]] | None = None
    input_gradient: (
        Callable[[Weight, Float[Array, "..."], tuple[int, ...]], Float[Array, "..."]]
        | None
    ) = None
    linear: bool = True
    shape: projections.Shape | None = None
    positions: int = 1
    arrange: Callable[[Float[Array, " _"]], Float[Array, "..."]] | None = None
    project: Callable[..., Float[Array, "k size"]] | None = None


@dataclasses.dataclass(frozen=True)
class Operation:
    """An equation without its place in the program: equal ones share their rule.

    Attributes:
      primitive: what it binds.
      options: its parameters, by name.
      seen: shape and dtype of each operand.
      made: of each result.
    """

    primitive: core.Primitive
    options: tuple[tuple[str, Any], ...]
    seen: tuple[jax.ShapeDtypeStruct, ...]
    made: tuple[jax.ShapeDtypeStruct, ...]

    @property
    def params(self) -> dict[str, Any]:
        """Its parameters."""
        return dict(self.options)


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
    shapes = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays)
    operation = Operation(
        equation.primitive,
        tuple(equation.params.items()),
        shapes[: len(equation.invars)],
        shapes[len(equation.invars) :],
    )
    return _made(maker, operation, operand, settings)


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


def _rounded(settings, *arrays):
    """The arrays in the dtype of products; integers among them become floats."""
    dtype = settings.dtype
    found = (
        a if dtypes.has_gradient(a) else a.astype(dtypes.wide(*arrays)) for a in arrays
    )
    return tuple(a if dtype is None else a.astype(dtype) for a in found)


def _binding(operation: Operation, weight: int):
    """An operation as a function of (data, weight)."""

    def forward(data, kernel):
        operands = (kernel, data) if weight == 0 else (data, kernel)
        return operation.primitive.bind(*operands, **operation.params)

    return forward


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
        x, g = _rounded(settings, x, g)
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
    batched = _batched(settings, square, positions, way, {"gram": by_gram}, **options)
    forward, route = _binding(operation, weight), _route(settings, way(1))
    return Rule(
        "dense",
        data,
        weight,
        forward,
        batched,
        route,
        gradient,
        shape=projections.Shape(depth, groups * width),
        positions=positions,
        arrange=arrange,
        project=projections.by_example(project, loop=False),
    )


def _conv(operation, weight, settings) -> Rule | None:
    params = operation.params
    if weight != 1 or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]
    kernel = operation.seen[1]
    window = Window(
        kernel=tuple(kernel.shape[axis] for axis in numbers.rhs_spec[2:]),
        strides=tuple(params["window_strides"]),
        padding=tuple(map(tuple, params["padding"])),
        input_dilation=tuple(params["lhs_dilation"]),
        kernel_dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
    )

    seen, made = operation.seen[0].shape, operation.made[0].shape
    sizes = [
        (shape[spec[0]], *(shape[axis] for axis in spec[2:]), shape[spec[1]])
        for shape, spec in ((seen, numbers.lhs_spec), (made, numbers.out_spec))
    ]
    positions = math.prod(sizes[1][:-1])
    by_position = settings.approximate or positions == 1

    def last(x, spec):
        """Array [n, *size, c] of one whose axes stand as `spec` says."""
        order = (spec[0], *spec[2:], spec[1])
        return x.transpose(order)

    def canonical(x, g):
        x, g = _rounded(settings, x, g)
        cots = jax.vmap(lambda cot: last(cot, numbers.out_spec))(g)
        return last(x, numbers.lhs_spec), cots

    def rows(x, g):
        """A 1x1 convolution as a product of matrices."""
        return x.reshape(1, -1, x.shape[-1]), g.reshape(len(g), 1, -1, g.shape[-1])

    def square(x, g):
        wide = dtypes.wide(x, g)
        x, g = canonical(x, g)
        if by_position:
            energy = _window_energy(window, x.astype(wide))
            cots = g.reshape(len(g), -1, window.groups, g.shape[-1] // window.groups)
            return squares.per_position(energy, cots.swapaxes(1, 2), accumulate=wide)
        if window.pointwise:
            return squares.of_matrix(*rows(x, g), accumulate=wide)
        return squares.of_window(window, x, g, blocked=settings.cpu, accumulate=wide)

    def by_gram(shifted, x, g):
        options = {"accumulate": dtypes.wide(x, g), "products": settings.dtype}
        x, g = canonical(x, g)
        if window.pointwise:
            return squares.of_matrix_by_gram(*rows(x, g), **options)
        return squares.of_window_by_gram(window, x, g, shifted=shifted, **options)

    def gradient(x, g):
        options = {"blocked": settings.cpu, "accumulate": dtypes.wide(x, g)}
        x, cots = canonical(x, g)
        return windows.products(window, x, cots, **options).reshape(len(g), -1)

    def project(drawn, size, x, g):
        wide = dtypes.wide(x, g)
        x, g = canonical(x, g)
        if window.pointwise:
            return projections.of_matrix(drawn, size, *rows(x, g), accumulate=wide)
        return projections.of_window(
            drawn, size, window, x, g, blocked=settings.cpu, accumulate=wide
        )

    plain = _binding(operation, 1)

    def again(x, g):
        """As autodiff has it: the least to compile, for what is hardly ever run."""
        wide = dtypes.wide(x, g)
        x, g = _rounded(settings, x, g)
        dtype = jnp.result_type(x, g)
        zeros = jnp.zeros(kernel.shape, dtype)
        convolve = functools.partial(plain, x.astype(dtype))
        pull_back = jax.linear_transpose(lambda w: convolve(w).astype(dtype), zeros)
        found = [pull_back(cotangent.astype(dtype))[0] for cotangent in g]
        return jnp.stack([jnp.sum(jnp.square(w.astype(wide))) for w in found])

    def arrange(flat):
        spec = numbers.rhs_spec  # of features, channels and the window's axes
        order = (spec[0], *spec[2:], spec[1])
        found = flat.reshape([kernel.shape[axis] for axis in order])
        return found.transpose([order.index(axis) for axis in range(kernel.ndim)])

    ordered = numbers == windows.channels_last(kernel.ndim)

    def forward(x, w):
        # On a CPU a 1x1 convolution is twice as fast as a matrix product.
        if not (settings.cpu and window.pointwise and ordered):
            return plain(x, w)
        return lax.dot_general(
            x,
            w.reshape(w.shape[-2:]),
            (((x.ndim - 1,), (0,)), ((), ())),
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )

    def input_gradient(w, g, shape):
        if window.pointwise:
            return lax.dot_general(
                g,
                w.reshape(w.shape[-2:]),
                (((g.ndim - 1,), (1,)), ((), ())),
                precision=params["precision"],
            )
        size = shape[1:-1]
        return windows.input_gradient(window, w, g, size, params["precision"])

    def way(num):
        return squares.route(window, sizes[0], (num, *sizes[1]))

    grams = {
        name: functools.partial(by_gram, name == "shifted")
        for name in ("gram", "shifted")
    }
    loop = settings.cpu and not window.pointwise
    return Rule(
        "conv",
        0,
        1,
        forward,
        _batched(settings, square, positions, way, grams, loop=loop, again=again),
        _route(settings, way(1)),
        gradient,
        input_gradient if settings.cpu and ordered and window.groups == 1 else None,
        shape=projections.Shape(kernel.size // sizes[1][-1], sizes[1][-1]),
        positions=positions,
        arrange=arrange,
        project=projections.by_example(project, loop=loop),
    )


def _route(settings, way):
    return "positions" if settings.approximate else way


def _batched(settings, square, positions, way, grams, *, loop, again) -> Square:
    """Norms by the cheapest way for the k cotangents there are, batched by `vmap`.

    Args:
      settings: of the squares.
      square: the direct way, or Goodfellow's.
      positions: where there is but one, the gradient is an outer product, and its norm
        a product of norms: nothing can cancel.
      way: k -> name of the cheapest way.
      grams: name -> the same with doubts.
      loop: see `stable.by_example`, and so for `again`.
      again: the direct way of one cotangent.
    """
    if settings.approximate or positions == 1:
        return stable.by_example(stable.scaled(square), loop=loop)

    def cheapest(a, g):
        name = way(len(g))
        return square(a, g) if name == "direct" else grams[name](a, g)

    return stable.by_example(cheapest, loop=loop, again=again)


def _window_energy(window: Window, x):
    """Squared length |a_t|^2 of each patch: [n, *size, c] -> [g, t]."""
    squared = jnp.square(x).reshape(*x.shape[:-1], window.groups, -1).sum(-1)
    padded = windows.pad_input(window, squared)
    counts = [
        (size - reach) // stride + 1
        for size, reach, stride in zip(
            padded.shape[1:-1], window.reach, window.strides, strict=True
        )
    ]
    energy = windows.patches(window, padded, tuple(counts)).sum(-2)
    return energy.reshape(-1, window.groups).T


def _embedding(operation, weight, settings) -> Rule | None:
    params, numbers = operation.params, operation.params["dimension_numbers"]
    table, indices = operation.seen
    takes_rows = (
        weight == 0
        and tuple(params["slice_sizes"]) == (1, *table.shape[1:])
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and indices.shape[-1] == 1
        and tuple(numbers.offset_dims)
        == tuple(range(indices.ndim - 1, indices.ndim - 1 + table.ndim - 1))
    )
    if not takes_rows:
        return None
    rows = table.shape[0]
    # As autodiff has it: a row that is not there takes nothing, whatever was promised.
    clips = params["mode"] == lax.GatherScatterMode.CLIP

    def taken_rows(indices, g):
        """Rows, -1 where nothing is taken, and [k, t, p] cotangents, zeros there."""
        (g,) = _rounded(settings, g)
        flat = indices.reshape(-1)
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

    return Rule(
        "embedding",
        1,
        0,
        _binding(operation, 0),
        stable.by_example(square, loop=False),
        _route(settings, "gram"),
        linear=False,
        shape=projections.Shape(rows, table.size // rows),
        project=projections.by_example(project, loop=False),
    )


_MAKERS = {
    "dot_general": _dense,
    "conv_general_dilated": _conv,
    "gather": _embedding,
}
