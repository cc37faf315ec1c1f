"""Label Studio's tasks and full JSON export: joints as percentages of the image.

A list of tasks (labelstud.io/guide/predictions, /tags/keypointlabels):

    [{"data": {"image": URL, "name": picture, "id": example, ...},
      "predictions": [{"model_version", "score", "result": [region, ...]}],
      "annotations": [{"was_cancelled", "result": [region, ...]}]}]

A region of a joint is {"id", "type": "keypointlabels", "original_width",
"original_height", "image_rotation", "value": {"x", "y", "width", "keypointlabels":
[joint]}}. x and y are measured from the image's edge, so that the centre of pixel k is
at 100 (k + 0.5) / W. A joint that is hidden in the image has `hidden` among the choices
of its region, one that nobody placed is absent, and a picture that nobody can label has
the choice `rejected`. Tasks keep their `data`, so that a picture is known by `name`, or
else by the end of its URL.
"""

import html
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE, Skeleton

NAME = "Label Studio"
REJECTED, HIDDEN = "rejected", "hidden"
_JOINTS, _BOX, _IMAGE = "joints", "box", "image"  # names of the controls
_DOT = 0.75  # of a joint, percent of the image's width
_LOCAL = "/data/local-files/?d="


def is_it(content: Any) -> bool:
    """Is a file's JSON in this format?"""
    return isinstance(content, list) and all(
        isinstance(task, dict) and isinstance(task.get("data"), dict)
        for task in content
    )


