"""Crops and mirrored images against NumPy, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jalpose.tasks.classification import augment
from jalpose.tasks.classification.augment import NO_AUGMENTATION, Ranges

SIZE = 12


@pytest.fixture
def image():
    return np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)


def many(image, ranges, count=300):
    """Versions of one image: [count, S, S, 3]."""
    keys = jax.random.split(jax.random.key(1), count)
    found = jax.vmap(lambda key: augment.augment(key, image, ranges))(keys)
    return np.asarray(found)


def padded_crops(image, pad):
    """All crops of the image's size, by the row and column they begin at."""
    around = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return {
        (y, x): around[y : y + SIZE, x : x + SIZE]
        for y in range(2 * pad + 1)
        for x in range(2 * pad + 1)
    }


def place_of(version, crops):
    found = [place for place, crop in crops.items() if np.array_equal(crop, version)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("pad", [2, 4])
def test_padded_crops_are_every_crop_of_the_padded_image_alike(image, pad):
    crops = padded_crops(image, pad)
    places = [place_of(v, crops) for v in many(image, Ranges(pad=pad), 600)]
    for axis in (0, 1):
        starts = [place[axis] for place in places]
        counts = np.bincount(starts, minlength=2 * pad + 1)
        expected = 600 / (2 * pad + 1)
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert len(set(places)) > 0.8 * len(crops)
    # Rows and columns are drawn independently of each other.
    assert abs(np.corrcoef(np.array(places).T)[0, 1]) < 0.2


def test_what_is_padded_is_black_before_the_network_normalises(image):
    white = np.ones_like(image)
    found = many(white, Ranges(pad=4), 50)
    assert set(np.unique(found)) == {0.0, 1.0}


def test_half_of_them_are_mirrored_and_nothing_else(image):
    found = many(image, Ranges(flip=0.5), 400)
    mirrored = [np.array_equal(v, image[:, ::-1]) for v in found]
    same = [np.array_equal(v, image) for v in found]
    assert all(np.logical_xor(mirrored, same))
    assert 150 < sum(mirrored) < 250


def test_without_ranges_nothing_changes(image):
    np.testing.assert_array_equal(many(image, NO_AUGMENTATION, 2)[1], image)


@pytest.mark.slow
def test_resized_crops_have_the_areas_and_aspects_asked_for():
    # The image is its own coordinates: what is seen says which crop it was.
    size = 64
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    ramps = np.stack([y, x, np.ones_like(x)], -1).astype(np.float32)
    keys = jax.random.split(jax.random.key(2), 400)
    found = np.asarray(
        jax.vmap(lambda key: augment.resized_crop(key, ramps, 0.08))(keys)
    )
    # A step in the middle, where no edge is near, of a pixel of the version.
    middle = size // 2
    height = size * (found[:, middle + 1, middle, 0] - found[:, middle, middle, 0])
    width = size * (found[:, middle, middle + 1, 1] - found[:, middle, middle, 1])
    share = height * width / size**2
    assert share.min() > 0.075 and share.max() < 1.01
    uncut = (height < 0.99 * size) & (width < 0.99 * size)
    aspects = width[uncut] / height[uncut]
    assert 0.74 < aspects.min() < 0.8 and 1.25 < aspects.max() < 1.34
    # Its corners lie in the image.
    for axis, extent in ((0, height), (1, width)):
        centre = (found[:, middle - 1, middle - 1, axis] + 0.5) + extent / size / 2
        assert (centre - extent / 2 > -0.6).all()
        assert (centre + extent / 2 < size + 0.6).all()
    np.testing.assert_allclose(found[..., 2], 1, atol=1e-5)


def test_a_resized_crop_is_what_pillow_makes_of_the_same_box(monkeypatch):
    rng = np.random.default_rng(3)
    small = rng.random((8, 8, 3))
    image = np.asarray(
        Image.fromarray(np.uint8(255 * small)).resize((32, 32), 3), np.float32
    )
    values = iter([0.25, 0.0, np.array([0.5, 0.25])])  # area, log aspect, place
    monkeypatch.setattr(
        augment.jax.random, "uniform", lambda *a, **k: jnp.asarray(next(values))
    )
    found = augment.resized_crop(jax.random.key(0), image, 0.08)
    top, left = 0.5 * 16, 0.25 * 16
    box = (left, top, left + 16, top + 16)
    channels = [
        Image.fromarray(image[..., c]).resize((32, 32), Image.Resampling.BILINEAR, box)
        for c in range(3)
    ]
    expected = np.stack([np.asarray(c) for c in channels], -1)
    # Pillow sees no pixel outside the box.
    inner = slice(2, -2)
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=1e-2)
