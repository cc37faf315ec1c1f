"""Inputs that have no per-example gradient norm, or not the one that was meant."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree, Shaped

from jalpose.pergrad import AnyArray

# Outputs of an example alone and in company differ by rounding; batch statistics
# change them by far more.
_TOLERANCE = 1e-3


def shapes(
    inputs: PyTree[Shaped[AnyArray, "..."]],
    targets: PyTree[Shaped[AnyArray, "..."]],
    weights: Shaped[AnyArray, "..."] | None = None,
) -> None:
    """Raise ValueError unless targets (and weights) are [b, k, ...] for the inputs.

    Args:
      inputs: tree of what should be [b, ...].
      targets: tree of what should be [b, k, ...].
      weights: what should be [b, k].
    """
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
    leaves = jax.tree.leaves(targets)
    if weights is not None:
        leaves = [*leaves, weights]
    found = {leaf.shape[:2] for leaf in leaves}
    if len(rows) != 1 or len(found) != 1 or next(iter(found))[:1] != (*rows,):
        raise ValueError(
            "every leaf of targets, and the weights, must be [B, K, ...] with the "
            f"inputs' B and one K: inputs have B={sorted(rows)}, the leaves' first two "
            f"axes are {[tuple(leaf.shape[:2]) for leaf in leaves]}"
        )


def independent(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
) -> None:
    """Raise ValueError where an example's output depends on what stands beside it.

    Two examples are run together and alone; a batch of one is doubled up with a
    changed copy of itself.

    Args:
      apply_fn: (variables, inputs [b, ...]) -> a tree of [b, ...].
      variables: of the network.
      inputs: tree of arrays, not traced.
    """
    pair = jax.tree.map(_pair, inputs)

    @jax.jit
    def outputs(variables, pair):
        together = apply_fn(variables, pair)
        alone = [
            apply_fn(variables, jax.tree.map(lambda x, i=i: x[i : i + 1], pair))
            for i in (0, 1)
        ]
        return together, jax.tree.map(lambda *rows: jnp.concatenate(rows), *alone)

    together, alone = map(jax.tree.leaves, outputs(variables, pair))
    for one, other in zip(together, alone, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        scale = np.nanmax(np.abs(other), initial=0)
        off = np.nanmax(np.abs(one - other), initial=0)
        if off > _TOLERANCE * scale:
            raise ValueError(
                "the output of an example depends on the others in its batch (by "
                f"{off / scale:.2g} of the largest output): a per-example gradient "
                "does not exist. Batch norm in training mode? Apply the network with "
                "its running statistics"
            )


def _pair(leaf):
    leaf = jnp.asarray(leaf)
    if len(leaf) > 1:
        return leaf[:2]
    moved = jnp.flip(leaf) if leaf.ndim > 1 else leaf
    return jnp.concatenate([leaf, moved])


def independent_if_concrete(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
) -> None:
    """Check with `independent` unless there are tracers, which have no values.

    Args:
      apply_fn: see `independent`.
      variables: of the network.
      inputs: tree of arrays, traced or not.

    Raises:
      ValueError: see `independent`.
    """
    # Under `jit` a new constant is a tracer, whatever the arguments are.
    leaves = jax.tree.leaves((variables, inputs, jnp.zeros(())))
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        independent(apply_fn, variables, inputs)


def on_one_device(inputs: PyTree[Shaped[AnyArray, "..."]]) -> None:
    """Raise ValueError where arrays in hand are split over devices, not replicated."""
    for leaf in jax.tree.leaves(inputs):
        if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
            continue
        if not leaf.sharding.is_fully_replicated:
            raise ValueError(
                f"the inputs are split over {len(leaf.sharding.device_set)} devices: "
                "give the mesh, squared_norms(..., mesh=mesh), so that each device "
                "works on its own examples"
            )


def divides(count: int, mesh: Mesh) -> None:
    """Raise ValueError unless `count` examples split evenly over the mesh."""
    size = mesh.shape[mesh.axis_names[0]]
    if count % size:
        raise ValueError(
            f"{count} examples do not split evenly over {size} devices: pad the batch "
            f"to a multiple of {size}"
        )


def finite(norms: Float[AnyArray, "b ..."], names: Sequence[Any]) -> None:
    """Raise FloatingPointError naming the examples whose norms are not finite.

    Args:
      norms: [b] or [b, k], not traced.
      names: of the b examples, anything that prints.
    """
    norms = np.asarray(norms)
    bad = np.flatnonzero(~np.isfinite(norms.reshape(len(norms), -1)).all(axis=1))
    if len(bad):
        listed = ", ".join(str(names[i]) for i in bad[:10])
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise FloatingPointError(
            f"the gradient norm of {len(bad)} of {len(norms)} examples is NaN or "
            f"infinite: {listed}{more}. Weights that diverged, an image or a label "
            "with NaN, or a squared norm beyond the range of float32"
        )
