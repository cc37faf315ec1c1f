"""Parts of a benchmark of classes: who is labelled, in the pool and tested on."""

import os

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.settings.checks import ConfigError
from jalpose.tasks.classification import data_keys
from jalpose.tasks.classification.annotations import Annotations
from jalpose.tasks.classification.shipped import middle_windows
from jalpose.tasks.classification.sources import in_turn, load_dataset
from tests.support.class_miniature import data_section, drawn, write_cifar


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """CIFAR-10 in miniature: 300 training images of ten classes, 50 for tests."""
    folder = tmp_path_factory.mktemp("cifar10")
    write_cifar(folder, counts=(200, 100), test=50)
    return folder


def load(folder, seed=0, **changes):
    return load_dataset(data_section(folder, "cifar10", **changes), seed)


def counts(dataset, ids):
    return np.bincount(dataset.truth["class"][ids], minlength=10).tolist()


def test_parts_are_apart_and_leave_nobody_out(cifar10):
    dataset = load(cifar10)
    everybody = np.concatenate([dataset.initial, dataset.pool, dataset.test])
    np.testing.assert_array_equal(np.sort(everybody), np.arange(350))
    for ids in (dataset.initial, dataset.pool, dataset.test):
        assert (np.diff(ids) > 0).all()


def test_the_seed_draws_who_is_labelled_and_no_test_image(cifar10):
    one, same, other = (load(cifar10, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.initial, same.initial)
    assert (one.initial != other.initial).any()
    np.testing.assert_array_equal(one.test, other.test)


def test_more_at_the_start_are_the_same_and_more(cifar10):
    few, many = load(cifar10, initial=40), load(cifar10, initial=90)
    assert set(few.initial) < set(many.initial)
    pool = load(cifar10, initial=40, pool=50).pool
    assert len(pool) == 50 and set(pool) < set(few.pool)


@pytest.mark.parametrize("initial", [40, 45, 297])
def test_balanced_at_the_start(cifar10, initial):
    dataset = load(cifar10, initial=initial, balanced=True)
    found = counts(dataset, dataset.initial)
    assert sum(found) == initial
    assert max(found) - min(found) <= 1
    drawn_at_random = load(cifar10, initial=45)
    assert np.ptp(counts(drawn_at_random, drawn_at_random.initial)) > 1


def test_in_turn_against_taking_one_by_one():
    draws = np.random.default_rng(0)
    labels = draws.choice(4, 60, p=[0.6, 0.2, 0.15, 0.05]).astype(np.int32)
    order = draws.permutation(60)[:50]
    left = {label: [i for i in order if labels[i] == label] for label in range(4)}
    rounds = []
    while any(left.values()):
        rounds.append({queue.pop(0) for queue in left.values() if queue})
    found = in_turn(order, labels)
    start = 0
    for taken in rounds:
        assert set(found[start : start + len(taken)].tolist()) == taken
        start += len(taken)
    assert start == len(found)


def test_rare_classes(cifar10):
    rare = ("fine 3", "fine 7")
    dataset = load(cifar10, rare_classes=rare, rare_share=0.1, initial=60)
    train = np.concatenate([dataset.initial, dataset.pool])
    assert counts(dataset, train) == [30, 30, 30, 3, 30, 30, 30, 3, 30, 30]
    assert counts(dataset, dataset.test) == [5] * 10
    other = load(cifar10, 1, rare_classes=rare, rare_share=0.1, initial=60)
    kept = [np.isin(d.truth["class"], (3, 7)).nonzero()[0] for d in (dataset, other)]
    used = [
        np.intersect1d(np.r_[d.initial, d.pool], k)
        for d, k in zip((dataset, other), kept, strict=True)
    ]
    assert set(used[0]) != set(used[1])
    least = load(cifar10, rare_classes=rare, rare_share=0.001, initial=60)
    assert counts(least, np.r_[least.initial, least.pool])[3] == 1
    with pytest.raises(
        DataError, match=r"data.initial=250, but .* with rare classes has"
    ):
        load(cifar10, rare_classes=rare, rare_share=0.1, initial=250)


def test_a_rare_class_that_is_not_there(cifar10):
    message = r"data\.rare_classes: 'fine3'\..* Did you mean 'fine 3'\?"
    with pytest.raises(ConfigError, match=message):
        load(cifar10, rare_classes=("fine3",))


def test_fewer_test_images_are_evenly_spaced(cifar10):
    dataset = load(cifar10, test=3)
    np.testing.assert_array_equal(dataset.test, [300, 324, 349])


def test_everything_labelled(cifar10):
    dataset = load(cifar10, labelled="all")
    assert len(dataset.initial) == 300 and len(dataset.pool) == 0


def test_images_that_are_taken_whole_have_one_size(cifar10):
    message = r"data\.size=64, but the images of CIFAR10 have 32 x 32 .* data\.size=32"
    with pytest.raises(DataError, match=message):
        load(cifar10, size=64)


def test_a_changed_file_is_prepared_anew(tmp_path):
    folder = write_cifar(tmp_path, counts=(60, 30))
    before = load(tmp_path)
    assert load(tmp_path).sources[0].prepared_dir == before.sources[0].prepared_dir
    path = folder / "data_batch_1.bin"
    data = bytearray(path.read_bytes())
    data[1] ^= 255  # red of the first pixel
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))
    after = load(tmp_path)
    assert after.sources[0].prepared_dir != before.sources[0].prepared_dir
    assert before.digests[0] != after.digests[0]
    assert before.digests[1:] == after.digests[1:]
    _, images = drawn(60, 0)
    assert after.crop(0, 32)[0, 0, 0] == images[0, 0, 0, 0] ^ 255
    np.testing.assert_array_equal(after.crop(1, 32), images[1])


