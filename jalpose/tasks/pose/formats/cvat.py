"""CVAT for images 1.1: skeletons, or single points named as joints, in XML.

    <annotations>
      <meta>...<label><name>snout</name><parent>mouse</parent></label>...</meta>
      <image id="0" name="a.jpg" width="640" height="480">
        <box label="mouse_bbox" source="manual" occluded="0" xtl="5.00" ytl="8.00"
          xbr="90.00" ybr="71.00" z_order="0" group_id="1"/>
        <skeleton label="mouse" source="manual" z_order="0" group_id="1">
          <points label="snout" occluded="0" outside="0" points="10.50,20.00"/>
          ...
        </skeleton>
      </image>
    </annotations>

`outside` is a joint that is absent, `occluded` one that is hidden. Places are pixels,
taken as they stand, as CVAT's own export to COCO does. Points that are in no skeleton
are those of one person an image, or of one a `group_id`; so are boxes. A box beside
skeletons is that of the one in its `group_id`, else of the only one that lies in it;
others are left out, and told. Joints stand in the order of the labels in `meta`, else
in that of the first skeleton.
"""

import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE, Skeleton

NAME = "CVAT"
_logger = logging.getLogger(__name__)


def label_of(skeleton: Skeleton) -> str:
    """What skeletons are labelled in CVAT."""
    return skeleton.name.rstrip("0123456789") or skeleton.name


def box_label_of(skeleton: Skeleton) -> str:
    """What boxes round them are labelled there: labels have a kind each."""
    return f"{label_of(skeleton)}_bbox"


def is_it(text: str) -> bool:
    """Is this the beginning of such a file?"""
    return "<annotations" in text


def read(path: str | os.PathLike, *, skeleton: Skeleton | None = None) -> Poses:
    """The skeletons of the images, in file order.

    The id of one is its number among those of its image; "" where there is one.

    Args:
      path: of the XML.
      skeleton: whose joints are marked; None: that of the file.

    Raises:
      DataError: the file is missing, damaged, not of this format, or has a point that
        can be nowhere or of no joint.
    """
    path = os.fspath(path)
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(
            f"Cannot read {path!r} as XML: {error}. Export it again."
        ) from error
    if root.tag != "annotations":
        raise DataError(
            f"{path!r} is not CVAT's XML: it begins with <{root.tag}>; export the task "
            "as CVAT for images 1.1"
        )
    if root.find("track") is not None:
        raise DataError(
            f"{path!r} is CVAT for video, with tracks: export the task as CVAT for "
            "images 1.1"
        )
    try:
        skeleton = skeleton or _skeleton(root)
    except ValueError as error:
        raise DataError(f"{path!r} marks no skeleton: {error}") from error
    images: dict[str, Image] = {}
    instances: list[Instance] = []
    left_out = 0
    for position, entry in enumerate(root.findall("image")):
        try:
            file = poses.check_file(entry.attrib["name"])
            if file in images:
                raise ValueError("there is another of the same name")
            size = int(entry.attrib["width"]), int(entry.attrib["height"])
            images[file] = Image(file=file, size=size)
            persons, unused = _persons(entry, file, skeleton)
            instances += persons
            left_out += unused
        except (KeyError, ValueError) as error:
            raise DataError(
                f"Image {position} of {path!r} ({entry.get('name')}) is not as CVAT "
                f"has them: {words(error)}. Correct it there, and export it again."
            ) from error
    if left_out:
        _logger.warning(
            "%s: %d boxes are left out, which belong to no skeleton, or it is not "
            "known to which: group each with its skeleton in CVAT",
            path,
            left_out,
        )
    return Poses(
        skeleton=skeleton, images=tuple(images.values()), instances=tuple(instances)
    )


