"""Entropy-gradnorm: the gradient norm of the entropy of the model's own posterior.

Wang et al., AAAI 2022, Eq. 7. At a uniform posterior the entropy is at its maximum and
its gradient zero, so the most uncertain examples do not rank highest, by definition.
"""

import dataclasses
import functools

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import gradnorm


@dataclasses.dataclass(frozen=True)
class EntropyGradnorm(gradnorm.GradientNorm):
    """Gradient norm of the entropy of the model's own posterior."""

    section = "acquisition.entropy_gradnorm"

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
