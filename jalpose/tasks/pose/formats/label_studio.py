"""Label Studio's tasks: its full JSON export in, tasks with predictions out.

A file is a list of tasks, one an image (labelstud.io/guide/export, /guide/predictions):

    {"data": {"image": url},
     "annotations" or "predictions": [{"was_cancelled", "result": [region, ...]}]}

    region  {"id", "type": "keypointlabels", "original_width", "original_height",
             "value": {"x", "y", "width", "keypointlabels": [joint], "hidden"},
             "parentID": id of the region of the person}
            {"id", "type": "rectanglelabels", "value": {"x", "y", "width", "height"}}

Places are percent of the image, from its corner: x of a pixel's centre is
100 (x + 0.5) / width. Points of one rectangle are one person; without rectangles those
of an image are, and without `parentID` those of its only rectangle. The format names no
joints beside those that are marked. Its COCO export is not to be used: it rounds, and
knows one person an image.
"""

import json
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE, Skeleton

NAME = "Label Studio"
IMAGE, POINTS, BOX, PERSON = "image", "joint", "box", "person"  # names in the config
# Label Studio puts eight digits and a hyphen before the names of uploaded files.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


def is_it(content: Any) -> bool:
    """Is a file's JSON in this format?"""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and isinstance(first.get("data"), dict)


def read(path: str | os.PathLike, *, skeleton: Skeleton | None = None) -> Poses:
    """The persons of the tasks, in file order; tasks that were skipped are left out.

    Args:
      path: of the JSON.
      skeleton: whose joints are marked; None: the joints that are, in the order in
        which they first come.

    Raises:
      DataError: the file is missing, damaged, not of this format, has a point that can
        be nowhere or of no joint, or it is not known whose a point is.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig") as stream:
            tasks = json.load(stream)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read {path!r} as JSON: {error}. Export it again."
        ) from error
    if not is_it(tasks):
        raise DataError(
            f"{path!r} is not Label Studio's list of tasks: choose its export JSON "
            "(not JSON-MIN, CSV or COCO)"
        )
    joints = list(skeleton.joints) if skeleton else _marked(tasks)
    try:
        skeleton = skeleton or poses.skeleton_named("person", tuple(joints))
    except ValueError as error:
        raise DataError(f"{path!r} marks no joints: {error}") from error
    images: dict[str, Image] = {}
    instances = []
    for position, task in enumerate(tasks):
        try:
            file = file_of(_url(task))
            if file in images:
                raise ValueError("there is another task of the same image")
            done = [
                one
                for one in task.get("annotations") or []
                if not one.get("was_cancelled")
            ]
            if len(done) > 1:
                raise ValueError(
                    f"it has {len(done)} annotations: keep the one that counts"
                )
            regions = done[0]["result"] if done else []
            images[file] = Image(file=file, size=_size(regions))
            instances += _persons(regions, file, skeleton)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"Task {position} of {path!r} (id "
                f"{task.get('id') if isinstance(task, dict) else None}) is not as "
                f"Label Studio has them: {words(error)}. Correct it there, and export "
                "it again."
            ) from error
    return Poses(
        skeleton=skeleton, images=tuple(images.values()), instances=tuple(instances)
    )


def content_of(
    found: Poses,
    url: Callable[[str], str],
    sizes: Mapping[str, tuple[int, int]] | None = None,
    version: str = "jalpose",
) -> list[dict[str, Any]]:
    """Tasks with predictions as JSON has them, a task an image.

    Args:
      found: what is written.
      url: of an image's file.
      sizes: width and height of images by file, where `found` does not tell.
      version: of the model.

    Raises:
      ValueError: the size of an image is not known.
    """
    tasks = []
    for image in found.images:
        size = image.size or (sizes or {}).get(image.file)
        if size is None:
            raise ValueError(f"the size of {image.file!r} is not known")
        regions: list[dict[str, Any]] = []
        own = [one for one in found.instances if one.file == image.file]
        for number, one in enumerate(own, start=1):
            regions += _regions(one, number, found.skeleton, size)
        task: dict[str, Any] = {"data": {IMAGE: url(image.file)}}
        if regions:
            scores = [one.score for one in own if one.score is not None]
            prediction: dict[str, Any] = {"model_version": version, "result": regions}
            if scores:
                prediction["score"] = float(np.mean(scores))
            task["predictions"] = [prediction]
        tasks.append(task)
    return tasks


def labelling_config(skeleton: Skeleton) -> str:
    """The labelling interface of these joints, to be pasted in a project's settings."""
    labels = "\n".join(
        f"    <Label value={quoteattr(joint)}/>" for joint in skeleton.joints
    )
    return (
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>\n'
        f'  <RectangleLabels name="{BOX}" toName="{IMAGE}">\n'
        f'    <Label value="{PERSON}"/>\n  </RectangleLabels>\n'
        f'  <KeyPointLabels name="{POINTS}" toName="{IMAGE}" strokeWidth="2">\n'
        f"{labels}\n  </KeyPointLabels>\n</View>\n"
    )


