"""What annotation tools are set up with, and how they say that a picture is no use.

Label Studio's tasks and labelling interface, CVAT's labels. In Label Studio a picture
that nobody can label has the choice `rejected`, in CVAT the tag of that name.
"""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from jalpose.tasks.exchange import REJECTED
from jalpose.tasks.pose.formats import cvat, label_studio, poses
from jalpose.tasks.pose.formats.poses import Poses
from jalpose.tasks.pose.skeletons import Skeleton

_LOCAL = "/data/local-files/?d="  # of images below Label Studio's document root


def label_studio_tasks(
    found: Poses, folder: str, about: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Tasks whose images are local files.

    Args:
      found: predictions, with the sizes of all images.
      folder: of the images, below Label Studio's document root.
      about: what a task tells of its image beside, by file.
    """
    prefix = f"{folder}/" if folder else ""
    tasks = label_studio.content_of(found, lambda file: _LOCAL + quote(prefix + file))
    for image, task in zip(found.images, tasks, strict=True):
        task["data"] |= about[image.file]
    return tasks


def label_studio_config(skeleton: Skeleton) -> str:
    """The labelling interface to paste, with a choice to reject a picture."""
    choice = (
        f'  <Choices name="{REJECTED}" toName="{label_studio.IMAGE}" '
        f'choice="multiple">\n    <Choice value="{REJECTED}"/>\n  </Choices>\n</View>\n'
    )
    return label_studio.labelling_config(skeleton).replace("</View>\n", choice)


def rejected(path: str | os.PathLike, name: str) -> tuple[str, ...]:
    """Pictures that a file says nobody can label.

    Args:
      path: of a file that its format's reader has read.
      name: of its format.
    """
    if name == label_studio.NAME:
        with open(path, encoding="utf-8-sig") as file:
            tasks = json.load(file)
        return tuple(
            label_studio.file_of(task["data"][label_studio.IMAGE])
            for task in tasks
            if label_studio.IMAGE in task["data"] and _has_choice(task)
        )
    if name == cvat.NAME:
        return tuple(
            poses.check_file(image.get("name"))
            for image in ElementTree.parse(path).getroot().iter("image")
            if any(tag.get("label") == REJECTED for tag in image.iter("tag"))
        )
    return ()


def _has_choice(task: Mapping[str, Any]) -> bool:
    return any(
        REJECTED in ((region.get("value") or {}).get("choices") or ())
        for one in task.get("annotations") or ()
        if not one.get("was_cancelled")
        for region in one.get("result") or ()
    )


def cvat_labels(skeleton: Skeleton, places: np.ndarray) -> str:
    """JSON for the field "Raw" of a task's labels: skeleton, box, and a tag to reject.

    Args:
      skeleton: whose joints.
      places: [J, 2], of its joints in the picture of the skeleton; any unit.
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
            "name": cvat.label_of(skeleton),
            "type": "skeleton",
            "attributes": [],
            "sublabels": [
                {"name": joint, "type": "points", "attributes": []}
                for joint in skeleton.joints
            ],
            "svg": "".join(drawn),
        },
        {"name": cvat.box_label_of(skeleton), "type": "rectangle", "attributes": []},
        {"name": REJECTED, "type": "tag", "attributes": []},
    ]
    return json.dumps(labels, indent=1, ensure_ascii=False) + "\n"
