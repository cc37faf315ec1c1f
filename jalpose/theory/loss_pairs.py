"""Pairs of losses as LearningLoss++ analyses them, in closed form.

Shukla and Ahmed, "A Mathematical Analysis of Learning Loss for Active Learning in
Regression", CVPR workshops 2021: true losses are Gamma distributed with a whole shape
(Fig. 3), a pair of them lies within a margin with a probability (Eq. 5, Table 1), and
what a pair of that margin teaches is an expectation (Eq. 6, Table 2). The paper's text
has lost its formulas; they are derived anew here, and the paper's letters p and q
change places: q is the share of the true loss, p that of the predicted. Everything is
float64: differences of Gamma functions are lost in float32.
"""

from typing import NamedTuple

import numpy as np
from scipy import special


class Gamma(NamedTuple):
    """The distribution of true losses.

    Attributes:
      shape: alpha, a whole number, as the paper restricts it.
      rate: beta, one by the losses' unit.
    """

    shape: int
    rate: float

    def density(self, losses) -> np.ndarray:
        """Of each loss above 0."""
        x = self.rate * np.asarray(losses, np.float64)
        logs = special.xlogy(self.shape - 1, x) - x - special.gammaln(self.shape)
        return self.rate * np.exp(logs)

    @property
    def mode(self) -> float:
        """The likeliest loss."""
        return (self.shape - 1) / self.rate


# Of the paper's Fig. 3: the one shape that gives both its tables (see `theory.page`).
PAPER = Gamma(4, 15.0)


class Pair(NamedTuple):
    """What two examples teach, i the first.

    Attributes:
      share: q_i, of the true loss.
      predicted: p_i, of the predicted loss.
      divergence: LL++'s loss, KL(q || p): Eq. 3.
      factor: d KL / d prediction of i = p_i - q_i; its gradient by the last layer's
        weights is this times (h_i - h_j): Eq. 4.
      hinge: Learning Loss's loss: Eq. 1.
      hinge_factor: the same of it, -1, 0 or 1: Eq. 2.
    """

    share: float
    predicted: float
    divergence: float
    factor: float
    hinge: float
    hinge_factor: float


def pair(losses, predictions, margin: float = 1.0) -> Pair:
    """Both objectives on one pair.

    Args:
      losses: true ones of i and j, at least one above 0.
      predictions: of i and j.
      margin: xi, of Learning Loss.
    """
    (l_i, l_j), (p_i, p_j) = losses, predictions
    q, p = l_i / (l_i + l_j), special.expit(p_i - p_j)
    divergence = special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p)
    sign = float(np.sign(l_i - l_j))
    hinge = max(0.0, margin - sign * (p_i - p_j))
    return Pair(q, p, divergence, p - q, hinge, -sign if hinge > 0 else 0.0)


def similar(margin, gamma: Gamma) -> np.ndarray:
    """P(|l_1 - l_2| <= margin) of two losses drawn alike: Eq. 5.

    1 - 2 e^-x sum_{k<a} sum_{j<=k} x^(k-j) (a)_j / ((k-j)! j! 2^(a+j)), x = rate *
    margin, by expanding P(l_1 > l_2 + margin | l_2): every term is positive.
    """
    x = gamma.rate * np.asarray(margin, np.float64)[..., None]
    a = gamma.shape
    j, k = (index.ravel() for index in np.meshgrid(np.arange(a), np.arange(a)))
    j, k = j[j <= k], k[j <= k]
    logs = special.gammaln(a + j) - special.gammaln(a) - (a + j) * np.log(2)
    logs = logs - special.gammaln(k - j + 1) - special.gammaln(j + 1)
    return 1 - 2 * np.exp(logs + special.xlogy(k - j, x) - x).sum(axis=-1)


def higher_share(margin, gamma: Gamma, nodes: int = 64) -> np.ndarray:
    """E[q_i] of the example with the higher loss, by a margin: what Eq. 6 turns on.

    The mean of (t + m) / (2 t + m), t the lower loss, whose density at this margin is
    as t^(a-1) (t + m)^(a-1) e^(-2 rate t): by Gauss-Laguerre, all terms positive. The
    paper's Table 2 is of the other example: 1 less this.
    """
    m = np.asarray(margin, np.float64)[..., None]
    points, weights = special.roots_genlaguerre(nodes, gamma.shape - 1)
    t = points / (2 * gamma.rate)
    weights = weights * (t + m) ** (gamma.shape - 1)
    return np.sum(weights * (t + m) / (2 * t + m), -1) / np.sum(weights, -1)


def expected_factor(margin, difference, gamma: Gamma) -> np.ndarray:
    """E[p_i - q_i] of the higher loss at a margin and a predicted difference: Eq. 6.

    Times (h_i - h_j) it is the expected gradient; it is zero where the head predicts
    the difference log(E[q] / (1 - E[q])).
    """
    return special.expit(difference) - higher_share(margin, gamma)


def margin_density(margin, gamma: Gamma) -> np.ndarray:
    """Density of l_i - l_j at a margin: Eq. 6 before it is divided by it.

    Of both orders of a pair: the integral from 0 on is 1/2.
    """
    y = gamma.rate * np.asarray(margin, np.float64)
    order = gamma.shape - 0.5
    # K_v(0) is infinite, y^v K_v(y) is not.
    bessel = np.where(
        y > 0,
        np.maximum(y, 1e-12) ** order * special.kv(order, np.maximum(y, 1e-12)),
        2 ** (order - 1) * special.gamma(order),
    )
    below = np.sqrt(np.pi) * 2**order * special.gamma(gamma.shape)
    return gamma.rate * bessel / below


def fit(losses, most: int = 100) -> Gamma:
    """The likeliest Gamma of a whole shape, from 1 to `most`.

    Of a given shape the likeliest rate is the shape by the mean.

    Args:
      losses: [N], all above 0, not all the same.
    """
    losses = np.asarray(losses, np.float64)
    shapes = np.arange(1, most + 1)
    rates = shapes / losses.mean()
    logs = shapes * np.log(rates) - special.gammaln(shapes)
    logs += (shapes - 1) * np.log(losses).mean() - shapes
    best = int(np.argmax(logs))
    return Gamma(int(shapes[best]), float(rates[best]))


def share_within(losses, margin: float) -> float:
    """Share of all pairs of losses [N] that are no farther apart than the margin."""
    ordered = np.sort(np.asarray(losses, np.float64))
    count = len(ordered)
    ends = np.searchsorted(ordered, ordered + margin, side="right")
    return float((ends - np.arange(count) - 1).sum() / (count * (count - 1) / 2))
