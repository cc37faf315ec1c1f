"""Random scale, rotation, shift, flip and colour, on the device, for one example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Float, Shaped

from jalpose.runtime.shapes import AnyArray


class Ranges(NamedTuple):
    """How far each augmentation goes; units as in `config.augment`."""

    scale: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    shift: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    window: tuple[float, ...] = ()  # in sides of the crop


NO_AUGMENTATION = Ranges()


def augment(
    key,
    image: Float[AnyArray, "y x 3"],
    joints: Float[AnyArray, "j 2"],
    status: Shaped[AnyArray, " j"],
    *,
    ranges: Ranges,
    mirror: tuple[int, ...],
) -> tuple[Float[AnyArray, "y x 3"], Float[AnyArray, "j 2"], Shaped[AnyArray, " j"]]:
    """Draw one random version of an example.

    Rotation and scale are about the centre of the crop; the ground beyond the crop
    is black, as published. A joint may leave the crop: see `counting`.

    The published code draws the window's side, from 1.5 to 2 sides of the joints' box,
    cuts the crop there, and scales it by 0.75 to 1.25: by 0.656 to 1.458 about our
    window of 1.75. With `ranges.window` the factor is drawn so here too; of an image
    that is shrunk the published code sees more than lies in our crop.

    Args:
      key: of this example and step.
      image: float32 [S, S, 3] in [0, 1].
      joints: float32 [J, 2], crop pixels; anything finite where absent.
      status: int8 [J].
      ranges: static.
      mirror: the skeleton's permutation of joints under a flip.

    Returns:
      image, joints and status as they came.
    """
    keys = jax.random.split(key, 7)
    size = image.shape[0]
    factor = _uniform(keys[0], *ranges.scale)
    if ranges.window:
        factor /= _uniform(jax.random.fold_in(keys[0], 1), *ranges.window)
    angle = jnp.deg2rad(_uniform(keys[1], -ranges.rotate, ranges.rotate))
    shift = size * _uniform(keys[2], -ranges.shift, ranges.shift, (2,))
    flip = jax.random.bernoulli(keys[3], ranges.flip)

    image = jnp.where(flip, image[:, ::-1], image)
    mirrored = joints[jnp.array(mirror)] * jnp.array([[-1.0, 1.0]])
    mirrored = mirrored + jnp.array([[size - 1.0, 0.0]])
    joints = jnp.where(flip, mirrored, joints)
    status = jnp.where(flip, status[jnp.array(mirror)], status)

    image, joints = warp(image, joints, factor, angle, shift)

    image = image * (1 + _uniform(keys[4], -ranges.colour, ranges.colour, (1, 1, 3)))
    gain = 1 + _uniform(keys[5], -ranges.contrast, ranges.contrast)
    lift = _uniform(keys[6], -ranges.brightness, ranges.brightness)
    image = jnp.clip((image - 0.5) * gain + 0.5 + lift, 0.0, 1.0)
    return image, joints, status


def warp(
    image: Float[AnyArray, "y x 3"],
    joints: Float[AnyArray, "j 2"],
    factor,
    angle,
    shift,
) -> tuple[Float[AnyArray, "y x 3"], Float[AnyArray, "j 2"]]:
    """Scale by `factor`, turn by `angle` (radians), move by `shift` (x, y pixels).

    Args:
      image: float32 [S, S, 3]; outside it is 0.
      joints: [J, 2], moved along.
      factor: above 1 enlarges.
      angle: from the x towards the y axis.
      shift: [2], pixels, after scale and rotation.
    """
    size = image.shape[0]
    centre = (size - 1) / 2
    # Written out, not as matrix products: accelerators round those coarsely.
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = joints[:, 0] - centre, joints[:, 1] - centre
    moved_x = factor * (cos * x - sin * y) + centre + shift[0]
    moved_y = factor * (sin * x + cos * y) + centre + shift[1]

    # Where each pixel of the new image comes from: the inverse of the above.
    pixels = jnp.arange(size, dtype=jnp.float32)
    across = (pixels - centre - shift[0])[None, :]
    down = (pixels - centre - shift[1])[:, None]
    source_x = (cos * across + sin * down) / factor + centre  # [S, S]
    source_y = (-sin * across + cos * down) / factor + centre
    image = jax.vmap(
        lambda channel: map_coordinates(channel, [source_y, source_x], order=1), -1, -1
    )(image)
    return image, jnp.stack([moved_x, moved_y], axis=-1)


def _uniform(key, low, high, shape=()):
    return jax.random.uniform(key, shape, minval=low, maxval=high)
