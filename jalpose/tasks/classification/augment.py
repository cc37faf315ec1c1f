"""Random versions of an image of a class, on the device: cropped and flipped."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.runtime.shapes import AnyArray

Image = Float[AnyArray, "y x 3"]

MOST_ASPECT = 4 / 3  # of the sides of a resized crop, either way


class Ranges(NamedTuple):
    """What is drawn.

    Attributes:
      pad: zeros a side round the image, of which a crop of its size is taken.
      flip: probability of a mirrored image.
      least_area: of a crop that is resized to the image's size, as a share of its area;
        1: none is taken.
    """

    pad: int = 0
    flip: float = 0.0
    least_area: float = 1.0


NO_AUGMENTATION = Ranges()


def augment(key, image: Image, ranges: Ranges) -> Image:
    """A version of an image: cropped, then mirrored.

    Padding is of the image in [0, 1], before a network normalises it: black, as in the
    published codes. The resized crop is the usual one of ImageNet (Szegedy et al.,
    CVPR 2015): a share of the area and the logarithm of the aspect ratio, both
    uniform; a side longer than the image is cut to it, where the usual code draws
    again. It is taken of the image as it is evaluated, the central square, not of the
    whole photograph.

    Args:
      key: of this example and step.
      image: float32 [S, S, 3] in [0, 1].
      ranges: what is drawn.
    """
    crop_key, flip_key = jax.random.split(key)
    if ranges.pad:
        image = padded_crop(crop_key, image, ranges.pad)
    if ranges.least_area < 1:
        image = resized_crop(crop_key, image, ranges.least_area)
    if ranges.flip:
        mirrored = jax.random.bernoulli(flip_key, ranges.flip)
        image = jnp.where(mirrored, image[:, ::-1], image)
    return image


def padded_crop(key, image: Image, pad: int) -> Image:
    """A crop of the image's size out of it with `pad` zeros on each side."""
    around = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    y, x = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(around, (y, x, 0), image.shape)


def resized_crop(key, image: Image, least_area: float) -> Image:
    """A crop of random area, aspect ratio and place, bilinearly resized."""
    size = len(image)
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, (), minval=least_area, maxval=1.0)
    widest = jnp.log(MOST_ASPECT)
    aspect = jax.random.uniform(aspect_key, (), minval=-widest, maxval=widest)
    sides = jnp.sqrt(area) * jnp.exp(jnp.stack([-aspect, aspect]) / 2)  # height, width
    sides = jnp.minimum(sides, 1.0)
    corner = jax.random.uniform(place_key, (2,)) * (1 - sides) * size
    return jax.image.scale_and_translate(
        image,
        image.shape,
        (0, 1),
        scale=1 / sides,
        translation=-corner / sides,
        method="linear",
        antialias=False,
    )
