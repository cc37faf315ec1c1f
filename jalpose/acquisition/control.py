"""No choice at all: train as many further steps without new labels.

What a method gains over this control is owed to its labels, not to its training.
"""

import dataclasses

import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection


@dataclasses.dataclass(frozen=True)
class Control(Method):
    """The same training without any choice."""

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose nothing."""
        del key, probe, budget
        return Selection(
            indices=np.zeros(0, np.int64),
            scores=np.full(len(pool.unlabelled), np.nan, np.float32),
            explanation={},
            summary={},
        )
