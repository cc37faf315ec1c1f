"""Core-set: k-centre greedy through the probe."""

import functools

import jax
import numpy as np
import pytest

from jalpose.acquisition.coreset import CoreSet
from jalpose.acquisition.method import Pool
from tests.acquisition.parts.test_kcenter import slow_greedy
from tests.support import small

POOL = np.arange(40, 60)  # unlabelled examples of the small problem
RADIUS = "covering_radius"


@functools.cache
def labelled_set():
    """Ten labelled examples, two of them held out; core-set looks at no label."""
    ten = small.labelled_set().at(np.arange(10))
    return ten._replace(labels={}, held_out=np.arange(10) % 5 == 0)


def acquire(probe=None, labelled=None, ids=POOL, budget=6):
    probe = probe or small.probe(small.flat_passes(), small.flat_variables())
    pool = Pool(unlabelled=ids, labelled=labelled or labelled_set())
    return CoreSet().acquire(jax.random.key(0), probe, pool, budget)


@functools.cache
def chosen():
    return acquire()


def embeddings(ids):
    return small.probe(small.flat_passes(), small.flat_variables()).embeddings(ids)


def test_core_set_covers_the_pool_from_all_labelled_examples_held_out_ones_too():
    labelled = labelled_set()
    assert labelled.held_out.any()
    centres = embeddings(labelled.ids)
    order, distances, radius = slow_greedy(embeddings(POOL), centres, 6, POOL)
    found = chosen()
    assert found.indices.tolist() == POOL[order].tolist()
    np.testing.assert_allclose(
        found.explanation["pick_distance"][order], distances, rtol=1e-5
    )
    np.testing.assert_allclose(found.summary["covering_radius"], radius, rtol=1e-5)


def test_core_set_gives_distances_and_no_scores():
    found = chosen()
    assert np.isnan(found.scores).all() and found.scores.shape == POOL.shape
    picks = found.explanation["pick_distance"]
    np.testing.assert_array_equal(~np.isnan(picks), np.isin(POOL, found.indices))
    nearest = found.explanation["nearest_distance"]
    assert nearest.shape == POOL.shape and nearest.dtype == np.float32
    # The first pick is the example that was the farthest; none was farther than then.
    assert POOL[nearest.argmax()] == found.indices[0]
    assert (np.nan_to_num(picks) <= nearest).all()
    before, after = (
        found.summary[name] for name in ("covering_radius_before", "covering_radius")
    )
    assert before == nearest.max() > found.summary["last_pick_distance"] >= after > 0


def test_core_set_does_not_depend_on_order_or_devices():
    passes = small.flat_passes(8)
    probe = small.probe(passes, small.flat_variables())
    shuffled = np.random.default_rng(0).permutation(POOL)
    again = acquire(probe, ids=shuffled)
    np.testing.assert_array_equal(again.indices, chosen().indices)
    assert np.isclose(again.summary["covering_radius"], chosen().summary[RADIUS])


def test_core_set_with_a_budget_beyond_the_pool_takes_it_all():
    found = acquire(budget=99)
    assert sorted(found.indices.tolist()) == POOL.tolist()
    assert found.summary[RADIUS] == 0


def test_core_set_without_labels_is_refused():
    with pytest.raises(ValueError, match=r"set data\.initial above 0"):
        acquire(labelled=labelled_set().at(slice(0)))


def test_core_set_names_the_examples_whose_embeddings_are_no_numbers():
    variables = jax.tree.map(lambda leaf: leaf * np.nan, small.flat_variables())
    probe = small.probe(small.flat_passes(), variables)
    with pytest.raises(FloatingPointError, match=r"20 of 20 .*\(pool\).*id 40, id 41"):
        acquire(probe)
