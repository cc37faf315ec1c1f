"""COCO's keypoint format, of any skeleton.

One JSON file (cocodataset.org/#format-data; T.-Y. Lin et al., Microsoft COCO: Common
Objects in Context, ECCV 2014) with

    images       [{id, file_name, width, height}]
    categories   [{id, name, keypoints: [J names], skeleton: [[joint, joint], ...]}]
    annotations  [{id, image_id, category_id, keypoints: [x, y, v] J times, bbox}]

v is 0 for a joint that is absent, whatever its coordinates, 1 for one that is hidden, 2
for one that is visible. Joints are counted from 1 in `skeleton`, and their coordinates
from 0: pixel centres are whole numbers, as everywhere here. A box [x, y, width, height]
is measured from the corner of the image, half a pixel before the first pixel's centre.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE, Skeleton

NAME = "COCO"
_STATUS = {0: ABSENT, 1: OCCLUDED, 2: VISIBLE}  # of v
_FLAGS = {status: flag for flag, status in _STATUS.items()}


def is_it(content: Any) -> bool:
    """Is a file's JSON in this format?"""
    return isinstance(content, dict) and isinstance(content.get("images"), list)


def read(
    path: str | os.PathLike, *, category: str = "", skeleton: Skeleton | None = None
) -> Poses:
    """What a file says of one category, in file order; ids are those of the file.

    Args:
      path: of the JSON.
      category: whose annotations are read; "": the only one that has keypoints.
      skeleton: of a file of boxes, whose categories need no keypoints; then ""
        takes the only category there is.

    Raises:
      DataError: the file is missing, damaged, not of this format, or has a joint or
        box that can be nowhere.
    """
    path = os.fspath(path)
    content = _load(path)
    number, skeleton = _category(content["categories"], path, category, skeleton)
    images = _images(content["images"], path)
    numbers = [_get(one, "id") for one in content["categories"]]
    instances, seen = [], set()
    for position, entry in enumerate(content["annotations"]):
        try:
            if entry["category_id"] not in numbers:
                raise ValueError(
                    f"its category_id is {entry['category_id']!r}, and the categories "
                    f"have {', '.join(map(repr, numbers))}"
                )
            if entry["category_id"] != number:
                continue
            if entry["id"] in seen:
                raise ValueError(f"there is another of the id {entry['id']}")
            seen.add(entry["id"])
            image = images.get(entry["image_id"])
            if image is None:
                raise ValueError("there is no image of that id")
            instances.append(_instance(entry, image, skeleton))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Annotation {position} of {path!r} (id "
                f"{_get(entry, 'id')}, image {_get(entry, 'image_id')}) is not as COCO "
                f"has them: {words(error)}. Correct it, or export the file again."
            ) from error
    return Poses(
        skeleton=skeleton, images=tuple(images.values()), instances=tuple(instances)
    )


def content_of(
    found: Poses, sizes: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, list]:
    """The file as JSON has it; ids of images and annotations count from 1.

    An absent joint is (0, 0, 0), `num_keypoints` counts the others, and `segmentation`
    is empty, which readers of the format ask for. A predicted instance has its `score`
    too, and the confidences of its joints.

    Args:
      found: what is written.
      sizes: width and height of images by file, where `found` does not tell.

    Raises:
      ValueError: the size of an image is not known.
    """
    numbers = {image.file: row + 1 for row, image in enumerate(found.images)}
    images = []
    for image in found.images:
        size = image.size or (sizes or {}).get(image.file)
        if size is None:
            raise ValueError(f"the size of {image.file!r} is not known")
        images.append(
            {
                "id": numbers[image.file],
                "file_name": image.file,
                "width": int(size[0]),
                "height": int(size[1]),
            }
        )
    skeleton = found.skeleton
    category = {
        "id": 1,
        "name": skeleton.name.rstrip("0123456789") or skeleton.name,
        "supercategory": "",
        "keypoints": list(skeleton.joints),
        "skeleton": [[one + 1, other + 1] for one, other in skeleton.limbs],
    }
    annotations = [
        _entry(row + 1, numbers[instance.file], instance)
        for row, instance in enumerate(found.instances)
    ]
    return {"images": images, "categories": [category], "annotations": annotations}


def _entry(number: int, image: int, instance: Instance) -> dict[str, Any]:
    there = instance.status != ABSENT
    values = np.zeros((len(there), 3))
    values[there, :2] = instance.joints[there]
    values[:, 2] = [_FLAGS[int(status)] for status in instance.status]
    box = instance.box
    if box is None and there.any():  # what readers of the format ask for
        reach = instance.joints[there]
        box = np.concatenate([reach.min(axis=0) - 0.5, reach.max(axis=0) + 0.5])
    bbox = [0.0, 0.0, 0.0, 0.0] if box is None else list(poses.box_written(box))
    area = bbox[2] * bbox[3] if instance.area is None else instance.area
    more: dict[str, Any] = {}
    if instance.score is not None:
        more["score"] = float(instance.score)
    if instance.confidence is not None:
        more["confidence"] = [float(value) for value in instance.confidence]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "keypoints": [
            int(value) if column == 2 else float(value)
            for row in values.tolist()
            for column, value in enumerate(row)
        ],
        "num_keypoints": int(there.sum()),
        "bbox": bbox,
        "area": float(area),
        "iscrowd": int(instance.crowd),
        "segmentation": [],
        **more,
    }


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


