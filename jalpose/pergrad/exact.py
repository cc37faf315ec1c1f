"""Exact per-example gradient norms by `jax.vmap` over autodiff: the oracle.

The K candidate gradients of one example differ only in the cotangent of the output,
so one forward pass is shared and K cotangents are pulled back through it under
`vmap`: the same numbers as `vmap(grad)` over K copies of the example, without K - 1
of the forward passes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jalpose.pergrad.program import only_array


def linearise(apply_fn: Callable, params, other, example):
    """Run one example forward.

    Args:
      apply_fn: (variables, inputs [B, ...]) -> one array [B, ...].
      params: tree of parameters.
      other: the other collections of the variables.
      example: inputs of one example.

    Returns:
      The output, and a function (cotangents [K, ...], chunk) -> list of [K], the
      squared norms of each parameter tensor's gradient.
    """
    batch = jax.tree.map(lambda x: x[None], example)

    def forward(params):
        return only_array(apply_fn({**other, "params": params}, batch), 1)[0]

    output, pull_back = jax.vjp(forward, params)

    def pull(cotangents, chunk):
        def norms(cotangent):
            (gradient,) = pull_back(cotangent)
            return [sum_of_squares(leaf) for leaf in jax.tree.leaves(gradient)]

        return by_chunks(norms, cotangents, chunk)

    return output, pull


def by_chunks(norms: Callable, cotangents, chunk: int):
    """`norms` of each of the K cotangents, `chunk` at once."""
    if chunk >= cotangents.shape[0]:
        return jax.vmap(norms)(cotangents)
    return jax.lax.map(norms, cotangents, batch_size=chunk)


def sum_of_squares(gradient):
    """Sum of all squares, in at least float32."""
    wide = jnp.promote_types(jnp.float32, gradient.dtype)
    return jnp.sum(jnp.square(gradient.astype(wide)))
