"""Benchmarks by name: which sources, and which of their examples play which part."""

import dataclasses
import hashlib
import os

import numpy as np

from jalpose.data.dataset import PoseDataset, join_sources
from jalpose.data.packed import PackedCrops
from jalpose.data.source import DataError

# Of how crops are cut (`crops.crop_image`): where that changes, this has to.
PACKED_VERSION = 1


def _figures(data, seed: int):
    from jalpose.tasks.pose.figures import FigureSource

    pool, test = data.pool or 1000, data.test or 300
    # The labelled figures are common poses; pool and test hold rare ones as well.
    labelled = FigureSource(data.initial, seed, 0.0, name="labelled")
    other = FigureSource(
        pool + test, seed, data.rare, name="figures", start=data.initial
    )
    ids = np.arange(data.initial + pool + test)
    parts = np.split(ids, [data.initial, data.initial + pool])
    return (labelled, other), *parts


def _lsp(data, seed: int):
    del seed  # the authors' split is the same for every seed
    from jalpose.data.preparation import open_source

    lsp = open_source("lsp", data.dir, data.cache_dir)
    lspet = open_source("lspet", data.dir, data.cache_dir)
    num_lsp, num_lspet = len(lsp.annotations), len(lspet.annotations)
    half = num_lsp // 2
    _at_most("data.initial", data.initial, half, "the first half of LSP")
    _at_most("data.test", data.test, num_lsp - half, "the second half of LSP")
    _at_most("data.pool", data.pool, num_lspet, "LSPET")
    initial = np.arange(data.initial)
    test = half + np.arange(data.test or num_lsp - half)
    pool = num_lsp + np.arange(data.pool or num_lspet)
    return (lsp, lspet), initial, pool, test


def _mpii(data, seed: int):
    from jalpose.data.preparation import open_source
    from jalpose.runtime import random_streams
    from jalpose.tasks.pose import mpii

    options = mpii.Options(
        annotation=data.mpii.annotation,
        all_joints=data.mpii.all_joints,
        head_shift=data.mpii.head_shift,
        placed=data.crop != "joints",
    )
    source = open_source("mpii", data.dir, data.cache_dir, options)
    validation = mpii.in_validation(source.annotations, data.dir)
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


def _at_most(key, value, limit, what):
    if value > limit:
        raise DataError(f"{key}={value}, but {what} has {limit} examples")


SOURCES = {"figures": _figures, "lsp": _lsp, "mpii": _mpii}


def load_dataset(data, seed: int) -> PoseDataset:
    """Open the benchmark `data.name`; `data` is the config section of that name.

    Raises:
      DataError: files are missing or damaged, or too few examples for the config.
    """
    sources, initial, pool, test = SOURCES[data.name](data, seed)
    if data.labelled == "all":
        initial, pool = np.concatenate([initial, pool]), pool[:0]
    dataset = join_sources(
        sources,
        initial=initial,
        pool=pool,
        test=test,
        crop=data.crop,
        window=data.window,
    )
    # Figures are not kept: they are drawn as fast as read.
    folders = [getattr(source, "prepared_dir", "") for source in sources]
    if data.packed and all(folders):
        images = [os.path.basename(folder) for folder in folders]
        sums = hashlib.blake2b(dataset.checksums().tobytes()).hexdigest()
        name = " ".join([str(PACKED_VERSION), *images, sums])
        packed = PackedCrops(data.cache_dir, name, data.size)
        dataset = dataclasses.replace(dataset, packed=packed)
    return dataset
