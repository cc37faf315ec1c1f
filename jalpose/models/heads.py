"""Heads: small networks that read a network's features, not its images.

They predict numbers about an example (its loss, the variance of its joints, the
lengths of its limbs) from a `Output`. Whether their gradient reaches the
network is up to the training. All arithmetic is float32, whatever the features are;
kernels start as the networks' do (PyTorch's default), biases at zero.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.models.layers import KERNEL_INIT
from jalpose.models.output import Output
from jalpose.runtime.shapes import AnyArray
from jalpose.settings.checks import ConfigError

_dense = partial(nn.Dense, kernel_init=KERNEL_INIT)
_conv = partial(nn.Conv, padding="VALID", kernel_init=KERNEL_INIT)

WIDTHS = (128, 64, 32, 16)  # of LL++'s hidden layers


class StackHead(nn.Module):
    """Reads every stack: the head of Learning Loss for poses.

    Yoo & Kweon, CVPR 2019, 4.3: each stack's map is averaged over its pixels and
    goes through a layer of its own; one linear layer reads all of them.

    Attributes:
      outputs: numbers predicted, O.
      width: of a stack's layer.
    """

    outputs: int
    width: int = 128

    @nn.compact
    def __call__(self, output: Output) -> Float[AnyArray, "b o"]:
        """`Output` of a batch -> float32 [B, O]; ConfigError without stacks."""
        stacks = _features(self, output, "stacks")
        return _averaged_maps(stacks, "stack", self.width, self.outputs)


class BlocksHead(nn.Module):
    """Reads every stage of a network: the head of Learning Loss for classes.

    Yoo & Kweon, CVPR 2019, 4.1: the outputs of ResNet-18's four blocks (64 channels at
    32 pixels to 512 at 4), each averaged over its pixels and through a layer of its
    own; one linear layer reads all of them. Fits any number of levels: on a network of
    three stages it reads three.

    Attributes:
      outputs: numbers predicted, O.
      width: of a block's layer.
    """

    outputs: int
    width: int = 128

    @nn.compact
    def __call__(self, output: Output) -> Float[AnyArray, "b o"]:
        """`Output` of a batch -> float32 [B, O]; ConfigError without levels."""
        blocks = _features(self, output, "levels")
        return _averaged_maps(blocks, "block", self.width, self.outputs)


class AverageHead(nn.Module):
    """Reads the embedding: LL++'s head.

    Shukla & Ahmed, "A Mathematical Analysis of Learning Loss for Active Learning in
    Regression", CVPR workshops 2021.

    Attributes:
      outputs: numbers predicted, O.
      widths: of the hidden layers.
    """

    outputs: int
    widths: tuple[int, ...] = WIDTHS

    @nn.compact
    def __call__(self, output: Output) -> Float[AnyArray, "b o"]:
        """`Output` of a batch -> float32 [B, O]."""
        return _hidden_layers(_float32(output.embedding), self.widths, self.outputs)


class LevelsHead(nn.Module):
    """Reads the last hourglass at every resolution: LL++'s convolutional head.

    The source is that of `AverageHead`. From the highest resolution down, each map is
    halved by a 2x2 convolution of stride 2 and added to the next. At the lowest a
    convolution as large as the map leaves a vector, as in the published code; the
    paper's text says average instead. Fits any number of levels and any lowest map, of
    other networks too (a map of odd size is halved with zeros behind its end), but the
    size it is initialised with is the only one it takes.

    Attributes:
      outputs: numbers predicted, O.
      widths: of the hidden layers.
    """

    outputs: int
    widths: tuple[int, ...] = WIDTHS

    @nn.compact
    def __call__(self, output: Output) -> Float[AnyArray, "b o"]:
        """`Output` of a batch -> float32 [B, O]; ConfigError without levels."""
        x, *below = map(_float32, _features(self, output, "levels"))
        for i, level in enumerate(below):
            odd = [(0, side % 2) for side in x.shape[1:3]]
            channels = level.shape[-1]
            halve = _conv(channels, (2, 2), (2, 2), padding=odd, name=f"halve{i}")
            x = level + nn.relu(halve(x))
        whole = x.shape[1:3]
        x = nn.relu(_conv(x.shape[-1], whole, name="whole")(x))  # [B, 1, 1, C]
        return _hidden_layers(x[:, 0, 0], self.widths, self.outputs)


HEADS = {
    "stacks": StackHead,
    "blocks": BlocksHead,
    "average": AverageHead,
    "conv": LevelsHead,
}


def _averaged_maps(maps, name, width, outputs):
    """Inside a compact module: a layer of its own for each map, one for all."""
    means = [jnp.mean(_float32(x), axis=(1, 2)) for x in maps]  # [B, C] each
    parts = [nn.relu(_dense(width, name=f"{name}{i}")(x)) for i, x in enumerate(means)]
    return _dense(outputs, name="out")(jnp.concatenate(parts, axis=-1))


def _hidden_layers(x, widths, outputs):
    """Inside a compact module: layers with ReLU between, none after the last."""
    for i, width in enumerate(widths):
        x = nn.relu(_dense(width, name=f"hidden{i}")(x))
    return _dense(outputs, name="out")(x)


def _features(head, output, name):
    found = getattr(output.features, name)
    if not found:
        raise ConfigError(
            f"{type(head).__name__} reads features.{name}, which this network does "
            "not return: choose the head average, one that reads what there is "
            "(stacks: the stacks; blocks, conv: the levels), or another model"
        )
    return found


def _float32(x):
    return x.astype(jnp.float32)
