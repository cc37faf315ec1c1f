"""PCK and PCKh: the share of joints predicted within a fraction of a body length.

What is measured in (`reference`), and which joints make the mean (`joints`):

    reference   length                         correct at     from
    torso       longer diagonal of the torso   < threshold    the papers, LSP
    head        0.6 * diagonal of head box     <= threshold   MPII (PCKh)
    head_full   diagonal of the head box       < threshold    the papers' code, MPII
    box         diagonal of the person's box,  < threshold    any skeleton
                else of that round its joints

    joints      mean
    all         unweighted over all joints: the papers' code
    official    over all annotated joints but those of `skeleton.left_out` (MPII:
                pelvis and thorax), each weighing the same: MPII's own evaluation

PCKh is of M. Andriluka et al., 2D Human Pose Estimation: New Benchmark and State of
the Art Analysis, CVPR 2014; its factor 0.6, its <= and its mean are those of the
authors' evaluation, which later codes keep. At one threshold `head_full` allows
distances 1 / 0.6 = 1.67 times as long as `head`: the two are not comparable.
"""

import dataclasses

import numpy as np

from jalpose.tasks.pose import scores
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, Skeleton

REFERENCES = ("torso", "head", "head_full", "box")
JOINTS = ("all", "official")
HEAD_FACTOR = 0.6  # of the head box's diagonal, in the official PCKh


@dataclasses.dataclass(frozen=True, kw_only=True)
class PckResult:
    """PCK of a set of images, as fractions in [0, 1].

    Attributes:
      mean: over the joints that were counted at least once, as `joints` says.
      per_joint: float64 [J], NaN for a joint that was never counted.
      counts: int64 [J], how many examples of each joint were counted.
      num_images: images that were evaluated.
      num_left_out: images left out for want of a torso or head box to measure in.
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
      float64 [N], NaN where neither diagonal has both its ends, and of a skeleton
      without a torso.
    """
    if not skeleton.torso:
        return np.full(len(joints), np.nan)
    first, second = np.array(skeleton.torso).T  # [2] one end of each diagonal
    ends = joints[:, first].astype(np.float64) - joints[:, second]
    lengths = np.hypot(ends[..., 0], ends[..., 1])  # [N, 2]
    whole = (status[:, first] != ABSENT) & (status[:, second] != ABSENT)
    longest = np.where(whole, lengths, -np.inf).max(axis=1)
    return np.where(whole.any(axis=1), longest, np.nan)


def score_name(reference: str, threshold: float) -> str:
    """What a PCK is called: PCK@0.2 of the torso, PCKh@0.5 of the head."""
    name = {
        "torso": "PCK",
        "head": "PCKh",
        "head_full": "PCKh of the full head box",
        "box": "PCK of the box",
    }
    return f"{name[reference]}@{threshold:g}"


def pck(
    predicted: np.ndarray,
    joints: np.ndarray,
    status: np.ndarray,
    skeleton: Skeleton,
    *,
    threshold: float = 0.2,
    count_occluded: bool = True,
    reference: str = "torso",
    head_sizes: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    average: str = "all",
) -> PckResult:
    """Percentage of correct keypoints, person-centric.

    Whether a joint at the threshold itself is correct follows each reference's own
    code (see the module): the papers' torso rule is <, MPII's official one <=, so
    that numbers agree with theirs to the joint. Absent joints are never counted, NaN
    predictions are misses, images without the reference are left out and counted. We
    differ: the papers' code evaluates thresholds on np.linspace(0, 1, 20), where
    neither 0.2 nor 0.5 is; here the threshold is the one asked for.

    Args:
      predicted: [N, J, 2] in pixels of the original image.
      joints: [N, J, 2] annotated, NaN where absent.
      status: [N, J], VISIBLE, OCCLUDED or ABSENT.
      skeleton: names the torso's diagonals and the joints officially left out.
      threshold: in lengths of the reference (papers: torso 0.2, head 0.5).
      count_occluded: whether occluded joints count.
      reference: one of `REFERENCES`.
      head_sizes: [N] diagonals of the head boxes, original pixels, NaN where there is
        none; needed where the reference is of the head.
      boxes: [N, 4] of people, NaN of one without, for whom its joints' box counts;
        looked at where the reference is the box.
      average: one of `JOINTS`, which joints make the mean and how.

    Raises:
      ValueError: shapes or options do not fit, or nothing can be counted.
    """
    _check_shapes(predicted, joints, status, skeleton)
    if not threshold > 0:
        raise ValueError(
            f"{threshold=} must be positive; the papers' is 0.2 (torso) or 0.5 (head)."
        )
    if average not in JOINTS:
        raise ValueError(f"unknown {average=}; known: {', '.join(JOINTS)}")
    lengths = reference_lengths(joints, status, skeleton, reference, head_sizes, boxes)
    measured = lengths > 0  # False for NaN, and for ends on the same pixel
    if not measured.any():
        raise ValueError(
            f"None of the {len(lengths)} images has a {_NEEDS[reference]}, or evaluate "
            "other images."
        )
    counted = (status != ABSENT) & measured[:, None]
    if not count_occluded:
        counted &= status != OCCLUDED
    counts = counted.sum(axis=0)
    if not counts.any():
        raise ValueError("No visible joint to count: set count_occluded=True.")
    error = predicted.astype(np.float64) - joints
    distance = np.hypot(error[..., 0], error[..., 1])
    within = np.less_equal if reference == "head" else np.less
    correct = within(distance, threshold * lengths[:, None])
    hits = (correct & counted).sum(axis=0)
    per_joint = np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)
    return PckResult(
        mean=_mean(hits, counts, per_joint, skeleton, average),
        per_joint=per_joint,
        counts=counts,
        num_images=int(measured.sum()),
        num_left_out=int((~measured).sum()),
    )


_NEEDS = {
    "torso": "torso to measure in: annotate a shoulder and the hip on the other side "
    "in some",
    "head": "head box to measure in: set evaluation.reference=torso",
    "head_full": "head box to measure in: set evaluation.reference=torso",
    "box": "box, nor two joints, to measure in: annotate some",
}


def reference_lengths(
    joints, status, skeleton, reference, head_sizes, boxes=None
) -> np.ndarray:
    """Length of the reference in each image: float64 [N], NaN where there is none."""
    if reference not in REFERENCES:
        raise ValueError(f"unknown {reference=}; known: {', '.join(REFERENCES)}")
    if reference == "torso":
        return torso_lengths(joints, status, skeleton)
    if reference == "box":
        return np.hypot(*scores.box_sides(joints, boxes).T)
    if head_sizes is None or head_sizes.shape != joints.shape[:1]:
        shape = None if head_sizes is None else head_sizes.shape
        raise ValueError(
            f"{reference=} needs head_sizes [N] of the {len(joints)} images, got "
            f"{shape}; without head boxes set evaluation.reference=torso"
        )
    factor = HEAD_FACTOR if reference == "head" else 1.0
    return factor * head_sizes.astype(np.float64)


def _mean(hits, counts, per_joint, skeleton: Skeleton, average: str) -> float:
    if average == "all":
        return float(per_joint[counts > 0].mean())
    official = np.ones(len(counts), bool)
    official[list(skeleton.left_out)] = False
    if not counts[official].any():
        left_out = ", ".join(skeleton.joints[j] for j in skeleton.left_out)
        raise ValueError(
            f"No joint to count but those officially left out ({left_out}): set "
            "evaluation.joints=all"
        )
    return float(hits[official].sum() / counts[official].sum())


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
