"""The chain of bounds of one cycle, and what is chosen by its ends: NumPy alone.

Wang et al., "Boosting Active Learning via Improving Test Performance", AAAI 2022. With
g'(x) the gradient of an example's loss by the parameters of the next cycle, g(x) by the
present ones, and v = (H + damping)^-1 sum_j g'(x_j) over the test set:

    target      v . g'(x)         line 2 of Eq. 3, times n: removing x from the training
                                  set adds 1/n of it to the summed test loss
    approx_1    |v . g'(x)|       line 2 of Eq. 4
    approx_2    |v| |g'(x)|       line 4 of Eq. 4: Cauchy and Schwarz
    approx_3    |v| |g(x)|        Eq. 5: a bound where the gradient norm has fallen
"""

from typing import Any, NamedTuple

import numpy as np

from jalpose.acquisition.method import highest
from jalpose.evaluation.measures import overlap_with_top

TERMS = ("target", "approx_1", "approx_2", "approx_3")


class Scores(NamedTuple):
    """What was found of the M examples of a pool with one loss.

    Attributes:
      along: [M], v . g'.
      next_norms: [M], |g'|.
      norms: [M], |g|.
      length: |v|.
    """

    along: np.ndarray
    next_norms: np.ndarray
    norms: np.ndarray
    length: float

    def terms(self) -> dict[str, np.ndarray]:
        """The four terms of each example, by name: float64 [M]."""
        along = np.asarray(self.along, np.float64)
        return {
            "target": along,
            "approx_1": np.abs(along),
            "approx_2": self.length * np.asarray(self.next_norms, np.float64),
            "approx_3": self.length * np.asarray(self.norms, np.float64),
        }


def of_loss(scores: Scores, ids: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """Averages over the pool of one loss, and how often the last bound holds.

    Args:
      scores: of the M examples.
      ids: int64 [M].
      chosen: ids of what the run chose among them.

    Returns:
      The four terms' means; bound_holds and bound_holds_chosen, the shares of the pool
      and of the chosen whose gradient norm has not risen, so that the bound of Eq. 5
      holds (the paper's A.2; None without a chosen one); approx_1_over_2, the median
      cosine of v and g', which is what Cauchy and Schwarz give away.
    """
    holds = scores.next_norms <= scores.norms
    picked = np.isin(ids, chosen)
    terms = scores.terms()
    known = terms["approx_2"] > 0
    cosines = terms["approx_1"][known] / terms["approx_2"][known]
    return {
        **{name: float(values.mean()) for name, values in terms.items()},
        "bound_holds": float(holds.mean()),
        "bound_holds_chosen": float(holds[picked].mean()) if picked.any() else None,
        "approx_1_over_2": float(np.median(cosines)) if known.any() else None,
    }


def overlaps(
    by_loss: dict[str, Scores], ids: np.ndarray, count: int
) -> dict[str, float]:
    """Table 2: how many of those chosen by Eq. 5 are also chosen by Eq. 3.

    Eq. 3 is by the true labels, as there: the largest rise of the test loss if left
    out. Whose gradient norm Eq. 5 takes is not said: it is given for the true labels'
    and, as a method has to choose, for the loss without labels.

    Args:
      by_loss: scores by the name of their loss, `labels` among them.
      ids: int64 [M].
      count: chosen.

    Returns:
      By "eq5 <loss>" the number in common with Eq. 3; likewise "eq4 <loss>", by the
      next parameters' norm; "eq3 size", by |v . g'| of the labels; and chance.
    """
    target = by_loss["labels"].along

    def common(values) -> float:
        picked = highest(ids, np.asarray(values), count)
        return round(count * overlap_with_top(picked, ids, target).share)

    found = {"eq3 size": common(np.abs(target))}
    for name, scores in by_loss.items():
        found[f"eq4 {name}"] = common(scores.next_norms)
        found[f"eq5 {name}"] = common(scores.norms)
    found["chance"] = count * count / len(ids)
    return found
