"""Which method beats which: the pairwise penalty matrix of BADGE.

Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds
(ICLR 2020), as their published script computes it (scripts/agg_results.py of
JordanAsh/badge at 7532c8f).
"""

from collections.abc import Sequence

import numpy as np

from jalpose.report import statistics

STOP = 0.99  # of the reference's final score


def checkpoints(reference: np.ndarray, *, lowest_best: bool = False) -> list[int]:
    """The cycles BADGE's rule compares at.

    Cycles 1, 2, 4, 8, ... (labels of the start plus 2^k budgets) until the reference's
    mean score is above 0.99 of its last: later ones would count the plateau again and
    again. Of scores whose lowest is the best, until it is below 1.01 of its last.

    We differ: the script compares at cycle 0 too, before any choice. Here all methods
    of a seed share that base model, so nobody can win there, and a method better at all
    others would get (n - 1) / n instead of 1. The first choice is always compared.

    Args:
      reference: [cycles], mean scores of random selection.
      lowest_best: the lowest score is the best.
    """
    found: list[int] = []
    cycle = 1
    while cycle < len(reference) and (
        not found
        or (
            reference[cycle] >= (2 - STOP) * reference[-1]
            if lowest_best
            else reference[cycle] <= STOP * reference[-1]
        )
    ):
        found.append(cycle)
        cycle *= 2
    return found


def stop_words(lowest_best: bool) -> str:
    """Where the rule stops: the reference is ..."""
    side, share = ("below", 2 - STOP) if lowest_best else ("above", STOP)
    return f"{side} {share:.0%} of its last score"


def penalty_matrix(scores: np.ndarray, cycles: Sequence[int]) -> np.ndarray:
    """How often, of the cycles compared, a method beats another significantly.

    Entry [i, j] grows by 1 / len(cycles) at each cycle where i's mean is above j's
    and a two-tailed t-test of the differences, paired by seed, has p < 0.05: where the
    statistic is beyond the critical value. It is j's penalty: the lower the mean of a
    column (over all rows, its own 0 among them), the better the method. NaN where the
    two can be tested at none of the cycles: who was never tested has lost nothing.

    We differ: all seeds two methods share are used, the script takes five at most; and
    pairs under three have no p-value and no penalty, the script takes two.

    Args:
      scores: [methods, seeds, cycles], the higher the better; NaN where there is none.
      cycles: what to compare at, as `checkpoints` gives them.
    """
    penalties = np.zeros((len(scores),) * 2)
    for i, j in np.ndindex(penalties.shape):
        if i == j:
            continue
        found = [statistics.compare(scores[i, :, c], scores[j, :, c]) for c in cycles]
        tested = [one for one in found if one.two_tailed is not None]
        won = [
            (one.two_tailed or 0.0) < statistics.LEVEL and (one.t or 0.0) > 0
            for one in tested
        ]
        penalties[i, j] = sum(won) / len(cycles) if tested else np.nan
    return penalties