def tasks_of(
    found: Poses,
    *,
    folder: str = "",
    version: str = "jalpose",
    data: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Tasks to be labelled, each image with its instances as a prediction.

    Args:
      found: with sizes of all images.
      folder: of the images, below Label Studio's document root.
      version: of the model, as Label Studio shows it.
      data: what else a task has, by file of its image.

    Raises:
      ValueError: the size of an image is not known.
    """
    whose: dict[str, list[Instance]] = {}
    for one in found.instances:
        whose.setdefault(one.file, []).append(one)
    tasks = []
    for image in found.images:
        if image.size is None:
            raise ValueError(f"the size of {image.file!r} is not known")
        result: list[dict[str, Any]] = []
        for number, one in enumerate(whose.get(image.file, ())):
            result += _regions(one, image.size, found.skeleton, number)
        scores = [s.score for s in whose.get(image.file, ()) if s.score is not None]
        prediction: dict[str, Any] = {"model_version": version, "result": result}
        if scores:
            prediction["score"] = float(np.mean(scores))
        path = f"{folder}/{image.file}" if folder else image.file
        about: dict[str, Any] = {"image": _LOCAL + path, "name": image.file}
        tasks.append(
            {
                "data": {**about, **(data or {}).get(image.file, {})},
                "predictions": [prediction],
            }
        )
    return tasks


def config_of(skeleton: Skeleton) -> str:
    """The labelling interface to paste: joints, a box, and two choices."""
    mirrored = {j: side for pair in skeleton.flip_pairs for side, j in enumerate(pair)}
    colours = {0: "#56b4e9", 1: "#e67800", None: "#f0e442"}
    joints = "\n".join(
        f'    <Label value="{html.escape(joint)}" '
        f'background="{colours[mirrored.get(place)]}"/>'
        for place, joint in enumerate(skeleton.joints)
    )
    return f"""<View>
  <Image name="{_IMAGE}" value="$image" zoom="true" zoomControl="true"/>
  <KeyPointLabels name="{_JOINTS}" toName="{_IMAGE}" strokeWidth="3">
{joints}
  </KeyPointLabels>
  <Choices name="{HIDDEN}" toName="{_IMAGE}" perRegion="true" whenTagName="{_JOINTS}">
    <Choice value="{HIDDEN}"/>
  </Choices>
  <RectangleLabels name="{_BOX}" toName="{_IMAGE}">
    <Label value="{html.escape(_called(skeleton))}" background="#cccccc"/>
  </RectangleLabels>
  <Choices name="{REJECTED}" toName="{_IMAGE}" choice="multiple">
    <Choice value="{REJECTED}"/>
  </Choices>
</View>
"""


def read(path: str | os.PathLike, *, skeleton: Skeleton | None = None) -> Poses:
    """What people have labelled: an instance an annotation; predictions are not read.

    A task whose annotations are skipped or drafts, or without any, is an image with
    nobody in it.

    Args:
      path: of the JSON.
      skeleton: whose joints there may be; None: of the joints that there are.

    Raises:
      DataError: the file is damaged or not of this format, has a joint of another
        skeleton, twice or outside the image, or an image that was turned.
    """
    path = os.fspath(path)
    tasks = _load(path)
    if skeleton is None:
        named = (
            joint
            for task in tasks
            for _, regions in _annotations(task)
            for region in regions
            for joint in _value(region).get("keypointlabels") or ()
        )
        try:
            skeleton = poses.skeleton_named("person", tuple(dict.fromkeys(named)))
        except ValueError as error:
            raise DataError(f"{path!r} has no labelled joints: {error}") from error
    images: dict[str, Image] = {}
    instances = []
    for number, task in enumerate(tasks):
        try:
            file = _file(task["data"])
            size = None
            for identity, regions in _annotations(task):
                found = _instance(file, identity, regions, skeleton)
                if found is not None:
                    instances.append(found)
                size = _size(regions) or size
            if file in images:
                raise ValueError("there is another task of the same image")
            images[file] = Image(file=file, size=size)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Task {number} of {path!r} (id {task.get('id')}, image "
                f"{task['data'].get('image')}) cannot be read: {words(error)}"
            ) from error
    return Poses(
        skeleton=skeleton, images=tuple(images.values()), instances=tuple(instances)
    )


def rejected(path: str | os.PathLike) -> tuple[str, ...]:
    """Pictures with the choice `rejected`; DataError as of `read`."""
    return tuple(
        _file(task["data"])
        for task in _load(os.fspath(path))
        if any(
            REJECTED in (_value(region).get("choices") or ())
            for _, regions in _annotations(task)
            for region in regions
        )
    )


def _regions(one: Instance, size, skeleton: Skeleton, number: int) -> list[dict]:
    common = {
        "to_name": _IMAGE,
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
    }
    scale = 100 / np.array(size, np.float64)
    found: list[dict[str, Any]] = []
    group = {}
    if one.box is not None:
        corner = (one.box[:2] + 0.5) * scale
        extent = (one.box[2:] - one.box[:2]) * scale
        found.append(
            {
                "id": f"box{number}",
                "type": "rectanglelabels",
                "from_name": _BOX,
                **common,
                "value": {
                    "x": float(corner[0]),
                    "y": float(corner[1]),
                    "width": float(extent[0]),
                    "height": float(extent[1]),
                    "rotation": 0,
                    "rectanglelabels": [_called(skeleton)],
                },
            }
        )
        group = {"parentID": f"box{number}"}
    for joint in np.flatnonzero(one.status != ABSENT).tolist():
        place = (one.joints[joint] + 0.5) * scale
        region = {
            "id": f"joint{number}_{joint}",
            "type": "keypointlabels",
            "from_name": _JOINTS,
            **common,
            **group,
            "value": {
                "x": float(place[0]),
                "y": float(place[1]),
                "width": _DOT,
                "keypointlabels": [skeleton.joints[joint]],
            },
        }
        if one.confidence is not None:
            region["score"] = float(one.confidence[joint])
        found.append(region)
        if one.status[joint] == OCCLUDED:
            choice = {"x": float(place[0]), "y": float(place[1]), "width": _DOT}
            found.append(
                {
                    "id": f"joint{number}_{joint}",
                    "type": "choices",
                    "from_name": HIDDEN,
                    **common,
                    "value": {**choice, "choices": [HIDDEN]},
                }
            )
    return found


def _called(skeleton: Skeleton) -> str:
    return skeleton.name.rstrip("0123456789") or skeleton.name


def _load(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read {path!r} as JSON: {error}. Export it again."
        ) from error
    if not is_it(content):
        raise DataError(
            f"{path!r} is not Label Studio's full JSON (a list of tasks with `data`): "
            "export it as JSON, not as JSON-MIN, CSV or COCO"
        )
    return content


def _annotations(task: dict) -> list[tuple[str, list[dict]]]:
    """Ids and regions of the finished annotations of a task."""
    return [
        (str(one.get("id", "")), one.get("result") or [])
        for one in task.get("annotations") or ()
        if not one.get("was_cancelled")
    ]


def _value(region: dict) -> dict:
    return region.get("value") or {}


def _file(data: dict) -> str:
    if isinstance(data.get("name"), str):
        return poses.check_file(data["name"])
    url = data.get(_IMAGE)
    if not isinstance(url, str):
        raise ValueError(f"its data have no {_IMAGE}")
    end = unquote(url.rpartition("?d=")[2] or url)
    return poses.check_file(end.partition("://")[2] or end.lstrip("/"))


def _size(regions: Sequence[dict]) -> tuple[int, int] | None:
    sizes = {
        (int(r["original_width"]), int(r["original_height"]))
        for r in regions
        if r.get("original_width")
    }
    if len(sizes) > 1:
        raise ValueError(f"its regions are of images of {sorted(sizes)} pixels")
    return sizes.pop() if sizes else None


def _instance(
    file: str, identity: str, regions: Sequence[dict], skeleton: Skeleton
) -> Instance | None:
    """The pose of an annotation; None of one without a joint."""
    joints = np.full((skeleton.num_joints, 2), np.nan)
    status = np.full(skeleton.num_joints, ABSENT, np.int8)
    hidden = {
        region.get("id")
        for region in regions
        if HIDDEN in (_value(region).get("choices") or ())
    }
    box = None
    for region in regions:
        value = _value(region)
        names = value.get("keypointlabels")
        kind = region.get("type")
        if kind not in ("keypointlabels", "rectanglelabels"):
            continue
        if region.get("image_rotation"):
            raise ValueError(
                "it was turned in Label Studio: label it as it was handed out"
            )
        size = np.array([region["original_width"], region["original_height"]], float)
        place = np.array([value["x"], value["y"]], float)
        if kind == "rectanglelabels":
            extent = np.array([value["width"], value["height"]], float)
            low = place * size / 100 - 0.5
            box = np.concatenate([low, low + extent * size / 100])
            continue
        if not names or len(names) != 1 or names[0] not in skeleton.joints:
            raise ValueError(
                f"it has the joint {', '.join(names or ()) or '(none)'}, which is not "
                f"one of {', '.join(skeleton.joints)}"
            )
        joint = skeleton.joints.index(names[0])
        if status[joint] != ABSENT:
            raise ValueError(f"{names[0]} is there twice: label one person an image")
        if not ((place >= 0) & (place <= 100)).all():
            raise ValueError(
                f"{names[0]} is at {place.tolist()}, and places are percentages of the "
                "image, from 0 to 100: are these pixels?"
            )
        joints[joint] = place * size / 100 - 0.5
        unseen = region.get("id") in hidden or value.get("hidden")
        status[joint] = OCCLUDED if unseen else VISIBLE
    if (status == ABSENT).all():
        return None
    return Instance(file=file, id=identity, joints=joints, status=status, box=box)
