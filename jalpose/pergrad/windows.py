"""Convolutions as windows: patches, and products of patches with cotangents.

The gradient of a convolution's kernel is A^T G: A [t, d] holds the patch the kernel
sees at each of the t output positions, G [t, p] the cotangents there. Building A whole
costs more than the product: for a 3x3 kernel it is nine times the input, and the
memory traffic dominates on a CPU. Here A is built in blocks that fit the cache, or, for
norms, not at all.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jalpose.pergrad import AnyArray, places

# Bytes of patches at a time on a CPU: large enough for an efficient product, small
# enough for the last-level cache (`scripts/bench_convolution.py` shows the gain).
BLOCK_BYTES = 4_800_000
# Channels from which on a pixel of the kernel makes a product of its own.
WIDE = 8


@dataclasses.dataclass(frozen=True)
class Window:
    """Geometry of a convolution over n spatial axes, channels last.

    Attributes:
      kernel: size along each axis.
      strides: see `lax.conv_general_dilated`.
      padding: (low, high) of each axis, may be negative.
      input_dilation: above 1 in a transposed convolution.
      kernel_dilation: a trous.
      groups: feature groups.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether each output position sees its own input position and no other."""
        return (
            math.prod(self.kernel) == 1
            and all(size == 1 for size in (*self.strides, *self.input_dilation))
            and all(pad == (0, 0) for pad in self.padding)
            and self.groups == 1
        )

    def depthwise(self, kernel: tuple[int, ...]) -> bool:
        """Whether a kernel of this shape has one channel in and out in each group."""
        return self.groups > 1 and kernel[-2:] == (1, self.groups)

    @property
    def reach(self) -> tuple[int, ...]:
        """Pixels from a kernel's first to its last, both included."""
        return tuple(
            (size - 1) * step + 1
            for size, step in zip(self.kernel, self.kernel_dilation, strict=True)
        )


