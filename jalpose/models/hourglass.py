"""Stacked hourglass (Newell et al. 2016), as the papers' two-stack network.

Layer list: `Conv` keeps its bias everywhere, residuals are pre-activation
bottlenecks, an identity skip where the width is unchanged and a 1x1 convolution
without batch norm where it changes. Stacks are merged as Newell's: the next
stack's input is the *input* of this one plus both projections. (The published
EGL++ code overwrites the input by the feature map first; its earlier version and
the papers do not.) Two stacks of 256 channels for 14 joints have 6,568,860
parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.models.output import Features, Output
from jalpose.runtime.shapes import AnyArray

# PyTorch's default convolution initialiser, U(+-1/sqrt(fan_in)), with which all the
# papers' networks start; we differ in the biases, which start at zero.
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
    """Convolution with bias, then batch norm and ReLU on request."""

    features: int
    kernel: int = 1
    stride: int = 1
    norm_relu: bool = False
    dtype: Any = jnp.float32
    convolve: Callable | None = None

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b h w c"], train: bool
    ) -> Float[AnyArray, "b h2 w2 f"]:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        pad = (self.kernel - 1) // 2
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            padding=[(pad, pad), (pad, pad)],
            kernel_init=KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=self.convolve,
            name="conv",
        )(x)
        if self.norm_relu:
            x = nn.relu(_norm(train, self.dtype, "norm")(x))
        return x


class Residual(nn.Module):
    """Pre-activation bottleneck: BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, plus skip.

    With a `dropout` whole channels are dropped before the last convolution (Tompson et
    al., CVPR 2015: neighbouring pixels agree, so dropping single ones hides little).
    """

    features: int
    dtype: Any = jnp.float32
    convolve: Callable | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b h w c"], train: bool, drop: bool = False
    ) -> Float[AnyArray, "b h w f"]:
        """[B, H, W, C] -> [B, H, W, features]."""
        conv = partial(Conv, dtype=self.dtype, convolve=self.convolve)
        half = self.features // 2
        y = x
        for i, (width, kernel) in enumerate([(half, 1), (half, 3), (self.features, 1)]):
            y = nn.relu(_norm(train, self.dtype, f"norm{i + 1}")(y))
            if i == 2 and self.dropout:
                y = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(y, not drop)
            y = conv(width, kernel, name=f"conv{i + 1}")(y, train)
        if x.shape[-1] != self.features:
            x = conv(self.features, name="skip")(x, train)
        return x + y


class Hourglass(nn.Module):
    """One hourglass of `depth` levels, residuals of constant width."""

    depth: int
    features: int
    dtype: Any = jnp.float32
    convolve: Callable | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b h w c"], train: bool, drop: bool = False
    ) -> tuple[Float[AnyArray, "b h w c"], tuple[Float[AnyArray, "b _ _ c"], ...]]:
        """[B, H, W, features] -> (the same shape, maps of the levels below it)."""
        block = (self.features, self.dtype, self.convolve, self.dropout)

        def residual(name):
            return Residual(*block, name=name)

        up = residual("up")(x, train, drop)
        low = max_pool(x)
        low = residual("low1")(low, train, drop)
        below: tuple[AnyArray, ...] = ()
        if self.depth > 1:
            inner = Hourglass(self.depth - 1, *block, name="inner")
            low, below = inner(low, train, drop)
        else:
            low = residual("low2")(low, train, drop)
        low = residual("low3")(low, train, drop)
        return up + upsample_nearest(low), (low, *below)


class StackedHourglass(nn.Module):
    """Images float32 [B, H, W, 3] in [0, 1] -> `Output` at a quarter the size.

    Attributes:
      num_outputs: heatmaps a stack.
      stacks: hourglasses in a row, each with its own heatmaps.
      channels: width; a multiple of 4 (the stem starts at a quarter of it).
      depth: poolings inside an hourglass; H and W must be multiples of 4 * 2**depth.
      dtype: of the activations; parameters and heatmaps stay float32.
      convolve: replaces `lax.conv_general_dilated`; None keeps it.
      dropout: probability with which a residual drops a channel, see `Residual`.
    """

    num_outputs: int
    stacks: int = 2
    channels: int = 256
    depth: int = 4
    dtype: Any = jnp.float32
    convolve: Callable | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        images: Float[AnyArray, "b y x 3"],
        train: bool = False,
        drop: bool | None = None,
    ) -> Output:
        """Heatmaps, embedding and features of a batch of images.

        Args:
          images: float32 [B, H, W, 3].
          train: use and update the batch's statistics.
          drop: apply `dropout`, with the random numbers of `rngs={"dropout": key}`;
            None: in training only.
        """
        width = self.channels
        block: dict[str, Any] = {"dtype": self.dtype, "convolve": self.convolve}
        drop = train if drop is None else drop

        def conv(features, *, name, **options):
            return Conv(features, **options, **block, name=name)

        def residual(features, *, name):
            return Residual(features, **block, dropout=self.dropout, name=name)

        x = images.astype(self.dtype)
        x = conv(width // 4, kernel=7, stride=2, norm_relu=True, name="stem")(x, train)
        x = residual(width // 2, name="stem1")(x, train, drop)
        x = max_pool(x)
        x = residual(width // 2, name="stem2")(x, train, drop)
        x = residual(width, name="stem3")(x, train, drop)
        heatmaps, stacks = [], []
        for s in range(self.stacks):
            hourglass = Hourglass(
                self.depth, width, **block, dropout=self.dropout, name=f"hourglass{s}"
            )
            y, below = hourglass(x, train, drop)
            levels = (y, *below)
            y = residual(width, name=f"features{s}")(y, train, drop)
            y = conv(width, norm_relu=True, name=f"project{s}")(y, train)
            stacks.append(y)
            # The heads stay float32: heatmap peaks reach 30, where bfloat16 has
            # steps of 1/8.
            head = Conv(self.num_outputs, convolve=self.convolve, name=f"heatmaps{s}")
            heatmaps.append(head(y, train))
            if s + 1 < self.stacks:
                maps = conv(width, name=f"merge_maps{s}")(heatmaps[-1], train)
                x = x + maps + conv(width, name=f"merge_features{s}")(y, train)
        embedding = jnp.mean(y.astype(jnp.float32), axis=(1, 2))
        features = Features(tuple(stacks), levels)
        return Output(jnp.stack(heatmaps, axis=1), embedding, features)


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


def _larger(first, second):
    # NaN is kept, wherever it stands.
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def upsample_nearest(
    x: Float[AnyArray, "b h w c"],
) -> Float[AnyArray, "b h2 w2 c"]:
    """Double height and width of [B, H, W, C] by repeating pixels."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(
        x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels)
    )
    return x.reshape(batch, 2 * height, 2 * width, channels)


def _norm(train: bool, dtype, name: str):
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        name=name,
    )
