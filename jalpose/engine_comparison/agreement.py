"""How far two scores of the same images agree: values, ranks, and who is selected."""

import math

import numpy as np
from scipy import stats

from jalpose.acquisition.method import highest
from jalpose.evaluation import measures

# Of the images compared: those a table has, and those a curve is drawn through.
BUDGETS = (0.05, 0.1, 0.2, 0.5)
CURVE = tuple(round(step / 20, 2) for step in range(1, 21))


def relative_errors(reference: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """|scores - reference| / |reference|, float64; NaN where the reference is zero."""
    reference, scores = _wide(reference), _wide(scores)
    divisor = np.where(reference == 0, np.nan, np.abs(reference))
    return np.abs(scores - reference) / divisor


def correlations(
    reference: np.ndarray, scores: np.ndarray
) -> tuple[float | None, float | None]:
    """Spearman's and Kendall's (tau-b); None where a side does not vary."""
    reference, scores = _wide(reference), _wide(scores)
    if np.ptp(reference) == 0 or np.ptp(scores) == 0:
        return None, None
    return (
        measures.spearman(reference, scores),
        float(stats.kendalltau(reference, scores).statistic),
    )


def num_selected(fraction: float, count: int) -> int:
    """Images that a budget of `fraction` buys of `count`: at least one."""
    return max(1, round(fraction * count))


def overlap(
    ids: np.ndarray, reference: np.ndarray, scores: np.ndarray, budget: int
) -> float:
    """Share of the `budget` images the reference selects that the scores select too.

    The highest are selected, ties by id, as an acquisition does.
    """
    selected = highest(ids, scores, budget)
    return measures.overlap_with_top(selected, ids, reference).share


def coverage(
    reference: np.ndarray, scores: np.ndarray, standard_error: np.ndarray
) -> float:
    """Share of the images whose reference is within two standard errors."""
    off = np.abs(_wide(scores) - _wide(reference))
    return float(np.mean(off <= 2 * _wide(standard_error)))


def agreement(
    ids: np.ndarray,
    reference: np.ndarray,
    scores: np.ndarray,
    standard_error: np.ndarray | None = None,
    *,
    same_unit: bool = True,
) -> dict:
    """All of the above, by name, for a record; NaN or None where it has no meaning.

    Args:
      ids: int64 [M].
      reference: [M].
      scores: [M].
      standard_error: [M], of the scores.
      same_unit: the scores estimate the reference, and do not just stand in for it.
    """
    errors, ratio = np.full(1, np.nan), np.full(1, np.nan)
    if same_unit:
        errors = relative_errors(reference, scores)
        known = _wide(reference) != 0
        ratio = _wide(scores)[known] / _wide(reference)[known]
    spearman, kendall = correlations(reference, scores)
    budgets = {"overlap": BUDGETS, "overlap_curve": CURVE}
    error = standard_error
    return {
        "median_error": _known(np.median, errors),
        "max_error": _known(np.max, errors),
        "median_of_exact": _known(np.median, ratio),
        "spearman": spearman,
        "kendall": kendall,
        **{
            name: [
                overlap(ids, reference, scores, num_selected(f, len(ids)))
                for f in fractions
            ]
            for name, fractions in budgets.items()
        },
        "covered": None if error is None else coverage(reference, scores, error),
    }


def _wide(values):
    return np.asarray(values, np.float64)


def _known(summary, values):
    values = values[np.isfinite(values)]
    return float(summary(values)) if len(values) else math.nan
