"""The options that all methods with a head share: what they build, what is allowed."""

from collections.abc import Callable
from typing import Any

from jalpose.models.heads import HEADS
from jalpose.settings.checks import ConfigError, above, one_of
from jalpose.training.needs import Head, Needs


def needs_head(options: Any, objective: Callable, *, outputs: int) -> Needs:
    """A head of that many outputs, trained by the objective.

    Args:
      options: a method with the fields head, weight, detach_after and steps.
      objective: the same object for equal options.
      outputs: numbers predicted.
    """
    return Needs(
        head=Head(
            module=HEADS[options.head](outputs),
            objective=objective,
            weight=options.weight,
            detach_after=options.detach_after,
            steps=options.steps,
        )
    )


def check_head(section: str, options: Any) -> None:
    """Raise ConfigError for shared options that cannot work.

    Args:
      section: of the config, for the message.
      options: with the fields head, weight, detach_after and steps.
    """
    one_of(f"{section}.head", options.head, HEADS)
    above(0, **{f"{section}.weight": options.weight})
    if options.detach_after < 0:
        raise ConfigError(
            f"{section}.detach_after={options.detach_after} must not be negative"
        )
    if options.steps < 1:
        raise ConfigError(
            f"{section}.steps={options.steps} must be at least 1: the base model may "
            "have been trained without this head"
        )
