"""New images to a trained network of poses.

They are a folder (each image one person, taken whole), an image, or a file that names
images and boxes of people (COCO, a CSV of boxes, or any annotation file that is read:
its labels are not looked at). What is predicted is written by `predictions`.
"""

import json
import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jalpose.data import files
from jalpose.data.dataset import Dataset
from jalpose.data.loose import Looked
from jalpose.data.source import DataError
from jalpose.tasks.inference import (
    Look,
    Opened,
    Outputs,
    Place,
    as_dataset,
    check_there,
)
from jalpose.tasks.pose import checks, own
from jalpose.tasks.pose import examples as made
from jalpose.tasks.pose.annotations import Annotations, skeleton_of
from jalpose.tasks.pose.formats import boxes, coco, poses, reading
from jalpose.tasks.pose.formats.poses import Image, Poses
from jalpose.tasks.pose.labels import PoseLabels
from jalpose.tasks.pose.own_files import images_of
from jalpose.tasks.pose.predictions import LoosePoses, Numbers
from jalpose.tasks.pose.predictions import draw as draw
from jalpose.tasks.pose.predictions import write as write
from jalpose.tasks.pose.skeletons import ABSENT, LSP, MPII, Skeleton

_DRAWN = {"lsp": LSP, "figures": LSP, "mpii": MPII}


# What the network says, by name


def outputs_of(dataset: Dataset) -> Outputs:
    """The skeleton of a data set as JSON has it."""
    return _as_outputs(skeleton_of(dataset))


def find_outputs(config: ConfigDict) -> Outputs:
    """The skeleton of a config's data: known, or read from its annotation files.

    Raises:
      DataError: they are not there.
    """
    name = config.data.name
    return _as_outputs(_DRAWN.get(name) or own.describe(config.data).skeleton)


def _as_outputs(skeleton: Skeleton) -> Outputs:
    return {
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
        "mirror": [list(pair) for pair in skeleton.flip_pairs],
        "links": [list(pair) for pair in skeleton.limbs],
        "torso": [list(pair) for pair in skeleton.torso],
        "left_out": list(skeleton.left_out),
    }


def _skeleton(outputs: Outputs) -> Skeleton:
    def pairs(name: str) -> tuple[tuple[int, int], ...]:
        return tuple((int(one), int(other)) for one, other in outputs[name])

    return Skeleton(
        name=outputs["skeleton"],
        joints=tuple(outputs["joints"]),
        flip_pairs=pairs("mirror"),
        limbs=pairs("links"),
        torso=pairs("torso"),
        left_out=tuple(outputs["left_out"]),
    )


def named(outputs: Outputs) -> Dataset:
    """A data set of a skeleton and nobody."""
    skeleton = _skeleton(outputs)
    nobody = made.unlabelled_examples(_bare([], skeleton), "").annotations
    looked = Looked("", (), np.zeros((0, 2), np.int32), (), {})
    source = LoosePoses(skeleton, nobody, looked)
    return as_dataset(source, _truth(nobody), np.zeros((0, 3), np.float32))


def make_labels(config: ConfigDict, outputs: Outputs) -> PoseLabels:
    """Labels that place and draw predictions."""
    return PoseLabels(skeleton=_skeleton(outputs), size=config.data.size)


def decoding(config: ConfigDict) -> dict[str, Any]:
    """How joints are read off heatmaps."""
    return {
        "output": "heatmaps [batch, stacks, height, width, joints]; the last stack",
        "stride": 4,
        "peak": config.heatmap.peak,
        "refine": config.evaluation.refine,
        "words": "A joint is at the highest pixel of its map, moved by a parabola "
        "through that and its neighbours (refine=parabola). Pixel centres are whole "
        "numbers in both: crop = (map + 0.5) * stride - 0.5. Its confidence is the "
        "height there divided by peak, at most 1.",
        "crop": "square, data.window longer sides of the person's box round its "
        "middle, or the whole image's longer side; black beyond the image; bilinear",
        "window": config.data.window,
    }


# Images


