"""Classes and their images: what is warned of, and what is not."""

import logging
import os
import re

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.loop import data_check
from jalpose.loop.configs import assemble
from jalpose.tasks.classification import checks
from jalpose.tasks.classification.sources import load_dataset, readable
from tests.support.class_miniature import data_section, real_data_dir, write_cifar

COUNT = 12
KEYS = tuple("abcdefghijkl")
CLASSES = ("cat", "dog", "eel")
PARTS = {
    "labelled": np.array([0, 1, 2, 3]),
    "pool": np.array([4, 5, 6, 7]),
    "test": np.array([8, 9, 10, 11]),
}
LABELS = np.arange(COUNT) % 3


def copies(pairs, labels=LABELS):
    digests = [f"{number:032x}" for number in range(COUNT)]
    for one, two in pairs:
        digests[two] = digests[one]
    everybody = np.concatenate(list(PARTS.values()))
    found = [
        *checks.of_copies(everybody, labels, KEYS, digests),
        *checks.of_repeats(PARTS, KEYS, digests),
    ]
    return [finding.words for finding in found]


def classes(labels):
    return [f.words for f in checks.of_classes(PARTS, np.array(labels), CLASSES)]


def test_what_is_right_is_not_mentioned():
    assert copies([]) == []
    assert classes(LABELS) == []


def test_images_with_two_classes():
    (found,) = copies([(0, 4), (5, 10)])
    assert found == (
        "2 images are there twice with different classes: a and e, f and k. One of the "
        "two labels is wrong."
    )
    unknown = np.where(np.arange(COUNT) == 4, -1, LABELS)
    assert copies([(0, 4)], unknown) == []


def test_copies_in_a_part():
    (found,) = copies([(4, 7), (0, 6)])  # the latter are of two parts
    assert found.startswith("1 images are in the pool part more than once: e and h.")


def test_images_whose_bytes_nobody_knows_are_no_copies():
    nobody = [""] * COUNT
    assert list(checks.of_copies(np.arange(COUNT), LABELS, KEYS, nobody)) == []
    assert list(checks.of_repeats(PARTS, KEYS, nobody)) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0, 1] * 3, "1 of 3 classes have no example in any part.*'eel'"),
        ([0, 1] * 4 + [0, 1, 2, 2], "are tested on, and .* cannot be learnt: 'eel'"),
        ([0, 1, 0, 1] + [0, 1, 2, 2] * 2, "labelled at the start.*balanced.*: 'eel'"),
        ([0, 1, 2, 2] * 2 + [0, 1, 0, 1], "no example in the test set.*: 'eel'"),
        ([0, 1, 2, 2] * 2 + [0, 1, 2, -1], "The class of 1 of 4 test images is not"),
    ],
)
def test_classes_without_examples(labels, message):
    (found,) = classes(labels)
    assert re.search(message, found), found


def test_overlaps_of_a_set_of_files(tmp_path, caplog):
    """Records copied from the training file to the test file, and within it."""
    folder = write_cifar(tmp_path, counts=(90,), test=20)
    train = (folder / "data_batch_1.bin").read_bytes()
    test = bytearray((folder / "test_batch.bin").read_bytes())
    test[: 2 * 3073] = train[5 * 3073 : 6 * 3073] + train[7 * 3073 : 8 * 3073]
    test[0] = 9  # another class than record 5 has
    (folder / "test_batch.bin").write_bytes(test)
    data = data_section(tmp_path, "cifar10", initial=85)
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(data, 0)
    assert "images are the same file in the labelled and the test part" in caplog.text
    assert "1 images are there twice with different classes" in caplog.text
    found = checks.of_dataset(dataset)
    assert not any(finding.impossible for finding in found)
    torn = next(f for f in found if "different classes" in f.words)
    assert [dataset.keys[i] for i in torn.examples] == [
        "cifar10/data_batch_1/00005",
        "cifar10/test_batch/00000",
    ]
    data.check = "strict"
    with pytest.raises(DataError, match="twice with different classes"):
        load_dataset(data, 0)
    data.check = "off"
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_dataset(data, 0)
    assert "different classes" not in caplog.text


def check(tmp_path, **changes):
    """What `jalpose.check` says of CIFAR-10 in miniature, and its page."""
    write_cifar(tmp_path, counts=(90,), test=20)
    delta = {
        "data.name": "cifar10",
        "data.dir": str(tmp_path),
        "data.cache_dir": str(tmp_path / "cache"),
        "data.initial": 40,
        "data.pool": 0,
        "data.test": 0,
        **{f"data.{key}": value for key, value in changes.items()},
    }
    config = assemble("scale=tiny", name="c10", task="classification", delta=delta)
    found = data_check.check(config, str(tmp_path / "out"))
    return found, (tmp_path / "out" / "index.html").read_text()


def test_the_check_command_shows_what_is_there(tmp_path):
    found, page = check(tmp_path)
    assert found == []
    for said in ("cifar10 labelled", "cifar10 pool", "fine 3", "0 impossible"):
        assert said in page, said
    assert page.count("<img") >= 12


def test_the_check_command_shows_what_a_run_would_refuse(tmp_path):
    found, page = check(tmp_path, initial=91)
    assert [f.impossible for f in found] == [True]
    assert "data.initial=91, but the training part of CIFAR10 has 90" in found[0].words
    assert "in no part" in page and page.count("<img") >= 12


def test_the_check_command_of_what_cannot_be_opened(tmp_path):
    (tmp_path / "cifar10").mkdir()
    data = data_section(tmp_path, "cifar10")
    dataset, (problem,) = readable(data)
    assert dataset is None and "has neither" in str(problem)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "caltech101"])
def test_the_real_sets_have_nothing_unlikely(tmp_path, name):
    folder = real_data_dir(name)
    if folder is None:
        pytest.skip(f"no {name}/ in JALPOSE_DATA or ../shared/data")
    changes = {"cache_dir": os.fspath(tmp_path), "initial": 500, "balanced": True}
    dataset = load_dataset(data_section(folder, name, check="off", **changes), 0)
    assert checks.of_dataset(dataset) == []
