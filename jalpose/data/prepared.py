"""Prepared sets: what their index says, and access to their images.

<folder>/images.array_record   a record an image: `HEAD`, and the bytes as shipped
        /index.json            names, sizes and digests of the images, in that order
"""

import hashlib
import json
import operator
import os
import struct
import threading
from typing import Any, NamedTuple

import numpy as np

from jalpose.data import images
from jalpose.data.source import Annotations, DataError

RECORDS, INDEX = "images.array_record", "index.json"
HEAD = struct.Struct("<Q16s")  # number of the record, digest of the image


class Prepared(NamedTuple):
    """A prepared folder and what its index says.

    Attributes:
      folder: its path.
      files: of the images, in the order of the records.
      sizes: int32 [R, 2], width and height in pixels.
      digests: of the images' bytes, 32 hexadecimal digits each.
      rotated: files whose EXIF orientation is ignored.
      deep: files of 16 bits, of which 8 are left.
      several: files of which the first picture is taken.
      damaged: file -> what is wrong with it, of those that were left out.
    """

    folder: str
    files: tuple[str, ...]
    sizes: np.ndarray
    digests: tuple[str, ...]
    rotated: tuple[str, ...]
    deep: tuple[str, ...]
    several: tuple[str, ...]
    damaged: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Digest of names and bytes of all images, wherever they are kept."""
        whole = "\n".join([*self.files, *self.digests])
        return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not as a user may think, in sentences that go on from the set."""
        told = {name: getattr(self, name) for name in images.TOLD}
        return images.notes(told, len(self.files))


class PreparedSource:
    """Images and labels of a prepared set; see `source.Source`.

    Safe to share between threads, and picklable: a copy opens its own reader.

    Args:
      name: of the set.
      annotations: of its examples.
      prepared: where its records are.
    """

    def __init__(self, *, name: str, annotations: Annotations, prepared: Prepared):
        self.name, self.annotations = name, annotations
        self.prepared_dir, self.fingerprint = prepared.folder, prepared.fingerprint
        self.notes = prepared.notes
        self._rows = {file: row for row, file in enumerate(prepared.files)}
        rows = [self._rows[file] for file in annotations.files]
        self.sizes = prepared.sizes[rows].reshape(-1, 2)
        self.digests = tuple(prepared.digests[row] for row in rows)
        self._lock = threading.Lock()
        self._records = _open_records(prepared.folder)
        if self._records.num_records() != len(prepared.files):
            raise DataError(
                f"{prepared.folder!r} holds {self._records.num_records()} images, its "
                f"{INDEX} describes {len(prepared.files)}. "
                f"{_delete_advice(prepared.folder)}"
            )

    def image(self, index: int) -> np.ndarray:
        """Image `index` of `annotations`: uint8 [H, W, 3], RGB, pixels as stored.

        Raises:
          DataError: if the prepared records are damaged.
        """
        index = operator.index(index)
        if not 0 <= index < len(self.annotations):
            raise IndexError(f"{index=} is not in [0, {len(self.annotations)})")
        file = self.annotations.files[index]
        row = self._rows[file]
        what = f"image {file!r} (index {row}) in {self.prepared_dir!r}"
        advice = _delete_advice(self.prepared_dir)
        try:
            with self._lock:
                if self._records is None:  # in a process that got a pickled copy
                    self._records = _open_records(self.prepared_dir)
                (record,) = self._records.read([row])
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise DataError(f"Cannot read {what}: {error}. {advice}") from error
        found, digest = HEAD.unpack_from(record)
        if found != row:
            raise DataError(f"Found record {found} for {what}. {advice}")
        encoded = record[HEAD.size :]
        if digest != digest_of(encoded):
            raise DataError(f"Cannot read {what}: its bytes have changed. {advice}")
        return images.decode_rgb(encoded, what=what, advice=advice)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def digest_of(encoded: bytes) -> bytes:
    """Digest of an image as shipped: 16 bytes."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def read_index(folder: str) -> Prepared:
    """What the index of a prepared folder says.

    Raises:
      DataError: it may not be read, or is damaged.
    """
    try:
        with open(os.path.join(folder, INDEX), "rb") as file:
            index = json.load(file)
        found = Prepared(
            folder=folder,
            files=tuple(index["files"]),
            sizes=np.array(index["sizes"], np.int32).reshape(-1, 2),
            digests=tuple(index["digests"]),
            rotated=tuple(index["rotated"]),
            deep=tuple(index.get("deep", ())),  # older ones say nothing of it
            several=tuple(index.get("several", ())),
            damaged=dict(index["damaged"]),
        )
        if "several" not in index and any(map(_is_tiff, found.rotated)):
            raise ValueError("it is of a version that turned TIFF files")
        if not len(found.files) == len(found.sizes) == len(found.digests):
            raise ValueError("its lists have different lengths")
        return found
    except PermissionError as error:
        raise _not_readable(folder) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Cannot open the prepared folder {folder!r}: {type(error).__name__}: "
            f"{error}. {_delete_advice(folder)}"
        ) from error


def _is_tiff(file: str) -> bool:
    return file.lower().endswith((".tif", ".tiff"))


def _open_records(folder: str) -> Any:
    """Random access to the records of a prepared folder."""
    from array_record.python import array_record_module

    path = os.path.join(folder, RECORDS)
    try:
        with open(path, "rb"):  # its own errors do not say why
            pass
        return array_record_module.ArrayRecordReader(
            path, "readahead_buffer_size:0,max_parallelism:0"
        )
    except PermissionError as error:
        raise _not_readable(folder) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"Cannot open the prepared folder {folder!r}: {error}. "
            f"{_delete_advice(folder)}"
        ) from error


def _not_readable(folder: str) -> DataError:
    return DataError(
        f"The prepared folder {folder!r} may not be read by this user (another's?): "
        "set data.cache_dir to a folder of your own, or have its permissions changed."
    )


def _delete_advice(prepared_dir: str) -> str:
    """What to do about a damaged prepared folder."""
    return f"Delete {prepared_dir!r}: it is prepared anew on the next run."
