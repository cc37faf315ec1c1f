"""Square crops: one transform for training, evaluation and the pool.

A crop window is (centre x, centre y, side) in pixels of the original image. The
window may reach beyond the image; what lies outside is black. Crop pixel u and
image pixel x are related by u = (x - centre) * size / side + (size - 1) / 2, pixel
centres at whole numbers in both.
"""

import numpy as np
from PIL import Image


def to_crop(joints, window, size: int):
    """Joints [..., J, 2] from image pixels to crop pixels; window [..., 3]."""
    centre, side = window[..., None, :2], window[..., None, 2:]
    return (joints - centre) * (size / side) + (size - 1) / 2


def from_crop(joints, window, size: int):
    """Joints [..., J, 2] from crop pixels to image pixels; window [..., 3]."""
    centre, side = window[..., None, :2], window[..., None, 2:]
    return (joints - (size - 1) / 2) * (side / size) + centre


def crop_image(image: np.ndarray, window: np.ndarray, size: int) -> np.ndarray:
    """Cut `window` out of uint8 [H, W, 3] and resize it to uint8 [size, size, 3].

    Bilinear; smoothed when shrinking, so that no pixel of the original is skipped. A
    window that does not meet the image is black, and none takes more memory than a few
    images, however large it is.
    """
    centre_x, centre_y, side = (float(v) for v in window)
    # Edges of the window, in coordinates where pixel i covers [i, i + 1].
    left, top = centre_x + 0.5 - side / 2, centre_y + 0.5 - side / 2
    if not meets(window, image.shape[1], image.shape[0]):
        return np.zeros((size, size, 3), np.uint8)
    if side > _FAR * max(image.shape[:2]):
        return _crop_far(image, (left, top), side, size)
    # One pixel of context round it, so that interpolation at the rim sees it.
    x0, y0 = int(np.floor(left)) - 1, int(np.floor(top)) - 1
    extent = int(np.ceil(side)) + 3
    padded = Image.fromarray(image).crop((x0, y0, x0 + extent, y0 + extent))
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    resized = padded.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def meets(window, width, height) -> np.ndarray:
    """Has a window [..., 3] any pixel of an image of that size? bool [...].

    A window that is not finite has none.
    """
    window = np.asarray(window, np.float64)
    with np.errstate(invalid="ignore"):
        low = window[..., :2] + 0.5 - window[..., 2:] / 2
        high = low + window[..., 2:]
        extent = np.stack([np.asarray(width), np.asarray(height)], axis=-1)
        return ((low < extent) & (high > 0) & np.isfinite(low)).all(axis=-1)


_FAR = 3  # sides of an image; a larger window is mostly black, and costs no memory


def _crop_far(image, corner, side: float, size: int) -> np.ndarray:
    """`crop_image` for a window far larger than the image: only that is touched."""
    pixels = image.astype(np.float32)
    for axis, start in ((1, corner[0]), (0, corner[1])):
        weights = _weights(start, side / size, size, image.shape[axis])
        pixels = np.moveaxis(np.tensordot(weights, pixels, (1, axis)), 0, axis)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _weights(start: float, scale: float, size: int, length: int) -> np.ndarray:
    """Of image pixels in each crop pixel, along an axis: float32 [size, length].

    A triangle two crop pixels wide, and no narrower than two of the image.
    """
    reach = max(scale, 1.0)
    middles = start + (np.arange(size) + 0.5) * scale
    apart = np.abs(np.arange(length) + 0.5 - middles[:, None]) / reach
    weights = np.maximum(0, 1 - apart)
    # What all pixels weigh, those outside the image among them.
    if reach > 64:
        whole = np.full(size, reach)
    else:
        near = np.floor(middles)[:, None] + np.arange(-np.ceil(reach) - 1, reach + 2)
        triangle = 1 - np.abs(near + 0.5 - middles[:, None]) / reach
        whole = np.maximum(0, triangle).sum(axis=1)
    return (weights / whole[:, None]).astype(np.float32)
