"""Tests and estimates for a handful of paired runs; arrays in, numbers out.

Scores are [seeds], place for place of the same seed in both methods; NaN stands for a
run that is not there, and its pair is left out. A p-value that would mean nothing is
None and the result says why.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import integrate, optimize, special, stats

LEVEL = 0.05  # of significance
POWER = 0.8
FEWEST = 3  # pairs under which there is no p-value
FEW = 5  # pairs under which a p-value is given with a warning
EQUAL = 1e-12  # of the largest score: smaller differences are rounding


class Interval(NamedTuple):
    """Both ends; -inf or inf where there is none on that side."""

    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """`[low, high]`, each by `spec`."""
        return f"[{self.low:{spec}}, {self.high:{spec}}]"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A method against a reference, over the seeds both have.

    Attributes:
      num_pairs: seeds both have.
      difference: mean of method minus reference; None without a pair.
      deviation: of the differences (ddof=1); None under two pairs.
      interval: 95 % t interval of the mean difference; None under two pairs.
      t: paired t statistic.
      greater: one-tailed p of the paired t-test that the method is better.
      less: one-tailed p that the reference is better.
      two_tailed: two-tailed p of the paired t-test.
      wilcoxon: two-tailed exact p of the signed-rank test.
      detectable: smallest true difference found with 80 % power, see
        `minimal_detectable_difference`.
      smallest_wilcoxon: smallest p that test could have had with these pairs.
      reason: why p-values are None; "" where they are not.
      caution: what to know about p-values that are there; "" where nothing.
    """

    num_pairs: int
    difference: float | None = None
    deviation: float | None = None
    interval: Interval | None = None
    t: float | None = None
    greater: float | None = None
    less: float | None = None
    two_tailed: float | None = None
    wilcoxon: float | None = None
    detectable: float | None = None
    smallest_wilcoxon: float | None = None
    reason: str = ""
    caution: str = ""


def compare(scores: np.ndarray, reference: np.ndarray) -> Comparison:
    """Paired tests of a method's scores against a reference's.

    Under three pairs there are no p-values. Differences that are all the same have no
    deviation to test them by: then there is no t-test either.

    Args:
      scores: [seeds], higher is better.
      reference: [seeds], of the same seeds.
    """
    found = paired_differences(scores, reference)
    count = len(found)
    if count == 0:
        return Comparison(0, reason="no seed in common")
    difference = float(found.mean())
    if count == 1:
        return Comparison(1, difference, reason=_too_few(1))
    deviation = float(found.std(ddof=1))
    result = Comparison(
        count,
        difference,
        deviation,
        t_interval(found),
        detectable=minimal_detectable_difference(deviation, count),
    )
    if count < FEWEST:
        return dataclasses.replace(result, reason=_too_few(count))
    differing = int(np.count_nonzero(found))
    smallest = smallest_wilcoxon_p(differing)
    result = dataclasses.replace(
        result,
        wilcoxon=wilcoxon_p(found),
        smallest_wilcoxon=smallest,
        caution=_caution(count, differing, smallest),
    )
    if np.ptp(found) == 0:
        same = "all differences are equal: no t-test"
        return dataclasses.replace(result, deviation=0.0, reason=same)
    t = difference / (deviation / math.sqrt(count))
    return dataclasses.replace(
        result,
        t=t,
        greater=float(stats.t.sf(t, count - 1)),
        less=float(stats.t.cdf(t, count - 1)),
        two_tailed=float(2 * stats.t.sf(abs(t), count - 1)),
    )


