"""Tensors of a file that PyTorch has saved, read without PyTorch.

The format of `torch.save` before 1.6, which published weights still have: pickles of a
magic number, a version, facts about the machine, the object, and the names of its
storages, and behind them the storages' numbers, each after how many there are. A pickle
may call anything; this one may call what makes a dict of tensors, and nothing else.
"""

import collections
import io
import os
import pickle
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jalpose.data.source import DataError

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}


class _Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Kind(str):
    """NumPy's dtype of a storage; no type, so that a pickle cannot call it."""


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a file, by name.

    Args:
      path: of a dict of tensors, as `torch.save(model.state_dict(), path)` wrote it in
        the older format.

    Raises:
      DataError: the file is damaged, of another format, or holds anything else.
    """
    with open(path, "rb") as file:
        try:
            return _read(file, os.fstat(file.fileno()).st_size)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # a damaged pickle raises whatever it likes
            raise DataError(
                f"{path} is no file of tensors of PyTorch's older format, or damaged: "
                f"{error}"
            ) from error


def _read(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    if (_plain(file), _plain(file)) != (_MAGIC, _VERSION):
        raise DataError("it does not begin as PyTorch's older format does")
    facts = _plain(file)
    if not facts.get("little_endian", False):
        raise DataError("its numbers are not little-endian")
    unpickler = _Unpickler(file)
    tensors = unpickler.load()
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, _Tensor)
        for name, tensor in tensors.items()
    ):
        raise DataError("it holds something else than tensors by name")
    storages: dict[str, np.ndarray] = {}
    for name in _plain(file):
        kind, wanted = unpickler.storages[name]
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(str(kind))
        if count != wanted or count * dtype.itemsize > size:
            raise DataError(f"storage {name} has {count} numbers, not {wanted}")
        storages[name] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
        if len(storages[name]) != count:
            raise DataError("it ends too early")
    return {name: _view(storages[t.storage], t, name) for name, t in tensors.items()}


def _plain(file: BinaryIO) -> Any:
    """A pickle that calls nothing."""
    return _Unpickler(file).load()


def _view(storage: np.ndarray, tensor: _Tensor, name: str) -> np.ndarray:
    sides = list(zip(tensor.shape, tensor.strides, strict=True))
    whole = all(n >= 0 and step >= 0 for n, step in sides) and tensor.offset >= 0
    last = tensor.offset + sum((n - 1) * step for n, step in sides)
    if not whole or (all(tensor.shape) and last >= len(storage)):
        raise DataError(f"tensor {name} reaches beyond its storage")
    steps = [step * storage.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        storage[tensor.offset :], tensor.shape, steps
    )
    return view.copy()


class _Unpickler(pickle.Unpickler):
    """Makes dicts of `_Tensor`; `storages` are those it has seen, by name."""

    def __init__(self, file: BinaryIO | io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, tuple[_Kind, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _Kind(_STORAGES[name])
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
        }
        if (module, name) not in known:
            raise DataError(
                f"it asks for {module}.{name}, which is none of what tensors are made "
                "of: it is not read"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        word, kind, name, _, count, view = pid
        if word != "storage" or not isinstance(kind, _Kind) or view is not None:
            raise DataError(f"it refers to {pid!r}, which is no storage of numbers")
        self.storages[name] = kind, int(count)
        return name, str(kind)


def _rebuilt(storage, offset, shape, strides, requires_grad, hooks) -> _Tensor:
    """In the place of `torch._utils._rebuild_tensor_v2`."""
    del requires_grad, hooks
    name, dtype = storage
    return _Tensor(name, dtype, int(offset), tuple(shape), tuple(strides))
