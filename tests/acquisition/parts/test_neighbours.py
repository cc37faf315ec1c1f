"""Perplexity calibration: brentq as the oracle, hard embeddings, ties, errors."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jalpose.acquisition.parts import neighbours

quick = settings(derandomize=True, deadline=None, max_examples=25)


def sq_distances(seed, rows=6, labelled=150, dim=8):
    rng = np.random.default_rng(seed)
    pool, known = rng.normal(size=(rows, dim)), rng.normal(size=(labelled, dim))
    return ((pool[:, None] - known[None]) ** 2).sum(axis=-1)


def half_normal(rows, labelled, dim, offset):
    """Non-negative features; the pool's are off by `offset` standard units."""
    rng = np.random.default_rng(0)
    pool = np.abs(rng.normal(size=(rows, dim))) + offset
    return pool, np.abs(rng.normal(size=(labelled, dim)))


def solve(row, perplexity):
    """The probabilities of one row, by an independent root finder."""

    def excess(log_precision):
        p = scipy.special.softmax(-math.exp(log_precision) * row)
        return scipy.stats.entropy(p) - math.log(perplexity)

    root = scipy.optimize.brentq(excess, -30, 30, xtol=1e-14)
    return scipy.special.softmax(-math.exp(root) * row)


def unshifted_search(sq, perplexity):
    """Bisection in sigma without the row minimum, terms clamped: what to avoid."""
    low, high = np.zeros(len(sq)), np.full(len(sq), 5 * sq.max())
    for _ in range(101):
        sigma = (low + high) / 2
        u = np.clip(np.exp(-sq / (2 * sigma[:, None] ** 2)), 1e-20, 1)
        q = u / u.sum(axis=1, keepdims=True)
        achieved = np.exp(scipy.stats.entropy(q, axis=1))
        high = np.where(achieved > perplexity, sigma, high)
        low = np.where(achieved < perplexity, sigma, low)
    return achieved


def test_golden():
    # Distances 0 and 1, p = (1 - e, e) with e = 1 / (1 + exp(b)). For b = ln 3:
    # p = (3/4, 1/4), H = ln 4 - 3/4 ln 3, perplexity 4 / 3^(3/4) = 1.75477.
    p, achieved = neighbours.calibrate(np.array([[0.0, 1.0]]), 4 / 3**0.75)
    np.testing.assert_allclose(p, [[0.75, 0.25]], atol=1e-4)
    np.testing.assert_allclose(achieved, 4 / 3**0.75, rtol=1e-5)


@pytest.mark.parametrize("perplexity", [1.5, 5.0, 20.0, 75.33, 149.0])
def test_matches_brentq(perplexity):
    sq = sq_distances(1)
    p, achieved = neighbours.calibrate(sq, perplexity, tolerance=1e-12)
    np.testing.assert_allclose(achieved, perplexity, rtol=1e-12)
    np.testing.assert_allclose(p, [solve(row, perplexity) for row in sq], atol=1e-9)


@quick
@given(
    seed=st.integers(0, 1000),
    perplexity=st.floats(1.001, 149.9),
    dim=st.sampled_from([1, 2, 16, 200]),
)
def test_achieves_a_true_perplexity(seed, perplexity, dim):
    p, achieved = neighbours.calibrate(sq_distances(seed, dim=dim), perplexity)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    true = np.exp(scipy.stats.entropy(p, axis=1))
    np.testing.assert_allclose(achieved, true, rtol=1e-9)
    np.testing.assert_allclose(true, perplexity, rtol=1.01e-5)
    assert neighbours.is_converged(achieved, perplexity).all()


