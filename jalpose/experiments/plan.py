"""What an experiment is made of: base models and methods, their places and shares.

    <workdir>/seed_<seed>/base      a run without acquisitions: the base model
    <workdir>/seed_<seed>/<method>  a method's run from that base model
    <workdir>/seed_<seed>/full      with experiment.full: a run on all labels
    <workdir>/seed_<seed>/full_<steps>_steps
                                    the same where `full` is of another length, as after
                                    loop.cycles was raised

There is no state but this: a run is finished when the records of all its cycles are
there. Nothing here imports JAX.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError
from jalpose.settings.keys import from_base
from jalpose.storage import records
from jalpose.training import lengths

BASE = "base"  # the run of a seed that all its methods start from
FULL = "full"  # the run of a seed on all labels: initial ones and the whole pool's
# What base models are run as: a method that requires nothing beside the network.
NEUTRAL = "random"


class Unit(NamedTuple):
    """One run: a method, `BASE` or `FULL`, with a seed."""

    seed: int
    name: str

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.name}"

    @property
    def chooses(self) -> bool:
        """Is it a method's, which needs the base model and buys labels?"""
        return self.name not in (BASE, FULL)


class Shard(NamedTuple):
    """The `number`-th of `total` parts of an experiment, from 1."""

    number: int = 1
    total: int = 1


def parse_shard(text: str) -> Shard:
    """Read "2/5".

    Raises:
      ConfigError: it is not of that form, or there is no such part.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if found is None:
        raise ConfigError(f"--shard={text!r} must be of the form i/n, e.g. 1/5")
    shard = Shard(int(found[1]), int(found[2]))
    if not 1 <= shard.number <= shard.total:
        raise ConfigError(f"--shard={text}: the parts are 1/n to n/n")
    return shard


class Plan:
    """The runs of an experiment.

    Args:
      config: with `experiment.methods` and `experiment.seeds`.
      workdir: of the experiment.
      check: of a config, whether it can be run; raises ConfigError.

    Raises:
      ConfigError: methods, seeds or any other value are not allowed.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: str,
        check: Callable[[ConfigDict], None],
    ):
        self.config, self.workdir = config, Path(workdir)
        self.methods = tuple(config.experiment.methods)
        self.seeds = tuple(config.experiment.seeds)
        self._check(check)

    def _check(self, check):
        config = self.config
        for key, values in (("methods", self.methods), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ConfigError(
                    f"experiment.{key}={values} must have one or more, each once"
                )
        check(config)
        for seed in self.seeds:
            if type(seed) is not int or seed < 0:
                raise ConfigError(
                    f"experiment.seeds={self.seeds} must be whole numbers, 0 or more"
                )
        for key, value, instead in (
            ("seed", config.seed, "experiment.seeds"),
            ("base", config.base, "nothing: each seed has a base model of its own"),
            ("loop.compare", tuple(config.loop.compare), "experiment.methods"),
        ):
            if value:
                raise ConfigError(
                    f"{key}={value} is not for an experiment; set {instead}"
                )
        check(self.whole(self.seeds[0]))

    @property
    def units(self) -> list[Unit]:
        """The runs of all methods, seed by seed; base models apart."""
        more = (FULL,) if self.config.experiment.full else ()
        return [Unit(s, name) for s in self.seeds for name in (*self.methods, *more)]

    def share(self, shard: Shard) -> list[Unit]:
        """The units of a part: all of a seed together where there are enough seeds.

        With as many parts as seeds or fewer a seed's methods, and their base model, are
        of one part. With more, the methods of a seed are spread, and whichever part
        comes first trains their base model.
        """
        blocks = [[unit] for unit in self.units]
        if shard.total <= len(self.seeds):
            blocks = [[u for u in self.units if u.seed == s] for s in self.seeds]
        first, last = (
            number * len(blocks) // shard.total
            for number in (shard.number - 1, shard.number)
        )
        return [unit for block in blocks[first:last] for unit in block]

    def folder(self, unit: Unit) -> Path:
        """The workdir of a unit's run."""
        usual = self.workdir / f"seed_{unit.seed}" / unit.name
        if unit.name != FULL:
            return usual
        # More cycles want a longer training on all labels, which is no continuation of
        # the one that is there: that stays as it is.
        there, steps = records.read_config(usual), self._steps_on_all(unit.seed)
        if there is None or there["config"]["training"]["base_steps"] == steps:
            return usual
        return usual.with_name(f"{FULL}_{steps}_steps")

    def _steps_on_all(self, seed: int) -> int:
        """Steps of a training on all labels.

        As many, of batches as large, as the last network of a method's run has behind
        it, in epochs or steps alike: labels alone are to make the difference. As many
        epochs would be many times the steps.
        """
        return lengths.steps_behind_the_last(self.whole(seed))

    def whole(self, seed: int) -> ConfigDict:
        """The config that names all methods, so that all are checked at once."""
        config = ConfigDict(self.config.to_dict())
        config.experiment.methods = config.experiment.seeds = ()
        config.experiment.full = False
        config.seed, config.acquisition.method = seed, NEUTRAL
        config.loop.compare = tuple(m for m in self.methods if m != NEUTRAL)
        return config

    def config_of(self, unit: Unit) -> ConfigDict:
        """The config of a unit's run."""
        base = self.folder(Unit(unit.seed, BASE)).as_posix()
        if unit.chooses:
            return from_base(self.whole(unit.seed), unit.name, base)
        config = from_base(self.whole(unit.seed), NEUTRAL, "")
        if unit.name == FULL:
            config.name += f"_{FULL}"
            config.data.labelled = "all"
            steps = self._steps_on_all(unit.seed)
            config.training.base_epochs, config.training.base_steps = 0, steps
        config.loop.cycles = 0
        return config

    def cycles(self, unit: Unit) -> tuple[int, int]:
        """Records of cycles that are there, and that there are to be."""
        total = 1 + (self.config.loop.cycles if unit.chooses else 0)
        return len(records.read_cycles(self.folder(unit))), total

    def finished(self, unit: Unit) -> bool:
        """Are the records of all its cycles there?"""
        there, total = self.cycles(unit)
        return there == total


def with_bases(units: Sequence[Unit]) -> list[Unit]:
    """The units, each seed's behind the base model that its methods need."""
    found = []
    for seed in dict.fromkeys(unit.seed for unit in units):
        of_seed = [unit for unit in units if unit.seed == seed]
        if any(unit.chooses for unit in of_seed):
            found.append(Unit(seed, BASE))
        found += of_seed
    return found
