"""The contract of a task's NumPy half: labels placed, scored and drawn, without JAX.

Labels and predictions of N examples are dicts of arrays [N, ...] by name. `truth` is
what a data set knows of its examples, in pixels of the image; labels as the network
sees them are in pixels of the crop.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

Truth = dict[str, np.ndarray]
Predicted = dict[str, np.ndarray]


class Score(NamedTuple):
    """How good predictions are.

    Attributes:
      name: what it is called, e.g. PCK@0.2.
      value: of all examples.
      parts: of each joint, class, ...; NaN where there was nothing to score.
      num_scored: examples it is of.
      num_left_out: examples that could not be scored.
      more: other numbers of the same predictions, by name, for the record.
    """

    name: str
    value: float
    parts: dict[str, float]
    num_scored: int
    num_left_out: int = 0
    more: Mapping[str, float] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreKeys:
    """How a score stands in a cycle's `metrics`, and how it is shown.

    A score of the key `pck` is `metrics["pck"]`, its name `metrics["pck_name"]`.

    Attributes:
      key: of the value.
      parts: key of the parts, a dict by name.
      baseline: key of the score that needs no image.
      baseline_name: what that is, for people.
      part: what a part is of, for people: joint, class.
      percent: the value is a share of one, shown in percent.
      higher_is_better: else the lowest score is the best.
      usual_name: where a record has no name.
      beside: keys of other numbers of the test set, and what they are for people.
    """

    key: str
    parts: str
    baseline: str
    baseline_name: str
    part: str
    percent: bool
    higher_is_better: bool
    usual_name: str
    beside: tuple[tuple[str, str], ...] = ()

    def value_of(self, metrics: Mapping) -> float | None:
        """The score in the unit it is shown in: percent, or as it is."""
        return self._shown(metrics.get(self.key))

    def baseline_of(self, metrics: Mapping) -> float | None:
        """The baseline's score in the unit it is shown in."""
        return self._shown(metrics.get(self.baseline))

    def parts_of(self, metrics: Mapping) -> dict[str, float | None]:
        """The parts in the unit they are shown in."""
        found = metrics.get(self.parts) or {}
        return {name: self._shown(value) for name, value in found.items()}

    def name_of(self, metrics: Mapping) -> str:
        """What the score is called."""
        return metrics.get(f"{self.key}_name", self.usual_name)

    def _shown(self, value):
        if value is None:
            return None
        return 100 * value if self.percent else value


@runtime_checkable
class Labels(Protocol):
    """What labels of a task are to everything that does not compute gradients.

    One whose labels cost more than a click has `most_clicks`, the most that one can
    cost, `clicks(truth) -> int [N]`, what labels have cost, and `expected_clicks(known,
    truth, predicted) -> int [M]`, what others are expected to, by predictions and
    labels of the labelled and predictions of the others.

    Attributes:
      keys: how its score stands in records.
      recorded: names of the arrays of a prediction that records of test sets keep.
    """

    @property
    def keys(self) -> ScoreKeys:
        """How its score stands in records."""
        ...

    @property
    def recorded(self) -> tuple[str, ...]:
        """Arrays of a prediction that records keep."""
        ...

    def known(self, labels: Truth) -> np.ndarray:
        """Which of the examples have anything in their label that counts: bool [N]."""
        ...

    def in_crop(self, truth: Truth, windows: np.ndarray | None, size: int) -> Truth:
        """The labels as the network sees them, of crops of `size` pixels."""
        ...

    def place(
        self, decoded: Predicted, windows: np.ndarray | None, size: int
    ) -> Predicted:
        """What `Task.decode` gave, in pixels of the image, as records keep it."""
        ...

    def score(self, predicted: Predicted, truth: Truth) -> Score:
        """Score predictions; ValueError where there is nothing to score."""
        ...

    def guess(self, known: Truth, known_windows, windows) -> Predicted:
        """Predict without looking: from labels alone, for examples of these windows."""
        ...

    def metrics(self, score: Score, baseline: Score) -> dict[str, Any]:
        """The score as a cycle's record has it, under `keys`."""
        ...

    def summary(self, metrics: Mapping) -> str:
        """One line on a cycle's score, for the screen."""
        ...

    def verdicts(self, predicted: Predicted, truth: Truth) -> list[str]:
        """A few words on each example: how good its prediction is."""
        ...

    def draw(
        self,
        image: np.ndarray,
        window: np.ndarray | None,
        truth: Truth | None,
        predicted: Predicted | None,
        caption: str,
    ) -> np.ndarray:
        """Draw one example's prediction and label: a tile, uint8 [H, W, 3].

        Args:
          image: uint8 [H, W, 3], original.
          window: of the crop, or None.
          truth: of this example, arrays without their first axis; None: not drawn.
          predicted: likewise.
          caption: under it.
        """
        ...

    def legend(self, width: int, *, labelled: bool = True) -> np.ndarray:
        """What lines and colours mean, for under the tiles: uint8 [H, W, 3].

        Args:
          width: of the strip, pixels.
          labelled: are labels drawn?
        """
        ...
