"""LSP, real or in miniature, written out as own images: COCO files and a folder.

    images/                  of all, below `lsp ü/`
    train.json, test.json    labelled; boxes round the joints, a tenth wider either way
    labelled.json, pool.json train.json cut in two, as a seed draws

Places are rounded to hundredths of a pixel, as CVAT has them, so that labels are the
same to the bit in every format.
"""

import dataclasses
import json
import os
import shutil

import numpy as np
from PIL import Image as Picture

from jalpose.tasks.pose import lsp
from jalpose.tasks.pose.formats import coco
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses
from jalpose.tasks.pose.skeletons import ABSENT, LSP

IMAGES = "lsp ü"  # folder below images/


def write(root, data_dir, *, train, test, boxes=True):
    """Write train.json, test.json and images.

    Args:
      root: folder to write into.
      data_dir: that holds `lsp/`.
      train: how many of the first half.
      test: how many of the second.
      boxes: whether people have one; else images are taken whole.
    """
    people = lsp.read_lsp_annotations(str(data_dir))
    half = len(people.files) // 2
    parts = {"train": range(train), "test": range(half, half + test)}
    (root / "images" / IMAGES).mkdir(parents=True)
    for name, rows in parts.items():
        images, instances = [], []
        for row in rows:
            file = f"{IMAGES}/{os.path.basename(people.files[row])}"
            source = os.path.join(data_dir, people.files[row])
            shutil.copyfile(source, root / "images" / file)
            with Picture.open(source) as picture:
                images.append(Image(file=file, size=picture.size))
            instances.append(_instance(people, row, file, boxes))
        _write(root / f"{name}.json", images, instances, boxes)


def cut(root, drawn):
    """Cut train.json in two: labelled.json, and pool.json, where no joint is.

    Args:
      root: folder that was written into.
      drawn: dataset of it, simulated: who is labelled at the start.
    """
    content = json.loads((root / "train.json").read_bytes())
    # Positions in the file are ids, as nobody else is before them.
    initial = set(drawn.initial.tolist())
    for name, labelled in (("labelled.json", True), ("pool.json", False)):
        own = [
            one if labelled else _without_joints(one)
            for n, one in enumerate(content["annotations"])
            if (n in initial) == labelled
        ]
        wanted = {one["image_id"] for one in own}
        images = [one for one in content["images"] if one["id"] in wanted]
        found = {**content, "images": images, "annotations": own}
        (root / name).write_text(json.dumps(found))


def _without_joints(one):
    return {**one, "keypoints": [0] * 3 * LSP.num_joints, "num_keypoints": 0}


def _instance(people, row, file, boxes):
    joints = np.round(people.joints[row].astype(float), 2)
    there = people.status[row] != ABSENT
    low, high = joints[there].min(axis=0), joints[there].max(axis=0)
    wider = (high - low) / 10
    return Instance(
        file=file,
        joints=joints,
        status=people.status[row],
        box=np.concatenate([low - wider, high + wider]) if boxes else None,
    )


def _write(path, images, instances, boxes):
    found = Poses(
        skeleton=dataclasses.replace(LSP, name="person"),
        images=tuple(images),
        instances=tuple(instances),
    )
    content = coco.content_of(found)
    if not boxes:
        for one in content["annotations"]:
            del one["bbox"]
    path.write_text(json.dumps(content))
