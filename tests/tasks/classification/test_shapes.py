"""Drawn shapes: functions of their seed and number, classes all alike."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jalpose.tasks.classification import shapes
from jalpose.tasks.classification.shapes import CLASSES, ShapeSource


def test_an_example_depends_on_its_seed_and_number_alone():
    whole = ShapeSource(12, 3, 32)
    part = ShapeSource(4, 3, 32, start=5)
    assert part.annotations.keys == whole.annotations.keys[5:9]
    np.testing.assert_array_equal(
        part.annotations.labels, whole.annotations.labels[5:9]
    )
    np.testing.assert_array_equal(part.image(2), whole.image(7))
    other = ShapeSource(12, 4, 32)
    assert not np.array_equal(other.image(0), whole.image(0))
    with pytest.raises(IndexError, match="index=12 of 12 shapes"):
        whole.image(12)


def test_classes_are_all_alike():
    counts = np.bincount(ShapeSource(1600, 0, 8).annotations.labels)
    assert len(counts) == len(CLASSES)
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)


@pytest.mark.parametrize("size", [16, 32])
def test_images_are_of_the_size_asked_for_with_a_shape_that_is_seen(size):
    source = ShapeSource(40, 1, size)
    for index in range(40):
        image = source.image(index)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert image.reshape(-1, 3).std(axis=0).max() > 10


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_a_form_of_its_own(name):
    def area(turn):
        mask = Image.new("L", (200, 200))
        centre = np.array([100.0, 100.0])
        shapes._shape(ImageDraw.Draw(mask), name, centre, 60.0, turn)
        return (np.asarray(mask) > 0).sum() / 60**2

    areas = {
        "disc": np.pi,
        "ring": np.pi * (1 - 0.64**2),
        "half disc": np.pi / 2,
        "triangle": 3 * np.sqrt(3) / 4,
        "square": 2.0,
        "cross": 2 * 2 * 0.48 - 0.48**2,
        "star": 5 * 0.42 * np.sin(np.radians(36)),
        "bars": 3 * 1.8 * 0.36,
    }
    for turn in (0.0, 25.0):  # turned, it is as large
        assert area(turn) == pytest.approx(areas[name], rel=0.06)


def test_the_benchmark_has_its_parts_in_a_row():
    data = {"size": 16, "initial": 5, "pool": 7, "test": 3}
    (source,), parts = shapes.benchmark(data, 2)
    assert [part.tolist() for part in parts] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9, 10, 11],
        [12, 13, 14],
    ]
    assert len(source.annotations) == 15
    _, parts = shapes.benchmark({**data, "pool": 0, "test": 0}, 2)
    assert [len(part) for part in parts] == [5, 1000, 300]
