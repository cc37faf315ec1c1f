"""CIFAR-10 and CIFAR-100 as their authors ship them: a binary and a Python version.

    <data_dir>/cifar10/cifar-10-batches-bin/data_batch_{1..5}.bin, test_batch.bin
              /cifar10/cifar-10-batches-py/data_batch_{1..5}, test_batch
              /cifar100/cifar-100-binary/train.bin, test.bin
              /cifar100/cifar-100-python/train, test

A record of the binary version is the label's byte (CIFAR-100: that of the coarse label
and that of the fine one) and 3,072 bytes of pixels; a file of the Python version is a
pickled dict of the same. Pixels are planes R, G, B of 32 rows. Both versions hold the
same records in the same order, so that an example has one name in both. Records are as
many as the files hold, and of CIFAR-10's five training files those that are there are
taken.

A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. 2009.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator

import numpy as np

from jalpose.data.files import is_file, is_folder
from jalpose.data.source import DataError
from jalpose.tasks.classification import netpbm, pickles
from jalpose.tasks.classification.annotations import Annotations, Shipped

SIDE = 32  # pixels
_PIXELS = 3 * SIDE * SIDE
_CHUNK = 4096  # records read at a time
# fmt: off
_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)
# fmt: on
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How one of the two sets is shipped.

    Attributes:
      name: of the set and its folder.
      binary: folder of the binary version.
      python: folder of the Python version.
      train: training files, without an ending.
      test: the test file, without an ending.
      labels: columns of a record's labels: name -> key in a pickled dict.
      names: a column's name -> file of the classes' names in the binary version, and
        their key in the Python version's `meta` file.
      meta: the Python version's file of names.
      classes: names where no file has them.
      counts: how many classes there are, by a column's name.
      archives: of the two versions.
      total: training records of the whole set.
    """

    name: str
    binary: str
    python: str
    train: tuple[str, ...]
    test: str
    labels: dict[str, str]
    names: dict[str, tuple[str, str]]
    meta: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    archives: tuple[str, str]
    total: int


LAYOUTS = {
    "cifar10": Layout(
        name="cifar10",
        binary="cifar-10-batches-bin",
        python="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test="test_batch",
        labels={"fine": "labels"},
        names={"fine": ("batches.meta.txt", "label_names")},
        meta="batches.meta",
        classes=_CIFAR10,
        counts={"fine": 10},
        archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
        total=50_000,
    ),
    "cifar100": Layout(
        name="cifar100",
        binary="cifar-100-binary",
        python="cifar-100-python",
        train=("train",),
        test="test",
        labels={"coarse": "coarse_labels", "fine": "fine_labels"},
        names={
            "fine": ("fine_label_names.txt", "fine_label_names"),
            "coarse": ("coarse_label_names.txt", "coarse_label_names"),
        },
        meta="meta",
        classes=(),
        counts={"fine": 100, "coarse": 20},
        archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
        total=50_000,
    ),
}


def find(name: str, data_dir: str, labels: str = "fine") -> Shipped:
    """Labels of the set `name` of `LAYOUTS`, and how its images are read.

    Where both versions are there, the binary one is taken.

    Args:
      name: of the set.
      data_dir: holds it in a folder of its name.
      labels: fine | coarse (CIFAR-100 alone).

    Raises:
      DataError: files are missing or not what they should be: all that is wrong, at
        once.
    """
    layout = LAYOUTS[name]
    root = os.path.abspath(os.path.expanduser(data_dir))
    version = _find_version(layout, root)
    present = [stem for stem in layout.train if version.has(stem)]
    missing = [stem for stem in layout.train if stem not in present]
    if not present or not version.has(layout.test):
        lacking = missing if not present else [layout.test]
        raise DataError(
            f"{name.upper()} is not whole: {version.folder!r} has no "
            f"{', '.join(version.file(stem) for stem in lacking)}. "
            f"{_advice(layout, root)}"
        )
    classes = version.classes(labels)
    faults: list[str] = []
    found = {
        stem: version.labels(stem, labels, faults) for stem in (*present, layout.test)
    }
    for stem, values in found.items():
        faults += _out_of_range(version.path(stem), values, len(classes))
    if faults:
        raise DataError(f"{' '.join(faults)} {_advice(layout, root)}")
    records = sum(len(found[stem]) for stem in present)
    if records < layout.total:
        _logger.warning(
            "%s has %s of its %s training records: %s%s",
            name.upper(),
            f"{records:,}",
            f"{layout.total:,}",
            ", ".join(f"{len(found[s]):,} in {version.file(s)}" for s in present),
            f"; there is no {', '.join(map(version.file, missing))}" if missing else "",
        )
    keys = tuple(
        f"{name}/{stem}/{row:05d}" for stem, v in found.items() for row in range(len(v))
    )
    return Shipped(
        annotations=Annotations(
            keys=keys,
            files=keys,
            labels=np.concatenate(list(found.values())).astype(np.int32),
            test=np.repeat(
                [stem == layout.test for stem in found],
                [len(v) for v in found.values()],
            ),
            classes=classes,
        ),
        read=_reader(version),
        side=SIDE,
        containers=tuple(os.path.relpath(version.path(stem), root) for stem in found),
    )


