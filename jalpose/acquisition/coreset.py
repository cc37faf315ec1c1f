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

import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.acquisition.parts import kcenter


@dataclasses.dataclass(frozen=True)
class CoreSet(Method):
    """Coverage of the pool by k-centre greedy in the embedding."""

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples, each the farthest from all labelled and chosen.

        All labelled examples are centres, held-out ones too: their labels are bought,
        and one like them would be bought a second time. What they teach is the schedule
        and the choice of weights alone; but they are a random tenth, and whatever
        region of the pool they lie in has nine others on average that are trained on.

        There is no score of an example by itself, so scores are NaN: how far an example
        is depends on what was chosen before it. The explanation has `nearest_distance`,
        to the labelled set before the choice, and `pick_distance`, at the time an
        example was chosen (NaN where it was not). The summary has the covering radius,
        the largest distance of the examples given to their nearest centre, before and
        after. Nothing is drawn; ties go by id.

        Raises:
          ValueError: nothing is labelled.
          FloatingPointError: an embedding is NaN or infinite; names the ids.
        """
        del key
        unlabelled, labelled = pool
        if not len(labelled.ids):
            raise ValueError(
                "core-set needs labelled examples to be far from, and there are none: "
                "set data.initial above 0"
            )
        cover = kcenter.greedy(
            probe.embeddings(unlabelled),
            probe.embeddings(labelled.ids),
            min(budget, len(unlabelled)),
            ids=unlabelled,
            centre_ids=labelled.ids,
            mesh=probe.mesh,
        )
        picked = np.full(len(unlabelled), np.nan, np.float32)
        picked[cover.order] = cover.distances
        return Selection(
            indices=unlabelled[cover.order],
            scores=np.full(len(unlabelled), np.nan, np.float32),
            explanation={"nearest_distance": cover.nearest, "pick_distance": picked},
            summary={
                "covering_radius_before": float(cover.nearest.max()),
                "covering_radius": cover.radius,
                "last_pick_distance": float(cover.distances[-1]),
            },
        )
