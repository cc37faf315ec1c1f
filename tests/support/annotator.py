"""Plays the people who label: reads what is handed out, writes what tools export."""

import importlib.util
import json
from pathlib import Path

import numpy as np

from jalpose.tasks.pose.formats.poses import Image, Instance, Poses
from jalpose.tasks.pose.skeletons import LSP


def _script():
    path = Path(__file__).parents[2] / "scripts" / "play_annotator.py"
    about = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


SCRIPT = _script()
TOOLS = SCRIPT.TOOLS  # by name, what gives name and text of a file
as_coco, as_cvat = SCRIPT.as_coco, SCRIPT.as_cvat


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


def bring(workdir, name, text):
    """Put a file into the folder of labels."""
    path = workdir / "labels" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
