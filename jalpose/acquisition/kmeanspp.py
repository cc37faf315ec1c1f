"""k-means++: examples drawn with probability proportional to their squared distance.

Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007; as an
acquisition with the labelled examples as centres from the beginning, Holzmueller et
al., JMLR 24(164), 2023, their KMeansPP-TP. A draw goes to what is far, as core-set
does, but to a crowd of the nearly far more often than to one outlier.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.lcmd import by_spreading
from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import spaces


@dataclasses.dataclass(frozen=True)
class KMeansPlusPlus(spaces.Spatial):
    """Draws by squared distance to what is labelled and chosen."""

    section: ClassVar = "acquisition.kmeanspp"

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples; draws go by the key and the ids, ties by id.

        Explanation and summary are those of `lcmd`.

        Raises:
          ValueError: nothing is labelled.
          FloatingPointError: a place is NaN or infinite; names the ids.
        """
        spaces.labelled_needed(pool, "kmeanspp")
        return by_spreading("kmeanspp", self, key, probe, pool, budget)
