"""Multi-peak entropy: how evenly a heatmap's local peaks share its mass.

As the papers on EGL++ describe and use it: the local peaks of each joint's heatmap are
computed and normalised, a softmax over them is taken, and its entropy is summed over
the joints; the largest first. Where the published code differs it is an option:

- It takes the softmax over the peaks' raw values, `normalise="raw"`. With peaks about
  30 high that is nearly one-hot: peaks of 25 and 20 become 0.993 and 0.007.
- It excludes peaks within 5 pixels of the border, `border=5`: scikit-image's default,
  and joints near the edge of the crop then count for nothing.

With `normalise="sum"`, the default and the description's way, the values are shares
of one, so no probability exceeds another by more than a factor of e. Hence the entropy
mostly counts peaks: of five it is at least 1.50 nats (all the mass on one), at most
log 5 = 1.61, and four have at most log 4 = 1.39. Faint ripples are peaks like others.

A joint with one peak or with none adds 0, as in the published code. So a map with
nothing on it counts as certain; the constant map that takes is not what networks give.
"""

import functools

import jax.numpy as jnp

from jalpose.acquisition.method import Method, Selection, by_score
from jalpose.tasks.pose import heatmaps

NORMALISATIONS = ("sum", "raw")


def acquire(
    key,
    probe,
    labelled,
    unlabelled,
    budget,
    *,
    peaks,
    min_distance,
    normalise,
    border,
) -> Selection:
    """Choose the `budget` examples of the highest entropy, in nats, summed over joints.

    Args:
      key: unused, nothing is drawn.
      probe: of the trained network; the last stack's heatmaps are used.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      peaks: at most this many a joint, the strongest; at least 2.
      min_distance: between peaks, pixels of a 64x64 map; scaled with the map's size
        and rounded, at least 1.
      normalise: "sum": the positive part of the peaks' values is divided by its sum
        before the softmax (all below zero: equal shares). "raw": it is not.
      border: width of the border without peaks, pixels of a 64x64 map, scaled too.

    Raises:
      FloatingPointError: a heatmap has a NaN or an infinity; names the example ids.
    """
    del key, labelled
    fn = _entropies(peaks, min_distance, normalise, border)
    found = probe.reduce(fn, unlabelled)
    return by_score(
        unlabelled,
        found["entropies"].sum(axis=1),
        budget,
        explanation={
            "joint_entropy": found["entropies"],
            "num_peaks": found["num_peaks"],
            "peak_positions": found["positions"],
        },
        summary={"mean_peaks": float(found["num_peaks"].mean())},
    )


def check(num_neighbours, *, peaks, min_distance, normalise, border) -> None:
    """Raise ValueError for options that leave no entropy, or nothing to look at."""
    del num_neighbours
    section = "acquisition.multipeak_entropy"
    if peaks < 2:
        raise ValueError(
            f"{section}.peaks={peaks}: the entropy of less than two peaks is always 0"
        )
    if not min_distance > 0:
        raise ValueError(f"{section}.min_distance={min_distance} must be above 0")
    if normalise not in NORMALISATIONS:
        raise ValueError(
            f"{section}.normalise={normalise!r} is unknown: choose one of "
            f"{', '.join(NORMALISATIONS)}"
        )
    if not 0 <= border < heatmaps.REFERENCE_SIZE / 2:
        raise ValueError(
            f"{section}.border={border} must be from 0 to less than half of "
            f"{heatmaps.REFERENCE_SIZE} pixels"
        )


def peak_entropies(values, found, normalise):
    """Entropy of the softmax over the peaks of each joint, in nats.

    Args:
      values: [J, P]; see `heatmaps.local_peaks`.
      found: bool [J, P]; less than two of a joint have entropy 0.
      normalise: see `acquire`.

    Returns:
      [J], NaN where a value is.
    """
    invalid = jnp.isnan(values).any(axis=1)
    if normalise == "sum":
        shares = jnp.where(found, jnp.maximum(values, 0), 0)
        total = shares.sum(axis=1, keepdims=True)
        values = shares / jnp.where(total > 0, total, 1)
    # By hand, since a softmax over nothing is NaN.
    top = jnp.max(values, axis=1, keepdims=True, where=found, initial=-jnp.inf)
    steps = jnp.where(found, values - top, 0)
    weights = jnp.where(found, jnp.exp(steps), 0)
    total = jnp.maximum(weights.sum(axis=1), 1)  # the top's weight is 1
    entropies = jnp.log(total) - (weights * steps).sum(axis=1) / total
    # Rounding leaves one peak a little below 0.
    return jnp.where(invalid, jnp.nan, jnp.maximum(entropies, 0))


@functools.cache
def _entropies(peaks, min_distance, normalise, border):
    def entropies(output, key):
        del key
        maps = output.heatmaps[-1]  # [h, w, J]
        scale = len(maps) / heatmaps.REFERENCE_SIZE
        values, positions, found = heatmaps.local_peaks(
            maps,
            num_peaks=peaks,
            min_distance=max(1, round(min_distance * scale)),
            exclude_border=round(border * scale),
        )
        return {
            "entropies": peak_entropies(values, found, normalise),
            "num_peaks": found.sum(axis=1),
            "positions": heatmaps.recorded_positions(positions, found),
        }

    # The probe's journal goes by this name.
    options = (peaks, min_distance, normalise, border)
    entropies.__name__ = "_".join(["multipeak_entropy", *map(str, options)])
    return entropies


METHOD = Method(acquire, check)
