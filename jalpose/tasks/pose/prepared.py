"""LSP, LSPET and MPII prepared as records, and opened.

Each image is stored once: people of MPII who share an image share its record, and no
option of who is an example changes the records.
"""

import os
from typing import Any

import numpy as np

from jalpose.data.preparation import PreparedSource, Recipe, prepare
from jalpose.data.source import DataError
from jalpose.tasks.pose import lsp, mpii, skeletons
from jalpose.tasks.pose.annotations import Annotations


class PreparedPoses(PreparedSource):
    """Images and labels of a prepared set of one skeleton."""

    annotations: Annotations

    def __init__(self, skeleton: skeletons.Skeleton, **prepared: Any):
        super().__init__(**prepared)
        self.skeleton = skeleton


def open_source(
    name: str, data_dir: str, cache_dir: str, options: mpii.Options | None = None
) -> PreparedPoses:
    """Opens `name` ("lsp", "lspet" or "mpii") in `data_dir`, prepared on first use.

    Args:
      name: of the set.
      data_dir: holds the sets as shipped.
      cache_dir: for the prepared ones.
      options: of MPII; they choose among the examples and change no record.

    Raises:
      DataError: if the data set or the cache folder is not usable; the message
        names the file or folder and what to do.
    """
    known = (*lsp.LAYOUTS, "mpii")
    if name not in known:
        raise DataError(f"Unknown {name=}. Known: {', '.join(known)}.")
    data_dir = os.path.abspath(os.path.expanduser(data_dir))
    if name == "mpii":
        options = options or mpii.Options()
        path = mpii.find_annotation(data_dir, options.annotation)
        everybody = mpii.read_annotations(data_dir, options.annotation)
        recipe = _mpii_recipe(everybody)
        annotations = mpii.choose(everybody, options)
    else:
        path = lsp.find_joints_file(name, data_dir)
        annotations = lsp.read_annotations(name, data_dir)
        recipe = _lsp_recipe(name, annotations)
    return PreparedPoses(
        skeletons.MPII if name == "mpii" else skeletons.LSP,
        recipe=recipe,
        annotations=annotations,
        prepared_dir=prepare(recipe, path, data_dir, cache_dir),
        described_by="the annotation file" if name == "mpii" else "joints.mat",
    )


def _lsp_recipe(name: str, labels: Annotations) -> Recipe:
    num_joints = skeletons.LSP.num_joints
    return Recipe(
        name=name,
        builder="LeedsSportsPose",
        features={
            "joints": ((num_joints, 2), np.float32),
            "status": ((num_joints,), np.int8),
            "key": None,
        },
        where_to_get=lsp.WHERE_TO_GET,
        read=lsp.read_image_file,
        records=[
            {
                "joints": labels.joints[index],
                "status": labels.status[index],
                "index": index,
                "key": labels.keys[index],
                "file": file,
            }
            for index, file in enumerate(labels.files)
        ],
    )


def _mpii_recipe(everybody: Annotations) -> Recipe:
    files = dict.fromkeys(everybody.files)
    return Recipe(
        name="mpii",
        builder="MpiiHumanPose",
        features={},
        where_to_get=mpii.WHERE_TO_GET,
        read=mpii.read_image_file,
        records=[{"index": n, "file": file} for n, file in enumerate(files)],
    )
