"""Uniformly random choice: the baseline every method has to beat."""

import jax
import numpy as np

from jalpose.acquisition.method import Method, Selection, highest
from jalpose.scoring.passes import example_keys


def acquire(key, probe, labelled, unlabelled, budget) -> Selection:
    """Choose `budget` of `unlabelled` without replacement.

    Each example draws a number from the key folded with its id, so the choice does
    not depend on the order or the number of the others.
    """
    del probe, labelled
    draws = jax.vmap(jax.random.uniform)(example_keys(key, unlabelled))
    return Selection(
        indices=highest(unlabelled, np.asarray(draws), budget),
        scores=np.full(len(unlabelled), np.nan, np.float32),
        explanation={},
        summary={},
    )


METHOD = Method(acquire)
