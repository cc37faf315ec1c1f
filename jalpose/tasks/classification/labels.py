"""Classes without JAX: accuracy, likelihood, calibration, the commonest class, tiles.

`truth` holds class int32 [N], -1 where nobody knows it. Predictions hold class int32
[N] and probabilities float32 [N, C].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.settings.checks import ConfigError
from jalpose.tasks.classification import calibration, drawings
from jalpose.tasks.classification.annotations import classes_of
from jalpose.tasks.labels import Predicted, Score, ScoreKeys, Truth

KEYS = ScoreKeys(
    key="accuracy",
    parts="accuracy_per_class",
    baseline="commonest_class_accuracy",
    baseline_name="commonest class",
    part="class",
    percent=True,
    higher_is_better=True,
    usual_name="accuracy",
    beside=(
        ("negative_log_likelihood", "negative log-likelihood"),
        ("expected_calibration_error", "expected calibration error"),
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassLabels:
    """One class an image, and how predictions of it are scored.

    Attributes:
      classes: their names.
      bins: of the expected calibration error.
    """

    classes: tuple[str, ...]
    bins: int = 15
    keys = KEYS
    recorded = ("class", "probabilities")

    def known(self, labels: Truth) -> np.ndarray:
        """Which examples have a class: bool [N]."""
        return labels["class"] >= 0

    def in_crop(self, truth: Truth, windows, size: int) -> Truth:
        """The class: it is that of every crop."""
        del windows, size
        return {"class": truth["class"]}

    def place(self, decoded: Predicted, windows, size: int) -> Predicted:
        """What was decoded: a class has no place in the image."""
        del windows, size
        return decoded

    def score(self, predicted: Predicted, truth: Truth) -> Score:
        """Accuracy, of each class too; examples of unknown class are left out.

        A prediction of one row stands for all examples.

        Raises:
          ValueError: no example's class is known.
        """
        known = self.known(truth)
        if not known.any():
            raise ValueError("no example whose class is known")
        labels = truth["class"][known]
        said, probabilities = (
            np.broadcast_to(values, (len(known), *values.shape[1:]))[known]
            for values in (predicted["class"], predicted["probabilities"])
        )
        right = said == labels
        parts = calibration.accuracy_of_classes(right, labels, len(self.classes))
        calibrated = calibration.expected_calibration_error(
            probabilities, right, self.bins
        )
        return Score(
            name="accuracy",
            value=float(right.mean()),
            parts=dict(zip(self.classes, parts.tolist(), strict=True)),
            num_scored=int(known.sum()),
            num_left_out=int((~known).sum()),
            more={
                "negative_log_likelihood": calibration.negative_log_likelihood(
                    probabilities, labels
                ),
                "expected_calibration_error": calibrated,
            },
        )

    def guess(self, known: Truth, known_windows, windows) -> Predicted:
        """The commonest class of what is labelled, and how common each is: one row."""
        del known_windows, windows
        labels = known["class"][self.known(known)]
        counts = np.bincount(labels, minlength=len(self.classes))
        shares = counts / max(1, counts.sum())
        return {
            "class": np.array([np.argmax(counts)], np.int32),
            "probabilities": shares[None].astype(np.float32),
        }

    def metrics(self, score: Score, baseline: Score) -> dict[str, Any]:
        """Accuracy, of each class, likelihood, calibration, and the commonest class."""
        return {
            "accuracy": score.value,
            "accuracy_name": score.name,
            **score.more,
            "calibration_bins": self.bins,
            "accuracy_per_class": score.parts,
            "num_images": score.num_scored,
            "num_left_out": score.num_left_out,
            "commonest_class_accuracy": baseline.value,
        }

    def summary(self, metrics: Mapping) -> str:
        """Accuracy on the test images, and that of the commonest class."""
        left_out = metrics["num_left_out"]
        unknown = f"{left_out} of unknown class; " if left_out else ""
        return (
            f"{metrics['accuracy_name']} {metrics['accuracy']:.1%} on "
            f"{metrics['num_images']} test images ({unknown}commonest class "
            f"{metrics['commonest_class_accuracy']:.1%}), NLL "
            f"{metrics['negative_log_likelihood']:.3f}, ECE "
            f"{metrics['expected_calibration_error']:.1%}"
        )

    def verdicts(self, predicted: Predicted, truth: Truth) -> list[str]:
        """Right, or what is true, of each example."""
        return [
            "not known" if true < 0 else "right" if said == true else "wrong"
            for said, true in zip(predicted["class"], truth["class"], strict=True)
        ]

    def draw(self, image, window, truth, predicted, caption: str) -> np.ndarray:
        """The image with its class, what was said of it, and the likeliest classes."""
        del window
        return drawings.tile(
            image,
            self.classes,
            None if truth is None else int(truth["class"]),
            None if predicted is None else predicted["probabilities"],
            caption=caption,
        )

    def legend(self, width: int, *, labelled: bool = True) -> np.ndarray:
        """What the colours of bars mean."""
        return drawings.legend(width, labelled=labelled)


def make_labels(config: ConfigDict, dataset: Dataset) -> ClassLabels:
    """The NumPy half that a config describes, of the classes of its data set.

    Raises:
      ConfigError: no test image has a known class, or no labelled one that is trained
        on or held out.
    """
    labels = ClassLabels(classes=classes_of(dataset), bins=config.evaluation.bins)
    held_out = dataset.held_out(dataset.initial)
    for ids, who in (
        (dataset.test, "test images"),
        (dataset.initial[~held_out], "images that are trained on from the start"),
    ):
        if not labels.known(dataset.truth_of(ids)).any():
            raise ConfigError(
                f"none of the {len(ids)} {who} has a known class: label some, or "
                "choose a larger data.initial or data.test"
            )
    return labels
