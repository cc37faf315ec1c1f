"""Tasks by name: a new one is a folder beside this and a line here.

The folder has `settings` (keys, scales, protocols, checks), `sources` (data sets by
name), `labels` (the NumPy half) and `task` (the JAX half). They are imported when they
are asked for, by name, since the report knows labels and must not import JAX.
"""

import importlib
from types import ModuleType

from jalpose.settings.checks import one_of

TASKS = {"pose": "jalpose.tasks.pose"}

USUAL = "pose"  # of configs written before tasks had names


def settings_of(name: str) -> ModuleType:
    """Module with `add_keys(config)`, `SCALES`, `BENCHMARKS`, `check(config)`."""
    return _part(name, "settings")


def sources_of(name: str) -> ModuleType:
    """Module with `SOURCES` by `data.name` and `load_dataset(data, seed)`."""
    return _part(name, "sources")


def labels_of(name: str) -> ModuleType:
    """Module with `KEYS` and `make_labels(config, dataset) -> Labels`."""
    return _part(name, "labels")


def task_of(name: str) -> ModuleType:
    """Module with `make_task(config, dataset) -> Task`."""
    return _part(name, "task")


def _part(name: str, part: str) -> ModuleType:
    one_of("task", name, TASKS)
    return importlib.import_module(f"{TASKS[name]}.{part}")
