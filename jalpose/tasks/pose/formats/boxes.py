"""Boxes of people in a CSV, and bare folders of images: what there is to label.

    file,x,y,w,h          with `id` for one of several people an image, if it likes
    day 1/007.jpg,12,30,80,200

x and y are the upper left corner, all four pixels, measured from the image's corner.
Semicolons may stand for the commas, but decimals have points.
"""

import csv
import os

import numpy as np

from jalpose.data.files import images_below
from jalpose.data.source import DataError
from jalpose.tasks.exchange import separator
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, Skeleton

NAME = "a CSV of boxes"
_COLUMNS = ("file", "x", "y", "w", "h")


def is_it(line: str) -> bool:
    """Is this the first line of such a file?"""
    cells = line.lstrip("\ufeff").split(separator(line))
    names = [name.strip().strip('"').lower() for name in cells]
    return set(_COLUMNS) <= set(names)


def read(path: str | os.PathLike, *, skeleton: Skeleton) -> Poses:
    """The boxes of a CSV, in file order.

    The id of one is that of the column, else its number among those of its image; ""
    where there is one.

    Args:
      path: of the CSV.
      skeleton: that they are to be labelled with.

    Raises:
      DataError: the file is missing, damaged, not of this format, or a box is empty or
        can be nowhere.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            mark = separator(file.readline())
            file.seek(0)
            rows = list(csv.reader(file, delimiter=mark))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"Cannot read {path!r} as CSV: {error}") from error
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if not set(_COLUMNS) <= set(names):
        raise DataError(
            f"{path!r} is not a CSV of boxes: its first line is to name the columns "
            f"{','.join(_COLUMNS)}"
        )
    places = [names.index(name) for name in _COLUMNS]
    known = names.index("id") if "id" in names else None
    images: dict[str, Image] = {}
    found: list[tuple[str, str, np.ndarray]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            if len(row) < len(names) or any(row[len(names) :]):
                raise ValueError(f"it has {len(row)} cells, not {len(names)}")
            name = poses.check_file(row[places[0]].strip())
            box = poses.box_of(*(float(row[place]) for place in places[1:]))
            if box is None:
                raise ValueError("its box is empty")
            images[name] = Image(file=name)
            found.append((name, row[known].strip() if known is not None else "", box))
        except ValueError as error:
            raise DataError(
                f"Line {number} of {path!r} ({mark.join(row)}) is no box: "
                f"{words(error)}"
            ) from error
    return Poses(
        skeleton=skeleton,
        images=tuple(images.values()),
        instances=_numbered(found, skeleton, path),
    )


def _numbered(found, skeleton: Skeleton, path: str) -> tuple[Instance, ...]:
    counts: dict[str, int] = {}
    for name, _, _ in found:
        counts[name] = counts.get(name, 0) + 1
    seen: dict[str, set[str]] = {}
    instances = []
    for name, id, box in found:
        own = seen.setdefault(name, set())
        id = id or ("" if counts[name] == 1 else str(len(own) + 1))
        if id in own:
            raise DataError(f"{path!r} has two boxes of {name!r} with the id {id!r}")
        own.add(id)
        instances.append(unlabelled(name, skeleton, id=id, box=box))
    return tuple(instances)


def folder(path: str | os.PathLike, *, skeleton: Skeleton) -> Poses:
    """Every image file in a folder and those below it, by name, each as one person.

    Their boxes are not known here: an image is taken whole.

    Args:
      path: of the folder.
      skeleton: that they are to be labelled with.

    Raises:
      DataError: there is no image in it; see also `files.images_below`.
    """
    files = images_below(path)
    return Poses(
        skeleton=skeleton,
        images=tuple(Image(file=file) for file in files),
        instances=tuple(unlabelled(file, skeleton) for file in files),
    )


def unlabelled(
    file: str, skeleton: Skeleton, *, id: str = "", box: np.ndarray | None = None
) -> Instance:
    """Somebody of whom no joint is known."""
    count = skeleton.num_joints
    return Instance(
        file=file,
        id=id,
        joints=np.full((count, 2), np.nan),
        status=np.full(count, ABSENT, np.int8),
        box=box,
    )
