"""Tasks by name: a new one is a folder beside this and a line here.

The folder has `settings` (keys, scales, protocols, checks), `sources` (data sets by
name), `labels` (the NumPy half), `task` (the JAX half), where reports are to show
examples, `pictures`, where data are to be looked through, `overview`, and where people
are to label, `exchange`. They are imported when they are asked for, by name, since the
report knows labels and pictures and must not import JAX.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from types import ModuleType

from jalpose.settings.checks import one_of

TASKS = {
    "pose": "jalpose.tasks.pose",
    "classification": "jalpose.tasks.classification",
    "regression": "jalpose.tasks.regression",
}

USUAL = "pose"  # of configs written before tasks had names


def settings_of(name: str) -> ModuleType:
    """Module with `add_keys(config)`, `SCALES`, `BENCHMARKS`, `check(config)`."""
    return _part(name, "settings")


def sources_of(name: str) -> ModuleType:
    """Module with `SOURCES` by `data.name` and `load_dataset(data, seed)`.

    And, if what can be read of sets that are refused is to be looked through,
    `readable(data)`: a data set whose examples play no part or None, and the errors.
    """
    return _part(name, "sources")


def labels_of(name: str) -> ModuleType:
    """Module with `KEYS` and `make_labels(config, dataset) -> Labels`.

    And, of a task with several scores, `EVERY_KEYS`, the usual one's first.
    """
    return _part(name, "labels")


def task_of(name: str) -> ModuleType:
    """Module with `make_task(config, dataset) -> Task`."""
    return _part(name, "task")


def pictures_of(name: str) -> ModuleType | None:
    """Module with what `jalpose.tasks.pictures` lists; None where a task has none."""
    return _part_if_there(name, "pictures")


def overview_of(name: str) -> ModuleType | None:
    """Module with `overview(config, dataset) -> Overview`; None where there is none.

    See `jalpose.tasks.overviews`.
    """
    return _part_if_there(name, "overview")


def exchange_of(name: str) -> ModuleType | None:
    """Module with `make_exchange(config, dataset)`; None where there is none.

    See `jalpose.tasks.exchange`.
    """
    return _part_if_there(name, "exchange")


def inference_of(name: str) -> ModuleType | None:
    """Module of a trained network's use on new images; None where there is none.

    See `jalpose.tasks.inference`.
    """
    return _part_if_there(name, "inference")


def recorded_in(config: Mapping) -> str:
    """The task of a recorded config of any age."""
    return config.get("task", USUAL)


def _part_if_there(name: str, part: str) -> ModuleType | None:
    one_of("task", name, TASKS)
    there = importlib.util.find_spec(f"{TASKS[name]}.{part}") is not None
    return _part(name, part) if there else None


def _part(name: str, part: str) -> ModuleType:
    one_of("task", name, TASKS)
    return importlib.import_module(f"{TASKS[name]}.{part}")
