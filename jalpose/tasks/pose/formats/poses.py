"""What an annotation file of any format says: images, people in them, a skeleton.

Coordinates are pixels of the image as stored, pixel centres at whole numbers, boxes
corner to corner: the pixel in the upper left is the box (-0.5, -0.5, 0.5, 0.5). Every
reader gives these, every writer takes them.
"""

import dataclasses
import os
import posixpath
import re
from collections.abc import Sequence

import numpy as np

from jalpose.tasks.pose.annotations import WILD
from jalpose.tasks.pose.skeletons import ABSENT, Skeleton

_WORD = re.compile(r"[A-Z](?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """An image that a file names.

    Attributes:
      file: as named there, with forward slashes, relative to the folder of images.
      size: width and height in pixels; None where the file does not tell.
    """

    file: str
    size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """One person or animal in one image.

    Attributes:
      file: of its image, see `Image`.
      id: its name among those of its image; "" where a format has one an image.
      joints: float64 [J, 2], (x, y); NaN where absent.
      status: int8 [J], VISIBLE, OCCLUDED or ABSENT.
      box: float64 [4], (x0, y0, x1, y1); None without.
      area: of its segment, pixels squared; None where the file does not tell.
      crowd: it stands for a group (COCO's `iscrowd`).
      confidence: float [J] of a predicted one; None of a labelled one.
      score: of a predicted one as a whole; None of a labelled one.
    """

    file: str
    id: str = ""
    joints: np.ndarray
    status: np.ndarray
    box: np.ndarray | None = None
    area: float | None = None
    crowd: bool = False
    confidence: np.ndarray | None = None
    score: float | None = None

    @property
    def labelled(self) -> bool:
        """Has it an annotated joint, and is it one?"""
        return not self.crowd and bool((self.status != ABSENT).any())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """What a file holds.

    Attributes:
      skeleton: of all its instances.
      images: all that it names, those with nobody in them too.
      instances: in file order.
    """

    skeleton: Skeleton
    images: tuple[Image, ...]
    instances: tuple[Instance, ...]


def skeleton_named(
    name: str,
    joints: Sequence,
    links: Sequence[tuple[int, int]] = (),
    mirrored: Sequence[tuple[int, int]] | None = None,
) -> Skeleton:
    """A skeleton of joints that a file names.

    Its torso is that of shoulders and hips, where both sides have both.

    Args:
      name: of what is annotated.
      joints: their names.
      links: pairs of joints from 0.
      mirrored: pairs (left, right) from 0; None: by their names.

    Raises:
      ValueError: joints are no names, or two have the same; a link leads nowhere.
    """
    if not joints or not all(isinstance(joint, str) and joint for joint in joints):
        raise ValueError("its keypoints are not names")
    if len(set(joints)) < len(joints):
        raise ValueError("two of its keypoints have the same name")
    for pair in (*links, *(mirrored or ())):
        if len(pair) != 2 or not all(0 <= joint < len(joints) for joint in pair):
            raise ValueError(f"{pair} is no pair of its {len(joints)} keypoints")
    places = _places(tuple(joints))
    torso = [
        (places.get(f"{one} shoulder"), places.get(f"{other} hip"))
        for one, other in (("left", "right"), ("right", "left"))
    ]
    whole = [(a, b) for a, b in torso if a is not None and b is not None]
    found = mirror_pairs(tuple(joints)) if mirrored is None else tuple(mirrored)
    return Skeleton(
        name=f"{name}{len(joints)}",
        joints=tuple(joints),
        flip_pairs=found,
        limbs=tuple(links),
        torso=tuple(whole) if len(whole) == len(torso) else (),
    )


def mirror_pairs(joints: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Joints that change places in a mirror, (left, right), by their names.

    `left` against `right` wherever it stands (left_eye, EyeLeft, leftear), and l
    against r as a word (l_eye, eye.L, LEye).
    """
    places, pairs = _places(joints), []
    for words, place in places.items():
        other = " ".join(
            "r" if word == "l" else word.replace("left", "right")
            for word in words.split()
        )
        if places.get(other, place) != place:
            pairs.append((place, places[other]))
    return tuple(pairs)


def one_sided(
    joints: tuple[str, ...], pairs: Sequence[tuple[int, int]]
) -> tuple[str, ...]:
    """Joints that are called left or right and change places with none of `pairs`."""
    paired = {joint for pair in pairs for joint in pair}
    return tuple(
        joints[place]
        for words, place in _places(joints).items()
        if place not in paired and not {"left", "right"}.isdisjoint(words.split())
    )


def _places(joints: tuple[str, ...]) -> dict[str, int]:
    """Where each joint is, by its name in small letters: left_eye is "left eye"."""
    words = [" ".join(_WORD.findall(name)).lower() for name in joints]
    return {name: place for place, name in enumerate(words)}


def check_joints(joints: np.ndarray, status: np.ndarray, names: Sequence[str]) -> None:
    """Raise ValueError for an annotated joint that can be nowhere."""
    for wrong, words in (
        (~np.isfinite(joints).all(axis=1), "is not finite"),
        ((np.abs(joints) > WILD).any(axis=1), f"is beyond {WILD:,} pixels"),
    ):
        wrong = wrong & (status != ABSENT)
        if wrong.any():
            joint = int(np.argmax(wrong))
            raise ValueError(
                f"its {names[joint]} has the place {joints[joint].tolist()}, which "
                f"{words}"
            )


def box_of(x, y, width, height) -> np.ndarray | None:
    """Corners of a box measured from the image's corner; None of an empty one.

    Raises:
      ValueError: it can be nowhere.
    """
    given = [float(value) for value in (x, y, width, height)]
    if not np.isfinite(given).all() or min(given[2:]) < 0:
        raise ValueError(f"its bbox is {given}")
    if max(map(abs, given)) > WILD:
        raise ValueError(f"its bbox {given} is beyond {WILD:,} pixels")
    if not given[2] or not given[3]:
        return None
    left, top, wide, high = given
    return np.array([left, top, left + wide, top + high]) - 0.5


def turned(
    box: Sequence[float], degrees: float, about: Sequence[float]
) -> tuple[float, float, float, float]:
    """The box round a rectangle that a tool has turned: (x, y, width, height).

    Args:
      box: (x, y, width, height) before it was.
      degrees: clockwise.
      about: the point (x, y) that stayed where it was.
    """
    x, y, width, height = (float(value) for value in box)
    angle = np.deg2rad(float(degrees))
    across = np.array([x, x + width, x, x + width]) - about[0]
    down = np.array([y, y, y + height, y + height]) - about[1]
    found = np.stack(
        [
            across * np.cos(angle) - down * np.sin(angle),
            across * np.sin(angle) + down * np.cos(angle),
        ]
    )
    low, extent = found.min(axis=1) + about, np.ptp(found, axis=1)
    return float(low[0]), float(low[1]), float(extent[0]), float(extent[1])


def box_written(box: np.ndarray) -> tuple[float, float, float, float]:
    """The other way: (x, y, width, height) measured from the image's corner."""
    left, top, right, bottom = (float(value) for value in box)
    return left + 0.5, top + 0.5, right - left, bottom - top


def check_file(file) -> str:
    """The name of an image as `Image` has it.

    Raises:
      ValueError: it is no name, or leads out of the folder of images.
    """
    if not isinstance(file, str) or not file.strip():
        raise ValueError(f"its file_name is {file!r}")
    found = file.replace("\\", "/")
    if os.path.isabs(found) or ".." in found.split("/") or found[1:3] == ":/":
        raise ValueError(f"its file_name {file!r} leads out of the images")
    return posixpath.normpath(found)  # ./a.jpg is a.jpg, or it would be two images


def words(error: Exception) -> str:
    """What an error of a record says."""
    if isinstance(error, KeyError):
        return f"no {error}"
    return str(error)
