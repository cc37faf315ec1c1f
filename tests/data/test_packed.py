"""Crops that are kept: cut once, right whatever happens to the files."""

import errno
import os
import warnings

import numpy as np
import pytest

from jalpose.data.packed import CropsInMemory, PackedCrops
from jalpose.tasks.pose.sources import load_dataset
from tests.support import miniature, small

SIZE = 8


class Cutter:
    """Cuts crops of an example's own, and counts."""

    def __init__(self):
        self.cut = []

    def __call__(self, example):
        def cut():
            self.cut.append(example)
            return np.random.default_rng(example).integers(
                0, 256, (SIZE, SIZE, 3), np.uint8
            )

        return cut


def get(packed, cutter, example):
    return packed.get(example, cutter(example))


def test_a_crop_is_cut_once_and_read_by_whoever_comes_after(tmp_path):
    cutter, packed = Cutter(), PackedCrops(tmp_path, "set", SIZE)
    first = [get(packed, cutter, example) for example in (5, 0, 5, 3)]
    again = PackedCrops(tmp_path, "set", SIZE)
    second = [get(again, cutter, example) for example in (5, 0, 5, 3)]
    assert cutter.cut == [5, 0, 3]
    for crops in zip(first, second, strict=True):
        assert np.array_equal(*crops)
        assert crops[1].shape == (SIZE, SIZE, 3)


def test_another_set_or_size_is_kept_apart(tmp_path):
    cutter = Cutter()
    for name, size in (("set", SIZE), ("other", SIZE), ("set", 2 * SIZE)):
        get(PackedCrops(tmp_path, name, size), cutter, 1)
    assert cutter.cut == [1, 1, 1]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("file", ["crops.bin", "sums.bin"])
@pytest.mark.parametrize("harm", ["flipped", "cut"])
def test_a_damaged_crop_is_cut_anew(file, harm, tmp_path):
    cutter, packed = Cutter(), PackedCrops(tmp_path, "set", SIZE)
    expected = [get(packed, cutter, example).copy() for example in range(3)]
    (path,) = tmp_path.glob(f"*/{file}")
    data = bytearray(path.read_bytes())
    at = len(data) - len(data) // 6  # of the last example
    data[at] ^= 1
    path.write_bytes(data if harm == "flipped" else data[:at])
    cutter.cut.clear()
    for _ in range(2):
        found = [get(packed, cutter, example) for example in range(3)]
        assert np.array_equal(found, expected)
    assert cutter.cut == [2]


def test_without_room_crops_are_cut_each_time_and_that_is_told_once(
    tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    cutter, packed = Cutter(), PackedCrops(tmp_path, "set", SIZE)
    expected = get(packed, cutter, 1)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(UserWarning, match="No space left.*data.packed=False"):
        get(packed, cutter, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(get(packed, cutter, 1), expected)
        get(packed, cutter, 2)
    assert cutter.cut == [1, 2, 1, 2]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.warns(UserWarning, match="crops are not kept in"):
        packed = PackedCrops(tmp_path / "file", "set", SIZE)
    assert get(packed, Cutter(), 1).shape == (SIZE, SIZE, 3)


def test_crops_of_image_files_are_those_that_are_cut(tmp_path):
    miniature.write_miniature(tmp_path / "raw", 40, 9, image_size=(48, 64))
    changes = {
        "data.name": "lsp",
        "data.dir": str(tmp_path / "raw"),
        "data.cache_dir": str(tmp_path / "cache"),
        "data.initial": 20,
        "data.pool": 9,
        "data.test": 20,
    }
    kept = load_dataset(small.configure(changes).data, 0)
    cut = load_dataset(small.configure({**changes, "data.packed": False}).data, 0)
    assert kept.packed is not None
    assert cut.packed is None
    for _ in range(2):
        for example in (0, 7, int(kept.pool[0])):
            assert np.array_equal(kept.crop(example, 32), cut.crop(example, 32))
            # Of another size they are cut.
            assert np.array_equal(kept.crop(example, 16), cut.crop(example, 16))
    (sums,) = (tmp_path / "cache").glob("crops-32-*/sums.bin")
    assert np.count_nonzero(np.fromfile(sums, np.uint32)) == 3


def test_in_memory_as_many_are_kept_as_there_is_room_for():
    cutter, packed = Cutter(), CropsInMemory(SIZE, limit=2 * SIZE * SIZE * 3)
    crops = [get(packed, cutter, example) for example in (5, 0, 5, 3, 3, 0)]
    assert cutter.cut == [5, 0, 3, 3]
    alone = Cutter()
    for example, crop in zip((5, 0, 5, 3, 3, 0), crops, strict=True):
        np.testing.assert_array_equal(crop, alone(example)())
    with pytest.raises(ValueError, match="read-only"):
        crops[0][0] = 0


def test_figures_are_drawn_once():
    data = small.configure().data
    kept = load_dataset(data, 0)
    with data.unlocked():
        data.packed = False
    drawn = load_dataset(data, 0)
    assert drawn.packed is None
    for example in (0, 3, 0):
        crop = kept.crop(example, data.size)
        np.testing.assert_array_equal(crop, drawn.crop(example, data.size))
    assert kept.crop(3, data.size) is kept.crop(3, data.size)
