"""Residual networks of basic blocks: ResNet-18, and small ones of the same family.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016: stages of two 3x3
convolutions with a shortcut, each stage but the first halving the map and doubling the
width; convolutions without bias, batch norm after each. Where width or size changes the
shortcut is a 1x1 convolution with batch norm (their option B, as in all published
code). ResNet-18 has four stages of two blocks. ResNet-8 and ResNet-14 have three, of
one and of two blocks, as He et al.'s networks for CIFAR-10 (6n + 2 layers): a fourth
would make them 10 and 18 layers deep.

With the stem "3x3" (one convolution of stride 1, for 32 pixels: He et al., 4.2) and 10
classes ResNet-18 has 11,173,962 parameters, with the "original" one (7x7 of stride 2,
then a max pool of stride 2, for 224 pixels) and 1,000 classes 11,689,512. Each starts
as the code that is used for it: the first by PyTorch's defaults, the second by
torchvision's ResNet (convolutions normal by their fan-out). Strided convolutions pad a
pixel at every side, as PyTorch's, where `SAME` would pad at two alone.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.models.layers import (
    FAN_OUT_INIT,
    KERNEL_INIT,
    ConvNorm,
    bias_init,
    max_pool_overlapping,
    normalised,
)
from jalpose.models.options import (
    DTYPES,
    check_arithmetic,
    check_dropout,
    check_normalisation,
    convolution_of,
)
from jalpose.models.output import Features, Output
from jalpose.runtime.shapes import AnyArray
from jalpose.settings.checks import ConfigError, above, one_of

BLOCKS = {8: (1, 1, 1), 14: (2, 2, 2), 18: (2, 2, 2, 2)}  # of each stage, by depth
STEMS = {"3x3": 1, "original": 4}  # what each divides the image's size by


class ResNet(nn.Module):
    """Images float32 [B, H, W, 3] in [0, 1] -> `Output` with logits [B, O].

    The embedding is the last stage's map, averaged; a linear layer reads it. The
    levels of the features are the outputs of the stages.

    Attributes:
      num_outputs: classes, O.
      blocks: of each stage.
      width: of the first stage; each later one has twice as much.
      stem: 3x3 | original.
      mean: of each channel, taken off the images; () leaves them as they are.
      std: of each channel, the images less the mean are divided by.
      dtype: of the activations; parameters, embedding and logits stay float32.
      convolve: replaces `lax.conv_general_dilated`; None keeps it.
      dropout: probability with which a block drops a channel before its second
        convolution.
    """

    num_outputs: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    stem: str = "3x3"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
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
        """Logits, embedding and stage outputs of a batch of images.

        Args:
          images: float32 [B, H, W, 3].
          train: use and update the batch's statistics.
          drop: apply `dropout`, with the random numbers of `rngs={"dropout": key}`;
            None: in training only.
        """
        drop = train if drop is None else drop
        small = self.stem == "3x3"
        block: dict[str, Any] = {
            "dtype": self.dtype,
            "convolve": self.convolve,
            "kernel_init": KERNEL_INIT if small else FAN_OUT_INIT,
        }
        x = normalised(images, self.mean, self.std).astype(self.dtype)
        kernel, stride = (3, 1) if small else (7, 2)
        stem = ConvNorm(self.width, kernel, stride, **block, name="stem")
        x = nn.relu(stem(x, train))
        if not small:
            x = max_pool_overlapping(x)
        stages = []
        for s, blocks in enumerate(self.blocks):
            for b in range(blocks):
                x = BasicBlock(
                    self.width * 2**s,
                    stride=2 if s and not b else 1,
                    dropout=self.dropout,
                    **block,
                    name=f"stage{s}_block{b}",
                )(x, train, drop)
            stages.append(x)
        # The last layer stays float32: the logits' differences are what counts.
        embedding = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        logits = nn.Dense(
            self.num_outputs,
            kernel_init=KERNEL_INIT,
            bias_init=bias_init(embedding.shape[-1]),
            name="logits",
        )(embedding)
        return Output(logits, embedding, Features(levels=tuple(stages)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the shortcut, then ReLU.

    With a `dropout` whole channels are dropped between the two convolutions: where
    wide residual networks have theirs (Zagoruyko & Komodakis, BMVC 2016), and channels
    as the hourglass does.
    """

    features: int
    stride: int
    dtype: Any
    convolve: Callable | None
    kernel_init: Callable
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "b h w c"], train: bool, drop: bool
    ) -> Float[AnyArray, "b h2 w2 f"]:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""

        def conv(kernel, stride, name):
            options = self.dtype, self.convolve, self.kernel_init
            return ConvNorm(self.features, kernel, stride, *options, name=name)

        y = nn.relu(conv(3, self.stride, "conv1")(x, train))
        if self.dropout:
            y = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(y, not drop)
        y = conv(3, 1, "conv2")(y, train)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = conv(1, self.stride, "shortcut")(x, train)
        return nn.relu(x + y)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetOptions:
    """Residual network of basic blocks.

    Attributes:
      depth: layers: 8 | 14 (three stages) | 18 (four).
      width: of the first stage; each later one has twice as much.
      stem: 3x3 (for images of 32 pixels) | original (7x7 of stride 2, then a max pool:
        for 224).
      mean: of red, green and blue in [0, 1], taken off the images; (): as they are.
      std: what they are then divided by; () with `mean`.
      dtype: of activations: float32 | bfloat16.
      convolution: native (lax.conv) | blocked (kernel gradients in blocks: faster on a
        CPU) | auto (blocked on a CPU, else native).
      dropout: probability with which a block drops a channel before its second
        convolution in training (and in the samples of acquisition.method=mc_dropout,
        which needs it).
    """

    depth: int = 18
    width: int = 64
    stem: str = "3x3"
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    dtype: str = "float32"
    convolution: str = "auto"
    dropout: float = 0.0
    last_layer: ClassVar[str] = "logits"
    output_layers: ClassVar[tuple[str, ...]] = ("logits",)
    predicts: ClassVar[str] = "logits"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"depth": 8, "width": 8},
        "small": {"depth": 14, "width": 16},
    }

    def check(self, size: int) -> None:
        """Raise ConfigError for options that cannot work on images of this size."""
        one_of("model.depth", self.depth, BLOCKS)
        one_of("model.stem", self.stem, STEMS)
        above(0, model__width=self.width)
        check_arithmetic(self.dtype, self.convolution)
        check_dropout(self.dropout)
        check_normalisation(self.mean, self.std)
        least = STEMS[self.stem] * 2 ** (len(BLOCKS[self.depth]) - 1)
        if size < least:
            raise ConfigError(
                f"data.size={size} must be at least {least}: the stem "
                f"{self.stem} divides by {STEMS[self.stem]}, and each stage but the "
                "first halves"
            )

    def build(self, num_outputs: int, *, traced: bool = False) -> ResNet:
        """Linen module of the network; see `models.options.Options`."""
        return ResNet(
            num_outputs,
            blocks=BLOCKS[self.depth],
            width=self.width,
            stem=self.stem,
            mean=tuple(self.mean),
            std=tuple(self.std),
            dtype=DTYPES[self.dtype],
            convolve=convolution_of(self.convolution, traced),
            dropout=self.dropout,
        )