def open_images(
    config: ConfigDict, outputs: Outputs, place: Place, look: Look
) -> Opened:
    """People on new images, see `tasks.inference`.

    Raises:
      DataError: there is none, or a file is damaged or of another skeleton.
    """
    skeleton, path = _skeleton(outputs), check_there(place)
    folder, found, numbers = _found(path, place, skeleton)
    named = tuple(dict.fromkeys(one.file for one in found.instances))
    looked = look(folder, named)
    kept = Poses(
        skeleton=skeleton,
        images=found.images,
        instances=tuple(
            one for one in found.instances if one.file not in looked.damaged
        ),
    )
    told = made.unlabelled_examples(kept, "")
    source = LoosePoses(skeleton, told.annotations, looked)
    if not len(source.annotations):
        raise DataError(
            f"nobody is left on --images={place.images}: of {len(named)} images "
            f"{len(looked.damaged)} are damaged or missing, and the others have no one "
            "in them"
        )
    _check_sizes(source, told.sizes)
    boxed = source.annotations.boxes
    whole = np.ones(len(source.annotations), bool)
    if boxed is not None:
        whole = np.isnan(boxed).any(axis=1)
    windows = own.windows_of(
        source.annotations, whole, source.sizes, "box", config.data.window
    )
    notes = _notes(config, looked, whole, len(found.images) - len(named))
    for finding in (
        *checks.of_boxes("--images", source.annotations, source.sizes),
        *checks.of_windows("--images", source.annotations.keys, windows, source.sizes),
    ):
        if finding.impossible:
            raise DataError(finding.words)
        notes += (finding.words,)
    return Opened(
        dataset=as_dataset(source, _truth(source.annotations), windows),
        folder=folder,
        whole=whole,
        damaged=looked.damaged,
        notes=notes,
        about=numbers,
    )


def _found(path: str, place: Place, skeleton: Skeleton):
    """Folder of the images, who is on them, and ids of a COCO file."""
    if files.is_folder(path):
        return path, _bare(files.images_below(path), skeleton), None
    if path.lower().endswith(files.ENDINGS):
        return os.path.dirname(path), _bare([os.path.basename(path)], skeleton), None
    form = reading.format_of(path)
    found = reading.read(path, skeleton=skeleton)
    found = made.in_order_of(found, skeleton, path)
    if place.folder:
        root = os.path.abspath(os.path.expanduser(place.folder))
        given = "."
    else:
        root, given = os.path.dirname(os.path.dirname(os.path.dirname(path))), ""
    before = [image.file for image in found.images]
    folder, found = images_of(root, path, found, given, "--images_dir")
    numbers = None
    if form == coco.NAME:
        numbers = _numbers(path, before, [image.file for image in found.images])
    return os.path.normpath(os.path.join(root, folder)), found, numbers


def _bare(names: list[str], skeleton: Skeleton) -> Poses:
    return Poses(
        skeleton=skeleton,
        images=tuple(Image(file=file) for file in names),
        instances=tuple(boxes.unlabelled(file, skeleton) for file in names),
    )


def _numbers(path: str, before: list[str], now: list[str]) -> Numbers:
    """Ids of a COCO file that was read: of images as they are called now."""
    with open(path, encoding="utf-8-sig") as stream:
        content = json.load(stream)
    ids = {
        poses.check_file(entry["file_name"]): entry["id"] for entry in content["images"]
    }
    used = {entry["category_id"] for entry in content["annotations"]}
    having = [c for c in content["categories"] if c.get("keypoints")]
    category = (having or content["categories"])[0]["id"]
    if len(having) != 1 and len(used) == 1:
        category = used.pop()
    return Numbers(
        {file: ids[name] for name, file in zip(before, now, strict=True)}, category
    )


def _check_sizes(source: LoosePoses, told: np.ndarray) -> None:
    """Raise DataError where an image has another size than its file says."""
    other = (told > 0).all(axis=1) & (told != source.sizes).any(axis=1)
    if other.any():
        row = int(np.argmax(other))
        (width, height), (ours, high) = told[row].tolist(), source.sizes[row].tolist()
        raise DataError(
            f"{source.annotations.files[row]} has {ours} x {high} pixels, and the file "
            f"that names it says {width} x {height} (of {int(other.sum())} people so): "
            "its boxes are of other images"
        )


def _truth(annotations: Annotations) -> dict[str, np.ndarray]:
    """What is known of new people: boxes, no joints."""
    count = len(annotations)
    numbers = {file: row for row, file in enumerate(dict.fromkeys(annotations.files))}
    nowhere = np.full((count, 4), np.nan, np.float32)
    return {
        "joints": np.full(annotations.joints.shape, np.nan, np.float32),
        "status": np.full(annotations.status.shape, ABSENT, np.int8),
        "box": nowhere if annotations.boxes is None else annotations.boxes,
        "area": np.full(count, np.nan, np.float32),
        "image": np.array([numbers[file] for file in annotations.files], np.int32),
    }


def _notes(
    config: ConfigDict, looked: Looked, whole: np.ndarray, empty: int
) -> tuple[str, ...]:
    found = []
    if empty:
        found.append(f"{empty} images have nobody in them, by the file: left out")
    if whole.any() and config.data.crop != "box":
        found.append(
            f"{int(whole.sum())} images are taken whole, each as one person; the "
            f"network learnt from crops (data.crop={config.data.crop}): name a file "
            "with boxes if people do not fill their images"
        )
    elif whole.any():
        found.append(f"{int(whole.sum())} images are taken whole, each as one person")
    return (*found, *looked.notes)
