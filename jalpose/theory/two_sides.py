"""EGL for regression against predictive variance: where the two sides part.

Shukla, WACV 2022, section 3, on data: the identity EGL = |grad f|^2 (Var + bias^2) to
the last digit, how alike the two order a pool, and which of the two factors parts them.
The paper prints no number for regression. The worked examples are ours, checked by
another way (Monte Carlo and by hand).
"""

import functools
import os
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from jalpose.acquisition.parts import label_models
from jalpose.acquisition.parts.expected_gradients import (
    expected_change,
    expected_squared,
    predictive_variance,
    squared_bias,
)
from jalpose.acquisition.parts.label_models import Kernel, Predicted
from jalpose.loop import configs
from jalpose.settings.checks import one_of
from jalpose.tasks import registry
from jalpose.theory import networks

TOP = 0.1  # share of a pool that is chosen
LABELLED = 40  # rows, of a set


class Rows(NamedTuple):
    """Labelled rows and a pool.

    Attributes:
      name: of the data, for people.
      inputs: float64 [L, p].
      targets: float64 [L].
      pool: float64 [M, p].
    """

    name: str
    inputs: np.ndarray
    targets: np.ndarray
    pool: np.ndarray


class Sides(NamedTuple):
    """What a pool's examples are scored by: arrays [M] but for the names.

    Attributes:
      data: of the rows.
      models: what predicts the labels.
      squared_norms: |grad f_z|^2.
      predictions: f_z.
      labels: of the K models.
    """

    data: str
    models: str
    squared_norms: np.ndarray
    predictions: np.ndarray
    labels: Predicted

    @property
    def egl(self) -> np.ndarray:
        """Eq. 7 or 10."""
        return expected_squared(self.squared_norms, self.predictions, *self.labels)

    @property
    def variance(self) -> np.ndarray:
        """Eq. 11."""
        return predictive_variance(*self.labels)

    @property
    def bias(self) -> np.ndarray:
        """Squared, of the models' mean to f_z."""
        return squared_bias(self.predictions, self.labels.means)

    @property
    def change(self) -> np.ndarray:
        """Eq. 2."""
        return expected_change(self.squared_norms, self.predictions, self.labels.means)


def rows_of(data: str, seed: int = 0, labelled: int = LABELLED) -> Rows:
    """Rows of the regression task, some labelled and the others the pool.

    Args:
      data: curve | diabetes | path of a CSV file, whose last column is the target.
      seed: of who is labelled.
      labelled: how many are.

    Raises:
      DataError: see `jalpose.tasks.regression.rows`.
      ConfigError: there is no such set.
    """
    config = configs.default("regression")
    keys = config.data
    keys.name, keys.initial, keys.test_share = data, labelled, 0.05
    if data.endswith(".csv"):
        keys.name, keys.dir, keys.file = "csv", "", data
    about = registry.sources_of("regression")
    one_of("--data", keys.name, about.SOURCES)
    found = about.load_dataset(keys, seed)

    def rows(ids):
        return np.stack([found.image(example) for example in ids]).astype(np.float64)

    targets = found.truth["value"][found.initial].astype(np.float64)
    name = os.path.basename(data).removesuffix(".csv")
    return Rows(name, rows(found.initial), targets, rows(found.pool))


def sides(rows: Rows, members: int = 10, seed: int = 0) -> list[Sides]:
    """Three kinds of models on rows, each with K bootstraps.

    f_z is fitted to all labelled rows: a linear model, of weights and intercept; a
    network of one hidden layer, which learns a variance; and a Gaussian process's mean
    k(x, X) a, whose parameters are the weights a of its rows, so that |grad f_z|^2 =
    |k(x, X)|^2.

    Args:
      rows: of the data; inputs and targets are standardised by the labelled ones.
      members: K.
      seed: of the bootstraps.

    Raises:
      DataError: fewer rows than members, or a singular design.
    """
    scale = rows.inputs.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    inputs, pool = (
        (values - rows.inputs.mean(axis=0)) / scale
        for values in (rows.inputs, rows.pool)
    )
    targets = (rows.targets - rows.targets.mean()) / rows.targets.std()
    ones, more = (np.c_[np.ones(len(v)), v] for v in (inputs, pool))
    kernel = label_models.fitted(inputs, targets)
    process = functools.partial(label_models.gaussian_process, kernel=kernel)
    near = label_models.covariance(pool, inputs, kernel)

    def committee(fit, inputs, pool):
        draws = np.random.default_rng(seed)
        return label_models.bootstraps(
            fit, inputs, targets, pool, members=members, draws=draws
        )

    # The labels first: a singular design is said before anything else is done.
    labels = committee(label_models.linear, ones, more)
    with jax.enable_x64(True):
        trained = networks.train(
            inputs, targets, pool, members=members, draws=np.random.default_rng(seed)
        )
    return [
        Sides(
            rows.name,
            "linear (Eq. 7)",
            np.sum(more**2, axis=1),
            label_models.linear(ones, targets, more).means,
            labels,
        ),
        Sides(rows.name, "networks with a variance (Eq. 8, 10)", *trained),
        Sides(
            rows.name,
            "Gaussian process (Eq. 9, 10)",
            np.sum(near**2, axis=1),
            process(inputs, targets, pool).means,
            committee(process, inputs, pool),
        ),
    ]


