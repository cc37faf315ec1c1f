"""SVHN's cropped digits: as shipped, and faults."""

import logging
import re

import numpy as np
import pytest
import scipy.io

from jalpose.data.source import DataError
from jalpose.tasks.classification import svhn
from jalpose.tasks.classification.sources import load_dataset
from tests.support.class_miniature import data_section, drawn, save_svhn, write_svhn


def load(folder, **changes):
    return load_dataset(data_section(folder, "svhn", **changes), 0)


def test_pixels_and_digits_are_those_of_the_files(tmp_path):
    write_svhn(tmp_path)
    dataset = load(tmp_path)
    for part, (count, start) in enumerate(((90, 0), (20, 90))):
        digits, images = drawn(count, part)
        rows = slice(start, start + count)
        np.testing.assert_array_equal(dataset.truth["class"][rows], digits)
        for row in range(count):
            np.testing.assert_array_equal(dataset.crop(start + row, 32), images[row])
    assert dataset.truth["class"].dtype == np.int32
    assert dataset.sources[0].annotations.classes[0] == "0"
    np.testing.assert_array_equal(dataset.test, 90 + np.arange(20))
    assert dataset.keys[90] == "svhn/test/00000"


def test_a_part_of_the_training_digits_is_told(tmp_path, caplog):
    write_svhn(tmp_path)
    with caplog.at_level(logging.WARNING):
        svhn.find(str(tmp_path))
    assert "SVHN has 90 of its 73,257 training digits" in caplog.text


def test_missing_files_are_named_with_where_the_set_is_had(tmp_path):
    where = r"Looked for .*train_32x32\.mat.*JALPOSE_DATA.*ufldl\.stanford\.edu"
    with pytest.raises(DataError, match=f"No data folder .*nowhere.*{where}"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"No SVHN in the data folder.*{where}"):
        load(tmp_path)
    folder = write_svhn(tmp_path)
    (folder / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match=f"has no test_32x32\\.mat. {where}"):
        load(tmp_path)
    (folder / "train").mkdir()
    with pytest.raises(DataError, match=r"format 1 are there; format 2 is meant"):
        load(tmp_path)


DIGITS, IMAGES = drawn(20, 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"X": None}, r"has no variable 'X' \(found: y\)"),
        ({"y": None}, r"has no variable 'y' \(found: X\)"),
        ({"X": None, "y": None, "z": 1}, r"no variable 'X' and no 'y' \(found: z\)"),
        ({"y": np.ones((19, 1))}, "has 19 labels in 'y' for 20 images in 'X'"),
        ({"y": np.ones((5, 4))}, r"'y' in .* is float64 \(5, 4\), not \(N, 1\)"),
        ({"y": np.full((20, 1), 11)}, "20 labels other than 1 to 10 .*first is 11"),
        (
            {"y": np.zeros((20, 1))},
            r"10 is the digit 0\): the first is 0.0, of image 0",
        ),
        ({"X": np.zeros((20, 32, 32, 3), np.uint8)}, r"uint8 \(20, 32, 32, 3\), not"),
        ({"X": np.zeros((32, 32, 3, 20))}, r"is double \(32, 32, 3, 20\), not uint8"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_variables_that_are_not_what_they_should_be(tmp_path, variables, message):
    folder = write_svhn(tmp_path)
    save_svhn(folder / "train_32x32.mat", DIGITS, IMAGES, **variables)
    (folder / "test_32x32.mat").write_bytes(b"no MATLAB file")
    with pytest.raises(DataError) as error:
        load(tmp_path)
    # Of both files at once.
    assert re.search(message, str(error.value)), error.value
    assert re.search(r"Cannot read '.*test_32x32\.mat' as a MATLAB", str(error.value))


def test_version_7_3_is_told(tmp_path):
    folder = write_svhn(tmp_path)
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path = folder / "train_32x32.mat"
    path.write_bytes(head + b"\x89HDF\r\n\x1a\n" + bytes(1000))
    with pytest.raises(DataError, match=r"version 7\.3 \(HDF5\).*save it with -v7\."):
        load(tmp_path)


def test_a_cut_file_is_read_once_and_told(tmp_path, monkeypatch):
    folder = write_svhn(tmp_path)
    path = folder / "train_32x32.mat"
    # `y` first, so that a cut loses pixels alone.
    scipy.io.savemat(
        path,
        {"y": DIGITS[:, None] % 10 + 1, "X": IMAGES.transpose(1, 2, 3, 0)},
        do_compression=True,
    )
    path.write_bytes(path.read_bytes()[:-3000])
    opened, usual = [], scipy.io.loadmat
    monkeypatch.setattr(
        scipy.io, "loadmat", lambda *a, **k: opened.append(k) or usual(*a, **k)
    )
    message = (
        r"20 of 40 images of SVHN are missing or damaged: .*\. Of the first: Cannot "
        r"read 'svhn/train/00000': Cannot read '.*train_32x32\.mat' as a MATLAB file"
    )
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    assert sum(k["variable_names"] == ["X"] for k in opened) == 2  # once a file
