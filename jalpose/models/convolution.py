"""Convolution with fast gradients on a CPU, for `nn.Conv`.

XLA's CPU convolution is fast forward, and so is its gradient by the input, a
convolution too. The gradient by the kernel is not: here it is a product of patches and
cotangents, in blocks that fit the cache (`pergrad.windows`), and a 1x1 convolution is
a matrix product throughout. A depthwise one is slow both ways: here it is a sum of
shifted inputs. `scripts/bench_convolution.py` measures how much that
saves, scripts/RESULTS.md has figures. On accelerators the native convolution is the
faster one.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jalpose.pergrad import depthwise
from jalpose.pergrad.windows import Window, channels_last, input_gradient, products


def blocked_convolution(
    inputs,
    kernel,
    window_strides,
    padding,
    *,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    precision=None,
    **_,
):
    """N-D convolution with the signature `nn.Conv(conv_general_dilated=...)` wants.

    Args:
      inputs: [B, *S, C].
      kernel: [*k, C / groups, D].
      window_strides: of each spatial axis.
      padding: (low, high) of each spatial axis, or `SAME` or `VALID`.
      lhs_dilation: of each spatial axis; None: ones.
      rhs_dilation: as lhs_dilation.
      dimension_numbers: ignored, the layout is NHWC, HWIO, NHWC.
      feature_group_count: groups.
      precision: of the products.

    Returns:
      [B, *S', D].
    """
    ones = (1,) * len(window_strides)
    if isinstance(padding, str):
        steps = zip(kernel.shape[:-2], rhs_dilation or ones, strict=True)
        reach = [(size - 1) * step + 1 for size, step in steps]
        sizes = inputs.shape[1:-1]
        padding = lax.padtype_to_pads(sizes, reach, window_strides, padding)
    if min(map(min, padding)) < 0 and tuple(lhs_dilation or ones) == ones:
        inputs, padding = _crop(inputs, padding)
    window = Window(
        kernel=tuple(kernel.shape[:-2]),
        strides=tuple(window_strides),
        padding=tuple(map(tuple, padding)),
        input_dilation=tuple(lhs_dilation or ones),
        kernel_dilation=tuple(rhs_dilation or ones),
        groups=feature_group_count,
    )
    if window.pointwise:
        flat = kernel.reshape(kernel.shape[-2:])
        return jnp.matmul(inputs, flat, precision=precision)
    if window.depthwise(kernel.shape) and inputs.dtype == kernel.dtype == jnp.float32:
        return _depthwise(window)(inputs, kernel)
    return _convolution(window, precision)(inputs, kernel)


def _crop(inputs, padding):
    """Inputs without what negative padding takes off, and the padding that is left.

    XLA's convolution on a CPU reads beyond its input where a low padding is negative
    (openxla/xla#48713).
    """
    taken = [(min(low, 0), min(high, 0), 0) for low, high in padding]
    whole = (0, 0, 0)
    cropped = lax.pad(inputs, inputs.dtype.type(0), [whole, *taken, whole])
    return cropped, [(max(low, 0), max(high, 0)) for low, high in padding]


@functools.cache
def _depthwise(window: Window):
    convolve = jax.custom_vjp(functools.partial(depthwise.convolve, window))

    def forward(x, kernel):
        return depthwise.convolve(window, x, kernel), (x, kernel)

    def backward(kept, cotangent):
        x, kernel = kept
        by_x = depthwise.input_gradient(window, kernel, cotangent, x.shape[1:-1])
        by_kernel = depthwise.products(window, x, cotangent[None])[0]
        return by_x, by_kernel.reshape(kernel.shape)

    convolve.defvjp(forward, backward)
    return convolve


@functools.cache
def _convolution(window: Window, precision):
    def native(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            window.strides,
            window.padding,
            window.input_dilation,
            window.kernel_dilation,
            channels_last(x.ndim),
            window.groups,
            precision=precision,
        )

    @jax.custom_vjp
    def convolve(x, kernel):
        return native(x, kernel)

    def forward(x, kernel):
        return native(x, kernel), (x, kernel)

    def backward(kept, cotangent):
        x, kernel = kept
        if window.groups == 1:
            size = x.shape[1:-1]
            by_x = input_gradient(window, kernel, cotangent, size, precision)
        else:
            (by_x,) = jax.linear_transpose(lambda x: native(x, kernel), x)(cotangent)
        with jax.default_matmul_precision(precision):
            by_kernel = products(window, x, cotangent[None], blocked=True)[0]
        # [groups, D / groups, k, C / groups] -> [*k, C / groups, D]
        by_kernel = by_kernel.transpose(2, 3, 0, 1).reshape(kernel.shape)
        return by_x, by_kernel.astype(kernel.dtype)

    convolve.defvjp(forward, backward)
    return convolve
