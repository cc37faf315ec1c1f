import errno
import json
import os
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalpose.storage import records
from jalpose.storage.records import WorkdirError
from tests.support.disk import fill_disk

ROWS = [
    {
        "rank": 0,
        "id": np.int64(41),
        "key": "007",
        "file": "images/im 1, a.jpg",
        "score": np.float32(0.1),
        "neighbours": "lspet/im1:0.75|lspet/im2:0.25",
        "spread": 0.1,
    },
    {
        "rank": 1,
        "id": 7,
        "key": 'quoted "key"',
        "file": "images/im2.jpg",
        "score": float("nan"),
        "neighbours": "",
        "spread": None,
    },
]


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# A write is whole or not at all


def write_everything(workdir, value):
    row = {"rank": 0, "id": 1, "key": "a", "file": "a.jpg", "score": value}
    return {
        "config.json": lambda: records.write_config(workdir, {"value": value}),
        "cycles.jsonl": lambda: records.write_cycle(
            workdir, {"cycle": 0, "value": value}
        ),
        "selections/cycle_00.csv": lambda: records.write_selection(workdir, 0, [row]),
        "arrays/cycle_00.npz": lambda: records.write_arrays(workdir, 0, value=value),
    }


RECORDS = list(write_everything("", 0.0))


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize("name", RECORDS)
def test_a_write_that_fails_leaves_the_old_record(tmp_path, monkeypatch, name, step):
    write_everything(tmp_path, 1.0)[name]()
    before = (tmp_path / name).read_bytes()

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_everything(tmp_path, 2.0)[name]()
    assert files_in(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", RECORDS)
def test_a_full_disk_is_told_and_leaves_the_old_record(tmp_path, monkeypatch, name):
    write_everything(tmp_path, 1.0)[name]()
    before = (tmp_path / name).read_bytes()
    for room in range(0, len(before), 16):
        fill_disk(monkeypatch, room)
        with pytest.raises(WorkdirError, match=r"No space left.*Make room.*resumes"):
            write_everything(tmp_path, 2.0)[name]()
        monkeypatch.undo()
        assert files_in(tmp_path) == [name]
        assert (tmp_path / name).read_bytes() == before
    write_everything(tmp_path, 2.0)[name]()
    assert (tmp_path / name).read_bytes() != before


@pytest.mark.parametrize("name", RECORDS)
def test_a_quota_that_is_used_up_is_told(tmp_path, monkeypatch, name):
    def fail(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WorkdirError, match=r"quota exceeded.*Make room"):
        write_everything(tmp_path, 2.0)[name]()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("name", RECORDS)
def test_a_kill_before_the_rename_leaves_no_record(tmp_path, monkeypatch, name):
    # Killed: neither the rename nor the tidying up takes place.
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(SystemExit))
    monkeypatch.setattr(os, "unlink", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(SystemExit):
        write_everything(tmp_path, 1.0)[name]()
    monkeypatch.undo()
    (left,) = (tmp_path / name).parent.iterdir()
    assert left.name.startswith(".") and left.suffix == ".tmp"
    assert records.read_config(tmp_path) is None
    assert records.read_cycles(tmp_path) == []
    for read in (records.read_selection, records.read_arrays):
        with pytest.raises(FileNotFoundError, match="cycle_00"):
            read(tmp_path, 0)
    write_everything(tmp_path, 2.0)[name]()
    assert (tmp_path / name).exists()


def test_the_data_is_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace

    def watch(name, function):
        return lambda *args: (events.append(name), function(*args))[1]

    monkeypatch.setattr(os, "fsync", watch("fsync", sync))
    monkeypatch.setattr(os, "replace", watch("replace", replace))
    records.atomic_write_text(tmp_path / "new" / "a.txt", "ä")
    assert events == ["fsync", "replace", "fsync"]
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ä".encode()


# The workdir


def test_a_workdir_is_made_and_left_empty(tmp_path):
    records.check_workdir(tmp_path / "a" / "b")
    assert files_in(tmp_path) == []
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("below", ["", "run"], ids=["itself", "a parent"])
def test_a_workdir_that_is_a_file(tmp_path, below):
    (tmp_path / "taken").write_text("precious")
    workdir = tmp_path / "taken" / below
    with pytest.raises(WorkdirError, match=re.escape(str(workdir)) + ".*move away"):
        records.check_workdir(workdir)
    assert (tmp_path / "taken").read_text() == "precious"


def test_a_workdir_on_a_read_only_disk(tmp_path, monkeypatch):
    def refuse(self, data):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(WorkdirError, match=r"Read-only file system.*another folder"):
        records.check_workdir(tmp_path)


def test_a_workdir_on_a_full_disk_is_left_as_it_was(tmp_path, monkeypatch):
    def half(self, data):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", half)
    with pytest.raises(WorkdirError, match=r"No space left on device.*make room"):
        records.check_workdir(tmp_path)
    assert files_in(tmp_path) == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_workdir_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WorkdirError, match="Permission denied"):
        records.check_workdir(tmp_path)
    tmp_path.chmod(0o700)


# Config


def test_config_round_trip(tmp_path):
    assert records.read_config(tmp_path) is None
    config = {"b": {"rate": 2.5e-4, "clip": float("inf")}, "a": (1, np.int32(2))}
    records.write_config(tmp_path, config)
    text = (tmp_path / "config.json").read_text()
    assert text.index('"a"') < text.index('"b"') and text.endswith("}\n")
    back = records.read_config(tmp_path)
    assert back == {"a": [1, 2], "b": {"clip": "inf", "rate": 2.5e-4}}


