"""Poses handed out to be labelled in an annotation tool, and read back from its files.

Written, each with the predicted joints as a first guess, moved to the nearest pixel
where they lie outside the image, and the box that says who is meant:

    coco.json                    COCO keypoints, confidences beside them
    label_studio.json            tasks; label_studio_config.xml: the interface to paste
    cvat.xml                     CVAT for images 1.1; cvat_labels.json: labels to paste
    machinelabels.csv            DeepLabCut's, of `labeled-data/<cycle>/`

What comes back is told by its content, see `formats.reading`. In all formats a picture
is known by its name.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.data.source import DataError
from jalpose.tasks.exchange import (
    Request,
    Returned,
    UnreadableError,
    is_image,
    read_rejected,
    text_of,
)
from jalpose.tasks.labels import Truth
from jalpose.tasks.pose import tool_setups
from jalpose.tasks.pose.annotations import skeleton_of, sources_of
from jalpose.tasks.pose.examples import in_order_of
from jalpose.tasks.pose.formats import boxes, coco, cvat, deeplabcut, reading
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE, Skeleton

_SAME = 0.05  # pixels: what formats round is no correction
_OUTSIDE = 0.05  # of an image's sides, that a joint may lie beyond it
_CLOSE = 0.25  # of what is drawn: closer together joints hide one another
_SMALL = 250.0  # pixels a side: in smaller images percentages look like pixels


@dataclasses.dataclass(frozen=True, eq=False)
class PoseExchange:
    """How people are handed out for their joints; see `tasks.exchange.Exchange`.

    Attributes:
      skeleton: of the data set.
      boxes: float32 [N, 4], round people where the data set has them, else NaN.
      peak: height of a sure joint's heatmap; confidences are shares of it.
    """

    skeleton: Skeleton
    boxes: np.ndarray
    peak: float = 1.0
    formats = (reading.FORMATS, "a list that begins with the line `rejected`")
    tools: ClassVar = {
        "CVAT": ("cvat.xml", "cvat_labels.json"),
        "Label Studio": ("label_studio.json", "label_studio_config.xml"),
        "DeepLabCut": ("machinelabels.csv",),
        "others": ("coco.json",),
    }

    @property
    def sites(self) -> tuple[str, ...]:
        """The joints."""
        return self.skeleton.joints

    def box_of(self, example: int) -> np.ndarray | None:
        """The person's box; None where the data set has none."""
        box = self.boxes[example].astype(np.float64)
        return box if np.isfinite(box).all() else None

    def close_up(self, request: Request) -> np.ndarray | None:
        """Window round the predicted joints, where they lie close together."""
        shown = float(max(request.size))
        if request.window is not None and request.window[2] < 0.6 * shown:
            shown = float(request.window[2])
        joints = np.asarray(request.predicted["joints"], np.float64)
        joints = joints[np.isfinite(joints).all(axis=1)]
        if not len(joints):
            return None
        low, high = joints.min(axis=0), joints.max(axis=0)
        reach = float((high - low).max())
        if reach > _CLOSE * shown:
            return None
        return np.array([*((low + high) / 2), max(2 * reach, shown / 10)])

    def write(self, folder: Path, requests: Sequence[Request], images: str) -> None:
        """Write a file a format, with predictions."""
        found = self._predicted(requests)
        text = json.dumps(coco.content_of(found), indent=1, ensure_ascii=False)
        _write(folder / "coco.json", text + "\n")
        about = {
            one.name: {"id": one.id, "key": one.key, "rank": one.rank, "why": one.why}
            for one in requests
        }
        drawn = _without_whole(found)
        tasks = tool_setups.label_studio_tasks(drawn, images, about)
        text = json.dumps(tasks, indent=1, ensure_ascii=False)
        _write(folder / "label_studio.json", text + "\n")
        config = tool_setups.label_studio_config(self.skeleton)
        _write(folder / "label_studio_config.xml", config)
        _write(folder / "cvat.xml", cvat.xml_of(drawn))
        places = np.nanmean([one.joints for one in found.instances], axis=0)
        labels = tool_setups.cvat_labels(self.skeleton, places)
        _write(folder / "cvat_labels.json", labels)
        if images:  # DeepLabCut's images lie in a folder of its own
            _write(folder / "machinelabels.csv", _deeplabcut(found, folder))

    def read(self, path: Path, name: PurePosixPath) -> list[Returned] | None:
        """What a file of any of the formats says; of an image: nothing."""
        del name
        if is_image(path):
            return []
        try:
            return self._read(path)
        except DataError as error:
            raise UnreadableError(str(error)) from error

    def objection(self, request: Request, label: Truth) -> str:
        """Joints outside the image, or mostly outside the crop."""
        known = label["status"] != ABSENT
        joints = label["joints"]
        size = np.array(request.size, np.float64)
        reach = _OUTSIDE * size
        beyond = known & ((joints < -0.5 - reach) | (joints > size - 0.5 + reach)).any(
            axis=1
        )
        if beyond.any():
            joint = int(np.argmax(beyond))
            return (
                f"its {self.skeleton.joints[joint]} is at "
                f"{np.round(joints[joint], 1).tolist()}, outside the image of "
                f"{request.size[0]} x {request.size[1]} pixels"
            )
        if request.window is None:
            return ""
        x, y, side = request.window.astype(np.float64)
        away = np.abs(joints[known] - [x, y]).max(axis=1) > side / 2
        if away.mean() > 0.5:
            return (
                f"{int(away.sum())} of {int(known.sum())} joints lie outside the crop "
                f"round ({x:.0f}, {y:.0f}) of {side:.0f} pixels: is it another person, "
                "another image, or are these percentages?"
            )
        return ""

    def doubt(self, answered: Sequence[tuple[Request, Truth]]) -> str:
        """Places that all look like percentages, or like fractions."""
        if min(min(request.size) for request, _ in answered) < _SMALL:
            return ""
        places = np.concatenate(
            [label["joints"][label["status"] != ABSENT] for _, label in answered]
        )
        if places.max() <= 1:
            what = "fractions of the image"
        elif len(answered) > 2 and places.max() <= 100:
            what = "percentages"
        else:
            return ""
        return (
            f"no place is beyond {places.max():.4g}, in images of at least "
            f"{min(min(request.size) for request, _ in answered)} pixels: these look "
            f"like {what}, not pixels"
        )

    def difference(self, before: Truth, now: Truth) -> str:
        """The joints that are elsewhere, or of another status."""
        moved = np.linalg.norm(
            now["joints"].astype(np.float64) - before["joints"], axis=1
        )
        changed = before["status"] != now["status"]
        other = changed | (moved > _SAME)
        if not other.any():
            return ""
        joint = int(np.argmax(np.where(changed, np.inf, np.nan_to_num(moved))))
        how = (
            "has another status"
            if changed[joint]
            else f"moved by {moved[joint]:.1f} pixels"
        )
        more = int(other.sum()) - 1
        return f"{self.skeleton.joints[joint]} {how}" + (
            f", and {more} more joints" if more else ""
        )

    def _predicted(self, requests: Sequence[Request]) -> Poses:
        instances = []
        for one in requests:
            peaks = one.predicted.get("peaks")
            confidence = None
            if peaks is not None:
                shares = np.asarray(peaks, np.float64) / self.peak
                confidence = np.round(np.clip(shares, 0, 1), 4)
            instances.append(
                Instance(
                    file=one.name,
                    # Beyond the image Label Studio takes no joint.
                    joints=np.clip(
                        one.predicted["joints"].astype(np.float64),
                        0,
                        np.array(one.size) - 1,
                    ),
                    status=np.full(self.skeleton.num_joints, VISIBLE, np.int8),
                    box=np.array(one.box),
                    confidence=confidence,
                    score=None if confidence is None else float(confidence.mean()),
                )
            )
        return Poses(
            skeleton=self.skeleton,
            images=tuple(Image(file=one.name, size=one.size) for one in requests),
            instances=tuple(instances),
        )

    def _read(self, path: Path) -> list[Returned] | None:
        form = reading.format_of(path)
        if form in ("", boxes.NAME):
            return read_rejected(text_of(path))
        found = reading.read(path, skeleton=self.skeleton)
        return self._returned(found, path, tool_setups.rejected(path, form))

    def _returned(
        self, found: Poses, path: Path, rejected: Sequence[str] = ()
    ) -> list[Returned]:
        """What a file says of each picture; of one without a pose that it has none."""
        found = in_order_of(found, self.skeleton, str(path))
        sizes = {image.file: image.size for image in found.images}
        answers, labelled = [], set(rejected)
        counts: dict[str, int] = {}
        for one in found.instances:
            if not one.labelled or one.file in rejected:
                continue
            labelled.add(one.file)
            counts[one.file] = number = counts.get(one.file, 0) + 1
            label: Truth = {
                "joints": one.joints.astype(np.float32),
                "status": one.status.astype(np.int8),
            }
            where = f"pose {number}" + (f" (id {one.id})" if one.id else "")
            answers.append(Returned(one.file, label, where, size=sizes[one.file]))
        return [
            *answers,
            *(Returned(one, None, "rejected", rejected=True) for one in rejected),
            *(
                Returned(image.file, None, "no pose")
                for image in found.images
                if image.file not in labelled
            ),
        ]


