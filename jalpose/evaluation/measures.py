"""What the papers measure about one acquisition: ranking, overlap and spread.

Most need the true values of the images scored, which only a simulation knows. Images
are named by their ids, rows of the arrays belong to `ids`, and NaN stands for what is
not known.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial import distance

# Two of the selected are near duplicates below this fraction of the pool's distance.
NEAR = 0.05
BLOCK_VALUES = 2**22  # distances held at a time: 32 MiB
POOL_ROWS = 2**14  # of embeddings in float64 at a time


class Overlap(NamedTuple):
    """How many of the truly highest were selected.

    Attributes:
      share: of the selected, in [0, 1]; NaN without a known value or a selection.
      chance: expected share of a random selection of that size.
    """

    share: float
    chance: float


class Spread(NamedTuple):
    """How far apart embeddings are; NaN and 0 with fewer than two.

    Attributes:
      mean: Euclidean distance of a pair, over all pairs.
      smallest: Euclidean distance of the closest pair.
      near_duplicates: pairs closer than the distance asked for.
    """

    mean: float
    smallest: float
    near_duplicates: int


def ranking_accuracy(scores: np.ndarray, losses: np.ndarray) -> float:
    """Share of the pairs that the scores order as the losses do, in O(n log n).

    Learning Loss (Yoo and Kweon, CVPR 2019, section 4). A pair of equal losses has no
    true order and is not counted. A pair of equal scores counts one half, the expected
    share of an order drawn at random: so a constant score has the accuracy of chance,
    1/2, and rounding the scores cannot gain anything. (Counted as wrong, a score that
    abstains would be worse than a random one; left out, one that dares to order a
    single pair would be perfect.) This is Harrell's C, and (1 + Somers' D) / 2.

    Args:
      scores: [M]; images with NaN are left out, infinities have their order.
      losses: [M], likewise.

    Returns:
      A fraction in [0, 1]; NaN where no pair has different losses.
    """
    scores, losses = _known(scores, losses, np.isnan)
    pairs, ordered = _different_pairs(losses), _different_pairs(scores)
    if pairs == 0:
        return math.nan
    if ordered == 0:
        return 0.5
    # tau-b = (concordant - discordant) / sqrt(pairs * ordered). With t of `pairs` tied
    # in scores, concordant + t / 2 = (pairs + concordant - discordant) / 2.
    tau = stats.kendalltau(scores, losses).statistic
    surplus = round(tau * math.sqrt(pairs) * math.sqrt(ordered))  # a whole number
    return (pairs + surplus) / (2 * pairs)


def pearson(scores: np.ndarray, losses: np.ndarray) -> float:
    """Pearson's correlation of the finite; NaN where a side of them is constant."""
    scores, losses = _known(scores, losses, _not_finite)
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(losses) == 0:
        return math.nan
    return float(stats.pearsonr(scores, losses).statistic)


def spearman(scores: np.ndarray, losses: np.ndarray) -> float:
    """Spearman's correlation of the finite; NaN where a side of them is constant."""
    scores, losses = _known(scores, losses, _not_finite)
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(losses) == 0:
        return math.nan
    return float(stats.spearmanr(scores, losses).statistic)


def overlap_with_top(
    selected: np.ndarray, ids: np.ndarray, values: np.ndarray
) -> Overlap:
    """Share of the selected that are among as many of truly highest value.

    Table 1 of the gradient-norm paper (Wang et al., AAAI 2022) with true gradient
    norms; it prints the number, which is the share times the budget. Ties go to the
    lower id, as in an acquisition. An image of unknown value is never among the
    highest.

    Args:
      selected: int64 [B] of `ids`.
      ids: int64 [M], of all images scored.
      values: [M], true; NaN where not known.

    Raises:
      ValueError: ids are repeated or `selected` are not all of `ids`.
    """
    _check_selected(selected, ids)
    known = ~np.isnan(values)
    order = np.lexsort((ids[known], -np.asarray(values[known], np.float64)))
    top = ids[known][order[: len(selected)]]
    if len(top) == 0:
        return Overlap(math.nan, 0.0)
    found = np.isin(selected, top).sum()
    return Overlap(float(found / len(selected)), len(top) / len(ids))


