"""What an acquisition method is, takes and returns."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

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
class Method:
    """An acquisition method.

    Attributes:
      acquire: (key, probe, labelled, unlabelled ids [M], budget, **options) ->
        Selection. Options are the section of its name in `config.acquisition`.
      check: (number of possible neighbours, **options) -> None; raises ValueError
        before anything compiles where the options cannot work.
      uses_engine: its scores depend on `acquisition.engine`.
    """

    acquire: Callable[..., Selection]
    check: Callable[..., None] = lambda num_neighbours, **options: None
    uses_engine: bool = False


def highest(ids: np.ndarray, scores: np.ndarray, budget: int) -> np.ndarray:
    """The `budget` ids of the highest scores, highest first, ties by id."""
    order = np.lexsort((ids, -scores.astype(np.float64)))
    return ids[order[:budget]]
