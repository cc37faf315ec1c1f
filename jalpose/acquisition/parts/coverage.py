"""Batches for few labels: typical points of clusters, and coverage by a kernel.

- `typical_of_clusters` (TypiClust: Hacohen, Dekel, Weinshall, ICML 2022): as many
  clusters as there are labelled and picks together; of those with the fewest labelled,
  the largest first, the point that is nearest to its neighbours.
- `covering` (MaxHerding: Bae, Noh, Sutherland, "Generalized Coverage for More Robust
  Low-Budget Active Learning", ECCV 2024): each pick makes the mean over all points of
  the kernel to the nearest labelled or chosen one largest.

Both papers work on unit vectors, of a network trained without labels; here they are
those of the network at hand. Everything is on the host.
"""

import heapq
import warnings
from typing import NamedTuple

import numpy as np
from scipy.cluster import vq

from jalpose.acquisition.parts import points, spreading

ROWS_AT_ONCE = 1024  # whose distances to all others are held


class Typical(NamedTuple):
    """Points that are typical of what is not labelled yet.

    Attributes:
      order: int64 [budget], rows of the pool in the order they were chosen.
      typicality: float32 [M], 1 over the mean distance to the nearest neighbours in
        the cluster; 0 of a point alone in its own, infinite where all are equal.
      clusters: int64 [M], of every row of the pool, by number.
    """

    order: np.ndarray
    typicality: np.ndarray
    clusters: np.ndarray


class Covering(NamedTuple):
    """Points that cover the pool.

    Attributes:
      order: int64 [budget], rows of the pool in the order they were chosen.
      gains: float64 [budget], of each in coverage, which is at most 1; never rising.
      covered: float32 [M], kernel to the nearest labelled before the choice.
      coverage: mean over pool and labelled after the choice.
    """

    order: np.ndarray
    gains: np.ndarray
    covered: np.ndarray
    coverage: float


def typical_of_clusters(
    pool,
    labelled,
    budget: int,
    *,
    ids,
    key,
    labelled_ids=None,
    most_clusters: int = 500,
    smallest: int = 5,
    neighbours: int = 20,
    mesh=None,
) -> Typical:
    """Choose `budget` rows, one of each cluster that labels have not reached.

    Clusters are k-means', begun by k-means++. The paper leaves small clusters out; here
    they are chosen from where nothing else is left.

    Args:
      pool: [M, C].
      labelled: [L, C]; L may be 0.
      budget: from 1 to M.
      ids: int [M], distinct; ties go by them.
      key: of the first centres.
      labelled_ids: int [L], for messages.
      most_clusters: as the paper has it for large budgets.
      smallest: clusters of fewer points, pool and labelled, come last.
      neighbours: whose mean distance counts.
      mesh: for k-means++; None: all devices.

    Raises:
      ValueError: shapes that do not fit, ids twice, a budget beyond M.
      FloatingPointError: an embedding is NaN or infinite; names the ids.
    """
    pool, seen, by_id = _unit(pool, labelled, budget, ids, labelled_ids)
    every = np.concatenate([pool, seen])
    count = min(budget + len(seen), most_clusters, len(every))
    owner = _means(every, count, key, mesh)
    members = np.bincount(owner, minlength=count)
    known = np.bincount(owner[len(pool) :], minlength=count)
    typicality = _typicality(every, owner, neighbours)[: len(pool)]
    left = np.bincount(owner[: len(pool)], minlength=count)
    taken = np.zeros(len(pool), bool)
    order: list[int] = []
    for _ in range(budget):
        open_ = np.flatnonzero(left)
        few = np.where(members[open_] < smallest, 1, 0)
        best = open_[np.lexsort((open_, -members[open_], known[open_], few))[0]]
        inside = np.flatnonzero((owner[: len(pool)] == best) & ~taken)
        row = inside[np.argmax(typicality[inside])]
        order.append(int(row))
        taken[row] = True
        known[best] += 1
        left[best] -= 1
    given, clusters = np.empty(len(pool), np.float32), np.empty(len(pool), np.int64)
    given[by_id], clusters[by_id] = typicality, owner[: len(pool)]
    return Typical(by_id[np.array(order)], given, clusters)