@pytest.mark.parametrize("damage", [b'{"a": 1', b"\xff\xfe", b"[1]", b""])
def test_a_damaged_config_is_named(tmp_path, damage):
    (tmp_path / "config.json").write_bytes(damage)
    with pytest.raises(WorkdirError, match=r"config\.json is damaged"):
        records.read_config(tmp_path)


# Cycles


def test_cycles_are_added_replaced_and_kept_in_order(tmp_path):
    assert records.read_cycles(tmp_path) == []
    for cycle in (0, 2, 1):
        records.write_cycle(tmp_path, {"cycle": cycle, "seconds": 1.0})
    records.write_cycle(tmp_path, {"cycle": np.int64(1), "seconds": 2.0})
    assert records.read_cycles(tmp_path) == [
        {"cycle": 0, "seconds": 1.0},
        {"cycle": 1, "seconds": 2.0},
        {"cycle": 2, "seconds": 1.0},
    ]
    assert (tmp_path / "cycles.jsonl").read_text().count("\n") == 3


def test_cycles_are_truncated(tmp_path):
    records.truncate_cycles(tmp_path, 0)
    assert files_in(tmp_path) == []
    for cycle in range(4):
        records.write_cycle(tmp_path, {"cycle": cycle})
    records.truncate_cycles(tmp_path, 2)
    assert [r["cycle"] for r in records.read_cycles(tmp_path)] == [0, 1]
    records.truncate_cycles(tmp_path, 0)
    assert records.read_cycles(tmp_path) == []


def test_what_is_not_finite_is_null_in_a_cycle(tmp_path):
    values = [np.nan, float("inf"), np.float32("-inf"), 1]
    written = {"cycle": 0, "list": values, "array": np.array(values), "x": np.bool_(1)}
    records.write_cycle(tmp_path, written)
    expected = {"list": [None, None, None, 1], "array": [None, None, None, 1.0]}
    assert records.read_cycles(tmp_path) == [{"cycle": 0, **expected, "x": True}]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    single=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_floats_come_back_to_the_bit(tmp_path_factory, value, single):
    workdir = tmp_path_factory.mktemp("run")
    records.write_cycle(workdir, {"cycle": 0, "v": value, "s": np.float32(single)})
    (record,) = records.read_cycles(workdir)
    row = {"rank": 0, "id": 0, "key": "a", "file": "a", "score": value, "more": single}
    records.write_selection(workdir, 0, [row])
    (back,) = records.read_selection(workdir, 0)
    for read in ((record["v"], record["s"]), (back["score"], back["more"])):
        assert struct.pack("dd", *read) == struct.pack("dd", value, single)


@pytest.mark.parametrize(
    "line",
    ['{"cycle": 1, "se', "7", '{"cycles": 1}', '{"cycle": null}', '{"cycle": 0}', ""],
)
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "cycles.jsonl").write_text(f'{{"cycle": 0}}\n{line}\n')
    with pytest.raises(WorkdirError, match=r"cycles\.jsonl:2 is damaged"):
        records.read_cycles(tmp_path)


# Selections


def test_selection_golden(tmp_path):
    # A float32 0.1 is 0.10000000149011612: the file keeps what was computed.
    records.write_selection(tmp_path, 3, ROWS)
    assert (tmp_path / "selections" / "cycle_03.csv").read_text() == (
        "rank,id,key,file,score,neighbours,spread\n"
        '0,41,007,"images/im 1, a.jpg",0.10000000149011612,'
        "lspet/im1:0.75|lspet/im2:0.25,0.1\n"
        '1,7,"quoted ""key""",images/im2.jpg,nan,,\n'
    )


def test_selection_round_trip(tmp_path):
    records.write_selection(tmp_path, 3, ROWS)
    first, second = records.read_selection(tmp_path, 3)
    assert first == {**ROWS[0], "score": float(np.float32(0.1))}
    assert [type(first[name]) for name in ("id", "key", "score")] == [int, str, float]
    assert np.isnan(second.pop("score")) and second.pop("neighbours") is None
    assert second == {k: v for k, v in ROWS[1].items() if k in second}


def test_an_empty_selection(tmp_path):
    records.write_selection(tmp_path, 120, [])
    assert files_in(tmp_path) == ["selections/cycle_120.csv"]
    assert records.read_selection(tmp_path, 120) == []


def test_rows_of_different_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="row 2 has columns"):
        records.write_selection(tmp_path, 0, [ROWS[0], {"rank": 1}])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n",
        "rank,id,key,file,score\n0,1,a\n",
        "rank,id,key,file,score\n" + "1," * 6,
    ],
    ids=["empty", "columns", "short", "long"],
)
def test_a_damaged_selection_is_named(tmp_path, text):
    (tmp_path / "selections").mkdir()
    (tmp_path / "selections" / "cycle_00.csv").write_text(text)
    with pytest.raises(WorkdirError, match=r"cycle_00\.csv is damaged"):
        records.read_selection(tmp_path, 0)


def test_json_lines_are_strict_json(tmp_path):
    records.write_cycle(tmp_path, {"cycle": 0, "loss": float("nan"), "n": {1: "x"}})

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "cycles.jsonl").read_text()
    assert json.loads(text, parse_constant=refuse)["n"] == {"1": "x"}
