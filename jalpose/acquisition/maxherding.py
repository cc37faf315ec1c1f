"""MaxHerding: the examples that cover pool and labelled set best under a kernel.

Bae, Noh, Sutherland, "Generalized Coverage for More Robust Low-Budget Active
Learning", ECCV 2024, with a Gaussian kernel on unit vectors; of ProbCover (Yehuda et
al., NeurIPS 2022) it is the form without a radius that everything hangs on. See
`parts.coverage`.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import coverage, spaces


@dataclasses.dataclass(frozen=True)
class MaxHerding(spaces.Spatial):
    """The largest gains in kernel coverage.

    Attributes:
      bandwidth: of the kernel exp(-|x - y|^2 / bandwidth^2) of unit vectors.
    """

    bandwidth: float = 1.0
    section: ClassVar = "acquisition.maxherding"

    def __post_init__(self):
        """Refuse a kernel without width."""
        super().__post_init__()
        spaces.positive(self.section, bandwidth=self.bandwidth)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples; nothing is drawn, ties go by id.

        The explanation has `covered`, the kernel to the nearest labelled before the
        choice, and `pick_gain`, in mean coverage, when an example was chosen (NaN where
        it was not); the summary the mean coverage after it.

        Raises:
          FloatingPointError: a place is NaN or infinite; names the ids.
        """
        placed = self.place(key, probe, pool)
        found = coverage.covering(
            *placed,
            min(budget, len(pool.unlabelled)),
            ids=pool.unlabelled,
            labelled_ids=pool.labelled.ids,
            bandwidth=self.bandwidth,
        )
        picked = spaces.at_turn(pool, found.order, found.gains)
        return spaces.unscored(
            pool,
            found.order,
            {"covered": found.covered, "pick_gain": picked},
            {"coverage": found.coverage},
        )
