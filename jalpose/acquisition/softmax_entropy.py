"""Softmax entropy: the entropy of a softmax over each site's values.

Shannon's entropy of the class posterior is the usual uncertainty of classification
(Settles, Active Learning Literature Survey, 2009, section 3.1), and the entropy
baseline of Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019; for poses it is
theirs of section 4.3: a softmax over all pixels of each joint's heatmap, its entropy,
the mean over joints, the largest first. The softmax depends on how high the peaks are,
which the paper does not say; its squared errors of "around 0.001" are those of a peak
of 1, where an empty answer has 0.00077.
There the entropy is highest where there is least on a map. At 30, as in the published
code of EGL++, the softmax of the values is nearly all on the highest pixels and orders
maps otherwise: one peak of 18 has 0.93 nats, two of 27 have 1.04, one of 30 has 0.24,
while at a peak of 1 the one of 18 is the most uncertain. So the temperature is in units
of the peak, and 1 is the paper's; `unit=value` is the softmax of the values themselves.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts import posteriors
from jalpose.settings.checks import above, one_of


@dataclasses.dataclass(frozen=True)
class SoftmaxEntropy(Method):
    """Entropy of a softmax over each site's values, of poses a heatmap's pixels.

    Attributes:
      temperature: above 0; 1 is the paper's.
      unit: of the temperature: peak (`heatmap.peak`; of classes as value) | value (the
        prediction's own).
    """

    temperature: float = 1.0
    unit: str = "peak"

    capabilities: ClassVar = ("posterior",)

    def __post_init__(self):
        """Refuse a temperature there is no softmax at."""
        above(0, acquisition__softmax_entropy__temperature=self.temperature)
        one_of("acquisition.softmax_entropy.unit", self.unit, posteriors.UNITS)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the highest mean entropy over sites, in nats.

        Nothing is drawn.

        Raises:
          FloatingPointError: a prediction has a NaN; names the example ids.
        """
        del key
        ids = pool.unlabelled
        found = posteriors.of_sites(
            probe,
            ids,
            "softmax_entropy",
            posteriors.entropies,
            self.temperature,
            self.unit,
        )
        return by_score(
            ids,
            found.mean(axis=1),
            budget,
            explanation={"joint_entropy": found},
            summary={"mean_joint_entropy": float(found.mean())},
        )
