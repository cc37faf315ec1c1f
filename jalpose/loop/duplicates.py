"""Choices in which nothing is bought twice: equal images, and near duplicates.

The method chooses as ever; of what it chose, in its order, that is left out which is
equal to a labelled example or to one before it, and the method is asked for more, twice
as many each time, until the budget is filled. A choice that nothing is left out of is
the method's own. Where too few are left, fewer are bought.

Equal are examples of the same image file, byte for byte, and the same crop window; of
images that are no files (drawn figures) nothing is known. Near duplicates are closer in
the embedding than the measure `near_duplicates` says (`evaluation.measures.NEAR`).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from scipy.spatial import distance

from jalpose.acquisition.method import Pool, Selection
from jalpose.data.dataset import Dataset
from jalpose.evaluation.measures import NEAR, pool_distance
from jalpose.scoring.probe import Probe
from jalpose.storage import records

KEEP, ONCE, SKIP = "keep", "once", "skip"
WAYS = (KEEP, ONCE, SKIP)  # values of `acquisition.duplicates`


class _Apart(NamedTuple):
    """Examples of a choice that stay, and how many are left out of it.

    Attributes:
      kept: int64, in the order of the choice.
      equal: left out, equal to a labelled one or one before it.
      near: left out, near to such a one.
    """

    kept: np.ndarray
    equal: int
    near: int


def acquire(
    method, key, probe: Probe, pool: Pool, budget: int, dataset: Dataset, way: str
) -> Selection:
    """What `method` chooses, nothing twice.

    Args:
      method: as `Method`.
      key: of the acquisition.
      probe: of the trained network.
      pool: to choose from.
      budget: how many to choose, at most.
      dataset: of the examples.
      way: keep (what the method chooses, equal ones too) | once (equal images once) |
        skip (near duplicates neither).

    Returns:
      The selection; its summary has `equal_chosen`, how many of those chosen are equal
      to a labelled one or one before it, and `equal_skipped` and `near_skipped`, those
      left out.
    """
    find: Callable | None = None
    names: dict[int, bytes] | None = None
    if way == SKIP:
        find = functools.partial(_near, *_places(probe, pool))
    count = budget
    while True:
        found = method.acquire(key, probe, pool, count)
        names = names_of(dataset) if names is None else names
        apart = _apart(found.indices, pool.labelled.ids, names, find)
        more = len(found.indices) == count < len(pool.unlabelled)
        if way == KEEP or len(apart.kept) >= budget or not more:
            break
        count = min(2 * count, len(pool.unlabelled))
    told = {
        "equal_chosen": apart.equal if way == KEEP else 0,
        "equal_skipped": 0 if way == KEEP else apart.equal,
        "near_skipped": apart.near,
    }
    chosen = found.indices if way == KEEP else apart.kept[:budget]
    summary = {**found.summary, **told}
    return found._replace(indices=chosen, summary=summary)


def names_of(dataset: Dataset) -> dict[int, bytes]:
    """A name of the image that an example is of, equal for equal ones, by example id.

    Of examples whose image is known alone.
    """
    windows = dataset.windows
    return {
        example: digest.encode()
        + (b"" if windows is None else windows[example].tobytes())
        for example, digest in enumerate(dataset.digests)
        if digest
    }


def repeated(dataset: Dataset) -> bool:
    """Does the pool hold equal images, or one that equals a labelled one?"""
    names = names_of(dataset)
    known = [names[i] for i in (*dataset.initial, *dataset.pool) if i in names]
    initial = {names[i] for i in dataset.initial if i in names}
    others = len(known) - sum(1 for i in dataset.initial if i in names)
    return len(set(known) - initial) < others


def refuse_older(config: ConfigDict, dataset: Dataset, workdir) -> None:
    """Raise WorkdirError where a run was begun before equal images were left out.

    Of data without any it makes no difference.
    """
    record = records.read_config(workdir) or {"config": {"acquisition": {}}}
    older = "duplicates" not in record["config"]["acquisition"]
    if older and config.acquisition.duplicates != KEEP and repeated(dataset):
        raise records.WorkdirError(
            f"the run in {workdir} was begun when equal images could be chosen twice, "
            "and its pool holds some: set acquisition.duplicates=keep to go on so"
        )


def _apart(chosen, labelled, names, near) -> _Apart:
    there = {names[i] for i in labelled.tolist() if i in names}
    kept: list[int] = []
    equal = close = 0
    for example in chosen.tolist():
        name = names.get(example)
        if name is not None and name in there:
            equal += 1
        elif near is not None and near(example, kept):
            close += 1
        else:
            kept.append(example)
            if name is not None:
                there.add(name)
    return _Apart(np.array(kept, np.int64), equal, close)


def _places(probe: Probe, pool: Pool):
    """Embeddings and rows of the unlabelled, of the labelled, and what is near."""
    unlabelled = np.asarray(probe.embeddings(pool.unlabelled), np.float64)
    labelled = np.asarray(probe.embeddings(pool.labelled.ids), np.float64)
    rows = {int(example): row for row, example in enumerate(pool.unlabelled)}
    return unlabelled, rows, labelled, NEAR * pool_distance(unlabelled)


def _near(unlabelled, rows, labelled, limit: float, example: int, kept) -> bool:
    place = unlabelled[rows[example]][None]
    others = unlabelled[[rows[i] for i in kept]] if kept else labelled[:0]
    return any(
        len(side) and distance.cdist(place, side).min() < limit
        for side in (labelled, others)
    )
