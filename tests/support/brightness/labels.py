"""The NumPy half: an error that is the lower the better, and not in percent."""

import dataclasses

import numpy as np
from PIL import Image

from jalpose.tasks.labels import Score, ScoreKeys
from jalpose.tasks.sheets import caption as strip

KEYS = ScoreKeys(
    key="brightness_error",
    parts="error_per_class",
    baseline="mean_brightness_error",
    baseline_name="mean brightness",
    part="class",
    percent=False,
    higher_is_better=False,
    usual_name="MAE",
)


@dataclasses.dataclass(frozen=True)
class SquareLabels:
    bright: float
    keys = KEYS
    recorded = ("brightness",)

    def known(self, labels):
        return np.isfinite(labels["brightness"])

    def in_crop(self, truth, windows, size):
        return {"brightness": truth["brightness"]}

    def place(self, decoded, windows, size):
        return decoded

    def score(self, predicted, truth):
        error = np.abs(predicted["brightness"] - truth["brightness"])
        known = np.isfinite(error)
        if not known.any():
            raise ValueError("no square whose brightness is known")
        bright = truth["brightness"] > self.bright
        parts = {
            name: float(error[known & part].mean()) if (known & part).any() else np.nan
            for name, part in (("dark", ~bright), ("bright", bright))
        }
        return Score(
            name="MAE",
            value=float(error[known].mean()),
            parts=parts,
            num_scored=int(known.sum()),
            num_left_out=int((~known).sum()),
        )

    def guess(self, known, known_windows, windows):
        return {"brightness": np.float32(np.nanmean(known["brightness"]))}

    def metrics(self, score, baseline):
        return {
            "brightness_error": score.value,
            "brightness_error_name": score.name,
            "error_per_class": score.parts,
            "num_images": score.num_scored,
            "mean_brightness_error": baseline.value,
        }

    def summary(self, metrics):
        error, count = metrics["brightness_error"], metrics["num_images"]
        return f"MAE {error:.3f} on {count} squares"

    def verdicts(self, predicted, truth):
        error = np.abs(predicted["brightness"] - truth["brightness"])
        return [f"off by {value:.2f}" for value in error]

    def draw(self, image, window, truth, predicted, caption):
        tile = np.asarray(Image.fromarray(image).resize((128, 128)))
        if predicted is not None:
            said = round(255 * float(np.clip(predicted["brightness"], 0, 1)))
            tile = np.concatenate([tile, np.full((128, 16, 3), said, np.uint8)], axis=1)
        return np.concatenate([tile, strip(caption, tile.shape[1])])

    def legend(self, width):
        return np.full((8, width, 3), 255, np.uint8)


def make_labels(config, dataset):
    return SquareLabels(bright=config.evaluation.bright)
