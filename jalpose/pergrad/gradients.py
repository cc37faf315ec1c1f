"""Sums of gradients that are told apart: weighted, and beside their norms."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jalpose.pergrad import AnyArray, checks, dtypes, examples, given, summing
from jalpose.pergrad.engines import Engine, engine_of
from jalpose.pergrad.trainable import Trainable, select


class NormsAndGradient(NamedTuple):
    """What `norms_and_gradient` returns.

    Attributes:
      squared_norms: [b, k], zeros for padding.
      gradient: mean of the gradients of all examples that are no padding and of their
        candidates, a tree like the parameters.
    """

    squared_norms: Float[Array, "b k"]
    gradient: PyTree[Array]


def weighted_gradient(
    apply_fn: Callable[..., Any],
    loss_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    targets: PyTree[Shaped[AnyArray, "b k ..."]],
    weights: Float[AnyArray, "b ..."],
    *,
    microbatch: int = 0,
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> PyTree[Array]:
    """Sum of all gradients, each times its weight, by one ordinary backward pass.

    What has the weight zero is not computed with, so that NaN in it goes nowhere.

    Args:
      apply_fn: see `api.squared_norms`, and so for all that follow but two.
      loss_fn: see there.
      variables: see there.
      inputs: see there.
      targets: see there.
      weights: [b, k], or [b] for all candidates of an example; of any sign.
      microbatch: examples done at once; 0: all.
      mask: see there; padding has the weight zero.
      trainable: see there.
      mesh: see there.

    Returns:
      A tree like `params`, in their dtypes, with zeros for integers, and None for what
      is not trainable.

    Raises:
      ValueError: as `api.squared_norms`; weights of another shape; a microbatch below
        zero.
    """
    checks.network(variables)
    checks.shapes(inputs, targets)
    given.weights_fit(weights, targets)
    given.not_negative("microbatch", microbatch)
    apply_fn, variables = select(apply_fn, variables, trainable)
    num = jax.tree.leaves(targets)[0].shape[1]
    weights = jnp.asarray(weights)
    if weights.ndim == 1:
        weights = jnp.broadcast_to(weights[:, None], (len(weights), num))
    if mask is not None:
        given.mask_fits(mask, len(weights))
        weights = jnp.where(jnp.asarray(mask)[:, None], weights, 0)

    def part(variables, arguments):
        inputs, (targets, weights) = without_zeros(arguments)
        leaves, structure = jax.tree.flatten(variables["params"])
        numbers = [n for n, leaf in enumerate(leaves) if dtypes.has_gradient(leaf)]

        def total(differentiated):
            values = list(leaves)
            for number, value in zip(numbers, differentiated, strict=True):
                values[number] = value
            params = jax.tree.unflatten(structure, values)
            outputs = apply_fn({**variables, "params": params}, inputs)
            checks.loss(loss_fn, *jax.tree.map(lambda x: x[0], (outputs, targets)))
            losses = jax.vmap(jax.vmap(loss_fn, (None, 0)))(outputs, targets)
            return jnp.sum(jnp.where(weights != 0, weights * losses, 0))

        found = jax.grad(total)([leaves[n] for n in numbers])
        sums = list(map(jnp.zeros_like, leaves))
        for number, gradient in zip(numbers, found, strict=True):
            sums[number] = gradient
        return (), jax.tree.unflatten(structure, _of_counted(sums, weights))

    _, gradient = examples.sums(
        microbatch,
        part,
        apply_fn,
        variables,
        inputs,
        (targets, weights),
        mesh=mesh,
    )
    return gradient


def norms_and_gradient(
    engine: str | Engine,
    apply_fn: Callable[..., Any],
    loss_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    targets: PyTree[Shaped[AnyArray, "b k ..."]],
    *,
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> NormsAndGradient:
    """Squared norm of each gradient and the mean of them all, by one backward pass.

    A training step's gradient, with the norms beside it for little more: how is told in
    `summing`. From them the gradient noise scale, the variance of single gradients by
    the squared length of their mean (McCandlish et al., arXiv 1812.06162, Appendix A,
    with batches of one and of n):

    >>> found = norms_and_gradient(...)  # doctest: +SKIP
    >>> n, small = found.squared_norms.size, found.squared_norms.mean()
    ... # doctest: +SKIP
    >>> big = sum(jnp.sum(g**2) for g in jax.tree.leaves(found.gradient))
    ... # doctest: +SKIP
    >>> n * (small - big) / (n * big - small)  # doctest: +SKIP

    Args:
      engine: `ghost`; or an `Engine` with its options, of which `microbatch` says how
        many gradients are taken at once.
      apply_fn: see `api.squared_norms`, and so for all that follow.
      loss_fn: see there.
      variables: see there.
      inputs: see there.
      targets: see there; each candidate is an example of its own here, with a forward
        pass of its own.
      mask: see there.
      trainable: see there.
      mesh: see there.

    Returns:
      NormsAndGradient; of the gradient, what is not trainable is None, and integers
      have zeros.

    Raises:
      ValueError: as `api.squared_norms`; an engine other than `ghost`.
    """
    engine = engine_of(engine)
    if engine.name != "ghost":
        raise ValueError(
            f"norms_and_gradient is exact, in one pass: engine {engine.name!r} is not, "
            "take ghost"
        )
    checks.network(variables)
    checks.shapes(inputs, targets)
    apply_fn, variables = select(apply_fn, variables, trainable)
    count, num = jax.tree.leaves(targets)[0].shape[:2]
    counts = given.counted(mask, count)

    def part(variables, arguments):
        inputs, (targets, weights) = without_zeros(arguments)
        rows = jax.tree.leaves(inputs)
        example = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), inputs
        )
        plan = examples.plan_of(engine, apply_fn, variables, example)
        params, other = examples.split(variables)
        leaves, structure = jax.tree.flatten(params)
        flat = [targets, weights]
        if num > 1:
            rows = [jnp.repeat(row, num, axis=0) for row in rows]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), flat)

        def loss(output, rest):
            target, weight = rest
            checks.loss(loss_fn, output, jax.tree.map(lambda x: x[0], targets))
            return jnp.where(weight, loss_fn(output, target), 0)

        squares, sums = summing.norms_and_sum(
            plan, leaves, jax.tree.leaves(other), loss, rows, flat
        )
        sums = jax.tree.unflatten(structure, _of_counted(sums, weights))
        return squares.reshape(-1, num), sums

    norms, total = examples.sums(
        math.ceil(engine.microbatch / num),
        part,
        apply_fn,
        variables,
        inputs,
        (targets, jnp.broadcast_to(counts[:, None], (count, num))),
        mesh=mesh,
    )
    norms = jnp.where(counts[:, None], norms, 0)
    terms = num * jnp.maximum(jnp.sum(counts), 1)
    return NormsAndGradient(norms, jax.tree.map(lambda g: _over(g, terms), total))


def _over(total, terms):
    return (total / terms.astype(dtypes.wide(total))).astype(total.dtype)


def _of_counted(sums, weights):
    """Sums of some examples, zeros where none has a weight: they may be NaN."""
    some = jnp.any(weights != 0)
    return jax.tree.map(lambda x: jnp.where(some, x, jnp.zeros_like(x)), sums)


def without_zeros(arguments):
    """Arguments of examples with what has no weight replaced by what has some.

    A NaN times zero is NaN: where there is no weight, nothing may be computed with.
    Where nothing has a weight, what is computed is for `_of_counted` to leave out.
    """
    inputs, (targets, weights) = arguments
    counts = weights != 0
    some = jnp.any(counts, axis=1)
    rows = jnp.where(some, jnp.arange(len(some)), jnp.argmax(some))
    inputs, targets, counted = examples.rows_of((inputs, targets, counts), rows)
    first = jnp.argmax(counted, axis=1)[:, None]
    columns = jnp.where(counted, jnp.arange(counts.shape[1])[None], first)
    targets = jax.tree.map(lambda x: jax.vmap(lambda t, i: t[i])(x, columns), targets)
    return inputs, (targets, weights)
