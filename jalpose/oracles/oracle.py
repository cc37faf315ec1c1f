"""The contract of an oracle: asked for labels, it has them at once or later."""

from typing import Protocol, runtime_checkable

import numpy as np


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

    def answers(self, ids: np.ndarray) -> dict[str, np.ndarray] | None:
        """Labels of examples, in pixels of the image; None while one is missing.

        Returns:
          The arrays of `Dataset.truth` for these examples: [len(ids), ...] by name.
        """
        ...
