"""Sets of classes by `data.name`, as their authors ship them; without JAX.

Each is (config section `data`) -> `Shipped`, and raises DataError where files are
missing or damaged.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jalpose.tasks.classification import cifar, folders, svhn
from jalpose.tasks.classification.annotations import Shipped


def _cifar10(data) -> Shipped:
    return cifar.find("cifar10", data.dir)


def _cifar100(data) -> Shipped:
    return cifar.find("cifar100", data.dir, data.cifar.labels)


def _svhn(data) -> Shipped:
    return svhn.find(data.dir)


def _folders(data) -> Shipped:
    background = data.name == "caltech101" and data.caltech101.background
    return folders.find(
        data.name,
        data.dir,
        folder=data.folder,
        left_out=() if background else None,
        test_share=data.test_share,
        seed=data.test_seed,
    )


SHIPPED: dict[str, Callable[[Any], Shipped]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "svhn": _svhn,
    **dict.fromkeys(folders.LAYOUTS, _folders),
}


def middle_windows(sizes: np.ndarray, window: float) -> np.ndarray:
    """Crop windows in the middle of images: float32 [N, 3].

    Resizing the shorter side to 256 pixels and cutting 224 x 224 out of the middle is
    one window of 224/256 shorter sides, resampled once.

    Args:
      sizes: [N, 2], width and height, pixels.
      window: side, in shorter sides.
    """
    sizes = sizes.astype(np.float64)
    sides = window * sizes.min(axis=1, keepdims=True)
    return np.concatenate([(sizes - 1) / 2, sides], axis=1).astype(np.float32)
