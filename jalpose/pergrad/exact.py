"""Exact per-example gradient norms by `jax.vmap` over autodiff: the oracle.

The K candidate gradients of one example differ only in the cotangent of the output,
so one forward pass is shared and K cotangents are pulled back through it under
`vmap`: the same numbers as `vmap(grad)` over K copies of the example, without K - 1
of the forward passes.
"""

import jax
import jax.numpy as jnp


def cotangent_squared_norms(
    apply_fn, variables, inputs, cotangents, *, chunk: int = 0, by_tensor: bool = False
):
    """Squared norm of the parameter gradient for each example and cotangent.

    Args:
      apply_fn: (variables, inputs [B, ...]) -> outputs [B, ...], one array; must
        treat the examples of a batch independently (batch norm in evaluation mode).
      variables: Linen variables; the gradient is over all of `params`.
      inputs: [B, ...].
      cotangents: [B, K, ...], each shaped like one example's output.
      chunk: cotangents pulled back at once; 0 takes all K. Memory grows by one set
        of parameter gradients each.
      by_tensor: also return the norms of each parameter tensor.

    Returns:
      total float32 [B, K], and a tree like `params` of [B, K] or None.
    """
    params = variables["params"]
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def one_example(example):
        x, cots = example

        def forward(params):
            return apply_fn({**rest, "params": params}, x[None])[0]

        _, pull_back = jax.vjp(forward, params)

        def one_cotangent(cot):
            (gradient,) = pull_back(cot)
            return jax.tree.map(
                lambda g: jnp.sum(jnp.square(g.astype(jnp.float32))), gradient
            )

        return jax.lax.map(one_cotangent, cots, batch_size=chunk or cots.shape[0])

    tensors = jax.lax.map(one_example, (inputs, cotangents))
    total = sum(jax.tree.leaves(tensors))
    return total, (tensors if by_tensor else None)
