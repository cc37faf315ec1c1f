"""New images beside the data of a run: the pool of one choice."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.loop.state import CycleState
from jalpose.tasks.inference import Opened


class Joined(NamedTuple):
    """The data of a run with another pool before it.

    Attributes:
      dataset: ids of new examples count from 0, those of the run follow.
      state: of the run, with the ids that its examples have now.
      known: keys of new examples that are labelled or tested on already, or that
        nobody could label: they are not in the pool.
      asked: keys of those that the run has asked for since; likewise.
      copies: keys of those whose image is there before, under another name; likewise.
    """

    dataset: Dataset
    state: CycleState
    known: tuple[str, ...]
    asked: tuple[str, ...]
    copies: tuple[str, ...]


def join(
    opened: Opened, old: Dataset, state: CycleState, since: np.ndarray, size: int
) -> Joined:
    """Lay new images before the data of a run.

    An image of the same bytes as one that is labelled or tested on is known, unless
    both say where in it the example is, and that is elsewhere.

    Args:
      opened: the new images.
      old: the data of the run.
      state: of the run.
      since: ids that the run has asked for after it.
      size: of the crops, pixels.
    """
    new = opened.dataset
    count, windows = len(new.keys), _windows(old, size)
    taken = np.concatenate([state.labelled, state.rejected, old.test])
    known = _known(opened, old, windows, taken)
    asked = ~known & _known(opened, old, windows, since)
    copies = ~known & ~asked & _copies(new)
    assert new.windows is not None
    dataset = dataclasses.replace(
        old,
        sources=(*new.sources, *old.sources),
        initial=old.initial + count,
        pool=np.flatnonzero(~(known | asked | copies)),
        test=old.test + count,
        truth={
            name: np.concatenate([_like(new.truth.get(name), values, count), values])
            for name, values in old.truth.items()
        },
        windows=np.concatenate([new.windows, windows]),
        keys=(*new.keys, *old.keys),
        files=(*new.files, *old.files),
        packed=None,
        groups=None if old.groups is None else (*new.files, *old.groups),
        pool_labelled=False,
    )
    state = dataclasses.replace(
        state, labelled=state.labelled + count, rejected=state.rejected + count
    )
    named = (
        tuple(new.keys[row] for row in np.flatnonzero(rows).tolist())
        for rows in (known, asked, copies)
    )
    return Joined(dataset, state, *named)


def _windows(dataset: Dataset, size: int) -> np.ndarray:
    """Crop windows; of images that are taken whole those are all of them."""
    if dataset.windows is not None:
        return dataset.windows
    whole = np.array([(size - 1) / 2, (size - 1) / 2, size], np.float32)
    return np.tile(whole, (len(dataset.keys), 1))


def _known(opened: Opened, old: Dataset, windows, taken: np.ndarray) -> np.ndarray:
    """Which new examples are among those taken: bool [n]."""
    new, digests = opened.dataset, old.digests
    assert new.windows is not None
    by_digest: dict[str, list[int]] = {}
    for example in taken.tolist():
        if digests[example]:
            by_digest.setdefault(digests[example], []).append(example)
    found = np.zeros(len(new.keys), bool)
    for row, digest in enumerate(new.digests):
        same = by_digest.get(digest, [])
        if same and not opened.whole[row]:
            x, y, side = new.windows[row].astype(np.float64)
            apart = np.abs(windows[same, :2] - [x, y]).max(axis=1)
            found[row] = bool((apart < side / 10).any())
        else:
            found[row] = bool(same)
    return found


def _copies(new: Dataset) -> np.ndarray:
    """Which examples are of a file that is there before by another name: bool [n]."""
    first: dict[str, str] = {}
    return np.array(
        [
            first.setdefault(digest, file) != file
            for digest, file in zip(new.digests, new.files, strict=True)
        ]
    )


def _like(values: np.ndarray | None, others: np.ndarray, count: int) -> np.ndarray:
    """What is known of new examples, of the kind of what is known of the others."""
    if values is not None:
        return values.astype(others.dtype)
    nothing = np.nan if others.dtype.kind == "f" else -1
    return np.full((count, *others.shape[1:]), nothing, others.dtype)
