"""TypiClust: typical examples of the clusters that labels have not reached.

Hacohen, Dekel, Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High
and Low Budgets", ICML 2022: for few labels, where what is odd is not worth its label
yet. The paper's features are of a network trained without labels; here they are those
of the network at hand. See `parts.coverage`.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import coverage, spaces


@dataclasses.dataclass(frozen=True)
class TypiClust(spaces.Spatial):
    """The most typical examples of the largest clusters without labels.

    Attributes:
      clusters: at most so many; else one for each labelled example and pick.
      smallest: clusters of fewer examples come last.
      neighbours: whose mean distance says how typical an example is.
    """

    clusters: int = 500
    smallest: int = 5
    neighbours: int = 20
    section: ClassVar = "acquisition.typiclust"

    def __post_init__(self):
        """Refuse numbers below 1."""
        super().__post_init__()
        spaces.positive(
            self.section,
            clusters=self.clusters,
            smallest=self.smallest,
            neighbours=self.neighbours,
        )

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples; the key draws the first centres, ties go by id.

        The explanation has `typicality`, 1 over the mean distance to the nearest
        neighbours, and `cluster`.

        Raises:
          FloatingPointError: a place is NaN or infinite; names the ids.
        """
        placed = self.place(key, probe, pool)
        found = coverage.typical_of_clusters(
            *placed,
            min(budget, len(pool.unlabelled)),
            ids=pool.unlabelled,
            key=key,
            labelled_ids=pool.labelled.ids,
            most_clusters=self.clusters,
            smallest=self.smallest,
            neighbours=self.neighbours,
            mesh=probe.mesh,
        )
        return spaces.unscored(
            pool,
            found.order,
            {"typicality": found.typicality, "cluster": found.clusters},
            {"clusters": len(set(found.clusters.tolist()))},
        )
