"""People of MPII's training images as HRNet and others ship them, in one JSON list.

An entry is a person: image, center, scale, joints [16, 2] and joints_vis [16] of 0 or
1. People have no numbers here; they are counted within their image, from 1.
"""

import json
from typing import Any

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose import skeletons
from jalpose.tasks.pose.mpii_release import NUM_JOINTS, Person

_AGAIN = "Copy it again, or use the authors' file, mpii_human_pose_v1_u12_1.mat."


def read(path: str) -> list[Person]:
    """Everybody of the file, joints in the order shipped, pixels counted from 1.

    Raises:
      DataError: the file is damaged or no such list; the message names the entry.
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path!r} as JSON: {error}. {_AGAIN}") from error
    if not isinstance(entries, list):
        raise DataError(
            f"{path!r} holds a {type(entries).__name__}, not HRNet's list of people. "
            f"{_AGAIN}"
        )
    numbers: dict[str, int] = {}
    people = []
    for position, entry in enumerate(entries):
        try:
            person = _person_of(entry, numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Entry {position} of {path!r} is not as HRNet ships it (image, "
                "center, scale, joints [16, 2] and joints_vis [16] of 0 or 1): "
                f"{type(error).__name__}: {error}. {_AGAIN}"
            ) from error
        people.append(person)
    return people


def _person_of(entry: Any, numbers: dict[str, int]) -> Person:
    """One entry of HRNet's list as read; counts the people of images in `numbers`."""
    image = entry["image"]
    if not isinstance(image, str) or not image:
        raise ValueError(f"its image is {image!r}, not a file's name")
    joints = np.array(entry["joints"], np.float64)
    visible = np.array(entry["joints_vis"], np.float64).reshape(-1)
    if joints.shape != (NUM_JOINTS, 2) or visible.shape != (NUM_JOINTS,):
        raise ValueError(f"joints {joints.shape}, joints_vis {visible.shape}")
    if not np.isin(visible, (0, 1)).all():
        raise ValueError(f"joints_vis {visible.tolist()}")
    status = np.where(visible == 1, skeletons.VISIBLE, skeletons.ABSENT)
    joints[status == skeletons.ABSENT] = np.nan
    centre = np.array(entry["center"], np.float64).reshape(2)
    scale = float(entry["scale"])
    if not (scale > 0 and centre[0] != -1):  # as HRNet marks a person without
        centre, scale = np.full(2, np.nan), np.nan
    numbers[image] = numbers.get(image, 0) + 1
    return Person(
        image=image,
        number=numbers[image],
        joints=joints,
        status=status,
        centre=centre,
        scale=scale,
        head_box=np.full(4, np.nan),
    )
