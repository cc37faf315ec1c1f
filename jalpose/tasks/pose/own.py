"""Own images, and COCO: which files describe them, and who plays which part.

`data.dir` holds the images and what is known of them. The labelled part is one
annotation file of any format, or the tables of a DeepLabCut project; the test set
another, or a share of the labelled that is drawn. The pool is

    a folder of images   each taken whole, as one person
    a COCO file          with boxes
    a CSV of boxes       file,x,y,w,h
    nothing              the other labelled ones: their labels are simulated

Of a pool that is named no label is read, whatever the file says: nobody has bought it.
"""

import dataclasses
import logging
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data.files import is_file, is_folder
from jalpose.data.source import DataError
from jalpose.runtime.seeds import stream_seed
from jalpose.tasks.pose import examples as made
from jalpose.tasks.pose import tool_setups
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.formats import boxes, reading
from jalpose.tasks.pose.formats.poses import Poses, one_sided, skeleton_named
from jalpose.tasks.pose.own_files import annotation_files, images_of
from jalpose.tasks.pose.skeletons import Skeleton
from jalpose.tasks.pose.windows import crop_windows

NAMES = ("photos", "coco")  # values of `data.name`
LABELLED, POOL, TEST = range(3)  # parts
_logger = logging.getLogger(__name__)


class Described(NamedTuple):
    """What the files say, before any image is read.

    Attributes:
      skeleton: of all.
      annotations: of N examples.
      told: int [N, 2], sizes of their images as the files have them; 0 where they do
        not.
      parts: int [N], of `LABELLED`, `POOL`, `TEST`.
      groups: N names; what is of one group is held out together.
      simulated: the pool's labels are there.
      whole: bool [N], who has no box: their images are taken whole.
      notes: what is not as a user may think.
    """

    skeleton: Skeleton
    annotations: Annotations
    told: np.ndarray
    parts: np.ndarray
    groups: tuple[str, ...]
    simulated: bool
    whole: np.ndarray
    notes: tuple[str, ...]


def describe(data) -> Described:
    """What the annotation files of a config say.

    Args:
      data: its section `data`, or that as records have it.

    Raises:
      DataError: a file is missing, damaged, of another skeleton, or not of images here.
    """
    root = os.path.abspath(os.path.expanduser(data["dir"]))
    if not is_folder(root):
        raise DataError(
            f"No data folder {root!r}: set config.data.dir to the folder that holds "
            "your images and annotation files"
        )
    photos = data["photos"]
    first, test = annotation_files(root, data["name"], photos)
    skeleton, labelled = _labelled(root, first, photos, None)
    found = [(labelled, LABELLED)]
    if test:
        found.append((_labelled(root, test, photos, skeleton)[1], TEST))
    if photos["pool"]:
        found.append((_pool(root, photos, skeleton, [e for e, _ in found]), POOL))
    notes = [_mirrored(skeleton, photos)]
    annotations, parts = _together(found)
    told = np.concatenate([examples.sizes for examples, _ in found])
    groups = tuple(_group(file, data["groups"]) for file in annotations.files)
    if not test:
        parts = _with_test(parts, groups, photos)
    whole = np.ones(len(annotations), bool)
    if annotations.boxes is not None:
        whole = np.isnan(annotations.boxes).any(axis=1)
    notes += _check_whole(annotations, whole, parts)
    return Described(
        skeleton=skeleton,
        annotations=annotations,
        told=told,
        parts=parts,
        groups=groups,
        simulated=not photos["pool"],
        whole=whole,
        notes=tuple(notes),
    )


def _labelled(root: str, paths: Sequence[str], photos, skeleton: Skeleton | None):
    """Skeleton and examples of the files of a part, one after the other."""
    every = []
    for path in paths:
        found = _read(path, photos, skeleton)
        if skeleton is None:
            skeleton = _as_told(found.skeleton, photos)
        found = made.in_order_of(found, skeleton, path)
        folder, found = images_of(root, path, found, photos["images"])
        name = os.path.relpath(path, root)
        every.append(made.labelled_examples(found, folder, name=name, path=path))
    return skeleton, _joined(every)


