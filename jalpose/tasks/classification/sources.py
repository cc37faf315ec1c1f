"""Benchmarks by name: which set, and which of its examples play which part."""

import numpy as np

from jalpose.data.dataset import Dataset, join_sources, keep_crops
from jalpose.data.source import DataError
from jalpose.runtime import random_streams
from jalpose.tasks.classification import checks, shapes
from jalpose.tasks.classification.annotations import UNLABELLED, Annotations
from jalpose.tasks.classification.prepared import PreparedClasses, open_source
from jalpose.tasks.classification.shapes import ShapeSource
from jalpose.tasks.classification.shipped import SHIPPED
from jalpose.tasks.findings import act_on

DRAWN = {"shapes": shapes.benchmark}
SOURCES = {**SHIPPED, **DRAWN}


def load_dataset(data, seed: int) -> Dataset:
    """Open the benchmark `data.name`; `data` is the config section of that name.

    The examples labelled at the start are drawn by the seed, and the other training
    examples are the pool; the test set is the same for every seed. Of drawn sets every
    example is of the seed.

    Raises:
      DataError: files are missing or damaged, labels do not fit their images (see
        `checks`), or there are too few examples for the config.
    """
    source: ShapeSource | PreparedClasses
    if data.name in DRAWN:
        (source,), (initial, pool, test) = DRAWN[data.name](data.to_dict(), seed)
    else:
        source, initial, pool, test = _open_shipped(data, seed)
    if data.labelled == "all":
        initial, pool = np.concatenate([initial, pool]), pool[:0]
    dataset = join(source, source.annotations, initial=initial, pool=pool, test=test)
    if data.check != "off":
        act_on(checks.of_dataset(dataset), data.check)
    # Shapes are not kept: they are drawn as fast as read.
    if data.packed and isinstance(source, PreparedClasses):
        return keep_crops(dataset, [source.fingerprint], data.cache_dir, data.size)
    return dataset


def _open_shipped(data, seed: int):
    """A prepared set: its source, and the ids of its three parts."""
    shipped = SHIPPED[data.name](data)
    source = open_source(data.name, shipped, data.dir, data.cache_dir, data.damaged)
    annotations, name = source.annotations, data.name.upper()
    train, test = np.flatnonzero(~annotations.test), np.flatnonzero(annotations.test)
    at_most("data.initial", data.initial, len(train), f"the training part of {name}")
    at_most("data.pool", data.pool, len(train) - data.initial, "what is left of it")
    at_most("data.test", data.test, len(test), f"the test part of {name}")
    draws = np.random.default_rng(random_streams.stream_seed(seed, "initial"))
    order = draws.permutation(train)
    if data.balanced:
        order = in_turn(order, annotations.labels)
    initial, pool = np.split(order, [data.initial])
    pool = np.sort(draws.permutation(pool)[: data.pool or len(pool)])
    rows = np.linspace(0, len(test) - 1, data.test or len(test)).round().astype(int)
    return source, np.sort(initial), pool, test[rows]


def join(
    source, annotations: Annotations, *, initial, pool, test, windows=None
) -> Dataset:
    """A source of classes with its parts, ids of its examples.

    Raises:
      DataError: nothing that is labelled at the start has a class, or see
        `join_sources`.
    """
    if not (annotations.labels[initial] != UNLABELLED).any():
        raise DataError(
            f"none of the {len(initial)} examples labelled at the start has a class: "
            "there is nothing to train on"
        )
    return join_sources(
        [source],
        initial=initial,
        pool=pool,
        test=test,
        truth={"class": annotations.labels},
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


def at_most(key: str, value: int, limit: int, what: str) -> None:
    """Raise DataError where a config asks for more examples than there are."""
    if value > limit:
        raise DataError(f"{key}={value}, but {what} has {limit} examples")
