"""What a method needs to be trained beside the network."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Head:
    """A network on top of the network's features, and how it is trained.

    Attributes:
      module: Linen module, `Output` -> float32 [B, O].
      objective: (outputs [B, O], `objectives.Truth`) -> scalar, of one batch.
      weight: of the objective beside the task's loss (Learning Loss's lambda).
      detach_after: epochs of a training after which the objective's gradient no
        longer reaches the network; 0: it never does.
      steps: of training the head alone on a finished model that has none.
    """

    module: Any
    objective: Callable
    weight: float = 1.0
    detach_after: float = 0.0
    steps: int = 0


@dataclasses.dataclass(frozen=True)
class Members:
    """A committee of networks, each trained on a bootstrap of the labels.

    Attributes:
      count: of networks, 2 or more.
      steps: of each one's training in every cycle.
      start: warm (from the cycle's network) | fresh (new weights).
    """

    count: int
    steps: int
    start: str


@dataclasses.dataclass(frozen=True)
class Companion:
    """A model beside the network, trained after it on labelled and unlabelled images.

    It starts from new weights in every cycle that chooses. The network does not move.

    Attributes:
      learner: what is trained and how, a `companion.Learner`; equal for equal options.
      steps: of its training.
      batch: labelled images a step, over all devices, and as many unlabelled ones.
    """

    learner: Any
    steps: int
    batch: int


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a method needs that is not there without it.

    Attributes:
      head: trained with the network, or alone on a finished one; its output is the
        field `head` of the `Output` that `Probe.reduce` gives.
      members: trained after the network; `Probe.reduce(..., over="members")`.
      companion: trained after network and members on the labelled and on what is
        scored; `Probe.reduce(..., over="companion")`.
      dropout: the network is to have `model.dropout` above 0;
        `Probe.reduce(..., over="dropout")`.
      each_norm: gradient norms of each label by itself, not only the expectation of
        their squares.
    """

    head: Head | None = None
    members: Members | None = None
    companion: Companion | None = None
    dropout: bool = False
    each_norm: bool = False


NOTHING = Needs()
