"""Poses that a trained network predicts on new images, as files and drawn.

    results.json       COCO's results: [{image_id, category_id, keypoints, score}]
    coco.json          the images those ids are of, with the predictions as annotations
    predictions.csv    a line a person: file, id, box, score, then of each joint x, y
                       and confidence

Of a COCO file `image_id` and `category_id` are those of the file, so that pycocotools
scores `results.json` against it. A joint's confidence is the height of its peak as a
share of a perfect one's, at most 1; a person's score the mean over the joints.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from ml_collections import ConfigDict
from PIL import Image as Picture

from jalpose.data.loose import Looked, LooseImages
from jalpose.tasks.exchange import write_table
from jalpose.tasks.inference import Opened
from jalpose.tasks.labels import Predicted
from jalpose.tasks.pose import drawings
from jalpose.tasks.pose.annotations import Annotations, skeleton_of
from jalpose.tasks.pose.formats import coco
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses
from jalpose.tasks.pose.skeletons import VISIBLE, Skeleton

_THINNEST = 0.3  # lines of a small person, of those of one who fills the image
_LARGEST = 960  # pixels of a drawn picture's longer side


class LoosePoses(LooseImages):
    """New images with people whose joints nobody knows."""

    skeleton: Skeleton
    annotations: Annotations

    def __init__(self, skeleton: Skeleton, annotations: Annotations, looked: Looked):
        super().__init__("new images", annotations, looked)
        self.skeleton = skeleton


def _source(opened: Opened) -> LoosePoses:
    return cast(LoosePoses, opened.dataset.sources[0])


class Numbers(NamedTuple):
    """Ids of a COCO file that images came from.

    Attributes:
      images: file -> its id.
      category: of the people.
    """

    images: Mapping[str, Any]
    category: Any


def write(
    folder: Path, config: ConfigDict, opened: Opened, predicted: Predicted
) -> None:
    """Write `results.json`, `coco.json` and `predictions.csv`."""
    found = _poses(config, opened, predicted)
    sizes = dict(
        zip(
            opened.dataset.files,
            [tuple(size) for size in _source(opened).sizes.tolist()],
            strict=True,
        )
    )
    content = coco.content_of(found, sizes)
    _renumber(content, opened.about)
    results = [
        {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "keypoints": entry["keypoints"],
            "score": entry["score"],
        }
        for entry in content["annotations"]
    ]
    _write_json(folder / "results.json", results)
    _write_json(folder / "coco.json", content)
    columns = ["file", "id", "x0", "y0", "x1", "y1", "score"]
    for joint in found.skeleton.joints:
        columns += [f"{joint} x", f"{joint} y", f"{joint} confidence"]
    rows = []
    for one in found.instances:
        assert one.confidence is not None and one.box is not None
        row = [one.file, one.id, *(f"{v:.1f}" for v in one.box), f"{one.score:.4f}"]
        for (x, y), share in zip(one.joints, one.confidence, strict=True):
            row += [f"{x:.2f}", f"{y:.2f}", f"{share:.4f}"]
        rows.append(row)
    write_table(folder / "predictions.csv", columns, rows)


def draw(
    config: ConfigDict, opened: Opened, predicted: Predicted, most: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Everybody on each of the first images: (file name, picture), one by one."""
    del config
    data = opened.dataset
    assert data.windows is not None
    skeleton = skeleton_of(data)
    rows: dict[str, list[int]] = {}
    for row, file in enumerate(data.files):
        rows.setdefault(file, []).append(row)
    for number, (file, own_rows) in enumerate(rows.items()):
        if number == most:
            break
        image, scale = _fitting(data.image(own_rows[0]))
        for row in own_rows:
            joints = (predicted["joints"][row].astype(np.float64) + 0.5) * scale - 0.5
            share = scale * float(data.windows[row, 2]) / max(image.shape[:2])
            style = drawings.scaled(drawings.PREDICTED, min(1.0, max(_THINNEST, share)))
            image = drawings.draw_pose(image, joints, None, skeleton, style=style)
        yield file, image


def _fitting(image: np.ndarray) -> tuple[np.ndarray, float]:
    scale = min(1.0, _LARGEST / max(image.shape[:2]))
    if scale == 1:
        return image, 1.0
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return np.asarray(Picture.fromarray(image).resize(size)), scale


def _poses(config: ConfigDict, opened: Opened, predicted: Predicted) -> Poses:
    data = opened.dataset
    shares = np.clip(np.asarray(predicted["peaks"]) / config.heatmap.peak, 0, 1)
    instances = []
    for row, (key, file) in enumerate(zip(data.keys, data.files, strict=True)):
        box = data.truth["box"][row].astype(np.float64)
        if np.isnan(box).any():
            width, height = _source(opened).sizes[row].tolist()
            box = np.array([-0.5, -0.5, width - 0.5, height - 0.5])
        confidence = np.round(shares[row].astype(np.float64), 4)
        instances.append(
            Instance(
                file=file,
                id=key.removeprefix(file).removeprefix("#"),
                joints=np.round(predicted["joints"][row].astype(np.float64), 2),
                status=np.full(predicted["joints"].shape[1], VISIBLE, np.int8),
                box=box,
                confidence=confidence,
                score=round(float(confidence.mean()), 6),
            )
        )
    named = dict.fromkeys(data.files)
    return Poses(
        skeleton=skeleton_of(data),
        images=tuple(Image(file=file) for file in named),
        instances=tuple(instances),
    )


def _renumber(content: dict[str, list], numbers: Numbers | None) -> None:
    """Give images and category the ids that they have in the COCO file they are of."""
    if numbers is None:
        return
    ids = {one["id"]: numbers.images[one["file_name"]] for one in content["images"]}
    for image in content["images"]:
        image["id"] = ids[image["id"]]
    for category in content["categories"]:
        category["id"] = numbers.category
    for entry in content["annotations"]:
        entry["image_id"] = ids[entry["image_id"]]
        entry["category_id"] = numbers.category


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="")
