"""Crops, and rows made of them, on disk or in memory: made once, then only read."""

import contextlib
import hashlib
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

_SUM = struct.Struct("<I")


class Kept(Protocol):
    """Crops, or rows made of them, that are kept.

    Attributes:
      size: height and width of the crops, pixels.
    """

    size: int

    def get(self, example: int, cut: Callable[[], np.ndarray]) -> np.ndarray:
        """Of an example id: its crop uint8 [S, S, 3], or a row float32 [F].

        Args:
          example: the id.
          cut: returns the crop; called if need be.
        """
        ...

    def has(self, example: int) -> bool:
        """Is that of an example id kept, so that nothing needs be cut?"""
        ...


class PackedCrops:
    """Crops of one size of one dataset, each written when it is first asked for.

    `crops.bin` has room for all of them, and takes the room of those that are there;
    `sums.bin` has a checksum of each, 0 where there is none yet. Several processes and
    threads may use it: they would write the same. A crop that is damaged, or was half
    written, does not have its checksum and is cut anew. Without room or permission to
    write, all are cut anew each time, and a warning says so once.

    Args:
      folder: of the caches.
      name: of the dataset in all that its crops depend on.
      size: height and width, pixels.
      columns: keep rows float32 [columns] instead, which `cut` returns then.

    Attributes:
      size: as given.
    """

    def __init__(self, folder, name: str, size: int, columns: int = 0):
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        what = "rows" if columns else "crops"
        self._folder = Path(folder).expanduser() / f"{what}-{size}-{digest}"
        self.size = size
        self._shape = (columns,) if columns else (size, size, 3)
        self._dtype = np.dtype(np.float32 if columns else np.uint8)
        self._bytes = self._dtype.itemsize * math.prod(self._shape)
        self._files: tuple[int, int] | None = None  # of crops, of their sums
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files = (
                os.open(self._folder / "crops.bin", os.O_RDWR | os.O_CREAT, 0o666),
                os.open(self._folder / "sums.bin", os.O_RDWR | os.O_CREAT, 0o666),
            )
        except OSError as error:
            self._go_without(error)

    def __del__(self):
        for file in self._files or ():
            with contextlib.suppress(OSError):
                os.close(file)

    def get(self, example: int, cut: Callable[[], np.ndarray]) -> np.ndarray:
        """What is kept of an example id; see `Kept`."""
        found = self._read(example)
        if found is None:
            found = cut()
            self._write(example, found)
        return found

    def has(self, example: int) -> bool:
        """Is it kept, and whole?"""
        return self._read(example) is not None

    def _read(self, example):
        if self._files is None:
            return None
        crops, sums = self._files
        expected = os.pread(sums, _SUM.size, example * _SUM.size)
        if len(expected) < _SUM.size or not any(expected):
            return None
        data = os.pread(crops, self._bytes, example * self._bytes)
        if len(data) < self._bytes or _checksum(data) != expected:
            return None
        return np.frombuffer(data, self._dtype).reshape(self._shape)

    def _write(self, example, crop):
        if self._files is None:
            return
        crops, sums = self._files
        data = np.ascontiguousarray(crop, self._dtype).tobytes()
        try:
            # Not through a memory map: a full disk would end the process there.
            if os.pwrite(crops, data, example * self._bytes) == len(data):
                os.pwrite(sums, _checksum(data), example * _SUM.size)
        except OSError as error:
            self._go_without(error)

    def _go_without(self, error):
        self._files = None
        warnings.warn(
            f"crops are not kept in {self._folder}: {error}. Set data.cache_dir to a "
            "folder with room, or data.packed=False",
            stacklevel=3,
        )


class CropsInMemory:
    """Crops of one size of one dataset in memory, as many as there is room for.

    For images that are drawn, which takes longer than a training step does.

    Args:
      size: height and width, pixels.
      limit: bytes that are kept; crops beyond are cut whenever they are asked for.
      columns: keep rows float32 [columns] instead, which `cut` returns then.

    Attributes:
      size: as given.
    """

    def __init__(self, size: int, limit: int = 256 << 20, columns: int = 0):
        self.size, self._room = size, limit // (4 * columns or size * size * 3)
        self._crops: dict[int, np.ndarray] = {}

    def get(self, example: int, cut: Callable[[], np.ndarray]) -> np.ndarray:
        """What is kept of an example id; see `Kept`."""
        found = self._crops.get(int(example))
        if found is None:
            found = cut()
            if len(self._crops) < self._room:
                # Threads may cut one crop at once: they keep the same.
                found.setflags(write=False)
                self._crops[int(example)] = found
        return found

    def has(self, example: int) -> bool:
        """Is it kept?"""
        return int(example) in self._crops


class Rows:
    """Rows made of the crops of one dataset, kept as crops are.

    Args:
      kept: keeps them.
      make: crops uint8 [B, S, S, 3] -> float32 [B, F].
      columns: F.
      count: of the dataset's examples.
      limit: bytes of rows that are held in memory too, so that `take` has many at once.

    Attributes:
      size: height and width of the crops, pixels.
      columns: as given.
      in_memory: whether the rows of all examples are within the limit.
    """

    def __init__(
        self,
        kept: Kept,
        make: Callable[[np.ndarray], np.ndarray],
        columns: int,
        count: int,
        limit: int = 1 << 30,
    ):
        self.size, self.columns = kept.size, columns
        self._kept, self._make = kept, make
        self.in_memory = 4 * columns * count <= limit
        if self.in_memory:
            self._table = np.empty((count, columns), np.float32)
            self._there = np.zeros(count, bool)

    def get(self, example: int, cut: Callable[[], np.ndarray]) -> np.ndarray:
        """The row of an example id; see `Kept`."""
        return self._kept.get(example, lambda: self._make(cut()[None])[0])

    def has(self, example: int) -> bool:
        """Is it kept?"""
        return self._kept.has(example)

    def take(
        self, examples: np.ndarray, row_of: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """The rows of several examples, float32 [n, F], where all are `in_memory`.

        Args:
          examples: n ids.
          row_of: an id -> its row; called once of each that memory has not yet.
        """
        # Threads may ask for one row at once: they write the same.
        for example in np.unique(examples[~self._there[examples]]).tolist():
            self._table[example] = row_of(example)
            self._there[example] = True
        return self._table[examples]

    def add(self, examples: Sequence[int], crops: np.ndarray) -> None:
        """Make and keep the rows of several examples at once.

        Args:
          examples: B ids.
          crops: uint8 [B, S, S, 3].
        """
        for example, row in zip(examples, self._make(crops), strict=True):
            self._kept.get(example, partial(np.array, row))


def _checksum(data: bytes) -> bytes:
    """Never 0, which says that there is no crop."""
    return _SUM.pack(zlib.crc32(data) or 1)
