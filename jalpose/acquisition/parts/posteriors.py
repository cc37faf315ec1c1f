"""What the methods share that ask how sure a prediction is: its sites' posteriors."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

UNITS = ("peak", "value")  # of a temperature


def of_sites(
    probe,
    ids: np.ndarray,
    method: str,
    measure: Callable,
    temperature: float,
    unit: str = "value",
) -> np.ndarray:
    """A measure of the softmax posterior of each site: float32 [M, S].

    Args:
      probe: of the trained network, whose task has the capability `posterior`.
      ids: int64 [M], example ids.
      method: that asks; the probe's journal has the pass under its name.
      measure: logarithms of the probabilities [values, S] -> [S]; the same object each
        time. Values come first: they are summed in their order, where XLA would sum
        rows in pieces.
      temperature: of the softmax.
      unit: of the temperature: "peak", the height of a perfect prediction where a task
        has chosen one (of poses `heatmap.peak`); "value", the prediction's own.
    """
    if unit == "peak":
        temperature *= getattr(probe.task, "peak", 1.0)
    reduction = _reduction(probe.task, method, measure, temperature)
    return probe.reduce(reduction, ids)[measure.__name__]


@functools.cache
def _reduction(task, method, measure, temperature):
    def reduction(output, key):
        del key
        logs = task.posterior(output.prediction, "softmax", temperature, log=True)
        return {measure.__name__: measure(logs.T)}

    reduction.__name__ = f"{method}_{temperature}"
    return reduction


def entropies(logs: jax.Array) -> jax.Array:
    """Entropy in nats: [values, S] -> [S].

    Near the most there can be, log n, it is taken from what it lacks to that: of the
    4,096 pixels of heatmaps with a peak of 1 all entropies are within a hundredth of
    8.318, where a sum of so many terms in float32 is off by a ten-thousandth.
    """
    # A NaN or an infinity anywhere among a site's values makes its sum NaN.
    direct = -jnp.sum(jnp.exp(logs) * logs, axis=0)
    most = math.log(len(logs))
    # sum p ln(n p) = sum ((1 + r) ln(1 + r) - r) / n, r = n p - 1: no term is negative.
    apart = logs + most
    excess = jnp.expm1(apart)
    lacks = jnp.sum((1 + excess) * apart - excess, axis=0) / len(logs)
    return jnp.where(lacks < most / 2, most - lacks, direct)


def doubts(logs: jax.Array) -> jax.Array:
    """1 less the highest probability: [values, S] -> [S]."""
    return _all_but_highest(logs).sum(axis=0)


def closeness(logs: jax.Array) -> jax.Array:
    """1 less the margin between the two highest probabilities: [values, S] -> [S]."""
    others = _all_but_highest(logs)
    return others.sum(axis=0) + others.max(axis=0)


def _all_but_highest(logs):
    """Probabilities [values, S], the highest of each site left out.

    Their sum is what the highest lacks to 1, exact where that is too little for a
    difference from 1 in float32: of the surest examples, which would else all tie.
    """
    values = jnp.arange(len(logs))[:, None]
    return jnp.where(
        values == jnp.argmax(logs, axis=0, keepdims=True), 0, jnp.exp(logs)
    )
