"""The options that all methods with a head share: what they build, what is allowed.

The head is one of `models.loss_prediction.HEADS`: stacks, average or conv; weight,
detach_after and steps are as in `method.Head`.
"""

from collections.abc import Callable, Collection

from jalpose.acquisition.method import Head, Requires
from jalpose.models.heads import HEADS


def requires_head(
    objective: Callable, outputs: int, *, head, weight, detach_after, steps
) -> Requires:
    """A head of that many outputs, trained by the objective."""
    return Requires(
        head=Head(
            module=HEADS[head](outputs),
            objective=objective,
            weight=weight,
            detach_after=detach_after,
            steps=steps,
        )
    )


def check_head(section: str, *, head, weight, detach_after, steps) -> None:
    """Raise ValueError for shared options that cannot work.

    Args:
      section: of the config, for the message.
      head: see above, like the rest.
    """
    one_of(f"{section}.head", head, HEADS)
    if weight <= 0:
        raise ValueError(f"{section}.weight={weight} must be above 0")
    if detach_after < 0:
        raise ValueError(f"{section}.detach_after={detach_after} must not be negative")
    if steps < 1:
        raise ValueError(
            f"{section}.steps={steps} must be at least 1: the base model may have been "
            "trained without this head"
        )


def one_of(key: str, value: str, known: Collection[str]) -> None:
    """Raise ValueError where the value of a config key is not one of those known."""
    if value not in known:
        raise ValueError(f"Unknown {key}={value!r}. Known: {', '.join(known)}.")
