"""Where a run is: a cycle, what is labelled, and the phase under way."""

import dataclasses
from typing import Any

import numpy as np

from jalpose.storage.journal import Journal
from jalpose.training.companion import CompanionState
from jalpose.training.trainer import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The phase of one of a cycle's trainings, or of its end.

    Attributes:
      train: the data position is `train.step` batches; of a companion's training it
        is a `CompanionState`.
      stage: which of `context.plan.of(cycle)`.
      variables: what the stages before it left; {} in the first.
    """

    train: TrainState | CompanionState
    stage: int = 0
    variables: Any = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scoring the pool with a trained network; the journal holds finished blocks.

    Attributes:
      variables: of the network.
      journal: of the passes.
      peak_bytes: of the largest pass so far, in this process.
    """

    variables: Any
    journal: Journal
    peak_bytes: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring:
    """Examples are chosen; measuring the choice by labels the method did not see.

    Attributes:
      variables: of the network that chose.
      journal: of the passes, those of the scoring too.
      chosen: int64 [budget], example ids.
      scores: float32 [M], of all that were scored.
    """

    variables: Any
    journal: Journal
    chosen: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwaitingLabels:
    """Examples are chosen; their labels are not there yet."""

    variables: Any
    chosen: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """All cycles are finished."""

    variables: Any


Phase = Training | Scoring | Measuring | AwaitingLabels | Done


@dataclasses.dataclass(frozen=True, kw_only=True)
class CycleState:
    """Where a run is.

    Attributes:
      cycle: acquisitions finished; 0 while the base model is trained and used.
      labelled: int64, example ids in the order they were labelled.
      answers: labels that were bought, by name: arrays with a row for each of the last
        ids of `labelled`, as the oracle gave them; {} before the first.
      rejected: int64, examples of the pool that nobody can label.
      phase: what is under way.
    """

    cycle: int
    labelled: np.ndarray
    phase: Phase
    answers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rejected: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int64)
    )

    @property
    def taken(self) -> np.ndarray:
        """Examples that are no longer to be chosen: labelled, or rejected."""
        if not len(self.rejected):
            return self.labelled
        return np.concatenate([self.labelled, self.rejected])

    @property
    def bought(self) -> np.ndarray:
        """Examples that `answers` are of, in their order."""
        count = len(next(iter(self.answers.values()))) if self.answers else 0
        return self.labelled[len(self.labelled) - count :]
