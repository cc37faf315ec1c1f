"""The journal: in memory and in a folder, damaged, half-written, and on a full disk."""

import errno
import json
import os
import re
import warnings

import numpy as np
import pytest

from jalpose.storage import journal
from jalpose.storage.journal import FolderJournal, Journal
from jalpose.storage.records import WorkdirError
from tests.support import small
from tests.support.disk import fill_disk

PASS = "reduce <lambda> network"
FILE = "reduce%20%3Clambda%3E%20network"  # the same, as a file may be called


def block(first, rows):
    """Rows of one pass: what a row holds is decided by its number."""
    numbers = np.arange(first, first + rows)
    return {
        "embedding": (numbers[:, None] * 7 + np.arange(3)).astype(np.float32),
        "found": numbers % 3 == 0,
        "id": numbers * 11,
        "nothing": np.zeros((rows, 0), np.float32),
    }


def other(first, rows):
    return {"value": np.arange(first, first + rows, dtype=np.float64)}


SIZES = (4, 4, 1, 5)


def filled(found):
    """`found` with four blocks of one pass, and between them those of another."""
    for number, rows in enumerate(SIZES):
        found.append(PASS, block(sum(SIZES[:number]), rows))
        found.append("other", other(2 * number, 2))
    found.sync()
    return found


def complete(found):
    """Add what is missing, as a probe would that goes on: `found`."""
    for name, make, total in ((PASS, block, 14), ("other", other, 8)):
        while found.rows(name) < total:
            rows = min(3, total - found.rows(name))
            found.append(name, make(found.rows(name), rows))
    found.sync()
    return found


def opened(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return FolderJournal(folder, **options)


def bytes_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Both forms.


@pytest.mark.parametrize("form", ["memory", "folder", "reopened"])
def test_what_was_appended_is_read_in_both_forms(tmp_path, form):
    made = Journal() if form == "memory" else opened(tmp_path)
    found = filled(made)
    if form == "reopened":
        found = opened(tmp_path)
    assert found.names() == [PASS, "other"]
    assert (found.rows(PASS), found.rows("other"), found.rows("third")) == (14, 8, 0)
    assert found.read("third") == {}
    for read, wanted in (
        (found.read(PASS), block(0, 14)),
        (found.read("other"), other(0, 8)),
    ):
        assert read.keys() == wanted.keys()
        for key, value in wanted.items():
            assert read[key].dtype == value.dtype and read[key].shape == value.shape
            assert type(read[key]) is np.ndarray
            assert read[key].tobytes() == value.tobytes(), key
            with pytest.raises(ValueError, match="read-only"):
                read[key][...] = 1


def test_the_same_blocks_give_the_same_bytes(tmp_path):
    filled(opened(tmp_path / "a"))
    filled(opened(tmp_path / "b"))
    assert bytes_in(tmp_path / "a") == bytes_in(tmp_path / "b")
    sizes = {name: len(data) for name, data in bytes_in(tmp_path / "a").items()}
    assert sizes.pop("index.jsonl") > 0
    assert sizes == {
        f"{FILE}.embedding.bin": 14 * 12,
        f"{FILE}.found.bin": 14,
        f"{FILE}.id.bin": 14 * 8,
        f"{FILE}.nothing.bin": 0,
        "other.value.bin": 8 * 8,
    }


def test_rows_read_before_stay_while_more_are_appended(tmp_path):
    for found in (Journal(), opened(tmp_path)):
        found.append(PASS, block(0, 3))
        before = found.read(PASS)
        found.append(PASS, block(3, 3))
        assert before["id"].tolist() == [0, 11, 22]
        assert found.read(PASS)["id"].tolist() == [0, 11, 22, 33, 44, 55]
        assert before["id"].tolist() == [0, 11, 22]


def test_a_copy_in_memory_goes_on_alone():
    first = Journal()
    first.append(PASS, block(0, 3))
    second = first.copy()
    second.append(PASS, block(3, 3))
    second.append("other", other(0, 1))
    assert first.rows(PASS) == 3 and first.names() == [PASS]
    assert second.read(PASS)["id"].tolist() == [0, 11, 22, 33, 44, 55]
    assert first.read(PASS)["id"].tolist() == [0, 11, 22]


def test_a_copy_of_a_folder_is_the_folder(tmp_path):
    found = opened(tmp_path)
    assert found.copy() is found


def test_no_rows_are_no_pass(tmp_path):
    for found in (Journal(), opened(tmp_path)):
        found.append(PASS, block(0, 0))
        assert found.names() == [] and found.rows(PASS) == 0


def test_mapped_rows_are_not_in_memory(tmp_path):
    found = opened(tmp_path)
    found.append(PASS, block(0, 3))
    value = found.read(PASS)["embedding"]
    while isinstance(value, np.ndarray) and not isinstance(value, np.memmap):
        value = value.base
    assert isinstance(value, np.memmap)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"value": np.zeros(2, np.float32)}, "those before"),
        ({"value": np.zeros((2, 1))}, "those before"),
        ({"more": np.zeros(2)}, "those before"),
        ({"value": np.zeros(2), "more": np.zeros(3)}, "a row each"),
        ({"value": np.zeros(())}, "a row each"),
        ({"value": np.array([None, 1])}, "value has a dtype that is not kept: object"),
        ({"value": np.array(["a", "b"])}, "value has a dtype that is not kept: <U1"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path, arrays, message):
    for found in (Journal(), opened(tmp_path)):
        found.append("other", other(0, 2))
        with pytest.raises(ValueError, match=message):
            found.append("other", arrays)
        assert found.read("other")["value"].tolist() == [0, 1]


