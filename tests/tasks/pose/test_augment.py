"""Augmentation: image and joints move together, within the ranges asked for."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jalpose.loop import configs
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose import augment, counting
from jalpose.tasks.pose.augment import Ranges
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED, VISIBLE
from jalpose.tasks.pose.task import make_task
from tests.support import small

SIZE = 64
CENTRE = (SIZE - 1) / 2
EVERYTHING = Ranges((0.75, 1.25), 45.0, 0.2, 0.5, 0.3, 0.4, 0.5)


# Compiled once for all ranges, though the package has them static.
@jax.jit
def run(key, image, joints, status, ranges):
    return augment.augment(key, image, joints, status, ranges=ranges, mirror=LSP.mirror)


@jax.jit
def run_many(keys, image, joints, status, ranges):
    return jax.vmap(lambda key: run(key, image, joints, status, ranges))(keys)


warp = jax.jit(augment.warp)


def example(seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    image = rng.random((size, size, 3), np.float32)
    joints = rng.uniform(0, size - 1, (14, 2)).astype(np.float32)
    status = rng.choice([VISIBLE, OCCLUDED, ABSENT], 14).astype(np.int8)
    return image, joints, status


def blob(joint, sigma=2.5, size=SIZE):
    rows, cols = np.mgrid[:size, :size]
    squared = (cols - joint[0]) ** 2 + (rows - joint[1]) ** 2
    grey = np.exp(-0.5 * squared / sigma**2).astype(np.float32)
    return np.repeat(grey[..., None], 3, axis=-1)


def centroid(image):
    weights = np.asarray(image)[..., 0].astype(np.float64)
    rows, cols = np.mgrid[: len(weights), : len(weights)]
    return np.array([(weights * cols).sum(), (weights * rows).sum()]) / weights.sum()


def test_ranges_that_allow_nothing_change_nothing():
    image, joints, status = example()
    got = run(jax.random.key(0), image, joints, status, Ranges())
    np.testing.assert_allclose(got[0], image, atol=1e-6)
    np.testing.assert_allclose(got[1], joints, atol=1e-4)
    assert np.array_equal(got[2], status)
    assert got[0].dtype == got[1].dtype == np.float32
    assert got[2].dtype == np.int8


def test_a_flip_mirrors_the_image_and_exchanges_left_and_right():
    image, joints, status = example()
    left, right = LSP.joints.index("left wrist"), LSP.joints.index("right wrist")
    status[left], status[right] = ABSENT, VISIBLE
    got = run(jax.random.key(0), image, joints, status, Ranges(flip=1.0))
    np.testing.assert_allclose(got[0], image[:, ::-1], atol=1e-6)
    x, y = joints[right]
    np.testing.assert_allclose(got[1][left], [SIZE - 1 - x, y], atol=1e-4)
    assert (got[2][left], got[2][right]) == (VISIBLE, ABSENT)
    head = LSP.joints.index("head")
    x, y = joints[head]
    np.testing.assert_allclose(got[1][head], [SIZE - 1 - x, y], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_two_flips_are_none(seed):
    image, joints, status = example(seed)
    once = run(jax.random.key(seed), image, joints, status, Ranges(flip=1.0))
    twice = run(jax.random.key(seed + 9), *once, Ranges(flip=1.0))
    np.testing.assert_allclose(twice[0], image, atol=1e-6)
    np.testing.assert_allclose(twice[1], joints, atol=1e-4)
    assert np.array_equal(twice[2], status)


@given(
    radius=st.floats(0, 8),
    direction=st.floats(-np.pi, np.pi),
    factor=st.floats(0.75, 1.25),
    angle=st.floats(-np.pi, np.pi),
    shift=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
)
def test_a_blob_and_its_joint_move_together(radius, direction, factor, angle, shift):
    # No further than 8 * 1.25 + 10 from the centre: the blob stays whole.
    joint = CENTRE + radius * np.array([np.cos(direction), np.sin(direction)])
    image, joints = blob(joint), joint[None].astype(np.float32)
    warped, moved = warp(
        image,
        joints,
        np.float32(factor),
        np.float32(angle),
        np.array(shift, np.float32),
    )
    assert np.abs(centroid(warped) - moved[0]).max() < 0.05


def test_what_augment_does_to_image_and_joints_is_the_same():
    joint = np.array([CENTRE + 5.3, CENTRE - 4.1], np.float32)
    joints, status = np.tile(joint, (14, 1)), np.full(14, OCCLUDED, np.int8)
    ranges = Ranges((0.8, 1.2), 90.0, 0.1, 0.5)
    keys = jax.random.split(jax.random.key(3), 24)
    images, moved, there = jax.device_get(
        run_many(keys, blob(joint), joints, status, ranges)
    )
    assert (there == OCCLUDED).all()
    found = np.array([centroid(image) for image in images])
    assert np.abs(found - moved[:, 0]).max() < 0.05
    assert np.ptp(found, axis=0).min() > 10


def test_a_quarter_turn_takes_x_to_y():
    # From 10 right of the centre to 10 below it: clockwise as displayed.
    image, _, _ = example()
    joints = np.array([(CENTRE + 10, CENTRE)], np.float32)
    warped, moved = warp(
        image, joints, np.float32(1), np.float32(np.pi / 2), np.zeros(2, np.float32)
    )
    np.testing.assert_allclose(moved, [(CENTRE, CENTRE + 10)], atol=1e-4)
    np.testing.assert_allclose(warped, np.rot90(image, -1), atol=1e-3)


def test_warp_is_the_slow_formula():
    rng = np.random.default_rng(5)
    image, joints, _ = example(5, 16)
    for _ in range(5):
        factor, angle = rng.uniform(0.6, 1.5), rng.uniform(-3, 3)
        shift = rng.uniform(-3, 3, 2)
        warped, moved = warp(
            image,
            joints,
            np.float32(factor),
            np.float32(angle),
            shift.astype(np.float32),
        )
        slow_image, slow_joints = slow_warp(image, joints, factor, angle, shift)
        np.testing.assert_allclose(moved, slow_joints, atol=1e-4)
        np.testing.assert_allclose(warped, slow_image, atol=1e-4)


def slow_warp(image, joints, factor, angle, shift):
    size = len(image)
    c = (size - 1) / 2
    moved = []
    for x, y in joints.tolist():
        dx, dy = factor * (x - c), factor * (y - c)
        turned_x = np.cos(angle) * dx - np.sin(angle) * dy
        turned_y = np.sin(angle) * dx + np.cos(angle) * dy
        moved.append((turned_x + c + shift[0], turned_y + c + shift[1]))
    out = np.zeros_like(image)
    for row in range(size):
        for col in range(size):
            dx, dy = col - c - shift[0], row - c - shift[1]
            x = (np.cos(angle) * dx + np.sin(angle) * dy) / factor + c
            y = (-np.sin(angle) * dx + np.cos(angle) * dy) / factor + c
            left, top = int(np.floor(x)), int(np.floor(y))
            for r in (top, top + 1):
                for s in (left, left + 1):
                    if 0 <= r < size and 0 <= s < size:
                        out[row, col] += (
                            image[r, s] * (1 - abs(x - s)) * (1 - abs(y - r))
                        )
    return out, np.array(moved)


def test_joints_that_leave_the_crop_no_longer_count():
    image, joints, _ = example()
    status = np.full(14, VISIBLE, np.int8)
    status[5] = ABSENT
    # Twice as large: what was in the middle half stays. Pixels reach half a pixel
    # beyond their centres, so the crop is [-0.5, 63.5].
    joints[:6] = [(CENTRE, CENTRE), (1, 30), (30, 62), (15.6, 20), (15.4, 20), (30, 30)]
    ranges = Ranges(scale=(2.0, 2.0))
    _, moved, kept = run(jax.random.key(0), image, joints, status, ranges)
    assert np.array_equal(kept, status)
    counted = counting.counted(moved, kept, occluded=True, size=SIZE)
    inside = ((moved >= -0.5) & (moved <= SIZE - 0.5)).all(axis=1)
    assert counted[:6].tolist() == [True, False, False, True, False, False]
    assert np.array_equal(counted, inside & (status != ABSENT))


def test_ground_beyond_the_crop_is_black():
    image, joints, status = example()
    half = Ranges(scale=(0.5, 0.5))
    small = np.asarray(run(jax.random.key(0), image + 0.1, joints, status, half)[0])
    assert not small[:15].any()
    assert not small[:, -15:].any()
    assert small[17:-17, 17:-17].all()


@pytest.mark.parametrize(
    "ranges",
    [
        EVERYTHING,
        Ranges(brightness=1.0),
        Ranges(contrast=3.0),
        Ranges(colour=2.0),
    ],
)
def test_colours_stay_in_range(ranges):
    image, joints, status = example(size=16)
    keys = jax.random.split(jax.random.key(1), 16)
    images, moved, _ = jax.device_get(run_many(keys, image, joints, status, ranges))
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.dtype == np.float32
    assert np.isfinite(moved).all()


def test_the_key_decides_everything():
    data = example(size=16)
    keys = jax.random.split(jax.random.key(1), 16)
    first = jax.device_get(run_many(keys, *data, EVERYTHING))
    again = jax.device_get(run_many(keys, *data, EVERYTHING))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    # Every key moves the joints differently; alone or in a batch is the same.
    assert len(np.unique(first[1][:, 0, 0])) == 16
    alone = run(keys[3], *data, EVERYTHING)
    np.testing.assert_allclose(alone[1], first[1][3], atol=1e-4)
    np.testing.assert_allclose(alone[0], first[0][3], atol=1e-4)


def drawn(ranges, image=None, count=512):
    """Images and joints 0 (centre) and 1 (right of it) under many keys."""
    size = 8
    centre = (size - 1) / 2
    joints = np.full((14, 2), centre, np.float32)
    # Joint 1 has no left or right, so a flip moves it but takes no other's place.
    joints[1, 0] += 2.0
    if image is None:
        image = np.full((size, size, 3), 0.5, np.float32)
    keys = jax.random.split(jax.random.key(7), count)
    images, moved, _ = jax.device_get(
        run_many(keys, image, joints, np.zeros(14, np.int8), ranges)
    )
    return images, moved[:, 0] - centre, moved[:, 1] - moved[:, 0]


def assert_uniform(values, low, high):
    # 512 draws: the ends are within 2 %, the mean within 4 standard errors.
    width = high - low
    assert values.min() >= low - 1e-4
    assert values.max() <= high + 1e-4
    assert values.min() < low + 0.02 * width
    assert values.max() > high - 0.02 * width
    error = width / np.sqrt(12 * len(values))
    assert abs(values.mean() - (low + high) / 2) < 4 * error
    assert values.std() == pytest.approx(width / np.sqrt(12), rel=0.1)


def test_rotations_are_uniform_within_their_range():
    _, place, arm = drawn(Ranges(rotate=30.0))
    np.testing.assert_allclose(place, 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(arm, axis=1), 2.0, atol=1e-4)
    assert_uniform(np.degrees(np.arctan2(arm[:, 1], arm[:, 0])), -30, 30)


def test_scales_are_uniform_within_their_range():
    _, _, arm = drawn(Ranges(scale=(0.75, 1.25)))
    np.testing.assert_allclose(arm[:, 1], 0, atol=1e-4)
    assert_uniform(arm[:, 0] / 2, 0.75, 1.25)


def test_the_published_scales_are_of_a_drawn_window_too():
    # A window of 1.5 to 2 sides where ours has 1.75, then 0.75 to 1.25 of that.
    ranges = Ranges(scale=(0.75, 1.25), window=(1.5 / 1.75, 2 / 1.75))
    _, _, arm = drawn(ranges, count=2048)
    factors = arm[:, 0] / 2
    assert 0.656 < factors.min() < 0.69 and 1.40 < factors.max() < 1.4584
    rng = np.random.default_rng(0)
    wanted = rng.uniform(0.75, 1.25, 10**5) * 1.75 / rng.uniform(1.5, 2, 10**5)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(factors, share) == pytest.approx(
            np.quantile(wanted, share), rel=0.02
        )
    config = configs.default()
    config.augment.window = (1.5, 2.0)
    assert make_task(config, small.dataset()).ranges.window == ranges.window
    config.augment.window = (2.0, 1.5)
    with pytest.raises(ConfigError, match=r"window=\(2.0, 1.5\) must be two .*or \(\)"):
        configs.check(config)


def test_shifts_are_uniform_and_the_two_independent():
    _, place, _ = drawn(Ranges(shift=0.2))
    for axis in range(2):
        assert_uniform(place[:, axis] / 8, -0.2, 0.2)
    assert abs(np.corrcoef(place.T)[0, 1]) < 4 / np.sqrt(len(place))


def test_flips_have_their_probability():
    _, _, arm = drawn(Ranges(flip=0.3))
    share = (arm[:, 0] < 0).mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(arm))


def test_brightness_is_a_uniform_lift():
    images, _, _ = drawn(Ranges(brightness=0.3))
    assert np.ptp(images, axis=(1, 2, 3)).max() < 1e-5
    assert_uniform(images[:, 0, 0, 0], 0.2, 0.8)


def test_contrast_is_a_uniform_gain_about_the_middle():
    image = np.full((8, 8, 3), 0.5, np.float32)
    image[:4] = 0.75
    images, _, _ = drawn(Ranges(contrast=0.4), image)
    np.testing.assert_allclose(images[:, 7], 0.5, atol=1e-5)
    assert_uniform((images[:, 0, 0, 0] - 0.5) / 0.25, 0.6, 1.4)


def test_colour_is_a_uniform_gain_of_each_channel():
    images, _, _ = drawn(Ranges(colour=0.2))
    assert np.ptp(images, axis=(1, 2)).max() < 1e-5
    gains = images[:, 0, 0] / 0.5
    for channel in range(3):
        assert_uniform(gains[:, channel], 0.8, 1.2)
    correlation = np.corrcoef(gains.T) - np.eye(3)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(gains))
