"""What chooses without a model, and how the highest scores are chosen."""

import jax
import numpy as np
import pytest

from jalpose.acquisition.control import Control
from jalpose.acquisition.method import Pool, by_score, highest
from jalpose.acquisition.random import Random
from jalpose.acquisition.registry import METHODS

POOL = np.arange(40, 52)


def pool(ids):
    return Pool(unlabelled=ids, labelled=None)


def choose(ids, budget=10, seed=0):
    return Random().acquire(jax.random.key(seed), None, pool(ids), budget).indices


def test_random_chooses_without_replacement_from_the_unlabelled():
    ids = np.arange(100, 160)
    chosen = choose(ids)
    assert chosen.shape == (10,) and len(set(chosen.tolist())) == 10
    assert np.isin(chosen, ids).all()
    assert sorted(choose(ids, budget=60)) == ids.tolist()


def test_random_does_not_depend_on_the_order_of_the_ids():
    ids = np.arange(100, 160)
    shuffled = np.random.default_rng(0).permutation(ids)
    np.testing.assert_array_equal(choose(ids), choose(shuffled))


def test_random_does_not_depend_on_the_others():
    ids = np.arange(100, 160)
    order = choose(ids, budget=60)
    fewer = np.setdiff1d(ids, order[:7])
    np.testing.assert_array_equal(choose(fewer, budget=53), order[7:])


def test_random_chooses_by_its_key():
    ids = np.arange(100, 160)
    assert choose(ids).tolist() == choose(ids).tolist()
    assert choose(ids, seed=1).tolist() != choose(ids).tolist()


def test_random_is_uniform():
    # 400 choices of 5 of 20: each is chosen 100 times, standard deviation 8.7.
    ids = np.arange(1000, 1020)
    counts = np.zeros(20)
    for seed in range(400):
        counts[choose(ids, budget=5, seed=seed) - 1000] += 1
    assert counts.sum() == 2000
    assert np.abs(counts - 100).max() < 4 * 8.7
    # Chi-squared of 19 degrees of freedom, with the variance without replacement.
    assert 5 < np.sum((counts - 100) ** 2 / 75) * 19 / 20 < 45


def test_random_gives_no_scores():
    found = Random().acquire(jax.random.key(0), None, pool(POOL), 3)
    assert found.scores.shape == POOL.shape and np.isnan(found.scores).all()


def test_control_chooses_nothing():
    found = Control().acquire(jax.random.key(0), None, pool(POOL), 3)
    assert found.indices.shape == (0,) and found.indices.dtype == np.int64
    assert found.scores.shape == POOL.shape and np.isnan(found.scores).all()


def test_highest_scores_come_first_and_ties_go_by_id():
    ids = np.array([9, 4, 7, 1, 3])
    scores = np.array([1.0, 2.0, 1.0, 2.0, 0.5], np.float32)
    assert highest(ids, scores, 5).tolist() == [1, 4, 7, 9, 3]
    assert highest(ids, scores, 3).tolist() == [1, 4, 7]
    order = np.array([2, 0, 4, 1, 3])
    assert highest(ids[order], scores[order], 5).tolist() == [1, 4, 7, 9, 3]


def test_selection_by_score_lists_ten_of_the_broken_and_counts_the_rest():
    ids, scores = np.arange(100, 130), np.zeros(30)
    scores[3:15] = np.inf
    with pytest.raises(FloatingPointError, match=r"id 103, .*id 112 and 2 more\. W"):
        by_score(ids, scores, 3)
    scores[3:15] = 2
    found = by_score(ids, scores, 3)
    assert found.indices.tolist() == [103, 104, 105]
    assert found.scores.dtype == np.float32
    assert found.explanation == {} == found.summary


def test_methods_are_registered_by_name():
    assert set(METHODS) >= {"eglpp", "random", "control"}
    assert METHODS["eglpp"].uses_engine and not METHODS["random"].uses_engine
