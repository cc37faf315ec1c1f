"""Batches for a linear model on given features: determinants and Fisher information.

Both take a Gaussian linear model of unit weights' variance on features f, observed with
noise of variance `noise`^2, that has seen the labelled examples, and choose greedily:

- `largest_determinant` (maxdet): each pick has the largest variance after those before
  it, which is greedy for the determinant of the batch's kernel matrix. BatchBALD of a
  Gaussian model is the same (Holzmueller et al., JMLR 24, 2023, section 4).
- `fisher_reduction` (BAIT: Ash, Goel, Krishnamurthy, Kakade, NeurIPS 2021, Alg. 1):
  the smallest trace of (M_S + noise^2 I)^-1 M, where M_S sums f f' over labelled and
  chosen, M over labelled and pool; greedily forward to twice the budget, then backward.
  The paper's M of a classifier has a rank per class; here it is f f', the paper's form
  for regression, and what of a prediction counts is in the features.

Features are scaled to a mean squared length of 1 over labelled and pool, as the former
paper does, so that one noise fits all networks. Everything is float64 on the host: a
pick reads the pool's features once.
"""

from typing import NamedTuple

import numpy as np

from jalpose.acquisition.parts import points

# What is smaller is lost beside labelled examples, whose squares are added to its own.
LEAST_NOISE = 1e-5


class Batch(NamedTuple):
    """Rows chosen for a linear model.

    Attributes:
      order: int64 [budget], rows of the pool in the order they were chosen.
      gains: float64 [budget], of each at the time: its variance, or by how much it
        reduced the trace.
      first: float64 [M], of every row before the choice.
    """

    order: np.ndarray
    gains: np.ndarray
    first: np.ndarray


def largest_determinant(
    features, labelled, budget: int, *, ids, labelled_ids=None, noise: float = 1e-3
) -> Batch:
    """Choose `budget` rows, each of the largest variance after those before it.

    Ties go to the lowest id; a row is chosen once.

    Args:
      features: [M, C], of the pool.
      labelled: [L, C]; L may be 0.
      budget: from 1 to M.
      ids: int [M], distinct.
      labelled_ids: int [L], for messages.
      noise: standard deviation of an observation, `LEAST_NOISE` or more.

    Raises:
      ValueError: shapes that do not fit, ids twice, a budget beyond M, too little
        noise.
      FloatingPointError: a feature is NaN or infinite; names the ids.
    """
    pool, seen, by_id = _prepared(features, labelled, budget, ids, labelled_ids, noise)
    precision = np.eye(pool.shape[1]) * noise**2 + seen.T @ seen
    # Of the posterior kernel noise^2 f' precision^-1 f the square root.
    root = noise * np.linalg.solve(np.linalg.cholesky(precision), pool.T).T
    variance = np.einsum("mc,mc->m", root, root)
    first, taken = variance.copy(), np.zeros(len(pool), bool)
    columns = np.zeros((len(pool), budget))  # of the kernel's Cholesky factor
    order, gains = np.zeros(budget, np.int64), np.zeros(budget)
    for i in range(budget):
        row = int(np.argmax(np.where(taken, -np.inf, variance)))
        order[i], gains[i], taken[row] = row, variance[row], True
        between = root @ root[row] - columns[:, :i] @ columns[row, :i]
        columns[:, i] = between / np.sqrt(variance[row] + noise**2)
        variance = np.maximum(variance - columns[:, i] ** 2, 0)
    return _in_given_order(order, gains, first, by_id)


