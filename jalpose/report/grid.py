"""One number of every run and cycle as an array, which the tables are made from."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from jalpose.report.gather import Gathered, GatherError
from jalpose.report.text_formats import MeanSd
from jalpose.storage import cycles


@dataclasses.dataclass(frozen=True)
class Grid:
    """A number by method, seed and cycle.

    Attributes:
      methods: labels, the order of the first axis.
      seeds: the order of the second.
      labelled: [cycles], images labelled when that cycle's network was trained: of the
        run with most, so that a control, which buys no labels, stands beside those
        that bought them.
      values: float64 [methods, seeds, cycles]; NaN where there is none.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    labelled: np.ndarray
    values: np.ndarray

    def of(self, method: str) -> np.ndarray:
        """A method's [seeds, cycles]."""
        return self.values[self.methods.index(method)]

    @property
    def means(self) -> np.ndarray:
        """[methods, cycles], over the seeds that are there; NaN without one."""
        known = np.isfinite(self.values)
        sums = np.where(known, self.values, 0.0).sum(axis=1)
        counts = known.sum(axis=1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def make_grid(gathered: Gathered, read: Callable[[dict], float | None]) -> Grid:
    """Lay out what `read` finds in the records; None is not there."""
    recorded = [r["cycle"] for run in gathered.runs for r in run.cycles]
    methods, seeds = gathered.methods, gathered.seeds
    labelled = np.zeros(1 + max(recorded, default=-1), np.int64)
    for cycle, most in cycles.most_labelled([r.cycles for r in gathered.runs]).items():
        labelled[cycle] = most
    values = np.full((len(methods), len(seeds), len(labelled)), np.nan)
    for run in gathered.runs:
        row = values[methods.index(run.method), seeds.index(run.seed)]
        for record in run.cycles:
            cycle, value = record["cycle"], read(record)
            row[cycle] = np.nan if value is None else value
    return Grid(methods, seeds, labelled, values)


def score_grid(gathered: Gathered) -> Grid:
    """The scores of the test sets, as they are shown."""
    return make_grid(gathered, gathered.scoring.value)


class Level(NamedTuple):
    """What training on all labels reaches.

    Attributes:
      labelled: how many they are.
      runs: how many were trained on them.
      score: as it is shown.
    """

    labelled: int
    runs: int
    score: MeanSd


def full_level(gathered: Gathered) -> Level | None:
    """The level of the runs on all labels; None where there are none."""
    last = [run.cycles[-1] for run in gathered.full]
    read = gathered.scoring.value
    scores = [score for r in last if (score := read(r)) is not None]
    found = summary(np.array(scores))
    if found is None:
        return None
    return Level(max(r["num_labelled"] for r in last), len(scores), found)


def choose_reference(
    methods: Iterable[str], asked: str | None = None, usual: str = "random"
) -> str:
    """The method others are compared with: `asked`, else `usual`, else the first.

    Raises:
      GatherError: there is no method of that label.
    """
    known = sorted(methods)
    if asked is not None and asked not in known:
        raise GatherError(
            f"unknown reference method {asked!r}. Known: {', '.join(known)}"
        )
    # A label may have options behind the method's name.
    return asked or next((m for m in known if m.split()[0] == usual), known[0])


def random_first(methods: Iterable[str]) -> list[str]:
    """Labels sorted, random before all others, as the papers print them."""
    return sorted(methods, key=lambda label: (label.split()[0] != "random", label))


def reference_first(methods: Iterable[str], reference: str) -> list[str]:
    """The reference, then the others."""
    return [reference, *(name for name in methods if name != reference)]


def controls(gathered: Gathered) -> tuple[str, ...]:
    """Methods that buy no labels: training goes on with those of cycle 0."""
    found = []
    for method in gathered.methods:
        runs = [[r["num_labelled"] for r in run.cycles] for run in gathered.by(method)]
        if any(len(run) > 1 for run in runs) and all(len(set(r)) == 1 for r in runs):
            found.append(method)
    return tuple(found)


def summary(values: np.ndarray) -> MeanSd | None:
    """Mean and deviation of what is there: [seeds] or any shape; None of nothing."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return None
    sd = float(known.std(ddof=1)) if len(known) > 1 else None
    return MeanSd(float(known.mean()), sd)