def covering(
    pool, labelled, budget: int, *, ids, labelled_ids=None, bandwidth: float = 1.0
) -> Covering:
    """Choose `budget` rows, each of the largest gain in coverage.

    The kernel is exp(-|x - y|^2 / bandwidth^2) of unit vectors. Gains never rise with
    what is chosen, so one is worked out anew only where it may be the largest: exact,
    and a few rows a pick.

    Args:
      pool: [M, C].
      labelled: [L, C]; L may be 0.
      budget: from 1 to M.
      ids: int [M], distinct; ties go by them.
      labelled_ids: int [L], for messages.
      bandwidth: in lengths of the unit vectors, above 0; the paper's is 1.

    Raises:
      ValueError: shapes that do not fit, ids twice, a budget beyond M, no bandwidth.
      FloatingPointError: an embedding is NaN or infinite; names the ids.
    """
    if not bandwidth > 0:
        raise ValueError(f"{bandwidth=} must be above 0")
    pool, seen, by_id = _unit(pool, labelled, budget, ids, labelled_ids)
    every = np.concatenate([pool, seen])

    def kernel(rows):
        return np.exp(-_squared(rows, every) / bandwidth**2)

    covered = np.zeros(len(every))
    for start in range(0, len(seen), ROWS_AT_ONCE):
        near = kernel(seen[start : start + ROWS_AT_ONCE])
        covered = np.maximum(covered, near.max(axis=0))
    before = covered[: len(pool)]
    bounds = np.empty(len(pool))
    for start in range(0, len(pool), ROWS_AT_ONCE):
        gained = np.maximum(kernel(pool[start : start + ROWS_AT_ONCE]) - covered, 0)
        bounds[start : start + ROWS_AT_ONCE] = gained.mean(axis=1)
    # Largest gain first, the lower id of equals; of which pick a gain is.
    queue = [(-float(gain), row, 0) for row, gain in enumerate(bounds)]
    heapq.heapify(queue)
    order: list[int] = []
    gains: list[float] = []
    while len(order) < budget:
        gain, row, worked_out = heapq.heappop(queue)
        near = kernel(pool[row : row + 1])[0]
        if worked_out < len(order):
            again = float(np.maximum(near - covered, 0).mean())
            heapq.heappush(queue, (-again, row, len(order)))
            continue
        order.append(row)
        gains.append(-gain)
        covered = np.maximum(covered, near)
    given = np.empty(len(pool), np.float32)
    given[by_id] = before
    chosen = by_id[np.array(order)]
    return Covering(chosen, np.array(gains), given, float(covered.mean()))


def _unit(pool, labelled, budget, ids, labelled_ids):
    """Unit vectors of the pool by id, and of the labelled; rows of the pool by id."""
    pool, seen = np.asarray(pool), np.asarray(labelled)
    points.check_points(pool, seen, budget, np.asarray(ids), 1)
    labelled_ids = np.arange(len(seen)) if labelled_ids is None else labelled_ids
    points.check_finite(pool, ids, "pool")
    points.check_finite(seen, labelled_ids, "labelled")
    by_id = np.argsort(ids)
    return _scaled(pool[by_id]), _scaled(seen), by_id


def _scaled(rows):
    rows = rows.astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)  # no square over- or underflows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _squared(rows, others):
    """Squared distances [n, m] of unit vectors, which lie within 2 of each other."""
    own = np.sum(rows**2, axis=1)[:, None] + np.sum(others**2, axis=1)
    return np.maximum(own - 2 * rows @ others.T, 0)


def _means(every, count, key, mesh):
    """Cluster of each point, by k-means from k-means++; an empty cluster stays so."""
    begun = spreading.spread(
        "kmeanspp",
        every,
        every[:0],
        count,
        ids=np.arange(len(every)),
        key=key,
        mesh=mesh,
    )
    with warnings.catch_warnings():  # equal points leave clusters empty
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        _, owner = vq.kmeans2(every, every[begun.order], iter=20, minit="matrix")
    return owner.astype(np.int64)


def _typicality(every, owner, neighbours):
    """1 over the mean distance to the nearest within the cluster, of each point."""
    found = np.zeros(len(every), np.float32)
    for cluster in np.unique(owner):
        inside = np.flatnonzero(owner == cluster)
        near = min(neighbours, len(inside) - 1)
        if not near:
            continue
        for start in range(0, len(inside), ROWS_AT_ONCE):
            rows = inside[start : start + ROWS_AT_ONCE]
            distances = np.sqrt(_squared(every[rows], every[inside]))
            # The nearest of all is the point itself.
            nearest = np.partition(distances, near, axis=1)[:, : near + 1]
            mean = nearest.sum(axis=1) / near
            with np.errstate(divide="ignore"):
                found[rows] = 1 / mean
    return found
