"""Depthwise convolutions as sums of shifted inputs: each channel by its own kernel.

XLA's own on a CPU takes ten times as long and more, forward and backward.
"""

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jalpose.pergrad import AnyArray, places, windows
from jalpose.pergrad.windows import Window


def convolve(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    kernel: Float[AnyArray, "*kernel 1 c"],
) -> Float[Array, "n *out c"]:
    """Convolution of each channel by its own kernel: a sum of shifted inputs.

    Args:
      window: its geometry, of as many groups as channels.
      x: the input.
      kernel: of each channel.
    """
    padded = (
        size + low + high + (size - 1) * (dilation - 1)
        for size, (low, high), dilation in zip(
            x.shape[1:-1], window.padding, window.input_dilation, strict=True
        )
    )
    sides = zip(padded, window.reach, window.strides, strict=True)
    positions = tuple((size - reach) // stride + 1 for size, reach, stride in sides)
    seen_at = windows.seen_by_pixel(window, x, positions)

    def add(total, pixel):
        start, weights = pixel
        return total + seen_at(start) * weights, None

    rows = kernel.reshape(-1, *[1] * (x.ndim - 1), kernel.shape[-1])
    shape = (len(x), *positions, x.shape[-1])
    total = places.vary_as(jnp.zeros(shape, x.dtype), (x, kernel))
    return lax.scan(add, total, (windows.starts_of(window), rows))[0]


def products(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    cotangents: Float[AnyArray, "k n *out c"],
    accumulate: DTypeLike = jnp.float32,
) -> Float[Array, "k w c"]:
    """Kernel gradients of `convolve`, of k cotangents; see `windows.products`."""
    seen_at = windows.seen_by_pixel(window, x, cotangents.shape[2:-1])
    axes = tuple(range(1, cotangents.ndim - 1))
    cots = cotangents.astype(accumulate)

    def pixel(_, start):
        seen = seen_at(start)[None].astype(accumulate)
        return None, jnp.sum(seen * cots, axis=axes)

    return lax.scan(pixel, None, windows.starts_of(window))[1].swapaxes(0, 1)


def input_gradient(
    window: Window,
    kernel: Float[AnyArray, "*kernel 1 c"],
    cotangent: Float[Array, "n *out c"],
    size: tuple[int, ...],
) -> Float[Array, "n *size c"]:
    """Gradient of `convolve` by its input; see `windows.input_gradient`."""
    back = windows.transposed(window, cotangent.shape[1:-1], size)
    return convolve(back, cotangent, jnp.flip(kernel, range(len(window.kernel))))
