"""Scores with diversity: the best-scored share, and of it a batch that is spread out.

The papers' methods choose the highest scores, and near copies of one hard example score
alike; in the largest benchmark of batch selection (Holzmueller et al., JMLR 24(164),
2023, Table 1) the highest scores alone do worse than random and what spreads the batch
wins. Here a method's own order gives the share, and a second method chooses from it as
if it were the pool.
"""

import dataclasses
import math

import jax
import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.acquisition.parts.spaces import Spatial
from jalpose.settings.checks import ConfigError
from jalpose.training.needs import NOTHING, Needs


@dataclasses.dataclass(frozen=True)
class Diverse:
    """Two methods one after the other.

    Attributes:
      scoring: says which examples are the best.
      spreading: chooses among them.
      share: of the examples scored that are the best, in (0, 1]; never fewer than the
        budget.
    """

    scoring: Method
    spreading: Method
    share: float

    def __post_init__(self):
        """Refuse a second method that spreads nothing, and a share of nothing."""
        if not isinstance(self.spreading, Spatial):
            raise ConfigError(
                "acquisition.diverse must name a method that goes by how far examples "
                "are apart, e.g. lcmd, kmeanspp or coreset"
            )
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"acquisition.diverse_share={self.share} must be above 0 and at most 1"
            )

    @property
    def uses_engine(self) -> bool:
        """Do its choices depend on `acquisition.engine`?"""
        return self.scoring.uses_engine or self.spreading.uses_engine

    def check(self, task, *, num_trained: int, budget: int) -> None:
        """Refuse what either method refuses."""
        for method in (self.scoring, self.spreading):
            method.check(task, num_trained=num_trained, budget=budget)

    def needs(self, task) -> Needs:
        """What has to be trained: for the scores, since the other needs nothing."""
        assert self.spreading.needs(task) == NOTHING
        return self.scoring.needs(task)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` of the best examples.

        Scores and explanation are the scoring method's, and of the spreading method's
        explanation NaN or -1 where an example was not among the best. The summary says
        how many those were (`diverse_among`).
        """
        ids = pool.unlabelled
        count = min(len(ids), max(budget, math.ceil(self.share * len(ids))))
        # The scoring method gets the key it has by itself: the same scores.
        scored = self.scoring.acquire(key, probe, pool, count)
        best = np.sort(scored.indices)
        rest = Pool(unlabelled=best, labelled=pool.labelled)
        spread = self.spreading.acquire(jax.random.fold_in(key, 1), probe, rest, budget)
        places = {int(i): row for row, i in enumerate(ids)}
        rows = np.array([places[int(i)] for i in best])
        explanation = {
            name: _scattered(values, rows, len(ids))
            for name, values in spread.explanation.items()
        }
        return Selection(
            indices=spread.indices,
            scores=scored.scores,
            explanation={**scored.explanation, **explanation},
            summary={**scored.summary, **spread.summary, "diverse_among": count},
        )


def _scattered(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    nothing = np.nan if values.dtype.kind == "f" else -1
    found = np.full((count, *values.shape[1:]), nothing, values.dtype)
    found[rows] = values
    return found