def test_bfloat16_is_kept(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    values = np.array([1.5, 2.5], bfloat16)
    opened(tmp_path).append("x", {"v": values})
    assert opened(tmp_path).read("x")["v"].dtype == bfloat16
    assert opened(tmp_path).read("x")["v"].tolist() == [1.5, 2.5]


# Damage.


def cut(path, count):
    os.truncate(path, path.stat().st_size - count)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def drop_line(path, number):
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[number - 1]
    path.write_bytes(b"".join(lines))


# What is done to the folder, the warnings, and the rows of both passes that are left.
# Index: 1 header, 2 rows 0-3, 3 other 0-1, 4 rows 4-7, 5 other 2-3, 6 row 8, 7 other
# 4-5, 8 rows 9-13, 9 other 6-7.
EMBEDDING, IDS, INDEX = f"{FILE}.embedding.bin", f"{FILE}.id.bin", "index.jsonl"
DAMAGE = {
    "a file cut off in its last block": (
        lambda folder: cut(folder / EMBEDDING, 1),
        [rf"{EMBEDDING} is cut off .*rows 9 to 13, .*line 8.*from row 9 on"],
        (9, 8),
    ),
    "a file cut off in an early block": (
        lambda folder: cut(folder / IDS, 14 * 8 - 33),
        [rf"{IDS} is cut off .*rows 4 to 7, .*line 4.*from row 4 on"],
        (4, 8),
    ),
    "a flipped bit": (
        lambda folder: flip(folder / EMBEDDING, 12 * 8 + 1),
        [rf"{EMBEDDING} is damaged .*rows 8 to 8, .*line 6.*from row 8 on"],
        (8, 8),
    ),
    "a flipped bit in the first block": (
        lambda folder: flip(folder / "other.value.bin", 0),
        [r"other\.value\.bin is damaged .*rows 0 to 1, .*line 3.*from row 0 on"],
        (14, 0),
    ),
    "a missing file": (
        lambda folder: (folder / IDS).unlink(),
        [rf"{IDS} is missing .*rows 0 to 3.*from row 0 on"],
        (0, 8),
    ),
    "a line half written": (
        lambda folder: cut(folder / INDEX, 20),
        [r"index\.jsonl:9 is damaged or half-written"],
        (14, 6),
    ),
    "a line without its end": (
        lambda folder: cut(folder / INDEX, 1),
        [r"index\.jsonl:9 is damaged or half-written"],
        (14, 6),
    ),
    "a flipped bit in a line": (
        lambda folder: flip(folder / INDEX, (folder / INDEX).read_bytes().find(b"8, ")),
        [r"index\.jsonl:\d is damaged", "does not go on at row"],
        None,
    ),
    "a line that is gone": (
        lambda folder: drop_line(folder / INDEX, 4),
        [r"index\.jsonl does not go on at row 4 .*rows 8 to 8.*from row 4 on"],
        (4, 8),
    ),
    "a line that is there twice": (
        lambda folder: (folder / INDEX).write_bytes((folder / INDEX).read_bytes() * 2),
        ["does not go on at row 14", "does not go on at row 8", ":10 is damaged"],
        (14, 8),
    ),
    "no index": (
        lambda folder: (folder / INDEX).unlink(),
        [r"is discarded, its header is damaged or missing"],
        (0, 0),
    ),
    "a damaged header": (
        lambda folder: flip(folder / INDEX, 14),
        [r"is discarded, its header is damaged or missing"],
        (0, 0),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_named_and_computed_again(tmp_path, name):
    damage, messages, rows = DAMAGE[name]
    filled(opened(tmp_path / "whole"))
    filled(opened(tmp_path / "damaged"))
    damage(tmp_path / "damaged")
    with pytest.warns() as told:
        found = FolderJournal(tmp_path / "damaged")
    told = [str(warning.message) for warning in told]
    for message in messages:
        assert any(re.search(message, text) for text in told), told
    if rows is not None:
        assert (found.rows(PASS), found.rows("other")) == rows
    again = opened(tmp_path / "damaged")  # once is enough, warnings are errors here
    assert small.same_journals(again, found)
    assert small.same_journals(complete(again), filled(Journal()))
    assert small.same_journals(opened(tmp_path / "damaged"), filled(Journal()))
    sizes = [
        {n: len(data) for n, data in bytes_in(tmp_path / part).items() if n != INDEX}
        for part in ("whole", "damaged")
    ]
    assert sizes[0] == sizes[1]


def test_data_without_a_line_is_not_there_and_written_over(tmp_path):
    # As a kill between the two leaves it.
    filled(opened(tmp_path))
    for name in (EMBEDDING, IDS):
        with open(tmp_path / name, "ab") as file:
            file.write(b"half a block")
    found = opened(tmp_path)
    assert small.same_journals(found, filled(Journal()))
    found.append(PASS, block(14, 4))
    assert opened(tmp_path).read(PASS)["id"].tolist() == block(0, 18)["id"].tolist()


def test_the_index_says_what_is_where(tmp_path):
    found = opened(tmp_path, fingerprint="abc")
    found.append("other", other(0, 2))
    header, line = map(json.loads, (tmp_path / INDEX).read_text().splitlines())
    assert header["fingerprint"] == "abc" and header["journal"] == journal.FORMAT
    assert line["pass"] == "other" and line["first"] == 0 and line["rows"] == 2
    dtype, shape, _ = line["arrays"]["value"]
    assert dtype == "float64" and shape == []


def test_what_another_fingerprint_has_left_is_discarded(tmp_path):
    filled(opened(tmp_path, fingerprint="one"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.warns(UserWarning, match=r"is discarded, it is of other weights"):
        found = FolderJournal(tmp_path, fingerprint="two")
    assert found.names() == []
    assert sorted(bytes_in(tmp_path)) == [INDEX, "notes.txt"]
    found.append(PASS, block(0, 2))
    assert opened(tmp_path, fingerprint="two").rows(PASS) == 2


def test_removing_takes_the_journal_and_nothing_else(tmp_path):
    for name in ("a", "b"):
        filled(opened(tmp_path / name))
    (tmp_path / "b" / "notes.txt").write_text("mine")
    for name in ("a", "b", "never there"):
        journal.remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert bytes_in(tmp_path / "b") == {"notes.txt": b"mine"}


# One process writes, others read.


def test_a_reader_sees_at_each_sync_what_the_writer_has_finished(tmp_path):
    reader = opened(tmp_path, fingerprint="one", writer=False)
    assert reader.names() == [] and list(tmp_path.iterdir()) == []
    writer = opened(tmp_path, fingerprint="one")
    for count in (4, 8):
        writer.append(PASS, block(count - 4, 4))
        assert reader.rows(PASS) == count - 4
        reader.sync()
        assert reader.rows(PASS) == count
        assert reader.read(PASS)["id"].tolist() == block(0, count)["id"].tolist()
    before = bytes_in(tmp_path)
    reader.append(PASS, block(8, 4))
    assert reader.rows(PASS) == 8 and bytes_in(tmp_path) == before


def test_a_reader_never_discards_and_sees_when_the_writer_begins_anew(tmp_path):
    filled(opened(tmp_path, fingerprint="one"))
    before = bytes_in(tmp_path)
    reader = opened(tmp_path, fingerprint="two", writer=False)
    assert reader.names() == [] and bytes_in(tmp_path) == before
    with pytest.warns(UserWarning, match="discarded"):
        writer = FolderJournal(tmp_path, fingerprint="two")
    writer.append(PASS, block(0, 2))
    reader.sync()
    assert reader.rows(PASS) == 2
    journal.remove(tmp_path)
    reader.sync()
    assert reader.names() == []


def test_a_reader_waits_for_the_end_of_a_line(tmp_path):
    writer = filled(opened(tmp_path))
    reader = opened(tmp_path, writer=False)
    whole = (tmp_path / INDEX).read_bytes()
    writer.append(PASS, block(14, 2))
    line = (tmp_path / INDEX).read_bytes()[len(whole) :]
    with open(tmp_path / INDEX, "r+b") as file:  # the same file, not a new one
        file.truncate(len(whole) + 30)
    reader.sync()
    assert reader.rows(PASS) == 14
    with open(tmp_path / INDEX, "r+b") as file:
        file.seek(len(whole))
        file.write(line)
    reader.sync()
    assert reader.rows(PASS) == 16


def test_a_reader_takes_no_damaged_block(tmp_path):
    filled(opened(tmp_path))
    flip(tmp_path / EMBEDDING, 12 * 8)
    reader = opened(tmp_path, writer=False)
    assert (reader.rows(PASS), reader.rows("other")) == (8, 8)
    with pytest.warns(UserWarning, match="is damaged"):
        complete(FolderJournal(tmp_path))
    reader.sync()
    assert small.same_journals(reader, filled(Journal()))


# A full disk.


def test_a_full_disk_is_told_and_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    enough = 10**6
    room = fill_disk(monkeypatch, enough)
    reference = filled(opened(tmp_path / "whole"))
    needed = enough - room.left
    for limit in range(0, needed, 97):
        folder = tmp_path / str(limit)
        room.left = limit
        with pytest.raises(WorkdirError, match=r"No space left.*Make room.*resumes"):
            filled(opened(folder))
        room.left = enough
        found = opened(folder)  # without a warning: what was cut off is gone
        assert small.same_journals(complete(found), reference)
        assert small.same_journals(opened(folder), reference)


def test_a_journal_that_found_no_room_goes_on_when_there_is(tmp_path, monkeypatch):
    enough = 10**6
    room = fill_disk(monkeypatch, enough)
    found = opened(tmp_path)
    for limit in (0, 10, 60, 100):
        rows = found.rows(PASS)
        room.left = limit
        with pytest.raises(WorkdirError, match="No space left"):
            found.append(PASS, block(rows, 4))
        assert found.rows(PASS) == rows
        room.left = enough
        found.append(PASS, block(rows, 4))
    for again in (found, opened(tmp_path)):
        assert again.read(PASS)["id"].tolist() == block(0, 16)["id"].tolist()


def test_a_full_disk_at_the_flush_is_told(tmp_path, monkeypatch):
    found = opened(tmp_path)
    found.append(PASS, block(0, 4))

    def fsync(descriptor):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(WorkdirError, match=r"\.bin could not be written: .*quota"):
            found.sync()
    found.sync()
    assert opened(tmp_path).rows(PASS) == 4


def test_other_errors_of_the_disk_are_not_explained_away(tmp_path, monkeypatch):
    found = opened(tmp_path)

    def pwrite(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="Input/output error"):
        found.append(PASS, block(0, 4))
    assert found.rows(PASS) == 0
