"""What every data set looks like to the rest of the package: names and images."""

from collections.abc import Sized
from typing import Protocol, runtime_checkable

import numpy as np


class DataError(ValueError):
    """A data set is missing, damaged or not what it claims to be."""


@runtime_checkable
class Annotations(Sized, Protocol):
    """Names of N examples, beside what a task knows of them.

    Attributes:
      keys: stable, unique names, e.g. `lsp/im0001`; hashes are taken of these.
      files: image paths relative to the data folder; `keys` for drawn examples.
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the examples."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Image files of the examples."""
        ...


@runtime_checkable
class Source(Protocol):
    """Random access to the images of one data set."""

    @property
    def annotations(self) -> Annotations:
        """Names of its examples."""
        ...

    def image(self, index: int) -> np.ndarray:
        """Image `index`, uint8 [H, W, 3], RGB; or a row of numbers, float32 [F]."""
        ...


@runtime_checkable
class SourceOfRows(Source, Protocol):
    """A source whose examples are rows, and all in memory."""

    @property
    def rows(self) -> np.ndarray:
        """The rows of all examples: float32 [N, F]."""
        ...
