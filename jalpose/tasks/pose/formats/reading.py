"""Any annotation file: its format is told by its content, not by its name."""

import json
import os

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import (
    boxes,
    coco,
    cvat,
    deeplabcut,
    label_studio,
    sleap,
)
from jalpose.tasks.pose.formats.poses import Poses
from jalpose.tasks.pose.skeletons import Skeleton

FORMATS = (
    "COCO keypoints (JSON), DeepLabCut (CSV, H5), Label Studio (JSON), CVAT for images "
    "1.1 (XML), SLEAP (.slp)"
)
_PANDAS = b"pandas_type"  # what pandas writes beside a table
_HEAD = 2**16


def format_of(path: str | os.PathLike) -> str:
    """The name of a file's format; "" of none that is read.

    Raises:
      DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if head.startswith(deeplabcut.HDF5):
                pandas = _PANDAS in head or _PANDAS in file.read()
                return deeplabcut.NAME if pandas else sleap.NAME
        text = head.decode("utf-8-sig", errors="replace").lstrip()
        if text.startswith(("{", "[")):
            return _of_json(path)
    except OSError as error:
        raise DataError(f"Cannot read {os.fspath(path)!r}: {error.strerror}") from error
    if text.startswith("<"):
        return cvat.NAME if cvat.is_it(text) else ""
    line = text.splitlines()[0] if text else ""
    for own in (deeplabcut, boxes):
        if own.is_it(line):
            return own.NAME
    return ""


def read(
    path: str | os.PathLike, *, category: str = "", skeleton: Skeleton | None = None
) -> Poses:
    """What a file of any format says.

    Args:
      path: of the file.
      category: of COCO's, whose annotations are read; "": the only one.
      skeleton: of the labels read before, for formats that do not tell all joints, and
        for boxes; None: there are none.

    Raises:
      DataError: it is of no format that is read, or not as its format has it.
    """
    path = os.fspath(path)
    found = format_of(path)
    if found == coco.NAME:
        return coco.read(path, category=category, skeleton=skeleton)
    if found == deeplabcut.NAME:
        return deeplabcut.read(path)
    if found == label_studio.NAME:
        return label_studio.read(path, skeleton=skeleton)
    if found == cvat.NAME:
        return cvat.read(path, skeleton=skeleton)
    if found == sleap.NAME:
        return sleap.read(path)
    if found == boxes.NAME and skeleton is not None:
        return boxes.read(path, skeleton=skeleton)
    if found == boxes.NAME:
        raise DataError(f"{path!r} has boxes alone, no joints: it can be a pool")
    raise DataError(f"{path!r} is in none of the formats that are read: {FORMATS}")


def _of_json(path) -> str:
    with open(path, encoding="utf-8-sig") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise DataError(
                f"Cannot read {os.fspath(path)!r} as JSON: {error}. Copy or export it "
                "again."
            ) from error
    if coco.is_it(content):
        return coco.NAME
    return label_studio.NAME if label_studio.is_it(content) else ""
