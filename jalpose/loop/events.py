"""What one piece of a run's work brought: a kind of event each."""

import dataclasses
from typing import Any

import numpy as np

from jalpose.runtime.throughput import Meter

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """What every event has.

    Attributes:
      cycle: in which it happened.
      meter: what the piece of work took.
    """

    cycle: int
    meter: Meter = dataclasses.field(default_factory=Meter)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepsTaken(Event):
    """Some training steps.

    Attributes:
      stage: name of the training.
      step: steps taken in it.
      total: steps it has.
      means: over these steps, of each thing a step tells: loss, head_loss.
      heldout_loss: where it was measured at the end of them.
      learning_rate_scale: likewise, what a plateau has left of the rate.
    """

    stage: str
    step: int
    total: int
    means: dict[str, float]
    heldout_loss: float | None = None
    learning_rate_scale: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageBegun(Event):
    """The next of a cycle's trainings begins."""

    stage: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained(Event):
    """A model is finished and scored on the test set.

    Attributes:
      num_labelled: labels it was trained on, held-out ones counted.
      metrics: for the record.
      arrays: for the record.
      variables: of the model.
    """

    num_labelled: int
    metrics: dict[str, Any]
    arrays: Arrays
    variables: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passed(Event):
    """Some blocks of a pass over examples.

    Attributes:
      measuring: of the choice; else for it.
      name: of the pass.
      done: examples.
      total: examples.
    """

    measuring: bool
    name: str
    done: int
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selected(Event):
    """A method has chosen.

    Attributes:
      acquisition: for the record: method, budget, num_scored, ...
      arrays: for the record: ids, scores, selected and the explanation.
    """

    acquisition: dict[str, Any]
    arrays: Arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured(Event):
    """The choice is measured.

    Attributes:
      measures: for the record.
      arrays: for the record.
    """

    measures: dict[str, Any]
    arrays: Arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelsCame(Event):
    """The labels of the last choice are there; the next cycle begins.

    Attributes:
      asked: examples asked for.
      count: of them, those that are labelled.
      rejected: of them, those that nobody can label.
    """

    asked: int
    count: int
    rejected: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting(Event):
    """The labels of the last choice are not there yet."""

    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """All cycles are finished: nothing was done."""
