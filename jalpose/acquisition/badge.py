"""BADGE: k-means++ over gradients under what the network itself would answer.

Ash, Zhang, Krishnamurthy, Langford, Agarwal, "Deep Batch Active Learning by Diverse,
Uncertain Gradient Lower Bounds", ICLR 2020, Algorithm 1: an example's gradient under
its most likely label is long where the network is unsure, and draws by squared distance
among those chosen so far (the labelled are no centres) spread the batch. The paper
takes the gradient of a classifier's last layer, as here with `layers="last"`; by
default it is that of all layers. Either is randomly projected, of any task.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.lcmd import by_spreading
from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import spaces


@dataclasses.dataclass(frozen=True)
class Badge(spaces.Spatial):
    """Draws by squared distance between gradients under the predicted label."""

    space: str = "gradients"
    cotangents: str = "predicted"
    section: ClassVar = "acquisition.badge"
    capabilities: ClassVar = ("predicted_label",)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples; draws go by the key and the ids, ties by id.

        The first is that of the longest gradient, as the authors' code has it (the
        paper draws it evenly). Explanation and summary are those of `lcmd`, but that
        before the first nothing is near.

        Raises:
          FloatingPointError: a gradient is NaN or infinite; names the ids.
        """
        return by_spreading("kmeanspp", self, key, probe, pool, budget, begun=False)
