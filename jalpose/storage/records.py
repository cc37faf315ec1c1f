"""What a run writes into its workdir, checkpoints and TensorBoard apart.

`config.json`, `cycles.jsonl` (a JSON object a cycle), `selections/cycle_NN.csv` and
`arrays/cycle_NN.npz`. Every file is written beside its place, flushed to the disk
and renamed, so that a record is there whole or not at all, whenever a run dies.
"""

import contextlib
import csv
import errno
import functools
import io
import json
import math
import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

PathLike = str | os.PathLike[str]
_Writer = Callable[[IO[bytes]], None]

CONFIG = "config.json"
CYCLES = "cycles.jsonl"
SELECTION_COLUMNS = ("rank", "id", "key", "file", "score")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_INTEGER = re.compile(r"-?[0-9]+")
_FLOAT = re.compile(r"-?([0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|inf)|nan")


class WorkdirError(RuntimeError):
    """A workdir cannot be used, or a record in it is damaged."""


@contextlib.contextmanager
def explain_full_disk(path: PathLike) -> Iterator[None]:
    """Raise WorkdirError, saying what to do, where writing `path` finds no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise WorkdirError(
            f"{path} could not be written: {error.strerror}. What was finished before "
            "is whole. Make room there and start the same command again: it resumes"
        ) from error


@contextlib.contextmanager
def atomic_file(path: PathLike) -> Iterator[BinaryIO]:
    """A file to write to that comes to `path` whole when the block ends, or not at all.

    Makes its folder. Raises WorkdirError where the disk is full.
    """
    path = Path(path)
    # Hidden and not ending as a record does: left by a kill, it is mistaken for none.
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    flush_folder(path.parent)


def flush_folder(folder: PathLike) -> None:
    """Bring what was named or renamed in a folder to the disk, where that can be."""
    with contextlib.suppress(OSError):  # not every system can flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def atomic_write_bytes(path: PathLike, data: bytes) -> None:
    """Put `data` at `path`, making its folder: all of it or nothing."""
    with atomic_file(path) as file:
        file.write(data)


def atomic_write_text(path: PathLike, text: str) -> None:
    """Put `text` at `path` as UTF-8: all of it or nothing."""
    atomic_write_bytes(path, text.encode("utf-8"))


def check_workdir(workdir: PathLike) -> None:
    """Make the folder `workdir` where needed and see that it can be written to.

    Raises WorkdirError where it is no folder, or nothing can be written there.
    """
    probe = Path(workdir) / f".probe.{uuid.uuid4().hex}.tmp"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"probe")  # permission bits prove nothing (root, mounts)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise WorkdirError(
            f"{workdir} cannot be written to ({error.strerror}): make room, choose "
            "another folder, change its permissions or move away a file in its place"
        ) from error


def _array(value: Any) -> np.ndarray:
    """`value` as a NumPy array of an ordinary dtype (bfloat16 becomes float32)."""
    array = np.asarray(value)
    if array.dtype.kind == "V" and array.dtype.names is None:
        array = array.astype(np.float32)
    return array


def _plain(value: Any, infinite: bool = False) -> Any:
    """`value` in JSON's own types: NaN and infinities null or, `infinite`, as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item, infinite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, infinite) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value)) if infinite else None
    if hasattr(value, "__array__"):  # NumPy's scalars and arrays, and JAX's
        return _plain(_array(value).tolist(), infinite)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def write_config(workdir: PathLike, record: dict) -> None:
    """Write `config.json`; what is not finite stands there as "inf" or "nan"."""
    text = json.dumps(_plain(record, infinite=True), indent=2, sort_keys=True)
    atomic_write_text(Path(workdir) / CONFIG, text + "\n")


def write_json(path: PathLike, record: dict) -> None:
    """Write an object of numbers, in its order; what is not finite is null."""
    text = json.dumps(_plain(record), indent=2, allow_nan=False)
    atomic_write_text(path, text + "\n")


def read_config(workdir: PathLike) -> dict | None:
    """Read `config.json`; None where there is none."""
    path = Path(workdir) / CONFIG
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict):
            raise ValueError("it holds no JSON object")
    except ValueError as error:
        raise WorkdirError(f"{path} is damaged: {error}") from error
    return record


def read_cycles(workdir: PathLike) -> list[dict]:
    """The records of all finished cycles, in order; none where there is no file."""
    path = Path(workdir) / CYCLES
    if not path.exists():
        return []
    records: dict[int, dict] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
            if records.setdefault(int(record["cycle"]), record) is not record:
                raise ValueError(f"cycle {record['cycle']} is there twice")
        except (ValueError, TypeError, KeyError) as error:
            raise WorkdirError(f"{path}:{number} is damaged: {error!r}") from error
    return [records[cycle] for cycle in sorted(records)]


def write_cycle(workdir: PathLike, record: dict) -> None:
    """Add the record of a cycle, or put it in the place of that cycle's old one."""
    record = _plain(record)
    others = [r for r in read_cycles(workdir) if r["cycle"] != record["cycle"]]
    _write_cycles(workdir, [*others, record])


