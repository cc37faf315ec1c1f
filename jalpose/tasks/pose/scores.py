"""Scores for any skeleton beside PCK: COCO's average precision by OKS, and pixels.

**Object keypoint similarity** (cocodataset.org/#keypoints-eval) of a predicted and a
true pose is the mean over the annotated joints i of

    exp(-d_i^2 / (2 s^2 (2 sigma_i)^2))

with d_i their distance, s^2 the area of the true person's segment, all in pixels, and
sigma_i the constant of the joint: how far annotators disagree about it, as a share of
s. **Average precision** at a threshold counts a prediction as found that is matched, in
its image, to a true pose of at least that similarity; predictions come in the order of
their scores, each takes the most similar true pose that is left, and the precision is
averaged over 101 recalls. AP is its mean over the thresholds 0.5, 0.55, ..., 0.95.

Here everybody has one prediction, of a crop that the true box has placed: what is said
of methods with ground-truth boxes. Its score is the mean height of its heatmaps' peaks.

**Mean error in pixels** is the mean distance over all annotated joints of all images,
which DeepLabCut (A. Mathis et al., Nature Neuroscience 2018) reports as RMSE.
"""

from typing import NamedTuple

import numpy as np

from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE, Skeleton

SCORES = ("pck", "oks", "pixels")  # values of `evaluation.score`
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 20  # predictions of an image that count
_EPS = np.spacing(1.0)
_SIGMAS = {  # of COCO's joints, without their side
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}


class Precision(NamedTuple):
    """COCO's numbers of a set of predictions, as shares of one.

    Attributes:
      mean: average precision over all thresholds.
      at_50: at an OKS of 0.5.
      at_75: at 0.75.
      recall: the highest recall, mean over the thresholds.
    """

    mean: float
    at_50: float
    at_75: float
    recall: float


def sigmas_of(skeleton: Skeleton, given: tuple[float, ...] = ()) -> np.ndarray | None:
    """COCO's constants of the joints: float64 [J]; None where nobody states them.

    Args:
      skeleton: whose joints.
      given: one a joint, or one for all; (): those that COCO has for joints of these
        names.

    Raises:
      ValueError: there are given too few or too many.
    """
    if given:
        if len(given) not in (1, skeleton.num_joints):
            raise ValueError(
                f"{len(given)} constants for {skeleton.num_joints} joints: give one a "
                "joint, or one for all"
            )
        return np.broadcast_to(np.array(given, float), skeleton.num_joints)
    names = [
        joint.lower().replace("_", " ").removeprefix("left ").removeprefix("right ")
        for joint in skeleton.joints
    ]
    if not set(names) <= _SIGMAS.keys():
        return None
    return np.array([_SIGMAS[name] for name in names])


def counted_joints(status: np.ndarray, occluded: bool) -> np.ndarray:
    """Joints that are scored: bool [N, J]."""
    return status != ABSENT if occluded else status == VISIBLE


def areas_of(joints, boxes: np.ndarray | None, areas: np.ndarray | None) -> np.ndarray:
    """Pixels squared of each person: its segment, else its box, else its joints' box.

    Args:
      joints: [N, J, 2], NaN where absent.
      boxes: [N, 4], NaN of one without.
      areas: [N] of segments, NaN of one without.

    Returns:
      float64 [N], NaN of somebody of whom nothing is known.
    """
    sides = box_sides(joints, boxes)
    found = sides[:, 0] * sides[:, 1]
    return found if areas is None else np.where(np.isnan(areas), found, areas)


