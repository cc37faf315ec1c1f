"""Convolution as shifted slices and one matrix product, for `nn.Conv` on the CPU.

XLA's CPU convolutions are fast forward, but their weight gradients under `vmap`
become grouped convolutions, which are not. Written as patches times kernel, every
gradient is a plain matrix product. `scripts/bench_convolution.py` measures how much
that saves, the README has the figures.
On accelerators the native convolution is the faster one.
"""

import jax.numpy as jnp


def patch_convolution(
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
    """2-D convolution with the signature `nn.Conv(conv_general_dilated=...)` wants.

    Args:
      inputs: [B, H, W, C].
      kernel: [kh, kw, C, D].
      window_strides: (rows, columns).
      padding: ((top, bottom), (left, right)).
      lhs_dilation: must be ones; so must rhs_dilation and feature_group_count.
      rhs_dilation: see lhs_dilation.
      dimension_numbers: ignored, the layout is NHWC, HWIO, NHWC.
      feature_group_count: see lhs_dilation.
      precision: of the matrix product.

    Returns:
      [B, H', W', D].

    Raises:
      ValueError: for dilated or grouped convolutions, which the pose networks do
        not use.
    """
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    if feature_group_count != 1 or any(d != 1 for d in dilations):
        raise ValueError(
            "patch_convolution does neither dilated nor grouped convolutions: "
            f"{lhs_dilation=}, {rhs_dilation=}, {feature_group_count=}"
        )
    rows, cols = kernel.shape[:2]
    row_stride, col_stride = window_strides
    x = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    height = (x.shape[1] - rows) // row_stride + 1
    width = (x.shape[2] - cols) // col_stride + 1
    shifted = [
        x[
            :,
            i : i + (height - 1) * row_stride + 1 : row_stride,
            j : j + (width - 1) * col_stride + 1 : col_stride,
        ]
        for i in range(rows)
        for j in range(cols)
    ]
    patches = jnp.concatenate(shifted, axis=-1)  # [B, H', W', kh kw C]
    return jnp.matmul(
        patches, kernel.reshape(-1, kernel.shape[-1]), precision=precision
    )
