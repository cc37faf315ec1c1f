"""k-centre greedy against the slow loop."""

import functools
import itertools
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jalpose.acquisition.parts import kcenter
from tests.support import small


def greedy(pool, centres, budget, ids=None, devices=1, chunk=4):
    ids = np.arange(len(pool)) if ids is None else ids
    mesh = small.mesh(devices)
    return kcenter.greedy(pool, centres, budget, ids=ids, mesh=mesh, chunk=chunk)


def slow_greedy(pool, centres, budget, ids):
    """The same in float64, one distance at a time."""
    pool, centres = pool.astype(np.float64), [*centres.astype(np.float64)]

    def nearest(row):
        return min(np.sqrt(np.sum((pool[row] - c) ** 2)) for c in centres)

    order, distances = [], []
    for _ in range(budget):
        left = [row for row in range(len(pool)) if row not in order]
        found = {row: nearest(row) for row in left}
        best = max(left, key=lambda row: (found[row], -ids[row]))
        order.append(best)
        distances.append(found[best])
        centres.append(pool[best])
    return order, distances, max(nearest(row) for row in range(len(pool)))


@functools.cache
def example(rows=30, features=5):
    draws = np.random.default_rng(0)
    pool = draws.standard_normal((rows, features), np.float32)
    centres = draws.standard_normal((6, features), np.float32)
    return pool, centres, draws.permutation(100)[:rows]


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_the_slow_loop_chooses_the_same(devices, chunk):
    pool, centres, ids = example()
    found = greedy(pool, centres, 12, ids, devices, chunk)
    order, distances, radius = slow_greedy(pool, centres, 12, ids)
    assert found.order.tolist() == order and found.order.dtype == np.int64
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
    np.testing.assert_allclose(found.radius, radius, rtol=1e-6)
    between = np.linalg.norm(pool[:, None] - centres[None], axis=2).min(axis=1)
    np.testing.assert_allclose(found.nearest, between, rtol=1e-6)


def test_eight_devices_choose_as_one():
    draws = np.random.default_rng(1)
    pool = draws.standard_normal((203, 17), np.float32)
    centres = draws.standard_normal((5, 17), np.float32)
    one, eight = (greedy(pool, centres, 60, devices=n, chunk=16) for n in (1, 8))
    for name in ("order", "distances", "nearest"):
        np.testing.assert_array_equal(getattr(one, name), getattr(eight, name))
    assert one.radius == eight.radius


whole = st.integers(0, 3)
grid = st.lists(st.tuples(whole, whole), min_size=2, max_size=12)


@given(points=grid, seed=st.integers(0, 99), devices=st.sampled_from([1, 8]))
def test_ties_go_by_id_whatever_the_order_of_the_rows(points, seed, devices):
    # On a grid distances tie all the time, and whole rows are the same.
    pool = np.zeros((12, 2), np.float32)  # one shape, one compilation
    pool[: len(points)] = points
    centres = np.float32([[1, 2]])
    draws = np.random.default_rng(seed)
    ids = draws.permutation(50)[:12]
    found = greedy(pool, centres, 8, ids)
    order, distances, radius = slow_greedy(pool, centres, 8, ids)
    assert found.order.tolist() == order
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
    shuffle = draws.permutation(12)
    again = greedy(pool[shuffle], centres, 8, ids[shuffle], devices)
    np.testing.assert_array_equal(ids[shuffle][again.order], ids[found.order])
    np.testing.assert_array_equal(again.nearest, found.nearest[shuffle])
    assert again.radius == found.radius == np.float32(radius)


