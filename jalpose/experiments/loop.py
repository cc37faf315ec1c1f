"""Runs an experiment: base models, then methods, until all that is ours is finished."""

import time
from collections.abc import Sequence

from jalpose.data.dataset import Dataset
from jalpose.experiments import outlook
from jalpose.experiments.plan import BASE, FULL, NEUTRAL, Plan, Shard, Unit, with_bases
from jalpose.loop import compatibility, configs, papers, run, saved_models, transfer
from jalpose.loop.conclusion import conclude_experiment
from jalpose.loop.context import RunContext, make_context
from jalpose.loop.programs import Programs
from jalpose.loop.workdirs import explain_lost
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.storage import locks

WAIT = 5.0  # seconds between two looks at a base model that another process trains


def experiment(
    config, workdir: str, shard: Shard | None = None, screen: Screen | None = None
) -> None:
    """Run, or go on with, the part `shard` of the experiment in `workdir`.

    Raises:
      ConfigError: a value is not allowed or does not fit data or devices.
      WorkdirError: a run there is of another config, or cannot be written.
      DataError: files are missing or damaged.
      FloatingPointError: weights diverged; raised when the other runs are finished.
    """
    screen = screen or Screen()
    plan = _checked(config, workdir, shard or Shard())
    share = plan.share(shard or Shard())
    left = [unit for unit in share if not plan.finished(unit)]
    screen.line(f"{len(share) - len(left)} of {len(share)} runs are finished")
    if NEUTRAL not in plan.methods:
        screen.line("warning: without random nothing says what a method is worth")
    worker = Worker(plan, screen)
    # First whatever needs no waiting for another process.
    for wait in (False, True):
        for seed in dict.fromkeys(unit.seed for unit in left):
            worker.work([unit for unit in left if unit.seed == seed], wait)
    for line in outlook.unfinished(plan, left):
        screen.line(f"not finished: {line}")
    screen.line(f"records: {plan.workdir}")
    if all(plan.finished(unit) for unit in plan.units):
        conclude_experiment(plan.config, plan.workdir, screen)
    if worker.failures:
        raise FloatingPointError(
            "these runs cannot go on:\n  "
            + "\n  ".join(f"{unit}: {why}" for unit, why in worker.failures.items())
        )


def dry_run(config, workdir: str, shard: Shard | None = None) -> None:
    """Print what would be done; the checks are those of `experiment`, but of data."""
    shard = shard or Shard()
    for line in papers.told(config):
        print(line)
    print(outlook.show(_checked(config, workdir, shard), shard), end="")


def _checked(config, workdir, shard) -> Plan:
    plan = Plan(config, workdir, configs.check)
    for unit in with_bases(plan.share(shard)):
        folder = plan.folder(unit)
        # Its base model is where it belongs: the whole experiment may be moved.
        compatibility.refuse_another_config(
            plan.config_of(unit), folder, ignore=("base",)
        )
    return plan


class Worker:
    """Runs units one after the other, sharing all that is compiled.

    Args:
      plan: of the experiment.
      screen: for progress.
      programs: what is compiled; None: nothing yet.

    Attributes:
      failures: units whose weights diverged, with the reason.
    """

    def __init__(self, plan: Plan, screen: Screen, programs: Programs | None = None):
        self._plan, self._screen = plan, screen
        self._programs = programs or Programs(sharding.make_mesh())
        self._seed: int | None = None
        self._dataset: Dataset | None = None
        self.failures: dict[Unit, str] = {}

    def work(self, units: Sequence[Unit], wait: bool) -> None:
        """Finish units of one seed, and before them the base model methods need.

        What another process holds is left to it; for a base model that it trains it is
        waited if `wait`, else the methods are left for later.
        """
        units = [u for u in units if not self._settled(u)]
        choosing = [u for u in units if u.chooses]
        if choosing and not self._has_base(choosing[0].seed, wait):
            units = [u for u in units if not u.chooses]
        for unit in units:
            self._attempt(unit)

    def _has_base(self, seed: int, wait: bool) -> bool:
        """Is the base model of a seed there? It is trained, or waited for, if not."""
        base = Unit(seed, BASE)
        told = False
        while not self._settled(base):
            if self._attempt(base):
                continue
            if not wait:
                return False
            if not told:
                holder = locks.holder(self._plan.folder(base))
                self._screen.line(f"waiting for {base}, trained by {holder}")
                told = True
            time.sleep(WAIT)
        return base not in self.failures

    def _settled(self, unit: Unit) -> bool:
        return unit in self.failures or self._plan.finished(unit)

    def _attempt(self, unit: Unit) -> bool:
        """Run a unit to its end; False where another process is at it."""
        folder = self._plan.folder(unit)
        with locks.hold(folder) as lock, explain_lost(lock):
            # Asked again under the lock: another process may just have finished it.
            if lock is not None and not self._settled(unit):
                self._screen.line(f"{unit}, into {folder}")
                try:
                    run.run_one(self._context_of(unit), folder, self._screen, lock)
                except FloatingPointError as error:
                    self.failures[unit] = str(error)
                    self._screen.line(f"error: {error}")
        return lock is not None

    def _context_of(self, unit: Unit) -> RunContext:
        config = self._plan.config_of(unit)
        base = None
        dataset = self._dataset_of(unit.seed)
        if unit.chooses:
            place = self._plan.folder(Unit(unit.seed, BASE))
            compatibility.refuse_model_of_other_data(
                place, dataset, "base of the experiment"
            )
            base = saved_models.load_model(place, 0)
        if unit.name == FULL:
            dataset = run.load_dataset(config, self._screen)
        initial = transfer.initial_weights(config, self._plan.folder(unit))
        return make_context(config, dataset, self._programs, base=base, initial=initial)

    def _dataset_of(self, seed: int) -> Dataset:
        """The dataset of this seed, on which all methods can work."""
        if self._dataset is None or self._seed != seed:
            whole = self._plan.whole(seed)
            dataset = run.load_dataset(whole, self._screen)
            make_context(whole, dataset, self._programs)  # checks every method
            self._dataset, self._seed = dataset, seed
        return self._dataset
