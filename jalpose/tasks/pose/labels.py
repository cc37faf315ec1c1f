"""Human pose without JAX: labels placed in crops, scores, the mean pose, pictures.

`truth` holds joints float32 [N, J, 2] (pixels of the image, NaN where absent), status
int8 [N, J], and head_size float32 [N] (diagonals of the head boxes, NaN where a person
has none) where a set has head boxes. Own images and COCO have box float32 [N, 4] and
area float32 [N] (NaN of one without) and image int32 [N] (its number). Predictions
hold joints [N, J, 2] and peaks [N, J].
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
from jalpose.tasks.pose import (
    baseline,
    clicks,
    counting,
    drawings,
    pck,
    scorable,
    scores,
)
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
OKS_KEYS = ScoreKeys(
    key="average_precision",
    parts="oks_per_joint",
    baseline="mean_pose_average_precision",
    baseline_name="mean pose",
    part="joint",
    percent=True,
    higher_is_better=True,
    usual_name="AP by OKS",
)
PIXEL_KEYS = ScoreKeys(
    key="pixel_error",
    parts="pixel_error_per_joint",
    baseline="mean_pose_pixel_error",
    baseline_name="mean pose",
    part="joint",
    percent=False,
    higher_is_better=False,
    usual_name="mean error in pixels",
)
# By `evaluation.score`.
KEYS_OF = {"pck": KEYS, "oks": OKS_KEYS, "pixels": PIXEL_KEYS}
EVERY_KEYS = tuple(KEYS_OF.values())


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
      main: the score, of `scores.SCORES`.
      least_peak: of PCK, height of a heatmap under which a joint is not found.
      sigmas: of OKS, one a joint; None where nobody states them.
    """

    skeleton: Skeleton
    size: int
    threshold: float = 0.2
    reference: str = "torso"
    joints: str = "all"
    occluded: bool = True
    trained_occluded: bool = True
    main: str = "pck"
    least_peak: float = 0.0
    sigmas: tuple[float, ...] | None = None
    recorded = ("joints",)

    @property
    def keys(self) -> ScoreKeys:
        """How the main score stands in records."""
        return KEYS_OF[self.main]

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
        """The main score of the joints; of own images the others beside it."""
        own = {"pck": self._pck, "oks": self._oks, "pixels": self._pixels}
        found = own[self.main](predicted, truth)
        more: dict[str, float] = dict(found.more)
        if "image" in truth:
            for name, other in own.items():
                if name == self.main or (name == "oks" and self.sigmas is None):
                    continue
                try:
                    beside = other(predicted, truth)
                except ValueError:  # nobody has what it is measured in
                    continue
                more |= {KEYS_OF[name].key: beside.value, **beside.more}
        return found._replace(more=more)

    @property
    def most_clicks(self) -> int:
        """Clicks of a label that has every joint."""
        return self.skeleton.num_joints

    def clicks(self, truth: Truth) -> np.ndarray:
        """A click for each annotated joint: int64 [N]; see `clicks`."""
        return clicks.spent(truth["status"])

    def expected_clicks(
        self, known: Predicted, truth: Truth, predicted: Predicted
    ) -> np.ndarray:
        """Clicks expected of labels that are not there: int64 [M]; see `clicks`."""
        return clicks.expected(known["peaks"], truth["status"], predicted["peaks"])

    def _pck(self, predicted: Predicted, truth: Truth) -> Score:
        found = pck.pck(
            self._found(predicted),
            truth["joints"],
            truth["status"],
            self.skeleton,
            threshold=self.threshold,
            count_occluded=self.occluded,
            reference=self.reference,
            head_sizes=truth.get("head_size"),
            boxes=truth.get("box"),
            average=self.joints,
        )
        return Score(
            name=pck.score_name(self.reference, self.threshold),
            value=found.mean,
            parts=self._by_joint(found.per_joint),
            num_scored=found.num_images,
            num_left_out=found.num_left_out,
        )

    def _found(self, predicted: Predicted) -> np.ndarray:
        """Joints [N, J, 2], NaN where the heatmap is too low; a guess has none."""
        joints, peaks = predicted["joints"], predicted.get("peaks")
        if peaks is None or not self.least_peak:
            return joints
        return np.where((peaks < self.least_peak)[..., None], np.nan, joints)

    def _oks(self, predicted: Predicted, truth: Truth) -> Score:
        joints = truth["joints"]
        counted = scores.counted_joints(truth["status"], self.occluded)
        areas = scores.areas_of(joints, truth["box"], truth["area"])
        common = joints, counted, np.array(self.sigmas), areas
        peaks = predicted.get("peaks")  # a guess has none
        heights = np.ones(len(joints)) if peaks is None else peaks.mean(axis=1)
        found = scores.average_precision(
            predicted["joints"], heights, *common, truth["image"]
        )
        each, counts = (
            scores.joint_similarity(predicted["joints"], *common),
            counted.sum(axis=0),
        )
        shares = each.sum(axis=0) / np.maximum(counts, 1)
        known = int(counted.any(axis=1).sum())
        return Score(
            name=OKS_KEYS.usual_name,
            value=found.mean,
            parts=self._by_joint(np.where(counts > 0, shares, np.nan)),
            num_scored=known,
            num_left_out=len(joints) - known,
            more={
                "average_precision_50": found.at_50,
                "average_precision_75": found.at_75,
                "average_recall": found.recall,
            },
        )

    def _pixels(self, predicted: Predicted, truth: Truth) -> Score:
        counted = scores.counted_joints(truth["status"], self.occluded)
        found = scores.pixel_errors(predicted["joints"], truth["joints"], counted)
        known = int(counted.any(axis=1).sum())
        return Score(
            name=PIXEL_KEYS.usual_name,
            value=found.mean,
            parts=self._by_joint(found.per_joint),
            num_scored=known,
            num_left_out=len(counted) - known,
            more={"pixel_error_median": found.median},
        )

    def _by_joint(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.skeleton.joints, values.tolist(), strict=True))

    def guess(self, known: Truth, known_windows, windows) -> Predicted:
        """The mean pose of what is labelled, in every crop."""
        mean = baseline.mean_crop_pose(known["joints"], known["status"], known_windows)
        return {"joints": baseline.predict_mean_pose(mean, windows)}

    def metrics(self, score: Score, baseline: Score) -> dict[str, Any]:
        """The score, what it is measured in, of each joint, and of the mean pose."""
        keys, how = self.keys, {}
        if self.main == "pck":
            how = {
                "pck_threshold": self.threshold,
                "pck_reference": self.reference,
                "pck_joints": self.joints,
            }
        return {
            keys.key: score.value,
            f"{keys.key}_name": score.name,
            **how,
            keys.parts: score.parts,
            "num_images": score.num_scored,
            "num_left_out": score.num_left_out,
            keys.baseline: baseline.value,
            **score.more,
        }

    def summary(self, metrics: Mapping) -> str:
        """The score of the test images, and that of the mean pose."""
        keys, form = self.keys, ".1%" if self.keys.percent else ".1f"
        middle = ""
        if keys is PIXEL_KEYS and "pixel_error_median" in metrics:  # not of old runs
            middle = f" (median {metrics['pixel_error_median']:.1f})"
        return (
            f"{metrics[f'{keys.key}_name']} {metrics[keys.key]:{form}}{middle} on "
            f"{metrics['num_images']} test images ({metrics['num_left_out']} left out; "
            f"mean pose {metrics[keys.baseline]:{form}})"
        )

    def verdicts(self, predicted: Predicted, truth: Truth) -> list[str]:
        """Share of the annotated joints that are found, of each example, or pixels."""
        if self.main != "pck":
            error = np.linalg.norm(predicted["joints"] - truth["joints"], axis=-1)
            return [
                "not labelled"
                if np.isnan(e).all()
                else f"{np.nanmean(e):.1f} pixels off"
                for e in error
            ]
        lengths = pck.reference_lengths(
            truth["joints"],
            truth["status"],
            self.skeleton,
            self.reference,
            truth.get("head_size"),
            truth.get("box"),
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

    def legend(self, width: int, *, labelled: bool = True) -> np.ndarray:
        """What the colours of limbs and joints mean."""
        return drawings.legend(width, labelled=labelled)


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
    if evaluation.reference in ("head", "head_full") and (
        sizes is None or not (sizes[dataset.test] > 0).any()
    ):
        raise ConfigError(
            f"evaluation.reference={evaluation.reference} needs head boxes, but no "
            "test image of this data set has one (HRNet's JSON of MPII has none "
            "either); set evaluation.reference=torso"
        )
    sigmas = scorable.sigmas(config, dataset, skeleton)
    if evaluation.score == "pck":
        scorable.check_scored(config, dataset.truth_of(dataset.test), skeleton)
    scorable.check_trained(config, dataset)
    return PoseLabels(
        skeleton=skeleton,
        size=config.data.size,
        threshold=evaluation.threshold,
        reference=evaluation.reference,
        joints=evaluation.joints,
        occluded=evaluation.occluded,
        trained_occluded=config.training.occluded,
        main=evaluation.score,
        least_peak=evaluation.least_peak * config.heatmap.peak,
        sigmas=sigmas,
    )
