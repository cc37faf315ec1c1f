"""Largest determinant: each example of the largest variance under a linear model.

Holzmueller et al., JMLR 24(164), 2023, their MaxDet-TP: greedy for the determinant of
the batch's kernel matrix, given the labelled; for a Gaussian model the same as
BatchBALD (Kirsch, van Amersfoort, Gal, NeurIPS 2019). See `parts.linear_model`.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import linear_model, spaces
from jalpose.settings.checks import at_least


@dataclasses.dataclass(frozen=True)
class MaxDet(spaces.Spatial):
    """Greedily the largest determinant of the batch's kernel matrix.

    Attributes:
      noise: standard deviation of an observation, where features have a mean squared
        length of 1.
    """

    noise: float = 1e-3
    section: ClassVar = "acquisition.maxdet"

    def __post_init__(self):
        """Refuse a model of too little noise."""
        super().__post_init__()
        at_least(linear_model.LEAST_NOISE, **{f"{self.section}.noise": self.noise})

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples; nothing is drawn, ties go by id.

        The explanation has `variance`, of each example before the choice, and
        `pick_variance`, when it was chosen (NaN where it was not).

        Raises:
          FloatingPointError: a place is NaN or infinite; names the ids.
        """
        placed = self.place(key, probe, pool)
        found = linear_model.largest_determinant(
            *placed,
            min(budget, len(pool.unlabelled)),
            ids=pool.unlabelled,
            labelled_ids=pool.labelled.ids,
            noise=self.noise,
        )
        picked = spaces.at_turn(pool, found.order, found.gains)
        return spaces.unscored(
            pool,
            found.order,
            {"variance": found.first.astype("float32"), "pick_variance": picked},
            {"mean_variance_before": float(found.first.mean())},
        )
