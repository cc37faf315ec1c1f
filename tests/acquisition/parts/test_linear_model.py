"""Determinants and Fisher information against their definitions, worked out anew."""

import functools
import re

import numpy as np
import pytest

from jalpose.acquisition.parts import linear_model

CHOICES = {
    "maxdet": linear_model.largest_determinant,
    "bait": linear_model.fisher_reduction,
}
EVERY = pytest.mark.parametrize("name", CHOICES)


@functools.cache
def example(rows=24, labelled=5, features=4):
    draws = np.random.default_rng(0)
    pool = draws.standard_normal((rows, features))
    seen = draws.standard_normal((labelled, features))
    return pool, seen, draws.permutation(100)[:rows]


def scaled(pool, seen):
    every = np.concatenate([pool, seen])
    scale = np.sqrt(len(every) / np.sum(every**2))
    return pool * scale, seen * scale


@pytest.mark.parametrize("labelled", [0, 5])
def test_each_pick_makes_the_determinant_largest(labelled):
    pool, seen, ids = example(labelled=labelled)
    found = linear_model.largest_determinant(pool, seen, 7, ids=ids, noise=0.1)
    pool, seen = scaled(pool, seen)

    def determinant(rows):  # of the kernel matrix of labelled and chosen, with noise
        every = np.concatenate([seen, pool[rows]])
        return np.linalg.slogdet(every @ every.T + 0.01 * np.eye(len(every)))[1]

    order = []
    for i in range(7):
        left = [row for row in range(len(pool)) if row not in order]
        best = max(left, key=lambda row: determinant([*order, row]))
        # Of the two determinants the ratio is variance plus noise.
        ratio = np.exp(determinant([*order, best]) - determinant(order))
        np.testing.assert_allclose(found.gains[i], ratio - 0.01, rtol=1e-7)
        order.append(best)
    assert found.order.tolist() == order


def trace(pool, seen, rows, noise):
    chosen = np.concatenate([seen, pool[rows]])
    matrix = chosen.T @ chosen + noise**2 * np.eye(pool.shape[1])
    every = np.concatenate([pool, seen])
    return np.trace(np.linalg.solve(matrix, every.T @ every / len(every)))


@pytest.mark.parametrize("labelled", [0, 5])
@pytest.mark.parametrize("oversample", [1.0, 2.0])
def test_the_trace_is_reduced_forward_and_backward(labelled, oversample):
    pool, seen, ids = example(labelled=labelled)
    found = linear_model.fisher_reduction(
        pool, seen, 6, ids=ids, noise=0.2, oversample=oversample
    )
    pool, seen = scaled(pool, seen)
    order = []
    for _ in range(int(6 * oversample)):
        left = [row for row in range(len(pool)) if row not in order]
        order.append(min(left, key=lambda row: trace(pool, seen, [*order, row], 0.2)))
    while len(order) > 6:
        without = [[r for r in order if r != row] for row in order]
        order = min(without, key=lambda rows: trace(pool, seen, rows, 0.2))
    assert found.order.tolist() == order
    if oversample == 1:
        falls = -np.diff([trace(pool, seen, order[:i], 0.2) for i in range(7)])
        np.testing.assert_allclose(found.gains, falls, rtol=1e-7)


def test_a_direction_that_is_known_is_worth_nothing():
    # Labelled examples lie along the first axis, one of the pool along the second.
    seen = np.array([[3.0, 0], [2, 0]])
    pool = np.array([[5.0, 0], [4, 0], [0, 1]])
    for choose in CHOICES.values():
        assert choose(pool, seen, 1, ids=np.arange(3)).order.tolist() == [2]


@EVERY
def test_the_order_of_the_rows_and_their_scale_change_nothing(name):
    pool, seen, ids = example()
    shuffle = np.random.default_rng(1).permutation(len(pool))
    one = CHOICES[name](pool, seen, 8, ids=ids)
    other = CHOICES[name](pool[shuffle] * 1e30, seen * 1e30, 8, ids=ids[shuffle])
    np.testing.assert_array_equal(ids[shuffle][other.order], ids[one.order])
    np.testing.assert_allclose(other.first, one.first[shuffle], rtol=1e-9)
    assert len(set(one.order.tolist())) == 8


@EVERY
def test_equal_features_are_chosen_by_id_each_once(name):
    pool, ids = np.full((6, 3), 0.5), np.array([8, 3, 5, 1, 9, 2])
    found = CHOICES[name](pool, pool[:0], 6, ids=ids)
    assert sorted(found.order.tolist()) == list(range(6))
    nothing = CHOICES[name](np.zeros((6, 3)), pool[:0], 6, ids=ids)
    assert ids[nothing.order].tolist() == sorted(ids.tolist())


BAD = {
    "noise": (dict(noise=1e-8), "noise=1e-08 must be at least 1e-05"),
    "too much": (dict(budget=5), r"budget=5 must be from 1 to the pool's 4"),
    "shapes": (dict(labelled=np.zeros((2, 3))), r"\(4, 2\) and \(2, 3\)"),
}


@EVERY
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_chosen_from_is_refused(name, bad):
    changes, message = BAD[bad]
    usual = dict(features=np.ones((4, 2)), labelled=np.ones((1, 2)), budget=1)
    with pytest.raises(ValueError, match=message):
        CHOICES[name](**{**usual, "ids": np.arange(4), **changes})


@EVERY
def test_features_that_are_no_numbers_are_named(name):
    pool, seen, ids = example()
    pool = pool.copy()
    pool[3] = np.inf
    named = re.escape(f"1 of 24 examples (pool) is NaN or infinite: id {ids[3]}")
    with pytest.raises(FloatingPointError, match=named):
        CHOICES[name](pool, seen, 1, ids=ids)
