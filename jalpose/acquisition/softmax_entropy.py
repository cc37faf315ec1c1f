"""Softmax entropy: the entropy of a softmax over each site's values.

The entropy baseline of Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019,
section 4.3, for poses: a softmax over all pixels of each joint's heatmap, its entropy,
the mean over joints, the largest first. The paper does not say how high its heatmaps'
peaks are, and the softmax depends on it: at `heatmap.peak` 30 a peak takes nearly all
of it, at 1 it is nearly uniform whatever the network has seen. `temperature` divides
the heatmaps first.
"""

import dataclasses
import functools
from typing import ClassVar

import jax.numpy as jnp

from jalpose.acquisition.method import Method, Pool, Selection, by_score
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
        reduction = _entropies(probe.task, self.temperature)
        entropies = probe.reduce(reduction, pool.unlabelled)["entropies"]
        return by_score(
            pool.unlabelled,
            entropies.mean(axis=1),
            budget,
            explanation={"joint_entropy": entropies},
            summary={"mean_joint_entropy": float(entropies.mean())},
        )


@functools.cache
def _entropies(task, temperature):
    def entropies(output, key):
        del key
        logs = task.posterior(output.prediction, "softmax", temperature, log=True)
        # Values first: summed in their order, where XLA would sum rows in pieces.
        logs = logs.T
        # A NaN or an infinity anywhere among a site's values makes its sum NaN.
        return {"entropies": -jnp.sum(jnp.exp(logs) * logs, axis=0)}

    # The probe's journal goes by this name.
    entropies.__name__ = f"softmax_entropy_{temperature}"
    return entropies
