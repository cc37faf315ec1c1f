"""Multi-peak entropy: how evenly a heatmap's local peaks share its mass.

B. Liu and V. Ferrari, "Active Learning for Human Pose Estimation", ICCV 2017, which was
not at hand, as EGL++ (WACV 2022, section 2) describes it and compares with it: the
local peaks of each joint's heatmap are computed and normalised, a softmax over them is
taken, and its entropy is summed over the joints; the largest first. Where EGL++'s
published code differs it is an option:

- It takes the softmax over the peaks' raw values, `normalise="raw"`. With peaks about
  30 high that is nearly one-hot: peaks of 25 and 20 become 0.993 and 0.007.
- It excludes peaks within 5 pixels of the border, `border=5`: scikit-image's default,
  and joints near the edge of the crop then count for nothing.
- It takes every local maximum for a peak, `threshold=0`. Its earlier commit asks for a
  quarter of a label's height.

With `normalise="sum"`, the default and the description's way, the values are shares
of one, so no probability exceeds another by more than a factor of e. Hence the entropy
mostly counts peaks, and faint ripples would be peaks like others: one clean peak of 30
among ripples of 0.03 would have 1.50 nats, two equal peaks log 2 = 0.69. So a peak has
to reach a share of the map's highest, by default a quarter.

A joint with one peak or with none adds 0, as in the published code. So a map with
nothing on it counts as certain; the constant map that takes is not what networks give.
"""

import dataclasses
import functools
from typing import ClassVar

import jax.numpy as jnp

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.settings.checks import ConfigError, above, between
from jalpose.tasks.pose import heatmaps

SECTION = "acquisition.multipeak_entropy"
NORMALISATIONS = ("sum", "raw")


@dataclasses.dataclass(frozen=True)
class MultiPeakEntropy(Method):
    """Entropy of the shares of a heatmap's local peaks, summed over joints.

    Attributes:
      peaks: at most this many a joint, the strongest; at least 2.
      min_distance: between peaks, pixels of a 64x64 map; scaled with the map's size
        and rounded, at least 1.
      normalise: "sum": the positive part of the peaks' values is divided by its sum
        before the softmax, as described (all below zero: equal shares). "raw": it is
        not, as published.
      border: width of the border without peaks, pixels of a 64x64 map, scaled too; the
        published code's is 5.
      threshold: height of the least peak, in heights of the map's highest, if that is
        above 0; 0: all are peaks, as published.
    """

    peaks: int = 5
    min_distance: float = 5
    normalise: str = "sum"
    border: float = 0
    threshold: float = 0.25

    capabilities: ClassVar = ("skeleton",)

    def __post_init__(self):
        """Refuse options that leave no entropy, or nothing to look at."""
        if self.peaks < 2:
            raise ConfigError(
                f"{SECTION}.peaks={self.peaks}: the entropy of less than two peaks is "
                "always 0"
            )
        above(0, **{f"{SECTION}.min_distance": self.min_distance})
        if self.normalise not in NORMALISATIONS:
            raise ConfigError(
                f"{SECTION}.normalise={self.normalise!r} is unknown: choose one of "
                f"{', '.join(NORMALISATIONS)}"
            )
        if not 0 <= self.border < heatmaps.REFERENCE_SIZE / 2:
            raise ConfigError(
                f"{SECTION}.border={self.border} must be from 0 to less than half of "
                f"{heatmaps.REFERENCE_SIZE} pixels"
            )

        between(f"{SECTION}.threshold", self.threshold, 0, 1)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the highest summed entropy, in nats.

        The last stack's heatmaps are used. Nothing is drawn.

        Raises:
          FloatingPointError: a heatmap has a NaN or an infinity; names the example ids.
        """
        del key
        fn = _entropies(
            self.peaks, self.min_distance, self.normalise, self.border, self.threshold
        )
        found = probe.reduce(fn, pool.unlabelled)
        return by_score(
            pool.unlabelled,
            found["entropies"].sum(axis=1),
            budget,
            explanation={
                "joint_entropy": found["entropies"],
                "num_peaks": found["num_peaks"],
                "peak_positions": found["positions"],
            },
            summary={"mean_peaks": float(found["num_peaks"].mean())},
        )


def peak_entropies(values, found, normalise):
    """Entropy of the softmax over the peaks of each joint, in nats.

    Args:
      values: [J, P]; see `heatmaps.local_peaks`.
      found: bool [J, P]; less than two of a joint have entropy 0.
      normalise: see `MultiPeakEntropy`.

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
def _entropies(peaks, min_distance, normalise, border, threshold):
    def entropies(output, key):
        del key
        maps = output.prediction[-1]  # [h, w, J]
        scale = len(maps) / heatmaps.REFERENCE_SIZE
        values, positions, found = heatmaps.local_peaks(
            maps,
            num_peaks=peaks,
            min_distance=max(1, round(min_distance * scale)),
            exclude_border=round(border * scale),
        )
        # The strongest comes first.
        least = threshold * jnp.maximum(values[:, :1], 0)
        found &= (values >= least) | (values[:, :1] <= 0)
        return {
            "entropies": peak_entropies(values, found, normalise),
            "num_peaks": found.sum(axis=1),
            "positions": heatmaps.recorded_positions(positions, found),
        }

    # The probe's journal goes by this name.
    options = (peaks, min_distance, normalise, border)
    options += (threshold,) if threshold else ()  # as before there was one
    entropies.__name__ = "_".join(["multipeak_entropy", *map(str, options)])
    return entropies
