"""Annotations in COCO's keypoint format, of any skeleton.

One JSON file (cocodataset.org/#format-data; T.-Y. Lin et al., Microsoft COCO: Common
Objects in Context, ECCV 2014) with

    images       [{id, file_name, width, height}]
    categories   [{id, name, keypoints: [J names], skeleton: [[joint, joint], ...]}]
    annotations  [{id, image_id, category_id, keypoints: [x, y, v] J times, bbox}]

An example is one annotation with an annotated joint; groups (`iscrowd`) and those
without any are left out. v is 0 for a joint that is absent, whatever its coordinates, 1
for one that is hidden, 2 for one that is visible. Joints are counted from 1 in
`skeleton`, and their coordinates from 0: pixel centres are whole numbers, as everywhere
here. A box [x, y, width, height] is measured from the corner of the image, half a pixel
before the first pixel's centre.

Names and links are the category's own. Mirror pairs are found by name: `left` against
`right` wherever it stands (left_eye, EyeLeft, leftear), and l against r as a word
(l_eye, eye.L, LEye).
"""

import json
import logging
import os
import re
from typing import Any, NamedTuple

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.annotations import WILD, Annotations
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE, Skeleton

_STATUS = {0: ABSENT, 1: OCCLUDED, 2: VISIBLE}  # of v
_WORD = re.compile(r"[A-Z](?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_logger = logging.getLogger(__name__)


class CocoPoses(NamedTuple):
    """What a file describes.

    Attributes:
      skeleton: of its category.
      annotations: of N examples, with boxes where the file has any.
      sizes: int [N, 2], width and height of their images as the file has them, pixels.
    """

    skeleton: Skeleton
    annotations: Annotations
    sizes: np.ndarray


def read_annotations(
    path: str | os.PathLike, folder: str, *, name: str = "coco", category: str = ""
) -> CocoPoses:
    """Labels of a file, in file order and the joint order of its category.

    Keys are `<name>/<image>_<id of the annotation>`.

    Args:
      path: of the JSON.
      folder: of its images, relative to the data folder.
      name: of the set.
      category: whose annotations are read; "": the only one that has keypoints.

    Raises:
      DataError: the file is missing, damaged, not of this format, describes nobody, or
        has a joint or box that can be nowhere.
    """
    path = os.fspath(path)
    content = _load(path)
    number, skeleton = _category(content["categories"], path, category)
    images = _images(content["images"], path)
    rows, left_out, seen = [], 0, set()
    for position, entry in enumerate(content["annotations"]):
        try:
            if entry["category_id"] != number:
                continue
            if entry["id"] in seen:
                raise ValueError(f"there is another of the id {entry['id']}")
            seen.add(entry["id"])
            image = images.get(entry["image_id"])
            if image is None:
                raise ValueError("there is no image of that id")
            row = _read_row(entry, image, skeleton)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Annotation {position} of {path!r} (id "
                f"{_get(entry, 'id')}, image {_get(entry, 'image_id')}) is not as COCO "
                f"has them: {_words(error)}. Correct it, or export the file again."
            ) from error
        if _get(entry, "iscrowd") or (row.status == ABSENT).all():
            left_out += 1
        else:
            rows.append(row)
    if left_out:
        _logger.info(
            "%s: left out %d of %d annotations: groups, or without an annotated joint",
            name.upper(),
            left_out,
            left_out + len(rows),
        )
    if not rows:
        raise DataError(
            f"None of the {left_out} annotations of {skeleton.name!r} in {path!r} has "
            "an annotated joint (keypoints with v of 1 or 2)"
        )
    boxes = np.stack([row.box for row in rows])
    stems = [os.path.splitext(row.image.file)[0] for row in rows]
    labels = Annotations(
        keys=tuple(f"{name}/{s}_{r.id}" for s, r in zip(stems, rows, strict=True)),
        files=tuple(f"{folder}/{row.image.file}" for row in rows),
        joints=np.stack([row.joints for row in rows]).astype(np.float32),
        status=np.stack([row.status for row in rows]),
        boxes=None if np.isnan(boxes).all() else boxes.astype(np.float32),
    )
    return CocoPoses(skeleton, labels, np.array([row.image.size for row in rows]))


def mirror_pairs(joints: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Joints that change places in a mirror, (left, right), by their names."""
    places, pairs = _places(joints), []
    for words, place in places.items():
        other = " ".join(
            "r" if word == "l" else word.replace("left", "right")
            for word in words.split()
        )
        if places.get(other, place) != place:
            pairs.append((place, places[other]))
    return tuple(pairs)


def _places(joints: tuple[str, ...]) -> dict[str, int]:
    """Where each joint is, by its name in small letters: left_eye is "left eye"."""
    words = [" ".join(_WORD.findall(name)).lower() for name in joints]
    return {name: place for place, name in enumerate(words)}


class _Image(NamedTuple):
    file: str
    size: tuple[int, int]


class _Row(NamedTuple):
    id: Any
    image: _Image
    joints: np.ndarray
    status: np.ndarray
    box: np.ndarray


def _load(path: str) -> dict[str, list]:
    """The file's lists by name."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read {path!r} as JSON: {error}. Copy or export it again."
        ) from error
    names = ("images", "categories", "annotations")
    lists = content if isinstance(content, dict) else {}
    missing = [name for name in names if not isinstance(lists.get(name), list)]
    if missing:
        raise DataError(
            f"{path!r} is not in COCO's format: it has no list of {', '.join(missing)}"
        )
    return {name: lists[name] for name in names}


def _category(found: list, path: str, wanted: str) -> tuple[Any, Skeleton]:
    """The id of a category with keypoints, and its skeleton."""
    having = {
        str(_get(one, "name")): one for one in found if _get(one, "keypoints")
    }  # annotation tools list categories without
    if wanted not in having if wanted else len(having) != 1:
        names = ", ".join(having) or "none"
        problem = f"no category {wanted!r}" if wanted else "not one category"
        raise DataError(
            f"{path!r} has {problem} with keypoints: of {len(found)} categories these "
            f"have: {names}."
            + (" Is there a person_keypoints file beside it?" if not having else "")
        )
    name = wanted or next(iter(having))
    try:
        return having[name]["id"], _skeleton(name, having[name])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The category {name!r} of {path!r} is not as COCO has them: "
            f"{_words(error)}"
        ) from error


