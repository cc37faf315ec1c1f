"""What is unlikely in data sets of classes, and what a look at them says."""

import dataclasses

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.loop import configs
from jalpose.tasks.classification import checks, drawings, overview
from jalpose.tasks.classification.sources import load_dataset

CLASSES = ("bird", "cat", "dog")
KEYS = tuple(f"set/{n}" for n in range(8))


def words(findings):
    return [finding.words for finding in findings]


def test_an_image_of_two_classes():
    labels = np.array([0, 1, 2, 0, 0, 0, -1, 2], np.int32)
    digests = ["a", "a", "b", "c", "c", "", "b", ""]
    (found,) = checks.of_copies(np.arange(8), labels, KEYS, digests)
    assert found.words.startswith("1 images are there twice with different classes")
    assert "set/0 and set/1" in found.words and found.examples == (0, 1)
    assert not found.impossible
    # Of those that play no part nothing is said.
    assert list(checks.of_copies(np.arange(1, 8), labels, KEYS, digests)) == []


def test_classes_that_a_part_lacks():
    parts = {"labelled": np.arange(3), "pool": np.arange(3, 6), "test": np.arange(6, 8)}
    labels = np.array([0, 0, 1, 2, 0, 1, 0, 1], np.int32)
    found = list(checks.of_classes(parts, labels, CLASSES))
    assert len(found) == 2
    assert "1 of 3 classes have no example that is labelled at" in found[0].words
    assert "1 of 3 classes have no example in the test set" in found[1].words
    assert all("'dog'" in finding.words for finding in found)
    assert [finding.rule for finding in found] == ["not at the start", "not tested"]
    labels[[2, 7]] = 2
    labels[6] = -1
    found = list(checks.of_classes(parts, labels, CLASSES))
    assert [f.examples for f in found] == [(), (), (6,)]
    assert "The class of 1 of 2 test images is not known" in found[2].words
    # A class that is nowhere is no slip of a part.
    labels = np.zeros(8, np.int32)
    (nowhere,) = checks.of_classes(parts, labels, CLASSES)
    assert "2 of 3 classes have no example in any part" in nowhere.words
    assert nowhere.rule == "nowhere"


def config_of(**data):
    delta = {"data.name": "shapes", **{f"data.{k}": v for k, v in data.items()}}
    return configs.assemble(
        "scale=tiny", name="shapes", task="classification", delta=delta
    )


def test_a_strict_run_refuses_what_is_unlikely():
    data = config_of(initial=12, check="strict").data
    with pytest.raises(DataError, match=r"labelled at the start.*data\.check=off"):
        load_dataset(data, 0)
    data = config_of(initial=12, check="off").data
    assert len(load_dataset(data, 0).initial) == 12
    data = config_of(check="strict").data
    assert len(load_dataset(data, 0).initial) == 40


def test_what_is_warned_of(caplog):
    load_dataset(config_of(initial=12).data, 0)
    assert "classes have no example that is labelled at the start" in caplog.text


# The overview.


@pytest.fixture
def dataset():
    return load_dataset(config_of().data, 0)


def test_tables_of_an_overview(dataset):
    found = overview.overview(config_of(), dataset)
    classes, balance = found.tables
    assert [row[0] for row in classes.rows] == [
        "disc",
        "ring",
        "half disc",
        "triangle",
        "square",
        "cross",
        "star",
        "bars",
    ]
    labels = dataset.truth["class"]
    for number, row in enumerate(classes.rows):
        for place, part in enumerate((dataset.initial, dataset.pool, dataset.test)):
            count = int((labels[part] == number).sum())
            assert row[1 + 2 * place] == count
            assert row[2 + 2 * place] == pytest.approx(100 * count / len(part))
    counts = np.bincount(labels[dataset.initial], minlength=8)
    assert balance.rows[0][:4] == ("shapes", "labelled", 8, counts.min())
    assert found.labelled.all() and found.findings == ()


def test_of_many_classes_the_ends_are_shown(dataset, monkeypatch):
    monkeypatch.setattr(overview, "MOST_CLASSES", 5)
    monkeypatch.setattr(overview, "_ENDS", 2)
    classes, _ = overview.overview(config_of(), dataset).tables
    counts = np.bincount(dataset.truth["class"])
    totals = [sum(row[1::2]) for row in classes.rows]
    assert totals == [*np.sort(counts)[::-1][:2], *np.sort(counts)[::-1][-2:]]
    assert "2 commonest and the 2 rarest of 8 classes" in classes.notes[0]


def test_pictures_of_an_overview(dataset):
    found = overview.overview(config_of(), dataset)
    truth = {"class": np.int32(2)}
    tile = found.draw(dataset.image(0), None, truth)
    assert tile.shape == (overview.SIZE, overview.SIZE, 3)
    assert (tile.reshape(-1, 3) == drawings.TRUE).all(axis=1).any()
    grey = np.full((40, 60, 3), 90, np.uint8)
    windowed = found.draw(grey, np.array([29.5, 19.5, 35.0]), truth)
    plain = found.draw(grey, None, truth)
    differing = (windowed != plain).any(axis=-1)
    assert differing.any() and differing.mean() < 0.1
    assert [key.words for key in found.legend] == ["class"]
    cropped = dataclasses.replace(
        dataset, windows=np.tile([7.5, 7.5, 14.0], (len(dataset.keys), 1))
    )
    legend = overview.overview(config_of(), cropped).legend
    assert [key.words for key in legend] == ["class", "crop window"]