def box_sides(joints: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
    """Width and height of each person's box, else of that round its joints: [N, 2]."""
    joints = joints.astype(np.float64)
    low = np.where(np.isnan(joints), np.inf, joints).min(axis=1)
    high = np.where(np.isnan(joints), -np.inf, joints).max(axis=1)
    found = high - low
    found = np.where(np.isfinite(found), found, np.nan)
    if boxes is None:
        return found
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    return np.where(np.isnan(sides), found, sides)


def similarity(predicted, joints, counted, sigmas, areas) -> np.ndarray:
    """OKS of pairs of poses: float64 [...], NaN where no joint counts.

    Args:
      predicted: [..., J, 2] in pixels; a NaN has the similarity 0.
      joints: [..., J, 2].
      counted: bool [..., J], those of `joints` that are annotated.
      sigmas: [J].
      areas: [...], pixels squared.
    """
    each = joint_similarity(predicted, joints, counted, sigmas, areas)
    count = counted.sum(axis=-1)
    return np.where(count > 0, each.sum(axis=-1) / np.maximum(count, 1), np.nan)


def joint_similarity(predicted, joints, counted, sigmas, areas) -> np.ndarray:
    """Its terms, 0 of a joint that does not count: float64 [..., J]."""
    apart = np.square(predicted.astype(np.float64) - joints).sum(axis=-1)
    spread = np.square(2 * sigmas) * (np.asarray(areas)[..., None] + _EPS) * 2
    found = np.exp(-np.where(counted, apart, 0) / spread)
    return np.where(counted & np.isfinite(found), found, 0.0)


def average_precision(
    predicted, scores, joints, counted, sigmas, areas, images
) -> Precision:
    """COCO's average precision of one prediction a person.

    Equal to pycocotools' of these people, for all areas, where ties of scores across
    images go by the images' numbers. People without an annotated joint are neither
    predicted nor looked for.

    Args:
      predicted: [N, J, 2] in pixels of the image.
      scores: [N].
      joints: [N, J, 2].
      counted: bool [N, J].
      sigmas: [J].
      areas: [N], pixels squared.
      images: int [N], whose image.

    Raises:
      ValueError: nobody has a joint that counts.
    """
    kept = np.flatnonzero(counted.any(axis=1))
    if not len(kept):
        raise ValueError("Nobody has a joint to score by OKS.")
    found, order = [], []
    for image in np.unique(images[kept]):
        rows = kept[images[kept] == image]
        ranked = rows[np.argsort(-scores[rows], kind="stable")][:MOST]
        alike = similarity(
            predicted[ranked][:, None],
            joints[rows][None],
            counted[rows][None],
            sigmas,
            areas[rows][None],
        )
        found.append(_matched(alike))
        order.append(scores[ranked])
    hits = np.concatenate(found, axis=1)  # [T, D]
    hits = hits[:, np.argsort(-np.concatenate(order), kind="stable")]
    at = [_precision(row, len(kept)) for row in hits]
    means = [mean for mean, _ in at]
    return Precision(
        mean=float(np.mean(means)),
        at_50=means[0],
        at_75=means[5],
        recall=float(np.mean([recall for _, recall in at])),
    )


def _matched(alike: np.ndarray) -> np.ndarray:
    """Which predictions of an image find somebody: bool [T, D] of alike [D, G]."""
    hits = np.zeros((len(THRESHOLDS), len(alike)), bool)
    for level, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(alike.shape[1], bool)
        for row, own in enumerate(alike):
            best, match = min(threshold, 1 - 1e-10), -1
            for column in np.flatnonzero(~taken):
                if own[column] >= best:  # of equal ones the last, as pycocotools
                    best, match = own[column], int(column)
            if match >= 0:
                taken[match] = hits[level, row] = True
    return hits


def _precision(hits: np.ndarray, total: int) -> tuple[float, float]:
    """Average precision and the highest recall of predictions in order: bool [D]."""
    right, wrong = np.cumsum(hits, dtype=float), np.cumsum(~hits, dtype=float)
    recall, precision = right / total, right / (right + wrong + _EPS)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    reached = places < len(precision)
    values = np.where(reached, precision[np.minimum(places, len(precision) - 1)], 0.0)
    return float(values.mean()), float(recall[-1])


class PixelErrors(NamedTuple):
    """Distances between predicted and labelled joints.

    Attributes:
      mean: over all joints that count, pixels.
      median: of them: what a few that are wholly missed do not move.
      per_joint: means of each, float64 [J], NaN of a joint that never counts.
    """

    mean: float
    median: float
    per_joint: np.ndarray


def pixel_errors(predicted, joints, counted) -> PixelErrors:
    """Distances over all joints that count, and over those of each: pixels.

    Args:
      predicted: [N, J, 2] in pixels of the image.
      joints: [N, J, 2].
      counted: bool [N, J].

    Raises:
      ValueError: no joint counts.
    """
    if not counted.any():
        raise ValueError("No joint to measure the error of.")
    error = predicted.astype(np.float64) - joints
    apart = np.where(counted, np.hypot(error[..., 0], error[..., 1]), 0.0)
    counts = counted.sum(axis=0)
    each = np.where(counts > 0, apart.sum(axis=0) / np.maximum(counts, 1), np.nan)
    median = float(np.median(apart[counted]))
    return PixelErrors(float(apart.sum() / counts.sum()), median, each)
