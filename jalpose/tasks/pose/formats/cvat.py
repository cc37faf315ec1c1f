"""CVAT for images 1.1: skeletons in an XML file, and the labels of a task to paste.

    <annotations><version>1.1</version>
      <image id="0" name="..." width="..." height="...">
        <skeleton label="person" source="..." z_order="0">
          <points label="left wrist" outside="0" occluded="0" points="x,y" .../>
        </skeleton>
        <tag label="rejected" source="manual"/>
      </image>
    </annotations>

Its documentation does not describe skeletons; what CVAT itself writes and reads does
(cvat/apps/dataset_manager/formats/cvat.py). All joints of a skeleton are there, absent
ones `outside`, hidden ones `occluded`. Places are measured from the image's corner: the
centre of pixel k is k + 0.5. CVAT writes two decimals, and so do we. A picture that
nobody can label has the tag `rejected`.
"""

import json
import os
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE, Skeleton

NAME = "CVAT for images 1.1"
REJECTED = "rejected"
_DECLARED = "<!DOCTYPE", "<!ENTITY"


def is_it(text: str) -> bool:
    """Is a file's text in this format?"""
    return text.lstrip().startswith("<") and "<annotations" in text[:4096]


def text_of(found: Poses, *, source: str = "auto") -> str:
    """The XML file.

    Args:
      found: with sizes of all images.
      source: of the skeletons: auto of predictions, manual of labels.

    Raises:
      ValueError: the size of an image is not known.
    """
    label = quoteattr(called(found.skeleton))
    whose: dict[str, list[Instance]] = {}
    for one in found.instances:
        whose.setdefault(one.file, []).append(one)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>"]
    lines.append("  <version>1.1</version>")
    for number, image in enumerate(found.images):
        if image.size is None:
            raise ValueError(f"the size of {image.file!r} is not known")
        lines.append(
            f'  <image id="{number}" name={quoteattr(image.file)} '
            f'width="{image.size[0]}" height="{image.size[1]}">'
        )
        for one in whose.get(image.file, ()):
            lines.append(f'    <skeleton label={label} source="{source}" z_order="0">')
            lines += [
                _joint(joint, one.joints[place], int(one.status[place]), source)
                for place, joint in enumerate(found.skeleton.joints)
            ]
            lines.append("    </skeleton>")
        lines.append("  </image>")
    return "\n".join([*lines, "</annotations>", ""])


def labels_of(skeleton: Skeleton, places: np.ndarray) -> str:
    """JSON for the field "Raw" of a task's labels: the skeleton, and `rejected`.

    Args:
      skeleton: whose joints.
      places: [J, 2], of its joints, for the picture of the skeleton; any unit.
    """
    low, high = np.nanmin(places, axis=0), np.nanmax(places, axis=0)
    scaled = 10 + 80 * (places - low) / max(float((high - low).max()), 1e-9)
    at = np.round(np.nan_to_num(scaled, nan=50.0), 1).tolist()
    drawn = [
        f'<line x1="{at[one][0]}" y1="{at[one][1]}" x2="{at[other][0]}" '
        f'y2="{at[other][1]}" data-type="edge" data-node-from="{one + 1}" '
        f'data-node-to="{other + 1}"></line>'
        for one, other in skeleton.limbs
    ] + [
        f'<circle r="1.5" cx="{at[place][0]}" cy="{at[place][1]}" '
        f'data-type="element node" data-element-id="{place + 1}" '
        f'data-node-id="{place + 1}" data-label-name={quoteattr(joint)}></circle>'
        for place, joint in enumerate(skeleton.joints)
    ]
    labels: list[dict[str, Any]] = [
        {
            "name": called(skeleton),
            "type": "skeleton",
            "attributes": [],
            "sublabels": [
                {"name": joint, "type": "points", "attributes": []}
                for joint in skeleton.joints
            ],
            "svg": "".join(drawn),
        },
        {"name": REJECTED, "type": "tag", "attributes": []},
    ]
    return json.dumps(labels, indent=1, ensure_ascii=False) + "\n"


