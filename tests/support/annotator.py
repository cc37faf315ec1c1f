"""Plays the people who label: reads what is handed out, writes what tools export."""

import csv
import dataclasses
import io
import json

import numpy as np

from jalpose.tasks.pose.formats import coco, cvat, deeplabcut, label_studio
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses
from jalpose.tasks.pose.skeletons import LSP


def handed_out(workdir, cycle):
    """The entries of what is to be labelled in a cycle."""
    path = workdir / "to_label" / f"cycle_{cycle:02d}" / "requests.json"
    return json.loads(path.read_bytes())["requests"]


def labelled(entries, truth, changes=None):
    """What an annotator who knows the truth has labelled.

    Args:
      entries: of `handed_out`.
      truth: of the data set.
      changes: by id, joints [J, 2] that are said instead.
    """
    return Poses(
        skeleton=LSP,
        images=tuple(
            Image(file=one["name"], size=tuple(one["size"])) for one in entries
        ),
        instances=tuple(
            Instance(
                file=one["name"],
                joints=np.array(
                    (changes or {}).get(one["id"], truth["joints"][one["id"]]), float
                ),
                status=truth["status"][one["id"]],
            )
            for one in entries
        ),
    )


def as_coco(found):
    return "coco.json", json.dumps(coco.content_of(found))


def as_cvat(found):
    return "annotations.xml", cvat.xml_of(found)


def as_deeplabcut(found):
    def moved(file):
        return f"labeled-data/frames/{file}"

    found = Poses(
        skeleton=found.skeleton,
        images=tuple(
            dataclasses.replace(one, file=moved(one.file)) for one in found.images
        ),
        instances=tuple(
            dataclasses.replace(one, file=moved(one.file)) for one in found.instances
        ),
    )
    text = io.StringIO()
    csv.writer(text).writerows(deeplabcut.rows_of(found, scorer="somebody"))
    return "CollectedData_somebody.csv", text.getvalue()


def as_label_studio(found):
    tasks = label_studio.content_of(found, lambda file: f"/data/upload/3/{file}")
    for number, task in enumerate(tasks):
        result = task.pop("predictions")[0]["result"]
        task["id"] = number
        task["annotations"] = [{"id": 900 + number, "result": result}]
    return "project-1.json", json.dumps(tasks)


FORMATS = {
    "COCO": as_coco,
    "CVAT": as_cvat,
    "DeepLabCut": as_deeplabcut,
    "Label Studio": as_label_studio,
}


def bring(workdir, name, text):
    """Put a file into the folder of labels."""
    path = workdir / "labels" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
