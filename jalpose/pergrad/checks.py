"""Inputs that have no per-example gradient norm, or not the one that was meant."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes
from jalpose.pergrad.program import checked, operations

# The output of an example in another place of a batch, or alone, differs by rounding;
# a random mask of another place changes it by far more.
_PLACE = 1e-2
# In the same place beside another companion it is the same to the bit, but on devices
# that add up in any order. In units of the dtype's precision.
_ULPS = 4


def network(variables: Any) -> None:
    """Raise ValueError unless variables are a mapping whose `params` are arrays."""
    if not isinstance(variables, Mapping) or "params" not in variables:
        what = (
            f"one with the keys {sorted(map(str, variables))}"
            if isinstance(variables, Mapping)
            else f"a {type(variables).__name__}"
        )
        raise ValueError(
            "variables must be a mapping {'params': tree of arrays, ...}, got "
            f"{what}: wrap what you have, and let apply_fn take it out again"
        )
    leaves = jax.tree.leaves(variables["params"])
    for leaf in leaves:
        if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
            raise ValueError(
                f"variables['params'] must be a tree of arrays, got a leaf of type "
                f"{type(leaf).__name__}: split a module into its arrays and the rest "
                "(eqx.partition, nnx.split), and let apply_fn put it together"
            )
    if not any(dtypes.has_gradient(leaf) for leaf in leaves):
        raise ValueError(
            "variables['params'] has no floating array: there is nothing to take a "
            "gradient by"
        )


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
    count, num = next(iter(found))
    if not count or not num:
        raise ValueError(
            f"there are no gradients to take: B={count} examples, K={num} targets of "
            "each; leave out empty batches"
        )


def loss(loss_fn: Callable[..., Any], output: PyTree, targets: PyTree) -> None:
    """Raise ValueError unless a loss is one real float for an output and a target.

    Targets are refused too that look as if their axis of candidates were left out.

    Args:
      loss_fn: (one output, one target) -> scalar.
      output: of one example, any tree.
      targets: tree of [k, ...].
    """
    # Of K = 1 it is the same either way.
    if (
        isinstance(targets, AnyArray)
        and isinstance(output, AnyArray)
        and dtypes.has_gradient(targets)
        and targets.shape == output.shape
        and len(targets) > 1
    ):
        shape = ", ".join(map(str, output.shape))
        raise ValueError(
            f"targets [B, {shape}] are shaped as the outputs, so that K would be "
            f"{output.shape[0]}; expected [B, K, *output] = [B, K, {shape}]: give "
            f"targets[:, None] for K=1, or (targets,) if K={output.shape[0]} is meant"
        )
    target = jax.tree.map(lambda leaf: leaf[0], targets)
    found = jax.eval_shape(loss_fn, output, target)
    arrays = jax.tree.leaves(found)
    scalar = len(arrays) == 1 and arrays[0].shape == ()
    if not scalar or not jnp.issubdtype(arrays[0].dtype, jnp.floating):
        shown = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", found)
        raise ValueError(
            "loss_fn must return one real floating scalar for one output and one "
            f"target, without auxiliary results, got {shown}: take its sum or mean"
        )


def cotangents_fit(output: PyTree, cotangents: PyTree) -> None:
    """Raise ValueError unless cotangents are [k, *output] for one example's output."""
    structures = [str(jax.tree.structure(tree)) for tree in (output, cotangents)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"cotangents must be a tree like the output, {structures[0]}, got "
            f"{structures[1]}"
        )
    leaves = zip(jax.tree.leaves(output), jax.tree.leaves(cotangents), strict=True)
    for made, given in leaves:
        if given.shape[1:] != made.shape:
            shape = ", ".join(map(str, made.shape))
            raise ValueError(
                f"cotangents must be [B, K, *output] = [B, K, {shape}], got "
                f"[B, {', '.join(map(str, given.shape))}]"
            )


