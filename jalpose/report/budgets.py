"""Learning curves as numbers: area under them, and labels saved at a score.

Curves are [..., budgets] over `labelled`, the number of labelled images at each.
"""

import dataclasses
import itertools
import math

import numpy as np

from jalpose.report.statistics import EQUAL, FEWEST, LEVEL, Interval


def area_under_curve(labelled: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mean height of learning curves: trapezoids over the budget's range.

    Args:
      labelled: [budgets], rising.
      scores: [..., budgets].

    Returns:
      [...], in the unit of the scores; NaN where one is NaN or there is one budget.
    """
    labelled = np.asarray(labelled, np.float64)
    scores = np.asarray(scores, np.float64)
    if len(labelled) < 2:
        return np.full(scores.shape[:-1], np.nan)
    if (np.diff(labelled) <= 0).any():
        raise ValueError(f"labelled must rise: {labelled.tolist()}")
    return np.trapezoid(scores, labelled, axis=-1) / (labelled[-1] - labelled[0])


def labels_to_reach(
    labelled: np.ndarray, scores: np.ndarray, target: np.ndarray | float
) -> np.ndarray:
    """Where curves first reach a score, linear between budgets; inf where never.

    Args:
      labelled: [budgets], rising.
      scores: [..., budgets], finite.
      target: one, or [...].
    """
    labelled = np.asarray(labelled, np.float64)
    scores = np.asarray(scores, np.float64)
    target = np.broadcast_to(np.asarray(target, np.float64), scores.shape[:-1])
    # A target that is a mean itself must not be missed by rounding.
    reached = scores >= target[..., None] - EQUAL * np.abs(target[..., None])
    after = reached.argmax(axis=-1)
    before = np.maximum(after - 1, 0)
    low = np.take_along_axis(scores, before[..., None], -1)[..., 0]
    high = np.take_along_axis(scores, after[..., None], -1)[..., 0]
    rise = np.where(high > low, high - low, 1.0)
    share = np.where(after > before, np.clip((target - low) / rise, 0.0, 1.0), 0.0)
    found = labelled[before] + share * (labelled[after] - labelled[before])
    return np.where(reached.any(axis=-1), found, np.inf)


@dataclasses.dataclass(frozen=True)
class Saved:
    """Labels a method saves against a reference at a target score.

    Attributes:
      target: the score.
      reference: labels with which the reference's mean curve reaches it, or None.
      method: labels with which the method's does, or None.
      saved: their difference; negative where the method needs more, None where one
        of them never reaches the target.
      interval: 95 % bootstrap interval over seeds; None under three pairs. An end is
        infinite where a resample's curve never reaches the target.
      num_pairs: seeds both have.
    """

    target: float
    reference: float | None
    method: float | None
    saved: float | None
    interval: Interval | None
    num_pairs: int


def labels_saved(
    labelled: np.ndarray,
    scores: np.ndarray,
    reference: np.ndarray,
    target: float | None = None,
    *,
    resamples: int = 10_000,
) -> Saved | None:
    """Labels saved against a reference at a score, from the mean curves.

    Seeds are resampled in pairs: all n^n ways where these are no more than
    `resamples` (up to five seeds), else that many, always the same. Percentiles of
    few seeds are narrow: they show the order of magnitude, not a test. None without a
    seed that both have whole.

    Args:
      labelled: [budgets], rising.
      scores: [seeds, budgets].
      reference: [seeds, budgets], of the same seeds.
      target: by default the reference's mean at the last budget, in each resample its
        own.
      resamples: most resamples taken.
    """
    scores = np.asarray(scores, np.float64)
    reference = np.asarray(reference, np.float64)
    whole = np.isfinite(scores).all(axis=1) & np.isfinite(reference).all(axis=1)
    scores, reference = scores[whole], reference[whole]
    count = len(scores)
    if count == 0:
        return None

    def needed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        means = scores[rows].mean(axis=-2), reference[rows].mean(axis=-2)
        goal = means[1][..., -1] if target is None else np.float64(target)
        ours, theirs = (labels_to_reach(labelled, mean, goal) for mean in means)
        return np.asarray(goal), ours, theirs

    goal, ours, theirs = needed(np.arange(count))
    interval = None
    if count >= FEWEST:
        _, all_ours, all_theirs = needed(_resamples(count, resamples))
        with np.errstate(invalid="ignore"):  # neither reaches it: inf - inf
            differences = all_theirs - all_ours
        interval = _percentiles(differences)
    both = np.isfinite(ours) and np.isfinite(theirs)
    return Saved(
        float(goal),
        float(theirs) if np.isfinite(theirs) else None,
        float(ours) if np.isfinite(ours) else None,
        float(theirs - ours) if both else None,
        interval,
        count,
    )


def _resamples(count: int, most: int) -> np.ndarray:
    """Rows of `count` seeds drawn with replacement: [resamples, count]."""
    if count**count <= most:
        return np.array(list(itertools.product(range(count), repeat=count)))
    return np.random.default_rng(0).integers(count, size=(most, count))


def _percentiles(values: np.ndarray) -> Interval | None:
    """The middle 95 % with order statistics, since ends may be infinite."""
    ordered = np.sort(values[~np.isnan(values)])
    if len(ordered) == 0:
        return None
    edge = math.floor(LEVEL / 2 * (len(ordered) - 1))
    return Interval(float(ordered[edge]), float(ordered[-1 - edge]))
