"""Labels that the data set had all along, handed out when they are bought."""

import dataclasses

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.oracles.oracle import Answers
from jalpose.tasks.labels import Truth


@dataclasses.dataclass(frozen=True)
class SimulatedOracle:
    """Answers at once, for the pool of a data set whose labels are all there.

    Attributes:
      dataset: whose truth it is.
    """

    dataset: Dataset

    @property
    def simulated(self) -> bool:
        """Has the data set labels of its pool?"""
        return self.dataset.pool_labelled

    def request(self, ids: np.ndarray) -> None:
        """Do nothing: the labels are there."""

    def answers(self, ids: np.ndarray) -> Answers | None:
        """The truth of examples of the pool; None for others, and where it has none."""
        if not self.simulated:
            return None
        if not np.isin(ids, self.dataset.pool).all():
            return None
        return Answers(ids=ids, labels=self.dataset.truth_of(ids))

    def advice(self, ids: np.ndarray) -> str:
        """Nothing can be done about examples that are in no pool."""
        outside = int((~np.isin(ids, self.dataset.pool)).sum())
        return f"{outside} of them are not in the pool of the data set"

    def revised(self, ids: np.ndarray, labels: Truth) -> Truth:
        """The same: data that changed are refused before a run goes on."""
        del ids
        return labels
