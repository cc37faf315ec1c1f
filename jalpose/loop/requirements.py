"""Does a config fit its data, task and itself? Asked before anything compiles.

What can be said without data stands in `settings.validation` and with the options of
each method; what a method asks of task and data, in its `check`. All are asked here.
"""

from ml_collections import ConfigDict

from jalpose.acquisition import registry as methods
from jalpose.data.dataset import Dataset
from jalpose.oracles.oracle import Oracle
from jalpose.oracles.simulated import SimulatedOracle
from jalpose.settings.checks import ConfigError
from jalpose.settings.keys import from_base
from jalpose.tasks.labels import Labels
from jalpose.tasks.task import Task
from jalpose.training.needs import Needs


def check(
    config: ConfigDict,
    dataset: Dataset,
    task: Task,
    labels: Labels,
    oracle: Oracle,
    *,
    has_base: bool,
) -> None:
    """Check what options ask of data, task and one another.

    Args:
      config: validated by itself.
      dataset: of the run.
      task: of the labels, JAX half.
      labels: of the task, NumPy half.
      oracle: answers with the labels of what is chosen.
      has_base: a base model is given.

    Raises:
      ConfigError: names the keys, their values and what is allowed.
    """
    _check_budget(config, dataset, labels)
    _check_oracle(config, dataset, oracle)
    _check_methods(config, dataset, task, has_base)


def _check_budget(config, dataset, labels):
    acquisition, cycles = config.acquisition, config.loop.cycles
    if cycles and acquisition.budget_unit == "clicks":
        most = getattr(labels, "most_clicks", 1)
        if acquisition.budget < most:
            raise ConfigError(
                f"acquisition.budget={acquisition.budget} clicks do not pay for one "
                f"label, which costs up to {most}"
            )
        return
    wanted, there = cycles * acquisition.budget, len(dataset.pool)
    if wanted > there:
        raise ConfigError(
            f"loop.cycles={cycles} of acquisition.budget={acquisition.budget} "
            f"need {wanted} examples, but the pool has {there}"
        )
    if cycles and acquisition.pool_subset > there:
        raise ConfigError(
            f"acquisition.pool_subset={acquisition.pool_subset} is larger than the "
            f"pool of {there}"
        )


def _check_oracle(config, dataset, oracle):
    """Raise ConfigError where labels are to be handed out that nobody has."""
    nobody = isinstance(oracle, SimulatedOracle) and not oracle.simulated
    if nobody and config.loop.cycles:
        raise ConfigError(
            "the pool of this data set has no labels, so that they cannot be simulated "
            f"for loop.cycles={config.loop.cycles}: set oracle.name=folder, and people "
            "give them (see jalpose/oracles/README.md), or train on what is labelled "
            "with loop.cycles=0"
        )


def _check_methods(config, dataset, task, has_base):
    """Raise ConfigError for the run's method, or one it is to be compared with."""
    trained = int((~dataset.held_out(dataset.initial)).sum())
    compared = [from_base(config, name, config.base) for name in config.loop.compare]
    for own in (config, *compared):
        name = own.acquisition.method
        method = methods.configured(own.acquisition, name)
        methods.check_capabilities(name, task)
        budget = own.acquisition.budget
        method.check(task, num_trained=trained, budget=budget)
        given = has_base or own is not config
        _check_needs(own, name, method.needs(task), given)


def _check_needs(config, name: str, needs: Needs, given: bool):
    """Raise ConfigError where what a method needs would not be trained."""
    section = f"acquisition.{name}"
    if needs.head is not None and given and needs.head.steps < 1:
        raise ConfigError(
            f"{name} needs a head, which the base model it starts from does not "
            f"have: set {section}.steps, the steps of training the head alone, "
            f"above 0 (it is {needs.head.steps}), or train a base model of its "
            "own without config.base"
        )
    if needs.members is not None:
        for key, value, least in (
            ("members", needs.members.count, 2),
            ("steps", needs.members.steps, 1),
        ):
            if value < least:
                raise ConfigError(
                    f"{name} needs an ensemble: {section}.{key}={value} must be "
                    f"{least} or more"
                )
    if needs.companion is not None:
        for key in ("steps", "batch"):
            value = getattr(needs.companion, key)
            if value < 1:
                raise ConfigError(
                    f"{name} needs a companion: {section}.{key}={value} must be 1 or "
                    "more"
                )
    dropout = config.model.get("dropout", 0.0)
    if needs.dropout and not dropout > 0:
        raise ConfigError(
            f"{name} needs a network trained with dropout: set model.dropout above "
            f"0 (it is {dropout}), e.g. 0.05"
        )
    if needs.each_norm and config.acquisition.engine == "sketch":
        raise ConfigError(
            f"{name} with these options needs the norm for each label by itself, "
            "acquisition.engine=sketch gives only expectations of squared norms: "
            "choose ghost or exact"
        )