def _category(
    found: list, path: str, wanted: str, given: Skeleton | None
) -> tuple[Any, Skeleton]:
    """The id of a category, and its skeleton, or the given one of one without."""
    having = {
        str(_get(one, "name")): one for one in found if _get(one, "keypoints")
    }  # annotation tools list categories without
    if given is not None and (wanted not in having if wanted else not having):
        having = {str(_get(one, "name")): one for one in found}
    what = "with keypoints" if given is None else "to take"
    if wanted not in having if wanted else len(having) != 1:
        names = ", ".join(having) or "none"
        problem = f"no category {wanted!r}" if wanted else "not one category"
        raise DataError(
            f"{path!r} has {problem} {what}: of {len(found)} categories these "
            f"{'have' if given is None else 'are there'}: {names}."
            + (" Name one of them." if len(having) > 1 else "")
            + (" Is there a person_keypoints file beside it?" if not having else "")
        )
    name = wanted or next(iter(having))
    try:
        entry = having[name]
        if given is not None and not entry.get("keypoints"):
            return entry["id"], given
        return entry["id"], _skeleton(name, entry)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The category {name!r} of {path!r} is not as COCO has them: {words(error)}"
        ) from error


def _skeleton(name: str, category: dict) -> Skeleton:
    joints, limbs = category["keypoints"], []
    for link in category.get("skeleton") or ():
        first, second = (int(joint) for joint in link)
        if not {first, second} <= set(range(1, len(joints) + 1)):
            raise ValueError(
                f"its skeleton has the link {list(link)}, but its {len(joints)} "
                "keypoints are counted from 1"
            )
        limbs.append((first - 1, second - 1))
    return poses.skeleton_named(name, tuple(joints), tuple(limbs))


def _images(entries: list, path: str) -> dict[Any, Image]:
    found: dict[Any, Image] = {}
    files = set()
    for position, entry in enumerate(entries):
        try:
            file = poses.check_file(entry["file_name"])
            size = int(entry["width"]), int(entry["height"])
            if min(size) < 1:
                raise ValueError(f"it has {size[0]} x {size[1]} pixels")
            if entry["id"] in found:
                raise ValueError(f"there is another of the id {entry['id']}")
            if file in files:
                raise ValueError("there is another of that file_name")
            files.add(file)
            found[entry["id"]] = Image(file=file, size=size)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"Image {position} of {path!r} ({_get(entry, 'file_name')}) is not as "
                f"COCO has them: {words(error)}"
            ) from error
    return found


def _instance(entry: dict, image: Image, skeleton: Skeleton) -> Instance:
    given = np.array(entry.get("keypoints") or [0] * 3 * skeleton.num_joints, float)
    if given.shape != (3 * skeleton.num_joints,):
        raise ValueError(
            f"it has {given.size} numbers in keypoints, not 3 of each of the "
            f"{skeleton.num_joints} joints"
        )
    joints, flags = given.reshape(-1, 3)[:, :2].copy(), given[2::3]
    if not np.isin(flags, list(_STATUS)).all():
        wrong = flags[~np.isin(flags, list(_STATUS))][0]
        raise ValueError(f"a v of {wrong:g}, which is not 0, 1 or 2")
    status = np.array([_STATUS[int(flag)] for flag in flags], np.int8)
    joints[status == ABSENT] = np.nan
    nowhere = (joints == 0).all(axis=1)
    if nowhere.any():
        joint = int(np.argmax(nowhere))
        raise ValueError(
            f"its {skeleton.joints[joint]} has the place [0, 0] and "
            f"v={flags[joint]:g}, which is a placeholder: is v to be 0?"
        )
    poses.check_joints(joints, status, skeleton.joints)
    if entry.get("bbox") and len(entry["bbox"]) != 4:
        raise ValueError(f"its bbox has {len(entry['bbox'])} numbers, not 4")
    box, area, score = entry.get("bbox"), entry.get("area"), entry.get("score")
    return Instance(
        file=image.file,
        id=str(entry["id"]),
        joints=joints,
        status=status,
        box=poses.box_of(*box) if box else None,
        area=float(area) if area else None,
        crowd=bool(int(entry.get("iscrowd") or 0)),
        confidence=(
            np.array(entry["confidence"], float) if entry.get("confidence") else None
        ),
        score=None if score is None else float(score),
    )


def _get(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None