def xml_of(found: Poses, sizes: Mapping[str, tuple[int, int]] | None = None) -> str:
    """The file's text; absent joints are outside, as CVAT wants all of them.

    A box and its skeleton are a group, as CVAT wants what belongs together.

    Args:
      found: what is written.
      sizes: width and height of images by file, where `found` does not tell.

    Raises:
      ValueError: the size of an image is not known.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, image in enumerate(found.images):
        size = image.size or (sizes or {}).get(image.file)
        if size is None:
            raise ValueError(f"the size of {image.file!r} is not known")
        about = {"id": str(number), "name": image.file}
        about |= {"width": str(int(size[0])), "height": str(int(size[1]))}
        entry = ElementTree.SubElement(root, "image", about)
        for group, one in enumerate(found.instances, start=1):
            if one.file == image.file:
                _write_person(entry, one, found.skeleton, group)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _write_person(entry, one: Instance, skeleton: Skeleton, group: int) -> None:
    source = "manual" if one.confidence is None else "auto"
    common = {"source": source, "z_order": "0"}
    if one.box is not None:
        common["group_id"] = str(group)
        x, y, width, height = poses.box_written(one.box)
        sides = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
        about = {"label": box_label_of(skeleton), "occluded": "0", **common}
        about |= {name: f"{value:.2f}" for name, value in sides.items()}
        ElementTree.SubElement(entry, "box", about)
    person = ElementTree.SubElement(
        entry, "skeleton", {"label": label_of(skeleton), **common}
    )
    for joint, status, place in zip(
        skeleton.joints, one.status.tolist(), one.joints.tolist(), strict=True
    ):
        x, y = (0.0, 0.0) if status == ABSENT else place
        about = {
            "label": joint,
            "source": source,
            "outside": str(int(status == ABSENT)),
            "occluded": str(int(status == OCCLUDED)),
            "points": f"{x:.2f},{y:.2f}",
        }
        ElementTree.SubElement(person, "points", about)


def _skeleton(root: Any) -> Skeleton:
    """That of the labels in `meta`, else of the first skeleton, else of all points."""
    labels = [
        (entry.findtext("name"), entry.findtext("parent"))
        for entry in root.iter("label")
    ]
    parents = dict.fromkeys(parent for _, parent in labels if parent)
    if len(parents) > 1:
        raise ValueError(f"it has {len(parents)} skeletons: {', '.join(parents)}")
    name = next(iter(parents), "")
    joints = [joint for joint, parent in labels if parent]
    if not joints:
        first = root.find("image/skeleton")
        if first is not None:
            name = first.get("label")
            joints = [point.get("label") for point in first.findall("points")]
        else:
            marks = root.findall("image/points")
            joints = list(dict.fromkeys(point.get("label") for point in marks))
    return poses.skeleton_named(name or "person", tuple(joints))


def _persons(entry: Any, file: str, skeleton: Skeleton) -> tuple[list[Instance], int]:
    """Who is in an image, and how many boxes are nobody's."""
    people = entry.findall("skeleton")
    beside = _boxes_of(people, entry.findall("box"))
    marked: list[tuple[list, Any]] = [
        (person.findall("points"), beside.get(row)) for row, person in enumerate(people)
    ]
    used, left_out = list(beside.values()), 0
    groups: dict[str, tuple[list, list]] = {}
    for kind, tag in enumerate(("points", "box")):
        for mark in entry.findall(tag):
            if mark not in used:
                name = mark.get("group_id") or ""
                groups.setdefault(name, ([], []))[kind].append(mark)
    for points, boxes in groups.values():
        if people and not points:
            left_out += len(boxes)
            continue
        if len(boxes) > 1:
            raise ValueError(
                f"it has {len(boxes)} boxes in a group: group each with its points"
            )
        if points or not marked:
            marked.append((points, boxes[0] if boxes else None))
    alone = len(marked) == 1
    found = [
        _person(points, box, file, "" if alone else str(number), skeleton)
        for number, (points, box) in enumerate(marked, start=1)
    ]
    return found, left_out


def _boxes_of(people: list, boxes: list) -> dict[int, Any]:
    """Boxes by the skeleton they are of: the one of their group, or alone in them."""
    found: dict[int, list] = {}
    for box in boxes:
        group = box.get("group_id") or ""
        own = [
            row
            for row, person in enumerate(people)
            if (person.get("group_id") or "") == group and (group or _in(person, box))
        ]
        if len(own) == 1:
            found.setdefault(own[0], []).append(box)
    return {row: own[0] for row, own in found.items() if len(own) == 1}


def _in(person: Any, box: Any) -> bool:
    """Do all joints of a skeleton lie in a box?"""
    x, y, width, height = _rectangle(box)
    places = [
        [float(value) for value in point.attrib["points"].split(",")]
        for point in person.findall("points")
        if point.get("outside") != "1"
    ]
    return bool(places) and all(
        x <= u <= x + width and y <= v <= y + height for u, v in places
    )


def _rectangle(box: Any) -> tuple[float, float, float, float]:
    """(x, y, width, height) of a box, which may be turned about its middle."""
    x, y, far, low = (float(box.attrib[k]) for k in ("xtl", "ytl", "xbr", "ybr"))
    found = x, y, far - x, low - y
    degrees = float(box.get("rotation") or 0)
    if not degrees:
        return found
    return poses.turned(found, degrees, ((x + far) / 2, (y + low) / 2))


def _person(points, box, file: str, id: str, skeleton: Skeleton) -> Instance:
    joints = np.full((skeleton.num_joints, 2), np.nan)
    status = np.full(skeleton.num_joints, ABSENT, np.int8)
    seen = set()
    for point in points:
        joint = point.attrib["label"]
        if joint not in skeleton.joints:
            raise ValueError(
                f"there is no joint {joint!r} among {', '.join(skeleton.joints)}"
            )
        if joint in seen:
            raise ValueError(
                f"{joint} is there twice: two people in one image are to be skeletons, "
                "or in groups"
            )
        seen.add(joint)
        if point.get("outside") == "1":
            continue
        places = point.attrib["points"].split(";")
        if len(places) != 1:
            raise ValueError(f"{joint} has {len(places)} places")
        row = skeleton.joints.index(joint)
        x, y = places[0].split(",")
        joints[row] = float(x), float(y)
        status[row] = OCCLUDED if point.get("occluded") == "1" else VISIBLE
    poses.check_joints(joints, status, skeleton.joints)
    corners = None
    if box is not None:
        corners = poses.box_of(*_rectangle(box))
    return Instance(file=file, id=id, joints=joints, status=status, box=corners)
