"""Core-set: the examples that cover the pool best, by k-centre greedy.

Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
Approach", ICLR 2018, Algorithm 1; for poses as in Yoo & Kweon, CVPR 2019, and the
published code of EGL++: the Euclidean distance between raw embeddings, of poses the
global average of the features before the last stack's heatmaps, of classes the
features that the last layer reads. The paper's
mixed-integer programme, which leaves outliers uncovered, is not used there, and not
here.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import kcenter, spaces


@dataclasses.dataclass(frozen=True)
class CoreSet(spaces.Spatial):
    """Coverage of the pool by k-centre greedy, as published in the embedding."""

    section: ClassVar = "acquisition.coreset"
    scales: ClassVar = {}  # as of runs from before there were gradients

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples, each the farthest from all labelled and chosen.

        The explanation has `nearest_distance`, to the labelled set before the choice,
        and `pick_distance`, when an example was chosen (NaN where it was not). The
        summary has the covering radius, the largest distance of the examples given to
        their nearest centre, before and after. Nothing is drawn; ties go by id.

        Raises:
          ValueError: nothing is labelled.
          FloatingPointError: an embedding is NaN or infinite; names the ids.
        """
        spaces.labelled_needed(pool, "core-set")
        placed = self.place(key, probe, pool)
        cover = kcenter.greedy(
            *placed,
            min(budget, len(pool.unlabelled)),
            ids=pool.unlabelled,
            centre_ids=pool.labelled.ids,
            mesh=probe.mesh,
        )
        return spaces.unscored(
            pool,
            cover.order,
            {
                "nearest_distance": cover.nearest,
                "pick_distance": spaces.at_turn(pool, cover.order, cover.distances),
            },
            {
                "covering_radius_before": float(cover.nearest.max()),
                "covering_radius": cover.radius,
                "last_pick_distance": float(cover.distances[-1]),
            },
        )
