"""The structure RELEASE of MPII's MATLAB file: MATLAB's nesting undone.

    RELEASE.annolist(i).image.name                      of image i
                       .vididx                          its video, in video_list
    RELEASE.annolist(i).annorect(r).{x1, y1, x2, y2}    head box of person r
                                   .{scale, objpos.{x, y}}
                                   .annopoints.point(k).{id, x, y, is_visible}
    RELEASE.img_train(i)                                1: a training image
    RELEASE.single_person{i}                            r of the separate people, from 1

Whatever a person lacks has no field or an empty one there. A joint without a
visibility is visible (mostly head and neck), one of visibility 0 occluded.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.io
from scipy.io.matlab import mat_struct

from jalpose.data.source import DataError
from jalpose.tasks.pose import skeletons

NUM_JOINTS = skeletons.MPII.num_joints
_AGAIN = (
    "Copy mpii_human_pose_v1_u12_1.mat again from mpii_human_pose_v1_u12_2.zip "
    "(human-pose.mpi-inf.mpg.de)."
)


class Person(NamedTuple):
    """One annotated person as shipped: MPII's joint order, pixels counted from 1.

    Attributes:
      image: file name of the image.
      number: of the person in the image, from 1.
      joints: float64 [16, 2], NaN where absent.
      status: [16], VISIBLE, OCCLUDED or ABSENT.
      centre: float64 [2], NaN where there is none.
      scale: height of the person in 200 pixels, NaN where there is none.
      head_box: float64 [4], (x1, y1, x2, y2), NaN where there is none.
      video: number in RELEASE.video_list, from 1; 0 where it is not known.
    """

    image: str
    number: int
    joints: np.ndarray
    status: np.ndarray
    centre: np.ndarray
    scale: float
    head_box: np.ndarray
    video: int = 0


def read(path: str) -> list[Person]:
    """The separate people of the training images that have joints, in file order.

    Should an image have two entries, the people of the second are numbered after those
    of the first.

    Raises:
      DataError: the file is damaged or not MPII's; the message names the place.
    """
    release = _load(path)
    entries = _structs(getattr(release, "annolist", None))
    training = np.ravel(getattr(release, "img_train", ()))
    separate = np.ravel(np.asarray(getattr(release, "single_person", ()), object))
    if not len(entries) == len(training) == len(separate):
        raise DataError(
            f"RELEASE in {path!r} has {len(entries)} annolist, {len(training)} "
            f"img_train and {len(separate)} single_person, which must be as many. "
            f"{_AGAIN}"
        )
    people: list[Person] = []
    before: dict[str, int] = {}
    for position, entry in enumerate(entries):
        if training[position] != 1:
            continue
        where = f"annolist({position + 1}) in {path!r}"
        name = _text(entry, "image", "name")
        if not name:
            raise DataError(f"{where} has no image name. {_AGAIN}")
        rects = _structs(getattr(entry, "annorect", None))
        chosen = np.ravel(np.asarray(separate[position])).astype(np.int64)
        offset = before.get(name, 0)
        before[name] = offset + len(rects)
        for number in sorted({*chosen.tolist()}):
            if not 1 <= number <= len(rects):
                raise DataError(
                    f"single_person names person {number} of the {len(rects)} people "
                    f"of {where} ({name}). {_AGAIN}"
                )
            who = f"person {number} of {where} ({name})"
            person = _person(rects[number - 1], name, offset + number, who)
            if person is not None:
                people.append(person._replace(video=_video(entry, where)))
    return people


def _load(path: str) -> mat_struct:
    try:
        variables = scipy.io.loadmat(
            path, struct_as_record=False, variable_names=["RELEASE"]
        )
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DataError(
            f"Cannot read {path!r} as a MATLAB file (up to version 7.2): "
            f"{type(error).__name__}: {error}. {_AGAIN}"
        ) from error
    found = _structs(variables.get("RELEASE"))
    if len(found) != 1:
        raise DataError(f"{path!r} has no structure RELEASE. {_AGAIN}")
    return found[0]


def _person(rect: mat_struct, image: str, number: int, who: str) -> Person | None:
    """The person of an `annorect`; None without annotated joints."""
    points = [
        point
        for points in _structs(getattr(rect, "annopoints", None))
        for point in _structs(getattr(points, "point", None))
    ]
    if not points:
        return None
    joints = np.full((NUM_JOINTS, 2), np.nan)
    status = np.full(NUM_JOINTS, skeletons.ABSENT)
    for point in points:
        joint = _number(point, "id", who)
        if joint not in range(NUM_JOINTS):
            raise DataError(f"{who} has a joint id={joint}, not 0 to 15. {_AGAIN}")
        joint = int(joint)
        at = _number(point, "x", who), _number(point, "y", who)
        if status[joint] != skeletons.ABSENT and tuple(joints[joint]) != at:
            raise DataError(
                f"{who} has joint id={joint} twice, at {tuple(joints[joint].tolist())} "
                f"and at {at}. {_AGAIN}"
            )
        joints[joint] = at
        occluded = _number(point, "is_visible", who) == 0
        status[joint] = skeletons.OCCLUDED if occluded else skeletons.VISIBLE
    positions = _structs(getattr(rect, "objpos", None))
    centre = [_number(positions[0], axis, who) for axis in "xy"] if positions else []
    scale = _number(rect, "scale", who)
    if not (len(centre) == 2 and not np.isnan(centre).any() and scale > 0):
        centre, scale = [np.nan, np.nan], np.nan
    head_box = [_number(rect, field, who) for field in ("x1", "y1", "x2", "y2")]
    return Person(
        image=image,
        number=number,
        joints=joints,
        status=status,
        centre=np.array(centre),
        scale=scale,
        head_box=np.array(head_box),
    )


def _video(entry: mat_struct, where: str) -> int:
    """Number of an image's video; 0 where it has none."""
    number = _number(entry, "vididx", where)
    if np.isnan(number):
        return 0
    if number < 1 or number != int(number):
        raise DataError(f"{where} has vididx={number:g}, which is no number. {_AGAIN}")
    return int(number)


def _structs(value: Any) -> list[mat_struct]:
    """The elements of a struct array, none of what is missing or empty."""
    if value is None:
        return []
    items = np.ravel(np.asarray(value, object))
    return [item for item in items if isinstance(item, mat_struct)]


def _number(struct: mat_struct, field: str, who: str) -> float:
    """A number, of a text too; NaN where it is missing or empty."""
    values = np.ravel(getattr(struct, field, ()))
    if not values.size:
        return np.nan
    try:
        return float(values[0])
    except (TypeError, ValueError):
        raise DataError(
            f"{who} has {field}={str(values[0])!r}, which is no number. {_AGAIN}"
        ) from None


def _text(struct: mat_struct, *fields: str) -> str:
    """A text some structs down, empty where it is missing."""
    for field in fields[:-1]:
        inner = _structs(getattr(struct, field, None))
        if not inner:
            return ""
        struct = inner[0]
    values = np.ravel(getattr(struct, fields[-1], ()))
    return str(values[0]) if values.size else ""
