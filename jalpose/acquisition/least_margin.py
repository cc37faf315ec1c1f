"""Least margin: the two most probable values are nearly as probable as each other.

Scheffer, Decomain & Wrobel, IDA 2001. The score is 1 - (P_1 - P_2), P_1 and P_2 the
highest probabilities under the softmax posterior, of a task with several sites the mean
over them.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts import posteriors
from jalpose.settings.checks import above


@dataclasses.dataclass(frozen=True)
class LeastMargin(Method):
    """Margin between the probabilities of the two most probable values.

    Attributes:
      temperature: of the softmax, above 0, in units of the prediction; 1 is the
        posterior that the network was trained for, if it is of classes.
    """

    temperature: float = 1.0

    capabilities: ClassVar = ("posterior",)

    def __post_init__(self):
        """Refuse a temperature there is no softmax at."""
        above(0, acquisition__least_margin__temperature=self.temperature)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the smallest mean margin over sites.

        Nothing is drawn.

        Raises:
          FloatingPointError: a prediction has a NaN; names the example ids.
        """
        del key
        ids = pool.unlabelled
        found = posteriors.of_sites(
            probe, ids, "least_margin", posteriors.closeness, self.temperature
        )
        return by_score(
            ids, found.mean(axis=1), budget, explanation={"site_uncertainty": found}
        )