def independent(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
) -> None:
    """Raise ValueError where an example's output depends on what stands beside it.

    The first example is run beside two different companions, which are drawn and not
    taken from the batch, in the other place, and alone. `apply_fn` is compiled once for
    inputs of a shape, as long as it is the same function.

    Args:
      apply_fn: (variables, inputs [b, ...]) -> a tree of [b, ...].
      variables: of the network.
      inputs: tree of arrays, not traced.
    """
    draws = np.random.default_rng(0)
    example = jax.tree.map(_first, inputs)
    companions = [
        jax.tree.map(lambda leaf: _companion(leaf, draws), inputs) for _ in range(2)
    ]
    run = _compiled(apply_fn)

    def output(place, *examples):
        batch = jax.tree.map(_stacked, *examples)
        found = checked(run(variables, batch), len(examples))
        return [np.asarray(leaf[place]) for leaf in jax.tree.leaves(found)]

    here = output(0, example, companions[0])
    others = output(0, example, companions[1])
    off = max(map(_influence, here, others), default=0.0)
    # Of devices that do not add up in the same order twice.
    if off and off > 8 * max(map(_influence, here, output(0, example, companions[0]))):
        raise ValueError(
            "the output of an example depends on the others in its batch (by "
            f"{off:.2g} of itself): a per-example gradient does not exist. Batch norm "
            "in training mode? Apply the network with its running statistics"
        )
    for place, examples in ((1, (companions[0], example)), (0, (example,))):
        if max(map(_moved, here, output(place, *examples)), default=0.0) > _PLACE:
            raise ValueError(
                "the output of an example depends on its place in the batch or on "
                "their number: a per-example gradient does not exist. Random numbers "
                "of the whole batch from one key, as of dropout? Apply the network "
                "without, or give each example a key of its own among the inputs"
            )


def _compiled(apply_fn):
    """`apply_fn` under `jit`, the same one for the same function."""
    try:
        hash(apply_fn)
    except TypeError:
        return _compiled_anew(apply_fn)
    return _compiled_once(apply_fn)


def _compiled_anew(apply_fn):
    # Of a function of its own, or `jit` would forget bound methods at once.
    return jax.jit(lambda variables, inputs: apply_fn(variables, inputs))


_compiled_once = functools.lru_cache(maxsize=16)(_compiled_anew)


def _first(leaf):
    """The first example of a leaf, on the host, without NaN or infinities."""
    if isinstance(leaf, jax.Array):
        shard = leaf.addressable_shards[0].data  # slices of split arrays move data
        leaf = shard if shard.shape[1:] == leaf.shape[1:] else np.asarray(leaf)
    if dtypes.is_key(leaf):
        return leaf[:1]
    first = np.asarray(leaf[:1])
    if not dtypes.has_gradient(first):
        return first
    return np.where(np.isfinite(first.astype(np.complex128)), first, 0).astype(
        first.dtype
    )


def _companion(leaf, draws):
    """Another example like the first: numbers moved by as much as they are large."""
    first = _first(leaf)
    if dtypes.is_key(leaf):
        return jax.random.split(first[0], 1)
    if first.dtype == bool:
        return draws.random(first.shape) < 0.5
    if dtypes.has_gradient(first):
        size = np.abs(first.astype(np.complex64)).max(initial=0)
        noise = draws.normal(size=first.shape) * (size if 0 < size < 1e30 else 1)
        return (first + noise).astype(first.dtype)
    # Integers may be indices: others that occur, or lie beside.
    low, high = int(first.min(initial=0)), int(first.max(initial=1))
    return draws.integers(low, max(high, low + 1), first.shape, endpoint=True).astype(
        first.dtype
    )


def _stacked(*rows):
    if len(rows) == 1:
        return rows[0]
    return (jnp if dtypes.is_key(rows[0]) else np).concatenate(rows)


def _influence(one, other) -> float:
    """Largest change of an output by its own size; 0 if it is rounding."""
    if one.dtype.kind not in "biufc":  # bfloat16 and narrower
        limit = _ULPS * float(jnp.finfo(one.dtype).eps)
        one, other = (x.astype(np.float32) for x in (one, other))
    else:
        limit = _ULPS * np.finfo(one.dtype).eps if one.dtype.kind in "fc" else 0.0
    if one.dtype.kind in "biu":
        one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(one), np.abs(other))
        change = np.abs(one - other)
        off = np.where(size > 0, change / np.where(size > 0, size, 1), 0)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    off = np.where(same, 0, np.where(np.isfinite(off), off, 1))
    largest = float(off.max(initial=0))
    return largest if largest > limit else 0.0


def _moved(one, other) -> float:
    """Largest change of an output by the largest output there is."""
    dtype = np.complex128 if one.dtype.kind == "c" else np.float64
    one, other = one.astype(dtype), other.astype(dtype)
    scale = np.nanmax(np.abs(one), initial=0)
    off = np.nanmax(np.abs(one - other), initial=0)
    return float(off / scale) if off > 0 and scale > 0 else float(off > 0)


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


def unconstrained(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
) -> None:
    """Raise ValueError where a network says itself how its arrays are split."""

    def shape(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    def one(leaf):
        return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)

    arguments = jax.tree.map(shape, variables), jax.tree.map(one, inputs)
    closed = jax.make_jaxpr(apply_fn)(*arguments)
    if operations(closed.jaxpr) & {"sharding_constraint", "reshard", "mesh_cast"}:
        raise ValueError(
            "apply_fn says how its arrays are split (with_sharding_constraint), where "
            "with mesh= each device works on examples of its own: leave it out of "
            "apply_fn"
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