def _reader(version: "_Binary | _Python") -> Callable[[str, str, int], bytes]:
    """What reads an image by its name; the file last read from is kept open."""

    def read(data_dir: str, file: str, number: int) -> bytes:
        del data_dir, number
        _, stem, row = file.split("/")
        planes = version.pixels(stem, int(row)).reshape(3, SIDE, SIDE)
        return netpbm.encoded(planes.transpose(1, 2, 0))

    return read


class _Binary:
    """The binary version in a folder."""

    def __init__(self, layout: Layout, folder: str, root: str):
        self._layout, self.folder, self._root = layout, folder, root
        self._bytes = len(layout.labels) + _PIXELS  # of a record
        self._open: tuple[str, np.ndarray] = "", np.empty(0)

    def file(self, stem: str) -> str:
        return f"{stem}.bin"

    def path(self, stem: str) -> str:
        return os.path.join(self.folder, self.file(stem))

    def has(self, stem: str) -> bool:
        return is_file(self.path(stem))

    def classes(self, labels: str) -> tuple[str, ...]:
        path = os.path.join(self.folder, self._layout.names[labels][0])
        if is_file(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = [line.strip() for line in file]
            return _named(self._layout, labels, [line for line in lines if line], path)
        return _unnamed(self._layout, path, self._root)

    def labels(self, stem: str, labels: str, faults: list[str]) -> np.ndarray:
        path = self.path(stem)
        size = os.path.getsize(path)
        if size % self._bytes or not size:
            faults.append(
                f"{path!r} has {size:,} bytes, which is no whole number of records of "
                f"{self._bytes:,} bytes: it is cut after {size // self._bytes:,} or is "
                "another file."
            )
            return np.empty(0, np.uint8)
        column = list(self._layout.labels).index(labels)
        # Copies, which do not keep the records they are of.
        return np.concatenate([c[:, column].copy() for c in self._chunks(path)])

    def _chunks(self, path: str) -> Iterator[np.ndarray]:
        with open(path, "rb") as file:
            while read := file.read(self._bytes * _CHUNK):
                yield np.frombuffer(read, np.uint8).reshape(-1, self._bytes)

    def pixels(self, stem: str, row: int) -> np.ndarray:
        # Not through a memory map, whose pages would count as memory of the process.
        name = f"{stem} {row // _CHUNK}"
        if self._open[0] != name:
            with open(self.path(stem), "rb") as file:
                file.seek(row // _CHUNK * _CHUNK * self._bytes)
                read = file.read(self._bytes * _CHUNK)
            self._open = name, np.frombuffer(read, np.uint8).reshape(-1, self._bytes)
        return self._open[1][row % _CHUNK, -_PIXELS:]


class _Python:
    """The Python version in a folder; memory holds one of its files at a time."""

    def __init__(self, layout: Layout, folder: str, root: str):
        self._layout, self.folder, self._root = layout, folder, root
        self._open: tuple[str, dict] = "", {}

    def file(self, stem: str) -> str:
        return stem

    def path(self, stem: str) -> str:
        return os.path.join(self.folder, stem)

    def has(self, stem: str) -> bool:
        return is_file(self.path(stem))

    def classes(self, labels: str) -> tuple[str, ...]:
        path = os.path.join(self.folder, self._layout.meta)
        if not is_file(path):
            return _unnamed(self._layout, path, self._root)
        found = pickles.read(path, _advice(self._layout, self._root))
        names = found.get(self._layout.names[labels][1])
        if not isinstance(names, list):
            names = []
        return _named(self._layout, labels, [pickles.text(n) for n in names], path)

    def labels(self, stem: str, labels: str, faults: list[str]) -> np.ndarray:
        path, key = self.path(stem), self._layout.labels[labels]
        try:
            batch = self._batch(stem)
        except DataError as error:
            faults.append(str(error))
            return np.empty(0, np.int64)
        lacking = [k for k in (key, "data") if k not in batch]
        if lacking:
            there = ", ".join(sorted(batch)) or "nothing"
            faults.append(
                f"{path!r} has no {' and no '.join(lacking)} (it has {there})."
            )
            return np.empty(0, np.int64)
        values, data = np.asarray(batch[key]), np.asarray(batch["data"])
        if data.ndim != 2 or data.shape[1] != _PIXELS or data.dtype != np.uint8:
            faults.append(
                f"'data' of {path!r} is {data.dtype} {data.shape}, not uint8 (N, "
                f"{_PIXELS})."
            )
        elif values.ndim != 1 or values.dtype.kind not in "iu" or not len(values):
            faults.append(f"{key!r} of {path!r} is no list of whole numbers.")
        elif len(values) != len(data):
            faults.append(
                f"{path!r} has {len(values):,} labels for {len(data):,} images."
            )
        else:
            return values
        return np.empty(0, np.int64)

    def pixels(self, stem: str, row: int) -> np.ndarray:
        return self._batch(stem)["data"][row]

    def _batch(self, stem: str) -> dict:
        if self._open[0] != stem:
            self._open = "", {}  # the last one goes before the next comes
            self._open = stem, pickles.read(self.path(stem))
        return self._open[1]


def _find_version(layout: Layout, root: str) -> _Binary | _Python:
    """The version that is there."""
    home = os.path.join(root, layout.name)
    for folder, kind in ((layout.binary, _Binary), (layout.python, _Python)):
        if is_folder(os.path.join(home, folder)):
            return kind(layout, os.path.join(home, folder), root)
    if not is_folder(root):
        problem = f"No data folder {root!r}"
    elif not is_folder(home):
        problem = (
            f"No {layout.name.upper()} in the data folder: {home!r} does not exist"
        )
    else:
        problem = f"{home!r} has neither {layout.binary!r} nor {layout.python!r}"
    for folder in (layout.binary, layout.python):
        if is_folder(os.path.join(root, folder)):
            problem += f" (but {root!r} has {folder!r}: move it into {home!r})"
    raise DataError(
        f"{problem}. Looked for {os.path.join(home, layout.binary)!r} and "
        f"{os.path.join(home, layout.python)!r}; set config.data.dir or the "
        f"environment variable JALPOSE_DATA to the folder that holds {layout.name}. "
        f"{_advice(layout, root)}"
    )


def _advice(layout: Layout, root: str) -> str:
    return (
        "The authors' page, www.cs.toronto.edu/~kriz/cifar.html, has the set as "
        f"{' and '.join(layout.archives)}: unpack one of them in "
        f"{os.path.join(root, layout.name)!r}."
    )


def _named(layout: Layout, labels: str, names: list[str], path: str) -> tuple[str, ...]:
    count = layout.counts[labels]
    if len(names) != count or len(set(names)) != count:
        raise DataError(
            f"{path!r} has {len(set(names))} different names in {len(names)}; "
            f"{layout.name.upper()} has {count} classes. Copy it again from the "
            "archive of the set."
        )
    return tuple(names)


def _unnamed(layout: Layout, path: str, root: str) -> tuple[str, ...]:
    """The published names, for a set whose file of names is missing."""
    if layout.classes:
        return layout.classes
    raise DataError(f"No {path!r}, which names the classes. {_advice(layout, root)}")


def _out_of_range(path: str, labels: np.ndarray, count: int) -> list[str]:
    bad = (labels < 0) | (labels >= count)
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    return [
        f"{path!r} has {int(bad.sum()):,} labels outside 0 to {count - 1}: the first "
        f"is {int(labels[row])}, of record {row}."
    ]
