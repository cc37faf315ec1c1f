"""The score to beat without looking at the image: the mean pose in its crop.

Crops placed by the annotated joints tell much about the pose; this baseline says
how much. On LSP (first 1,000 images for the mean, last 1,000 to test, such crops of
1.75 longer sides) it has a PCK@0.2 of 22.1 %.
"""

import numpy as np

from jalpose.tasks.pose.skeletons import ABSENT


def mean_crop_pose(
    joints: np.ndarray, status: np.ndarray, windows: np.ndarray
) -> np.ndarray:
    """Mean position of each joint, relative to the crop's centre and side.

    Args:
      joints: [N, J, 2] in pixels of the original image.
      status: [N, J]; absent joints are not used.
      windows: [N, 3] crop windows (centre x, centre y, side), see `data.crops`.

    Returns:
      float64 [J, 2], NaN for a joint that is present in no example.
    """
    windows = windows.astype(np.float64)
    centres, sides = windows[:, None, :2], windows[:, None, 2:]
    present = (status != ABSENT)[..., None]
    relative = (joints.astype(np.float64) - centres) / sides
    sums = np.where(present, relative, 0).sum(axis=0)
    counts = present.sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def predict_mean_pose(mean: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Predict the mean pose in every crop.

    Args:
      mean: [J, 2] from `mean_crop_pose`, of crops placed the same way.
      windows: [N, 3] of the examples to predict.

    Returns:
      float64 [N, J, 2] in pixels of the original image; NaN for a joint without a
      mean.
    """
    windows = windows.astype(np.float64)
    return windows[:, None, :2] + windows[:, None, 2:] * mean
