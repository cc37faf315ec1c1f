"""BAIT: the batch that leaves the least of the pool's Fisher information unexplained.

Ash, Goel, Krishnamurthy, Kakade, "Gone Fishing: Neural Active Learning with Fisher
Embeddings", NeurIPS 2021, Algorithm 1: greedily forward to twice the budget, then
backward. The paper's form for regression in every space, see `parts.linear_model`.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import linear_model, spaces
from jalpose.settings.checks import ConfigError, at_least


@dataclasses.dataclass(frozen=True)
class Bait(spaces.Spatial):
    """Greedily the smallest trace of what the Fisher information leaves.

    Attributes:
      noise: square root of what is added to the diagonal of the information, where
        features have a mean squared length of 1.
      oversample: picks forward, in budgets; those above 1 are taken back one by one.
    """

    noise: float = 0.1
    oversample: float = 2.0
    section: ClassVar = "acquisition.bait"

    def __post_init__(self):
        """Refuse a model of too little noise, and fewer picks than the budget."""
        super().__post_init__()
        at_least(linear_model.LEAST_NOISE, **{f"{self.section}.noise": self.noise})
        if not self.oversample >= 1:
            raise ConfigError(
                f"{self.section}.oversample={self.oversample} must be at least 1"
            )

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples; nothing is drawn, ties go by id.

        The explanation has `reduction`, by which each example alone would reduce the
        trace, and `pick_reduction`, when it was chosen (NaN where it was not).

        Raises:
          FloatingPointError: a place is NaN or infinite; names the ids.
        """
        placed = self.place(key, probe, pool)
        found = linear_model.fisher_reduction(
            *placed,
            min(budget, len(pool.unlabelled)),
            ids=pool.unlabelled,
            labelled_ids=pool.labelled.ids,
            noise=self.noise,
            oversample=self.oversample,
        )
        picked = spaces.at_turn(pool, found.order, found.gains)
        return spaces.unscored(
            pool,
            found.order,
            {"reduction": found.first.astype("float32"), "pick_reduction": picked},
            {"largest_reduction": float(found.first.max())},
        )
