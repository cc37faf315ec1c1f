"""What examples are points of, for methods that go by how far these are apart."""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.settings.checks import ConfigError, one_of

SPACES = ("embedding",)


class Placed(NamedTuple):
    """Where examples are.

    Attributes:
      pool: float32 [M, C], of the unlabelled.
      labelled: float32 [L, C].
    """

    pool: np.ndarray
    labelled: np.ndarray


@dataclasses.dataclass(frozen=True)
class Spatial(Method):
    """A method that goes by the places of examples alone.

    There is no score of an example by itself: what it is worth depends on what was
    chosen before it. So scores are NaN, and the explanation says what it was worth when
    its turn came.

    All labelled examples count as there, held-out ones too: their labels are bought,
    and one like them would be bought a second time. What they teach is the schedule and
    the choice of weights alone; but they are a random tenth, and whatever region of the
    pool they lie in has nine others on average that are trained on.

    Attributes:
      space: embedding (the features before the network's last layer).
    """

    space: str = "embedding"
    section: ClassVar[str] = ""  # of the config, for messages

    def __post_init__(self):
        """Refuse a space that there is not."""
        one_of(f"{self.section}.space", self.space, SPACES)

    def place(self, key, probe, pool: Pool) -> Placed:
        """Find where the unlabelled and the labelled are."""
        del key
        unlabelled, labelled = probe.embeddings(pool.unlabelled), pool.labelled.ids
        if not len(labelled):  # a pass of nothing has no width
            return Placed(unlabelled, unlabelled[:0])
        return Placed(unlabelled, probe.embeddings(labelled))


def unscored(pool: Pool, order, explanation, summary) -> Selection:
    """A selection of rows of the unlabelled in this order, without scores."""
    return Selection(
        indices=pool.unlabelled[order],
        scores=np.full(len(pool.unlabelled), np.nan, np.float32),
        explanation=explanation,
        summary=summary,
    )


def at_turn(pool: Pool, order, values) -> np.ndarray:
    """What the chosen were worth when their turn came: float32 [M], NaN of others."""
    found = np.full(len(pool.unlabelled), np.nan, np.float32)
    found[order] = values
    return found


def labelled_needed(pool: Pool, name: str) -> None:
    """Raise ValueError where nothing is labelled."""
    if not len(pool.labelled.ids):
        raise ValueError(
            f"{name} needs labelled examples to be far from, and there are none: set "
            "data.initial above 0"
        )


def positive(section: str, **values) -> None:
    """Raise ConfigError for options that must be above 0 and are not."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{section}.{name}={value} must be above 0")
