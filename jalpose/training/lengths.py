"""How long trainings are, by the config alone."""

from ml_collections import ConfigDict


def steps_per_epoch(config: ConfigDict, initial: int, cycle: int) -> int:
    """Steps of an epoch of `cycle`, by the labels planned for it.

    Planned, not bought, so that a control without new labels trains as long.

    Args:
      config: of the run.
      initial: examples labelled at the start.
      cycle: from 0.
    """
    planned = initial + cycle * config.acquisition.budget
    return max(1, round(0.9 * planned / config.training.batch))


def total_steps(config: ConfigDict, initial: int, cycle: int) -> int:
    """Length of the training of `cycle` in steps; the arguments as above."""
    training = config.training
    epochs, steps = (
        (training.base_epochs, training.base_steps)
        if cycle == 0
        else (training.cycle_epochs, training.cycle_steps)
    )
    return steps or round(epochs * steps_per_epoch(config, initial, cycle))


def steps_behind_the_last(config: ConfigDict) -> int:
    """Steps the last network of a run has behind it.

    Those of all cycles, since each goes on from the one before; with
    `training.start="fresh"` those of the last cycle alone.
    """
    last = config.loop.cycles
    first = last if config.training.start == "fresh" else 0
    initial = config.data.initial
    return sum(total_steps(config, initial, c) for c in range(first, last + 1))