def test_of_a_mapped_pool_there_is_no_copy_but_the_devices(tmp_path):
    shape = (32_768, 256)
    pool = np.memmap(tmp_path / "pool", np.float32, "w+", shape=shape)
    pool[:, 0] = np.arange(len(pool))
    greedy(pool[:64], pool[:1], 1, devices=8, chunk=1024)  # what is built but once
    tracemalloc.start()
    try:
        found = greedy(pool, pool[:1], 1, devices=8, chunk=1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.order.tolist() == [len(pool) - 1]
    # A CPU may keep what it is given, that is the pool once; not twice, or its squares.
    assert peak < 1.4 * pool.nbytes


@pytest.mark.parametrize("devices", [1, 8])
def test_identical_embeddings_are_chosen_by_id_each_once(devices):
    pool, ids = np.full((9, 3), 0.3, np.float32), np.array([8, 3, 5, 1, 9, 2, 7, 4, 6])
    found = greedy(pool, pool[:1], 9, ids, devices, chunk=2)
    assert ids[found.order].tolist() == list(range(1, 10))
    assert not found.distances.any() and found.radius == 0


@pytest.mark.parametrize("rows", [1, 7])
def test_the_whole_pool_is_chosen_where_the_budget_is_as_large(rows):
    pool, centres, _ = example()
    found = greedy(pool[:rows], centres, rows, devices=8)
    assert sorted(found.order.tolist()) == list(range(rows))
    assert found.radius == 0
    assert (np.diff(found.distances) <= 0).all()


def test_one_of_each_cluster_is_chosen_the_farthest_cluster_first():
    draws = np.random.default_rng(2)
    places = np.float32([[0, 0], [10, 0], [0, 30], [50, 50], [-20, 0]])
    pool = (places[:, None] + draws.uniform(-1, 1, (5, 8, 2))).reshape(40, 2)
    found = greedy(pool, places[:1], 4)
    assert (found.order // 8).tolist() == [3, 2, 4, 1]
    # Within a cluster nothing is farther than its diagonal from what was chosen.
    assert found.radius < 2 * np.sqrt(2) + 1e-5 < found.distances[-1]


def test_the_radius_is_at_most_twice_the_smallest():
    pool, centres, _ = example()
    pool, centres = pool[:10], centres[:2]

    def radius(chosen):
        every = np.concatenate([centres, pool[list(chosen)]])
        return np.linalg.norm(pool[:, None] - every[None], axis=2).min(axis=1).max()

    smallest = min(radius(c) for c in itertools.combinations(range(10), 3))
    found = greedy(pool, centres, 3)
    np.testing.assert_allclose(found.radius, radius(found.order), rtol=1e-6)
    assert smallest <= found.radius <= 2 * smallest


def test_points_close_together_and_far_from_the_origin_are_told_apart():
    # Steps of 1/64 at 1000: the product form a^2 - 2ab + b^2 is off by up to 0.1 here,
    # their squared distances are below 0.02.
    steps = np.array([0, 5, 1, 9, 2, 8])
    pool = np.full((6, 3), 1000, np.float32)
    pool[:, 1] += steps / 64
    found = greedy(pool, pool[:1], 3)
    assert steps[found.order].tolist() == [9, 5, 2]
    np.testing.assert_array_equal(found.distances * 64, [9, 4, 2])
    np.testing.assert_array_equal(found.nearest * 64, steps)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_whose_squares_leave_float32_do_no_harm(scale):
    pool, centres, ids = example()
    plain = greedy(pool, centres, 12, ids)
    scaled = greedy(pool * np.float32(scale), centres * np.float32(scale), 12, ids)
    np.testing.assert_array_equal(scaled.order, plain.order)
    np.testing.assert_allclose(scaled.distances / scale, plain.distances, rtol=1e-5)


def test_one_huge_number_hides_no_distances_of_others():
    pool, centres, ids = example()
    pool = pool.copy()
    pool[7] = 1e25
    found = greedy(pool, centres, 12, ids)
    order, distances, _ = slow_greedy(pool, centres, 12, ids)
    assert order[0] == 7 and found.order.tolist() == order
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


def test_the_loop_is_compiled_once_a_budget_and_holds_no_matrix_of_distances():
    mesh = small.mesh(1)
    assert kcenter.choice(mesh, 30) is kcenter.choice(mesh, 30)
    rows, features, labelled = 4096, 8, 4096
    blocks = np.zeros((rows // 64, features, 64), np.float32)
    padding = np.zeros((rows // 64, 64), bool)
    centres = np.zeros((labelled, features), np.float32)
    nearest = np.zeros((rows // 64, 64), np.float32)
    for lowered in (
        kcenter.approach(mesh).lower(centres, blocks, nearest),
        kcenter.choice(mesh, 30).lower((blocks, padding), nearest),
    ):
        # A few times the pool itself, far below 4 rows * labelled bytes.
        taken = lowered.compile().memory_analysis().temp_size_in_bytes
        assert taken < 6 * blocks.nbytes < 4 * rows * labelled / 10


@pytest.mark.parametrize("devices", [1, 8])
def test_centres_beyond_a_size_are_taken_in_blocks(devices, monkeypatch):
    pool, _, ids = example()
    centres = np.random.default_rng(3).standard_normal((11, 5), np.float32)
    whole = greedy(pool, centres, 12, ids, devices)
    monkeypatch.setattr(kcenter, "CENTRES_AT_ONCE", 4)
    blocks = greedy(pool, centres, 12, ids, devices)
    for name in ("order", "distances", "nearest"):
        np.testing.assert_array_equal(getattr(blocks, name), getattr(whole, name))


BAD = {
    "shapes": (dict(centres=np.zeros((2, 3))), r"\(4, 2\) and \(2, 3\)"),
    "no centres": (dict(centres=np.zeros((0, 2))), "Label some at random first"),
    "no budget": (dict(budget=0), r"budget=0 must be from 1 to the pool's 4"),
    "too much": (dict(budget=5), r"budget=5 must be from 1 to the pool's 4"),
    "ids twice": (dict(ids=np.array([1, 2, 2, 3])), "4 distinct numbers, got 3"),
    "chunk": (dict(chunk=0), "chunk=0 must be at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_covered_is_refused(name):
    changes, message = BAD[name]
    arguments = {"pool": np.zeros((4, 2)), "centres": np.zeros((1, 2)), "budget": 1}
    with pytest.raises(ValueError, match=message):
        greedy(**{**arguments, **changes})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers_are_named(value):
    pool, centres, ids = example()
    pool = pool.copy()
    pool[[3, 7]] = value
    named = re.escape(f"2 of 30 examples (pool) is NaN or infinite: id {ids[3]}, id ")
    with pytest.raises(FloatingPointError, match=named):
        greedy(pool, centres, 1, ids)
    with pytest.raises(FloatingPointError, match=r"\(centres\) .*: id 0, id 1.* 20 "):
        greedy(centres, np.full((30, 5), value), 1)
