"""Entropy-gradnorm: the gradient norm of the entropy of the model's own posterior.

Wang et al., AAAI 2022, Eq. 7. At a uniform posterior the entropy is at its maximum and
its gradient zero, so the most uncertain examples do not rank highest, by definition.
"""

import functools

from jalpose.acquisition.method import Method, Selection
from jalpose.acquisition.parts import gradnorm
from jalpose.acquisition.parts.heads import one_of
from jalpose.tasks.pose import heatmaps


def acquire(
    key, probe, labelled, unlabelled, budget, *, posterior, temperature, norm
) -> Selection:
    """Choose the `budget` examples of the largest gradient norm of the entropy.

    Args:
      key: unused, nothing is drawn.
      probe: of the trained network.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      posterior: over the pixels of a heatmap, see `heatmaps.posterior`.
      temperature: of a softmax posterior.
      norm: see `gradnorm.select`.
    """
    del key, labelled
    loss_fn = entropy_loss(posterior, temperature)
    return gradnorm.select(probe, unlabelled, budget, loss_fn, norm)


@functools.cache
def entropy_loss(posterior: str, temperature: float):
    """The loss: entropy in nats of the last stack's posteriors, mean over joints."""

    def loss_fn(maps, target):
        del target
        found = heatmaps.posterior(maps[-1], posterior, temperature)
        return gradnorm.surprise(found, found)

    return loss_fn


def check(num_neighbours, *, posterior, temperature, norm) -> None:
    """Raise ValueError for unknown options."""
    del num_neighbours
    section = "acquisition.entropy_gradnorm"
    gradnorm.check_posterior(section, posterior=posterior, temperature=temperature)
    one_of(f"{section}.norm", norm, gradnorm.NORMS)


METHOD = Method(acquire, check, uses_engine=True, requires=gradnorm.requires)