def truncate_cycles(workdir: PathLike, first_unfinished: int) -> None:
    """Drop the records of cycle `first_unfinished` and later, done again on resume."""
    records = read_cycles(workdir)
    kept = [record for record in records if record["cycle"] < first_unfinished]
    if len(kept) < len(records):
        _write_cycles(workdir, kept)


def _write_cycles(workdir: PathLike, records: list[dict]) -> None:
    ordered = sorted(records, key=lambda record: record["cycle"])
    lines = [json.dumps(record, allow_nan=False) + "\n" for record in ordered]
    atomic_write_text(Path(workdir) / CYCLES, "".join(lines))


def _cycle_file(workdir: PathLike, kind: str, cycle: int, end: str) -> Path:
    return Path(workdir) / kind / f"cycle_{cycle:02d}.{end}"


def write_selection(workdir: PathLike, cycle: int, rows: list[dict]) -> None:
    """Write `selections/cycle_NN.csv`, a row for each example chosen.

    Each has rank, id, key, file and score, then the method's explanation: the same
    columns in every row, written in the order of the first.
    """
    columns = list(dict.fromkeys([*SELECTION_COLUMNS, *(rows or [{}])[0]]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for number, row in enumerate(rows, start=1):
        if row.keys() != set(columns):
            raise ValueError(f"row {number} has columns {[*row]}, expected {columns}")
        # csv writes floats by repr and None as an empty cell
        writer.writerow([_plain(row[name], infinite=True) for name in columns])
    atomic_write_text(_cycle_file(workdir, "selections", cycle, "csv"), text.getvalue())


def read_selection(workdir: PathLike, cycle: int) -> list[dict]:
    """Read `selections/cycle_NN.csv`: numbers as numbers, an empty cell as None."""
    path = _cycle_file(workdir, "selections", cycle, "csv")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
        if tuple(reader.fieldnames or ())[:5] != SELECTION_COLUMNS:
            raise ValueError(f"its columns are {reader.fieldnames}")
        for number, row in enumerate(rows, start=1):
            if None in row or None in row.values():
                raise ValueError(f"row {number} has too many or too few cells")
    except (ValueError, csv.Error) as error:
        raise WorkdirError(f"{path} is damaged: {error}") from error
    return [{name: _parsed(name, cell) for name, cell in row.items()} for row in rows]


def _parsed(name: str, cell: str) -> Any:
    if name in ("key", "file"):
        return cell
    if name != "score" and _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _FLOAT.fullmatch(cell) else cell or None


def write_arrays(workdir: PathLike, cycle: int, /, **arrays: Any) -> None:
    """Write `arrays/cycle_NN.npz`: the same arrays always give the same bytes."""
    write_npz(_cycle_file(workdir, "arrays", cycle, "npz"), arrays)


def write_npz(path: PathLike, arrays: dict[str, Any]) -> None:
    """Write arrays by name: the same arrays always give the same bytes.

    They are written in pieces, so that mapped ones take no memory.
    """
    _write_members(path, {name: _writer(value) for name, value in arrays.items()})


def add_arrays(workdir: PathLike, cycle: int, /, **arrays: Any) -> None:
    """Add arrays to `arrays/cycle_NN.npz`, or put them in the place of old ones.

    The file is the same as if all had been written at once.
    """
    path = _cycle_file(workdir, "arrays", cycle, "npz")
    with open(path, "rb") as file:
        with _damage(path):
            archive = zipfile.ZipFile(file)
        members: dict[str, _Writer] = {
            name: functools.partial(_copy_member, path, archive, name)
            for name in _array_names(archive)
        }
        members |= {name: _writer(value) for name, value in arrays.items()}
        _write_members(path, members)


def read_arrays(
    workdir: PathLike, cycle: int, names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Read `arrays/cycle_NN.npz`: the arrays of these names, None: all there are."""
    path = _cycle_file(workdir, "arrays", cycle, "npz")
    with open(path, "rb") as file, _damage(path), zipfile.ZipFile(file) as archive:
        found = {}
        for name in _array_names(archive) if names is None else names:
            with archive.open(f"{name}.npy") as member:
                found[name] = np.lib.format.read_array(member, allow_pickle=False)
                member.read()  # the checksum is compared at the end
        return found


def _write_members(path: PathLike, writers: dict[str, _Writer]) -> None:
    with (
        atomic_file(path) as file,
        # Not compressed: compressed bytes depend on the zlib at hand.
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name in sorted(writers):
            member = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(member, "w", force_zip64=True) as target:
                writers[name](target)


def _writer(value: Any) -> _Writer:
    array = _array(value)
    return lambda file: np.lib.format.write_array(file, array, allow_pickle=False)


def _copy_member(path, archive: zipfile.ZipFile, name: str, target) -> None:
    with _damage(path), archive.open(f"{name}.npy") as member:
        shutil.copyfileobj(member, target, 2**20)


def _array_names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


@contextlib.contextmanager
def _damage(path: PathLike) -> Iterator[None]:
    """Raise WorkdirError where what is read from `path` is not what was written."""
    try:
        yield
    except Exception as error:  # zipfile and NumPy raise half a dozen kinds
        if isinstance(error, OSError) and error.errno in _FULL:
            raise  # where it is copied to
        raise WorkdirError(f"{path} is damaged: {error}") from error
