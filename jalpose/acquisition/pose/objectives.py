"""What heads of pose networks learn about joints; see `training.objectives`."""

import jax
import jax.numpy as jnp

from jalpose.tasks.pose.task import PoseTask
from jalpose.training.objectives import Truth, gaussian_nll, masked_mean


def aleatoric(outputs, truth: Truth, *, task: PoseTask, published: bool = False):
    """Log variance of each joint's error, by the likelihood of a 2-D Gaussian.

    r^2 e^-s / 2 + s, r the distance of predicted and labelled joint, e^s the variance
    of each coordinate (Kendall & Gal, NeurIPS 2017, Eq. 5, for two coordinates), mean
    over the joints that count. The published code (of VL4Pose's authors) has
    s / 2 for s, the likelihood of one coordinate: its best s is log r^2, not
    log r^2/2, a shift that orders examples alike, but its gradients weigh differently.
    It also measures to the highest pixel of the label's map; we, to the label itself.

    Args:
      outputs: [B, J], log variances s (heatmap pixels squared).
      truth: uses prediction and label.
      task: of the joints.
      published: s / 2.
    """
    predicted, joints, present = jax.vmap(task.errors)(truth.prediction, truth.label)
    steps = predicted - joints
    squared = _squared_lengths(jnp.where(present[..., None], steps, 0))
    dimensions = 1 if published else 2
    return masked_mean(gaussian_nll(squared, outputs, dimensions), present)


def link_length(
    outputs, truth: Truth, *, task: PoseTask, links: tuple[tuple[int, int], ...]
):
    """Lengths of the skeleton's links and their log variances: VL4Pose's head.

    (d - mu)^2 e^-s / 2 + s / 2, d the distance of the label's two joints, mean over
    the links whose joints both count (Shukla et al., BMVC 2022; their code takes
    the highest pixels of the label's maps instead, and divides by all links).

    Args:
      outputs: [B, 2 links], all means mu first (heatmap pixels), then all log
        variances s, see `split_links`.
      truth: uses label.
      task: of the joints.
      links: (joint, joint) indices.
    """
    mean, log_variance = split_links(outputs)
    parent, child = (jnp.array(ends) for ends in zip(*links, strict=True))
    joints = task.in_map(truth.label["joints"])
    counted = jax.vmap(task.present)(truth.label)
    present = counted[:, parent] & counted[:, child]  # [B, links]
    steps = joints[:, parent] - joints[:, child]
    length = jnp.sqrt(_squared_lengths(jnp.where(present[..., None], steps, 0)))
    error = jnp.square(length - mean)
    return masked_mean(gaussian_nll(error, log_variance, 1), present)


def split_links(outputs):
    """[..., 2 links] -> means [..., links] and log variances [..., links]."""
    mean, log_variance = jnp.split(outputs, 2, axis=-1)
    return mean, log_variance


def _squared_lengths(steps):
    return jnp.sum(jnp.square(steps), axis=-1)
