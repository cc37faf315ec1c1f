"""Human pose without JAX: labels placed in crops, PCK, the mean pose, pictures.

`truth` holds joints float32 [N, J, 2] (pixels of the image, NaN where absent), status
int8 [N, J], and head_size float32 [N] (diagonals of the head boxes, NaN where a person
has none) where a set has head boxes. Predictions hold joints [N, J, 2] and peaks
[N, J].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jalpose.data.crops import from_crop, meets, to_crop
from jalpose.data.dataset import Dataset
from jalpose.settings.checks import ConfigError
from jalpose.tasks.labels import Predicted, Score, ScoreKeys, Truth
from jalpose.tasks.pose import baseline, counting, drawings, pck
from jalpose.tasks.pose.annotations import skeleton_of
from jalpose.tasks.pose.skeletons import Skeleton

KEYS = ScoreKeys(
    key="pck",
    parts="pck_per_joint",
    baseline="mean_pose_pck",
    baseline_name="mean pose",
    part="joint",
    percent=True,
    higher_is_better=True,
    usual_name="PCK",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseLabels:
    """Joints of a skeleton, and how they are scored.

    Attributes:
      skeleton: whose joints.
      size: of the crop that is learnt from, pixels.
      threshold: of PCK, in lengths of `reference`.
      reference: see `pck.REFERENCES`.
      joints: see `pck.JOINTS`.
      occluded: occluded joints are scored.
      trained_occluded: occluded joints are learnt.
    """

    skeleton: Skeleton
    size: int
    threshold: float = 0.2
    reference: str = "torso"
    joints: str = "all"
    occluded: bool = True
    trained_occluded: bool = True
    keys = KEYS
    recorded = ("joints",)

    def known(self, labels: Truth) -> np.ndarray:
        """Which examples have a joint that counts; see `counting`."""
        return counting.counted(
            labels["joints"],
            labels["status"],
            occluded=self.trained_occluded,
            size=self.size,
        ).any(axis=1)

    def in_crop(self, truth: Truth, windows, size: int) -> Truth:
        """Joints in crop pixels, 0 where absent, and their status."""
        joints = to_crop(truth["joints"], windows, size)
        joints = np.nan_to_num(joints, nan=0.0).astype(np.float32)
        return {"joints": joints, "status": truth["status"]}

    def place(self, decoded: Predicted, windows, size: int) -> Predicted:
        """Joints from crop pixels to those of the image."""
        return {**decoded, "joints": from_crop(decoded["joints"], windows, size)}

    def score(self, predicted: Predicted, truth: Truth) -> Score:
        """PCK of the joints."""
        found = pck.pck(
            predicted["joints"],
            truth["joints"],
            truth["status"],
            self.skeleton,
            threshold=self.threshold,
            count_occluded=self.occluded,
            reference=self.reference,
            head_sizes=truth.get("head_size"),
            average=self.joints,
        )
        parts = zip(self.skeleton.joints, found.per_joint.tolist(), strict=True)
        return Score(
            name=pck.score_name(self.reference, self.threshold),
            value=found.mean,
            parts=dict(parts),
            num_scored=found.num_images,
            num_left_out=found.num_left_out,
        )

    def guess(self, known: Truth, known_windows, windows) -> Predicted:
        """The mean pose of what is labelled, in every crop."""
        mean = baseline.mean_crop_pose(known["joints"], known["status"], known_windows)
        return {"joints": baseline.predict_mean_pose(mean, windows)}

    def metrics(self, score: Score, baseline: Score) -> dict[str, Any]:
        """PCK, what it is measured in, of each joint, and that of the mean pose."""
        return {
            "pck": score.value,
            "pck_name": score.name,
            "pck_threshold": self.threshold,
            "pck_reference": self.reference,
            "pck_joints": self.joints,
            "pck_per_joint": score.parts,
            "num_images": score.num_scored,
            "num_left_out": score.num_left_out,
            "mean_pose_pck": baseline.value,
        }

    def summary(self, metrics: Mapping) -> str:
        """PCK of the test images, and that of the mean pose."""
        return (
            f"{metrics['pck_name']} {metrics['pck']:.1%} on "
            f"{metrics['num_images']} test images ({metrics['num_left_out']} left out; "
            f"mean pose {metrics['mean_pose_pck']:.1%})"
        )

    def verdicts(self, predicted: Predicted, truth: Truth) -> list[str]:
        """Share of the annotated joints that are found, of each example."""
        lengths = pck.reference_lengths(
            truth["joints"],
            truth["status"],
            self.skeleton,
            self.reference,
            truth.get("head_size"),
        )
        reach = self.threshold * lengths
        distance = np.linalg.norm(predicted["joints"] - truth["joints"], axis=-1)
        return [
            f"{np.mean(d[~np.isnan(d)] < r):.0%} found" if r > 0 else "not measured"
            for d, r in zip(distance, reach, strict=True)
        ]

    def draw(self, image, window, truth, predicted, caption: str) -> np.ndarray:
        """Predicted and labelled pose on the image, of a large one on a part."""
        part, corner = near(image, window)
        joints = status = None
        if truth is not None:
            joints, status = truth["joints"] - corner, truth["status"]
        return drawings.draw_prediction(
            part,
            None if predicted is None else predicted["joints"] - corner,
            joints,
            status,
            self.skeleton,
            caption,
        )

    def legend(self, width: int) -> np.ndarray:
        """What the colours of limbs and joints mean."""
        return drawings.legend(width)


_LEAST = 8  # pixels of a part that is worth looking at


def near(image, window):
    """The image, or of a large one with a small person the part round it; its corner.

    A window that hardly meets the image leaves it whole.

    Returns:
      uint8 [H, W, 3], and (x, y) of its upper left pixel in the whole image.
    """
    height, width = image.shape[:2]
    x, y, side = (float(value) for value in window)
    if side >= 0.6 * max(height, width) or not meets(window, width, height):
        return image, np.zeros(2)
    left, top = max(0, int(x - side / 2)), max(0, int(y - side / 2))
    right, bottom = int(x + side / 2) + 1, int(y + side / 2) + 1
    part = image[top:bottom, left:right]
    if min(part.shape[:2]) < _LEAST:
        return image, np.zeros(2)
    return part, np.array([left, top])


def make_labels(config: ConfigDict, dataset: Dataset) -> PoseLabels:
    """The NumPy half that a config describes, of the skeleton of its data set.

    Raises:
      ConfigError: no test image has what PCK is to be measured in, or a joint that is
        scored; or nobody labelled has one that is learnt.
    """
    evaluation, sizes = config.evaluation, dataset.truth.get("head_size")
    skeleton = skeleton_of(dataset)
    if evaluation.reference != "torso" and (
        sizes is None or not (sizes[dataset.test] > 0).any()
    ):
        raise ConfigError(
            f"evaluation.reference={evaluation.reference} needs head boxes, but no "
            "test image of this data set has one (HRNet's JSON of MPII has none "
            "either); set evaluation.reference=torso"
        )
    _check_scored(config, dataset.truth_of(dataset.test), skeleton)
    _check_trained(config, dataset)
    return PoseLabels(
        skeleton=skeleton,
        size=config.data.size,
        threshold=evaluation.threshold,
        reference=evaluation.reference,
        joints=evaluation.joints,
        occluded=evaluation.occluded,
        trained_occluded=config.training.occluded,
    )


def _check_scored(config: ConfigDict, truth: Truth, skeleton: Skeleton) -> None:
    """Raise ConfigError where no joint of the test images can be scored."""
    evaluation, status = config.evaluation, truth["status"]
    lengths = pck.reference_lengths(
        truth["joints"],
        status,
        skeleton,
        evaluation.reference,
        truth.get("head_size"),
    )
    measured = lengths > 0
    if not measured.any():  # of head boxes it has been said
        raise ConfigError(
            f"evaluation.reference={evaluation.reference} needs a shoulder and the hip "
            f"on the other side, which none of the {len(status)} test people has; "
            "annotate them, or set evaluation.reference=head where there are head boxes"
        )
    scored = counting.annotated(status, evaluation.occluded)[measured]
    if not scored.any():
        raise ConfigError(
            f"evaluation.occluded={evaluation.occluded} leaves no joint to score: all "
            f"of the {len(scored)} test people are occluded (are the flags inverted?); "
            "set evaluation.occluded=True"
        )
    if evaluation.joints == "official":
        scored[:, list(skeleton.left_out)] = False
        if not scored.any():
            raise ConfigError(
                "evaluation.joints=official leaves no joint to score of the "
                f"{len(scored)} test people; set evaluation.joints=all"
            )


def _check_trained(config: ConfigDict, dataset: Dataset) -> None:
    """Raise ConfigError where nobody who is trained on has a joint to learn."""
    for held_out, who in ((False, "trained on"), (True, "held out")):
        ids = dataset.initial[dataset.held_out(dataset.initial) == held_out]
        status = dataset.truth["status"][ids]
        known = counting.annotated(status, config.training.occluded)
        if len(ids) and not known.any():
            raise ConfigError(
                f"training.occluded={config.training.occluded}: none of the "
                f"{len(ids)} people labelled at the start who are {who} has a joint "
                "to learn; set training.occluded=True, or a larger data.initial"
            )