def pad_input(
    window: Window, x: Float[AnyArray, "n *size c"]
) -> Float[Array, "n *padded c"]:
    """Input dilated and padded, in its own dtype: windows are plain slices of it."""
    spatial = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(
            window.padding, window.input_dilation, strict=True
        )
    ]
    config = [(0, 0, 0), *spatial, (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def patches(
    window: Window, padded: Float[AnyArray, "n *padded c"], positions: tuple[int, ...]
) -> Float[Array, "n *out w c"]:
    """Pixels of the window at each output position, side by side.

    Args:
      window: its geometry.
      padded: of `pad_input`.
      positions: output positions along each axis, *out.

    Returns:
      [n, *out, w, c], the kernel's pixels rows first, in the dtype of `padded`.
    """
    shifted = []
    for offset in itertools.product(*map(range, window.kernel)):
        starts = [o * d for o, d in zip(offset, window.kernel_dilation, strict=True)]
        limits = [
            start + (count - 1) * stride + 1
            for start, count, stride in zip(
                starts, positions, window.strides, strict=True
            )
        ]
        shifted.append(
            lax.slice(
                padded,
                (0, *starts, 0),
                (padded.shape[0], *limits, padded.shape[-1]),
                (1, *window.strides, 1),
            )
        )
    return jnp.stack(shifted, axis=-2)


def products(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    cotangents: Float[AnyArray, "k n *out f"],
    *,
    blocked: bool,
    accumulate: DTypeLike = jnp.float32,
) -> Float[Array, "k g f//g w c//g"]:
    """Kernel gradients A^T G, summed over the images and all positions.

    Args:
      window: geometry.
      x: the input.
      cotangents: k of them, of the output.
      blocked: build the patches in blocks that fit a CPU's cache.
      accumulate: dtype of the products.

    Returns:
      [k, g, f / g, w, c / g], of dtype `accumulate`.
    """
    num, groups = cotangents.shape[0], window.groups
    channels, features = x.shape[-1], cotangents.shape[-1]
    width = math.prod(window.kernel) * channels // groups

    def product(padded_part, cot_part):
        found = patches(window, padded_part, cot_part.shape[2:-1])
        *where, taps, _ = found.shape
        left = found.reshape(math.prod(where), taps, groups, channels // groups)
        right = cot_part.reshape(num, -1, groups, features // groups)
        return outer(left.swapaxes(1, 2).reshape(-1, groups, width), right, accumulate)

    bytes_a_position = width * groups * x.dtype.itemsize if blocked else 0
    total = over_blocks(window, x, cotangents, product, bytes_a_position)
    return total.reshape(num, groups, features // groups, -1, channels // groups)


def over_blocks(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    cotangents: Float[AnyArray, "k n *out f"],
    product: Callable[..., Array],
    bytes_a_position: int,
) -> Array:
    """Sum over all images and positions of something made of patches and cotangents.

    Args:
      window: geometry.
      x: the input.
      cotangents: k of them, of the output.
      product: (padded input, cotangents) of some positions -> what is summed up.
      bytes_a_position: of what `product` holds; blocks of positions are as large as
        fit a CPU's cache. 0: all at once.
    """
    positions = cotangents.shape[2:-1]
    padded = pad_input(window, x)
    rows = _rows(positions, bytes_a_position) if bytes_a_position else 0
    blocks = x.shape[0] * (positions[0] // rows) if rows else 1
    if blocks == 1:
        return product(padded, cotangents)
    return _sum_blocks(window, padded, cotangents, product, rows, blocks)


def squared_norms(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    cotangents: Float[AnyArray, "k n *out f"],
    accumulate: DTypeLike = jnp.float32,
) -> Float[Array, " k"]:
    """Squared norms of the kernel gradients A^T G, without groups.

    One pixel of the kernel at a time: what it sees is a slice of the input, and its
    part of the gradient is squared and thrown away. No patch is ever built.

    Args:
      window: geometry, of one group.
      x: the input.
      cotangents: k of them, of the output.
      accumulate: dtype of products and sums, and of the result.
    """
    num, features, channels = len(cotangents), cotangents.shape[-1], x.shape[-1]
    seen_at = seen_by_pixel(window, x, cotangents.shape[2:-1])
    # As a plain product has it, [k f, t] by [t, c]: transposed once, and not at every
    # pixel.
    by_feature = jnp.moveaxis(cotangents, -1, 1)
    rows = by_feature.reshape(num * features, -1)

    def add(total, start):
        seen = seen_at(start).reshape(-1, channels)
        part = jnp.matmul(rows, seen, preferred_element_type=accumulate)
        part = part.reshape(num, -1)
        return total + jnp.sum(jnp.square(part), axis=1), None

    total = places.vary_as(jnp.zeros(num, accumulate), (x, cotangents))
    return lax.scan(add, total, starts_of(window))[0]


def starts_of(window: Window) -> np.ndarray:
    """Where in the padded input each pixel of the kernel begins: int32 [w, axes]."""
    pixels = np.array(list(np.ndindex(*window.kernel)), np.int32)
    return pixels * np.array(window.kernel_dilation, np.int32)


def seen_by_pixel(
    window: Window, x, positions: tuple[int, ...]
) -> Callable[[Array], Array]:
    """What a pixel of the kernel sees, by a row of `starts_of`: [n, *out, c]."""
    padded = pad_input(window, x)
    sides = zip(positions, window.strides, strict=True)
    sizes = (len(x), *((n - 1) * stride + 1 for n, stride in sides), x.shape[-1])

    def seen_at(start):
        zero = jnp.zeros_like(start[0])  # of one dtype with the others, as asked
        seen = lax.dynamic_slice(padded, (zero, *start, zero), sizes)
        return lax.slice(seen, (0,) * seen.ndim, seen.shape, (1, *window.strides, 1))

    return seen_at


def transposed(window: Window, out: tuple[int, ...], size: tuple[int, ...]) -> Window:
    """The convolution of cotangents *out that gives those of the input, *size."""
    padding = []
    for axis, reach in enumerate(window.reach):
        before = reach - window.padding[axis][0] - 1
        dilated_in = (size[axis] - 1) * window.input_dilation[axis] + 1
        dilated_out = (out[axis] - 1) * window.strides[axis] + 1
        padding.append((before, dilated_in + reach - 1 - dilated_out - before))
    return dataclasses.replace(
        window,
        strides=window.input_dilation,
        padding=tuple(padding),
        input_dilation=window.strides,
    )


def input_gradient(
    window: Window,
    kernel: Float[AnyArray, "*kernel c f"],
    cotangent: Float[Array, "n *out f"],
    size: tuple[int, ...],
    precision: lax.PrecisionLike,
) -> Float[Array, "n *size c"]:
    """Gradient of an ungrouped convolution by its input, as a convolution.

    Autodiff's own says the same with kernel and channels in an order that XLA sorts
    out on a CPU at the outermost level alone: in a loop it then runs eight times
    slower. Here they are put in order, and the barrier keeps them so.

    Args:
      window: geometry of the convolution.
      kernel: its kernel.
      cotangent: of its output.
      size: spatial axes of the input, *size.
      precision: of the products, as `lax.conv_general_dilated` takes it.

    Returns:
      [n, *size, c], in the dtype of the cotangent.
    """
    axes = tuple(range(len(window.kernel)))
    swapped = lax.optimization_barrier(jnp.flip(kernel, axes).swapaxes(-1, -2))
    back = transposed(window, cotangent.shape[1:-1], size)
    return lax.conv_general_dilated(
        cotangent,
        swapped,
        window_strides=back.strides,
        padding=back.padding,
        lhs_dilation=back.input_dilation,
        rhs_dilation=back.kernel_dilation,
        dimension_numbers=channels_last(cotangent.ndim),
        precision=precision,
    )


def channels_last(ndim: int) -> lax.ConvDimensionNumbers:
    """Layout [n, *size, c], [*kernel, c, f], [n, *out, f], of `ndim` axes each."""
    image = (0, ndim - 1, *range(1, ndim - 1))
    return lax.ConvDimensionNumbers(
        image, (ndim - 1, ndim - 2, *range(ndim - 2)), image
    )


def _sum_blocks(window, padded, cotangents, product, rows, blocks):
    """Sum of `product` over blocks of `rows` output rows of one image at a time."""
    per_image = cotangents.shape[2] // rows
    num, _, _, *rest = cotangents.shape
    step, reach = window.strides[0], window.reach[0]

    def part(index):
        image, block = index // per_image, index % per_image
        seen = lax.dynamic_slice(
            padded,
            (image, block * rows * step, *[0] * (padded.ndim - 2)),
            (1, (rows - 1) * step + reach, *padded.shape[2:]),
        )
        cot = lax.dynamic_slice(
            cotangents,
            (0, image, block * rows, *[0] * len(rest)),
            (num, 1, rows, *rest),
        )
        return product(seen, cot)

    def add(total, index):
        return jax.tree.map(jnp.add, total, part(index)), None

    shape = jax.eval_shape(part, 0)
    total, _ = lax.scan(add, jnp.zeros(shape.shape, shape.dtype), jnp.arange(blocks))
    return total


def outer(
    left: Float[AnyArray, "t g d"],
    right: Float[AnyArray, "k t g p"],
    accumulate: DTypeLike,
) -> Float[Array, "k g p d"]:
    """Outer products of what stands at each position, summed over the positions.

    They are taken and returned in the dtype `accumulate`. Groups of one are left out of
    the product: a batch axis of size one would send it down a slower road.
    """
    einsum = functools.partial(jnp.einsum, preferred_element_type=accumulate)
    if left.shape[1] == 1:
        left, right = left[:, 0], right[:, :, 0]
        if len(right) == 1 and right.shape[-1] > left.shape[-1]:
            # The smaller side first: a quarter faster on a CPU.
            return einsum("td,tp->dp", left, right[0]).T[None, None]
        return einsum("td,ktp->kpd", left, right)[:, None]
    return einsum("tgd,ktgp->kgpd", left, right)


def _rows(positions, bytes_a_position) -> int:
    """The most rows of output that divide them all and keep patches in the cache."""
    bytes_a_row = bytes_a_position * math.prod(positions[1:])
    fitting = [
        rows
        for rows in range(1, positions[0] + 1)
        if positions[0] % rows == 0 and rows * bytes_a_row <= BLOCK_BYTES
    ]
    return max(fitting, default=1)
