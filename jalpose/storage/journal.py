"""What passes over examples have found so far, block by block: in memory or on disk.

On disk it is a cache of results that are the same whenever they are computed: appended
to, never rewritten, and mapped into memory where it is read. A folder holds a raw file
`<pass>.<key>.bin` for each array of each pass, rows end to end, and `index.jsonl`: a
header that says whose results these are, then a line for each block with its place and
the CRC-32 of its bytes. Every line ends with the CRC-32 of itself. What the index does
not name is not there, so a block is finished when its line is.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import urllib.parse
import warnings
import zlib
from pathlib import Path

import numpy as np

from jalpose.storage import records

Arrays = dict[str, np.ndarray]

INDEX = "index.jsonl"
FORMAT = 1  # of the folder
_CHECK = re.compile(rb'(.*), "check": ([0-9]+)}', re.DOTALL)


class Journal:
    """Rows of passes, in memory."""

    def __init__(self):
        self._parts: dict[str, list[Arrays]] = {}

    def names(self) -> list[str]:
        """Passes that have rows, in the order they were begun."""
        return list(self._parts)

    def rows(self, name: str) -> int:
        """Rows of a pass that are finished; 0 where it was never begun."""
        return sum(map(_num_rows, self._parts.get(name, [])))

    def append(self, name: str, arrays: Arrays) -> None:
        """Add the next block of a pass, or several in one.

        Args:
          name: of the pass.
          arrays: by key, [rows, ...] each; the same keys, row shapes and dtypes as in
            its blocks before.

        Raises:
          ValueError: arrays of other keys, shapes or dtypes, or of unequal lengths.
          WorkdirError: the disk is full; all that was finished before stays.
        """
        arrays = {key: np.asarray(value) for key, value in arrays.items()}
        layout = _layout(arrays)
        if _num_rows(arrays):
            parts = self._parts.setdefault(name, [])
            if parts:
                _check_layout(name, layout, _layout(parts[0]))
            parts.append(arrays)

    def read(self, name: str) -> Arrays:
        """All finished rows of a pass by key, read-only; {} where there are none."""
        parts = self._parts.get(name, [])
        if len(parts) > 1:  # laid end to end once, not at every call
            parts[:] = [
                {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
            ]
        return {key: _read_only(value) for part in parts for key, value in part.items()}

    def sync(self) -> None:
        """End a group of blocks: on disk, they are safe from a loss of power now."""

    def copy(self) -> "Journal":
        """One that goes on from here; appending to it leaves this as it is."""
        other = Journal()
        other._parts = {name: list(parts) for name, parts in self._parts.items()}
        return other


@dataclasses.dataclass
class _Pass:
    layout: dict[str, tuple[str, tuple[int, ...]]]  # key -> dtype and shape of a row
    rows: int = 0


class FolderJournal(Journal):
    """Rows of passes, in a folder.

    Every block in the folder is verified. The first one of a pass that is damaged,
    half-written or missing is named in a warning, and the pass ends before it: from
    there it is to be computed again.

    Args:
      folder: made where it is not there.
      fingerprint: of all that decides the results. What another has left in the folder
        is discarded, with a warning.
      writer: False: only read what another process writes there, at the start and at
        each `sync`; `append` does nothing then, and nothing is discarded or warned of.

    Raises:
      WorkdirError: the disk is full.
    """

    def __init__(self, folder, *, fingerprint: str = "", writer: bool = True):
        super().__init__()
        self._folder, self._fingerprint = Path(folder), fingerprint
        self._writer = writer
        self._passes: dict[str, _Pass] = {}
        self._maps: dict[str, tuple[int, Arrays]] = {}
        self._read_to: tuple[int, int] = (0, 0)  # inode of the index, and place in it
        self._unsynced: set[Path] = set()
        if writer:
            self._open()
        else:
            self.sync()

    @property
    def _index(self) -> Path:
        return self._folder / INDEX

    def names(self) -> list[str]:
        """Passes that have rows, in the order they were begun."""
        return list(self._passes)

    def rows(self, name: str) -> int:
        """Rows of a pass that are finished; 0 where it was never begun."""
        return self._passes[name].rows if name in self._passes else 0

    def append(self, name: str, arrays: Arrays) -> None:
        """Add the next block of a pass; see `Journal.append`."""
        arrays = {key: np.asarray(value) for key, value in arrays.items()}
        layout, rows = _layout(arrays), _num_rows(arrays)
        data = {k: _bytes_of(np.ascontiguousarray(v)) for k, v in arrays.items()}
        if name in self._passes:
            _check_layout(name, layout, self._passes[name].layout)
        if not rows or not self._writer:
            return
        found = self._passes.get(name, _Pass(layout))
        line = _line(
            {
                "pass": name,
                "first": found.rows,
                "rows": rows,
                "arrays": {
                    key: [*about, zlib.crc32(data[key])]
                    for key, about in layout.items()
                },
            }
        )
        for key, about in layout.items():
            path = self._file(name, key)
            _write(path, found.rows * _row_bytes(about), data[key])
            self._unsynced.add(path)
        inode, end = self._read_to
        _write(self._index, end, line)
        self._read_to = inode, end + len(line)
        found.rows += rows
        self._passes[name] = found

    def read(self, name: str) -> Arrays:
        """All finished rows of a pass by key, mapped read-only; {}: there are none."""
        if name not in self._passes:
            return {}
        found = self._passes[name]
        rows, arrays = self._maps.get(name, (0, {}))
        if rows != found.rows:
            arrays = {
                key: self._mapped(self._file(name, key), found.rows, *about)
                for key, about in found.layout.items()
            }
            self._maps[name] = found.rows, arrays
        return dict(arrays)

    def sync(self) -> None:
        """Write out to the disk; not the writer: see what the writer has finished."""
        if not self._writer:
            self._refresh()
        elif self._unsynced:
            for path in (*sorted(self._unsynced), self._index):
                with records.explain_full_disk(path):
                    _flush(path)
            records.flush_folder(self._folder)
            self._unsynced.clear()

    def copy(self) -> "FolderJournal":
        """A journal as it is: what is in its folder would come out the same again."""
        return self

    def _file(self, name: str, key: str) -> Path:
        # A function's name may hold anything, e.g. "<lambda>".
        return self._folder / f"{urllib.parse.quote(name, safe='')}.{key}.bin"

    @staticmethod
    def _mapped(path, rows, dtype, shape) -> np.ndarray:
        shape = (rows, *shape)
        if math.prod(shape) == 0:  # nothing cannot be mapped
            return _read_only(np.zeros(shape, dtype))
        return np.asarray(np.memmap(path, np.dtype(dtype), "r", shape=shape))

    def _open(self):
        """Verify what is there; leave an index that names what is good, or begin."""
        lines = []
        if self._index.exists():
            lines = self._index.read_bytes().splitlines(keepends=True)
        there = bool(lines) or any(self._folder.glob("*.bin"))
        header = _parsed(lines[0]) if lines else None
        ours = {"journal": FORMAT, "fingerprint": self._fingerprint}
        if header != ours:
            if there:
                reason = (
                    "its header is damaged or missing"
                    if header is None
                    else "it is of other weights, labels or settings"
                )
                _warn(f"{self._folder} is discarded, {reason}: all of it is computed")
            remove(self._folder)
            lines, bad = [_line(ours)], True
        else:
            verified = self._verify(lines[1:], 2, _warn)
            bad, lines = len(verified) + 1 < len(lines), [lines[0], *verified]
        if bad:
            records.atomic_write_bytes(self._index, b"".join(lines))
        self._read_to = self._index.stat().st_ino, sum(map(len, lines))

    def _refresh(self):
        try:
            with open(self._index, "rb") as file:
                inode, end = os.fstat(file.fileno()).st_ino, self._read_to[1]
                if inode != self._read_to[0]:  # written anew: nothing is known of it
                    end = 0
                    self._passes, self._maps = {}, {}
                file.seek(end)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            self._passes, self._maps, self._read_to = {}, {}, (0, 0)
            return
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # under way
        if end == 0 and lines:
            ours = {"journal": FORMAT, "fingerprint": self._fingerprint}
            if _parsed(lines[0]) != ours:
                return
            end = len(lines.pop(0))
        self._verify(lines, 2, lambda message: None)
        self._read_to = inode, end + sum(map(len, lines))

    def _verify(self, lines, number, warn) -> list[bytes]:
        """Take in the good blocks of these index lines: those lines.

        Args:
          lines: of the index, with their ends.
          number: of the first of them.
          warn: called with a message.
        """
        good, ended = [], set()
        for at, line in enumerate(lines, start=number):
            block = _parsed(line)
            if block is None or "pass" not in block:
                warn(
                    f"{self._index}:{at} is damaged or half-written: the block it "
                    "names, and those of its pass that follow, are computed again"
                )
            elif block["pass"] not in ended:
                fault = self._fault(block)
                if fault is None:
                    good.append(line)
                    continue
                ended.add(block["pass"])
                first = block["first"]
                warn(
                    f"{fault} (block of pass {block['pass']}, rows {first} to "
                    f"{first + block['rows'] - 1}, {INDEX} line {at}): the pass is "
                    f"computed again from row {self.rows(block['pass'])} on"
                )
        return good

    def _fault(self, block) -> str | None:
        """What is wrong with a block, or None; then it is taken in."""
        name, first, rows = block["pass"], block["first"], block["rows"]
        layout = {k: (v[0], tuple(v[1])) for k, v in block["arrays"].items()}
        found = self._passes.get(name, _Pass(layout))
        if first != found.rows:
            return f"{self._index} does not go on at row {found.rows}"
        if layout != found.layout:
            return f"{self._index} names other arrays than before"
        for key, about in layout.items():
            path, size = self._file(name, key), _row_bytes(about)
            try:
                with open(path, "rb") as file:
                    file.seek(first * size)
                    data = file.read(rows * size)
            except FileNotFoundError:
                return f"{path} is missing"
            if len(data) < rows * size:
                return f"{path} is cut off"
            if zlib.crc32(data) != block["arrays"][key][2]:
                return f"{path} is damaged"
        found.rows += rows
        self._passes[name] = found
        return None


def remove(folder) -> None:
    """Remove the journal in `folder`, if there is one, and the folder if then empty."""
    folder = Path(folder)
    # The index first: without it the rest is of nobody.
    for path in (folder / INDEX, *sorted(folder.glob("*.bin"))):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _warn(message):
    warnings.warn(message, stacklevel=2)


def _layout(arrays) -> dict:
    lengths = {key: value.shape[:1] for key, value in arrays.items()}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(f"arrays of a block need a row each, got lengths {lengths}")
    for key, value in arrays.items():
        # Those a name stands for: numbers, of ml_dtypes too.
        if value.dtype.kind not in "biufcV" or value.dtype.names is not None:
            raise ValueError(f"{key} has a dtype that is not kept: {value.dtype}")
    return {key: (v.dtype.name, v.shape[1:]) for key, v in arrays.items()}


def _check_layout(name, layout, before):
    if layout != before:
        raise ValueError(f"a block of pass {name} has {layout}, those before {before}")


def _num_rows(arrays) -> int:
    return len(next(iter(arrays.values())))


def _row_bytes(about) -> int:
    dtype, shape = about
    return np.dtype(dtype).itemsize * math.prod(shape)


def _read_only(array):
    array = array.view()
    array.flags.writeable = False
    return array


def _bytes_of(array) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _line(content: dict) -> bytes:
    """A line of the index, ending with the checksum of itself."""
    text = json.dumps(content).encode()[:-1]
    return text + f', "check": {zlib.crc32(text)}}}\n'.encode()


def _parsed(line: bytes) -> dict | None:
    """What a line of the index holds, None where it is not as it was written."""
    found = _CHECK.fullmatch(line.removesuffix(b"\n"))
    if found is None or not line.endswith(b"\n"):
        return None
    text, check = found.groups()
    return json.loads(text + b"}") if zlib.crc32(text) == int(check) else None


def _write(path: Path, place: int, data) -> None:
    """Put `data` at a place of a file, which ends there if not all of it has room."""
    with records.explain_full_disk(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], place + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, place)
            raise
        finally:
            os.close(descriptor)


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