def _read(path: str, photos, skeleton: Skeleton | None) -> Poses:
    """What a file says, but of pictures that annotators have rejected in their tool.

    Points in those are what a model had guessed.
    """
    found = reading.read(path, category=photos["category"], skeleton=skeleton)
    rejected = set(tool_setups.rejected(path, reading.format_of(path)))
    if not rejected:
        return found
    _logger.info("%s: %d images are rejected, and left out", path, len(rejected))
    return dataclasses.replace(
        found,
        instances=tuple(one for one in found.instances if one.file not in rejected),
    )


def _pool(root: str, photos, skeleton: Skeleton, before: Sequence[made.Examples]):
    """Everybody there is to label, but for who is labelled or tested on already."""
    path = os.path.join(root, photos["pool"])
    known = {key for examples in before for key in examples.annotations.keys}
    if is_folder(path):
        found = boxes.folder(path, skeleton=skeleton)
        folder = os.path.relpath(path, root).replace(os.sep, "/")
        folder = "" if folder == "." else folder
        # Of an image that is labelled already nobody is known to be left.
        known |= {file for examples in before for file in examples.annotations.files}
    elif is_file(path):
        found = _read(path, photos, skeleton)
        folder, found = images_of(root, path, found, photos["images"])
    else:
        raise DataError(
            f"data.photos.pool={photos['pool']!r}: {path!r} is not there. It is to "
            "be a folder of images, a COCO file or a CSV of boxes, relative to data.dir"
        )
    examples = made.unlabelled_examples(found, folder)
    keys = examples.annotations.keys
    left = [row for row, key in enumerate(keys) if key not in known]
    if len(left) < len(keys):
        _logger.info(
            "pool: %d of %d are labelled or tested on already, and not in it",
            len(keys) - len(left),
            len(keys),
        )
    if not left:
        raise DataError(
            f"data.photos.pool={photos['pool']!r}: nobody in it is left to label"
        )
    return made.Examples(examples.annotations.at(left), examples.sizes[left])


def _as_told(skeleton: Skeleton, photos) -> Skeleton:
    """A file's skeleton with the mirror pairs and links that a config names."""
    mirror, links = photos["mirror"], photos["links"]
    if not mirror and not links:
        return skeleton
    joints = skeleton.joints
    pairs = {}
    for key, given in (("mirror", mirror), ("links", links)):
        strange = [name for pair in given for name in pair if name not in joints]
        if strange:
            raise DataError(
                f"data.photos.{key}: there is no joint {strange[0]!r} among "
                f"{', '.join(joints)}"
            )
        pairs[key] = [(joints.index(one), joints.index(other)) for one, other in given]
    found = skeleton_named(
        "",
        joints,
        pairs["links"] or skeleton.limbs,
        pairs["mirror"] or skeleton.flip_pairs,
    )
    return dataclasses.replace(found, name=skeleton.name)


def _mirrored(skeleton: Skeleton, photos) -> str:
    joints = skeleton.joints
    pairs = [f"{joints[a]} and {joints[b]}" for a, b in skeleton.flip_pairs]
    alone = one_sided(joints, skeleton.flip_pairs)
    how = "as data.photos.mirror says" if photos["mirror"] else "by their names"
    found = (
        f"in a mirror these change places, {how}: {', '.join(pairs)}"
        if pairs
        else "no joints change places in a mirror"
        + ("" if alone else ": none is called left or right")
        + " (data.photos.mirror names pairs)"
    )
    if alone:
        found += (
            f"; {', '.join(alone)} would be of the wrong side there, as no other "
            "changes places with it: augment.flip=0.0 takes no mirror images"
        )
        _logger.warning("%s", found)
    return found


def _group(file: str, rule: str) -> str:
    """The group of an image; at the least, who is in one image is of one."""
    if rule == "none":
        return file
    if rule == "folder":
        return os.path.dirname(file)
    found = re.search(rule, file)
    if found is None:
        raise DataError(
            f"data.groups={rule!r} is found nowhere in {file!r}: it is to be none, "
            "folder, or a regular expression that finds the group of every image, the "
            "first pair of brackets in it or else all of it"
        )
    return found.group(1) if found.re.groups else found.group(0)


