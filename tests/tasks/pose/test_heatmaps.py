"""Heatmaps: hand goldens, a slow oracle, and what must hold for any joint."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalpose.tasks.pose import heatmaps

SIGMA, PEAK, CROP = 1.75, 30.0, 256
quick = settings(derandomize=True, deadline=None, max_examples=25)


@functools.partial(jax.jit, static_argnames=("crop_size", "heatmap_size"))
def render(joints, present, crop_size=CROP, heatmap_size=64):
    return heatmaps.render_heatmaps(
        joints,
        present,
        crop_size=crop_size,
        heatmap_size=heatmap_size,
        sigma=SIGMA,
        peak=PEAK,
    )


@functools.partial(jax.jit, static_argnames=("crop_size", "refine"))
def decode(maps, crop_size=CROP, refine="parabola"):
    return heatmaps.decode_heatmaps(
        maps, crop_size=crop_size, sigma=SIGMA, refine=refine
    )


def everyone(joints):
    return np.ones(len(joints), bool)


def joints_strategy(low, high, count=3):
    coordinate = st.floats(low, high, width=32)
    pair = st.tuples(coordinate, coordinate)
    return st.lists(pair, min_size=count, max_size=count).map(
        lambda pairs: np.array(pairs, np.float32)
    )


def test_pixel_centres_are_aligned():
    # stride 4: heatmap pixel 0 covers crop pixels 0..3, whose centre is 1.5;
    # pixel 63 covers 252..255, centre 253.5.
    crop = np.array([(1.5, 253.5), (5.5, 1.5)])
    heatmap = np.array([(0.0, 63.0), (1.0, 0.0)])
    assert np.array_equal(heatmaps.crop_to_heatmap(crop, 256, 64), heatmap)
    assert np.array_equal(heatmaps.heatmap_to_crop(heatmap, 256, 64), crop)


def test_render_golden():
    # 8x8 map of a 32 px crop: sigma = 1.75 * 8 / 64 = 0.21875 heatmap px. The joint
    # (9.5, 13.5) is heatmap (x, y) = ((9.5 - 1.5) / 4, (13.5 - 1.5) / 4) = (2, 3).
    maps = render(np.float32([[9.5, 13.5]]), everyone([0]), 32, 8)
    assert maps.shape == (8, 8, 1)
    assert maps.dtype == jnp.float32
    assert maps[3, 2, 0] == 30  # row y, column x
    beside = 30 * math.exp(-0.5 / 0.21875**2)  # one pixel off
    np.testing.assert_allclose(maps[3, 3, 0], beside, rtol=1e-5)
    np.testing.assert_allclose(maps[4, 2, 0], beside, rtol=1e-5)


@pytest.mark.parametrize("size", [64, 32, 16])
def test_render_matches_slow_loop(size):
    joints = np.array([[100.3, 31.9], [-6.0, 250.0], [np.nan, 7.0]])
    present = np.array([True, True, False])
    expected = np.zeros((size, size, 3))
    sigma, stride = SIGMA * size / 64, CROP / size
    for joint in range(2):
        x, y = (joints[joint] - (stride - 1) / 2) / stride
        for row in range(size):
            for column in range(size):
                sq_distance = (column - x) ** 2 + (row - y) ** 2
                expected[row, column, joint] = PEAK * math.exp(
                    -sq_distance / 2 / sigma**2
                )
    maps = render(joints.astype(np.float32), present, CROP, size)
    np.testing.assert_allclose(maps, expected, atol=2e-4)


def test_cut_off_window_would_differ_by_less_than_stated():
    # Centres 25 to 25.5 on the map, in an 11x11 window round pixel (25, 25): the next
    # pixel is at most 5.5 away, where the value is exp(-5.5^2 / 2 / 1.75^2) = 0.716 %.
    joints = np.float32([[101.5 + 4 * part, 101.5] for part in np.linspace(0, 0.5, 9)])
    maps = np.array(render(joints, everyone(joints)))
    maps[20:31, 20:31] = 0
    np.testing.assert_allclose(maps.max(), 0.00716 * PEAK, rtol=1e-3)


@jax.jit
def of_the_sum(joints, present):
    slope = jax.grad(lambda joints: jnp.sum(render(joints, present)[:20] ** 2))
    return slope(joints)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -1e30])
def test_absent_joints_leave_no_trace(garbage):
    joints = np.float32([[100.0, 90.0], [garbage, garbage]])
    present = np.array([True, False])
    maps = np.asarray(render(joints, present))
    assert np.isfinite(maps).all()
    assert not maps[..., 1].any()
    np.testing.assert_array_equal(maps[..., :1], render(joints[:1], present[:1]))
    gradient = of_the_sum(joints, present)
    assert np.isfinite(gradient).all()
    assert not gradient[1].any()
    assert gradient[0].all()


@pytest.mark.parametrize("size", [64, 32, 16])
@quick
@given(joints=joints_strategy(40, 215))
def test_parabola_finds_interior_joints(size, joints):
    maps = render(joints, everyone(joints), CROP, size)
    decoded, values = decode(maps)
    error = np.abs(np.asarray(decoded) - joints) * size / CROP
    assert error.max() < 0.01
    on_map = heatmaps.crop_to_heatmap(joints.astype(np.float64), CROP, size)
    sq_distances = ((on_map - np.rint(on_map)) ** 2).sum(axis=1)  # to the next pixel
    expected = PEAK * np.exp(-sq_distances / 2 / (SIGMA * size / 64) ** 2)
    np.testing.assert_allclose(values, expected, rtol=1e-3)


@pytest.mark.parametrize(("refine", "bound"), [("mass", 0.246), ("none", 0.5)])
@quick
@given(joints=joints_strategy(40, 215))
def test_other_refinements_stay_within_their_bias(refine, bound, joints):
    decoded, _ = decode(render(joints, everyone(joints)), refine=refine)
    assert np.abs(np.asarray(decoded) - joints).max() / 4 < bound + 1e-4


def test_mass_pulls_by_a_quarter_pixel_as_stated():
    # Half a pixel off the peak (101.5 is heatmap 25): 25.49 reads as 25.2487.
    joints = np.float32([[101.5 + 4 * 0.49, 101.5]])
    decoded, _ = decode(render(joints, everyone(joints)), refine="mass")
    weights = np.exp(-((np.arange(-2, 3) - 0.49) ** 2) / 2 / SIGMA**2)
    seen = weights @ np.arange(-2, 3) / weights.sum()
    np.testing.assert_allclose(decoded[0], [101.5 + 4 * seen, 101.5], atol=1e-3)
    assert 0.23 < 0.49 - seen < 0.25


def test_mass_golden():
    # Radius ceil(1.75 * 8 / 64) = 1. Peak 3 at (x, y) = (0, 2) on the border, 1 to its
    # right, -5 above (ignored), 9 three to the left of nothing: x = 1 / 4, y = 0.
    maps = np.zeros((8, 8, 1), np.float32)
    maps[2, 0], maps[2, 1], maps[1, 0], maps[2, 2] = 3, 1, -5, 2.9
    decoded, values = decode(maps, 32, "mass")
    np.testing.assert_allclose(decoded[0], [0.25 * 4 + 1.5, 2 * 4 + 1.5])
    assert values[0] == 3


def test_parabola_golden():
    # logs along x: 0, 2, 1: vertex 0.5 (0 - 1) / (0 - 4 + 1) = 1/6; y: 1, 2, 1: 0.
    maps = np.full((8, 8, 1), 0.1, np.float32)
    maps[4, 2:5, 0] = np.exp([0, 2, 1])
    maps[3:6, 3, 0] = np.exp([1, 2, 1])
    decoded, values = decode(maps, 8)
    np.testing.assert_allclose(decoded[0], [3 + 1 / 6, 4], rtol=1e-6)
    np.testing.assert_allclose(values[0], math.exp(2), rtol=1e-6)


def test_parabola_falls_back_to_the_pixel():
    maps = np.zeros((8, 8, 3), np.float32)
    maps[0, 3, 0], maps[0, 4, 0], maps[0, 2, 0] = 4, 2, 2  # border in y, even in x
    maps[5, 5, 1], maps[5, 6, 1] = 4, -1  # neighbours not positive
    maps[..., 2] = 7  # flat: the first pixel, no curvature
    decoded, _ = decode(maps, 8)
    np.testing.assert_array_equal(decoded, [[3, 0], [5, 5], [0, 0]])


def test_ties_go_to_the_first_in_reading_order():
    maps = np.zeros((8, 8, 1), np.float32)
    maps[2, 6], maps[3, 1] = 1, 1
    np.testing.assert_array_equal(decode(maps, 8, "none")[0], [[6, 2]])


@pytest.mark.parametrize("refine", heatmaps.REFINEMENTS)
@pytest.mark.parametrize("level", [0.0, -2.0])
def test_empty_map_decodes_without_nan(refine, level):
    maps = np.full((8, 8, 2), level, np.float32)
    decoded, values = decode(maps, 32, refine)
    np.testing.assert_array_equal(decoded, np.full((2, 2), 1.5))
    np.testing.assert_array_equal(values, np.full(2, level))
    gradient = jax.jit(jax.grad(lambda m: decode(m, 32, refine)[0].sum()))(maps)
    assert np.isfinite(gradient).all()


def test_nan_map_shows_in_its_value_alone():
    maps = np.zeros((8, 8, 2), np.float32)
    maps[3, 3, 0], maps[4, 4, 1] = np.nan, 1
    decoded, values = decode(maps, 8)
    assert np.isnan(values[0])
    np.testing.assert_array_equal(decoded[1], [4, 4])


@quick
@given(joints=joints_strategy(-20, 275))
def test_flipping_joints_flips_maps(joints):
    flipped = joints * [-1, 1] + [CROP - 1, 0]
    maps = render(joints, everyone(joints))
    mirrored = render(flipped.astype(np.float32), everyone(joints))
    np.testing.assert_allclose(mirrored, maps[:, ::-1], atol=1e-3)


def test_vmap_equals_one_by_one():
    joints = np.random.default_rng(0).uniform(40, 215, (3, 4, 2)).astype(np.float32)
    present = np.arange(12).reshape(3, 4) % 5 > 0
    maps = np.asarray(jax.jit(jax.vmap(render))(joints, present))
    decoded, values = jax.jit(jax.vmap(decode))(maps)
    for example in range(3):
        alone = render(joints[example], present[example])
        np.testing.assert_allclose(maps[example], alone, rtol=1e-6)
        one, value = decode(alone)
        np.testing.assert_allclose(decoded[example], one, rtol=1e-5)
        np.testing.assert_allclose(values[example], value, rtol=1e-6)


def test_strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        maps = render(np.float32([[9.0, 13.0]]), everyone([0]), 16, 8)
        maps = np.asarray(maps).astype(jnp.bfloat16)
        for refine in heatmaps.REFINEMENTS:
            joints, _ = decode(maps, 16, refine)
            assert joints.dtype == jnp.float32


def test_errors():
    with pytest.raises(ValueError, match=r"crop_size=100 must be a multiple.*64"):
        render(jnp.zeros((1, 2)), everyone([0]), 100, 64)
    with pytest.raises(ValueError, match=r"refine='quarter'. Known: parabola, mass"):
        decode(jnp.zeros((8, 8, 1)), 32, "quarter")
    with pytest.raises(ValueError, match="square, got 8 x 4"):
        decode(jnp.zeros((8, 4, 1)), 32)
