"""Benchmarks by name: which sources, and which of their examples play which part."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jalpose.data.dataset import Dataset, join_sources, keep_crops
from jalpose.data.source import DataError
from jalpose.tasks import findings
from jalpose.tasks.pose import checks
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT
from jalpose.tasks.pose.windows import crop_windows


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


SOURCES = {"figures": _figures, "lsp": _lsp, "mpii": _mpii}


def load_dataset(data, seed: int) -> Dataset:
    """Open the benchmark `data.name`; `data` is the config section of that name.

    Raises:
      DataError: files are missing or damaged, labels do not fit their images (see
        `checks`), no example labelled at the start has an
        annotated joint, only some of the sources have head boxes, or there are too few
        examples for the config.
    """
    sources, initial, pool, test = SOURCES[data.name](data, seed)
    if data.labelled == "all":
        initial, pool = np.concatenate([initial, pool]), pool[:0]
    dataset = join(
        sources,
        initial=initial,
        pool=pool,
        test=test,
        crop=data.crop,
        window=data.window,
    )
    if _check(data) != "off":
        findings.act_on(checks.of_dataset(dataset), _check(data))
    # Figures are not kept: they are drawn as fast as read.
    images = [getattr(source, "fingerprint", "") for source in sources]
    if data.packed and all(images):
        return keep_crops(dataset, images, data.cache_dir, data.size)
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
            windows.append(crop_windows(source.annotations, data.crop, data.window))
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
    windows = [crop_windows(a, crop, window) for a in annotations]
    return join_sources(
        sources,
        initial=initial,
        pool=pool,
        test=test,
        truth=truth,
        windows=np.concatenate(windows),
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
