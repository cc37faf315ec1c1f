"""CIFAR-10 and CIFAR-100: both versions as shipped, faults, and the real parts."""

import logging
import pickle
import pickletools
import re
import struct
import subprocess

import numpy as np
import pytest

from jalpose.data.pipeline import CropSource, blocks_in_order
from jalpose.data.source import DataError
from jalpose.tasks.classification import cifar
from jalpose.tasks.classification.sources import load_dataset
from tests.support.class_miniature import (
    data_section,
    drawn,
    planes,
    real_data_dir,
    write_cifar,
)

NAMES, VERSIONS = ("cifar10", "cifar100"), ("binary", "python")


def load(folder, name="cifar10", seed=0, **changes):
    return load_dataset(data_section(folder, name, **changes), seed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("packed", [True, False])
def test_pixels_and_labels_are_those_of_the_files(tmp_path, name, version, packed):
    counts = (60, 30) if name == "cifar10" else (90,)
    write_cifar(tmp_path, name, version, counts)
    dataset = load(tmp_path, name, packed=packed)
    labels, images = (
        np.concatenate(parts)
        for parts in zip(
            *(
                drawn(count, number, cifar.LAYOUTS[name].counts["fine"])
                for number, count in enumerate((*counts, 20))
            ),
            strict=True,
        )
    )
    np.testing.assert_array_equal(dataset.truth["class"], labels)
    assert dataset.truth["class"].dtype == np.int32
    for _ in range(2):  # cut, then read as kept
        for example in range(len(labels)):
            np.testing.assert_array_equal(dataset.crop(example, 32), images[example])
    np.testing.assert_array_equal(dataset.test, sum(counts) + np.arange(20))
    train = np.sort(np.concatenate([dataset.initial, dataset.pool]))
    np.testing.assert_array_equal(train, np.arange(sum(counts)))


def test_an_example_is_the_same_in_both_versions(tmp_path):
    datasets = []
    for version in VERSIONS:
        write_cifar(tmp_path / version, version=version)
        datasets.append(load(tmp_path / version))
    one, two = datasets
    assert one.keys == two.keys
    assert one.keys[61] == "cifar10/data_batch_2/00001"
    assert one.digests == two.digests
    np.testing.assert_array_equal(one.checksums(), two.checksums())


def test_coarse_labels(tmp_path):
    for version in VERSIONS:
        folder = tmp_path / version
        write_cifar(folder, "cifar100", version, (200,))
        found = cifar.find("cifar100", str(folder), "coarse").annotations
        assert len(found.classes) == 20
        np.testing.assert_array_equal(found.labels[:200], np.arange(200) % 100 // 5)


def test_names_of_the_classes(tmp_path):
    folder = write_cifar(tmp_path)
    found = cifar.find("cifar10", str(tmp_path)).annotations
    assert found.classes[:2] == ("fine 0", "fine 1")
    (folder / "batches.meta.txt").unlink()
    found = cifar.find("cifar10", str(tmp_path)).annotations
    assert found.classes[0] == "airplane" and found.classes[9] == "truck"
    (folder / "batches.meta.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match="2 different names in 2; CIFAR10 has 10"):
        cifar.find("cifar10", str(tmp_path))


def test_what_is_there_is_taken_and_told(tmp_path, caplog):
    folder = write_cifar(tmp_path, counts=(10, 10, 10, 10, 10))
    (folder / "data_batch_3.bin").unlink()
    with caplog.at_level(logging.WARNING):
        found = cifar.find("cifar10", str(tmp_path)).annotations
    assert len(found) == 40 + 20
    assert "CIFAR10 has 40 of its 50,000 training records: 10 in data_batch_1.bin" in (
        caplog.text
    )
    assert "there is no data_batch_3.bin" in caplog.text
    assert found.keys[20] == "cifar10/data_batch_4/00000"


def test_more_than_there_are(tmp_path):
    write_cifar(tmp_path)
    for key, value, limit in (("initial", 91, 90), ("pool", 51, 50), ("test", 21, 20)):
        with pytest.raises(DataError, match=f"data.{key}={value}, .* has {limit} exam"):
            load(tmp_path, **{key: value})


# Faults.


def test_missing_folders_are_named_with_where_the_set_is_had(tmp_path):
    where = r"Looked for .*cifar-10-batches-bin.*cifar-10-batches-py.*JALPOSE_DATA.*"
    url = r"www\.cs\.toronto\.edu/~kriz/cifar\.html.*cifar-10-binary\.tar\.gz"
    with pytest.raises(DataError, match=f"No data folder .*nowhere.*{where}{url}"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"No CIFAR10 in the data folder.*{where}{url}"):
        load(tmp_path)
    write_cifar(tmp_path).rename(tmp_path / "cifar-10-batches-bin")
    with pytest.raises(DataError, match=r"but .* has 'cifar-10-batches-bin': move it"):
        load(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_missing_files_are_named(tmp_path, version):
    folder = write_cifar(tmp_path, version=version)
    ending = ".bin" if version == "binary" else ""
    (folder / f"test_batch{ending}").unlink()
    with pytest.raises(DataError, match=f"not whole: .* has no test_batch{ending}\\. "):
        load(tmp_path)
    for file in folder.glob("data_batch_*"):
        file.unlink()
    with pytest.raises(DataError, match=f"no data_batch_1{ending}, data_batch_2"):
        load(tmp_path)


def test_cifar100_needs_its_names(tmp_path):
    folder = write_cifar(tmp_path, "cifar100", counts=(100,))
    (folder / "fine_label_names.txt").unlink()
    with pytest.raises(DataError, match=r"No '.*fine_label_names\.txt', which names"):
        load(tmp_path, "cifar100")


def test_cut_files_and_labels_out_of_range_are_all_told_at_once(tmp_path):
    folder = write_cifar(tmp_path, counts=(10, 10, 10))
    cut = folder / "data_batch_1.bin"
    cut.write_bytes(cut.read_bytes()[:-5])
    (folder / "data_batch_2.bin").write_bytes(b"")
    wrong = folder / "data_batch_3.bin"
    data = bytearray(wrong.read_bytes())
    data[3 * 3073] = data[7 * 3073] = 10
    wrong.write_bytes(data)
    with pytest.raises(DataError) as error:
        load(tmp_path)
    message = str(error.value)
    assert re.search(
        r"data_batch_1\.bin' has 30,725 bytes.*3,073 bytes.*after 9", message
    )
    assert re.search(r"data_batch_2\.bin' has 0 bytes", message)
    said = (
        r"data_batch_3\.bin' has 2 labels outside 0 to 9: the first is 10, of record 3"
    )
    assert re.search(said, message)
    assert message.count("cs.toronto.edu") == 1


def rewrite(folder, stem, **changes):
    path = folder / stem
    batch = pickle.loads(path.read_bytes(), encoding="bytes")
    for key, value in changes.items():
        batch[key.encode()] = value
        if value is None:
            del batch[key.encode()]
    path.write_bytes(pickle.dumps(batch, protocol=2))


def test_faults_of_pickled_dicts(tmp_path):
    folder = write_cifar(tmp_path, version="python", counts=(10, 10, 10, 10, 10))
    rewrite(folder, "data_batch_1", labels=None)
    rewrite(folder, "data_batch_2", labels=[1, 2, 3])
    rewrite(folder, "data_batch_3", data=np.zeros((10, 3072), np.float32))
    rewrite(folder, "data_batch_4", labels=[-2] + 9 * [0])
    (folder / "data_batch_5").write_bytes(b"no pickle")
    with pytest.raises(DataError) as error:
        load(tmp_path)
    message = str(error.value)
    for said in (
        r"data_batch_1' has no labels \(it has batch_label, data, filenames\)",
        r"data_batch_2' has 3 labels for 10 images",
        r"'data' of '.*data_batch_3' is float32 \(10, 3072\), not uint8 \(N, 3072\)",
        r"data_batch_4' has 1 labels outside 0 to 9: the first is -2, of record 0",
        r"Cannot read '.*data_batch_5' as a pickle",
    ):
        assert re.search(said, message), said


class Foreign:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_that_ask_for_anything_else_are_refused_uncalled(tmp_path, protocol):
    folder, made = write_cifar(tmp_path, version="python"), tmp_path / "made"
    for foreign in (
        Foreign(subprocess.check_call, ["touch", str(made)]),
        Foreign(eval, f"open({str(made)!r}, 'w')"),
        Foreign(np.load, str(made)),
    ):
        batch = {b"data": foreign, b"labels": [0]}
        (folder / "data_batch_2").write_bytes(pickle.dumps(batch, protocol=protocol))
        with pytest.raises(DataError, match="data_batch_2' is a pickle that asks for "):
            load(tmp_path)
        assert not made.exists()


def test_a_pickle_that_is_no_dict(tmp_path):
    folder = write_cifar(tmp_path, version="python")
    (folder / "data_batch_1").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="holds a pickled list, not a dict"):
        load(tmp_path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_arrays_are_read_by_whatever_protocol(tmp_path, protocol):
    folder = write_cifar(tmp_path, version="python", counts=(90,))
    labels, images = drawn(90, 5)
    batch = {"data": planes(images), "labels": labels}  # text keys, labels an array
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=protocol))
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.truth["class"][:90], labels)
    np.testing.assert_array_equal(dataset.image(7), images[7])


def python2_pickle(labels, data):
    """A batch as the authors' files have it: pickled by Python 2 and its NumPy."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def whole(value):
        return b"J" + struct.pack("<i", value)

    def name(module, function):
        return f"c{module}\n{function}\n".encode()

    dtype = (
        name("numpy", "dtype") + text(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"|") + b"NNN" + whole(-1) + whole(-1) + b"K\x00tb"
    )
    raw = data.tobytes()
    array = (
        name("numpy.core.multiarray", "_reconstruct")
        + name("numpy", "ndarray")
        + b"K\x00\x85"
        + text(b"b")
        + b"\x87R"
        + b"(K\x01"
        + whole(len(data))
        + whole(data.shape[1])
        + b"\x86"
        + dtype
        + b"\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}("
        + text(b"batch_label")
        + text(b"training batch 1 of 5")
        + text(b"labels")
        + listed
        + text(b"data")
        + array
        + b"u."
    )


def test_pickles_of_python_2_are_read(tmp_path):
    folder = write_cifar(tmp_path, version="python", counts=(90,))
    labels, images = drawn(90, 5)
    encoded = python2_pickle(labels.tolist(), planes(images))
    assert {op.name for op, *_ in pickletools.genops(encoded)} >= {"BINSTRING", "BUILD"}
    (folder / "data_batch_1").write_bytes(encoded)
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.truth["class"][:90], labels)
    for example in (0, 44, 89):
        np.testing.assert_array_equal(dataset.crop(example, 32), images[example])


# The real parts.


def real(name):
    folder = real_data_dir(name)
    if folder is None:
        pytest.skip(f"no {name}/ in JALPOSE_DATA or ../shared/data")
    return folder


@pytest.mark.slow
@pytest.mark.data
def test_real_cifar10(tmp_path):
    folder = real("cifar10")
    shipped = cifar.find("cifar10", folder)
    found = shipped.annotations
    assert found.classes[:3] == ("airplane", "automobile", "bird")
    first = f"{folder}/cifar10/cifar-10-batches-bin/data_batch_1.bin"
    records = np.fromfile(first, np.uint8).reshape(-1, 3073)
    np.testing.assert_array_equal(found.labels[: len(records)], records[:, 0])
    counts = np.bincount(found.labels[~found.test], minlength=10)
    assert counts.min() == counts.max()  # balanced, as its authors say
    dataset = load(folder, cache_dir=str(tmp_path), initial=1000)
    for example in (0, 1, 4096, len(records) - 1):
        expected = records[example, 1:].reshape(3, 32, 32).transpose(1, 2, 0)
        np.testing.assert_array_equal(dataset.crop(example, 32), expected)
    # All test images as a network sees them, by way of Grain: the file's own pixels.
    last = f"{folder}/cifar10/cifar-10-batches-bin/test_batch.bin"
    records = np.fromfile(last, np.uint8).reshape(-1, 3073)
    labels = dataset.truth_of(dataset.test)
    source = CropSource(dataset, dataset.test, 32, labels)
    blocks = list(blocks_in_order(source, block=500, threads=2))
    seen = np.concatenate([block["image"][:count] for count, block in blocks])
    expected = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(seen, expected)
    said = np.concatenate([block["label"]["class"][:c] for c, block in blocks])
    np.testing.assert_array_equal(said, records[:, 0])


@pytest.mark.data
def test_real_cifar100(tmp_path):
    folder = real("cifar100")
    path = f"{folder}/cifar100/cifar-100-binary/train.bin"
    records = np.fromfile(path, np.uint8).reshape(-1, 3074)
    fine = load(folder, "cifar100", cache_dir=str(tmp_path), initial=1000)
    np.testing.assert_array_equal(fine.truth["class"][: len(records)], records[:, 1])
    coarse = cifar.find("cifar100", folder, "coarse").annotations
    np.testing.assert_array_equal(coarse.labels[: len(records)], records[:, 0])
    # Every fine class lies in one coarse class, five in each.
    pairs = {*zip(fine.truth["class"].tolist(), coarse.labels.tolist(), strict=True)}
    assert len(pairs) == 100
    assert np.bincount([c for _, c in pairs]).tolist() == [5] * 20
    expected = records[-1, 2:].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(fine.crop(len(records) - 1, 32), expected)
