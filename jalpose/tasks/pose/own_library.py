"""Own images and COCO as reports read them: from the files that describe them."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jalpose.data import images
from jalpose.data.source import DataError
from jalpose.tasks.pose import own
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import Skeleton


class Opened(NamedTuple):
    """What a report draws examples of own images by.

    Attributes:
      folder: the data folder.
      skeleton: of all.
      annotations: of N examples, those whose images were left out are not among them.
      windows: float32 [N, 3], crop windows.
    """

    folder: str
    skeleton: Skeleton
    annotations: Annotations
    windows: np.ndarray


def open_own(data: Mapping, data_dir: str | None = None) -> Opened:
    """Read what the files of a run's config say, and the sizes of images taken whole.

    Args:
      data: section of a recorded config.
      data_dir: stands in for its `dir`.

    Raises:
      DataError: they cannot be read.
    """
    folder = os.path.abspath(os.path.expanduser(data_dir or data["dir"]))
    said = own.describe({**data, "dir": folder})
    known: dict[str, tuple[int, int] | None] = {}
    for file in said.annotations.files:
        if file not in known:
            known[file] = _size(os.path.join(folder, file), data["damaged"])
    rows = np.array(
        [row for row, f in enumerate(said.annotations.files) if known[f] is not None],
        np.int64,
    )
    annotations = said.annotations.at(rows)
    sizes = np.array([known[file] for file in annotations.files]).reshape(-1, 2)
    windows = own.windows_of(
        annotations, said.whole[rows], sizes, data["crop"], data["window"]
    )
    return Opened(folder, said.skeleton, annotations, windows)


def skeleton_of(data: Mapping) -> Skeleton | None:
    """The skeleton of a run's data; None where they are not here."""
    try:
        return own.describe(data).skeleton
    except DataError:
        return None


def unnamed(count: int) -> Skeleton:
    """So many joints of which no name and no link is known."""
    return Skeleton(
        name=f"joints{count}",
        joints=tuple(f"joint {n + 1}" for n in range(count)),
        flip_pairs=(),
        limbs=(),
        torso=(),
    )


def _size(path: str, damaged: str) -> tuple[int, int] | None:
    """Width and height of an image; None of one that was left out."""
    if damaged != "leave_out":
        try:
            with open(path, "rb") as stream:
                found = images.facts(stream.read(), what=path, advice="")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        return found.width, found.height
    try:
        encoded = images.read_image_file(path, what=path, described_by="it", advice="")
    except DataError:
        return None
    found = images.facts(encoded, what=path, advice="")
    return found.width, found.height
