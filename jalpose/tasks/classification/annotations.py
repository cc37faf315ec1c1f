"""Labels of classification data sets as plain arrays, whatever a set ships."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from jalpose.data.dataset import Dataset

UNLABELLED = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotations:
    """Labels of N examples as plain arrays.

    Attributes:
      keys: stable, unique names, e.g. `cifar10/data_batch_1/00000`; hashes are taken of
        these.
      files: image paths relative to the data folder; `keys` where many images lie in
        one file.
      labels: int32 [N], places in `classes`; `UNLABELLED` where nobody knows.
      test: bool [N], which of them are for tests alone.
      classes: names of the C classes.
    """

    keys: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self):
        count = len(self.keys)
        for name in ("files", "labels", "test"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} must be of {count} examples, as keys are")
        if self.labels.dtype != np.int32 or self.test.dtype != bool:
            raise ValueError("labels must be int32, and test bool")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes must have different names")
        out = (self.labels < UNLABELLED) | (self.labels >= len(self.classes))
        if out.any():
            row = int(np.argmax(out))
            raise ValueError(
                f"{self.keys[row]} has the label {self.labels[row]}, and there are "
                f"{len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, rows) -> "Annotations":
        """The examples at these rows."""
        return Annotations(
            keys=tuple(self.keys[row] for row in rows),
            files=tuple(self.files[row] for row in rows),
            labels=self.labels[rows],
            test=self.test[rows],
            classes=self.classes,
        )


class Shipped(NamedTuple):
    """A set as its authors ship it, looked through but for its images.

    Attributes:
      annotations: of all that is there.
      read: (data folder, file, number) -> bytes of an image file, whole; raises
        DataError where it is not.
      containers: see `jalpose.data.preparation.Recipe`.
      side: height and width of all images, which are then taken whole; None: they have
        any sizes, and are cropped.
    """

    annotations: Annotations
    read: Callable[[str, str, int], bytes]
    containers: tuple[str, ...] = ()
    side: int | None = None


@runtime_checkable
class ClassSource(Protocol):
    """Labels of one data set of classes, beside its images.

    Attributes:
      annotations: of its examples.
    """

    annotations: Annotations


def classes_of(dataset: Dataset) -> tuple[str, ...]:
    """Names of the classes that all sources of a data set share."""
    return cast(ClassSource, dataset.sources[0]).annotations.classes
