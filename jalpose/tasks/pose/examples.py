"""Examples made of what annotation files say: several people in an image are several.

The key of an example is the path of its image, and, where an image has several or their
format numbers them, `#` and the id: `images/day 1/007.jpg#12`. It does not depend on
the format that the labels come in, nor on whether they are there: the same file is the
same example with and without.
"""

import logging
from typing import NamedTuple

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.formats.poses import Instance, Poses
from jalpose.tasks.pose.skeletons import ABSENT, Skeleton

_NAMED = 3
_logger = logging.getLogger(__name__)


class Examples(NamedTuple):
    """Annotations, and what else a file says of them.

    Attributes:
      annotations: of N examples, with boxes where any has one.
      sizes: int [N, 2], width and height of their images as the file has them, pixels;
        0 where it does not tell.
    """

    annotations: Annotations
    sizes: np.ndarray


def labelled_examples(found: Poses, folder: str, *, name: str, path: str) -> Examples:
    """The instances that have an annotated joint, in file order; says who has none.

    Args:
      found: read from a file.
      folder: of its images, relative to the data folder; "": that one.
      name: of the set, for people.
      path: of the file, for people.

    Raises:
      DataError: nobody has one.
    """
    kept = [one for one in found.instances if one.labelled]
    left_out = len(found.instances) - len(kept)
    if left_out:
        _logger.info(
            "%s: left out %d of %d annotations: groups, or without an annotated joint",
            name,
            left_out,
            len(found.instances),
        )
    if not kept:
        raise DataError(
            f"None of the {left_out} annotations of {found.skeleton.name!r} in "
            f"{path!r} has an annotated joint"
        )
    return _examples(found, kept, folder)


def unlabelled_examples(found: Poses, folder: str) -> Examples:
    """Everybody there is to label, without what may be known of their joints.

    Groups are left out.

    Args:
      found: read from a file.
      folder: of its images, relative to the data folder; "": that one.
    """
    kept = [one for one in found.instances if not one.crowd]
    examples = _examples(found, kept, folder)
    annotations = examples.annotations
    return examples._replace(
        annotations=Annotations(
            keys=annotations.keys,
            files=annotations.files,
            joints=np.full_like(annotations.joints, np.nan),
            status=np.full_like(annotations.status, ABSENT),
            boxes=annotations.boxes,
            areas=annotations.areas,
        )
    )


def in_order_of(found: Poses, skeleton: Skeleton, path: str) -> Poses:
    """The same with the joints in the order of a skeleton that has the same ones.

    Args:
      found: read from a file.
      skeleton: that of the others.
      path: of the file, for people.

    Raises:
      DataError: it has other joints.
    """
    ours, theirs = skeleton.joints, found.skeleton.joints
    if set(ours) != set(theirs):
        missing = [joint for joint in ours if joint not in theirs]
        strange = [joint for joint in theirs if joint not in ours]
        told = [
            f"{words} {', '.join(joints[:_NAMED])}"
            + (f" and {len(joints) - _NAMED} more" if len(joints) > _NAMED else "")
            for words, joints in (("it lacks", missing), ("only it has", strange))
            if joints
        ]
        raise DataError(
            f"{path!r} is of another skeleton: it has {len(theirs)} joints, the labels "
            f"before it {len(ours)}; {'; '.join(told)}. Name joints alike in all "
            "files, or take files of one skeleton."
        )
    order = [theirs.index(joint) for joint in ours]
    if order == list(range(len(ours))):
        return Poses(skeleton=skeleton, images=found.images, instances=found.instances)
    return Poses(
        skeleton=skeleton,
        images=found.images,
        instances=tuple(_reordered(one, order) for one in found.instances),
    )


def key_of(file: str, id: str = "") -> str:
    """The key of an example.

    Args:
      file: of its image, relative to the data folder.
      id: among those of its image, "" where it is the only one.
    """
    return f"{file}#{id}" if id else file


def _reordered(one: Instance, order: list[int]) -> Instance:
    return Instance(
        file=one.file,
        id=one.id,
        joints=one.joints[order],
        status=one.status[order],
        box=one.box,
        area=one.area,
        crowd=one.crowd,
        confidence=None if one.confidence is None else one.confidence[order],
        score=one.score,
    )


def _examples(found: Poses, kept: list[Instance], folder: str) -> Examples:
    sizes = {image.file: image.size or (0, 0) for image in found.images}
    prefix = f"{folder}/" if folder else ""
    nowhere, joints = np.full(4, np.nan), found.skeleton.num_joints
    boxes = np.array(
        [nowhere if one.box is None else one.box for one in kept], np.float32
    ).reshape(-1, 4)
    areas = np.array([np.nan if one.area is None else one.area for one in kept])
    return Examples(
        Annotations(
            keys=tuple(key_of(prefix + one.file, one.id) for one in kept),
            files=tuple(prefix + one.file for one in kept),
            joints=np.array([one.joints for one in kept], np.float32).reshape(
                -1, joints, 2
            ),
            status=np.array([one.status for one in kept], np.int8).reshape(-1, joints),
            boxes=None if np.isnan(boxes).all() else boxes,
            areas=None if np.isnan(areas).all() else areas.astype(np.float32),
        ),
        np.array([sizes[one.file] for one in kept], np.int64).reshape(-1, 2),
    )