def fisher_reduction(
    features,
    labelled,
    budget: int,
    *,
    ids,
    labelled_ids=None,
    noise: float = 1e-1,
    oversample: float = 2.0,
) -> Batch:
    """Choose the `budget` rows that, greedily, leave the smallest trace.

    Ties go to the lowest id; a row is chosen once. `gains` are those of the forward
    picks that are left, in the order they were made.

    Args:
      features: [M, C], of the pool.
      labelled: [L, C]; L may be 0.
      budget: from 1 to M.
      ids: int [M], distinct.
      labelled_ids: int [L], for messages.
      noise: square root of what is added to the diagonal, `LEAST_NOISE` or more.
      oversample: forward picks in budgets, 1 or more; those above 1 are taken back,
        each time the one that costs least.

    Raises:
      ValueError: shapes that do not fit, ids twice, a budget beyond M, too little
        noise, an oversampling below 1.
      FloatingPointError: a feature is NaN or infinite; names the ids.
    """
    if not oversample >= 1:
        raise ValueError(f"{oversample=} must be at least 1")
    pool, seen, by_id = _prepared(features, labelled, budget, ids, labelled_ids, noise)
    state = _Fisher(pool, seen, noise)
    first, taken = state.reduction(1), np.zeros(len(pool), bool)
    order: list[int] = []
    gains: list[float] = []
    for _ in range(min(round(oversample * budget), len(pool))):
        reduction = np.where(taken, -np.inf, state.reduction(1))
        row = int(np.argmax(reduction))
        order.append(row)
        gains.append(reduction[row])
        taken[row] = True
        state.change(row, 1)
    while len(order) > budget:
        # The last of equals is taken back: the first was there before it.
        costs = -state.reduction(-1)[order]
        place = len(order) - 1 - int(np.argmin(costs[::-1]))
        state.change(order.pop(place), -1)
        gains.pop(place)
    return _in_given_order(np.array(order), np.array(gains), first, by_id)


class _Fisher:
    """(M_S + noise^2 I)^-1 and what it says of every row, kept up by rank-one steps."""

    def __init__(self, pool, seen, noise):
        self.pool = pool
        self.total = (pool.T @ pool + seen.T @ seen) / (len(pool) + len(seen))
        self.inverse = np.linalg.inv(np.eye(pool.shape[1]) * noise**2 + seen.T @ seen)
        self.leverage = np.einsum("mc,mc->m", pool @ self.inverse, pool)
        weighed = self.inverse @ self.total @ self.inverse
        self.explained = np.einsum("mc,mc->m", pool @ weighed, pool)

    def reduction(self, sign):
        """By how much the trace falls where a row is added (1) or taken back (-1)."""
        return sign * self.explained / (1 + sign * self.leverage)

    def change(self, row, sign):
        """Add a row of the pool, or take it back (Sherman and Morrison)."""
        along = self.inverse @ self.pool[row]
        divisor = sign / (1 + sign * self.leverage[row])
        beside = self.inverse @ (self.total @ along)
        over, aside = self.pool @ along, self.pool @ beside
        middle = along @ self.total @ along
        self.explained += divisor * over * (divisor * over * middle - 2 * aside)
        self.leverage -= divisor * over**2
        self.inverse -= divisor * np.outer(along, along)


def _prepared(features, labelled, budget, ids, labelled_ids, noise):
    """Features by id and of the labelled, float64, scaled; rows of the pool by id."""
    pool, seen = np.asarray(features), np.asarray(labelled)
    points.check_points(pool, seen, budget, np.asarray(ids), 1)
    if not noise >= LEAST_NOISE:
        raise ValueError(f"{noise=} must be at least {LEAST_NOISE:g}")
    labelled_ids = np.arange(len(seen)) if labelled_ids is None else labelled_ids
    largest = max(
        points.check_finite(pool, ids, "pool"),
        points.check_finite(seen, labelled_ids, "labelled"),
    )
    by_id = np.argsort(ids)
    exponent = -int(np.frexp(largest)[1])
    pool = np.ldexp(pool[by_id].astype(np.float64), exponent)
    seen = np.ldexp(seen.astype(np.float64), exponent)
    squares = np.sum(pool**2) + np.sum(seen**2)
    scale = np.sqrt((len(pool) + len(seen)) / squares) if squares else 1.0
    return pool * scale, seen * scale, by_id


def _in_given_order(order, gains, first, by_id) -> Batch:
    given = np.empty(len(first))
    given[by_id] = first
    return Batch(by_id[order], gains, given)