def called(skeleton: Skeleton) -> str:
    """What is annotated: the label of the skeleton."""
    return skeleton.name.rstrip("0123456789") or skeleton.name


def read(path: str | os.PathLike, *, skeleton: Skeleton | None = None) -> Poses:
    """All images of a file, and a person a skeleton; one without joints is left out.

    Args:
      path: of the XML.
      skeleton: whose joints there may be; None: that of the first person.

    Raises:
      DataError: the file is damaged or not of this format, or has a joint of another
        skeleton, twice, or that can be nowhere.
    """
    path = os.fspath(path)
    root = _load(path)
    if skeleton is None:
        first = root.find("image/skeleton")
        joints = [] if first is None else [p.get("label") for p in first.iter("points")]
        try:
            skeleton = poses.skeleton_named(
                "person" if first is None else first.get("label", "person"),
                tuple(joint or "" for joint in joints),
            )
        except ValueError as error:
            raise DataError(f"{path!r} has no labelled skeleton: {error}") from error
    images, instances = [], []
    for number, element in enumerate(root.iter("image")):
        try:
            file = poses.check_file(element.get("name"))
            size = int(element.get("width", "0")), int(element.get("height", "0"))
            images.append(Image(file=file, size=size if min(size) > 0 else None))
            for one in element.iter("skeleton"):
                found = _instance(file, one, skeleton)
                if found is not None:
                    instances.append(found)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Image {number} of {path!r} ({element.get('name')}) cannot be read: "
                f"{words(error)}"
            ) from error
    return Poses(skeleton=skeleton, images=tuple(images), instances=tuple(instances))


def rejected(path: str | os.PathLike) -> tuple[str, ...]:
    """Pictures with the tag `rejected`; DataError as of `read`."""
    return tuple(
        poses.check_file(element.get("name"))
        for element in _load(os.fspath(path)).iter("image")
        if any(tag.get("label") == REJECTED for tag in element.iter("tag"))
    )


def _joint(joint: str, place: np.ndarray, status: int, source: str) -> str:
    x, y = (0.0, 0.0) if status == ABSENT else (place + 0.5).tolist()
    return (
        f'      <points label={quoteattr(joint)} source="{source}" '
        f'outside="{int(status == ABSENT)}" occluded="{int(status == OCCLUDED)}" '
        f'points="{x:.2f},{y:.2f}"></points>'
    )


def _load(path: str) -> ElementTree.Element:
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
        # Entities grow without bound, and CVAT writes none.
        if any(mark in text for mark in _DECLARED):
            raise ValueError("it declares a document type or entities")
        root = ElementTree.fromstring(text.encode())
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(
            f"Cannot read {path!r} as XML: {error}. Export it again."
        ) from error
    if root.tag != "annotations" or root.find("image") is None:
        raise DataError(
            f"{path!r} is not of the format CVAT for images 1.1: it has no <image> in "
            "<annotations> (CVAT for video has tracks: export it for images)"
        )
    return root


def _instance(
    file: str, element: ElementTree.Element, skeleton: Skeleton
) -> Instance | None:
    joints = np.full((skeleton.num_joints, 2), np.nan)
    status = np.full(skeleton.num_joints, ABSENT, np.int8)
    seen = set()
    for point in element.iter("points"):
        name = point.get("label")
        if name not in skeleton.joints:
            raise ValueError(
                f"it has the joint {name}, which is not one of "
                f"{', '.join(skeleton.joints)}"
            )
        if name in seen:
            raise ValueError(f"{name} is there twice in one skeleton")
        seen.add(name)
        if point.get("outside") == "1":
            continue
        place = skeleton.joints.index(name)
        values = [float(value) for value in (point.get("points") or "").split(",")]
        if len(values) != 2:
            raise ValueError(f"{name} has the place {point.get('points')!r}")
        joints[place] = np.array(values) - 0.5
        status[place] = OCCLUDED if point.get("occluded") == "1" else VISIBLE
    poses.check_joints(joints, status, skeleton.joints)
    if (status == ABSENT).all():
        return None
    return Instance(file=file, joints=joints, status=status)
