"""Benchmarks by name: which set, and which of its examples play which part."""

from collections.abc import Collection

import numpy as np

from jalpose.data.dataset import Dataset, join_sources, keep_crops
from jalpose.data.source import DataError
from jalpose.runtime.seeds import stream_seed
from jalpose.settings.checks import one_of
from jalpose.tasks.classification import checks, shapes
from jalpose.tasks.classification.annotations import UNLABELLED, Annotations
from jalpose.tasks.classification.prepared import PreparedClasses, open_source
from jalpose.tasks.classification.shapes import ShapeSource
from jalpose.tasks.classification.shipped import SHIPPED, middle_windows
from jalpose.tasks.findings import act_on

DRAWN = {"shapes": shapes.benchmark}
SOURCES = {**SHIPPED, **DRAWN}


def load_dataset(data, seed: int) -> Dataset:
    """Open the benchmark `data.name`; `data` is the config section of that name.

    The examples labelled at the start are drawn by the seed, and the other training
    examples are the pool; the test set is the same for every seed. Of drawn sets every
    example is of the seed.

    Raises:
      DataError: files are missing or damaged, `data.size` does not fit the images,
        there are too few examples for the config, or something is unlikely where
        `data.check` is strict (see `checks`).
      ConfigError: `data.rare_classes` names a class that is not there.
    """
    source: PreparedClasses | ShapeSource
    windows = None
    if data.name in DRAWN:
        (source,), (initial, pool, test) = DRAWN[data.name](data.to_dict(), seed)
    else:
        source, windows = _open_shipped(data)
        initial, pool, test = _parts(data, source.annotations, seed)
    if data.labelled == "all":
        initial, pool = np.concatenate([initial, pool]), pool[:0]
    dataset = join(source, initial=initial, pool=pool, test=test, windows=windows)
    if data.check != "off":
        act_on(checks.of_dataset(dataset), data.check)
    # Shapes are not kept: they are drawn as fast as read.
    if data.packed and isinstance(source, PreparedClasses):
        return keep_crops(dataset, [source.fingerprint], data.cache_dir, data.size)
    return dataset


def readable(data) -> tuple[Dataset | None, list[DataError]]:
    """What can be opened of a benchmark that `load_dataset` refuses.

    Args:
      data: as of `load_dataset`.

    Returns:
      The set with examples that play no part, None if it cannot be opened; and why it
      cannot.
    """
    if data.name in DRAWN:
        return None, []
    try:
        source, windows = _open_shipped(data)
    except DataError as error:
        return None, [error]
    nobody = np.empty(0, np.int64)
    annotations = source.annotations
    found = Dataset(
        sources=(source,),
        initial=nobody,
        pool=nobody,
        test=nobody,
        truth={"class": annotations.labels},
        windows=windows,
        keys=annotations.keys,
        files=annotations.files,
    )
    return found, []


def _open_shipped(data) -> tuple[PreparedClasses, np.ndarray | None]:
    """A set of files, and its crop windows; None: images are taken whole."""
    shipped, name = SHIPPED[data.name](data), data.name.upper()
    if shipped.side not in (None, data.size):
        raise DataError(
            f"data.size={data.size}, but the images of {name} have {shipped.side} x "
            f"{shipped.side} pixels and are taken whole: set data.size={shipped.side}"
        )
    source = open_source(data.name, shipped, data.dir, data.cache_dir, data.damaged)
    if shipped.side:
        return source, None
    return source, middle_windows(source.sizes, data.window)


def _parts(data, annotations: Annotations, seed: int):
    """Who is labelled at the start, in the pool and tested on: ids."""
    name = data.name.upper()
    draws = np.random.default_rng(stream_seed(seed, "initial"))
    # The order decides everything: the same seed draws the same, whatever the numbers.
    order = draws.permutation(np.flatnonzero(~annotations.test))
    what = f"the training part of {name}"
    if data.rare_classes:
        order = _thinned(order, annotations, data.rare_classes, data.rare_share)
        what += " with rare classes"
    test = np.flatnonzero(annotations.test)
    _at_most("data.initial", data.initial, len(order), what)
    _at_most("data.pool", data.pool, len(order) - data.initial, "what is left of it")
    _at_most("data.test", data.test, len(test), f"the test part of {name}")
    first = in_turn(order, annotations.labels) if data.balanced else order
    initial = first[: data.initial]
    pool = order[~np.isin(order, initial)]
    pool = pool[: data.pool or len(pool)]
    rows = np.linspace(0, len(test) - 1, data.test or len(test)).round().astype(int)
    return np.sort(initial), np.sort(pool), test[rows]


def join(
    source: PreparedClasses | ShapeSource,
    *,
    initial,
    pool,
    test,
    windows: np.ndarray | None,
) -> Dataset:
    """A source of classes with its parts, ids of its examples.

    Raises:
      DataError: nothing that is labelled at the start has a class; see also
        `join_sources`.
    """
    labels = source.annotations.labels
    if not (labels[initial] != UNLABELLED).any():
        raise DataError(
            f"none of the {len(initial)} examples labelled at the start has a class: "
            "there is nothing to train on"
        )
    return join_sources(
        [source],
        initial=initial,
        pool=pool,
        test=test,
        truth={"class": labels},
        windows=windows,
    )


def in_turn(order: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Examples in an order that takes one of each class in turn while there are any.

    Args:
      order: int64 [n], ids, those of a class in the order they are taken in.
      labels: int32 [N], of all ids.
    """
    rank = np.empty(len(order), np.int64)
    taken: dict[int, int] = {}
    for place, label in enumerate(labels[order].tolist()):
        rank[place] = taken.setdefault(label, 0)
        taken[label] += 1
    return order[np.argsort(rank, kind="stable")]


def _thinned(
    order: np.ndarray, annotations: Annotations, rare: Collection[str], share: float
) -> np.ndarray:
    """The order without most of the examples of rare classes: the first ones stay."""
    kept = np.ones(len(order), bool)
    for one in rare:
        one_of("data.rare_classes", one, annotations.classes)
        label = annotations.classes.index(one)
        places = np.flatnonzero(annotations.labels[order] == label)
        kept[places[max(1, round(share * len(places))) :]] = False
    return order[kept]


def _at_most(key: str, value: int, limit: int, what: str) -> None:
    if value > limit:
        raise DataError(f"{key}={value}, but {what} has {limit} examples")
