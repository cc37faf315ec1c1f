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

    Bilinear; smoothed when shrinking, so that no pixel of the original is skipped.
    """
    centre_x, centre_y, side = (float(v) for v in window)
    # Edges of the window, in coordinates where pixel i covers [i, i + 1].
    left, top = centre_x + 0.5 - side / 2, centre_y + 0.5 - side / 2
    # One pixel of context round it, so that interpolation at the rim sees it.
    x0, y0 = int(np.floor(left)) - 1, int(np.floor(top)) - 1
    extent = int(np.ceil(side)) + 3
    padded = Image.fromarray(image).crop((x0, y0, x0 + extent, y0 + extent))
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    resized = padded.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)
