"""Sets of classes by `data.name`, as their authors ship them; without JAX.

Each is (config section `data`) -> `Shipped`, and raises DataError where files are
missing or damaged.
"""

from collections.abc import Callable
from typing import Any

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
