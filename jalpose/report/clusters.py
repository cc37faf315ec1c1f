"""Clusters of a pool, and how many of them a choice is from: arrays in, numbers out."""

import numpy as np
from scipy import special

MOST = 50  # clusters
ROWS = 4000  # examples that centres are fitted to; the others go to the nearest
DIRECTIONS = 32  # principal ones, of longer embeddings
ROUNDS = 25


def number_of_clusters(num_scored: int, budget: int) -> int:
    """As many as a choice could cover, of some examples each, and no more than MOST."""
    return max(1, min(MOST, budget, num_scored // 2))


def cluster(embeddings: np.ndarray, count: int) -> np.ndarray:
    """Number of the cluster of each row, the largest cluster first: int [M].

    Lloyd's k-means from k-means++'s centres (Arthur and Vassilvitskii, SODA 2007), by a
    fixed draw: equal embeddings have equal clusters. Clusters that lose all their rows
    are gone, so that there may be fewer than asked for.

    Args:
      embeddings: [M, C], finite.
      count: clusters, at least one.
    """
    points = np.asarray(embeddings, np.float64)
    some = points[np.linspace(0, len(points) - 1, min(len(points), ROWS)).astype(int)]
    points, some = points - some.mean(axis=0), some - some.mean(axis=0)
    if points.shape[1] > DIRECTIONS:
        _, directions = np.linalg.eigh(some.T @ some)  # rising
        kept = directions[:, -DIRECTIONS:]
        points, some = points @ kept, some @ kept
    centres = _spread(some, count)
    nearest = np.full(len(some), -1)
    for _ in range(ROUNDS):
        found = _nearest(some, centres)
        if (found == nearest).all():
            break
        nearest = found
        kinds, nearest = np.unique(nearest, return_inverse=True)
        sums = np.zeros((len(kinds), some.shape[1]))
        np.add.at(sums, nearest, some)
        centres = sums / np.bincount(nearest)[:, None]
    numbers = np.unique(_nearest(points, centres), return_inverse=True)[1]
    order = np.argsort(-np.bincount(numbers), kind="stable")
    return np.argsort(order)[numbers]


def share_covered(numbers: np.ndarray, chosen: np.ndarray) -> float:
    """Share of the clusters that a choice has an example of.

    Args:
      numbers: [M], of clusters.
      chosen: bool [M].
    """
    return len(np.unique(numbers[chosen])) / len(np.unique(numbers))


def share_by_chance(numbers: np.ndarray, budget: int) -> float:
    """The share that so many examples drawn at random cover, in expectation.

    A cluster of n among M is missed with probability C(M - n, b) / C(M, b).
    """
    sizes, total = np.bincount(numbers), len(numbers)
    sizes = sizes[sizes > 0]
    left = total - sizes
    logs = _log_choose(np.maximum(left, budget), budget) - _log_choose(total, budget)
    missed = np.where(left >= budget, np.exp(logs), 0.0)
    return float(1 - missed.mean())


def _log_choose(total, chosen):
    total = np.asarray(total, np.float64)
    return (
        special.gammaln(total + 1)
        - special.gammaln(chosen + 1)
        - special.gammaln(total - chosen + 1)
    )


def _spread(points: np.ndarray, count: int) -> np.ndarray:
    """Rows drawn by their squared distance to the nearest drawn before."""
    rng = np.random.default_rng(0)
    found = [points[rng.integers(len(points))]]
    squares = ((points - found[0]) ** 2).sum(axis=1)
    while len(found) < count and squares.sum() > 0:
        row = rng.choice(len(points), p=squares / squares.sum())
        found.append(points[row])
        squares = np.minimum(squares, ((points - points[row]) ** 2).sum(axis=1))
    return np.array(found)


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each row; the squares of the rows are the same for all."""
    return ((centres**2).sum(axis=1) - 2 * points @ centres.T).argmin(axis=1)
