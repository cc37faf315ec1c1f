"""Annotations of MPII: the authors' MATLAB file, or HRNet's JSON made of it.

The set comes as `<data_dir>/mpii/images/*.jpg` and one of

    mpii_human_pose_v1_u12_1.mat   the structure RELEASE, of the authors (taken first)
    annot/trainval.json            a list of people, as HRNet and others ship it

(M. Andriluka et al., 2D Human Pose Estimation: New Benchmark and State of the Art
Analysis, CVPR 2014). An example is one person. Of the .mat these are, as in the papers,
the people of training images (the labels of the others are withheld) that
`single_person` lists as sufficiently separated and that have an annotated joint; the
JSON is made of such people already. Both count pixels from 1, as MATLAB does: 1 is
taken off, so that pixel centres are whole numbers from 0, as everywhere here.

The JSON says less: no head boxes (so no PCKh), and an occluded joint is not told from
a visible one, all that is annotated is visible.

The validation set is the list of image names of A. Newell et al. (Stacked hourglass
networks for human pose estimation, ECCV 2016), read from
`<data_dir>/mpii/newell_validation_images.txt`; all other people are for training, so
that people of one image are never on both sides.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data import images
from jalpose.data.files import is_file, is_folder
from jalpose.data.source import DataError
from jalpose.tasks.pose import mpii_json, mpii_release, skeletons
from jalpose.tasks.pose.annotations import WILD, Annotations
from jalpose.tasks.pose.mpii_release import Person

# fmt: off
SHIPPED_ORDER = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle",
    "pelvis", "thorax", "neck", "head",
    "right wrist", "right elbow", "right shoulder",
    "left shoulder", "left elbow", "left wrist",
)
# fmt: on
_FROM_SHIPPED = [SHIPPED_ORDER.index(joint) for joint in skeletons.MPII.joints]
_HEAD, _NECK = (skeletons.MPII.joints.index(joint) for joint in ("head", "neck"))

ANNOTATION_FILES = (
    "mpii_human_pose_v1_u12_1.mat",
    "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat",  # as the archive unpacks
    "annot/trainval.json",
    "trainval.json",
)
VALIDATION_LIST = "newell_validation_images.txt"
WHERE_TO_GET = (
    "Images (mpii_human_pose_v1.tar.gz, 12.9 GB) and annotations "
    "(mpii_human_pose_v1_u12_2.zip) are at human-pose.mpi-inf.mpg.de. Unpack to "
    "<config.data.dir>/mpii, with images/ and mpii_human_pose_v1_u12_1.mat."
)
_NUM_LINES = 2958
_WHERE_LIST = (
    "It is the list of Newell et al., one image name a line, "
    f"{_NUM_LINES:,} lines: e.g. "
    "cached/Stacked_HG_ValidationImageNames.txt of "
    "github.com/meghshukla/ActiveLearningForHumanPose; copy it there."
)
_PERSON_HEIGHT = 200  # pixels of a person at scale 1
_logger = logging.getLogger(__name__)


class Options(NamedTuple):
    """Who of MPII is an example, and where the head is.

    Attributes:
      annotation: file relative to `<data_dir>/mpii`; "" takes the first of
        `ANNOTATION_FILES` that is there.
      all_joints: only people with all 16 joints, in training and test (the published
        code of EGL++).
      head_shift: how far the head is moved to the neck, as a fraction of their
        distance, in training and test (the published code: 0.2).
      placed: only people with a centre and a height, as crops of them need.
    """

    annotation: str = ""
    all_joints: bool = False
    head_shift: float = 0.0
    placed: bool = False


def find_annotation(data_dir: str, annotation: str = "") -> str:
    """Path of the annotation file.

    Raises:
      DataError: naming what is missing and where to get the data.
    """
    root = os.path.abspath(os.path.expanduser(data_dir))
    folder = os.path.join(root, "mpii")
    names = (annotation,) if annotation else ANNOTATION_FILES
    for name in names:
        path = os.path.join(folder, name)
        if is_file(path):
            return path
    if not is_folder(root):
        problem = f"No data folder {root!r}"
    elif not is_folder(folder):
        problem = f"No MPII in the data folder: {folder!r} does not exist"
    else:
        problem = f"MPII has no annotations in {folder!r}"
    raise DataError(
        f"{problem}. Looked there for {' or '.join(names)}; set config.data.dir or the "
        "environment variable JALPOSE_DATA to the folder that holds mpii/, and "
        f"config.data.mpii.annotation to another file in it. {WHERE_TO_GET}"
    )


def read_annotations(data_dir: str, annotation: str = "") -> Annotations:
    """Labels of everybody, in file order and the joint order of `skeletons.MPII`.

    Keys are `mpii/<image>_<number>`, the number being the person's in its image, from
    1: that of `annorect` in the .mat, and a running one in the JSON, which has no
    numbers (so keys of the two files differ).

    Raises:
      DataError: the file is missing, damaged, or describes nobody.
    """
    path = find_annotation(data_dir, annotation)
    people = mpii_json.read(path) if path.endswith(".json") else mpii_release.read(path)
    people = [p for p in people if (p.status != skeletons.ABSENT).any()]
    if not people:
        raise DataError(
            f"{path!r} describes no separate person with an annotated joint in a "
            f"training image. {WHERE_TO_GET}"
        )
    _check_people(people, path)
    joints = np.stack([p.joints for p in people])[:, _FROM_SHIPPED] - 1  # [N, J, 2]
    centres = np.stack([p.centre for p in people]) - 1
    heights = np.array([p.scale for p in people]) * _PERSON_HEIGHT
    heads = np.stack([p.head_box for p in people])
    sizes = np.hypot(heads[:, 2] - heads[:, 0], heads[:, 3] - heads[:, 1])
    placed = np.concatenate([centres, heights[:, None]], axis=1)
    placed[np.isnan(placed).any(axis=1)] = np.nan
    return Annotations(
        keys=tuple(f"mpii/{os.path.splitext(p.image)[0]}_{p.number}" for p in people),
        files=tuple(f"mpii/images/{p.image}" for p in people),
        joints=joints.astype(np.float32),
        status=np.stack([p.status for p in people])[:, _FROM_SHIPPED].astype(np.int8),
        boxes=_squares(placed),
        people=placed.astype(np.float32),
        head_sizes=None if np.isnan(sizes).all() else sizes.astype(np.float32),
        videos=tuple(f"{p.video:04d}" if p.video else "" for p in people)
        if any(p.video for p in people)
        else None,
    )


def choose(labels: Annotations, options: Options) -> Annotations:
    """Apply `options` to what `read_annotations` found; says who is left out.

    Raises:
      DataError: nobody is left.
    """
    whole = (labels.status != skeletons.ABSENT).all(axis=1)
    assert labels.people is not None  # as read above
    bare = np.isnan(labels.people).any(axis=1)
    kept = np.ones(len(labels), bool)
    if options.all_joints:
        kept &= whole
        _say(~whole, "do not have all 16 joints (data.mpii.all_joints)")
    if options.placed:
        kept &= ~bare
        _say(bare, "have no centre and height, which data.crop needs")
    if not kept.any():
        raise DataError(
            f"Nobody of the {len(labels)} people of MPII is left: "
            f"{int((~whole).sum())} do not have all 16 joints (data.mpii.all_joints="
            f"{options.all_joints}), {int(bare.sum())} have no centre and height "
            "(data.crop=joints needs none)"
        )
    found = labels.at(np.flatnonzero(kept))
    if not options.head_shift:
        return found
    joints = found.joints.copy()
    # NaN where one of the two is absent: the head stays where it is.
    moved = joints[:, _HEAD] + np.float32(options.head_shift) * (
        joints[:, _NECK] - joints[:, _HEAD]
    )
    joints[:, _HEAD] = np.where(np.isnan(moved), joints[:, _HEAD], moved)
    return dataclasses.replace(found, joints=joints)


def in_validation(
    labels: Annotations,
    data_dir: str,
    described: Sequence[str] | None = None,
    partly: bool = False,
) -> np.ndarray:
    """Who is in the validation set of Newell et al.: bool [N]; says how many.

    See `find_validation`.
    """
    found, told, lines = find_validation(labels, data_dir, described, partly)
    _logger.info("MPII: %s", told)
    if lines != _NUM_LINES:
        _logger.warning(
            "MPII: %r has %d lines, that of Newell et al. has %d: scores are not "
            "those of their validation set",
            _list_path(data_dir),
            lines,
            _NUM_LINES,
        )
    return found


def find_validation(
    labels: Annotations,
    data_dir: str,
    described: Sequence[str] | None = None,
    partly: bool = False,
) -> tuple[np.ndarray, str, int]:
    """Who is in the validation set of Newell et al.

    Args:
      labels: of the people.
      data_dir: holds the sets as shipped.
      described: images that the annotations describe; None: those of `labels`.
      partly: some names of the list may be of no image that is described.

    Returns:
      bool [N], how many that are in words, and the lines of the list.

    Raises:
      DataError: the list is missing, empty, or names images that nothing describes.
    """
    path = _list_path(data_dir)
    try:
        # Editors on Windows put a byte-order mark before the first name.
        with open(path, encoding="utf-8-sig") as file:
            lines = [name for name in (line.strip() for line in file) if name]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Cannot read the names of MPII's validation images, {path!r}: {error}. "
            f"{_WHERE_LIST}"
        ) from error
    names = dict.fromkeys(lines)
    there = {os.path.basename(file) for file in described or labels.files}
    missing = [name for name in names if name not in there]
    found = np.array([os.path.basename(file) in names for file in labels.files])
    if not found.any():
        raise DataError(
            f"None of the {len(names)} names in {path!r} is an image that the "
            f"annotations describe. {_WHERE_LIST}"
        )
    told = (
        f"{len(names) - len(missing)} of {len(names)} names in {path!r} found, "
        f"{int(found.sum())} people"
    )
    if missing and not partly:
        raise DataError(
            f"{told}: {missing[0]!r} and {len(missing) - 1} more are no images that "
            "the annotations describe. Correct the list, or go on without them with "
            f"data.check=off. {_WHERE_LIST}"
        )
    return found, told, len(lines)


def _list_path(data_dir: str) -> str:
    root = os.path.abspath(os.path.expanduser(data_dir))
    return os.path.join(root, "mpii", VALIDATION_LIST)


def read_image_file(data_dir: str, file: str, index: int) -> bytes:
    """Bytes of a raw image that exists and can be decoded to its end.

    Raises:
      DataError: it is missing or damaged.
    """
    path = os.path.join(data_dir, file)
    return images.read_image_file(
        path,
        what=f"image {path!r} (record {index})",
        described_by="the annotation file",
        advice=f"Restore it from mpii_human_pose_v1.tar.gz. {WHERE_TO_GET}",
    )


def _say(left_out: np.ndarray, why: str) -> None:
    if left_out.any():
        count = int(left_out.sum())
        _logger.info("MPII: left out %d of %d people, %s", count, len(left_out), why)


def _squares(people: np.ndarray) -> np.ndarray:
    """The person's height both ways round the centre: float32 [N, 4].

    What MPII ships in place of person boxes.
    """
    half = people[:, 2:] / 2
    corners = [people[:, :2] - half, people[:, :2] + half]
    return np.concatenate(corners, axis=1).astype(np.float32)


def _check_people(people: list[Person], path: str) -> None:
    """Raise where people, images or places cannot be what they are said to be.

    Raises:
      DataError: a name is no file name, two people share a key, a number is not
        finite or wild, a visible joint stands at a placeholder.
    """
    images: dict[str, str] = {}
    seen = set()
    for person in people:
        who = f"person {person.number} of image {person.image!r} in {path!r}"
        if os.path.basename(person.image) != person.image or not person.image:
            raise DataError(f"The image of {who} is not a file name. {WHERE_TO_GET}")
        stem = os.path.splitext(person.image)[0]
        other = images.setdefault(stem, person.image)
        if other != person.image:
            raise DataError(
                f"Images {other!r} and {person.image!r} in {path!r} differ in their "
                "ending alone, and people are named without it: rename one of them, "
                "there and in mpii/images."
            )
        if (stem, person.number) in seen:
            raise DataError(f"There is more than one {who}. {WHERE_TO_GET}")
        seen.add((stem, person.number))
        _check_places(person, who, placeholders=path.endswith(".json"))


def _check_places(person: Person, who: str, placeholders: bool) -> None:
    """Raise DataError for a joint, centre or height that can be nowhere.

    Absent joints have a place in the JSON, `placeholders`; in the .mat they have none.
    """
    there = person.status != skeletons.ABSENT
    values = np.where(there[:, None], person.joints, 0)
    nowhere = (values == -1).all(axis=1) | (values == 0).all(axis=1)
    for wrong, words in (
        (~np.isfinite(values).all(axis=1), "a coordinate that is not finite"),
        ((np.abs(values) > WILD).any(axis=1), f"a coordinate beyond {WILD:,} pixels"),
        (
            there & nowhere & placeholders,
            "a placeholder for its place, and is marked as annotated",
        ),
    ):
        if wrong.any():
            joint = int(np.argmax(wrong))
            raise DataError(
                f"The {SHIPPED_ORDER[joint]} of {who} has {words}: "
                f"{person.joints[joint].tolist()}. {WHERE_TO_GET}"
            )
    # NaN where there is none.
    for value, words in (
        (person.centre, "centre"),
        (person.scale * _PERSON_HEIGHT, "height (200 times its scale)"),
        (person.head_box, "head box"),
    ):
        if (np.abs(value) > WILD).any():
            raise DataError(
                f"The {words} of {who} is {np.asarray(value).tolist()}, beyond "
                f"{WILD:,} pixels. {WHERE_TO_GET}"
            )
