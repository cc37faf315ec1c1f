"""What a data set holds, whatever its task: sets, parts, images and their sizes."""

from typing import NamedTuple

import numpy as np

from jalpose.data.dataset import Dataset

PARTS = {"initial": "labelled", "pool": "pool", "test": "test"}  # of a `Dataset`
REST = "in no part"
MEASURED = 24  # images of a group that are read where sizes are not kept


class Group(NamedTuple):
    """Examples of one set that play one part.

    Attributes:
      set: name of the source.
      part: of `PARTS`, or `REST`.
      ids: int64, rising.
    """

    set: str
    part: str
    ids: np.ndarray

    @property
    def title(self) -> str:
        """Set and part."""
        return f"{self.set} {self.part}"


def groups(dataset: Dataset) -> list[Group]:
    """All examples by set and part; groups of nobody are not there."""
    found, start = [], 0
    used = {word: getattr(dataset, part) for part, word in PARTS.items()}
    used[REST] = np.setdiff1d(
        np.arange(len(dataset.keys)), np.concatenate(list(used.values()))
    )
    for source, name in zip(dataset.sources, names(dataset), strict=True):
        end = start + len(source.annotations)
        for part, ids in used.items():
            own = np.sort(ids[(ids >= start) & (ids < end)])
            if len(own):
                found.append(Group(name, part, own.astype(np.int64)))
        start = end
    return found


def names(dataset: Dataset) -> list[str]:
    """Of each source what it calls itself, else what its examples' keys begin with."""
    return [
        str(getattr(s, "name", s.annotations.keys[0].partition("/")[0]))
        for s in dataset.sources
    ]


def spaced(ids: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, evenly spaced."""
    rows = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return ids[rows]


def sizes(dataset: Dataset) -> np.ndarray:
    """Width and height of each example's image: float64 [N, 2], NaN if not known.

    Where a source does not keep them, some images of each group are read.
    """
    parts = [
        getattr(s, "sizes", np.full((len(s.annotations), 2), np.nan))
        for s in dataset.sources
    ]
    found = np.concatenate(parts).astype(np.float64)
    for group in groups(dataset):
        if np.isnan(found[group.ids]).all():
            for example in spaced(group.ids, MEASURED).tolist():
                found[example] = dataset.image(example).shape[1::-1]
    return found


def beyond(windows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which crop windows reach beyond their images, of known sizes: bool [N]."""
    low = windows[:, :2].astype(np.float64) + 0.5 - windows[:, 2:] / 2
    high = low + windows[:, 2:]
    with np.errstate(invalid="ignore"):
        out = ((low < -0.5) | (high > sizes + 0.5)).any(axis=1)
    return out & np.isfinite(sizes).all(axis=1)
