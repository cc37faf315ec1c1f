"""Square person crops: one transform for training, evaluation and the pool.

A crop window is (centre x, centre y, side) in pixels of the original image. The
window may reach beyond the image; what lies outside is black. Crop pixel u and
image pixel x are related by u = (x - centre) * size / side + (size - 1) / 2, pixel
centres at whole numbers in both.
"""

import numpy as np
from PIL import Image

from jalpose.data.skeletons import ABSENT
from jalpose.data.source import Annotations, DataError


def crop_windows(annotations: Annotations, crop: str, window: float) -> np.ndarray:
    """Window of each example.

    Args:
      annotations: of N examples.
      crop: "joints" takes the box of the annotated joints, visible and occluded
        (the papers' way, for the pool as well, which leaks labels); "box" takes the
        person box of the data set.
      window: side of the window in longer sides of that box (papers: 1.75).

    Returns:
      float32 [N, 3].

    Raises:
      DataError: an example has no annotated joint, or the set has no boxes.
    """
    if crop == "box":
        if annotations.boxes is None:
            raise DataError(
                "data.crop=box needs person boxes, which this data set does not "
                "have; use data.crop=joints"
            )
        low, high = annotations.boxes[:, :2], annotations.boxes[:, 2:]
    else:
        bare = (annotations.status == ABSENT).all(axis=1)
        if bare.any():
            index = int(np.argmax(bare))
            raise DataError(
                f"{annotations.files[index]} (index {index}) has no annotated joint: "
                "data.crop=joints cannot place its crop"
            )
        low = np.nanmin(annotations.joints, axis=1)
        high = np.nanmax(annotations.joints, axis=1)
    # A person of one joint has an empty box: a window of a few pixels is still one.
    side = np.maximum(window * (high - low).max(axis=1), 8.0)
    return np.concatenate([(low + high) / 2, side[:, None]], axis=1).astype(np.float32)


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
