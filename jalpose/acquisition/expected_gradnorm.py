"""Expected-gradnorm: the gradient norm of the loss expected under the posterior.

Wang et al., AAAI 2022, Eq. 6: the norm of the gradient of sum_i P_i l(f, i), where P is
the model's posterior and l the cross-entropy with class i as the label, -log P_i.

Whether P is differentiated through is not said there, and it decides everything:

- Attached, as in the authors' code and the default here, sum_i P_i (-log P_i) *is* the
  entropy: the same function as `entropy_gradnorm`, the same gradient, the same choice.
- Detached, the gradient is -sum_i P_i grad P_i / P_i = -grad sum_i P_i = 0 for every
  example: there is nothing to choose by, so `attached=False` is refused.

`tests/acquisition/test_gradnorm.py` shows both. What one might have meant, the
expectation of the gradient's squared norm instead of the norm of the expectation, does
not degenerate: it is the method `egl`.
"""

import dataclasses
import functools

import jax

from jalpose.acquisition.method import Pool, Selection
from jalpose.acquisition.parts import gradnorm
from jalpose.settings.checks import ConfigError


@dataclasses.dataclass(frozen=True)
class ExpectedGradnorm(gradnorm.GradientNorm):
    """Gradient norm of the loss expected under the model's own posterior.

    Attributes:
      attached: differentiate through the posterior, as published; without, the
        gradient is 0: refused.
    """

    attached: bool = True

    section = "acquisition.expected_gradnorm"

    def __post_init__(self):
        """Refuse unknown options, and a gradient that is always 0."""
        super().__post_init__()
        if not self.attached:
            raise ConfigError(
                f"{self.section}.attached=False: with a detached posterior the "
                "gradient of the expected cross-entropy is 0 for every image, so "
                "nothing can be chosen by it; set it to True (which is "
                "entropy_gradnorm), or choose egl"
            )

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` largest gradient norms of the expected loss.

        Nothing is drawn.

        Raises:
          FloatingPointError: a norm is not finite; names the example ids.
        """
        del key
        options = (self.posterior, self.temperature, self.attached)
        loss_fn = expected_loss(probe.task, *options)
        return gradnorm.select(probe, pool.unlabelled, budget, loss_fn, self.norm)


@functools.cache
def expected_loss(task, posterior: str, temperature: float, attached: bool):
    """The loss: cross-entropy expected under the posterior, mean over sites."""

    def loss_fn(prediction, target):
        del target
        found = task.posterior(prediction, posterior, temperature)
        weights = found if attached else jax.lax.stop_gradient(found)
        return gradnorm.surprise(found, weights)

    return loss_fn