def paired_differences(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Differences of the pairs that are there, without the noise of rounding.

    Differences equal but for rounding become equal, and those near zero zero: ranks
    and "all the same" depend on it.

    Raises:
      ValueError: the arrays are not of the same seeds.
    """
    scores = np.asarray(scores, np.float64)
    reference = np.asarray(reference, np.float64)
    if scores.shape != reference.shape or scores.ndim != 1:
        raise ValueError(f"not paired: {scores.shape=}, {reference.shape=}")
    kept = np.isfinite(scores) & np.isfinite(reference)
    scores, reference = scores[kept], reference[kept]
    scale = max(np.abs(scores).max(initial=0), np.abs(reference).max(initial=0))
    unit = scale * EQUAL or 1.0
    differences = scores - reference
    ordered = np.sort(differences)
    groups = np.concatenate([[0], np.cumsum(np.diff(ordered) > unit)])[: len(ordered)]
    for group in np.unique(groups):
        members = ordered[groups == group]
        near = (differences >= members[0]) & (differences <= members[-1])
        differences[near] = members[0]
    return np.where(np.abs(differences) <= unit, 0.0, differences)


def t_interval(values: np.ndarray, level: float = 1 - LEVEL) -> Interval | None:
    """Student's interval of the mean, NaN left out; None under two values."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    error = values.std(ddof=1) / math.sqrt(len(values))
    reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * error
    return Interval(float(values.mean() - reach), float(values.mean() + reach))


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-tailed exact p of Wilcoxon's signed-rank test.

    Zeros are left out (Wilcoxon's own way) and equal magnitudes share their mean rank;
    the distribution is that of all signs of these very ranks, so that p is exact with
    ties as well, where tables and SciPy's `method="exact"` are not. Without any
    difference p is 1. NaN is not allowed.
    """
    differences = np.asarray(differences, np.float64)
    magnitudes = np.abs(differences[differences != 0])
    # Magnitudes of either sign, equal but for rounding, are ties.
    unit = EQUAL * max(magnitudes.max(initial=0), 1e-300)
    doubled = np.rint(2 * stats.rankdata(np.rint(magnitudes / unit))).astype(int)
    total = int(doubled.sum())
    chances = np.zeros(total + 1)  # of each doubled sum of the positive ranks
    chances[0] = 1
    for rank in doubled:
        shifted = np.concatenate([np.zeros(rank), chances[: total + 1 - rank]])
        chances = (chances + shifted) / 2
    observed = int(doubled[differences[differences != 0] > 0].sum())
    tail = min(observed, total - observed)
    return float(min(1.0, 2 * chances[: tail + 1].sum()))


def smallest_wilcoxon_p(num_pairs: int) -> float:
    """Smallest two-tailed p of a signed-rank test: all of `num_pairs` of one sign.

    Pairs without a difference do not count. A t-test has no such bound.
    """
    return min(1.0, 2.0 ** (1 - num_pairs))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of a family; None stays None and does not count.

    Holm, A simple sequentially rejective multiple test procedure (1979): the k-th
    smallest of m is multiplied by m - k + 1, and none falls below a smaller one.
    """
    family = enumerate(p_values)
    rising = sorted((p, i) for i, p in family if p is not None and not math.isnan(p))
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, index) in enumerate(rising):
        highest = max(highest, min(1.0, (len(rising) - place) * float(p)))
        corrected[index] = highest
    return corrected


def minimal_detectable_difference(
    deviation: float, num_pairs: int, *, level: float = LEVEL, power: float = POWER
) -> float | None:
    """The true difference a two-tailed paired t-test would find with that power.

    Solves P(|T| > t_crit) = power for T of a noncentral t distribution with
    n - 1 degrees of freedom and noncentrality difference / (deviation / sqrt(n)).
    None under two pairs.

    Args:
      deviation: of the differences.
      num_pairs: n.
      level: two-tailed level of significance.
      power: chance to find it.
    """
    if num_pairs < 2:
        return None
    noncentrality = _noncentrality(num_pairs - 1, level, power)
    return noncentrality * deviation / math.sqrt(num_pairs)


@functools.cache  # the same for every cell of a table
def _noncentrality(freedom: int, level: float, power: float) -> float:
    """Noncentrality at which a two-tailed t-test has that power."""
    critical = float(stats.t.ppf(1 - level / 2, freedom))

    def missing(noncentrality: float) -> float:
        return t_test_power(noncentrality, freedom, critical) - power

    high = 2.0
    while missing(high) < 0:
        high *= 2
    return float(optimize.brentq(missing, 0.0, high, xtol=1e-10))


def t_test_power(noncentrality: float, freedom: int, critical: float) -> float:
    """P(|T| > critical) of a noncentral t, T = (Z + noncentrality) / S.

    By integrating over S, of chi distribution: SciPy's series loses its digits where
    degrees of freedom are few, which is where it is needed here.
    """

    scale = math.sqrt(freedom)
    constant = (1 - freedom / 2) * math.log(2) - math.lgamma(freedom / 2)

    def above(spread: float) -> float:
        cut, chi = critical * spread, spread * scale
        reached = special.ndtr(noncentrality - cut) + special.ndtr(-cut - noncentrality)
        power = (freedom - 1) * math.log(chi) if freedom > 1 else 0.0
        return float(reached) * math.exp(constant + power - chi**2 / 2) * scale

    top = 1 + 12 / scale
    return float(integrate.quad(above, 0, top, epsabs=1e-11, limit=200)[0])


# Sentences


def _too_few(count: int) -> str:
    pairs = "1 pair of runs" if count == 1 else f"{count} pairs of runs"
    return f"{pairs}: no p-value under {FEWEST}"


def _caution(count: int, differing: int, smallest: float) -> str:
    parts = []
    if count < FEW:
        parts.append(f"{count} pairs: p-values under {FEW} pairs are fragile")
    if smallest > LEVEL:
        parts.append(
            f"Wilcoxon cannot be significant: with {differing} pairs that differ "
            f"its p cannot fall below {smallest:.4g}"
        )
    return "; ".join(parts)
