"""DeepLabCut's tables of labelled frames: `CollectedData_<scorer>.csv` and `.h5`.

Three header rows, four in a project of several animals (A. Mathis et al., DeepLabCut,
Nature Neuroscience 2018):

    scorer      the same in every column
    individuals names of the animals; only where there are several
    bodyparts   names of the joints
    coords      x, y, and of predictions likelihood

Then a row a frame, named by `labeled-data`, folder and file in a column each, in older
files in one column. An empty cell is a joint that nobody has marked; one that is hidden
is not told from one that is seen. The `.h5` holds the same table for pandas, which
needs PyTables to read it: both are optional (`jalpose[deeplabcut]`).

Tables name no links: they are those of the project's `config.yaml` (`skeleton`, pairs
of bodyparts), where it lies beside the table or up to two folders above.
"""

import csv
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from jalpose.data.source import DataError
from jalpose.tasks.exchange import separator
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE, Skeleton

NAME = "DeepLabCut"
H5_KEY = "df_with_missing"
HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins
_HEADS = ("scorer", "individuals", "bodyparts", "coords")
_FOLDER = "labeled-data"
_PROJECT = "config.yaml"
_logger = logging.getLogger(__name__)


def is_it(line: str) -> bool:
    """Is this the first line of such a table?"""
    first = line.lstrip("\ufeff").split(separator(line))[0]
    return first.strip().strip('"') == "scorer"


def read(path: str | os.PathLike, *, name: str = "animal") -> Poses:
    """The frames of a table, in file order.

    The id of an animal is its name; "" where a project has one. A frame without a mark
    is an image, and of one animal an unlabelled instance too.

    Args:
      path: of the CSV, or of the H5.
      name: of what is annotated: the file does not tell.

    Raises:
      DataError: the file is missing, damaged, not of this format, or has a joint that
        can be nowhere; or it is an H5 and what reads it is not installed.
    """
    path = os.fspath(path)
    rows = _rows_of_h5(path) if _is_h5(path) else _rows_of_csv(path)
    heads, start, columns = _columns(rows, path)
    animals = dict.fromkeys(columns["individuals"])
    joints = {
        animal: tuple(
            dict.fromkeys(
                part
                for part, whose in zip(
                    columns["bodyparts"], columns["individuals"], strict=True
                )
                if whose == animal
            )
        )
        for animal in animals
    }
    first = next(iter(joints.values()))
    # `single` has the joints that belong to no animal: of the arena, say.
    strange = [who for who, own in joints.items() if own != first and who != "single"]
    if strange:
        raise DataError(
            f"{path!r}: {strange[0]} has other bodyparts than {next(iter(joints))}; "
            "all animals are to have the same"
        )
    whose = [who for who, own in joints.items() if own == first]
    try:
        skeleton = poses.skeleton_named(name, first, _links(path, first))
    except ValueError as error:
        raise DataError(f"{path!r} is not as DeepLabCut has it: {error}") from error
    images: dict[str, Image] = {}
    instances = []
    for number, row in enumerate(rows[heads:], start=heads + 1):
        try:
            file = _file(row[:start])
            if file in images:
                raise ValueError("there is another of the same image")
            images[file] = Image(file=file)
            found = _animals(row[start:], columns, whose, skeleton, file)
        except (IndexError, ValueError) as error:
            raise DataError(
                f"Row {number} of {path!r} ({','.join(map(str, row[:start]))}) is not "
                f"as DeepLabCut has them: {words(error)}. Correct it, or export the "
                "file again."
            ) from error
        instances += found
    return Poses(
        skeleton=skeleton, images=tuple(images.values()), instances=tuple(instances)
    )


