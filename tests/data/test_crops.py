"""Crops: coordinates there and back, and what is cut out."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jalpose.data.crops import crop_image, from_crop, meets, to_crop

# Coordinates.


def test_to_crop_golden():
    # 70 image pixels to 35 crop pixels, the middle is crop pixel 17:
    # (10 - 20) / 2 + 17 = 12, (60 - 40) / 2 + 17 = 27.
    window = np.array([20.0, 40.0, 70.0])
    joints = np.array([(10.0, 60.0), (20.0, 40.0)])
    assert to_crop(joints, window, 35).tolist() == [[12, 27], [17, 17]]
    assert from_crop(np.array([(12.0, 27.0)]), window, 35).tolist() == [[10, 60]]


number = st.floats(-500, 1500)


@given(
    centre=st.tuples(number, number),
    side=st.floats(8, 2000),
    size=st.integers(16, 512),
    joint=st.tuples(number, number),
)
def test_to_crop_and_from_crop_are_inverse(centre, side, size, joint):
    window = np.array([*centre, side])
    joints = np.array([joint])
    there = to_crop(joints, window, size)
    assert np.allclose(from_crop(there, window, size), joints, atol=1e-6)
    back = from_crop(joints, window, size)
    assert np.allclose(to_crop(back, window, size), joints, atol=1e-6)


def test_batches_of_joints_are_converted_one_by_one():
    rng = np.random.default_rng(1)
    joints = rng.uniform(0, 100, (3, 5, 2))
    joints[1, 2] = np.nan
    windows = rng.uniform(20, 90, (3, 3))
    for convert in (to_crop, from_crop):
        together = convert(joints, windows, 64)
        one_by_one = [convert(j, w, 64) for j, w in zip(joints, windows, strict=True)]
        assert np.array_equal(together, np.stack(one_by_one), equal_nan=True)
        assert np.isnan(together).sum() == 2


# Pixels.


def dot(height, width, joint, sigma):
    rows, cols = np.mgrid[:height, :width]
    squared = (cols - joint[0]) ** 2 + (rows - joint[1]) ** 2
    grey = np.round(255 * np.exp(-0.5 * squared / sigma**2)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def centroid(image):
    weights = image[..., 0].astype(np.float64)
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * cols).sum(), (weights * rows).sum()]) / weights.sum()


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize(
    ("window", "joint"),
    [
        pytest.param((80.0, 60.0, 64.0), (90.0, 52.0), id="inside"),
        pytest.param((80.3, 60.7, 63.4), (70.6, 75.2), id="between pixels"),
        pytest.param((20.0, 15.0, 90.0), (25.4, 20.8), id="beyond the upper left"),
        pytest.param((150.0, 110.0, 80.0), (140.5, 98.3), id="beyond the lower right"),
        pytest.param((80.0, 60.0, 400.0), (120.2, 40.9), id="beyond every side"),
        pytest.param((80.0, 60.0, 24.0), (82.3, 57.8), id="enlarged"),
        pytest.param((80.5, 60.5, 237.5), (30.3, 100.1), id="reduced"),
    ],
)
def test_a_dot_lands_where_its_joint_does(window, joint, size):
    window = np.array(window, np.float32)
    image = dot(120, 160, joint, sigma=2.0)
    crop = crop_image(image, window, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    expected = to_crop(np.array([joint]), window, size)[0]
    assert np.abs(centroid(crop) - expected).max() < 0.1


def test_the_window_of_the_whole_image_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    crop = crop_image(image, np.array([23.5, 23.5, 48.0]), 48)
    assert np.array_equal(crop, image)


def test_whole_pixels_are_moved_unchanged_and_what_is_outside_is_black():
    image = np.random.default_rng(0).integers(1, 256, (48, 48, 3), np.uint8)
    # 10 pixels further right and 5 further up.
    crop = crop_image(image, np.array([33.5, 18.5, 48.0]), 48)
    assert np.array_equal(crop[5:, :38], image[:43, 10:])
    assert not crop[:5].any()
    assert not crop[:, 38:].any()


@pytest.mark.parametrize("size", [24, 64, 100])
@pytest.mark.parametrize(
    "window", [(10.0, 20.0, 70.0), (35.3, 2.2, 51.7), (40.0, 30.0, 300.0)]
)
def test_outside_the_image_is_black_and_inside_it_is_not(window, size):
    height, width = 60, 80
    image = np.full((height, width, 3), 255, np.uint8)
    crop = crop_image(image, np.array(window), size)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
    places = from_crop(grid.astype(float), np.array(window), size)
    # How far out of the image a crop pixel's centre is; a crop pixel is blurred
    # over one image pixel or one crop pixel, whichever is larger.
    edge = np.array([width, height]) - 0.5
    out = np.maximum(-0.5 - places, places - edge).max(axis=-1)
    blur = max(1.0, window[2] / size)
    assert (crop[out > blur] == 0).all()
    assert (crop[out < -blur] == 255).all()
    assert (out > blur).any()
    assert (out < -blur).any()


def test_the_rim_of_a_crop_sees_what_is_beyond_it():
    # The same scale in a larger window: its middle is the smaller one's crop.
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    inner = crop_image(image, np.array([34.5, 29.5, 24.0]), 96)
    outer = crop_image(image, np.array([34.5, 29.5, 32.0]), 128)
    difference = inner.astype(int) - outer[16:-16, 16:-16]
    assert np.abs(difference).max() <= 1


def test_shrinking_skips_no_pixel():
    # A line one pixel wide, wherever it is, keeps its share of the light.
    for column in range(64, 72):
        image = np.zeros((128, 128, 3), np.uint8)
        image[:, column] = 255
        crop = crop_image(image, np.array([63.5, 63.5, 128.0]), 16)
        assert crop[8, :, 0].sum() == pytest.approx(255 / 8, abs=2)


# Windows far larger than the image, and beside it.


@pytest.mark.parametrize("size", [24, 64])
@pytest.mark.parametrize(
    "window", [(40.0, 30.0, 239.0), (10.4, 77.7, 239.5), (-60.0, 40.0, 239.2)]
)
def test_a_far_window_is_cut_as_others_are(window, size, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    usual = crop_image(image, np.array(window), size)
    monkeypatch.setattr("jalpose.data.crops._FAR", 1)
    far = crop_image(image, np.array(window), size)
    # Pillow sees a pixel beyond the rim of the crop, this as many as it needs.
    assert np.abs(far.astype(int) - usual).max() <= 2
    assert far.any()


def test_a_far_window_costs_no_memory():
    image = np.full((120, 160, 3), 200, np.uint8)
    tracemalloc.start()
    for window in ((3500.0, 60, 12_250), (80, 60, 1e6), (2e4, 2e4, 57_000)):
        crop = crop_image(image, np.array(window), 64)
        assert crop.shape == (64, 64, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20  # cut out whole, the first would take 430 MiB


def test_a_dot_in_a_far_window_lands_where_its_joint_does():
    image = dot(120, 160, (90.0, 52.0), sigma=8.0)
    window = np.array((200.0, 100.0, 900.0), np.float32)
    crop = crop_image(image, window, 128)
    expected = to_crop(np.array([(90.0, 52.0)]), window, 128)[0]
    assert np.abs(centroid(crop) - expected).max() < 0.1


@pytest.mark.parametrize(
    ("window", "there"),
    [
        ((80.0, 60.0, 50.0), True),
        ((-20.0, 60.0, 50.0), True),
        ((-26.0, 60.0, 50.0), False),
        ((80.0, 145.0, 50.0), False),
        ((184.0, 60.0, 50.0), True),
        ((185.0, 60.0, 50.0), False),
        ((np.inf, 60.0, 50.0), False),
        ((80.0, 60.0, np.inf), False),
        ((np.nan, 60.0, 50.0), False),
    ],
)
def test_a_window_meets_an_image_or_is_black(window, there):
    assert bool(meets(np.array(window), 160, 120)) == there
    image = np.full((120, 160, 3), 255, np.uint8)
    assert crop_image(image, np.array(window), 16).any() == there
