"""Passes of outputs: what is computed of each example's, and by which networks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jalpose.scoring.passes import Passes, example_keys


def reduction(walker: Passes, fn: Callable, over: str, samples: int) -> Callable:
    """A pass of `fn(output, key)`: (variables, rows) -> dict of arrays [b, ...].

    Args:
      walker: compiled passes of the network.
      fn: see `Probe.reduce`, and so for the others.
      over: see there.
      samples: see there.
    """

    def reduced(variables, rows):
        keys = jax.random.wrap_key_data(rows["context"]["key"])
        images = rows["image"]
        if over == "network":
            return jax.vmap(fn)(walker.output(variables, images), keys)
        if over == "companion":
            return jax.vmap(fn)(walker.companion_output(variables, images), keys)
        if over == "members":
            output = walker.members_output(variables, images)
        else:
            fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
            draws = jax.vmap(fold, in_axes=(0, None))(keys, jnp.arange(samples))
            output = walker.dropout_output(variables, images, draws)
        return jax.vmap(fn, in_axes=(1, 0))(output, keys)

    return reduced


@jax.jit
def key_data(key, ids):
    """Words of each example's own key, [m, ...]."""
    return jax.random.key_data(example_keys(key, ids))
