"""Find runs on disk and read them as one experiment, finished or not.

    found = gather(["runs/lsp"])
    found.methods, found.seeds, found.missing

A path is a run, a run with others in `compare/` below it, or a folder of such at any
depth. Nothing is written, no JAX is imported, and a run that goes on meanwhile is read
as far as it has come.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jalpose.report import sameness, scoring
from jalpose.report.scoring import Scoring
from jalpose.settings.checks import ConfigError
from jalpose.settings.keys import RUNTIME_KEYS
from jalpose.storage import cycles, records
from jalpose.tasks import registry


class GatherError(records.WorkdirError):
    """No runs, or runs that cannot stand in one table."""


class NothingYet(GatherError):
    """The folders are there and hold no cycle of a run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One method with one seed, as read.

    Attributes:
      path: workdir.
      method: label: `acquisition.method` and, where runs of it differ in its options,
        those: "learning_loss objective=margin".
      seed: `config.seed`; runs of one seed are pairs.
      config: the resolved config.
      about: the rest of `config.json`: versions, device, revision.
      cycles: the records, rising by cycle; some may be missing.
    """

    path: Path
    method: str
    seed: int
    config: dict[str, Any]
    about: dict[str, Any]
    cycles: list[dict]

    @property
    def task(self) -> str:
        """What is predicted, see `jalpose.tasks.registry`."""
        return registry.recorded_in(self.config)

    @property
    def last_cycle(self) -> int:
        """The cycle with which the run is finished."""
        return int(self.config["loop"]["cycles"])

    def record(self, cycle: int) -> dict | None:
        """The record of a cycle; None where there is none."""
        return next((r for r in self.cycles if r["cycle"] == cycle), None)

    def arrays(self, cycle: int) -> dict[str, np.ndarray]:
        """The arrays of a cycle, all of them; {} where there are none.

        Raises:
          WorkdirError: the file is damaged.
        """
        try:
            return records.read_arrays(self.path, cycle)
        except FileNotFoundError:
            return {}

    def selection(self, cycle: int) -> list[dict]:
        """The rows of a selection's CSV; [] where there is none.

        Raises:
          WorkdirError: the file is damaged.
        """
        try:
            return records.read_selection(self.path, cycle)
        except FileNotFoundError:
            return []


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The runs of an experiment, comparable with each other.

    Attributes:
      runs: by method, then seed, whatever the order of the folders.
      missing: sentences: which cycles of which runs are not there yet.
      warnings: sentences: damaged lines, devices that differ and the like.
      bases: runs without an acquisition (`loop.cycles=0`), labelled "base model". They
        stand in no table and need not be of the same protocol. So do runs on all labels
        that are not in `full`.
      full: those of them trained on all labels (`data.labelled="all"`) and otherwise as
        `runs` are, by seed; labelled "all labels".
    """

    runs: tuple[Run, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    bases: tuple[Run, ...] = ()
    full: tuple[Run, ...] = ()

    @property
    def task(self) -> str:
        """The task of all runs."""
        return self.runs[0].task

    @functools.cached_property
    def scoring(self) -> Scoring:
        """How the score of the runs is read and spoken of."""
        found = (record for run in self.runs for record in run.cycles)
        return scoring.scoring_of(self.task, found)

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels, sorted."""
        return tuple(sorted({run.method for run in self.runs}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of any method, rising."""
        return tuple(sorted({run.seed for run in self.runs}))

    def by(self, method: str) -> tuple[Run, ...]:
        """The runs of a method by rising seed; () for an unknown one."""
        return tuple(run for run in self.runs if run.method == method)

    def run(self, method: str, seed: int) -> Run | None:
        """The run of a method and seed; None where there is none."""
        return next((run for run in self.by(method) if run.seed == seed), None)


def gather(paths: Iterable[str | os.PathLike[str]]) -> Gathered:
    """Read all runs at and below `paths`.

    Raises:
      GatherError: a path is no folder, no run was found, runs differ in protocol or
        data (the keys are named), or a method has a seed twice.
    """
    asked = [Path(path) for path in paths]
    for path in asked:
        if not path.is_dir():
            raise GatherError(f"{path} is not a folder: it holds no runs")
    warnings: list[str] = []
    missing: list[str] = []
    read = []
    for folder in run_folders(asked):
        run = _read(folder, warnings)
        if run is None:
            continue
        if run.cycles:
            read.append(run)
        else:
            missing.append(f"{folder}: no cycle is there yet")
    bases = tuple(
        dataclasses.replace(run, method="base model")
        for run in read
        if run.last_cycle == 0
    )
    runs = [run for run in read if run.last_cycle > 0]
    if not runs:
        _refuse_nothing(asked, bases, missing, warnings)
    _refuse_other_protocols(runs)
    _refuse_unknown_task(runs[0])
    labels = sameness.labels([run.config for run in runs], [r.cycles for r in runs])
    runs = [
        dataclasses.replace(run, method=label)
        for run, label in zip(runs, labels, strict=True)
    ]
    runs.sort(key=lambda run: (run.method, run.seed, str(run.path)))
    _refuse_twins(runs)
    seeds = sorted({run.seed for run in runs})
    missing += _missing_runs(runs, seeds)
    missing += [line for run in runs for line in _missing_cycles(run)]
    full = _alike_but_for_labels(bases, runs[0], warnings)
    missing += [
        f"all labels: there is no run of seed {seed}"
        for seed in seeds
        if full and seed not in {run.seed for run in full}
    ]
    warnings += sameness.cautions(runs)
    return Gathered(
        tuple(runs),
        tuple(missing),
        tuple(warnings),
        tuple(run for run in bases if run.path not in {each.path for each in full}),
        full,
    )


# Finding and reading


def run_folders(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Folders with a `config.json` at or below `paths`, each once, sorted."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        for folder, names in _walk(path):
            if records.CONFIG in names:
                # Whatever way it was asked for, a folder is one run.
                found.setdefault(folder.resolve(), folder)
    return [found[key] for key in sorted(found)]


# Of a run's own folders, none holds a run; checkpoints have thousands of files.
_NO_RUNS = {"arrays", "checkpoints", "pictures", "selections", "tensorboard"}


def _walk(path: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, below, names in os.walk(path):
        if records.CONFIG in names:
            below[:] = [name for name in below if name not in _NO_RUNS]
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), names


def _read(folder: Path, warnings: list[str]) -> Run | None:
    """The run in `folder`, its method not yet labelled; None where there is none."""
    try:
        about = dict(records.read_config(folder) or {})
    except records.WorkdirError as error:
        warnings.append(f"{error}: this run is left out")
        return None
    config = about.pop("config", None)
    try:
        method, seed = config["acquisition"]["method"], int(config["seed"])
        int(config["loop"]["cycles"])
    except (KeyError, TypeError, ValueError):
        return None  # another program's config.json
    found, damaged = cycles.read_whole(folder)
    warnings += damaged
    return Run(folder, method, seed, config, about, found)


def _alike_but_for_labels(
    bases: Sequence[Run], pattern: Run, warnings: list[str]
) -> tuple[Run, ...]:
    """Runs of `bases` on all labels that are otherwise as `pattern`, by seed.

    Of several of one seed the longest: an experiment that was given more cycles has
    those of its fewer cycles too.
    """

    def protocol(run):
        keys = sameness.protocol(run.config, ignore=(*RUNTIME_KEYS, *sameness.BUYING))
        return keys | sameness.scoring(run)

    found, wanted = [], protocol(pattern)
    for run in bases:
        if run.config.get("data", {}).get("labelled") != "all":
            continue
        own = protocol(run)
        both = sorted(own.keys() | wanted.keys())
        if differing := [key for key in both if own.get(key) != wanted.get(key)]:
            warnings.append(
                f"{run.path}, a run on all labels, is left out: it differs from the "
                f"others in {', '.join(differing)}"
            )
        else:
            found.append(dataclasses.replace(run, method="all labels"))
    found.sort(key=lambda run: (run.seed, _base_steps(run), str(run.path)))
    longest = {run.seed: run for run in found}
    return tuple(longest.values())


def _base_steps(run: Run) -> int:
    return run.config.get("training", {}).get("base_steps", 0)


# What is missing


def _missing_cycles(run: Run) -> list[str]:
    have = {record["cycle"] for record in run.cycles}
    absent = [cycle for cycle in range(run.last_cycle + 1) if cycle not in have]
    if not absent:
        return []
    which = f"cycle {absent[0]}" if len(absent) == 1 else _listed(absent)
    verb = "is" if len(absent) == 1 else "are"
    return [
        f"{run.method}, seed {run.seed}: {which} of 0 to {run.last_cycle} {verb} not "
        f"there yet ({run.path})"
    ]


def _listed(cycles: list[int]) -> str:
    if cycles == list(range(cycles[0], cycles[-1] + 1)):
        return f"cycles {cycles[0]} to {cycles[-1]}"
    return "cycles " + ", ".join(map(str, cycles))


def _missing_runs(runs: Sequence[Run], seeds: Sequence[int]) -> list[str]:
    there = {(run.method, run.seed) for run in runs}
    methods = sorted({run.method for run in runs})
    return [
        f"{method}: there is no run of seed {seed}"
        for method in methods
        for seed in seeds
        if (method, seed) not in there
    ]


# Refusals


def _refuse_nothing(asked, bases, missing, warnings) -> None:
    where = ", ".join(map(str, asked)) or "no folder"
    found = "it holds only base models (loop.cycles=0)" if bases else "nothing found"
    reasons = "".join(f"\n  {line}" for line in [*missing, *warnings])
    raise NothingYet(
        f"no run to report on in {where}: {found}. A run is a folder with "
        f"{records.CONFIG} and {records.CYCLES}{reasons}"
    )


def _refuse_other_protocols(runs: Sequence[Run]) -> None:
    protocols = [
        sameness.protocol(run.config, ignore=RUNTIME_KEYS) | sameness.scoring(run)
        for run in runs
    ]
    lines = []
    for key in sorted(set().union(*protocols)):
        values: dict[str, list[Path]] = {}
        for run, keys in zip(runs, protocols, strict=True):
            if key.startswith("metrics.") and key not in keys:
                continue  # nothing scored yet
            text = json.dumps(keys[key]) if key in keys else "(absent)"
            values.setdefault(text, []).append(run.path)
        if len(values) > 1:
            lines.append(f"{key}: " + "; ".join(map(_holders, values.items())))
    if lines:
        raise GatherError(
            "runs of different protocols or data cannot be in one table. They differ "
            "in\n  " + "\n  ".join(lines)
        )


def _refuse_unknown_task(run: Run) -> None:
    try:
        scoring.keys_of(run.task)
    except ConfigError as error:
        raise GatherError(f"{run.path} cannot be read here: {error}") from error


def _holders(item: tuple[str, list[Path]]) -> str:
    value, paths = item
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{value} in {paths[0]}{more}"


def _refuse_twins(runs: Sequence[Run]) -> None:
    for first, second in itertools.pairwise(runs):
        if (first.method, first.seed) == (second.method, second.seed):
            raise GatherError(
                f"{first.method} with seed {first.seed} is there twice: in "
                f"{first.path} and in {second.path}. Name the folders to report on, "
                "or move one away"
            )
