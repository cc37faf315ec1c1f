"""Pickles of arrays and plain containers: nothing else is ever called.

A pickle may name any function of the machine and have it called. Those that are read
here name NumPy's arrays, scalars and types; whatever else they name is refused before
it is looked up.
"""

import pickle
from typing import Any

import numpy as np

from jalpose.data.source import DataError


def _bytes_of(text: str, coding: str) -> bytes:
    """What Python 3 pickles bytes as for Python 2."""
    if coding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text in the coding {coding!r}")
    return text.encode("latin1")


# Of NumPy's own, by whatever name its versions gave them.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.uint8(0).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _bytes_of,
    **{
        (f"numpy.{core}.{name}", function): found
        for core in ("core", "_core")
        for name, function, found in (
            ("multiarray", "_reconstruct", _RECONSTRUCT),
            ("multiarray", "scalar", _SCALAR),
            ("numeric", "_frombuffer", _FROM_BUFFER),
        )
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Foreign(f"{module}.{name}") from None

    def persistent_load(self, pid):
        raise _Foreign("an object that is kept elsewhere")


class _Foreign(pickle.UnpicklingError):
    """It names something that is not called."""


def read(path: str, advice: str = "") -> dict[str, Any]:
    """The dict that a pickled file holds, its keys as text.

    Strings of Python 2 are bytes there; whether keys or names are text or bytes makes
    no difference.

    Args:
      path: of the file.
      advice: what to do where it cannot be read; "" where the caller says it.

    Raises:
      DataError: it cannot be read, names anything but arrays and plain containers, or
        is no dict.
    """
    try:
        with open(path, "rb") as file:
            found = _Reader(file, encoding="bytes").load()
    except _Foreign as error:
        raise DataError(
            f"{path!r} is a pickle that asks for {error}, which a file of arrays has "
            f"no use for; it was not called. {advice}".rstrip()
        ) from error
    except Exception as error:  # unpickling raises many kinds for a damaged file
        raise DataError(
            f"Cannot read {path!r} as a pickle: {type(error).__name__}: {error}. "
            f"{advice}".rstrip()
        ) from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise DataError(
            f"{path!r} holds a pickled {kind}, not a dict. {advice}".rstrip()
        )
    return {text(key): value for key, value in found.items()}


def text(value: Any) -> str:
    """Text that Python 2 or 3 wrote."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
