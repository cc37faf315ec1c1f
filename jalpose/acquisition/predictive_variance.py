"""Predictive variance: of what number K models predict are surest to differ.

Kendall and Gal, NIPS 2017, as EGL++'s paper has it (Shukla, WACV 2022, Eq. 11): the
mean of the models' own variances and the variance of their means.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Pool, Selection, by_score
from jalpose.acquisition.parts.expected_gradients import (
    predictive_variance as variance_of,
)
from jalpose.acquisition.parts.number_labels import NumberLabels


@dataclasses.dataclass(frozen=True)
class PredictiveVariance(NumberLabels):
    """Variance of the label under all models, Eq. 11."""

    section: ClassVar = "acquisition.predictive_variance"

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the largest predictive variance.

        Drawn are bootstraps of linear models and processes.

        Raises:
          DataError: a singular design.
          FloatingPointError: a score is not finite; names the example ids.
        """
        scores = variance_of(*self.labels(key, probe, pool))
        explanation = {"label_variance": scores.astype("float32")}
        return by_score(pool.unlabelled, scores, budget, explanation)
