"""What networks share: starting weights, batch norm, pooling, normalised images."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.runtime.shapes import AnyArray

# PyTorch's default of convolutions and linear layers, U(+-1/sqrt(fan_in)), which it
# calls kaiming_uniform with a = sqrt(5). Biases start at zero where nothing else is
# said, in PyTorch as their kernel does: `bias_init`.
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# torchvision's of convolutions, He's: normal, kaiming_normal with mode fan_out.
FAN_OUT_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def bias_init(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default start of a bias: U(+-1/sqrt(fan_in)) of its layer."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def batch_norm(train: bool, dtype, name: str, epsilon: float = 1e-5) -> nn.BatchNorm:
    """Batch norm as PyTorch's: epsilon 1e-5, running statistics 0.9 old and 0.1 new.

    We differ in the running variance: PyTorch's is of n - 1, Linen's of n numbers.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        dtype=dtype,
        name=name,
    )


class ConvNorm(nn.Module):
    """Convolution padded by half its kernel at every side, then batch norm.

    Attributes:
      features: channels it leaves.
      kernel: height and width; odd.
      stride: of both.
      dtype: of the activations.
      convolve: replaces `lax.conv_general_dilated`; None keeps it.
      kernel_init: of the kernel.
      bias_init: of the convolution's bias; None: it has none.
    """

    features: int
    kernel: int
    stride: int
    dtype: Any
    convolve: Callable | None
    kernel_init: Callable
    bias_init: Callable | None = None

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b h w c"], train: bool
    ) -> Float[AnyArray, "b h2 w2 f"]:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        pad = self.kernel // 2
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            padding=[(pad, pad), (pad, pad)],
            use_bias=self.bias_init is not None,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init or nn.initializers.zeros,
            dtype=self.dtype,
            conv_general_dilated=self.convolve,
            name="conv",
        )(x)
        return batch_norm(train, self.dtype, "norm")(x)


def normalised(
    images: Float[AnyArray, "b h w 3"], mean: Sequence[float], std: Sequence[float]
) -> Float[AnyArray, "b h w 3"]:
    """(images - mean) / std of each channel, float32; as they are where both are ()."""
    if not mean:
        return images
    centre, scale = (
        jnp.array(values, jnp.float32).reshape(1, 1, 1, 3) for values in (mean, std)
    )
    return (images - centre) / scale


def max_pool(x: Float[AnyArray, "b h w c"]) -> Float[AnyArray, "b h2 w2 c"]:
    """Largest of each 2x2 pixels: [B, H, W, C] -> [B, H / 2, W / 2, C].

    The gradient goes to the first of equals, as that of `nn.max_pool`, but through
    selects: XLA takes the gradient of a window maximum by a scatter, on a CPU a third
    of the time of a whole backward pass.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    rows = _larger(x[..., 0, :], x[..., 1, :])  # [B, H / 2, 2, W / 2, C]
    return _larger(rows[:, :, 0], rows[:, :, 1])


def max_pool_overlapping(x: Float[AnyArray, "b h w c"]) -> Float[AnyArray, "b h2 w2 c"]:
    """Largest of 3x3 pixels, at every second, of the image with a rim of -inf.

    [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C]: PyTorch's with stride 2 and
    padding 1. The gradient is as in `max_pool`.
    """
    for axis in (2, 1):  # columns first: the first of equals is that in reading order
        size = x.shape[axis]
        rim = [(0, 0)] * 4
        rim[axis] = (1, 1)
        wide = jnp.pad(x, rim, constant_values=-jnp.inf)
        first, middle, last = (
            jax.lax.slice_in_dim(wide, start, start + size, 2, axis)
            for start in (0, 1, 2)
        )
        x = _larger(_larger(first, middle), last)
    return x


def _larger(first, second):
    # NaN is kept, wherever it stands.
    return jnp.where((second > first) | jnp.isnan(second), second, first)
