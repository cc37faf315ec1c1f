"""What the methods share that ask how sure a prediction is: its sites' posteriors."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def of_sites(
    probe, ids: np.ndarray, method: str, measure: Callable, temperature: float
) -> np.ndarray:
    """A measure of the softmax posterior of each site: float32 [M, S].

    Args:
      probe: of the trained network, whose task has the capability `posterior`.
      ids: int64 [M], example ids.
      method: that asks; the probe's journal has the pass under its name.
      measure: logarithms of the probabilities [values, S] -> [S]; the same object each
        time. Values come first: they are summed in their order, where XLA would sum
        rows in pieces.
      temperature: of the softmax, in units of the prediction.
    """
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
    """Entropy in nats: [values, S] -> [S]."""
    # A NaN or an infinity anywhere among a site's values makes its sum NaN.
    return -jnp.sum(jnp.exp(logs) * logs, axis=0)


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
