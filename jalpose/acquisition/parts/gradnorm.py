"""What the gradient-norm methods without labels share: a loss of the output alone.

Wang et al., "Boosting Active Learning via Improving Test Performance", AAAI 2022, for
classes; of a task with several sites a loss is the mean over them. Of poses a site is a
joint, and its classes are the pixels of the last stack's heatmap; of classes the image
is the one site.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.method import Method, Selection, by_score
from jalpose.settings.checks import above, one_of
from jalpose.training.needs import Needs

# `acquisition.<method>.norm` -> `value` of `Probe.squared_norms`
NORMS = {"global": "norm", "tensors": "tensors"}

NEEDS = Needs(each_norm=True)


@dataclasses.dataclass(frozen=True)
class GradientNorm(Method):
    """Options of a gradient norm under the model's own posterior.

    Attributes:
      posterior: over each site's values, one that the task has: softmax (at a
        temperature; of poses `heatmap.peak` matters) | of poses also window (the
        positive part of a joint's heatmap round its peak), normalised (all of it,
        which is mostly background, see `heatmaps.posterior`).
      temperature: of a softmax posterior, in units of the prediction.
      norm: global (of all parameters together) | tensors (sum of the parameter
        tensors' own norms, as published), see `select`.
      section: of the config.
    """

    posterior: str = "window"
    temperature: float = 1.0
    norm: str = "global"

    section: ClassVar[str]
    capabilities: ClassVar = ("posterior",)
    uses_engine: ClassVar = True

    def __post_init__(self):
        """Refuse a temperature or a norm that cannot work."""
        above(0, **{f"{self.section}.temperature": self.temperature})
        one_of(f"{self.section}.norm", self.norm, NORMS)

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a posterior that the task does not have."""
        del num_trained, budget
        check_posterior(self.section, self.posterior, task)

    def needs(self, task) -> Needs:
        """Norms by themselves: the engine `sketch` gives expectations of squares."""
        del task
        return NEEDS


def select(probe, unlabelled, budget, loss_fn: Callable, norm: str) -> Selection:
    """Choose the largest gradient norms of a loss that needs no label.

    Args:
      probe: of the trained network.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      loss_fn: (prediction, unused) -> scalar; the same object each time.
      norm: "global": of all parameters together. "tensors": sum of the parameter
        tensors' own norms, the authors' code's, which depends on how the parameters
        are grouped into tensors.
    """
    weights = np.broadcast_to(np.float32(1), (len(unlabelled), 1))
    found = probe.squared_norms(
        no_target, unlabelled, weights, loss_fn=loss_fn, value=NORMS[norm]
    )
    return by_score(unlabelled, found["expected"], budget)


def no_target(row):
    """One target, of nothing."""
    del row
    return jnp.zeros((1, 0))


def surprise(probabilities, weights):
    """-sum of weights * log probabilities over the values, mean over the sites.

    Values of probability 0 add nothing, and have no gradient.

    Args:
      probabilities: [sites, values].
      weights: [sites, values].
    """
    there = probabilities > 0
    logs = jnp.log(jnp.where(there, probabilities, 1))
    return -jnp.sum(jnp.where(there, weights * logs, 0), axis=1).mean()


def check_posterior(section: str, posterior: str, task) -> None:
    """Raise ConfigError for a posterior that the task does not have."""
    one_of(f"{section}.posterior", posterior, task.posteriors)