@quick
@given(
    seed=st.integers(0, 1000), shift=st.floats(-1e3, 1e3), log_scale=st.floats(-60, 60)
)
def test_shift_and_scale_of_a_row_change_nothing(seed, shift, log_scale):
    sq = sq_distances(seed)
    p, _ = neighbours.calibrate(sq, 20.0)
    shifted, _ = neighbours.calibrate(sq + shift, 20.0)
    np.testing.assert_allclose(shifted, p, atol=1e-10)
    scaled, _ = neighbours.calibrate(sq * math.exp(log_scale), 20.0)
    np.testing.assert_allclose(scaled, p, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("labelled", [1000, 3000])
@pytest.mark.parametrize("dim", [64, 256])
def test_converges_on_hard_embeddings(dim, labelled, offset):
    pool, known = half_normal(16, labelled, dim, offset)
    found = neighbours.nearest_labels(pool, known, perplexity=20.0, num_neighbours=30)
    assert found.converged.all()
    np.testing.assert_allclose(found.achieved_perplexity, 20, rtol=1.01e-5)
    assert (found.captured_mass > 0.5).all()


def test_hard_embeddings_are_hard():
    """Without the row minimum every row of the shifted 256-d case collapses."""
    pool, known = half_normal(16, 1000, 256, 1.0)
    sq = ((pool[:, None] - known[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(unshifted_search(sq, 20.0), 1000)


def test_published_twenty_is_really_75():
    perplexity = math.exp(math.log2(20))
    assert round(perplexity, 2) == 75.33
    p, _ = neighbours.calibrate(sq_distances(2), perplexity)
    np.testing.assert_allclose(2 ** scipy.stats.entropy(p, axis=1), 20, rtol=1e-5)


def test_too_many_ties_are_reported():
    sq = np.full((4, 40), 9.0)
    sq[0, :25] = 4  # 25 tied for the nearest: no perplexity below 25
    sq[1, :15] = 4  # 15 tied: 20 can be had
    sq[2, ::2] = 4  # 20 tied: exactly the limit
    p, achieved = neighbours.calibrate(sq, 20.0)  # row 3: all equal
    np.testing.assert_allclose(achieved, [25, 20, 20, 40], rtol=1e-5)
    reached = neighbours.is_converged(achieved, 20.0)
    np.testing.assert_array_equal(reached, [False, True, True, False])
    np.testing.assert_allclose(p[0], np.r_[np.full(25, 1 / 25), np.zeros(15)])
    np.testing.assert_allclose(p[3], 1 / 40)
    assert np.ptp(p[1, :15]) == 0


def test_too_few_steps_are_reported():
    _, achieved = neighbours.calibrate(sq_distances(3), 20.0, max_steps=3)
    assert not neighbours.is_converged(achieved, 20.0).all()


@pytest.mark.parametrize("perplexity", [1.0, 1.0001, 149.99, 149.9999])
def test_extreme_targets(perplexity):
    p, achieved = neighbours.calibrate(sq_distances(4), perplexity)
    np.testing.assert_allclose(achieved, perplexity, rtol=1.01e-5)
    assert np.isfinite(p).all()


def test_near_duplicates_of_many_scales():
    # Distances from 1e-30 to 1e30 in one row: log b must travel far.
    sq = np.r_[0.0, np.logspace(-30, 30, 61)][None]
    _, achieved = neighbours.calibrate(sq, 5.0)
    np.testing.assert_allclose(achieved, 5, rtol=1e-5)


def test_neighbours_golden():
    # Labelled at 0, 3, 1, 3 on a line, seen from 0: squared distances 0, 9, 1, 9.
    known = np.array([[0.0], [3.0], [1.0], [3.0]])
    found = neighbours.nearest_labels(
        np.zeros((1, 1)), known, perplexity=2.0, num_neighbours=3
    )
    expected = solve(np.array([0.0, 9.0, 1.0, 9.0]), 2.0)[[0, 2, 1]]
    np.testing.assert_array_equal(found.indices, [[0, 2, 1]])  # of the tied, the first
    assert found.indices.dtype == np.int64
    np.testing.assert_allclose(found.captured_mass, expected.sum(), rtol=1e-4)
    np.testing.assert_allclose(
        found.probabilities[0], expected / expected.sum(), rtol=1e-3
    )


def test_renormalising_is_an_option():
    pool, known = half_normal(5, 200, 16, 0.0)
    options = {"perplexity": 50.0, "num_neighbours": 30}
    whole = neighbours.nearest_labels(pool, known, **options)
    raw = neighbours.nearest_labels(pool, known, **options, renormalise=False)
    np.testing.assert_allclose(whole.probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(raw.probabilities.sum(axis=1), raw.captured_mass)
    assert (raw.captured_mass < 0.9).all()
    np.testing.assert_array_equal(whole.captured_mass, raw.captured_mass)
    assert (np.diff(raw.probabilities, axis=1) <= 0).all()


@quick
@given(block_rows=st.integers(1, 25), dim=st.sampled_from([3, 64]))
def test_block_size_changes_nothing(block_rows, dim):
    pool, known = half_normal(20, 60, dim, 0.3)
    options = {"perplexity": 10.0, "num_neighbours": 5}
    whole = neighbours.nearest_labels(pool, known, **options)
    blocks = neighbours.nearest_labels(pool, known, **options, block_rows=block_rows)
    for field in ("indices", "probabilities", "achieved_perplexity", "captured_mass"):
        np.testing.assert_array_equal(getattr(blocks, field), getattr(whole, field))


def test_labelled_sets_of_any_size_are_taken_in_blocks(monkeypatch):
    pool, known = half_normal(20, 60, 8, 0.3)
    options = {"perplexity": 10.0, "num_neighbours": 5}
    whole = neighbours.nearest_labels(pool, known, **options)
    monkeypatch.setattr(neighbours, "LABELLED_ROWS", 7)
    monkeypatch.setattr(neighbours, "BLOCK_VALUES", 3 * 60 + 1)
    shapes, calibrate = [], neighbours.calibrate

    def seen(sq_distances, perplexity):
        shapes.append(sq_distances.shape)
        return calibrate(sq_distances, perplexity)

    monkeypatch.setattr(neighbours, "calibrate", seen)
    blocks = neighbours.nearest_labels(pool, known, **options)
    assert set(shapes) == {(3, 60), (2, 60)}
    for field in ("indices", "probabilities", "achieved_perplexity", "captured_mass"):
        np.testing.assert_array_equal(getattr(blocks, field), getattr(whole, field))


def test_order_of_the_pool_and_of_the_labelled_changes_nothing():
    pool, known = half_normal(10, 60, 8, 0.0)
    options = {"perplexity": 10.0, "num_neighbours": 5}
    plain = neighbours.nearest_labels(pool, known, **options)
    order = np.random.default_rng(1).permutation(60)
    mixed = neighbours.nearest_labels(pool[::-1], known[order], **options)
    np.testing.assert_array_equal(order[mixed.indices[::-1]], plain.indices)
    np.testing.assert_allclose(mixed.probabilities[::-1], plain.probabilities)


def test_float32_and_empty_pools():
    pool, known = half_normal(4, 60, 8, 0.0)
    options = {"perplexity": 10.0, "num_neighbours": 5}
    single = neighbours.nearest_labels(
        pool.astype(np.float32), known.astype(np.float32), **options
    )
    assert single.probabilities.dtype == np.float64
    assert single.converged.all()
    empty = neighbours.nearest_labels(pool[:0], known, **options)
    assert empty.indices.shape == (0, 5)


@pytest.mark.parametrize("perplexity", [0.5, 60.0, 75.33, float("nan")])
def test_unreachable_perplexity(perplexity):
    message = rf"perplexity={perplexity} is unreachable with 60 .* label more"
    with pytest.raises(ValueError, match=message):
        neighbours.calibrate(np.ones((2, 60)), perplexity)
    with pytest.raises(ValueError, match=message):
        neighbours.nearest_labels(
            np.ones((0, 3)), np.ones((60, 3)), perplexity=perplexity, num_neighbours=5
        )


def test_errors():
    pool, known = half_normal(4, 60, 8, 0.0)
    options = {"perplexity": 10.0, "num_neighbours": 5}
    with pytest.raises(ValueError, match=r"num_neighbours=61 .* 60 labelled"):
        neighbours.nearest_labels(pool, known, perplexity=10.0, num_neighbours=61)
    with pytest.raises(ValueError, match=r"num_neighbours=0 .* 60 labelled"):
        neighbours.nearest_labels(pool, known, perplexity=10.0, num_neighbours=0)
    with pytest.raises(ValueError, match=r"block_rows=0"):
        neighbours.nearest_labels(pool, known, **options, block_rows=0)
    with pytest.raises(ValueError, match=r"got \(4, 8\) and \(60, 7\)"):
        neighbours.nearest_labels(pool, known[:, :7], **options)
    known[7, 3] = np.nan
    with pytest.raises(ValueError, match="Row 7 of the labelled embeddings"):
        neighbours.nearest_labels(pool, known, **options)
    sq = sq_distances(0)
    sq[2, 5] = np.inf
    with pytest.raises(ValueError, match="Row 2 of the distances is not finite"):
        neighbours.calibrate(sq, 10.0)
    with pytest.raises(ValueError, match=r"max_steps=0 must be at least 1"):
        neighbours.calibrate(sq_distances(0), 10.0, max_steps=0)
