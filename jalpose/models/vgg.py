"""VGG networks with batch norm: chains of 3x3 convolutions, halved five times.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, configurations A, B, D, E, with batch norm after every
convolution (Ioffe & Szegedy, 2015), which all code in use has; convolutions keep their
bias.

The "original" classifier is two layers of 4,096 and one of the classes: for 1,000
classes and images of 224 pixels VGG-16 has 138,365,992 parameters. It reads the whole
last map, so that its size depends on the image's. The "linear" one, of the codes for
CIFAR, is one layer on the averaged map: 14,728,266 parameters for 10 classes. Each
starts as the code that is used for it: the first as torchvision's (convolutions normal
by their fan-out, layers normal with deviation 0.01, biases zero), the second by
PyTorch's defaults.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.models.layers import (
    FAN_OUT_INIT,
    KERNEL_INIT,
    ConvNorm,
    bias_init,
    max_pool,
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

# Convolutions of each of the five stages, by depth: with the classifier's three layers
# as many as the name says.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CLASSIFIERS = ("linear", "original")


class Vgg(nn.Module):
    """Images float32 [B, H, W, 3] in [0, 1] -> `Output` with logits [B, O].

    The embedding is the last map, averaged, whatever the classifier reads. The levels
    of the features are the outputs of the stages, pooled.

    Attributes:
      num_outputs: classes, O.
      convolutions: of each stage.
      width: of the first stage; later ones have 2, 4, 8 and 8 times as much, and a
        hidden layer of the classifier 64 times.
      classifier: linear | original.
      mean: of each channel, taken off the images; () leaves them as they are.
      std: of each channel, the images less the mean are divided by.
      dtype: of the activations; parameters, embedding and logits stay float32.
      convolve: replaces `lax.conv_general_dilated`; None keeps it.
      dropout: probability with which what a layer of the classifier reads is dropped:
        behind both hidden layers, or of the averaged map before the linear one.
    """

    num_outputs: int
    convolutions: tuple[int, ...] = CONVOLUTIONS[16]
    width: int = 64
    classifier: str = "linear"
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
          images: float32 [B, H, W, 3]; H and W multiples of 32.
          train: use and update the batch's statistics.
          drop: apply `dropout`, with the random numbers of `rngs={"dropout": key}`;
            None: in training only.
        """
        drop = train if drop is None else drop
        linear, zeros = self.classifier == "linear", nn.initializers.zeros
        x = normalised(images, self.mean, self.std).astype(self.dtype)
        stages = []
        for s, count in enumerate(self.convolutions):
            for c in range(count):
                x = ConvNorm(
                    self.width * min(2**s, 8),
                    kernel=3,
                    stride=1,
                    dtype=self.dtype,
                    convolve=self.convolve,
                    kernel_init=KERNEL_INIT if linear else FAN_OUT_INIT,
                    bias_init=bias_init(9 * x.shape[-1]) if linear else zeros,
                    name=f"stage{s}_conv{c}",
                )(x, train)
                x = nn.relu(x)
            x = max_pool(x)
            stages.append(x)
        embedding = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        if linear:
            read = self._dropped(embedding, drop)
            starts = KERNEL_INIT, bias_init(embedding.shape[-1])
        else:
            starts = nn.initializers.normal(0.01), zeros
            read = x.reshape(len(x), -1)
            for i in (0, 1):
                hidden = partial(nn.Dense, 64 * self.width, dtype=self.dtype)
                read = nn.relu(hidden(**_init(*starts), name=f"hidden{i}")(read))
                read = self._dropped(read, drop)
        # The last layer stays float32: the logits' differences are what counts.
        last = nn.Dense(self.num_outputs, **_init(*starts), name="logits")
        logits = last(read.astype(jnp.float32))
        return Output(logits, embedding, Features(levels=tuple(stages)))

    def _dropped(self, x, drop: bool):
        return nn.Dropout(self.dropout)(x, not drop) if self.dropout else x


def _init(kernel, bias) -> dict[str, Any]:
    return {"kernel_init": kernel, "bias_init": bias}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VggOptions:
    """VGG network with batch norm.

    Attributes:
      depth: layers, those of the original classifier counted: 11 | 13 | 16 | 19.
      width: of the first stage; later ones have 2, 4, 8 and 8 times as much, and a
        hidden layer of the classifier 64 times.
      classifier: linear (on the averaged map, for 32 pixels) | original (two hidden
        layers on the whole map, for 224).
      mean: of red, green and blue in [0, 1], taken off the images; (): as they are.
      std: what they are then divided by; () with `mean`.
      dtype: of activations: float32 | bfloat16.
      convolution: native (lax.conv) | blocked (kernel gradients in blocks: faster on a
        CPU) | auto (blocked on a CPU, else native).
      dropout: probability with which what a layer of the classifier reads is dropped in
        training (and in the samples of acquisition.method=mc_dropout, which needs it).
        The published network for 224 pixels has 0.5.
    """

    depth: int = 16
    width: int = 64
    classifier: str = "linear"
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    dtype: str = "float32"
    convolution: str = "auto"
    dropout: float = 0.0
    last_layer: ClassVar[str] = "logits"
    output_layers: ClassVar[tuple[str, ...]] = ("logits",)
    predicts: ClassVar[str] = "logits"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"depth": 11, "width": 4},
        "small": {"depth": 11, "width": 16},
    }

    def check(self, size: int) -> None:
        """Raise ConfigError for options that cannot work on images of this size."""
        one_of("model.depth", self.depth, CONVOLUTIONS)
        one_of("model.classifier", self.classifier, CLASSIFIERS)
        above(0, model__width=self.width)
        check_arithmetic(self.dtype, self.convolution)
        check_dropout(self.dropout)
        check_normalisation(self.mean, self.std)
        if size % 32:
            raise ConfigError(
                f"data.size={size} must be a multiple of 32: the network halves 5 times"
            )

    def build(self, num_outputs: int, *, traced: bool = False) -> Vgg:
        """Linen module of the network; see `models.options.Options`."""
        return Vgg(
            num_outputs,
            convolutions=CONVOLUTIONS[self.depth],
            width=self.width,
            classifier=self.classifier,
            mean=tuple(self.mean),
            std=tuple(self.std),
            dtype=DTYPES[self.dtype],
            convolve=convolution_of(self.convolution, traced),
            dropout=self.dropout,
        )
