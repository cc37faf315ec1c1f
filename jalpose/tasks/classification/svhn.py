"""SVHN's cropped digits as their authors ship them: two MATLAB files.

    <data_dir>/svhn/train_32x32.mat   73,257 digits
                   /test_32x32.mat    26,032 digits

`X` is uint8 (32, 32, 3, N) and `y` the digits (N, 1), where 10 stands for the digit 0.
The additional `extra_32x32.mat` is not read: the papers do without it. MATLAB's version
7.3 is HDF5, which SciPy does not read; the authors' files are older.

Y. Netzer and others. Reading Digits in Natural Images with Unsupervised Feature
Learning. NIPS Workshop on Deep Learning and Unsupervised Feature Learning 2011.
"""

import logging
import os

import numpy as np
import scipy.io

from jalpose.data.files import is_file, is_folder
from jalpose.data.source import DataError
from jalpose.tasks.classification import netpbm
from jalpose.tasks.classification.annotations import Annotations, Shipped

NAME, SIDE = "svhn", 32
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
CLASSES = tuple(str(digit) for digit in range(10))
_ZERO = 10  # the label of digit 0
_TRAINING = 73_257  # digits of the whole file
_logger = logging.getLogger(__name__)


def find(data_dir: str) -> Shipped:
    """Labels of SVHN, and how its images are read; memory holds one file at a time.

    Raises:
      DataError: files are missing or not what they should be: all that is wrong, at
        once.
    """
    root = os.path.abspath(os.path.expanduser(data_dir))
    paths = {part: os.path.join(root, NAME, file) for part, file in FILES.items()}
    _check_there(root, paths)
    faults: list[str] = []
    found = {part: _labels(path, faults) for part, path in paths.items()}
    if faults:
        raise DataError(f"{' '.join(faults)} {_advice(root)}")
    if len(found["train"]) < _TRAINING:
        _logger.warning(
            "SVHN has %s of its %s training digits in %r",
            f"{len(found['train']):,}",
            f"{_TRAINING:,}",
            paths["train"],
        )
    keys = tuple(
        f"{NAME}/{part}/{row:05d}" for part, v in found.items() for row in range(len(v))
    )
    return Shipped(
        annotations=Annotations(
            keys=keys,
            files=keys,
            labels=np.concatenate(list(found.values())),
            test=np.repeat([False, True], [len(found["train"]), len(found["test"])]),
            classes=CLASSES,
        ),
        read=_Reader(paths).read,
        side=SIDE,
        containers=tuple(os.path.join(NAME, file) for file in FILES.values()),
    )


class _Reader:
    """Digits out of the file that was last asked for, which memory holds."""

    def __init__(self, paths: dict[str, str]):
        self._paths = paths
        self._open: tuple[str, np.ndarray | DataError] = "", np.empty(0)

    def read(self, data_dir: str, file: str, number: int) -> bytes:
        """The image `svhn/<part>/<row>` as a file of its own."""
        del data_dir, number
        _, part, row = file.split("/")
        if self._open[0] != part:
            self._open = "", np.empty(0)  # the last one goes before the next comes
            try:
                self._open = part, _load(self._paths[part], "X")
            except DataError as error:
                self._open = part, error
        pixels = self._open[1]
        if isinstance(pixels, DataError):
            raise DataError(f"Cannot read {file!r}: {pixels}") from pixels
        return netpbm.encoded(np.ascontiguousarray(pixels[..., int(row)]))


def _check_there(root: str, paths: dict[str, str]) -> None:
    missing = [path for path in paths.values() if not is_file(path)]
    if not missing:
        return
    home = os.path.join(root, NAME)
    if not is_folder(root):
        problem = f"No data folder {root!r}"
    elif not is_folder(home):
        problem = f"No SVHN in the data folder: {home!r} does not exist"
    else:
        names = ", ".join(os.path.basename(path) for path in missing)
        problem = f"SVHN is not whole: {home!r} has no {names}"
        if is_file(os.path.join(home, "train.tar.gz")) or is_folder(
            os.path.join(home, "train")
        ):
            problem += " (the photographs of format 1 are there; format 2 is meant)"
    looked = " and ".join(repr(path) for path in paths.values())
    raise DataError(
        f"{problem}. Looked for {looked}; set config.data.dir or the environment "
        f"variable JALPOSE_DATA to the folder that holds {NAME}. {_advice(root)}"
    )


def _labels(path: str, faults: list[str]) -> np.ndarray:
    """Digits of a file, int32 [N]; what is wrong with it is added to `faults`."""
    none = np.empty(0, np.int32)
    try:
        shapes = {name: (shape, kind) for name, shape, kind in _variables(path)}
        lacking = [name for name in ("X", "y") if name not in shapes]
        if lacking:
            raise DataError(
                f"{path!r} has no variable {' and no '.join(map(repr, lacking))} "
                f"(found: {', '.join(sorted(shapes)) or 'none'})."
            )
        shape, kind = shapes["X"]
        if len(shape) != 4 or shape[:3] != (SIDE, SIDE, 3) or kind != "uint8":
            raise DataError(
                f"'X' in {path!r} is {kind} {shape}, not uint8 (32, 32, 3, N)."
            )
        values = _load(path, "y")
    except DataError as error:
        faults.append(str(error))
        return none
    if values.dtype.kind not in "fiu" or values.size != max(values.shape, default=0):
        faults.append(f"'y' in {path!r} is {values.dtype} {values.shape}, not (N, 1).")
        return none
    labels = values.ravel()
    if len(labels) != shape[3]:
        faults.append(
            f"{path!r} has {len(labels):,} labels in 'y' for {shape[3]:,} images in "
            "'X'."
        )
        return none
    bad = ~np.isin(labels, np.arange(1, _ZERO + 1))
    if bad.any():
        row = int(np.argmax(bad))
        faults.append(
            f"{path!r} has {int(bad.sum()):,} labels other than 1 to 10 (10 is the "
            f"digit 0): the first is {labels[row]}, of image {row}."
        )
        return none
    return (labels.astype(np.int32) % _ZERO).astype(np.int32)


def _variables(path: str) -> list[tuple[str, tuple[int, ...], str]]:
    return _mat(path, lambda: scipy.io.whosmat(path))


def _load(path: str, variable: str) -> np.ndarray:
    """One variable; the others are not read."""
    return _mat(path, lambda: scipy.io.loadmat(path, variable_names=[variable]))[
        variable
    ]


def _mat(path: str, read):
    """What `read` reads of a MATLAB file, its errors as DataErrors."""
    try:
        return read()
    except NotImplementedError as error:
        raise DataError(
            f"{path!r} is of MATLAB's version 7.3 (HDF5), which is not read: take the "
            "authors' file, or save it with -v7."
        ) from error
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DataError(
            f"Cannot read {path!r} as a MATLAB file: {type(error).__name__}: {error}."
        ) from error


def _advice(root: str) -> str:
    return (
        "The authors' page, ufldl.stanford.edu/housenumbers, has train_32x32.mat and "
        f"test_32x32.mat (format 2: cropped digits): put them into "
        f"{os.path.join(root, NAME)!r}."
    )
