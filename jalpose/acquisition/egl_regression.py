"""Expected gradient length for regression: labels of one number from K models.

Shukla, "Bayesian Uncertainty and Expected Gradient Length - Regression: Two Sides Of
The Same Coin?", WACV 2022. The network's number f_z has the squared gradient norm
|grad f_z|^2, exact by the configured engine, and of the labels two moments count
(`parts.expected_gradients`). Each form of the paper:

- Eq. 2, Cai's: form=change, without variances and without a square;
- Eq. 5 and 6: the expectation, in closed form the next three;
- Eq. 7: models=linear, on a linear network (`model.hidden=()`), of which |grad f_z|^2
  is 1 + |x|^2, the intercept counted;
- Eq. 8: models=networks with `training.variance`;
- Eq. 9 and 10: models=process; Eq. 10 for a network and any models.

f_z is the cycle's own network, not the models' mean: that is the bias by which Eq. 10
differs from |grad f_z|^2 times the predictive variance (Eq. 11). The gradient is of
the squared error, as in Eq. 10, where the network learns a variance too.
"""

import dataclasses
import functools
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from scipy import stats

from jalpose.acquisition.method import Pool, Selection, by_score
from jalpose.acquisition.parts.expected_gradients import (
    expected_change,
    expected_squared,
    predictive_variance,
    squared_bias,
)
from jalpose.acquisition.parts.number_labels import NumberLabels, moments
from jalpose.settings.checks import one_of

FORMS = ("squared", "change")


@dataclasses.dataclass(frozen=True)
class EglRegression(NumberLabels):
    """Expected gradient length over the labels that K models predict.

    Attributes:
      form: squared: Eq. 5 in closed form (7, 10) | change: Eq. 2, the mean norm.
    """

    form: str = "squared"

    section: ClassVar = "acquisition.egl_regression"
    uses_engine: ClassVar = True

    def __post_init__(self):
        """Refuse a form that there is not, and models that cannot be."""
        super().__post_init__()
        one_of(f"{self.section}.form", self.form, FORMS)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the highest expected gradient length.

        Drawn are bootstraps of linear models and processes. The summary has Spearman's
        correlation of the scores with the predictive variance.

        Raises:
          DataError: a singular design.
          FloatingPointError: a score is not finite; names the example ids.
        """
        ids = pool.unlabelled
        norms = probe.squared_norms(
            one_target,
            ids,
            np.ones((len(ids), 1), np.float32),
            loss_fn=number(probe.task),
        )["expected"]
        said = probe.reduce(moments(probe.task, False), ids)["mean"]
        means, variances = self.labels(key, probe, pool)
        if self.form == "squared":
            scores = expected_squared(norms, said, means, variances)
        else:
            scores = expected_change(norms, said, means)
        spread, bias = predictive_variance(means, variances), squared_bias(said, means)
        return by_score(
            ids,
            scores,
            budget,
            {
                "label_variance": np.float32(spread),
                "squared_bias": np.float32(bias),
                "squared_norm": np.float32(norms),
            },
            {"spearman_with_variance": _spearman(scores, spread)},
        )


def one_target(row):
    """The one target of a loss that needs none."""
    del row
    return jnp.zeros(1)


@functools.cache
def number(task):
    """The number itself as a loss, so that its gradient is that of f_z."""

    def loss_fn(prediction, target):
        del target
        return task.moments(prediction)[0]

    return loss_fn


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """0 where one of the two orders nothing."""
    if len(first) < 2 or not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return 0.0
    return float(stats.spearmanr(first, second).statistic)
