"""Local peaks and posteriors of heatmaps: slow searches, goldens, gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.tasks.pose import heatmaps
from tests.tasks.pose.test_heatmaps import CROP, PEAK, everyone, render

# Local peaks.


def test_places_are_recorded_where_a_peak_was_found():
    positions = jnp.array([[[3, 4], [0, 0]], [[0, 0], [0, 0]]])
    found = jnp.array([[True, False], [False, False]])
    kept = heatmaps.recorded_positions(positions, found)
    assert kept.dtype == jnp.int16
    assert kept.tolist() == [[[3, 4], [-1, -1]], [[-1, -1], [-1, -1]]]


@functools.partial(
    jax.jit, static_argnames=("count", "distance", "threshold", "border")
)
def peaks_of(maps, count=5, distance=5, threshold=None, border=0):
    return heatmaps.local_peaks(
        maps,
        num_peaks=count,
        min_distance=distance,
        threshold=threshold,
        exclude_border=border,
    )


def slow_peaks(heatmap, count, distance, threshold, border):
    """[(value, x, y)]: the strongest candidates, each away from all before it."""
    height, width = heatmap.shape
    floor = heatmap.min() if threshold is None else max(threshold, heatmap.min())
    candidates = []
    for y, x in itertools.product(range(height), range(width)):
        top, left = max(0, y - distance), max(0, x - distance)
        window = heatmap[top : y + distance + 1, left : x + distance + 1]
        edge = min(x, y, width - 1 - x, height - 1 - y)
        if heatmap[y, x] == window.max() and heatmap[y, x] > floor and edge >= border:
            candidates.append((heatmap[y, x], x, y))
    chosen = []
    for value, x, y in sorted(candidates, key=lambda c: -c[0]):  # stable
        if all(max(abs(x - a), abs(y - b)) > distance for _, a, b in chosen):
            chosen.append((value, x, y))
    return chosen[:count]


@pytest.mark.parametrize("threshold", [None, -9.0, 1.5])
@pytest.mark.parametrize(("distance", "border"), [(1, 0), (2, 1), (5, 0), (5, 5)])
@pytest.mark.parametrize("levels", [None, 3])
def test_peaks_are_those_of_the_slow_search(levels, distance, border, threshold):
    # With three levels nearly every pixel ties with a neighbour.
    draws = np.random.default_rng(distance)
    maps = draws.standard_normal((16, 12, 6)).astype(np.float32)
    if levels:
        maps = draws.integers(0, levels, maps.shape).astype(np.float32)
    values, positions, found = peaks_of(maps, 5, distance, threshold, border)
    assert values.dtype == np.float32 and positions.dtype == np.int32
    for joint in range(6):
        expected = slow_peaks(maps[..., joint], 5, distance, threshold, border)
        count = len(expected)
        assert found[joint].tolist() == [True] * count + [False] * (5 - count)
        rows = np.array(expected).reshape(-1, 3)
        np.testing.assert_array_equal(values[joint, :count], rows[:, 0])
        np.testing.assert_array_equal(positions[joint, :count], rows[:, 1:])
        assert not values[joint, count:].any()


def test_peaks_golden():
    # 7 at (x, y) = (2, 3) hides 6, two pixels beside it; 8, 5 and 4 stand alone, 4 on
    # the border.
    maps = np.zeros((12, 12, 1), np.float32)
    maps[3, 2], maps[3, 4], maps[8, 8], maps[0, 10], maps[9, 1] = 7, 6, 5, 4, 8
    values, positions, found = peaks_of(maps, 3, 2)
    assert values.tolist() == [[8, 7, 5]] and found.all()
    assert positions.tolist() == [[[1, 9], [2, 3], [8, 8]]]
    values, _, _ = peaks_of(maps, 5, 2, None, 1)
    assert values.tolist() == [[8, 7, 5, 0, 0]]
    values, _, _ = peaks_of(maps, 5, 2, 6.5)
    assert values.tolist() == [[8, 7, 0, 0, 0]]


@pytest.mark.parametrize("level", [0.0, -2.0, 3.0])
@pytest.mark.parametrize("threshold", [None, -10.0])
def test_a_constant_map_has_no_peak(level, threshold):
    values, positions, found = peaks_of(jnp.full((8, 8, 2), level), 5, 2, threshold)
    assert not found.any() and not values.any() and not positions.any()


def test_a_plateau_is_one_peak_and_a_wide_one_several():
    maps = np.zeros((12, 12, 2), np.float32)
    maps[4:6, 4:6, 0] = 3
    maps[2, 1:9, 1] = 3
    _, positions, found = peaks_of(maps, 5, 3)
    assert found.sum(axis=1).tolist() == [1, 2]
    assert positions[0, 0].tolist() == [4, 4]
    assert positions[1, :2].tolist() == [[1, 2], [5, 2]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_has_no_peaks_and_shows(value):
    maps = np.zeros((8, 8, 2), np.float32)
    maps[2, 2] = 1
    maps[5, 5, 0] = value
    values, _, found = peaks_of(maps, 2, 2)
    assert np.isnan(values[0]).all() and not found[0].any()
    assert values[1].tolist() == [1, 0] and found[1].tolist() == [True, False]


def test_drawn_joints_are_peaks():
    joints = np.float32([[41.5, 61.5], [201.5, 121.5]])  # heatmap (10, 15), (50, 30)
    both = render(joints, everyone(joints)).sum(axis=-1, keepdims=True)
    values, positions, found = peaks_of(both)
    assert found.tolist() == [[True, True, False, False, False]]
    assert positions[0, :2].tolist() == [[10, 15], [50, 30]]
    np.testing.assert_allclose(values[0, :2], PEAK)


# Posteriors.

KINDS = [("normalised", 1.0), ("softmax", 1.0), ("softmax", 7.5), ("window", 1.0)]
SIGMA = 4.0  # 7 pixels of a 64x64 map: of one of 6 or 4 pixels one about the highest
posterior, soft_argmax = (
    functools.partial(
        jax.jit(fn, static_argnames=("kind", "temperature", "sigma")), sigma=SIGMA
    )
    for fn in (heatmaps.posterior, heatmaps.soft_argmax)
)


@pytest.mark.parametrize(("kind", "temperature"), KINDS)
def test_posteriors_are_distributions(kind, temperature):
    draws = np.random.default_rng(0).standard_normal((6, 5, 3))
    maps = (30 * draws).astype(np.float32)
    found = posterior(maps, kind, temperature)
    wide = maps.astype(np.float64)
    weights = np.maximum(wide, 0)
    if kind == "window":
        y, x = np.unravel_index(wide.reshape(30, 3).argmax(axis=0), (6, 5))
        rows, columns = np.indices((6, 5))[..., None]
        weights = weights * ((abs(rows - y) <= 1) & (abs(columns - x) <= 1))
    if kind == "softmax":
        weights = np.exp((wide - wide.max(axis=(0, 1))) / temperature)
    expected = weights / weights.sum(axis=(0, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    rows, columns = np.indices((6, 5))[:, :, :, None]
    x, y = (np.sum(expected * grid, axis=(0, 1)) for grid in (columns, rows))
    joints = soft_argmax(maps, kind, temperature)
    np.testing.assert_allclose(joints, np.stack([x, y], axis=1), rtol=1e-4)


@pytest.mark.parametrize(("kind", "atol"), [("normalised", 1e-3), ("window", 0.03)])
def test_soft_argmax_finds_a_drawn_joint_between_pixels(kind, atol):
    joints = np.float32([[100.0, 150.0], [61.7, 133.1]])
    found = heatmaps.soft_argmax(render(joints, everyone(joints)), kind)
    on_map = heatmaps.crop_to_heatmap(joints, CROP, 64)
    np.testing.assert_allclose(found, on_map, atol=atol)


def test_a_window_round_the_peak_measures_the_joint_not_the_background():
    # A peak of 30 at x = 10 on a background of 0.05: a quarter of the whole map's
    # weight is background, which has the mean and the variance.
    rows, columns = np.indices((64, 64), np.float32)
    bell = 30 * np.exp(-((columns - 10) ** 2 + (rows - 32) ** 2) / 2 / 1.75**2)
    maps = (bell + 0.05)[..., None]
    moments = {}
    for kind in ("normalised", "window"):
        x = heatmaps.soft_argmax(maps, kind)[0, 0]
        shares = heatmaps.posterior(maps, kind)[..., 0].sum(axis=0)
        variance = (shares * (np.arange(64) - x) ** 2).sum()
        moments[kind] = (float(x), float(variance))
    assert moments["normalised"] == pytest.approx((15.6, 181), rel=0.01)
    assert moments["window"] == pytest.approx((10, 3.06), rel=0.03)


@functools.partial(jax.jit, static_argnames=("kind", "temperature"))
def gradients(maps, kind, temperature):
    """Gradient of something that depends on all of a posterior, and that one's."""

    def spread(maps):
        joints = heatmaps.soft_argmax(maps, kind, temperature, SIGMA)
        weights = heatmaps.posterior(maps, kind, temperature, SIGMA)
        return jnp.sum(jnp.square(joints)) + jnp.sum(jnp.square(weights))

    first = jax.grad(spread)
    return first(maps), jax.grad(lambda maps: jnp.sum(first(maps)))(maps)


