"""Where a person is cut out: one rule for training, evaluation and the pool."""

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT

CROPS = ("joints", "box", "official")  # values of `data.crop`

# MPII's centres lie high on the person: the published way moves them down by 15
# pixels for a person 200 pixels tall (A. Newell et al., Stacked hourglass networks
# for human pose estimation, ECCV 2016, in its code; HRNet after it).
_CENTRE_DOWN = 15 / 200


def crop_windows(annotations: Annotations, crop: str, window: float) -> np.ndarray:
    """Window of each example.

    Args:
      annotations: of N examples.
      crop: "joints" takes the box of the annotated joints, visible and occluded
        (the papers' way, for the pool as well, which leaks labels); "box" takes the
        person box of the data set; "official" takes the centre, moved down by 7.5 %
        of the person's height, and the height that MPII ships.
      window: side of the window in longer sides of that box (papers: 1.75), or in
        heights of the person (official, as published: 1.25).

    Returns:
      float32 [N, 3].

    Raises:
      DataError: an example has no annotated joint, no box, or no centre and height.
      ValueError: `crop` is unknown.
    """
    if crop == "official":
        people = _shipped(annotations, annotations.people, crop, "centres and heights")
        centre = people[:, :2].astype(np.float64)
        centre[:, 1] += _CENTRE_DOWN * people[:, 2]
        return _windows(centre, window * people[:, 2])
    if crop == "box":
        boxes = _shipped(annotations, annotations.boxes, crop, "person boxes")
        low, high = boxes[:, :2], boxes[:, 2:]
    elif crop == "joints":
        bare = (annotations.status == ABSENT).all(axis=1)
        if bare.any():
            index = int(np.argmax(bare))
            raise DataError(
                f"{annotations.files[index]} (index {index}) has no annotated joint: "
                "data.crop=joints cannot place its crop"
            )
        low = np.nanmin(annotations.joints, axis=1)
        high = np.nanmax(annotations.joints, axis=1)
    else:
        raise ValueError(f"unknown {crop=}; known: {', '.join(CROPS)}")
    return _windows((low + high) / 2, window * (high - low).max(axis=1))


def _windows(centre: np.ndarray, side: np.ndarray) -> np.ndarray:
    # A person of one joint has an empty box: a window of a few pixels is still one.
    side = np.maximum(side, 8.0)
    return np.concatenate([centre, side[:, None]], axis=1).astype(np.float32)


def _shipped(
    annotations: Annotations, values: np.ndarray | None, crop: str, what: str
) -> np.ndarray:
    """`values` [N, ...] that the data set ships, of every example."""
    if values is None:
        raise DataError(
            f"data.crop={crop} needs {what}, which this data set does not have; use "
            "data.crop=joints"
        )
    bare = np.isnan(values).any(axis=1)
    if bare.any():
        index = int(np.argmax(bare))
        raise DataError(
            f"{annotations.keys[index]} (index {index}), and {int(bare.sum()) - 1} "
            f"more, has none of the {what} that data.crop={crop} needs; use "
            "data.crop=joints"
        )
    return values
