"""Largest clusters and draws by squared distance, against slow loops."""

import functools
import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jalpose.acquisition.parts import kcenter, spreading
from tests.support import small

KEY = jax.random.key(7)


def spread(rule, pool, centres, budget, ids=None, devices=1, chunk=4, key=KEY):
    ids = np.arange(len(pool)) if ids is None else ids
    return spreading.spread(
        rule,
        pool,
        centres,
        budget,
        ids=ids,
        key=key,
        mesh=small.mesh(devices),
        chunk=chunk,
    )


def slow_lcmd(pool, centres, budget, ids):
    """The definition in float64, everything anew at every pick."""
    pool = pool.astype(np.float64)
    every = [*centres.astype(np.float64)]
    order, distances = [], []
    for _ in range(budget):
        left = [row for row in range(len(pool)) if row not in order]
        if not every:
            squared = np.sum(pool**2, axis=1)
            best = max(left, key=lambda row: (squared[row], -ids[row]))
            distances.append(np.inf)
        else:
            squared, owner = nearest_of(pool, every)
            sums = np.bincount(owner, squared, minlength=len(every))
            inside = [row for row in left if sums[owner[row]] >= sums.max()] or left
            best = max(inside, key=lambda row: (squared[row], -ids[row]))
            distances.append(np.sqrt(squared[best]))
        order.append(best)
        every.append(pool[best])
    squared, owner = nearest_of(pool, every)
    for number, row in enumerate(order):
        owner[row] = len(centres) + number
    return order, distances, owner, squared.mean()


def nearest_of(pool, centres):
    squared = np.sum((pool[:, None] - np.stack(centres)[None]) ** 2, axis=2)
    return squared.min(axis=1), squared.argmin(axis=1)


@functools.cache
def example(rows=30, features=5):
    draws = np.random.default_rng(0)
    pool = draws.standard_normal((rows, features), np.float32)
    centres = draws.standard_normal((6, features), np.float32)
    return pool, centres, draws.permutation(100)[:rows]


@pytest.mark.slow
@pytest.mark.parametrize("num_centres", [0, 1, 6])
@pytest.mark.parametrize("devices", [1, 8])
def test_the_slow_loop_finds_the_same_clusters(devices, num_centres):
    pool, centres, ids = example()
    centres = centres[:num_centres]
    found = spread("lcmd", pool, centres, 12, ids, devices)
    order, distances, owner, after = slow_lcmd(pool, centres, 12, ids)
    assert found.order.tolist() == order and found.order.dtype == np.int64
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
    np.testing.assert_array_equal(found.clusters, owner)
    np.testing.assert_allclose(found.spread, after, rtol=1e-5)
    if num_centres:
        before, _ = nearest_of(pool.astype(float), centres)
        np.testing.assert_allclose(found.nearest, np.sqrt(before), rtol=1e-6)
        np.testing.assert_allclose(found.spread_before, before.mean(), rtol=1e-5)


def test_a_case_worked_by_hand():
    # About 0 the squares sum to 1 + 4 + 9 = 14, about 100 to 16: 104 is first. Then 3,
    # the farthest about 0. Then 1, still 0's, and 2, now 3's, are clusters of 1 each:
    # the lower id is first.
    pool = np.float32([[1], [2], [3], [104]])
    centres = np.float32([[0], [100]])
    found = spread("lcmd", pool, centres, 4)
    assert found.order.tolist() == [3, 2, 0, 1]
    assert found.distances.tolist() == [4, 3, 1, 1]


def test_many_points_count_for_more_than_one_farther_away():
    pool = np.float32([[3], [3], [3], [104]])  # 27 about 0, 16 about 100
    centres = np.float32([[0], [100]])
    assert spread("lcmd", pool, centres, 1).order.tolist() == [0]
    farthest = kcenter.greedy(pool, centres, 1, ids=np.arange(4))
    assert farthest.order.tolist() == [3]


@pytest.mark.slow
@given(seed=st.integers(0, 10**6), devices=st.sampled_from([1, 8]))
def test_the_order_of_the_rows_changes_nothing(seed, devices):
    draws = np.random.default_rng(seed)
    pool = draws.integers(0, 4, (12, 2)).astype(np.float32)
    ids, shuffle = draws.permutation(50)[:12], draws.permutation(12)
    for rule in spreading.RULES:
        one = spread(rule, pool, pool[:1], 8, ids)
        other = spread(rule, pool[shuffle], pool[:1], 8, ids[shuffle], devices)
        np.testing.assert_array_equal(ids[shuffle][other.order], ids[one.order])
        assert len(set(one.order.tolist())) == 8