def file_of(url: str) -> str:
    """The image that a URL names: of local files, uploads and servers.

    Raises:
      ValueError: it is no file.
    """
    parts = urllib.parse.urlsplit(url)
    given = urllib.parse.parse_qs(parts.query).get("d")
    if given:
        return poses.check_file(given[0].lstrip("/"))
    if parts.scheme in ("http", "https", "s3", "gs"):
        return poses.check_file(urllib.parse.unquote(parts.path).lstrip("/"))
    if url.startswith("/data/upload/"):
        name = urllib.parse.unquote(url).rpartition("/")[2]
        return poses.check_file(_UPLOADED.sub("", name, count=1))
    return poses.check_file(url)


def _url(task: dict) -> str:
    data = task["data"]
    urls = [data[IMAGE]] if IMAGE in data else [v for v in data.values() if v]
    if len(urls) != 1 or not isinstance(urls[0], str):
        raise ValueError(f"its data are not one image: {data}")
    return urls[0]


def _marked(tasks: list) -> list[str]:
    """Joints in the order in which they first come."""
    found: dict[str, None] = {}
    for task in tasks:
        for done in (task.get("annotations") or []) if isinstance(task, dict) else []:
            for region in done.get("result") or []:
                if region.get("type") == "keypointlabels":
                    found |= dict.fromkeys(region["value"].get("keypointlabels") or [])
    return list(found)


def _size(regions: list[dict]) -> tuple[int, int] | None:
    for region in regions:
        if region.get("image_rotation"):
            raise ValueError(
                f"it is rotated by {region['image_rotation']} degrees there: labels "
                "are to be of the image as it is stored"
            )
    sizes = {
        (int(r["original_width"]), int(r["original_height"]))
        for r in regions
        if "original_width" in r
    }
    if len(sizes) > 1:
        raise ValueError(f"its regions are of images of sizes {sorted(sizes)}")
    return next(iter(sizes), None)


def _persons(regions: list[dict], file: str, skeleton: Skeleton) -> list[Instance]:
    boxes = {r["id"]: r for r in regions if r.get("type") == "rectanglelabels"}
    points = [r for r in regions if r.get("type") == "keypointlabels"]
    if any(r.get("type") == "keypoint" for r in regions):
        raise ValueError(
            "it has points whose joints are labels of their own (KeyPoint): mark them "
            "by KeyPointLabels"
        )
    parents = {
        one["from_id"]: one["to_id"] for one in regions if one.get("type") == "relation"
    }
    parents |= {other: one for one, other in parents.items() if one in boxes}
    own: dict[Any, list[dict]] = {name: [] for name in boxes}
    for point in points:
        parent = point.get("parentID") or parents.get(point["id"])
        if parent not in boxes:
            if len(boxes) > 1:
                raise ValueError(
                    f"there are {len(boxes)} rectangles, and the point "
                    f"{point['value'].get('keypointlabels')} belongs to none: put it "
                    "under its rectangle"
                )
            parent = next(iter(boxes), None)
        own.setdefault(parent, []).append(point)
    return [
        _person(name, boxes.get(name), marks, file, skeleton)
        for name, marks in own.items()
    ]


