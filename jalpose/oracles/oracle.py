"""The contract of an oracle: asked for labels, it has them at once or later."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jalpose.tasks.labels import Truth


class LabelsError(ValueError):
    """Labels that came back cannot be taken as they are."""


class LabelsAwaited(Exception):
    """A run has asked people for labels, and goes on when they are there."""


class Answers(NamedTuple):
    """What an oracle says to a request.

    Attributes:
      ids: int64 [n], those of the examples asked for that are labelled, in the order
        they were asked for.
      labels: arrays of `Dataset.truth` for `ids`: [n, ...] by name, in pixels of the
        image.
      rejected: int64 [m], those that nobody can label: they leave the pool. What was
        asked for and is in neither stays there.
    """

    ids: np.ndarray
    labels: Truth
    rejected: np.ndarray = np.zeros(0, np.int64)


@runtime_checkable
class Oracle(Protocol):
    """Whoever labels what a method chose.

    Attributes:
      simulated: the truth of the whole pool is at hand, so that choices can be measured
        by labels that were not bought.
    """

    @property
    def simulated(self) -> bool:
        """Is the truth of the whole pool at hand?"""
        ...

    def request(self, ids: np.ndarray) -> None:
        """Ask for the labels of examples; asked again it does nothing more."""
        ...

    def answers(self, ids: np.ndarray) -> Answers | None:
        """Labels of examples; None while there are not enough of them.

        Raises:
          LabelsError: there are labels that cannot be taken.
        """
        ...

    def advice(self, ids: np.ndarray) -> str:
        """A sentence on what to do while the labels of examples are missing."""
        ...

    def revised(self, ids: np.ndarray, labels: Truth) -> Truth:
        """Labels that were taken before, as they are to be gone on with.

        Args:
          ids: int64 [n].
          labels: of these, as they were taken.

        Returns:
          The very same, or others where they were corrected since.

        Raises:
          LabelsError: they were corrected, and nobody has said what is to follow.
        """
        ...