def pool_distance(embeddings: np.ndarray) -> float:
    """Root mean square distance of two different images of a pool, in O(M D).

    The mean of |x - y|^2 over pairs is twice the sum of the unbiased variances: no
    pair has to be formed. NaN with fewer than two images.
    """
    count = len(embeddings)
    if count < 2:
        return math.nan
    blocks = [embeddings[i : i + POOL_ROWS] for i in range(0, count, POOL_ROWS)]
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / count
    squares = sum(np.square(block - mean).sum() for block in blocks)
    return math.sqrt(2 * squares / (count - 1))


def spread(
    embeddings: np.ndarray, near: float, *, block_values: int = BLOCK_VALUES
) -> Spread:
    """Mean and smallest distance of all pairs, and the number of near duplicates.

    Exact: differences are formed in float64, not expanded squares, which lose short
    distances. Pairs come in blocks of `block_values`, never all at once.

    Args:
      embeddings: [B, D] of the selected.
      near: distance below which (not at which) a pair is a near duplicate.
      block_values: distances held at a time.
    """
    embeddings = np.asarray(embeddings, np.float64)
    count = len(embeddings)
    if count < 2:
        return Spread(math.nan, math.nan, 0)
    rows = max(1, block_values // count)
    sums, smallest, near_duplicates = [], math.inf, 0
    for start in range(0, count, rows):
        block = distance.cdist(embeddings[start : start + rows], embeddings[start:])
        above = block[np.tri(*block.shape) == 0]  # each pair once
        sums.append(above.sum())
        smallest = min(smallest, above.min(initial=math.inf))
        near_duplicates += int((above < near).sum())
    mean = math.fsum(sums) / (count * (count - 1) / 2)
    return Spread(mean, float(smallest), near_duplicates)


def summarise(
    ids: np.ndarray,
    scores: np.ndarray,
    selected: np.ndarray,
    losses: np.ndarray | None,
    *,
    sq_norms: np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
    more: Mapping[str, float | None] | None = None,
) -> dict[str, float | None]:
    """All of the above by name, for a cycle's record: finite numbers or None.

    Two of the selected are near duplicates when closer than `NEAR` of the root mean
    square distance in the scored pool: a yardstick that is the same for every method,
    does not depend on the embedding's unit, and costs no pairwise distances.

    Args:
      ids: int64 [M], of all images scored.
      scores: [M]; NaN where the method gives none.
      selected: int64 [B] of `ids`.
      losses: [M], true; None outside a simulation.
      sq_norms: [M], true squared gradient norms.
      embeddings: [M, D].
      more: other measures by name, for the end of the record: of the score of the
        images selected, before training on them (the worse, the better failures are
        found: LL++, Table 3a), and of all images scored, to compare it with.
    """
    _check_selected(selected, ids)
    found: dict[str, float] = dict.fromkeys(_NAMES, math.nan)
    found["chance_overlap"] = len(selected) / len(ids) if len(ids) else math.nan
    if losses is not None:
        found |= {name: rank(scores, losses) for name, rank in _RANKINGS.items()}
        found["loss_overlap"] = overlap_with_top(selected, ids, losses).share
        found |= _losses(losses, np.isin(ids, selected))
    if sq_norms is not None:
        found["sq_norm_overlap"] = overlap_with_top(selected, ids, sq_norms).share
    if embeddings is not None:
        found["pool_distance"] = scale = pool_distance(embeddings)
        apart = spread(embeddings[np.isin(ids, selected)], NEAR * scale)
        found["mean_distance"], found["smallest_distance"] = apart.mean, apart.smallest
        found["near_duplicates"] = apart.near_duplicates
    for name, value in (more or {}).items():
        found[name] = math.nan if value is None else value
    return {name: _finite_or_none(value) for name, value in found.items()}


def _losses(losses: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """Mean and spread of the true losses of the chosen, and the mean of all scored.

    LL++ (Shukla & Ahmed, CVPR workshops 2021, section 5) judges by them what is found:
    a choice that finds failures has a high mean. Losses that are not known are left
    out.

    Args:
      losses: [M], true.
      chosen: bool [M].
    """
    values = np.asarray(losses, np.float64)
    known = np.isfinite(values)
    some, every = values[known & chosen], values[known]
    return {
        "selected_loss": float(some.mean()) if len(some) else math.nan,
        "selected_loss_sd": float(some.std(ddof=1)) if len(some) > 1 else math.nan,
        "pool_loss": float(every.mean()) if len(every) else math.nan,
    }


def ranking(scores: np.ndarray, losses: np.ndarray) -> dict[str, float | None]:
    """How well scores order losses, by name, for a record: finite numbers or None.

    Args:
      scores: [M]; NaN where the method gives none.
      losses: [M], true.
    """
    return {n: _finite_or_none(rank(scores, losses)) for n, rank in _RANKINGS.items()}


_RANKINGS = {
    "ranking_accuracy": ranking_accuracy,
    "pearson": pearson,
    "spearman": spearman,
}


def share_fallen(
    before_ids: np.ndarray, before: np.ndarray, ids: np.ndarray, after: np.ndarray
) -> float | None:
    """Share of examples whose gradient norm has fallen; None where none is known.

    Wang et al., AAAI 2022, find it above 90 % of the chosen from one cycle to the next
    (Appendix A.2), which their Eq. 5 rests on; of the losses without labels that they
    choose by, where these are norms of the labels' own.

    Args:
      before_ids: int64 [M], rising, of what was scored.
      before: [M], their norms by the network that chose; NaN where not known.
      ids: int64 [B], all among `before_ids`.
      after: [B], their norms by the network trained on them.
    """
    was = np.asarray(before, np.float64)[np.searchsorted(before_ids, ids)]
    known = np.isfinite(was) & np.isfinite(after)
    return float((after[known] < was[known]).mean()) if known.any() else None


# Those of `summarise` that need labels nobody bought.
OF_LABELS = (
    "ranking_accuracy",
    "pearson",
    "spearman",
    "loss_overlap",
    "selected_loss",
    "selected_loss_sd",
    "pool_loss",
    "sq_norm_overlap",
)
_NAMES = (
    *OF_LABELS,
    "chance_overlap",
    "mean_distance",
    "smallest_distance",
    "near_duplicates",
    "pool_distance",
)


def ends(ids: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
    """Ids of the highest and of the lowest scores, `most` // 2 of each, rising.

    Ties by id; scores that are not finite are left out.

    Args:
      ids: int64 [M].
      scores: float [M].
      most: number of both together.
    """
    known = np.flatnonzero(np.isfinite(scores))
    order = known[np.lexsort((ids[known], -scores[known].astype(np.float64)))]
    half = most // 2
    lowest = order[max(half, len(order) - half) :]
    return np.sort(ids[np.concatenate([order[:half], lowest])])


def _known(scores, losses, unknown) -> tuple[np.ndarray, np.ndarray]:
    """Both sides in float64, without the images of which a side is `unknown`."""
    scores, losses = np.asarray(scores, np.float64), np.asarray(losses, np.float64)
    kept = ~(unknown(scores) | unknown(losses))
    return scores[kept], losses[kept]


def _not_finite(values: np.ndarray) -> np.ndarray:
    return ~np.isfinite(values)


def _different_pairs(values: np.ndarray) -> int:
    """Pairs of different values."""
    counts = np.unique(values, return_counts=True)[1].astype(object)  # no overflow
    count = len(values)
    return count * (count - 1) // 2 - int((counts * (counts - 1) // 2).sum())


def _check_selected(selected: np.ndarray, ids: np.ndarray) -> None:
    for name, array in (("ids", ids), ("selected", selected)):
        if len(np.unique(array)) < len(array):
            raise ValueError(f"{name} must not repeat.")
    strange = np.setdiff1d(selected, ids)
    if len(strange):
        raise ValueError(f"selected holds {strange[:5].tolist()}, not of ids.")


def _finite_or_none(value: float) -> float | None:
    """`value` as JSON knows it: an int or a float."""
    if not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(value)