def _with_test(parts: np.ndarray, groups: Sequence[str], photos) -> np.ndarray:
    """Whole groups of the labelled drawn for the test set, the same for every seed."""
    rows = np.flatnonzero(parts == LABELLED)
    names = np.array([groups[row] for row in rows.tolist()])
    drawn = np.random.default_rng(stream_seed(photos["test_seed"], "test"))
    wanted, count, found = photos["test_share"] * len(rows), 0, parts.copy()
    order = drawn.permutation(np.unique(names))
    for number, name in enumerate(order.tolist()):
        own = rows[names == name]
        if count >= wanted or number == len(order) - 1:
            break
        found[own], count = TEST, count + len(own)
    if not count:
        raise DataError(
            f"data.photos.test_share={photos['test_share']}: no test set can be drawn "
            f"of the {len(rows)} labelled, which are of {len(order)} group; name one "
            "in data.photos.test, or set data.groups=none"
        )
    return found


def _together(found) -> tuple[Annotations, np.ndarray]:
    """All parts end to end; nobody is in two."""
    joined = _joined([examples for examples, _ in found]).annotations
    parts = np.concatenate(
        [np.full(len(examples.annotations), part) for examples, part in found]
    )
    first: dict[str, int] = {}
    for row, key in enumerate(joined.keys):
        other = first.setdefault(key, row)
        if other != row:
            raise DataError(
                f"{key} is there twice: "
                + (
                    "in the labelled and in the test part"
                    if parts[other] != parts[row]
                    else "two files have labels of it"
                )
                + ". Take it out of one."
            )
    return joined, parts


def _joined(every: Sequence[made.Examples]) -> made.Examples:
    if len(every) == 1:
        return every[0]
    parts = [examples.annotations for examples in every]

    def optional(name: str, width: tuple[int, ...]):
        values = [getattr(part, name) for part in parts]
        if all(value is None for value in values):
            return None
        return np.concatenate(
            [
                np.full((len(part), *width), np.nan, np.float32)
                if value is None
                else value
                for part, value in zip(parts, values, strict=True)
            ]
        )

    return made.Examples(
        Annotations(
            keys=tuple(key for part in parts for key in part.keys),
            files=tuple(file for part in parts for file in part.files),
            joints=np.concatenate([part.joints for part in parts]),
            status=np.concatenate([part.status for part in parts]),
            boxes=optional("boxes", (4,)),
            areas=optional("areas", ()),
        ),
        np.concatenate([examples.sizes for examples in every]),
    )


def _check_whole(annotations: Annotations, whole: np.ndarray, parts) -> list[str]:
    """What is to be said of images that are taken whole.

    Raises:
      DataError: two people are in one of them.
    """
    first: dict[str, int] = {}
    for row, file in enumerate(annotations.files):
        other = first.setdefault(file, row)
        if other != row and (whole[row] or whole[other]):
            raise DataError(
                f"{annotations.keys[other]} and {annotations.keys[row]} are two in "
                "one image, and have no box each: give them boxes (COCO's bbox, "
                "rectangles), so that each has a crop of its own"
            )
    if whole.all():
        told = "nobody has a box: images are taken whole, each as one person"
        _logger.warning("%s", told)
        return [told]
    if not whole.any():
        return []
    names = ("labelled", "pool", "test")
    counts = [
        f"{int(whole[parts == part].sum())} of {int((parts == part).sum())} {name}"
        for part, name in enumerate(names)
        if whole[parts == part].any()
    ]
    told = (
        f"the images of {' and '.join(counts)} examples are taken whole, as they have "
        "no boxes: crops of the others are of people, and look different"
    )
    _logger.warning("%s", told)
    return [told]


def windows_of(
    annotations: Annotations,
    whole: np.ndarray,
    sizes: np.ndarray,
    crop: str,
    window: float,
) -> np.ndarray:
    """Crop windows of examples of whom some have no box: float32 [N, 3].

    Those are their images', whatever `window` says: the longer side, round the middle.

    Args:
      annotations: of N examples.
      whole: bool [N], who has no box.
      sizes: int [N, 2], of their images; of the others they are not looked at.
      crop: see `windows.crop_windows`.
      window: see `windows.crop_windows`.

    Raises:
      DataError: see `windows.crop_windows`.
    """
    if crop != "box" or not whole.any():
        return crop_windows(annotations, crop, window)
    found = np.empty((len(annotations), 3), np.float32)
    found[whole, :2] = (sizes[whole] - 1) / 2
    found[whole, 2] = sizes[whole].max(axis=1)
    rest = np.flatnonzero(~whole)
    if len(rest):
        found[rest] = crop_windows(annotations.at(rest), crop, window)
    return found