@pytest.mark.slow
@pytest.mark.parametrize("rule", spreading.RULES)
@pytest.mark.parametrize("devices", [1, 8])
def test_equal_points_are_chosen_by_id_each_once(rule, devices):
    pool, ids = np.full((9, 3), 0.3, np.float32), np.array([8, 3, 5, 1, 9, 2, 7, 4, 6])
    found = spread(rule, pool, pool[:1], 9, ids, devices, chunk=2)
    assert ids[found.order].tolist() == list(range(1, 10))
    assert not found.distances.any() and found.spread == 0
    assert found.clusters[found.order].tolist() == list(range(1, 10))


@pytest.mark.slow
def test_draws_are_in_proportion_to_squared_distances():
    pool = np.float32([[1], [2], [3], [0]])
    tries, firsts = 1500, np.zeros(4)
    for key in jax.random.split(jax.random.key(0), tries):
        firsts[spread("kmeanspp", pool, pool[3:], 1, key=key).order[0]] += 1
    expected = np.array([1, 4, 9, 0]) / 14
    error = np.sqrt(expected * (1 - expected) / tries)
    assert (np.abs(firsts / tries - expected) <= 4 * error).all()
    assert firsts[3] == 0  # nothing is away from its centre there


def test_draws_go_on_from_what_was_drawn():
    # Two heaps far apart and a centre in the one: the other is drawn first, and then
    # its own points are as near as the others.
    pool = np.float32([[0.1], [0.2], [1000], [1000.1]])
    for number in range(20):
        key = jax.random.key(number)
        found = spread("kmeanspp", pool, np.float32([[0]]), 4, key=key)
        assert found.order[0] in (2, 3)
        assert sorted(found.order.tolist()) == [0, 1, 2, 3]
        again = spread("kmeanspp", pool, np.float32([[0]]), 4, key=key)
        assert again.order.tolist() == found.order.tolist()
    seconds = {
        int(spread("kmeanspp", pool, pool[2:3], 2, key=jax.random.key(n)).order[0])
        for n in range(30)
    }
    assert seconds == {0, 1}


def test_without_centres_the_first_draw_is_the_farthest_from_the_origin():
    pool = np.float32([[1, 0], [0, -5], [2, 2]])
    for rule in spreading.RULES:
        found = spread(rule, pool, pool[:0], 3)
        assert found.order[0] == 1 and np.isinf(found.distances[0])
        assert np.isinf(found.nearest).all()


def test_centres_beyond_a_size_are_taken_in_blocks(monkeypatch):
    pool, _, ids = example()
    centres = np.random.default_rng(3).standard_normal((11, 5), np.float32)
    whole = spread("lcmd", pool, centres, 12, ids)
    monkeypatch.setattr(kcenter, "CENTRES_AT_ONCE", 4)
    blocks = spread("lcmd", pool, centres, 12, ids)
    for name in ("order", "distances", "nearest", "clusters"):
        np.testing.assert_array_equal(getattr(blocks, name), getattr(whole, name))


BAD = {
    "rule": (dict(rule="means"), "rule='means' must be one of lcmd, kmeanspp"),
    "key": (dict(rule="kmeanspp", key=None), "need a key"),
    "shapes": (dict(centres=np.zeros((2, 3))), r"\(4, 2\) and \(2, 3\)"),
    "too much": (dict(budget=5), r"budget=5 must be from 1 to the pool's 4"),
    "ids twice": (dict(ids=np.array([1, 2, 2, 3])), "4 distinct numbers, got 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_spread_is_refused(name):
    changes, message = BAD[name]
    usual = dict(pool=np.zeros((4, 2)), centres=np.zeros((1, 2)), budget=1, rule="lcmd")
    with pytest.raises(ValueError, match=message):
        spread(**{**usual, **changes})


def test_embeddings_that_are_no_numbers_are_named():
    pool, centres, ids = example()
    pool = pool.copy()
    pool[3] = np.nan
    named = re.escape(f"1 of 30 examples (pool) is NaN or infinite: id {ids[3]}")
    with pytest.raises(FloatingPointError, match=named):
        spread("lcmd", pool, centres, 1, ids)
