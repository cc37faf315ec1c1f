"""Sets of classes by `data.name`, as their authors ship them; without JAX.

Each is (config section `data`) -> `Shipped`, and raises DataError where files are
missing or damaged.
"""

from collections.abc import Callable
from typing import Any

from jalpose.tasks.classification import cifar
from jalpose.tasks.classification.annotations import Shipped


def _cifar10(data) -> Shipped:
    return cifar.find("cifar10", data.dir)


def _cifar100(data) -> Shipped:
    return cifar.find("cifar100", data.dir, data.cifar.labels)


SHIPPED: dict[str, Callable[[Any], Shipped]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
}
