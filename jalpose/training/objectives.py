"""What heads beside a network learn: objectives of one batch.

Every objective is (outputs float32 [B, O], `Truth`) -> scalar float32, differentiable
in the outputs alone. Unlike losses, they are written for a batch: ranking compares
examples with each other. What has no label is left out of sum and count; where nothing
is left the objective is 0 and so is its gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

# Below this log variance (a standard deviation of 0.007 pixels) the precision goes on
# as a straight line, so that a wild prediction has a large gradient, not an infinite.
LEAST_LOG_VARIANCE = -10.0


class Truth(NamedTuple):
    """What an objective may know of a batch; no gradient flows into it.

    Attributes:
      losses: float32 [B], the task's loss of each example; 0 where nothing counts.
      known: bool [B], whether anything in an example's label counts.
      prediction: of the network, [B, ...].
      label: as the network was trained on it, augmented: arrays [B, ...] by name.
    """

    losses: jax.Array
    known: jax.Array
    prediction: Any
    label: dict[str, jax.Array]


def margin_ranking(outputs, truth: Truth, *, margin: float = 1.0):
    """Learning Loss: order the predicted losses of pairs as their true ones.

    max(0, -s (p_i - p_j) + margin), s the sign of l_i - l_j (Yoo & Kweon, CVPR 2019,
    Eq. 2), mean over the pairs (i, i + B/2). The papers' other pairing, (i, B-1-i),
    is the same in distribution: batches are shuffled. The last of an odd batch is left
    out. We differ on ties: with equal true losses there is no order to learn, and the
    pair is left out. (Yoo & Kweon's other case, s = -1, pushes the two apart; with
    sign(0) = 0, as LL++'s code has it, it adds the margin and no gradient.)

    Args:
      outputs: [B, 1], predicted losses.
      truth: uses losses and known.
      margin: in units of the prediction, whose scale is free.
    """
    (first, second), known = _pairs(truth)
    sign = jnp.sign(first - second)
    hinge = jnp.maximum(0.0, margin - sign * _differences(outputs))
    return masked_mean(hinge, known & (sign != 0))


def pair_kl(outputs, truth: Truth):
    """LL++: predict by what part of a pair's loss is whose.

    KL(q || p) with q_i = l_i / (l_i + l_j) and p the softmax of the two predictions,
    mean over the pairs of `margin_ranking` (Shukla & Ahmed, CVPR workshops 2021, Eq.
    3; the paper swaps the letters). Its gradient by the prediction of i is p_i - q_i,
    by that of j the opposite (Eq. 4). Two losses of zero are equal losses: q_i = 1/2,
    where the published code has NaN.

    Args:
      outputs: [B, 1], predictions; the log of the loss, up to a constant, is optimal.
      truth: uses losses and known.
    """
    (first, second), known = _pairs(truth)
    # Scaled by the larger, so that no sum overflows and no tiny ones are lost.
    larger = jnp.maximum(first, second)
    nonzero = larger > 0
    scale = jnp.where(nonzero, larger, 1.0)
    first = jnp.where(nonzero, first / scale, 1.0)
    second = jnp.where(nonzero, second / scale, 1.0)
    q_i, q_j = first / (first + second), second / (first + second)
    difference = _differences(outputs)
    cross = q_i * jax.nn.softplus(-difference) + q_j * jax.nn.softplus(difference)
    return masked_mean(xlogy(q_i, q_i) + xlogy(q_j, q_j) + cross, known)


def squared_error(outputs, truth: Truth):
    """Learning Loss's variant without pairs: predict the loss itself.

    (p_i - l_i)^2, mean over the examples whose label counts (Yoo & Kweon, CVPR 2019,
    3.3; the curve "learn loss mse" of Figs. 4 and 5, with lambda 0.1). The scale of the
    losses changes as the network learns, which is why they rank instead.

    Args:
      outputs: [B, 1], predicted losses.
      truth: uses losses and known.
    """
    errors = outputs[:, 0] - truth.losses.astype(jnp.float32)
    return masked_mean(jnp.square(errors), truth.known)


def gaussian_nll(squared_error, log_variance, dimensions: int):
    """-log N of an error of a Gaussian, without the constant log(2 pi) / 2 a dimension.

    Args:
      squared_error: summed over the dimensions.
      log_variance: of each dimension, the same for all.
      dimensions: how many.
    """
    least = jnp.maximum(log_variance, LEAST_LOG_VARIANCE)
    precision = jnp.exp(-least) * (1 + (least - log_variance))
    return 0.5 * (squared_error * precision + dimensions * log_variance)


def _pairs(truth):
    """True losses of the pairs' two examples, and bool: both have a label."""
    half = len(truth.losses) // 2
    labelled = truth.known
    losses = truth.losses.astype(jnp.float32)
    ends = losses[:half], losses[half : 2 * half]
    return ends, labelled[:half] & labelled[half : 2 * half]


def _differences(outputs):
    """Prediction of the first of each pair less that of the second: [B // 2]."""
    half = len(outputs) // 2
    return outputs[:half, 0] - outputs[half : 2 * half, 0]


def masked_mean(values, mask):
    """Mean of the values under the mask; 0 where it is empty."""
    # Not a product: what is masked may be anything.
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return total / jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)
