"""What an acquisition method is, takes and returns."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Labelled(NamedTuple):
    """The labelled set as a method sees it.

    Attributes:
      ids: int64 [L], example ids.
      joints: float32 [L, J, 2], crop pixels; 0 where not present.
      present: bool [L, J].
      held_out: bool [L]; a held-out example is labelled but never a neighbour.
    """

    ids: np.ndarray
    joints: np.ndarray
    present: np.ndarray
    held_out: np.ndarray


class Selection(NamedTuple):
    """What a method chose, and why.

    Attributes:
      indices: int64 [budget], example ids, the most informative first.
      scores: float32 [M], of all unlabelled examples it was given, higher is more
        informative; NaN where the method gives no score.
      explanation: arrays with a row for each of the M examples, for the records.
      summary: numbers about the whole acquisition, for the cycle's record.
    """

    indices: np.ndarray
    scores: np.ndarray
    explanation: dict[str, np.ndarray]
    summary: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Head:
    """A network on top of the pose network's features, and how it is trained.

    Attributes:
      module: Linen module, `PoseOutput` -> float32 [B, O].
      objective: (outputs [B, O], `objectives.Truth`) -> scalar, of one batch.
      weight: of the objective beside the pose loss (Learning Loss's lambda).
      detach_after: epochs of a training after which the objective's gradient no
        longer reaches the pose network; 0: it never does.
      steps: of training the head alone on a finished model that has none.
    """

    module: Any
    objective: Callable
    weight: float = 1.0
    detach_after: float = 0.0
    steps: int = 0


@dataclasses.dataclass(frozen=True)
class Members:
    """A committee of pose networks, each trained on a bootstrap of the labels.

    Attributes:
      count: of networks, 2 or more.
      steps: of each one's training in every cycle.
      start: warm (from the cycle's pose network) | fresh (new weights).
    """

    count: int
    steps: int
    start: str


@dataclasses.dataclass(frozen=True)
class Requires:
    """What a method needs to be trained beside the pose network.

    Attributes:
      head: trained with the pose network, or alone on a finished one; its output is
        the field `head` of the `PoseOutput` that `Probe.reduce` gives.
      members: trained after the pose network; `Probe.reduce(..., over="members")`.
      dropout: the pose network is to have `model.dropout` above 0;
        `Probe.reduce(..., over="dropout")`.
      each_norm: gradient norms of each label by itself, not only the expectation of
        their squares.
    """

    head: Head | None = None
    members: Members | None = None
    dropout: bool = False
    each_norm: bool = False


NOTHING = Requires()


@dataclasses.dataclass(frozen=True)
class Method:
    """An acquisition method.

    Attributes:
      acquire: (key, probe, labelled, unlabelled ids [M], budget, **options) ->
        Selection. Options are the section of its name in `config.acquisition`.
      check: (number of possible neighbours, **options) -> None; raises ValueError
        before anything compiles where the options cannot work.
      uses_engine: its scores depend on `acquisition.engine`.
      requires: (skeleton, **options) -> what has to be trained for it; equal for
        equal arguments.
    """

    acquire: Callable[..., Selection]
    check: Callable[..., None] = lambda num_neighbours, **options: None
    uses_engine: bool = False
    requires: Callable[..., Requires] = lambda skeleton, **options: NOTHING


def highest(ids: np.ndarray, scores: np.ndarray, budget: int) -> np.ndarray:
    """The `budget` ids of the highest scores, highest first, ties by id."""
    order = np.lexsort((ids, -scores.astype(np.float64)))
    return ids[order[:budget]]


def by_score(ids, scores, budget, explanation=None, summary=None) -> Selection:
    """Select the `budget` examples of the highest scores, ties by id.

    Args:
      ids: int64 [M], example ids.
      scores: [M], higher is more informative.
      budget: how many to choose.
      explanation: see `Selection`; None: nothing.
      summary: see `Selection`; None: nothing.

    Raises:
      FloatingPointError: a score is NaN or infinite; names the example ids.
    """
    scores = np.asarray(scores, np.float32)
    bad = ids[~np.isfinite(scores)]
    if len(bad):
        listed = ", ".join(f"id {i}" for i in bad[:10])
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise FloatingPointError(
            f"the score of {len(bad)} of {len(ids)} examples is NaN or infinite: "
            f"{listed}{more}. Weights that diverged, or an image with NaN: lower "
            "training.learning_rate or set training.clip_norm, or look at these images"
        )
    return Selection(
        indices=highest(ids, scores, budget),
        scores=scores,
        explanation=explanation or {},
        summary=summary or {},
    )
