"""Expected gradient length over the peaks of the model's own heatmaps.

Settles and Craven, EMNLP 2008: the expectation, over labels drawn from the model's
posterior, of the length of the gradient they would bring. A joint's candidate labels
are the local peaks of its heatmap, drawn independently of the other joints. We take
the squared length, as EGL++ does (WACV 2022, Eq. 5 and 12), so that the expectation
over all P^J combinations of peaks is exact in few gradients: the loss is quadratic,
its gradient g linear in the label, and with the mean label's gradient g_mean

    E |g|^2 = |g_mean|^2 + sum_j sum_{p < q} w_jp w_jq |g_jp - g_jq|^2,

one gradient for the mean label and one for each pair of peaks of a joint: 1 + J for
two peaks a joint, 1 + 3 J for three.

Unlike expected-gradnorm (the norm of the expected gradient) it does not degenerate.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.method import Method, Selection, by_score
from jalpose.acquisition.parts import gradnorm
from jalpose.tasks.pose import heatmaps, losses


def acquire(
    key,
    probe,
    labelled,
    unlabelled,
    budget,
    *,
    peaks,
    min_distance,
    posterior,
    temperature,
) -> Selection:
    """Choose the `budget` examples of the highest expected squared gradient norm.

    Args:
      key: unused, nothing is drawn.
      probe: of the trained network.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      peaks: P, candidate positions a joint, at most; at least 1.
      min_distance: between peaks, pixels of a 64x64 map.
      posterior: probabilities of a joint's peaks: "normalised", their positive values
        divided by the sum; "softmax", of the values divided by `temperature`.
      temperature: of a softmax.

    A joint whose map has no peak, being constant, has no candidate label and does not
    enter the loss.
    """
    del key, labelled
    spec, num_joints = probe.spec, probe.skeleton.num_joints
    found = probe.reduce(
        _peaks(peaks, min_distance, posterior, temperature, spec), unlabelled
    )
    positions = found.pop("positions")
    pairs = _pairs(num_joints, peaks)
    shares = found["shares"].reshape(len(unlabelled), -1)
    weights = np.ones((len(unlabelled), 1 + len(pairs)), np.float32)
    for column, (one, other) in enumerate(pairs, start=1):  # 0 where one is missing
        weights[:, column] = shares[:, one] * shares[:, other]

    def context(positions):
        return {name: values[positions] for name, values in found.items()}

    result = probe.squared_norms(
        _targets(num_joints, peaks),
        unlabelled,
        weights,
        context,
        loss_fn=_loss(spec),
    )
    return by_score(
        unlabelled,
        result["expected"],
        budget,
        explanation={
            "peak_probabilities": found["shares"],
            "peak_positions": positions,
        },
        summary={"mean_peaks": float((found["shares"] > 0).sum(axis=2).mean())},
    )


@functools.cache
def _peaks(peaks, min_distance, posterior, temperature, spec):
    def egl_peaks(output, key):
        del key
        maps = output.heatmaps[-1]
        scale = len(maps) / heatmaps.REFERENCE_SIZE
        values, positions, found = heatmaps.local_peaks(
            maps, num_peaks=peaks, min_distance=max(1, round(min_distance * scale))
        )
        if posterior == "softmax":
            values = jnp.where(found, values / temperature, -jnp.inf)
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

    return egl_peaks


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
def _loss(spec):
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


def check(num_neighbours, *, peaks, min_distance, posterior, temperature) -> None:
    """Raise ValueError for options that cannot work."""
    del num_neighbours
    section = "acquisition.egl"
    gradnorm.check_posterior(section, posterior=posterior, temperature=temperature)
    for name, value in (("peaks", peaks), ("min_distance", min_distance)):
        if value < 1:
            raise ValueError(f"{section}.{name}={value} must be at least 1")


METHOD = Method(acquire, check, uses_engine=True)
