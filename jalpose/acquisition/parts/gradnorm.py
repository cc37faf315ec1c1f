"""What the gradient-norm methods without labels share: a loss of the output alone.

Wang et al., "Boosting Active Learning via Improving Test Performance", AAAI 2022, for
classes; here a joint's classes are the pixels of its heatmap, their posterior is
`heatmaps.posterior` of the last stack, and a loss is the mean over the joints.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.method import Requires, Selection, by_score
from jalpose.acquisition.parts.heads import one_of
from jalpose.tasks.pose import heatmaps

# `acquisition.<method>.norm` -> `value` of `Probe.squared_norms`
NORMS = {"global": "norm", "tensors": "tensors"}


def select(probe, unlabelled, budget, loss_fn: Callable, norm: str) -> Selection:
    """Choose the largest gradient norms of a loss that needs no label.

    Args:
      probe: of the trained network.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      loss_fn: (heatmaps [S, h, w, J], unused) -> scalar; the same object each time.
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
    """-sum of weights * log probabilities over the pixels, mean over the joints.

    Pixels of probability 0 add nothing, and have no gradient.

    Args:
      probabilities: [h, w, J].
      weights: [h, w, J].
    """
    there = probabilities > 0
    logs = jnp.log(jnp.where(there, probabilities, 1))
    return -jnp.sum(jnp.where(there, weights * logs, 0), axis=(0, 1)).mean()


def requires(skeleton, *, norm="global", **options) -> Requires:
    """Norms by themselves: the engine `sketch` gives expectations of squares only."""
    del skeleton, norm, options
    return Requires(each_norm=True)


def check_posterior(section: str, *, posterior: str, temperature: float) -> None:
    """Raise ValueError for options of `heatmaps.posterior` that cannot work."""
    one_of(f"{section}.posterior", posterior, heatmaps.POSTERIORS)
    if not temperature > 0:
        raise ValueError(f"{section}.temperature={temperature} must be above 0")