def rows_of(found: Poses, *, scorer: str = "jalpose") -> list[list[str]]:
    """The table as CSV has it, with a column each for the parts of an image's path.

    Of several animals an image where an image has so many or they have names;
    likelihoods where every instance has confidences. The paths are to have three parts,
    as DeepLabCut asks for: `labeled-data/<folder>/<file>`.

    Args:
      found: what is written.
      scorer: who has marked it, as config.yaml of the project has it.

    Raises:
      ValueError: a path has not three parts, or two animals of an image one name.
    """
    skeleton, instances = found.skeleton, found.instances
    crowded = len({one.file for one in instances}) < len(instances)
    animals = [""]
    if crowded or any(one.id for one in instances):
        animals = list(dict.fromkeys(_named(instances).values()))
    likely = bool(instances) and all(one.confidence is not None for one in instances)
    coords = ["x", "y", "likelihood"] if likely else ["x", "y"]
    count = len(animals) * skeleton.num_joints * len(coords)
    heads: dict[str, Sequence[str]] = {
        "scorer": [scorer] * count,
        "individuals": [a for a in animals for _ in range(count // len(animals))],
        "bodyparts": [
            joint for _ in animals for joint in skeleton.joints for _ in coords
        ],
        "coords": coords * (count // len(coords)),
    }
    if animals == [""]:
        del heads["individuals"]
    rows = [[name, "", "", *values] for name, values in heads.items()]
    names = _named(instances) if animals != [""] else dict.fromkeys(instances, "")
    at = {(one.file, names[one]): one for one in instances}
    if len(at) < len(instances):
        raise ValueError("two animals of an image have the same name")
    for image in found.images:
        parts = image.file.split("/")
        if len(parts) != 3:
            raise ValueError(
                f"{image.file!r} is not of the form {_FOLDER}/<folder>/<file>"
            )
        cells: list[str] = []
        for animal in animals:
            instance = at.get((image.file, animal))
            for joint in range(skeleton.num_joints):
                there = instance is not None and instance.status[joint] != ABSENT
                values = [""] * len(coords)
                if instance is not None and there:
                    values[:2] = [repr(float(v)) for v in instance.joints[joint]]
                    if likely and instance.confidence is not None:
                        values[2] = repr(float(instance.confidence[joint]))
                cells += values
        rows.append([*parts, *cells])
    return rows


def _links(path: str, joints: tuple[str, ...]) -> list[tuple[int, int]]:
    """Links that the project of a table has; none where it is not at hand.

    Pairs of other names are left out: DeepLabCut begins with some as an example.
    """
    folder = os.path.dirname(os.path.abspath(path))
    for _ in range(3):
        project = os.path.join(folder, _PROJECT)
        if os.path.isfile(project):
            break
        folder = os.path.dirname(folder)
    else:
        return []
    try:
        with open(project, encoding="utf-8-sig") as file:
            content = yaml.safe_load(file)
        pairs = (content or {}).get("skeleton") or []
        named = [(one, other) for one, other in pairs]
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        _logger.warning("no links from %s, which cannot be read: %s", project, error)
        return []
    return [
        (joints.index(one), joints.index(other))
        for one, other in named
        if one in joints and other in joints
    ]


def _named(instances: Sequence[Instance]) -> dict[Instance, str]:
    """Names of animals: their ids where they are names, else counted in each image."""
    counts: dict[str, int] = {}
    found = {}
    for one in instances:
        counts[one.file] = number = counts.get(one.file, 0) + 1
        named = one.id and not one.id.isdigit()
        found[one] = one.id if named else f"individual{number}"
    return found


def _rows_of_csv(path: str) -> list[list[Any]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            mark = separator(file.readline())
            file.seek(0)
            return [row for row in csv.reader(file, delimiter=mark) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"Cannot read {path!r} as CSV: {error}. Copy or export it again."
        ) from error


def _is_h5(path: str) -> bool:
    """Is a file an H5, by its content, or by its name where it cannot be read?"""
    try:
        with open(path, "rb") as file:
            return file.read(len(HDF5)) == HDF5
    except OSError:
        return path.lower().endswith(".h5")


def _rows_of_h5(path: str) -> list[list[Any]]:
    """The table of an H5 as its CSV has it."""
    try:
        import pandas
        import tables  # noqa: F401 (pandas finds it by itself, and fails late without)
    except ImportError as error:
        raise DataError(
            f"{path!r} is DeepLabCut's H5, which needs pandas and PyTables: pip "
            "install 'jalpose[deeplabcut]'. The CSV of the same name beside it has the "
            "same labels, and needs nothing."
        ) from error
    try:
        table = pandas.read_hdf(path)
    except Exception as error:  # PyTables has many kinds
        raise DataError(
            f"Cannot read {path!r} as a table: {error}. Copy or export it again."
        ) from error
    parts = [list(name) if isinstance(name, tuple) else [name] for name in table.index]
    heads = [
        [name, *[""] * (len(parts[0]) - 1), *table.columns.get_level_values(name)]
        for name in table.columns.names
    ]
    values = table.to_numpy(float)
    return heads + [
        [*named, *("" if np.isnan(v) else v for v in row)]
        for named, row in zip(parts, values.tolist(), strict=True)
    ]


def _columns(rows: list[list[Any]], path: str) -> tuple[int, int, dict[str, list]]:
    """Header rows, columns that name a frame, and what is above the others."""
    found = {}
    for row in rows[: len(_HEADS)]:
        if row[0] not in _HEADS:
            break
        found[row[0]] = [str(cell) for cell in row]
    coords = found.get("coords", [])
    missing = [name for name in ("scorer", "bodyparts", "coords") if name not in found]
    if missing or "x" not in coords:
        raise DataError(
            f"{path!r} is not a table of DeepLabCut: it has no header row of "
            f"{', '.join(missing) or 'coords with x and y'}"
        )
    start = coords.index("x")
    width = len(coords) - start
    columns = {
        name: found[name][start:] if name in found else [""] * width for name in _HEADS
    }
    if any(len(values) != width for values in columns.values()):
        raise DataError(f"{path!r}: its header rows have different lengths")
    wrong = set(columns["coords"]) - {"x", "y", "likelihood"}
    if wrong:
        named = ", ".join(sorted(one or "without a name" for one in wrong))
        raise DataError(f"{path!r}: it has the coords {named}")
    return len(found), start, columns


def _file(cells: list) -> str:
    """The image of a row; of a path from another machine the part in the project."""
    name = "/".join(str(cell) for cell in cells if cell != "").replace("\\", "/")
    parts = name.split("/")
    if _FOLDER in parts:
        parts = parts[parts.index(_FOLDER) :]
    return poses.check_file("/".join(parts))


def _animals(cells, columns, whose, skeleton: Skeleton, file: str) -> list[Instance]:
    if len(cells) != len(columns["coords"]):
        raise ValueError(
            f"it has {len(cells)} coordinates, not the {len(columns['coords'])} of the "
            "header"
        )
    size = (len(whose), skeleton.num_joints, 3)
    values = np.full(size, np.nan)
    places = {"x": 0, "y": 1, "likelihood": 2}
    seen = set()
    for cell, animal, part, coord in zip(
        cells,
        columns["individuals"],
        columns["bodyparts"],
        columns["coords"],
        strict=True,
    ):
        if animal not in whose:
            continue
        place = whose.index(animal), skeleton.joints.index(part), places[coord]
        if place in seen:
            raise ValueError(f"{coord} of {part} is there twice")
        seen.add(place)
        if isinstance(cell, float) or cell.strip():
            values[place] = float(cell)
    found = []
    for animal, own in zip(whose, values, strict=True):
        joints, likely = own[:, :2], own[:, 2]
        half = np.isnan(joints).any(axis=1) & ~np.isnan(joints).all(axis=1)
        if half.any():
            part = skeleton.joints[int(np.argmax(half))]
            raise ValueError(f"its {part} has x or y alone")
        nowhere = (joints == 0).all(axis=1)
        if nowhere.any():
            part = skeleton.joints[int(np.argmax(nowhere))]
            raise ValueError(
                f"its {part} has the place [0, 0], which is a placeholder: the cells "
                "of a joint that nobody has marked are to be empty"
            )
        status = np.where(np.isnan(joints[:, 0]), ABSENT, VISIBLE).astype(np.int8)
        poses.check_joints(joints, status, skeleton.joints)
        if animal and not (status != ABSENT).any():
            continue  # this one is not in the frame
        found.append(
            Instance(
                file=file,
                id=animal,
                joints=joints.copy(),
                status=status,
                confidence=None if np.isnan(likely).all() else likely.copy(),
            )
        )
    return found
