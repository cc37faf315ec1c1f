"""What the methods with several predictions of one example share: how they differ."""

import functools
from typing import Any

from jalpose.settings.checks import ConfigError, at_least, one_of
from jalpose.training.needs import Members

# Of a member's training: from the cycle's network | from new weights.
STARTS = ("warm", "fresh")

# Names of passes in journals, which are older than those of the measures.
_PASSES = {"prediction": "heatmaps", "decoded": "joints"}


@functools.cache
def disagreement(task, measure: str):
    """The reduction of an example's K predictions to how much they differ, by site.

    The same object for equal arguments.

    Args:
      task: has the capability `disagreement`; see it for the measures' units.
      measure: "prediction": of the predictions as they are, of poses the variance of
        heatmaps. "decoded": of what is read off them, of poses the variance of the
        joints' positions.
    """

    def reduction(output, key):
        del key
        return {"variance": task.disagreement(output.prediction, measure)}

    # The probe's journal goes by this name.
    reduction.__name__ = f"disagreement_{_PASSES.get(measure, measure)}"
    return reduction


def members_of(options: Any) -> Members:
    """The committee that a method's fields members, steps and start describe."""
    return Members(count=options.members, steps=options.steps, start=options.start)


def check_members(section: str, options: Any) -> None:
    """Raise ConfigError for a committee that cannot be trained.

    Args:
      section: of the config, for the message.
      options: with the fields members, steps and start.
    """
    at_least(2, **{f"{section}.members": options.members})
    if options.steps < 1:
        raise ConfigError(
            f"{section}.steps={options.steps} must be at least 1: every member is "
            "trained on a bootstrap of the labelled set in each cycle"
        )
    one_of(f"{section}.start", options.start, STARTS)


def check_measure(section: str, measure: str, task) -> None:
    """Raise ConfigError for a measure of disagreement that the task does not have."""
    one_of(f"{section}.measure", measure, task.measures)
