"""Sets of classes prepared as records, and opened."""

import os

import numpy as np

from jalpose.data.preparation import Recipe, prepare
from jalpose.data.prepared import Prepared, PreparedSource
from jalpose.data.source import DataError
from jalpose.tasks.classification.annotations import Annotations, Shipped


class PreparedClasses(PreparedSource):
    """Images and labels of a prepared set.

    Args:
      name: of the set.
      described: all that is shipped; examples whose image was left out go.
      prepared: its records.
    """

    annotations: Annotations

    def __init__(self, *, name: str, described: Annotations, prepared: Prepared):
        there = set(prepared.files)
        kept = np.array([file in there for file in described.files], bool)
        if not kept.any():
            raise DataError(
                f"no example of {name.upper()} has an image left: all {len(described)} "
                "are damaged (data.damaged=leave_out)"
            )
        super().__init__(
            name=name,
            annotations=described if kept.all() else described.at(np.flatnonzero(kept)),
            prepared=prepared,
        )


def open_source(
    name: str, shipped: Shipped, data_dir: str, cache_dir: str, damaged: str = "refuse"
) -> PreparedClasses:
    """Opens a set that was found in `data_dir`, prepared on first use.

    Args:
      name: of the set.
      shipped: what it holds.
      data_dir: holds the set as shipped.
      cache_dir: for the prepared one.
      damaged: see `preparation.DAMAGED`.

    Raises:
      DataError: images are damaged, or the cache folder is not usable.
    """
    annotations = shipped.annotations
    recipe = Recipe(name, annotations.files, shipped.read, shipped.containers)
    data_dir = os.path.abspath(os.path.expanduser(data_dir))
    return PreparedClasses(
        name=name,
        described=annotations,
        prepared=prepare(recipe, None, data_dir, cache_dir, damaged),
    )
