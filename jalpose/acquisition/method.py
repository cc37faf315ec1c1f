"""The contract of an acquisition method: what it takes, needs and returns."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from jalpose.data.dataset import Labelled
from jalpose.scoring.probe import Probe
from jalpose.tasks.task import Task
from jalpose.training.needs import NOTHING, Needs


class Pool(NamedTuple):
    """What a method chooses from, and what is labelled already.

    Attributes:
      unlabelled: int64 [M], ids to choose among, rising.
      labelled: the labelled set.
    """

    unlabelled: np.ndarray
    labelled: Labelled


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


class Method(Protocol):
    """An acquisition method: a frozen dataclass whose fields are its options.

    Of the fields the section `config.acquisition.<name>` is made, with their defaults;
    `__post_init__` checks them and raises ConfigError, naming the key. An own method
    names this class as its base to inherit what it leaves as it is.

    Attributes:
      capabilities: of `tasks.task.CAPABILITIES`, those its task must have.
      uses_engine: its scores depend on `acquisition.engine`.
      scales: what the scales tiny and small change of its fields.
      presets: what a config that names this method changes beside its section, by
        dotted key.
    """

    capabilities: ClassVar[tuple[str, ...]] = ()
    uses_engine: ClassVar[bool] = False
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    presets: ClassVar[Mapping[str, Any]] = {}

    def check(self, task: Task, *, num_trained: int, budget: int) -> None:
        """Raise ConfigError, before anything compiles, for what cannot work.

        Args:
          task: has the capabilities asked for.
          num_trained: examples labelled at the start and not held out.
          budget: examples chosen a cycle.
        """
        del task, num_trained, budget

    def needs(self, task: Task) -> Needs:
        """What has to be trained for it; equal for equal tasks."""
        del task
        return NOTHING

    def acquire(self, key, probe: Probe, pool: Pool, budget: int) -> Selection:
        """Choose `budget` of the unlabelled.

        Called again from its beginning after a pause: all it draws comes from the key.

        Args:
          key: of this acquisition.
          probe: of the trained network.
          pool: to choose from.
          budget: how many to choose.
        """
        ...


def highest(ids: np.ndarray, scores: np.ndarray, budget: int, ties=None) -> np.ndarray:
    """The `budget` ids of the highest scores, highest first.

    Of equal scores the highest of `ties` [M] come first, if there are any, then the
    lowest ids.
    """
    keys = [
        -np.asarray(values, np.float64)
        for values in (ties, scores)
        if values is not None
    ]
    order = np.lexsort((ids, *keys))
    return ids[order[:budget]]


def by_score(
    ids, scores, budget, explanation=None, summary=None, ties=None
) -> Selection:
    """Select the `budget` examples of the highest scores; ties as of `highest`.

    Args:
      ids: int64 [M], example ids.
      scores: [M], higher is more informative.
      budget: how many to choose.
      explanation: see `Selection`; None: nothing.
      summary: see `Selection`; None: nothing.
      ties: [M], to order equal scores by; None: by id.

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
        indices=highest(ids, scores, budget, ties),
        scores=scores,
        explanation=explanation or {},
        summary=summary or {},
    )