SPECIAL = {
    "zero": np.zeros((4, 6)),
    "negative": -np.arange(24.0).reshape(4, 6),
    "constant": np.full((4, 6), 3.0),
    "tiny": np.full((4, 6), 1e-39),
    "one pixel": np.eye(4, 6) * np.eye(4)[0][:, None] * 30,
    "large": np.arange(24.0).reshape(4, 6) * 1e4,
}


@pytest.mark.parametrize(("kind", "temperature"), KINDS)
@pytest.mark.parametrize("name", SPECIAL)
def test_gradients_of_posteriors_are_finite(name, kind, temperature):
    maps = jnp.asarray(SPECIAL[name], jnp.float32)[..., None]
    found = posterior(maps, kind, temperature)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    uniform = {"zero", "tiny"} | ({"constant"} if kind != "window" else set())
    uniform |= {"negative"} if kind != "softmax" else set()
    if name in uniform:
        np.testing.assert_allclose(found, 1 / 24, rtol=1e-5)
        np.testing.assert_allclose(
            soft_argmax(maps, kind, temperature), [[2.5, 1.5]], rtol=1e-5
        )

    first, second = gradients(maps, kind, temperature)
    assert np.isfinite(first).all() and np.isfinite(second).all()


@pytest.mark.parametrize(("kind", "temperature"), KINDS)
def test_the_gradient_of_soft_argmax_is_that_of_differences(kind, temperature):
    # Away from 0, where the positive part has a kink.
    draws = np.random.default_rng(3).uniform(0.5, 2, (4, 5, 1))
    maps = (draws * np.sign(np.random.default_rng(4).normal(size=(4, 5, 1)))).astype(
        np.float32
    )

    @jax.jit
    def x(maps):
        return heatmaps.soft_argmax(maps, kind, temperature)[0, 0]

    gradient = np.asarray(jax.jit(jax.grad(x))(maps))
    for index in ((0, 0, 0), (1, 2, 0), (3, 4, 0)):
        step = np.zeros_like(maps)
        step[index] = 0.05
        difference = (x(maps + step) - x(maps - step)) / 0.1
        np.testing.assert_allclose(gradient[index], difference, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(("kind", "temperature"), KINDS)
def test_nan_goes_through_a_posterior(kind, temperature):
    maps = np.zeros((4, 4, 2), np.float32)
    maps[1, 1, 0] = np.nan
    joints = soft_argmax(maps, kind, temperature)
    assert np.isnan(joints[0]).all() and np.isfinite(joints[1]).all()


def test_peaks_and_posteriors_keep_to_strict_promotion():
    maps = np.ones((8, 8, 2), jnp.bfloat16)
    maps[2, 3] = 4
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert peaks_of(maps, 2, 2, 0.5)[0].dtype == jnp.float32
        for kind in heatmaps.POSTERIORS:
            assert soft_argmax(maps, kind).dtype == jnp.float32


def test_errors_of_peaks_and_posteriors():
    maps = jnp.zeros((8, 8, 1))
    with pytest.raises(ValueError, match="num_peaks=0 and min_distance=5 must be at"):
        peaks_of(maps, 0)
    with pytest.raises(ValueError, match="min_distance=0 must be at least 1"):
        peaks_of(maps, 5, 0)
    with pytest.raises(ValueError, match="exclude_border=-1 at least 0"):
        peaks_of(maps, 5, 5, None, -1)
    with pytest.raises(ValueError, match=r"kind='sum'. Known: window, normalised"):
        heatmaps.posterior(maps, "sum")
    with pytest.raises(ValueError, match="temperature=0 must be above 0"):
        heatmaps.soft_argmax(maps, "softmax", 0)