def test_middle_windows():
    found = middle_windows(np.array([[256, 256], [300, 200]]), 0.875)
    np.testing.assert_array_equal(found, [[127.5, 127.5, 224], [149.5, 99.5, 175]])
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 0.0}, r"data\.window=0\.0 must be above 0, and at most 1"),
        ({"window": 1.5}, r"data\.window=1\.5 must be above 0, and at most 1"),
        ({"rare_share": 0.0}, r"data\.rare_share=0\.0 must be above 0"),
        ({"test_share": 1.0}, r"data\.test_share=1\.0 must lie between 0 and 1"),
        ({"test_seed": -1}, r"data\.test_seed=-1 must be at least 0"),
        ({"rare_classes": "cat"}, r"must be names in brackets: \('cat',\)"),
    ],
)
def test_values_that_are_refused(changes, message):
    data = data_section("nowhere", "cifar10")
    data_keys.check(data)
    values = {**data.to_dict(), **changes}
    with pytest.raises(ConfigError, match=message):
        data_keys.check(type(data)(values))


def test_coarse_or_fine():
    data = data_section("nowhere", "cifar100")
    data.cifar.labels = "rough"
    with pytest.raises(ConfigError, match=r"data\.cifar\.labels: 'rough'"):
        data_keys.check(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 3], np.int32)}, "b has the label 3.* are 3 classes"),
        ({"labels": np.array([0, -2], np.int32)}, "b has the label -2"),
        ({"labels": np.array([0, 1])}, "labels must be int32"),
        ({"classes": ("x", "x", "y")}, "different names"),
        ({"files": ("a",)}, "files must be of 2 examples"),
    ],
)
def test_annotations_that_cannot_be(changes, message):
    fields = {
        "keys": ("a", "b"),
        "files": ("a", "b"),
        "labels": np.array([0, -1], np.int32),
        "test": np.array([False, True]),
        "classes": ("x", "y", "z"),
    }
    assert len(Annotations(**fields).at([1])) == 1
    with pytest.raises(ValueError, match=message):
        Annotations(**{**fields, **changes})
