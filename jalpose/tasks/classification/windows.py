"""Where an image of any size is cropped: in the middle, by its shorter side."""

import numpy as np


def middle_windows(sizes: np.ndarray, window: float) -> np.ndarray:
    """Crop windows in the middle of images: float32 [N, 3].

    Resizing the shorter side to 256 pixels and cutting 224 x 224 out of the middle is
    one window of 224/256 shorter sides, resampled once.

    Args:
      sizes: [N, 2], width and height, pixels.
      window: side, in shorter sides.
    """
    sizes = sizes.astype(np.float64)
    sides = window * sizes.min(axis=1, keepdims=True)
    return np.concatenate([(sizes - 1) / 2, sides], axis=1).astype(np.float32)
