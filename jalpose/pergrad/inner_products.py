"""Inner products of single gradients, exact: for small sets, and to try sketches by."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jalpose.pergrad import AnyArray, checks, dtypes, examples, given
from jalpose.pergrad.engines import Engine
from jalpose.pergrad.measures import Measure
from jalpose.pergrad.trainable import Trainable, select


def _flat(gradient, drawn):
    del drawn
    wide = dtypes.wide(gradient)
    if dtypes.is_real(gradient):
        return gradient.astype(wide).reshape(-1)
    parts = jnp.stack([gradient.real, gradient.imag])
    return parts.astype(wide).reshape(-1)


def _unasked(*_):
    raise AssertionError("gradients are formed by autodiff here")


# The gradient itself, its entries in a row.
_ENTRIES = Measure((0,), _unasked, _flat)


def inner_products(
    apply_fn: Callable[..., Any],
    loss_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    targets: PyTree[Shaped[AnyArray, "b k ..."]],
    other_inputs: PyTree[Shaped[AnyArray, "c ..."]] | None = None,
    other_targets: PyTree[Shaped[AnyArray, "c l ..."]] | None = None,
    *,
    block: int = 8,
    mask: Bool[AnyArray, " b"] | None = None,
    other_mask: Bool[AnyArray, " c"] | None = None,
    trainable: Trainable | None = None,
) -> Float[Array, "b k c l"]:
    """Inner products of all gradients of one set of examples with those of another.

    Gradients are formed, a block of examples of either set at a time, and those of the
    second set once for each block of the first: memory is that of two blocks of
    gradients, and a larger block is less work. Of complex gradients it is the real
    part of g h^*.

    Args:
      apply_fn: see `api.squared_norms`, and so for all that follow but the others and
        `block`.
      loss_fn: see there.
      variables: see there.
      inputs: see there.
      targets: see there.
      other_inputs: of the second set, c examples; None: the first set again.
      other_targets: its targets, l of each example.
      block: examples whose gradients are held at once, of either set.
      mask: see there; padding has zeros.
      other_mask: of the second set.
      trainable: see there.

    Returns:
      [b, k, c, l] in at least float32.

    Raises:
      ValueError: as `api.squared_norms`; a second set without its targets, or the other
        way round; a block below one.
    """
    checks.network(variables)
    if block < 1:
        raise ValueError(f"block={block} must be at least 1")
    if (other_inputs is None) != (other_targets is None):
        raise ValueError("give other_inputs and other_targets, or neither")
    if other_inputs is None:
        if other_mask is not None:
            raise ValueError("other_mask is of other_inputs, and there are none")
        other_inputs, other_targets, other_mask = inputs, targets, mask
    apply_fn, variables = select(apply_fn, variables, trainable)
    sets = []
    for x, y, kept in (
        (inputs, targets, mask),
        (other_inputs, other_targets, other_mask),
    ):
        checks.shapes(x, y)
        checks.independent_if_concrete(apply_fn, variables, x)
        checks.on_one_device(x)
        count = len(jax.tree.leaves(x)[0])
        if kept is not None:
            given.mask_fits(kept, count)
        kept = jnp.ones(count, bool) if kept is None else jnp.asarray(kept)
        sets.append((_blocks((x, y), min(block, count)), kept))

    def one(arguments):
        example, target = arguments
        engine = Engine("exact")
        output, pull, _ = examples.linearise(
            engine, apply_fn, variables, example, _ENTRIES
        )
        cotangents = examples.cotangents(loss_fn, output, target, loop=False)
        return pull(cotangents, len(cotangents[0]))

    (first, rows), (second, columns) = sets

    def row(part):
        left = jax.vmap(one)(part)

        def column(part):
            right = jax.vmap(one)(part)
            return sum(
                jnp.einsum("akn,bln->akbl", a, b)
                for a, b in zip(left, right, strict=True)
            )

        return jax.lax.map(column, second)

    with jax.default_matmul_precision("highest"):
        found = jax.lax.map(row, first)  # [rounds, rounds, block, k, block, l]
    found = found.transpose(0, 2, 3, 1, 4, 5)
    num = found.shape[2]
    found = found.reshape(-1, num, found.shape[3] * found.shape[4], found.shape[5])
    there = rows[:, None, None, None] & columns[None, None, :, None]
    return jnp.where(there, found[: len(rows), :, : len(columns)], 0)


def _blocks(arrays, block):
    """Rows in blocks, the last one repeated as often as one is lacking."""
    count = len(jax.tree.leaves(arrays)[0])
    rounds = -(-count // block)
    order = jnp.minimum(jnp.arange(rounds * block), count - 1)
    return jax.tree.map(
        lambda x: x.reshape(rounds, block, *x.shape[1:]),
        examples.rows_of(arrays, order),
    )