def make_exchange(config: ConfigDict, dataset: Dataset) -> PoseExchange:
    """The exchange of a data set of poses."""
    found = [
        np.full((len(source.annotations), 4), np.nan, np.float32)
        if source.annotations.boxes is None
        else source.annotations.boxes
        for source in sources_of(dataset)
    ]
    return PoseExchange(
        skeleton_of(dataset), np.concatenate(found), peak=config.heatmap.peak
    )


def _without_whole(found: Poses) -> Poses:
    """Without boxes of whole images: they tell nothing, and clicks meet them."""
    sizes = {image.file: image.size for image in found.images}

    def whole(one: Instance) -> bool:
        size = sizes[one.file]
        return (
            size is not None
            and one.box is not None
            and bool(
                (one.box[:2] <= -0.5).all()
                and (one.box[2:] >= np.array(size) - 0.5).all()
            )
        )

    return dataclasses.replace(
        found,
        instances=tuple(
            dataclasses.replace(one, box=None) if whole(one) else one
            for one in found.instances
        ),
    )


def _deeplabcut(found: Poses, folder: Path) -> str:
    """Machine labels of a folder `labeled-data/<cycle>` of a project."""
    names = {
        image.file: f"labeled-data/{folder.name}/{image.file}" for image in found.images
    }
    moved = Poses(
        skeleton=found.skeleton,
        images=tuple(
            dataclasses.replace(image, file=names[image.file]) for image in found.images
        ),
        instances=tuple(
            dataclasses.replace(one, file=names[one.file]) for one in found.instances
        ),
    )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(deeplabcut.rows_of(moved))
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
