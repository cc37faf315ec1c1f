"""Does another cycle pay? The gain its labels are expected to bring, against the error.

Gained is the test loss that the last labels took away: of the two networks on the same
test examples, paired, with its standard error. Expected of the next labels, as many
again, is what the power law through all cycles' losses goes on to take away (learning
curves are near one; J. Hestness and others, Deep Learning Scaling is Predictable,
Empirically, 2017). Where that is less than the error, a test set like this could not
tell whether they helped.

What is gained is not all due to labels: each cycle also trains on. The method
`control`, which buys none, says how much.
"""

import numpy as np


def gains(
    labelled: np.ndarray,
    mean_losses: np.ndarray,
    before: np.ndarray,
    now: np.ndarray,
    groups: np.ndarray | None = None,
) -> dict[str, float | int] | None:
    """Gained and expected gain of a cycle, for its record.

    Args:
      labelled: [k], examples labelled at each cycle, this one last.
      mean_losses: [k], of the test set.
      before: [T], losses of the test examples by the network before this.
      now: [T], by this one.
      groups: [T], of examples that are alike (frames of a video): the error is that of
        independent groups. None: each by itself.

    Returns:
      labels, bought last; gained, expected and error, in units of the loss, positive
      where it falls. None where nothing was bought, or nothing can be said.
    """
    labelled = np.asarray(labelled, np.float64)
    mean_losses = np.asarray(mean_losses, np.float64)
    if len(labelled) < 2 or labelled[-1] <= labelled[-2] or len(now) < 2:
        return None
    if not (np.isfinite(mean_losses).all() and (mean_losses > 0).all()):
        return None
    apart = np.asarray(before, np.float64) - np.asarray(now, np.float64)
    bought = labelled[-1] - labelled[-2]
    return {
        "labels": int(bought),
        "gained": float(apart.mean()),
        "error": standard_error(apart, groups),
        "expected": expected(labelled, mean_losses, labelled[-1] + bought),
    }


def expected(labelled: np.ndarray, losses: np.ndarray, ahead: float) -> float:
    """What the power law through the losses takes away from the last to `ahead` labels.

    0 where it does not fall.

    Args:
      labelled: [k], positive, at least two different.
      losses: [k], positive.
      ahead: examples labelled then.
    """
    x, y = np.log(labelled), np.log(losses)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    here, then = (
        np.exp(y.mean() + slope * (np.log(n) - x.mean())) for n in (labelled[-1], ahead)
    )
    return max(0.0, float(here - then))


def standard_error(values: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Standard error of the mean of [T] values, in groups that are alike if given.

    NaN of one group. By the sums of the groups' residuals (K.-Y. Liang and S. L. Zeger,
    Biometrika 73, 1986): with groups of one it is the usual one.
    """
    residuals = values - values.mean()
    if groups is not None:
        _, rows = np.unique(groups, return_inverse=True)
        residuals = np.bincount(rows, weights=residuals)
    count = len(residuals)
    if count < 2:
        return float("nan")
    whole = count / (count - 1) * (residuals**2).sum()
    return float(np.sqrt(whole) / len(values))
