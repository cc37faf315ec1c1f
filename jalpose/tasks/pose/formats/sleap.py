"""SLEAP's label files (`.slp`), read by sleap-io: the extra `sleap`.

Read are labelled instances, not predicted ones, of frames that are image files: of a
video only its frames' numbers are there, and frames are to be exported first. Nodes
that are not visible in SLEAP have no place there, and are absent here.
"""

import os
from typing import Any

import numpy as np

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import poses
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, words
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE

NAME = "SLEAP"


def read(path: str | os.PathLike) -> Poses:
    """The labelled instances of the frames, in file order.

    The id of one is its number among those of its image; "" where there is one.

    Raises:
      DataError: sleap-io is not installed, or the file is missing, damaged, has several
        skeletons, frames of a video, or a point that can be nowhere.
    """
    path = os.fspath(path)
    try:
        import sleap_io
    except ImportError as error:
        raise DataError(
            f"{path!r} is SLEAP's, which needs sleap-io: pip install 'jalpose[sleap]'"
        ) from error
    try:
        found: Any = sleap_io.load_slp(path, open_videos=False)
    except Exception as error:  # of h5py and its own, many kinds
        raise DataError(f"Cannot read {path!r} as SLEAP's: {error}") from error
    if len(found.skeletons) != 1:
        raise DataError(f"{path!r} has {len(found.skeletons)} skeletons, not one")
    own = found.skeletons[0]
    names = tuple(own.node_names)
    try:
        skeleton = poses.skeleton_named(
            "animal", names, tuple((int(a), int(b)) for a, b in own.edge_inds)
        )
    except ValueError as error:
        raise DataError(f"{path!r} is not as SLEAP has it: {error}") from error
    images: dict[str, Image] = {}
    instances = []
    for position, frame in enumerate(found.labeled_frames):
        try:
            file = _file(frame)
            images[file] = Image(file=file)
            instances += _animals(frame, file, skeleton)
        except ValueError as error:
            raise DataError(
                f"Frame {position} of {path!r} is not as SLEAP has them: {words(error)}"
            ) from error
    return Poses(
        skeleton=skeleton, images=tuple(images.values()), instances=tuple(instances)
    )


def _file(frame: Any) -> str:
    files = frame.video.filename
    if isinstance(files, str):
        raise ValueError(
            f"it is of the video {files!r}: export its frames as images, and label "
            "those"
        )
    # Paths are those of the machine it was labelled on: what they share is left out.
    common = os.path.commonpath(files) if len(files) > 1 else os.path.dirname(files[0])
    file = os.path.relpath(files[frame.frame_idx], common) if common else files[0]
    return poses.check_file(file)


def _animals(frame: Any, file: str, skeleton) -> list[Instance]:
    labelled = frame.user_instances
    found = []
    for number, one in enumerate(labelled, start=1):
        joints = np.asarray(one.numpy(), float)[:, :2].copy()
        status = np.where(np.isnan(joints).any(axis=1), ABSENT, VISIBLE).astype(np.int8)
        joints[status == ABSENT] = np.nan
        poses.check_joints(joints, status, skeleton.joints)
        name = "" if len(labelled) == 1 else str(number)
        found.append(Instance(file=file, id=name, joints=joints, status=status))
    return found
