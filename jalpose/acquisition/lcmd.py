"""Largest cluster, maximum distance: the farthest example of the widest cluster.

Holzmueller, Zaverkin, Kaestner, Steinwart, "A Framework and Benchmark for Deep Batch
Active Learning for Regression", JMLR 24(164), 2023, their LCMD-TP, the best of their
benchmark: labelled examples and those chosen so far are centres, each example belongs
to its nearest, and the next is the farthest one of the cluster whose squared distances
sum to the most. Where core-set goes to whatever is farthest, and so to outliers, this
goes where many are far.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import spaces, spreading


@dataclasses.dataclass(frozen=True)
class Lcmd(spaces.Spatial):
    """The farthest examples of the largest clusters."""

    section: ClassVar = "acquisition.lcmd"

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples; nothing is drawn, ties go by id.

        The explanation has `nearest_distance`, to the labelled set before the choice,
        `pick_distance`, when an example was chosen (NaN where it was not), and
        `cluster`, the number of the nearest labelled (0 to L - 1) or chosen (from L on)
        after it. The summary has the mean squared distance to the nearest before and
        after.

        Raises:
          ValueError: nothing is labelled.
          FloatingPointError: a place is NaN or infinite; names the ids.
        """
        spaces.labelled_needed(pool, "lcmd")
        return by_spreading("lcmd", self, key, probe, pool, budget)


def by_spreading(
    rule, method: spaces.Spatial, key, probe, pool, budget, *, begun: bool = True
) -> Selection:
    """Choose by a rule of `spreading` in the space of a method.

    Args:
      rule: of `spreading.RULES`.
      method: says where examples are.
      key: of this acquisition.
      probe: see `Method.acquire`.
      pool: see there.
      budget: see there.
      begun: the labelled are centres from the beginning.
    """
    placed = method.place(key, probe, pool)
    found = spreading.spread(
        rule,
        placed.pool,
        placed.labelled if begun else placed.labelled[:0],
        min(budget, len(pool.unlabelled)),
        ids=pool.unlabelled,
        key=key,
        centre_ids=pool.labelled.ids if begun else None,
        mesh=probe.mesh,
    )
    return spaces.unscored(
        pool,
        found.order,
        {
            "nearest_distance": found.nearest,
            "pick_distance": spaces.at_turn(pool, found.order, found.distances),
            "cluster": found.clusters,
        },
        {"spread": found.spread}
        | ({"spread_before": found.spread_before} if begun else {}),
    )
