"""Variational autoencoder of images, and the discriminator of its latent space.

The networks of the adversarial methods. Convolutions of 4 pixels and stride 2, each
with batch norm and ReLU, halve the image until its side is at most 2, the first of
`width` channels, each of twice as many as the one before, at most 8 times as many: of
32 pixels 128, 256, 512, 1024 at width 128; larger images take more layers. The decoder
goes the same way back by transposed convolutions. Kernels start by He et al.'s normal,
those of linear layers too, biases at zero. All arithmetic is float32.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.runtime.shapes import AnyArray

KERNEL_INIT = nn.initializers.he_normal()
_dense = partial(nn.Dense, kernel_init=KERNEL_INIT)


class Code(NamedTuple):
    """A Gaussian over the latent space for each image, its dimensions independent.

    Attributes:
      mean: float32 [B, L].
      log_variance: float32 [B, L].
    """

    mean: jax.Array
    log_variance: jax.Array


class Encoder(nn.Module):
    """Images -> `Code`.

    Attributes:
      latents: dimensions of the latent space, L.
      width: channels of the first convolution.
    """

    latents: int
    width: int

    @nn.compact
    def __call__(self, images: Float[AnyArray, "b y x 3"], train: bool) -> Code:
        """Float32 [B, S, S, 3] in [0, 1] -> `Code` of [B, latents] each."""
        x = images
        for i, (_, channels) in enumerate(levels(images.shape[1], self.width)):
            x = nn.Conv(
                channels,
                (4, 4),
                (2, 2),
                use_bias=False,
                kernel_init=KERNEL_INIT,
                name=f"conv{i}",
            )(x)
            x = nn.relu(_norm(train, f"norm{i}")(x))
        x = x.reshape(len(x), -1)
        return Code(
            _dense(self.latents, name="mean")(x),
            _dense(self.latents, name="log_variance")(x),
        )


class Decoder(nn.Module):
    """A point of the latent space -> the image it stands for.

    Attributes:
      size: of the images, pixels.
      width: channels of the encoder's first convolution.
    """

    size: int
    width: int

    @nn.compact
    def __call__(
        self, points: Float[AnyArray, "b l"], train: bool
    ) -> Float[AnyArray, "b y x 3"]:
        """[B, L] -> float32 [B, size, size, 3]."""
        steps = [(self.size, 3), *levels(self.size, self.width)]
        side, channels = steps[-1]
        x = _dense(side * side * channels, name="start")(points)
        x = nn.relu(_norm(train, "norm_start")(x.reshape(len(x), side, side, channels)))
        for i in range(len(steps) - 2, -1, -1):
            side, channels = steps[i]
            x = nn.ConvTranspose(
                channels,
                (4, 4),
                (2, 2),
                use_bias=i == 0,
                kernel_init=KERNEL_INIT,
                name=f"conv{i}",
            )(x)
            x = x[:, :side, :side]  # where an odd side was halved
            if i:
                x = nn.relu(_norm(train, f"norm{i}")(x))
        return x


class Discriminator(nn.Module):
    """Of a point of the latent space: is its image labelled?

    Two hidden layers with ReLU.

    Attributes:
      width: of the hidden layers.
    """

    width: int

    @nn.compact
    def __call__(self, points: Float[AnyArray, "b l"]) -> Float[AnyArray, " b"]:
        """[B, L] -> log odds float32 [B] of being labelled."""
        x = points
        for i in range(2):
            x = nn.relu(_dense(self.width, name=f"hidden{i}")(x))
        return _dense(1, name="out")(x)[:, 0]


def levels(size: int, width: int) -> list[tuple[int, int]]:
    """Side and channels of each map on the way down from images of this size."""
    found: list[tuple[int, int]] = []
    side = size
    while side > 2:
        side = -(-side // 2)
        found.append((side, width * min(2 ** len(found), 8)))
    return found


def shrunk(
    images: Float[AnyArray, "b y x 3"], size: int
) -> Float[AnyArray, "b y2 x2 3"]:
    """Images no larger than `size` pixels, by linear interpolation without aliasing.

    Args:
      images: float32 [B, S, S, 3].
      size: of the largest kept as they are; 0: all are.
    """
    if not 0 < size < images.shape[1]:
        return images
    shape = (len(images), size, size, images.shape[3])
    return jax.image.resize(images, shape, "linear", antialias=True)


def sample(key, code: Code) -> Float[AnyArray, "b l"]:
    """A point of each Gaussian, through which gradients flow."""
    noise = jax.random.normal(key, code.mean.shape)
    return code.mean + jnp.exp(0.5 * code.log_variance) * noise


def _norm(train: bool, name: str):
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name
    )
