"""Typical points and coverage, against slow loops over their definitions."""

import functools
import re

import jax
import numpy as np
import pytest

from jalpose.acquisition.parts import coverage
from tests.support import small

KEY = jax.random.key(3)


@functools.cache
def example(rows=26, labelled=4, features=3):
    draws = np.random.default_rng(0)
    pool = draws.standard_normal((rows, features))
    seen = draws.standard_normal((labelled, features))
    return pool, seen, draws.permutation(100)[:rows]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("labelled", [0, 4])
@pytest.mark.parametrize("bandwidth", [0.3, 1.0])
def test_each_pick_gains_the_most_coverage(labelled, bandwidth):
    pool, seen, ids = example(labelled=labelled)
    found = coverage.covering(pool, seen, 8, ids=ids, bandwidth=bandwidth)
    pool, seen = unit(pool), unit(seen)
    every = np.concatenate([pool, seen])

    def covered(rows):
        near = np.concatenate([seen, pool[rows]])
        if not len(near):
            return 0.0
        squared = np.sum((every[:, None] - near[None]) ** 2, axis=2)
        return np.exp(-squared / bandwidth**2).max(axis=1).mean()

    order = []
    for i in range(8):
        left = [row for row in range(len(pool)) if row not in order]
        best = max(left, key=lambda row: covered([*order, row]))
        gain = covered([*order, best]) - covered(order)
        np.testing.assert_allclose(found.gains[i], gain, rtol=1e-9)
        order.append(best)
    assert found.order.tolist() == order
    np.testing.assert_allclose(found.coverage, covered(order), rtol=1e-9)


def heaps():
    """Unit vectors in four heaps of 12, 9, 6 and 2 points, heap by heap."""
    draws = np.random.default_rng(2)
    angles = np.repeat([0.0, 1.5, 3.0, 4.5], [12, 9, 6, 2])
    angles = angles + draws.uniform(-0.1, 0.1, len(angles))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def typical(pool, labelled, budget, ids=None, **options):
    ids = np.arange(len(pool)) if ids is None else ids
    return coverage.typical_of_clusters(
        pool, labelled, budget, ids=ids, key=KEY, mesh=small.mesh(1), **options
    )


def test_the_most_typical_of_each_heap_the_largest_first():
    pool = heaps()
    heap = np.repeat([0, 1, 2, 3], [12, 9, 6, 2])
    found = typical(pool, pool[:0], 4)
    # Two points make no cluster: the largest is chosen from again before them.
    assert heap[found.order].tolist() == [0, 1, 2, 0]
    small_too = typical(pool, pool[:0], 4, smallest=2)
    assert heap[small_too.order].tolist() == [0, 1, 2, 3]
    for row in found.order[:3]:
        inside = np.flatnonzero(heap == heap[row])
        distances = np.linalg.norm(pool[inside][:, None] - pool[inside], axis=2)
        mean = distances.sum(axis=1) / (len(inside) - 1)
        assert inside[np.argmin(mean)] == row
        np.testing.assert_allclose(found.typicality[inside], 1 / mean, rtol=1e-5)


def test_heaps_that_have_labels_wait():
    pool = heaps()
    heap = np.repeat([0, 1, 2, 3], [12, 9, 6, 2])
    # One label in the largest heap: with three picks there are four clusters again.
    found = typical(pool[1:], pool[:1], 3, smallest=2)
    assert heap[1:][found.order].tolist() == [1, 2, 3]


def test_only_so_many_neighbours_count():
    pool = heaps()[:12]
    found = typical(pool, pool[:0], 1, neighbours=3)
    distances = np.sort(np.linalg.norm(pool[:, None] - pool, axis=2), axis=1)
    np.testing.assert_allclose(
        found.typicality, 1 / distances[:, 1:4].mean(axis=1), rtol=1e-5
    )


def test_the_whole_pool_can_be_chosen_each_once():
    pool, seen, ids = example()
    found = typical(pool, seen, len(pool), ids, most_clusters=5)
    assert sorted(found.order.tolist()) == list(range(len(pool)))
    covered = coverage.covering(pool, seen, len(pool), ids=ids)
    assert sorted(covered.order.tolist()) == list(range(len(pool)))
    np.testing.assert_allclose(
        coverage.covering(pool, pool, 1, ids=ids).coverage, 1, rtol=1e-9
    )


def test_the_order_of_the_rows_and_their_lengths_change_nothing():
    pool, seen, ids = example()
    shuffle = np.random.default_rng(1).permutation(len(pool))
    lengths = np.exp2(np.arange(len(pool)) % 7)[:, None]
    for choose in (
        functools.partial(coverage.covering),
        functools.partial(coverage.typical_of_clusters, key=KEY, mesh=small.mesh(1)),
    ):
        one = choose(pool, seen, 7, ids=ids)
        other = choose((pool * lengths)[shuffle], seen, 7, ids=ids[shuffle])
        np.testing.assert_array_equal(ids[shuffle][other.order], ids[one.order])


def test_equal_points_are_chosen_by_id_each_once():
    pool, ids = np.full((6, 3), 0.5), np.array([8, 3, 5, 1, 9, 2])
    covered = coverage.covering(pool, pool[:0], 6, ids=ids)
    assert ids[covered.order].tolist() == sorted(ids.tolist())
    found = typical(pool, pool[:0], 6, ids)
    assert ids[found.order].tolist() == sorted(ids.tolist())


BAD = {
    "bandwidth": (dict(bandwidth=0.0), "bandwidth=0.0 must be above 0"),
    "too much": (dict(budget=5), r"budget=5 must be from 1 to the pool's 4"),
    "shapes": (dict(labelled=np.zeros((2, 3))), r"\(4, 2\) and \(2, 3\)"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_covered_is_refused(bad):
    changes, message = BAD[bad]
    usual = dict(pool=np.ones((4, 2)), labelled=np.ones((1, 2)), budget=1)
    with pytest.raises(ValueError, match=message):
        coverage.covering(**{**usual, "ids": np.arange(4), **changes})


def test_embeddings_that_are_no_numbers_are_named():
    pool, seen, ids = example()
    pool = pool.copy()
    pool[3] = np.inf
    named = re.escape(f"1 of 26 examples (pool) is NaN or infinite: id {ids[3]}")
    with pytest.raises(FloatingPointError, match=named):
        coverage.covering(pool, seen, 1, ids=ids)
    with pytest.raises(FloatingPointError, match=named):
        typical(pool, seen, 1, ids)
