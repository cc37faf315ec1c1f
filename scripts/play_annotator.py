"""Plays the people who label: answers a run's last request from a file of labels.

    python scripts/play_annotator.py runs/mouse --labels=known.csv --tool=cvat

For rehearsals of what is in jalpose/oracles/README.md, with images whose labels are
known: of what lies in `<workdir>/to_label/`, last cycle, the labels are looked up in an
annotation file of any format that is read, and put into `<workdir>/labels/` as a tool
exports them: coco, cvat, deeplabcut or label_studio. The run itself has not seen them.
"""

import argparse
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import coco, cvat, deeplabcut, label_studio, reading
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the labels of the cycle that waits."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--tool", default="coco", choices=TOOLS)
    given = parser.parse_args(arguments)
    cycles = sorted((given.workdir / "to_label").glob("cycle_*/requests.json"))
    if not cycles:
        sys.exit(f"nothing is to be labelled in {given.workdir}")
    requests = json.loads(cycles[-1].read_bytes())["requests"]
    try:
        found = answers(requests, reading.read(given.labels))
    except DataError as error:
        sys.exit(f"error: {error}")
    name, text = TOOLS[given.tool](found)
    path = given.workdir / "labels" / cycles[-1].parent.name / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    print(f"{len(found.instances)} labels in {path}")


def answers(requests: Sequence[dict], known: Poses) -> Poses:
    """Labels of requests, under the names of the pictures that were handed out.

    Args:
      requests: entries of a `requests.json`.
      known: labels of at least these.

    Raises:
      DataError: one is not known, or several are.
    """
    by_file: dict[str, list[Instance]] = {}
    for one in known.instances:
        by_file.setdefault(one.file, []).append(one)
    found = [
        dataclasses.replace(
            _known(request, by_file),
            file=request["name"],
            id="",
            box=None,
        )
        for request in requests
    ]
    images = [
        Image(file=request["name"], size=tuple(request["size"])) for request in requests
    ]
    return Poses(skeleton=known.skeleton, images=tuple(images), instances=tuple(found))


def _known(request: dict, by_file: dict[str, list[Instance]]) -> Instance:
    """Who a request is of; files may be named from another folder."""
    file = request["file"]
    while file not in by_file and "/" in file:
        file = file.partition("/")[2]
    id = request["key"].removeprefix(request["file"]).lstrip("#")
    found = [one for one in by_file.get(file, ()) if id in ("", one.id)]
    if len(found) != 1:
        raise DataError(f"of {request['key']} {len(found)} labels are known, not one")
    return found[0]


def as_coco(found: Poses) -> tuple[str, str]:
    """Name and text of a COCO file."""
    return "coco.json", json.dumps(coco.content_of(found))


def as_cvat(found: Poses) -> tuple[str, str]:
    """Name and text of an export "CVAT for images 1.1"."""
    return "annotations.xml", cvat.xml_of(found)


def as_deeplabcut(found: Poses) -> tuple[str, str]:
    """Name and text of the table of a labelled folder."""

    def moved(one):
        return dataclasses.replace(one, file=f"labeled-data/frames/{one.file}")

    found = Poses(
        skeleton=found.skeleton,
        images=tuple(moved(one) for one in found.images),
        instances=tuple(moved(one) for one in found.instances),
    )
    text = io.StringIO()
    csv.writer(text).writerows(deeplabcut.rows_of(found, scorer="somebody"))
    return "CollectedData_somebody.csv", text.getvalue()


def as_label_studio(found: Poses) -> tuple[str, str]:
    """Name and text of an export "JSON"."""
    tasks = label_studio.content_of(found, lambda file: f"/data/upload/3/{file}")
    for number, task in enumerate(tasks):
        regions = task.pop("predictions")[0]["result"] if "predictions" in task else []
        task["id"] = number
        task["annotations"] = [{"id": 900 + number, "result": regions}]
    return "project-1.json", json.dumps(tasks)


TOOLS = {
    "coco": as_coco,
    "cvat": as_cvat,
    "deeplabcut": as_deeplabcut,
    "label_studio": as_label_studio,
}


if __name__ == "__main__":
    main()
