"""Curvature times a direction, gradients, and derivatives along a direction.

Everything is summed over the examples of a block, each with a weight, on all devices.
Parameters are those of `variables["params"]`; statistics of batch norms stand still, as
they do wherever the network is evaluated.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jalpose.runtime import sharding

# Parameters -> outputs of a block. There are two of one function: reverse mode is taken
# of the first, forward mode of the second, `pushed`.
Outputs = Callable[[Any], Any]
Total = Callable[[Any], jax.Array]  # those -> weighted sum of their losses


class Block(NamedTuple):
    """Some examples, on the devices.

    Attributes:
      rows: image, and label where there is one, by name.
      weights: float32 [block]; 0 of padding.
    """

    rows: dict
    weights: jax.Array


def gradient(outputs: Outputs, pushed: Outputs, total: Total, params, direction=None):
    """Gradient of the sum of losses by the parameters; without a direction."""
    del pushed, direction
    return jax.grad(lambda params: total(outputs(params)))(params)


def hessian(outputs: Outputs, pushed: Outputs, total: Total, params, direction):
    """Hessian of the sum of losses times a direction, forward over reverse."""
    del outputs
    slope = jax.grad(lambda params: total(pushed(params)))
    return jax.jvp(slope, (params,), (direction,))[1]


def gauss_newton(outputs: Outputs, pushed: Outputs, total: Total, params, direction):
    """Generalised Gauss-Newton matrix times a direction: J' B J v.

    B is the Hessian of the losses by the outputs (Schraudolph, Neural Computation
    2002): positive semidefinite where the losses are convex in the outputs, as
    cross-entropy and squared errors are, and equal to the Hessian where the network is
    linear.
    """
    found, pull = jax.vjp(outputs, params)
    along = jax.jvp(pushed, (params,), (direction,))[1]
    bent = jax.jvp(jax.grad(total), (found,), (along,))[1]
    return pull(bent)[0]


PRODUCTS = {"gauss_newton": gauss_newton, "hessian": hessian}


def summed(
    mesh,
    apply_fn: Callable,
    loss_fn: Callable,
    kind: Callable,
    forward_fn: Callable | None = None,
) -> Callable:
    """One of the above, summed over blocks: (variables, direction, blocks) -> tree.

    Args:
      mesh: the blocks are split over it.
      apply_fn: (variables, rows) -> outputs, a tree of [block, ...].
      loss_fn: (outputs, rows) -> losses [block].
      kind: gradient | hessian | gauss_newton.
      forward_fn: the same function as `apply_fn`, where that has no derivative in
        forward mode (convolutions with a backward pass of their own); None: that one.
    """
    forward_fn = apply_fn if forward_fn is None else forward_fn

    def of_part(whole, block):
        variables, direction = whole

        def outputs(params):
            return apply_fn({**variables, "params": params}, block.rows)

        def pushed(params):
            return forward_fn({**variables, "params": params}, block.rows)

        def total(outputs):
            return jnp.sum(block.weights * loss_fn(outputs, block.rows))

        with jax.default_matmul_precision("highest"):
            found = kind(outputs, pushed, total, variables["params"], direction)
        return jax.lax.psum(found, sharding.AXIS)

    whole, part = PartitionSpec(), PartitionSpec(sharding.AXIS)
    of_block = jax.jit(
        jax.shard_map(
            of_part, mesh=mesh, in_specs=(whole, part), out_specs=whole, check_vma=False
        )
    )

    def over(variables, direction, blocks: Iterable[Block]):
        total = None
        for block in blocks:
            # Waited for: of programs that wait for each other's devices one at a time.
            found = jax.block_until_ready(of_block((variables, direction), block))
            total = found if total is None else jax.tree.map(jnp.add, total, found)
        return total

    return over


def along(apply_fn: Callable, loss_fn: Callable) -> Callable:
    """Pass of `Passes.walk`: v . g of each example, no gradient formed: [block].

    A derivative along v in forward mode, at the cost of about two forward passes for
    all examples of a block together.

    Args:
      apply_fn: see `summed`.
      loss_fn: see `summed`.

    Returns:
      ({"network": variables, "direction": v}, rows) -> {"along": [block]}.
    """

    def derivative(whole, rows):
        variables = whole["network"]

        def losses(params):
            return loss_fn(apply_fn({**variables, "params": params}, rows), rows)

        with jax.default_matmul_precision("highest"):
            found = jax.jvp(losses, (variables["params"],), (whole["direction"],))[1]
        return {"along": found}

    return derivative
