"""How long trainings are, by the config alone."""

from ml_collections import ConfigDict


def steps_per_epoch(config: ConfigDict, initial: int, cycle: int) -> int:
    """Steps of an epoch of `cycle`, by the labels planned for it.

    Planned, not bought, so that a control without new labels trains as long. How many
    a budget of clicks will buy nobody knows: an epoch is then of those of the start.

    Args:
      config: of the run.
      initial: examples labelled at the start.
      cycle: from 0.
    """
    acquisition = config.acquisition
    each = acquisition.budget if acquisition.budget_unit == "images" else 0
    planned = initial + cycle * each
    share = 0.9 if config.training.heldout == "tenth" else 1.0
    return max(1, round(share * planned / config.training.batch))


def total_steps(config: ConfigDict, initial: int, cycle: int) -> int:
    """Length of the training of `cycle` in steps; the arguments as above."""
    training = config.training
    epochs, steps = (
        (training.base_epochs, training.base_steps)
        if cycle == 0
        else (training.cycle_epochs, training.cycle_steps)
    )
    return steps or round(epochs * steps_per_epoch(config, initial, cycle))


def drops(config: ConfigDict, initial: int, cycle: int, steps: int) -> tuple[int, ...]:
    """Steps at which the learning rate of a training of `cycle` drops.

    Those that `training.drop_epochs` or `training.drop_steps` name are of the network's
    training. A training of another length, of a head alone or of a member, drops where
    the same share of it is done.

    Args:
      config: of the run.
      initial: examples labelled at the start.
      cycle: from 0.
      steps: of the training.
    """
    training = config.training
    per_epoch = steps_per_epoch(config, initial, cycle)
    named = training.drop_steps or [e * per_epoch for e in training.drop_epochs]
    whole = total_steps(config, initial, cycle)
    return tuple(round(step * steps / whole) for step in named)


def steps_behind_the_last(config: ConfigDict) -> int:
    """Steps the last network of a run has behind it.

    Those of all cycles, since each goes on from the one before; with
    `training.start="fresh"` those of the last cycle alone.
    """
    last = config.loop.cycles
    first = last if config.training.start == "fresh" else 0
    initial = config.data.initial
    return sum(total_steps(config, initial, c) for c in range(first, last + 1))
