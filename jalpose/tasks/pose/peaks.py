"""Labels a pose may have by its own heatmaps: each joint at one of its local peaks.

Joints are drawn independently of each other. The loss is quadratic, its gradient g
linear in the label, so that the expectation over all P^J combinations of peaks is exact
in few gradients: with the mean label's gradient g_mean

    E |g|^2 = |g_mean|^2 + sum_j sum_{p < q} w_jp w_jq |g_jp - g_jq|^2,

one gradient for the mean label and one for each pair of peaks of a joint: 1 + J for two
peaks a joint, 1 + 3 J for three. A joint whose map has no peak, being constant, has no
candidate label and does not enter the loss.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jalpose.tasks.pose import heatmaps, losses
from jalpose.tasks.pose.heatmaps import HeatmapSpec
from jalpose.tasks.task import CandidateOptions, Candidates

POSTERIORS = ("normalised", "softmax")  # of the peaks


@functools.cache
def candidates(
    spec: HeatmapSpec, num_joints: int, options: CandidateOptions
) -> Candidates:
    """The candidate labels of one example; the same object for equal arguments.

    Args:
      spec: of the label heatmaps.
      num_joints: J.
      options: peaks are P; the probabilities of a joint's peaks are their positive
        values divided by the sum (posterior "normalised") or a softmax of the values
        divided by the temperature ("softmax").
    """
    pairs = _pairs(num_joints, options.peaks)

    def weights(found):
        shares = found["shares"].reshape(len(found["shares"]), -1)
        drawn = np.ones((len(shares), 1 + len(pairs)), np.float32)
        for column, (one, other) in enumerate(pairs, start=1):  # 0 where one is missing
            drawn[:, column] = shares[:, one] * shares[:, other]
        return drawn

    def explain(found):
        arrays = {
            "peak_probabilities": found["shares"],
            "peak_positions": found["positions"],
        }
        count = float((found["shares"] > 0).sum(axis=2).mean())
        return arrays, {"mean_peaks": count}

    return Candidates(
        find=_find(spec, options),
        weights=weights,
        targets=_targets(num_joints, options.peaks),
        loss=_loss(spec),
        explain=explain,
    )


def _find(spec, options: CandidateOptions):
    def find(prediction):
        maps = prediction[-1]
        scale = len(maps) / heatmaps.REFERENCE_SIZE
        values, positions, found = heatmaps.local_peaks(
            maps,
            num_peaks=options.peaks,
            min_distance=max(1, round(options.min_distance * scale)),
        )
        if options.posterior == "softmax":
            values = jnp.where(found, values / options.temperature, -jnp.inf)
            top = values.max(axis=1, keepdims=True)
            weights = jnp.where(found, jnp.exp(values - top), 0)
        else:
            # Peaks below zero alone: each as probable as the other.
            weights = jnp.where(found, jnp.maximum(values, 0), 0)
            none = weights.sum(axis=1, keepdims=True) <= 0
            weights = jnp.where(none, found.astype(jnp.float32), weights)
        total = weights.sum(axis=1, keepdims=True)
        points = heatmaps.heatmap_to_crop(
            positions.astype(jnp.float32), spec.crop_size, len(maps)
        )
        return {
            "shares": weights / jnp.where(total > 0, total, 1),
            "points": points,
            "positions": heatmaps.recorded_positions(positions, found),
        }

    return find


@functools.cache
def _pairs(num_joints: int, peaks: int) -> np.ndarray:
    """Flat places [J * P] of the two peaks of each pair: int64 [pairs, 2]."""
    pairs = [
        (joint * peaks + p, joint * peaks + q)
        for joint in range(num_joints)
        for p, q in itertools.combinations(range(peaks), 2)
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


@functools.cache
def _targets(num_joints: int, peaks: int):
    """For each of the gradients: the peaks, and with which factor each is drawn."""
    pairs = _pairs(num_joints, peaks)
    flat = np.zeros((len(pairs), num_joints * peaks), np.float32)
    flat[np.arange(len(pairs)), pairs[:, 0]] = 1
    flat[np.arange(len(pairs)), pairs[:, 1]] = -1
    signs = flat.reshape(-1, num_joints, peaks)

    def egl_targets(row):
        shares, count = row["shares"], 1 + len(pairs)
        factors = jnp.concatenate([shares[None], signs])
        repeat = functools.partial(jnp.repeat, repeats=count, axis=0)
        return {
            "factors": factors,
            "points": repeat(row["points"][None]),
            "present": repeat((shares > 0).any(axis=1)[None]),
            "is_mean": jnp.arange(count) == 0,
        }

    return egl_targets


@functools.cache
def _loss(spec: HeatmapSpec):
    """The training loss of the mean label, or its change by a difference of labels."""

    def loss_fn(maps, target):
        drawn = jax.vmap(
            lambda points: spec.render(points, target["present"]), in_axes=1, out_axes=3
        )(target["points"])  # [h, w, J, P]
        label = jnp.sum(drawn * target["factors"][None, None], axis=-1)
        # The loss of a label that is `label` away from what the network says has the
        # gradient that differs by `label` between two labels.
        away = jax.lax.stop_gradient(maps) - label[None]
        label = jnp.where(target["is_mean"], label[None], away)
        return losses.heatmap_loss(maps, label, target["present"])

    return loss_fn
