"""Entropy-gradnorm: the gradient norm of the entropy of the model's own posterior.

Wang et al., AAAI 2022, Eq. 7. At a uniform posterior the entropy is at its maximum and
its gradient zero, so the most uncertain examples do not rank highest, by definition.
"""

import dataclasses
import functools
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.acquisition.parts import gradnorm
from jalpose.training.needs import Needs

SECTION = "acquisition.entropy_gradnorm"


@dataclasses.dataclass(frozen=True)
class EntropyGradnorm(Method):
    """Gradient norm of the entropy of the model's own posterior.

    Attributes:
      posterior: over each site's values, of poses the pixels of a joint's heatmap:
        normalised (its positive part) | softmax (at a temperature; of poses
        `heatmap.peak` matters).
      temperature: of a softmax posterior, in units of the prediction.
      norm: global (of all parameters together) | tensors (sum of the parameter
        tensors' own norms, as published), see `gradnorm.select`.
    """

    posterior: str = "normalised"
    temperature: float = 1.0
    norm: str = "global"

    capabilities: ClassVar = ("posterior",)
    uses_engine: ClassVar = True

    def __post_init__(self):
        """Refuse unknown options."""
        gradnorm.check_options(SECTION, self)

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a posterior that the task does not have."""
        del num_trained, budget
        gradnorm.check_posterior(SECTION, self.posterior, task)

    def needs(self, task) -> Needs:
        """Norms by themselves."""
        del task
        return gradnorm.NEEDS

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the largest gradient norm of the entropy.

        Nothing is drawn.

        Raises:
          FloatingPointError: a norm is not finite; names the example ids.
        """
        del key
        loss_fn = entropy_loss(probe.task, self.posterior, self.temperature)
        return gradnorm.select(probe, pool.unlabelled, budget, loss_fn, self.norm)


@functools.cache
def entropy_loss(task, posterior: str, temperature: float):
    """The loss: entropy in nats of the posteriors, mean over sites."""

    def loss_fn(prediction, target):
        del target
        found = task.posterior(prediction, posterior, temperature)
        return gradnorm.surprise(found, found)

    return loss_fn
