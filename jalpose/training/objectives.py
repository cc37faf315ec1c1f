"""What heads beside a pose network learn: objectives of one batch.

Every objective is (outputs float32 [B, O], `Truth`) -> scalar float32, differentiable
in the outputs alone. Unlike `losses`, they are written for a batch: ranking compares
examples with each other. An example or joint without a label is left out of sum and
count; where nothing is left the objective is 0 and so is its gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

# Below this log variance (a standard deviation of 0.007 pixels) the precision goes on
# as a straight line, so that a wild prediction has a large gradient, not an infinite.
LEAST_LOG_VARIANCE = -10.0


class Truth(NamedTuple):
    """What an objective may know of a batch; no gradient flows into it.

    Attributes:
      losses: float32 [B], heatmap loss of each example; 0 without a joint.
      predicted: float32 [B, J, 2], (x, y) of the highest pixel of the last stack's
        maps, heatmap pixels.
      joints: float32 [B, J, 2], the label, heatmap pixels; anything where not present.
      present: bool [B, J].
    """

    losses: jax.Array
    predicted: jax.Array
    joints: jax.Array
    present: jax.Array


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
      truth: uses losses and present.
      margin: in units of the prediction, whose scale is free.
    """
    (first, second), known = _pairs(truth)
    sign = jnp.sign(first - second)
    hinge = jnp.maximum(0.0, margin - sign * _differences(outputs))
    return _mean(hinge, known & (sign != 0))


def pair_kl(outputs, truth: Truth):
    """LL++: predict by what part of a pair's loss is whose.

    KL(q || p) with q_i = l_i / (l_i + l_j) and p the softmax of the two predictions,
    mean over the pairs of `margin_ranking` (Shukla & Ahmed, CVPR workshops 2021, Eq.
    3; the paper swaps the letters). Its gradient by the prediction of i is p_i - q_i,
    by that of j the opposite (Eq. 4). Two losses of zero are equal losses: q_i = 1/2,
    where the published code has NaN.

    Args:
      outputs: [B, 1], predictions; the log of the loss, up to a constant, is optimal.
      truth: uses losses and present.
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
    return _mean(xlogy(q_i, q_i) + xlogy(q_j, q_j) + cross, known)


def aleatoric(outputs, truth: Truth, *, published: bool = False):
    """Log variance of each joint's error, by the likelihood of a 2-D Gaussian.

    r^2 e^-s / 2 + s, r the distance of predicted and labelled joint, e^s the variance
    of each coordinate (Kendall & Gal, NeurIPS 2017, Eq. 5, for two coordinates), mean
    over the joints that are present. The published code (of VL4Pose's authors) has
    s / 2 for s, the likelihood of one coordinate: its best s is log r^2, not
    log r^2/2, a shift that orders examples alike, but its gradients weigh differently.
    It also measures to the highest pixel of the label's map; we, to the label itself.

    Args:
      outputs: [B, J], log variances s (heatmap pixels squared).
      truth: uses predicted, joints and present.
      published: s / 2.
    """
    steps = truth.predicted - truth.joints
    squared = _squared_lengths(jnp.where(truth.present[..., None], steps, 0))
    dimensions = 1 if published else 2
    return _mean(gaussian_nll(squared, outputs, dimensions), truth.present)


def link_length(outputs, truth: Truth, *, links: tuple[tuple[int, int], ...]):
    """Lengths of the skeleton's links and their log variances: VL4Pose's head.

    (d - mu)^2 e^-s / 2 + s / 2, d the distance of the label's two joints, mean over
    the links whose joints are both present (Shukla et al., BMVC 2022; their code takes
    the highest pixels of the label's maps instead, and divides by all links).

    Args:
      outputs: [B, 2 links], all means mu first (heatmap pixels), then all log
        variances s, see `split_links`.
      truth: uses joints and present.
      links: (joint, joint) indices.
    """
    mean, log_variance = split_links(outputs)
    parent, child = (jnp.array(ends) for ends in zip(*links, strict=True))
    present = truth.present[:, parent] & truth.present[:, child]  # [B, links]
    steps = truth.joints[:, parent] - truth.joints[:, child]
    length = jnp.sqrt(_squared_lengths(jnp.where(present[..., None], steps, 0)))
    return _mean(gaussian_nll(jnp.square(length - mean), log_variance, 1), present)


def split_links(outputs):
    """[..., 2 links] -> means [..., links] and log variances [..., links]."""
    mean, log_variance = jnp.split(outputs, 2, axis=-1)
    return mean, log_variance


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
    labelled = truth.present.any(axis=1)
    losses = truth.losses.astype(jnp.float32)
    ends = losses[:half], losses[half : 2 * half]
    return ends, labelled[:half] & labelled[half : 2 * half]


def _differences(outputs):
    """Prediction of the first of each pair less that of the second: [B // 2]."""
    half = len(outputs) // 2
    return outputs[:half, 0] - outputs[half : 2 * half, 0]


def _mean(values, mask):
    """Mean of the values under the mask; 0 where it is empty."""
    # Not a product: what is masked may be anything.
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return total / jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)


def _squared_lengths(steps):
    return jnp.sum(jnp.square(steps), axis=-1)
