"""What the three scales change of the common keys, and how a benchmark is described.

tiny runs in seconds, for tests; small is an honest run on two CPU cores; paper is the
keys' own defaults. Tasks, networks and methods have such tables of their own.
"""

from collections.abc import Mapping
from typing import NamedTuple

Changes = Mapping[str, object]  # by dotted key


class Benchmark(NamedTuple):
    """The protocol of a benchmark, the same for all methods.

    Attributes:
      delta: what it changes at every scale.
      scales: what it changes at one.
    """

    delta: Changes
    scales: Mapping[str, Changes]


SCALES: dict[str, Changes] = {
    "tiny": {
        "data.initial": 40,
        "data.pool": 60,
        "data.test": 24,
        "training.batch": 8,
        "training.base_epochs": 0,
        "training.base_steps": 12,
        "training.cycle_epochs": 0,
        "training.cycle_steps": 6,
        "training.schedule": "cosine",
        "training.learning_rate": 1e-3,
        "training.report_steps": 4,
        "evaluation.block": 8,
        "acquisition.budget": 8,
        "acquisition.pool_subset": 24,
        "acquisition.block": 8,
        "acquisition.pieces": 1,
        "loop.cycles": 2,
        "output.images": 4,
    },
    "small": {
        "training.schedule": "cosine",
        "training.learning_rate": 1e-3,
        "training.warmup_steps": 100,
        "training.base_epochs": 0,
        "training.cycle_epochs": 0,
        "training.heldout_epochs": 5.0,
        "evaluation.block": 32,
        "loop.cycles": 3,
    },
    "paper": {},
}
