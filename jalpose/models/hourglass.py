"""Stacked hourglass (Newell et al. 2016), as the papers' two-stack network.

Layer list: `Conv` keeps its bias everywhere, residuals are pre-activation
bottlenecks, an identity skip where the width is unchanged and a 1x1 convolution
without batch norm where it changes. Stacks are merged as Newell's: the next
stack's input is the *input* of this one plus both projections. (The published
EGL++ code overwrites the input by the feature map first; its earlier version and
the papers do not.) Two stacks of 256 channels for 14 joints have 6,568,860
parameters. All start as PyTorch's, with which all the papers' networks start; we
differ in the biases, which start at zero.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.models.layers import KERNEL_INIT, batch_norm, max_pool
from jalpose.models.options import (
    DTYPES,
    check_arithmetic,
    check_dropout,
    convolution_of,
)
from jalpose.models.output import Features, Output
from jalpose.runtime.shapes import AnyArray
from jalpose.settings.checks import ConfigError, above


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
            x = nn.relu(batch_norm(train, self.dtype, "norm")(x))
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
            y = nn.relu(batch_norm(train, self.dtype, f"norm{i + 1}")(y))
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


def upsample_nearest(
    x: Float[AnyArray, "b h w c"],
) -> Float[AnyArray, "b h2 w2 c"]:
    """Double height and width of [B, H, W, C] by repeating pixels."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(
        x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels)
    )
    return x.reshape(batch, 2 * height, 2 * width, channels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HourglassOptions:
    """Stacked hourglass.

    Attributes:
      stacks: hourglasses in a row.
      channels: width; a multiple of 4.
      depth: poolings inside an hourglass.
      dtype: of activations: float32 | bfloat16.
      convolution: native (lax.conv) | blocked (kernel gradients in blocks: faster on a
        CPU) | auto (blocked on a CPU, else native).
      dropout: probability with which a residual drops a channel in training (and in
        the samples of acquisition.method=mc_dropout, which needs it).
    """

    stacks: int = 2
    channels: int = 256
    depth: int = 4
    dtype: str = "float32"
    convolution: str = "auto"
    dropout: float = 0.0
    last_layer: ClassVar[str] = "heatmaps"
    output_layers: ClassVar[tuple[str, ...]] = ("heatmaps", "merge_maps")
    predicts: ClassVar[str] = "heatmaps"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"stacks": 1, "channels": 16, "depth": 2},
        "small": {"stacks": 1, "channels": 96},
    }

    def check(self, size: int) -> None:
        """Raise ConfigError for options that cannot work on images of this size."""
        check_arithmetic(self.dtype, self.convolution)
        above(0, model__stacks=self.stacks, model__channels=self.channels)
        above(0, model__depth=self.depth)
        check_dropout(self.dropout)
        if self.channels % 4:
            raise ConfigError(f"model.channels={self.channels} must be a multiple of 4")
        unit = 4 * 2**self.depth
        if size % unit:
            raise ConfigError(
                f"data.size={size} must be a multiple of {unit}: the stem divides by 4 "
                f"and model.depth={self.depth} halves {self.depth} times"
            )

    def build(self, num_outputs: int, *, traced: bool = False) -> StackedHourglass:
        """Linen module of the network; see `Options`."""
        return StackedHourglass(
            num_outputs,
            stacks=self.stacks,
            channels=self.channels,
            depth=self.depth,
            dtype=DTYPES[self.dtype],
            convolve=convolution_of(self.convolution, traced),
            dropout=self.dropout,
        )
