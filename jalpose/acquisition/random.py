"""Uniformly random choice: the baseline every method has to beat."""

import dataclasses

import jax
import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection, highest
from jalpose.scoring.passes import example_keys


@dataclasses.dataclass(frozen=True)
class Random(Method):
    """A draw without replacement."""

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` of the unlabelled without replacement.

        Each example draws a number from the key folded with its id, so the choice does
        not depend on the order or the number of the others.
        """
        del probe
        ids = pool.unlabelled
        draws = jax.vmap(jax.random.uniform)(example_keys(key, ids))
        return Selection(
            indices=highest(ids, np.asarray(draws), budget),
            scores=np.full(len(ids), np.nan, np.float32),
            explanation={},
            summary={},
        )
