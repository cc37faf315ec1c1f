"""What labelling a person costs: a click for each annotated joint, at least one.

Before it is labelled nobody knows how many those are, so the price is expected, by what
is known when a method chooses: a joint is taken to be annotated where its peak is as
high as that of the labelled people who have it. The limit of each joint is such that it
would give as many of the labelled as have the joint; where all have it, so will
everybody.
"""

import numpy as np

from jalpose.tasks.pose.skeletons import ABSENT


def spent(status: np.ndarray) -> np.ndarray:
    """Clicks that labels have cost: int64 [N].

    Args:
      status: int8 [N, J], VISIBLE, OCCLUDED or ABSENT.
    """
    return np.maximum(1, (status != ABSENT).sum(axis=1))


def expected(
    known_peaks: np.ndarray, known_status: np.ndarray, peaks: np.ndarray
) -> np.ndarray:
    """Clicks that labels of others are expected to cost: int64 [M].

    Args:
      known_peaks: [L, J], of the labelled, by the network that chooses.
      known_status: int8 [L, J], of the labelled.
      peaks: [M, J], of the others.
    """
    known = np.asarray(known_peaks, np.float64)
    counts = (known_status != ABSENT).sum(axis=0)
    falling = -np.sort(-known, axis=0)  # [L, J]
    limits = np.where(
        counts == len(known),
        -np.inf,
        np.where(
            counts == 0,
            np.inf,
            np.take_along_axis(falling, np.maximum(counts - 1, 0)[None], axis=0)[0],
        ),
    )
    return np.maximum(1, (np.asarray(peaks, np.float64) >= limits).sum(axis=1))
