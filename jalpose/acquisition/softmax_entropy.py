"""Softmax entropy: the entropy of a softmax over each site's values.

Shannon's entropy of the class posterior is the usual uncertainty of classification
(Settles, Active Learning Literature Survey, 2009, section 3.1), and the entropy
baseline of Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019; for poses it is
theirs of section 4.3: a softmax over all pixels of each joint's heatmap, its entropy,
the mean over joints, the largest first. The paper does not say how high its heatmaps'
peaks are, and the softmax depends on it: at `heatmap.peak` 30 a peak takes nearly all
of it, at 1 it is nearly uniform whatever the network has seen. `temperature` divides
the heatmaps first.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts import posteriors
from jalpose.settings.checks import above


@dataclasses.dataclass(frozen=True)
class SoftmaxEntropy(Method):
    """Entropy of a softmax over each site's values, of poses a heatmap's pixels.

    Attributes:
      temperature: above 0, in units of the prediction; 1 is the paper's.
    """

    temperature: float = 1.0

    capabilities: ClassVar = ("posterior",)

    def __post_init__(self):
        """Refuse a temperature there is no softmax at."""
        above(0, acquisition__softmax_entropy__temperature=self.temperature)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the highest mean entropy over sites, in nats.

        Nothing is drawn.

        Raises:
          FloatingPointError: a prediction has a NaN; names the example ids.
        """
        del key
        ids = pool.unlabelled
        found = posteriors.of_sites(
            probe, ids, "softmax_entropy", posteriors.entropies, self.temperature
        )
        return by_score(
            ids,
            found.mean(axis=1),
            budget,
            explanation={"joint_entropy": found},
            summary={"mean_joint_entropy": float(found.mean())},
        )
