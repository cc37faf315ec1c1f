"""Numbers without JAX: root mean squared error, the mean of the labelled, tiles.

`truth` holds value float32 [N], NaN where nobody knows it. Predictions hold value and
deviation float32 [N].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jalpose.data.dataset import Dataset
from jalpose.tasks import sheets
from jalpose.tasks.labels import Predicted, Score, ScoreKeys, Truth

KEYS = ScoreKeys(
    key="rmse",
    parts="rmse_per_quarter",
    baseline="mean_value_rmse",
    baseline_name="mean of the labelled",
    part="quarter",
    percent=False,
    higher_is_better=False,
    usual_name="RMSE",
    beside=(
        ("mean_absolute_error", "mean absolute error"),
        ("explained_variance", "explained share of the variance"),
    ),
)
QUARTERS = ("lowest", "second", "third", "highest")  # of the true values
_SIZE, _MOST = 160, 16  # pixels of a tile, and inputs drawn in it
_BAR, _AXIS = (70, 110, 190), (150, 150, 150)


@dataclasses.dataclass(frozen=True)
class NumberLabels:
    """One number a row, and how predictions of it are scored."""

    keys = KEYS
    recorded = ("value", "deviation")

    def known(self, labels: Truth) -> np.ndarray:
        """Which rows have a value: bool [N]."""
        return np.isfinite(labels["value"])

    def in_crop(self, truth: Truth, windows, size: int) -> Truth:
        """The value: rows are taken whole."""
        del windows, size
        return {"value": truth["value"]}

    def place(self, decoded: Predicted, windows, size: int) -> Predicted:
        """What was decoded."""
        del windows, size
        return decoded

    def score(self, predicted: Predicted, truth: Truth) -> Score:
        """Root mean squared error, of each quarter of the true values too.

        A prediction of one row stands for all. Rows of unknown value are left out.

        Raises:
          ValueError: no row's value is known.
        """
        known = self.known(truth)
        if not known.any():
            raise ValueError("no row whose value is known")
        true = truth["value"][known].astype(np.float64)
        said = np.broadcast_to(predicted["value"], known.shape)[known]
        squares = np.square(said.astype(np.float64) - true)
        edges = np.quantile(true, (0.25, 0.5, 0.75))
        quarter = np.searchsorted(edges, true, side="left")
        parts = {
            name: _root(squares[quarter == number])
            for number, name in enumerate(QUARTERS)
        }
        spread = float(true.var())
        explained = 1 - float(squares.mean()) / spread if spread > 0 else np.nan
        return Score(
            name="RMSE",
            value=_root(squares),
            parts=parts,
            num_scored=int(known.sum()),
            num_left_out=int((~known).sum()),
            more={
                "mean_absolute_error": float(np.sqrt(squares).mean()),
                "explained_variance": explained,
            },
        )

    def guess(self, known: Truth, known_windows, windows) -> Predicted:
        """The mean of what is labelled: one row."""
        del known_windows, windows
        values = known["value"][self.known(known)].astype(np.float64)
        return {"value": np.array([values.mean()])}

    def metrics(self, score: Score, baseline: Score) -> dict[str, Any]:
        """The error, of each quarter, and that of the labelled rows' mean."""
        return {
            "rmse": score.value,
            "rmse_name": score.name,
            **score.more,
            "rmse_per_quarter": score.parts,
            "num_images": score.num_scored,
            "num_left_out": score.num_left_out,
            "mean_value_rmse": baseline.value,
        }

    def summary(self, metrics: Mapping) -> str:
        """The error on the test rows, and that of the mean."""
        return (
            f"{metrics['rmse_name']} {metrics['rmse']:.4g} on {metrics['num_images']} "
            f"test rows (mean of the labelled {metrics['mean_value_rmse']:.4g}), "
            f"{metrics['explained_variance']:.1%} of the variance explained"
        )

    def verdicts(self, predicted: Predicted, truth: Truth) -> list[str]:
        """How far off each prediction is."""
        return [
            f"off by {value:+.3g}" if np.isfinite(value) else "not known"
            for value in predicted["value"] - truth["value"]
        ]

    def draw(self, image, window, truth, predicted, caption: str) -> np.ndarray:
        """The row's inputs as bars, two deviations to an edge, above its numbers."""
        del window
        canvas = Image.new("RGB", (_SIZE, _SIZE), sheets.PAPER)
        pen, middle = ImageDraw.Draw(canvas), _SIZE / 2
        shown = np.clip(np.asarray(image, np.float64)[:_MOST], -2, 2)
        step = (_SIZE - 48) / len(shown)
        for number, value in enumerate(shown):
            ends = sorted((middle, middle + value * middle / 2))
            top = 4 + number * step
            pen.rectangle([ends[0], top, ends[1], top + 0.7 * step], fill=_BAR)
        pen.line([middle, 2, middle, _SIZE - 46], fill=_AXIS)
        for place, name, values in ((40, "true", truth), (22, "said", predicted)):
            if values is not None:
                words = f"{name} {float(values['value']):.4g}"
                pen.text((6, _SIZE - place), words, fill=sheets.INK)
        tile = np.asarray(canvas)
        if not caption:
            return tile
        return np.concatenate([tile, sheets.caption(caption, _SIZE)])

    def legend(self, width: int, *, labelled: bool = True) -> np.ndarray:
        """What a tile shows."""
        del labelled  # it says so itself
        words = f"bars: inputs, standardised, at most {_MOST}; said: predicted"
        strip = Image.new("RGB", (max(width, 2 * _SIZE), 20), sheets.PAPER)
        ImageDraw.Draw(strip).text((6, 4), words, fill=sheets.INK)
        return np.asarray(strip)


def make_labels(config: ConfigDict, dataset: Dataset) -> NumberLabels:
    """The NumPy half: there is nothing to configure."""
    del config, dataset
    return NumberLabels()


def _root(squares: np.ndarray) -> float:
    return float(np.sqrt(squares.mean())) if len(squares) else float("nan")