def agreement(side: Sides) -> dict[str, float]:
    """How EGL and predictive variance agree on a pool.

    identity: largest relative error of EGL = |grad f|^2 (Var + bias^2). egl, bias_only,
    norm_only, change: Spearman's correlation with the variance of EGL, of Var + bias^2,
    of |grad f|^2 Var, and of Cai's Eq. 2. overlap: of both choices of a tenth, the
    share that is the same. bias_share: of Var + bias^2, mean over the pool.
    """
    egl, variance, bias, norms = side.egl, side.variance, side.bias, side.squared_norms

    def rank(scores):
        return float(stats.spearmanr(scores, variance).statistic)

    count = max(1, round(TOP * len(egl)))
    chosen = [set(np.argsort(-scores)[:count].tolist()) for scores in (egl, variance)]
    product = norms * (variance + bias)
    return {
        "identity": float(np.max(np.abs(egl - product) / product)),
        "egl": rank(egl),
        "bias_only": rank(variance + bias),
        "norm_only": rank(norms * variance),
        "change": rank(side.change),
        "overlap": len(chosen[0] & chosen[1]) / count,
        "bias_share": float(np.mean(bias / (variance + bias))),
    }


def partings(side: Sides, count: int = 3) -> list[dict[str, float]]:
    """The examples whose ranks by EGL and by variance are the farthest apart.

    Ranks are from 1, the highest score first.
    """
    ranks = [stats.rankdata(-scores) for scores in (side.egl, side.variance)]
    order = np.argsort(-np.abs(ranks[0] - ranks[1]), kind="stable")[:count]
    return [
        {
            "example": int(row),
            "rank_egl": int(ranks[0][row]),
            "rank_variance": int(ranks[1][row]),
            "squared_norm": float(side.squared_norms[row]),
            "variance": float(side.variance[row]),
            "bias": float(side.bias[row]),
            "egl": float(side.egl[row]),
        }
        for row in order
    ]


# Worked examples.


def three_models() -> dict[str, float]:
    """One input and three models of its label: EGL (Eq. 7), Eq. 2, Eq. 11, bias."""
    norms = np.array([np.sum(np.square([1.0, 2.0, -1.0]))])
    prediction = np.array([0.5])
    labels = Predicted(
        np.array([[0.2, 0.7, 1.1]]), np.square(np.array([[0.3, 0.5, 0.4]]))
    )
    side = Sides("", "", norms, prediction, labels)
    return {
        "EGL, Eq. 7": float(side.egl[0]),
        "Eq. 2 (Cai)": float(side.change[0]),
        "EGL without variances": float(
            expected_squared(norms, prediction, labels.means, 0 * labels.variances)[0]
        ),
        "predictive variance, Eq. 11": float(side.variance[0]),
        "squared bias": float(side.bias[0]),
    }


def flipped() -> dict[str, float]:
    """Two inputs of |x| = 1 that Eq. 2 and Eq. 7 order differently."""
    means = np.array([[0.5, -0.5, 0.5, -0.5], [0.0, 0.0, 0.0, 1.2]])
    ones, zeros = np.ones(2), np.zeros(2)
    change = expected_change(ones, zeros, means)
    squared = expected_squared(ones, zeros, means, 0 * means)
    return {
        "A, Eq. 2": float(change[0]),
        "B, Eq. 2": float(change[1]),
        "A, Eq. 7": float(squared[0]),
        "B, Eq. 7": float(squared[1]),
    }


def three_processes() -> Sides:
    """Three Gaussian processes on pairs of three points, f_z = 1.2 tanh(0.8 x)."""
    inputs, targets = np.array([[0.0], [1.0], [2.5]]), np.array([0.0, 1.0, -0.5])
    queries = np.array([[0.5], [1.75], [4.0]])
    kernel = Kernel(noise=0.01)
    found = [
        label_models.gaussian_process(inputs[rows], targets[rows], queries, kernel)
        for rows in ([0, 1], [0, 2], [1, 2])
    ]
    x = queries[:, 0]
    tanh = np.tanh(0.8 * x)
    norms = tanh**2 + np.square(1.2 * x * (1 - tanh**2))  # by 1.2 and by 0.8
    labels = Predicted(
        np.stack([one.means for one in found], axis=1),
        np.stack([one.variances for one in found], axis=1),
    )
    return Sides("three points", "Gaussian process", norms, 1.2 * tanh, labels)
