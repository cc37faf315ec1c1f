"""PCK: the share of joints predicted within a fraction of the torso's length."""

import dataclasses

import numpy as np

from jalpose.data.skeletons import ABSENT, OCCLUDED, Skeleton


@dataclasses.dataclass(frozen=True, kw_only=True)
class PckResult:
    """PCK of a set of images, as fractions in [0, 1].

    Attributes:
      mean: unweighted mean over the joints that were counted at least once.
      per_joint: float64 [J], NaN for a joint that was never counted.
      counts: int64 [J], how many examples of each joint were counted.
      num_images: images that were evaluated.
      num_left_out: images left out for want of a torso to measure in.
    """

    mean: float
    per_joint: np.ndarray
    counts: np.ndarray
    num_images: int
    num_left_out: int


def torso_lengths(
    joints: np.ndarray, status: np.ndarray, skeleton: Skeleton
) -> np.ndarray:
    """Length of each torso: the longer of its two diagonals, in original pixels.

    Args:
      joints: [N, J, 2] in pixels of the original image.
      status: [N, J]; an occluded end serves as well as a visible one.
      skeleton: names the two diagonals.

    Returns:
      float64 [N], NaN where neither diagonal has both its ends.
    """
    first, second = np.array(skeleton.torso).T  # [2] one end of each diagonal
    ends = joints[:, first].astype(np.float64) - joints[:, second]
    lengths = np.hypot(ends[..., 0], ends[..., 1])  # [N, 2]
    whole = (status[:, first] != ABSENT) & (status[:, second] != ABSENT)
    longest = np.where(whole, lengths, -np.inf).max(axis=1)
    return np.where(whole.any(axis=1), longest, np.nan)


def pck(
    predicted: np.ndarray,
    joints: np.ndarray,
    status: np.ndarray,
    skeleton: Skeleton,
    *,
    threshold: float = 0.2,
    count_occluded: bool = True,
) -> PckResult:
    """Percentage of correct keypoints, person-centric.

    A joint is correct when its distance is less than (not equal to) `threshold`
    torso lengths, as in the papers' code. Absent joints are never counted, NaN
    predictions are misses, images without a torso are left out. We differ: the
    published code evaluates thresholds on np.linspace(0, 1, 20), where 0.2 is not;
    here the threshold is the one asked for.

    Args:
      predicted: [N, J, 2] in pixels of the original image.
      joints: [N, J, 2] annotated, NaN where absent.
      status: [N, J], VISIBLE, OCCLUDED or ABSENT.
      skeleton: names the torso's diagonals.
      threshold: in torso lengths.
      count_occluded: whether occluded joints count.
    """
    _check_shapes(predicted, joints, status, skeleton)
    if not threshold > 0:
        raise ValueError(f"{threshold=} must be positive; the papers' is 0.2.")
    torso = torso_lengths(joints, status, skeleton)
    measured = torso > 0  # False for NaN, and for ends on the same pixel
    if not measured.any():
        raise ValueError(
            f"None of the {len(torso)} images has a torso to measure in: annotate a "
            "shoulder and the hip on the other side in some, or evaluate other images."
        )
    counted = (status != ABSENT) & measured[:, None]
    if not count_occluded:
        counted &= status != OCCLUDED
    counts = counted.sum(axis=0)
    if not counts.any():
        raise ValueError("No visible joint to count: set count_occluded=True.")
    error = predicted.astype(np.float64) - joints
    correct = np.hypot(error[..., 0], error[..., 1]) < threshold * torso[:, None]
    hits = (correct & counted).sum(axis=0)
    per_joint = np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)
    return PckResult(
        mean=float(per_joint[counts > 0].mean()),
        per_joint=per_joint,
        counts=counts,
        num_images=int(measured.sum()),
        num_left_out=int((~measured).sum()),
    )


def _check_shapes(predicted, joints, status, skeleton: Skeleton) -> None:
    """Raise where shapes do not fit or an annotated joint has no coordinate."""
    shape = (len(joints), skeleton.num_joints, 2)
    if not joints.shape == predicted.shape == shape or status.shape != shape[:2]:
        raise ValueError(
            f"predicted {predicted.shape} and joints {joints.shape} must be "
            f"[N, {skeleton.num_joints}, 2] and status {status.shape} "
            f"[N, {skeleton.num_joints}] for the skeleton {skeleton.name!r}."
        )
    bare = np.isnan(joints).any(axis=2) & (status != ABSENT)
    if bare.any():
        image, joint = np.argwhere(bare)[0]
        raise ValueError(
            f"Image {image}: the {skeleton.joints[joint]} is annotated but has no "
            "coordinate; mark it ABSENT."
        )
