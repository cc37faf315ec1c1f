"""Benchmarks by name: which sources, and which of their examples play which part."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jalpose.data.dataset import Dataset, join_sources, keep_crops
from jalpose.data.packed import CropsInMemory
from jalpose.data.source import DataError
from jalpose.runtime.seeds import stream_seed
from jalpose.tasks import findings
from jalpose.tasks.pose import checks
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT
from jalpose.tasks.pose.windows import crop_windows

_logger = logging.getLogger(__name__)


def _figures(data, seed: int):
    from jalpose.tasks.pose import figures

    sources, parts = figures.benchmark(data.to_dict(), seed)
    return sources, *parts


def _files_of(data) -> dict[str, Callable[[], Any]]:
    """What opens each set of files of a benchmark (`PreparedPoses`), by its name."""
    from jalpose.tasks.pose import mpii
    from jalpose.tasks.pose.prepared import open_source

    options = None
    if data.name == "mpii":
        options = mpii.Options(
            annotation=data.mpii.annotation,
            all_joints=data.mpii.all_joints,
            head_shift=data.mpii.head_shift,
            placed=data.crop != "joints",
        )

    def opener(name):
        return lambda: open_source(
            name, data.dir, data.cache_dir, options, _damaged(data)
        )

    sets = {"lsp": ("lsp", "lspet"), "mpii": ("mpii",)}.get(data.name, ())
    return {name: opener(name) for name in sets}


def _lsp(data, seed: int):
    del seed  # the authors' split is the same for every seed
    lsp, lspet = (open_set() for open_set in _files_of(data).values())
    # Halves of what is described: whoever is left out, nobody changes sides.
    first = int((lsp.numbers < lsp.described // 2).sum())
    num_lsp, num_lspet = len(lsp.annotations), len(lspet.annotations)
    _at_most("data.initial", data.initial, first, "the first half of LSP")
    _at_most("data.test", data.test, num_lsp - first, "the second half of LSP")
    _at_most("data.pool", data.pool, num_lspet, "LSPET")
    initial = np.arange(data.initial)
    test = first + np.arange(data.test or num_lsp - first)
    pool = num_lsp + np.arange(data.pool or num_lspet)
    return (lsp, lspet), initial, pool, test


def _mpii(data, seed: int):
    from jalpose.runtime import random_streams
    from jalpose.tasks.pose import mpii

    source = _files_of(data)["mpii"]()
    validation = mpii.in_validation(
        source.annotations, data.dir, source.images, partly=_check(data) == "off"
    )
    train, test = np.flatnonzero(~validation), np.flatnonzero(validation)
    what = "the part of MPII outside Newell's validation images"
    _at_most("data.initial", data.initial, len(train), what)
    _at_most("data.pool", data.pool, len(train) - data.initial, "what is left of it")
    _at_most("data.test", data.test, len(test), "Newell's validation set")
    # As the papers: labelled at random at the start. A smaller pool is random too; a
    # smaller test set is the same for every seed.
    draws = np.random.default_rng(random_streams.stream_seed(seed, "initial"))
    initial, pool = np.split(draws.permutation(train), [data.initial])
    pool = pool[: data.pool or len(pool)]
    rows = np.linspace(0, len(test) - 1, data.test or len(test)).round().astype(int)
    return (source,), np.sort(initial), np.sort(pool), test[rows]


# Configs that were recorded before these keys came do as they say by default.
def _damaged(data) -> str:
    return data.get("damaged", "refuse")


def _check(data) -> str:
    return data.get("check", "warn")


def _at_most(key, value, limit, what):
    if value > limit:
        raise DataError(f"{key}={value}, but {what} has {limit} examples")


def _own(data, seed: int):
    """Own images, or COCO: who is labelled at the start, and the pool."""
    from jalpose.tasks.pose import own
    from jalpose.tasks.pose.prepared import open_own

    source = open_own(data)
    said = source.said
    if not said.simulated and data.crop != "box":
        raise DataError(
            f"data.crop={data.crop} places crops by what nobody knows of the pool; "
            "set data.crop=box"
        )
    labelled, pool, test = (
        np.flatnonzero(said.parts == part)
        for part in (own.LABELLED, own.POOL, own.TEST)
    )
    if not len(labelled) or not len(test):
        raise DataError(
            f"{len(labelled)} labelled and {len(test)} test examples are left whose "
            "images are whole: there are to be some of both"
        )
    draws = np.random.default_rng(stream_seed(seed, "initial"))
    wanted = data.initial or (len(labelled) // 2 if said.simulated else len(labelled))
    if wanted > len(labelled):
        raise DataError(
            f"data.initial={wanted}, but the labelled part without the test has "
            f"{len(labelled)} examples: name fewer, or 0, which is "
            + ("half" if said.simulated else "all")
            + " of them"
        )
    order = draws.permutation(labelled)
    initial = np.sort(order[:wanted])
    if said.simulated:
        pool = order[wanted:]
    elif len(labelled) > wanted:
        _logger.info("%d labelled are not used (data.initial)", len(labelled) - wanted)
    _at_most("data.pool", data.pool, len(pool), "the pool")
    _at_most("data.test", data.test, len(test), "the test set")
    if data.pool and not said.simulated:
        pool = draws.permutation(pool)
    rows = np.linspace(0, len(test) - 1, data.test or len(test)).round().astype(int)
    return (source,), initial, np.sort(pool[: data.pool or len(pool)]), test[rows]


SOURCES = {
    "figures": _figures,
    "lsp": _lsp,
    "mpii": _mpii,
    "photos": _own,
    "coco": _own,
}


def load_dataset(data, seed: int) -> Dataset:
    """Open the benchmark `data.name`; `data` is the config section of that name.

    Raises:
      DataError: files are missing or damaged, labels do not fit their images (see
        `checks`), no example labelled at the start has an
        annotated joint, only some of the sources have head boxes, or there are too few
        examples for the config.
    """
    sources, initial, pool, test = SOURCES[data.name](data, seed)
    said = getattr(sources[0], "said", None)
    if data.labelled == "all":
        if said is not None and not said.simulated:
            raise DataError("data.labelled=all, but the pool has no labels")
        initial, pool = np.concatenate([initial, pool]), pool[:0]
    dataset = join(
        sources,
        initial=initial,
        pool=pool,
        test=test,
        crop=data.crop,
        window=data.window,
    )
    if said is not None:
        dataset = _with_what_was_said(dataset, said)
    if _check(data) != "off":
        findings.act_on(checks.of_dataset(dataset), _check(data))
    images = [getattr(source, "fingerprint", "") for source in sources]
    if data.packed and all(images):
        return keep_crops(dataset, images, data.cache_dir, data.size)
    if data.packed and data.name == "figures":
        return dataclasses.replace(dataset, packed=CropsInMemory(data.size))
    return dataset


def readable(data) -> tuple[Dataset | None, list[DataError]]:
    """What can be opened of a benchmark that `load_dataset` refuses.

    Args:
      data: as of `load_dataset`.

    Returns:
      The sets that can be, with examples that play no part, None if none can; and why
      the others cannot be.
    """
    sources, windows, problems = [], [], []
    for open_set in _files_of(data).values():
        try:
            source = open_set()
            windows.append(_windows(source, data.crop, data.window))
            sources.append(source)
        except DataError as error:
            problems.append(error)
    if not sources:
        return None, problems
    nobody = np.empty(0, np.int64)
    annotations = [source.annotations for source in sources]
    found = Dataset(
        sources=tuple(sources),
        initial=nobody,
        pool=nobody,
        test=nobody,
        truth=_truth(annotations),
        windows=np.concatenate(windows),
        keys=tuple(key for a in annotations for key in a.keys),
        files=tuple(file for a in annotations for file in a.files),
    )
    return found, problems


def join(sources, *, initial, pool, test, crop: str, window: float) -> Dataset:
    """Lay sources of poses end to end; the parts are ids in that row.

    Args:
      sources: of one skeleton.
      initial: ids labelled at the start.
      pool: ids not labelled at the start.
      test: ids never trained on nor chosen.
      crop: see `windows.crop_windows`.
      window: see `windows.crop_windows`.

    Raises:
      DataError: see `load_dataset`.
    """
    annotations = [source.annotations for source in sources]
    truth = _truth(annotations)
    initial = np.asarray(initial, np.int64)
    if not (truth["status"][initial] != ABSENT).any():
        raise DataError(
            f"none of the {len(initial)} examples labelled at the start has "
            "an annotated joint: there is nothing to train on"
        )
    windows = [_windows(source, crop, window) for source in sources]
    return join_sources(
        sources,
        initial=initial,
        pool=pool,
        test=test,
        truth=truth,
        windows=np.concatenate(windows),
    )


def _windows(source, crop: str, window: float) -> np.ndarray:
    own = getattr(source, "windows", None)
    if own is not None:
        return own(crop, window)
    return crop_windows(source.annotations, crop, window)


def _with_what_was_said(dataset: Dataset, said) -> Dataset:
    """Own images have groups, and boxes, areas and images that scores go by."""
    annotations, count = said.annotations, len(said.annotations)
    numbers = {file: row for row, file in enumerate(dict.fromkeys(annotations.files))}
    boxes, areas = annotations.boxes, annotations.areas
    more = {
        "box": np.full((count, 4), np.nan, np.float32) if boxes is None else boxes,
        "area": np.full(count, np.nan, np.float32) if areas is None else areas,
        "image": np.array([numbers[file] for file in annotations.files], np.int32),
    }
    return dataclasses.replace(
        dataset,
        truth={**dataset.truth, **more},
        groups=said.groups,
        pool_labelled=said.simulated,
    )


def _truth(annotations: Sequence[Annotations]) -> dict[str, np.ndarray]:
    """What is known of examples laid end to end."""
    truth = {
        "joints": np.concatenate([a.joints for a in annotations]),
        "status": np.concatenate([a.status for a in annotations]),
    }
    sizes = [a.head_sizes for a in annotations if a.head_sizes is not None]
    if 0 < len(sizes) < len(annotations):
        raise DataError(
            f"{len(sizes)} of {len(annotations)} sources have head boxes: take sources "
            "that all have them, or none"
        )
    if sizes:
        truth["head_size"] = np.concatenate(sizes)
    return truth
