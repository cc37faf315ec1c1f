"""Operations whose per-example gradient norm has a rule.

A rule is found from the operation itself, not from the layer it came from: a
`dot_general` may be Dense, DenseGeneral, Einsum or a convolution written as patches; a
`conv_general_dilated` any convolution of one to three axes, strided, padded, dilated,
grouped or transposed; a `gather` of rows an embedding. Vectors (biases, and scales of
BatchNorm, LayerNorm, RMSNorm, GroupNorm) need none: their gradient is a sum over
positions, which autodiff takes as cheaply as anything could.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from jalpose.pergrad import AnyArray, squares, windows
from jalpose.pergrad.squares import Square
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


def find_rule(equation, operand: int, settings: Settings) -> Rule | None:
    """The rule of an operation whose operand number `operand` is the parameter."""
    maker = _MAKERS.get(equation.primitive.name)
    return maker(equation, operand, settings) if maker else None


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
        return jnp.sum(jnp.square(g.astype(_wide(g))), axis=axes)

    return Rule("bias", data, operand, forward, square, "positions")


def _wide(*arrays):
    return jnp.promote_types(jnp.float32, jnp.result_type(*arrays))


def _rounded(settings, *arrays):
    if settings.dtype is None:
        return arrays
    return tuple(a.astype(settings.dtype) for a in arrays)


def _binding(equation, weight: int):
    """An equation as a function of (data, weight)."""

    def forward(data, kernel):
        operands = (kernel, data) if weight == 0 else (data, kernel)
        return equation.primitive.bind(*operands, **equation.params)

    return forward


def _dense(equation, weight, settings) -> Rule:
    contract, batch = equation.params["dimension_numbers"]
    data = 1 - weight
    x, w = equation.invars[data].aval, equation.invars[weight].aval
    taken = (*batch[data], *contract[data])
    free = tuple(axis for axis in range(x.ndim) if axis not in taken)
    num_free = w.ndim - len(batch[weight]) - len(contract[weight])
    groups = math.prod(x.shape[axis] for axis in batch[data])
    positions = math.prod(x.shape[axis] for axis in free)

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
        wide = _wide(x, g)
        a, g = canonical(x, g)
        if settings.approximate:
            energy = jnp.sum(jnp.square(a.astype(wide)), axis=-1)
            return squares.per_position(energy, g, accumulate=wide)
        return squares.of_matrix(a, g, accumulate=wide)

    def gradient(x, g):
        a, cots = canonical(x, g)
        found = windows.outer(a.swapaxes(0, 1), cots.swapaxes(1, 2), _wide(x, g))
        return found.reshape(len(g), -1)

    depth = x.size // max(groups * positions, 1)
    width = w.size // max(groups * depth, 1)
    direct, gram, _ = squares.costs(1, positions, depth, width)
    way = "positions" if settings.approximate else "gram" if gram < direct else "direct"
    # Nothing is gained by looping over examples: no patches are built.
    batched = squares.by_example(square, loop=False)
    forward = _binding(equation, weight)
    return Rule("dense", data, weight, forward, batched, way, gradient)


def _conv(equation, weight, settings) -> Rule | None:
    params = equation.params
    if weight != 1 or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]
    kernel = equation.invars[1].aval
    window = Window(
        kernel=tuple(kernel.shape[axis] for axis in numbers.rhs_spec[2:]),
        strides=tuple(params["window_strides"]),
        padding=tuple(map(tuple, params["padding"])),
        input_dilation=tuple(params["lhs_dilation"]),
        kernel_dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
    )

    def last(x, spec):
        """Array [n, *size, c] of one whose axes stand as `spec` says."""
        order = (spec[0], *spec[2:], spec[1])
        return x.transpose(order)

    def canonical(x, g):
        x, g = _rounded(settings, x, g)
        cots = jax.vmap(lambda cot: last(cot, numbers.out_spec))(g)
        return last(x, numbers.lhs_spec), cots

    def square(x, g):
        wide = _wide(x, g)
        x, g = canonical(x, g)
        if settings.approximate:
            energy = _window_energy(window, x.astype(wide))
            cots = g.reshape(len(g), -1, window.groups, g.shape[-1] // window.groups)
            return squares.per_position(energy, cots.swapaxes(1, 2), accumulate=wide)
        if window.pointwise:
            a = x.reshape(1, -1, x.shape[-1])
            cots = g.reshape(len(g), 1, -1, g.shape[-1])
            return squares.of_matrix(a, cots, accumulate=wide)
        return squares.of_window(window, x, g, blocked=settings.cpu, accumulate=wide)

    def gradient(x, g):
        x, cots = canonical(x, g)
        options = {"blocked": settings.cpu, "accumulate": _wide(x, g)}
        return windows.products(window, x, cots, **options).reshape(len(g), -1)

    plain = _binding(equation, 1)

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

    shapes = [variable.aval.shape for variable in equation.invars[:1]]
    shapes.append(equation.outvars[0].aval.shape)
    sizes = [
        (shape[spec[0]], *(shape[axis] for axis in spec[2:]), shape[spec[1]])
        for shape, spec in zip(
            shapes, (numbers.lhs_spec, numbers.out_spec), strict=True
        )
    ]
    way = squares.route(window, sizes[0], (1, *sizes[1]))
    return Rule(
        "conv",
        0,
        1,
        forward,
        squares.by_example(square, loop=settings.cpu and not window.pointwise),
        "positions" if settings.approximate else way,
        gradient,
        input_gradient if settings.cpu and ordered and window.groups == 1 else None,
    )


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


def _embedding(equation, weight, settings) -> Rule | None:
    params, numbers = equation.params, equation.params["dimension_numbers"]
    table, indices = (variable.aval for variable in equation.invars)
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
    fills = params["mode"] == lax.GatherScatterMode.FILL_OR_DROP

    def square(indices, g):
        wide = _wide(g)
        (g,) = _rounded(settings, g)
        flat = indices.reshape(-1)
        if fills:  # what is out of bounds takes nothing
            flat = jnp.where((flat >= 0) & (flat < rows), flat, -1)
        else:
            flat = jnp.clip(flat, 0, rows - 1)
        # Where nothing is taken the output may be NaN, and so its cotangent.
        taken = (flat >= 0)[:, None]
        cots = jnp.where(taken, g.reshape(len(g), flat.size, -1), 0)
        if settings.approximate:
            energy = taken.T.astype(wide)
            return squares.per_position(energy, cots[:, None], accumulate=wide)
        return squares.of_rows(flat, cots, accumulate=wide)

    return Rule(
        "embedding",
        1,
        0,
        _binding(equation, 0),
        squares.by_example(square, loop=False),
        "positions" if settings.approximate else "gram",
        linear=False,
    )


_MAKERS = {
    "dot_general": _dense,
    "conv_general_dilated": _conv,
    "gather": _embedding,
}


def tap(
    rule: Rule,
) -> Callable[[Data, Weight, Float[AnyArray, ""]], Float[Array, "..."]]:
    """The operation of a rule with a tap: (data, weight, tap) -> y.

    Backward, the tap's cotangent is the squared norm of the weight's gradient, and the
    weight's own is left out. The gradient itself never exists outside this layer.
    """

    @jax.custom_vjp
    def tapped(data, weight, tap):
        del tap
        return rule.forward(data, weight)

    def forward(data, weight, tap):
        return tapped(data, weight, tap), (data, weight)

    def backward(kept, cotangent):
        data, weight = kept
        square = rule.square(data, cotangent[None])[0].astype(tap_dtype(cotangent))
        if not rule.linear:
            return None, None, square
        if rule.input_gradient is not None:
            back = rule.input_gradient(weight, cotangent, data.shape)
            return back.astype(data.dtype), None, square
        shape = jax.ShapeDtypeStruct(data.shape, data.dtype)
        transposed = jax.linear_transpose(lambda x: rule.forward(x, weight), shape)
        return transposed(cotangent)[0], None, square

    tapped.defvjp(forward, backward)
    return tapped


def tap_dtype(output: Any) -> np.dtype:
    """Dtype of the tap of an operation, at least float32.

    Args:
      output: of the operation; anything with a dtype.
    """
    return jnp.promote_types(jnp.float32, output.dtype)