def _skeleton(name: str, category: dict) -> Skeleton:
    joints = tuple(category["keypoints"])
    if not all(isinstance(joint, str) for joint in joints):
        raise ValueError("its keypoints are not names")
    if len(set(joints)) < len(joints):
        raise ValueError("two of its keypoints have the same name")
    limbs = []
    for link in category.get("skeleton") or ():
        first, second = (int(joint) for joint in link)
        if not {first, second} <= set(range(1, len(joints) + 1)):
            raise ValueError(
                f"its skeleton has the link {list(link)}, but its {len(joints)} "
                "keypoints are counted from 1"
            )
        limbs.append((first - 1, second - 1))
    places = _places(joints)
    torso = [
        (places.get(f"{one} shoulder"), places.get(f"{other} hip"))
        for one, other in (("left", "right"), ("right", "left"))
    ]
    whole = [(a, b) for a, b in torso if a is not None and b is not None]
    return Skeleton(
        name=f"{name}{len(joints)}",
        joints=joints,
        flip_pairs=mirror_pairs(joints),
        limbs=tuple(limbs),
        torso=tuple(whole) if len(whole) == len(torso) else (),
    )


def _images(entries: list, path: str) -> dict[Any, _Image]:
    found: dict[Any, _Image] = {}
    for position, entry in enumerate(entries):
        try:
            file, size = entry["file_name"], (int(entry["width"]), int(entry["height"]))
            if not isinstance(file, str) or not file:
                raise ValueError(f"its file_name is {file!r}")
            if os.path.isabs(file) or ".." in file.split("/"):
                raise ValueError(f"its file_name {file!r} leads out of the images")
            if min(size) < 1:
                raise ValueError(f"it has {size[0]} x {size[1]} pixels")
            if entry["id"] in found:
                raise ValueError(f"there is another of the id {entry['id']}")
            found[entry["id"]] = _Image(file, size)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Image {position} of {path!r} ({_get(entry, 'file_name')}) is not as "
                f"COCO has them: {_words(error)}"
            ) from error
    return found


def _read_row(entry: dict, image: _Image, skeleton: Skeleton) -> _Row:
    given = np.array(entry.get("keypoints") or [0] * 3 * skeleton.num_joints, float)
    if given.shape != (3 * skeleton.num_joints,):
        raise ValueError(
            f"it has {given.size} numbers in keypoints, not 3 of each of the "
            f"{skeleton.num_joints} joints"
        )
    joints, flags = given.reshape(-1, 3)[:, :2], given[2::3]
    if not np.isin(flags, list(_STATUS)).all():
        wrong = flags[~np.isin(flags, list(_STATUS))][0]
        raise ValueError(f"a v of {wrong:g}, which is not 0, 1 or 2")
    status = np.array([_STATUS[int(flag)] for flag in flags], np.int8)
    joints[status == ABSENT] = np.nan
    for wrong, words in (
        (~np.isfinite(joints).all(axis=1), "is not finite"),
        ((np.abs(joints) > WILD).any(axis=1), f"is beyond {WILD:,} pixels"),
        ((joints == 0).all(axis=1), "is a placeholder: is v to be 0?"),
    ):
        wrong = wrong & (status != ABSENT)
        if wrong.any():
            joint = int(np.argmax(wrong))
            raise ValueError(
                f"its {skeleton.joints[joint]} has the place {joints[joint].tolist()} "
                f"and v={flags[joint]:g}, which {words}"
            )
    return _Row(entry["id"], image, joints, status, _box(entry.get("bbox")))


def _box(given) -> np.ndarray:
    """Its corners in pixels whose centres are whole numbers; NaN of one without."""
    if not given:
        return np.full(4, np.nan)
    x, y, width, height = (float(value) for value in given)
    if not np.isfinite((x, y, width, height)).all() or min(width, height) < 0:
        raise ValueError(f"its bbox is {list(given)}")
    if max(map(abs, (x, y, width, height))) > WILD:
        raise ValueError(f"its bbox {list(given)} is beyond {WILD:,} pixels")
    if not width or not height:
        return np.full(4, np.nan)
    return np.array([x, y, x + width, y + height]) - 0.5


def _get(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None


def _words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error}"
    return str(error)
