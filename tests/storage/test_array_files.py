import io
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from jalpose.storage import records
from jalpose.storage.records import WorkdirError


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_arrays_round_trip(tmp_path):
    arrays = {
        "scores": np.array([1.5, np.nan], np.float32),
        "ids": np.arange(3),
        "keys": np.array(["a", "bc"]),
        "file": np.zeros((0, 4), np.int8),
        "workdir": np.asfortranarray(np.eye(3)),
    }
    records.write_arrays(tmp_path, 1, **arrays)
    back = records.read_arrays(tmp_path, 1)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_equal_arrays_give_equal_bytes(tmp_path, monkeypatch):
    a, b = np.arange(4), np.ones(2)
    records.write_arrays(tmp_path, 0, a=a, b=b)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    records.write_arrays(tmp_path, 1, b=b, a=a)
    first, second = ((tmp_path / "arrays" / f"cycle_0{i}.npz") for i in (0, 1))
    assert first.read_bytes() == second.read_bytes()


MIXED = {
    "scores": np.array([1.5, np.nan], np.float32),
    "ids": np.arange(3),
    "keys": np.array(["a", "bc"]),
    "none": np.zeros((0, 4), np.int8),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "number": np.float64(2.5),
}


def at_once(arrays):
    """An archive of arrays, made in memory as a whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            with archive.open(
                zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True
            ) as file:
                np.lib.format.write_array(file, np.asarray(arrays[name]))
    return buffer.getvalue()


def test_arrays_written_in_pieces_are_the_bytes_of_the_whole(tmp_path):
    mapped = np.memmap(tmp_path / "mapped", np.float32, "w+", shape=(5, 3))
    mapped[:] = np.arange(15).reshape(5, 3)
    arrays = {**MIXED, "mapped": mapped}
    records.write_npz(tmp_path / "a.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == at_once(arrays)


def test_arrays_that_are_added_give_the_bytes_of_the_whole(tmp_path):
    path = tmp_path / "arrays" / "cycle_00.npz"
    some = {name: MIXED[name] for name in ("ids", "turned", "none")}
    records.write_arrays(tmp_path, 0, **some, scores=np.zeros(7))
    records.add_arrays(tmp_path, 0, **{k: MIXED[k] for k in MIXED.keys() - some})
    assert path.read_bytes() == at_once(MIXED)  # the scores are the later ones
    records.add_arrays(tmp_path, 0)
    assert path.read_bytes() == at_once(MIXED)
    with pytest.raises(FileNotFoundError, match="cycle_01"):
        records.add_arrays(tmp_path, 1, **some)


def test_arrays_are_added_in_pieces(tmp_path):
    large = np.memmap(tmp_path / "large", np.uint8, "w+", shape=2**26)
    records.write_arrays(tmp_path, 0, old=large)
    tracemalloc.start()
    try:
        records.add_arrays(tmp_path, 0, new=large)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "arrays" / "cycle_00.npz").stat().st_size > 2 * 2**26
    assert peak < 2**26  # pieces of 16 MiB, of 128 MiB written


def test_arrays_are_read_by_name(tmp_path):
    records.write_arrays(tmp_path, 0, **MIXED)
    found = records.read_arrays(tmp_path, 0, ("ids", "keys"))
    assert list(found) == ["ids", "keys"] and found["keys"].tolist() == ["a", "bc"]
    with pytest.raises(WorkdirError, match=r"cycle_00\.npz is damaged.*joints"):
        records.read_arrays(tmp_path, 0, ("joints",))


def test_nothing_is_added_to_damaged_arrays(tmp_path):
    records.write_arrays(tmp_path, 0, x=np.arange(100))
    path = tmp_path / "arrays" / "cycle_00.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    for damaged in (bytes(data), bytes(data[:-40])):
        path.write_bytes(damaged)
        with pytest.raises(WorkdirError, match=r"cycle_00\.npz is damaged"):
            records.add_arrays(tmp_path, 0, y=np.arange(3))
        assert path.read_bytes() == damaged and files_in(tmp_path) == [
            "arrays/cycle_00.npz"
        ]
        # What is put in its place is not read.
    path.write_bytes(bytes(data))
    records.add_arrays(tmp_path, 0, x=np.arange(3))
    assert records.read_arrays(tmp_path, 0)["x"].tolist() == [0, 1, 2]


def test_bfloat16_arrays_become_float32(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    records.write_arrays(tmp_path, 0, x=np.array([1.5], bfloat16))
    assert records.read_arrays(tmp_path, 0)["x"].dtype == np.float32
    records.write_cycle(tmp_path, {"cycle": 0, "x": bfloat16(1.5)})
    assert records.read_cycles(tmp_path)[0]["x"] == 1.5


def test_objects_are_no_arrays(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        records.write_arrays(tmp_path, 0, x=np.array([{}, None]))
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_damaged_arrays_are_named(tmp_path, damage):
    records.write_arrays(tmp_path, 0, x=np.arange(100))
    path = tmp_path / "arrays" / "cycle_00.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    cut = path.read_bytes()[:-40]
    damaged = {"cut": cut, "flipped": bytes(data), "empty": b"", "text": b"hello"}
    path.write_bytes(damaged[damage])
    with pytest.raises(WorkdirError, match=r"cycle_00\.npz is damaged"):
        records.read_arrays(tmp_path, 0)