def _person(name, box, marks, file: str, skeleton: Skeleton) -> Instance:
    joints = np.full((skeleton.num_joints, 2), np.nan)
    status = np.full(skeleton.num_joints, ABSENT, np.int8)
    for mark in marks:
        value = mark["value"]
        if len(value["keypointlabels"]) != 1:
            raise ValueError(
                f"the point {mark.get('id')!r} has the labels "
                f"{value['keypointlabels']}, and is to have one"
            )
        (joint,) = value["keypointlabels"]
        if joint not in skeleton.joints:
            raise ValueError(
                f"there is no joint {joint!r} among {', '.join(skeleton.joints)}"
            )
        place = skeleton.joints.index(joint)
        if status[place] != ABSENT:
            raise ValueError(
                f"{joint} is there twice: two people in one image need a rectangle each"
            )
        joints[place] = _pixels(value["x"], value["y"], mark)
        status[place] = OCCLUDED if value.get("hidden") else VISIBLE
    poses.check_joints(joints, status, skeleton.joints)
    corners = None
    if box is not None:
        corners = _corners(box)
    return Instance(
        file=file,
        id="" if name is None else str(name),
        joints=joints,
        status=status,
        box=corners,
    )


def _corners(box: dict) -> np.ndarray | None:
    """Of a rectangle, which may be turned about its upper left corner."""
    value = box["value"]
    far = value["x"] + value["width"], value["y"] + value["height"]
    x, y = (_pixels(value["x"], value["y"], box) + 0.5).tolist()
    right, low = (_pixels(*far, box) + 0.5).tolist()
    found = x, y, right - x, low - y
    if value.get("rotation"):
        found = poses.turned(found, value["rotation"], (x, y))
    return poses.box_of(*found)


def _pixels(x, y, region: dict) -> np.ndarray:
    size = region["original_width"], region["original_height"]
    percent = np.array([x, y], float)
    if not (np.isfinite(percent).all() and (np.abs(percent) <= 200).all()):
        raise ValueError(f"the place {x}, {y} is not percent of the image")
    return percent * size / 100 - 0.5


def _regions(
    one: Instance, number: int, skeleton: Skeleton, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Regions of one person: its rectangle, if any, and its joints under it."""
    common = {
        "to_name": IMAGE,
        "original_width": int(size[0]),
        "original_height": int(size[1]),
        "image_rotation": 0,
    }
    parent = one.id or f"person{number}"

    def percent(place) -> list[float]:
        return [float(v) for v in 100 * (np.asarray(place) + 0.5) / np.array(size)]

    found: list[dict[str, Any]] = []
    if one.box is not None:
        (x, y), (far, low) = percent(one.box[:2]), percent(one.box[2:])
        box = {"x": x, "y": y, "width": far - x, "height": low - y, "rotation": 0}
        found.append(
            {
                "id": parent,
                "type": "rectanglelabels",
                "from_name": BOX,
                "value": {**box, "rectanglelabels": [PERSON]},
                **common,
            }
        )
    for joint in np.flatnonzero(one.status != ABSENT).tolist():
        x, y = percent(one.joints[joint])
        value: dict[str, Any] = {
            "x": x,
            "y": y,
            "width": 0.5,
            "keypointlabels": [skeleton.joints[joint]],
        }
        if one.status[joint] == OCCLUDED:
            value["hidden"] = True
        region = {
            "id": f"{parent}-{joint}",
            "type": "keypointlabels",
            "from_name": POINTS,
            "value": value,
            **common,
        }
        if one.confidence is not None:
            region["score"] = float(one.confidence[joint])
        if one.box is not None:
            region["parentID"] = parent
        found.append(region)
    return found
