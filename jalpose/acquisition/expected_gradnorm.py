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

import functools

import jax

from jalpose.acquisition.method import Method, Selection
from jalpose.acquisition.parts import gradnorm
from jalpose.acquisition.parts.heads import one_of
from jalpose.tasks.pose import heatmaps


def acquire(
    key, probe, labelled, unlabelled, budget, *, posterior, temperature, norm, attached
) -> Selection:
    """Choose the `budget` examples of the largest gradient norm of the expected loss.

    Args:
      key: unused, nothing is drawn.
      probe: of the trained network.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      posterior: over the pixels of a heatmap, see `heatmaps.posterior`.
      temperature: of a softmax posterior.
      norm: see `gradnorm.select`.
      attached: differentiate through the posterior; must be True, see above.
    """
    del key, labelled
    loss_fn = expected_loss(posterior, temperature, attached)
    return gradnorm.select(probe, unlabelled, budget, loss_fn, norm)


@functools.cache
def expected_loss(posterior: str, temperature: float, attached: bool):
    """The loss: cross-entropy expected under the posterior, mean over joints."""

    def loss_fn(maps, target):
        del target
        found = heatmaps.posterior(maps[-1], posterior, temperature)
        weights = found if attached else jax.lax.stop_gradient(found)
        return gradnorm.surprise(found, weights)

    return loss_fn


def check(num_neighbours, *, posterior, temperature, norm, attached) -> None:
    """Raise ValueError for unknown options, and for a gradient that is always 0."""
    del num_neighbours
    section = "acquisition.expected_gradnorm"
    gradnorm.check_posterior(section, posterior=posterior, temperature=temperature)
    one_of(f"{section}.norm", norm, gradnorm.NORMS)
    if not attached:
        raise ValueError(
            f"{section}.attached=False: with a detached posterior the gradient of the "
            "expected cross-entropy is 0 for every image, so nothing can be chosen by "
            "it; set it to True (which is entropy_gradnorm), or choose egl"
        )


METHOD = Method(acquire, check, uses_engine=True, requires=gradnorm.requires)
