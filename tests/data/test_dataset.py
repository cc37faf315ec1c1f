"""One index over sources, whatever their labels are."""

import dataclasses

import numpy as np
import pytest

from jalpose.data.dataset import Labelled, join_sources
from jalpose.data.source import DataError
from tests.support import small


@dataclasses.dataclass(frozen=True)
class Names:
    """Names alone: what every set has."""

    keys: tuple[str, ...]

    @property
    def files(self):
        return tuple(f"{key}.png" for key in self.keys)

    def __len__(self):
        return len(self.keys)


class Squares:
    """Images of one colour each, all of one size."""

    def __init__(self, name, count, size=8):
        self.annotations = Names(tuple(f"{name}/{n}" for n in range(count)))
        self.size = size

    def image(self, index):
        return np.full((self.size, self.size, 3), index, np.uint8)


def classes(sources, windows=None):
    """A set whose labels are numbers: nothing of it is known to this room."""
    count = sum(len(source.annotations) for source in sources)
    return join_sources(
        sources,
        initial=range(40),
        pool=range(40, 50),
        test=range(50, count),
        truth={"class": np.arange(count) % 7},
        windows=windows,
    )


def test_images_without_windows_are_taken_whole():
    data = classes([Squares("a", 45), Squares("b", 10)])
    crop = data.crop(47, 8)
    assert crop.shape == (8, 8, 3)
    assert (crop == 2).all()
    assert data.windows_of([3]) is None
    with pytest.raises(DataError, match=r"b/2\.png has 8 x 8 pixels.*data\.size=16"):
        data.crop(47, 16)


def test_truth_is_what_it_was_given_by_any_name():
    data = classes([Squares("a", 55)])
    assert data.truth_of(np.array([8, 6])).keys() == {"class"}
    assert data.truth_of(np.array([8, 6]))["class"].tolist() == [1, 6]


def test_checksums_see_names_labels_and_windows():
    windows = np.ones((55, 3), np.float32)
    data = classes([Squares("a", 55)], windows)
    sums = data.checksums()
    assert sums.dtype == np.uint32 and len(set(sums.tolist())) == 55
    moved = windows.copy()
    moved[7] = 2
    relabelled = {"class": np.where(np.arange(55) == 5, 9, data.truth["class"])}
    renamed = tuple("c" if n == 3 else key for n, key in enumerate(data.keys))
    for change, example in (
        ({"windows": moved}, 7),
        ({"truth": relabelled}, 5),
        ({"keys": renamed}, 3),
    ):
        other = dataclasses.replace(data, **change).checksums()
        assert np.flatnonzero(other != sums).tolist() == [example]


def test_rows_of_labelled_examples_are_taken_together(people):
    labels = small.labels_of(people, people.initial)
    known = np.arange(len(people.initial)) % 2 == 0
    held_out = people.held_out(people.initial)
    whole = Labelled(people.initial, labels, known, held_out)
    for rows in (held_out, np.array([5, 1])):
        part = whole.at(rows)
        np.testing.assert_array_equal(part.ids, people.initial[rows])
        np.testing.assert_array_equal(part.known, known[rows])
        np.testing.assert_array_equal(part.held_out, held_out[rows])
        for name, values in labels.items():
            np.testing.assert_array_equal(part.labels[name], values[rows])
