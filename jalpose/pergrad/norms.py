"""Squared norms of per-example gradients: one road for every engine.

Nothing here knows what the network is for or how it was written: `apply_fn` may be a
Linen module's `apply`, or any function of `{"params": ..., ...}` and inputs.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Inexact, Key, PyTree, Shaped, UInt32

from jalpose.pergrad import AnyArray, checks, examples, sketch
from jalpose.pergrad.engines import Engine, engine_of
from jalpose.pergrad.trainable import Trainable, fill, select


class NormResult(NamedTuple):
    """Squared gradient norms, float32 (float64 for a network in float64).

    Attributes:
      total: [b, k] of `squared_norms`, [b] of `expected_squared_norm`.
      by_tensor: a tree like `params` of arrays shaped as `total`, or None. Tensors an
        approximate engine leaves out have zeros.
      standard_error: of an engine that estimates, shaped as `total`, else None.
    """

    total: Float[Array, "b k"] | Float[Array, " b"]
    by_tensor: PyTree[Float[Array, "b k"] | Float[Array, " b"]] | None = None
    standard_error: Float[Array, " b"] | None = None


def squared_norms(
    engine: str | Engine,
    apply_fn: Callable[..., Any],
    loss_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    targets: PyTree[Shaped[AnyArray, "b k ..."]],
    *,
    by_tensor: bool = False,
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> NormResult:
    """Squared norm of the gradient of `loss_fn` for each example and candidate.

    Products are taken in the highest precision of the hardware. With arrays in hand
    (not under `jit`) examples are first checked to be independent of each other,
    `checks.independent`; under `jit` do so once yourself: there dropout under one key
    draws the same mask for every example, as each is run as a batch of one. Keys of
    their own are inputs, one an example.

    Args:
      engine: a key of `ENGINES`, or an `Engine` with its options.
      apply_fn: (variables, inputs [b, ...]) -> tree of [b, ...]; examples of a batch
        independent of each other (batch norm in evaluation mode: a per-example
        gradient does not exist otherwise).
      loss_fn: (one output, one target) -> real floating scalar. A loss that sees the
        input too: let `apply_fn` return it beside the output.
      variables: collections of variables; of `params` all floating and complex arrays
        count, integers are left out (see `dtypes`).
      inputs: tree of [b, ...], of any dtype.
      targets: tree of [b, k, ...], k candidate targets an example, of any dtype.
      by_tensor: also return the norms of each parameter tensor.
      mask: [b], False where an example is padding: its norms are zeros, whatever it is
        filled with.
      trainable: of which parameters the norms are, by their names as in `Route.name`;
        None: of all. E.g. lambda name: "lora" in name. The others are as constants.
      mesh: split the examples over all its devices, one axis; b must divide evenly.
        Sharded inputs in hand need it, and so does `jit` with `in_shardings`: the
        compiler, left to split the gradients of convolutions itself, has been seen to
        get them wrong. Under `jit` inputs that live on a mesh are split the same way.

    Returns:
      NormResult with `total` [b, k].

    Raises:
      ValueError: unknown engines; `sketch`, which knows the expectation alone;
        variables without floating arrays in `params`; targets of another b, of
        differing k, or without an axis of k; no gradient at all; an output without
        floats or a row for each; a loss that is not one floating scalar; examples that
        are not independent; with a mesh, a b that does not divide, or a network that
        splits its arrays itself; without one, inputs in hand split over devices;
        `goodfellow` and `conv_linear`, a parameter that they cannot place.
    """
    engine = engine_of(engine)
    if engine.name == "sketch":
        raise ValueError(
            "the engine sketch computes the expectation over the candidates alone: "
            "call expected_squared_norm, or take ghost"
        )
    checks.network(variables)
    checks.shapes(inputs, targets)
    apply_fn, variables = select(apply_fn, variables, trainable)

    def one_example(variables, arguments, loop):
        example, target = arguments
        output, pull, _ = examples.linearise(engine, apply_fn, variables, example)
        cotangents = examples.cotangents(loss_fn, output, target, loop)
        return pull(cotangents, examples.chunk(engine, len(cotangents[0]), loop))

    return _norms(
        engine,
        one_example,
        apply_fn,
        variables,
        inputs,
        targets,
        mesh,
        by_tensor,
        mask,
        num=jax.tree.leaves(targets)[0].shape[1],
    )


def cotangent_squared_norms(
    engine: str | Engine,
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    cotangents: PyTree[Inexact[AnyArray, "b k ..."]],
    *,
    by_tensor: bool = False,
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> NormResult:
    """Squared norm of J^T r for each example and each given cotangent r of its output.

    Args:
      engine: as for `squared_norms`, and so are all arguments but the following.
      apply_fn: see there.
      variables: see there.
      inputs: see there.
      cotangents: tree like the output, each array [b, k, ...] and shaped as an
        example's.
      by_tensor: see there.
      mask: see there.
      trainable: see there.
      mesh: see there.

    Returns:
      NormResult with `total` [b, k].

    Raises:
      ValueError: as `squared_norms`.
    """
    return squared_norms(
        engine,
        apply_fn,
        examples.inner_product,
        variables,
        inputs,
        cotangents,
        by_tensor=by_tensor,
        mask=mask,
        trainable=trainable,
        mesh=mesh,
    )


def expected_squared_norm(
    engine: str | Engine,
    apply_fn: Callable[..., Any],
    loss_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    targets: PyTree[Shaped[AnyArray, "b k ..."]],
    weights: Float[AnyArray, "b k"],
    *,
    keys: Key[AnyArray, " b"] | UInt32[AnyArray, "b 2"] | None = None,
    by_tensor: bool = False,
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> NormResult:
    """Squared gradient norm of each example, summed over its candidates with weights.

    Args:
      engine: as for `squared_norms`, and so are all arguments but the following.
      apply_fn: see there.
      loss_fn: see there.
      variables: see there.
      inputs: see there.
      targets: see there.
      weights: [b, k], not negative, e.g. the probabilities of the candidates.
      keys: [b] keys of the random signs of `sketch` with a remainder.
      by_tensor: see there.
      mask: see there.
      trainable: see there.
      mesh: see there.

    Returns:
      NormResult with `total` [b].

    Raises:
      ValueError: as `squared_norms`, but for `sketch`; weights of another b or k;
        `sketch` with a remainder and no keys.
    """
    engine = engine_of(engine)
    checks.network(variables)
    checks.shapes(inputs, targets, weights)
    if engine.name != "sketch":
        return _summed(
            squared_norms(
                engine,
                apply_fn,
                loss_fn,
                variables,
                inputs,
                targets,
                by_tensor=by_tensor,
                mask=mask,
                trainable=trainable,
                mesh=mesh,
            ),
            weights,
        )
    if engine.remainder and keys is None:
        raise ValueError(
            "sketch with a remainder draws signs: give keys, one an example"
        )
    if keys is None:
        keys = jax.random.split(jax.random.key(0), len(weights))
    apply_fn, variables = select(apply_fn, variables, trainable)
    num = weights.shape[1]
    passes = min(engine.passes, num)
    remainder = min(engine.remainder, num - engine.split_mean) if passes < num else 0

    def one_example(variables, arguments, loop):
        example, (target, weight, key) = arguments
        output, pull, (plan, seen) = examples.linearise(
            engine, apply_fn, variables, example
        )
        cotangents = examples.cotangents(loss_fn, output, target, loop)
        assert plan is not None  # of all engines but `exact`
        metric = sketch.gram(plan, seen, cotangents)
        chosen = sketch.directions(
            key,
            metric,
            weight,
            passes=passes,
            split_mean=engine.split_mean,
            remainder=remainder,
        )
        roots = jnp.sqrt(weight).astype(chosen.dtype)
        mixed = [
            jnp.tensordot(chosen * roots[None], part, 1).astype(part.dtype)
            for part in cotangents
        ]
        found = pull(mixed, examples.chunk(engine, passes, loop))
        if remainder or not engine.extrapolate or passes == num:
            return found
        factors = sketch.extrapolation(metric, weight, chosen)
        return [norms * factors for norms in found]

    found = _norms(
        engine,
        one_example,
        apply_fn,
        variables,
        inputs,
        (targets, weights, keys),
        mesh,
        by_tensor,
        mask,
        num=passes,
    )
    total, error = sketch.combine(found.total.T, remainder)
    tensors = None
    if by_tensor:
        tensors = jax.tree.map(
            lambda norms: sketch.combine(norms.T, remainder)[0], found.by_tensor
        )
    return NormResult(total, tensors, error)


def _summed(found: NormResult, weights) -> NormResult:
    def expectation(values):
        return jnp.sum(weights * values, axis=1)

    return NormResult(
        expectation(found.total), jax.tree.map(expectation, found.by_tensor)
    )


def _norms(
    engine, one_example, apply_fn, variables, inputs, rest, mesh, by_tensor, mask, num
) -> NormResult:
    """Map what gives the norms of one example's tensors over the examples."""

    def begin(variables, _):
        def one(arguments, loop):
            tensors = one_example(variables, arguments, loop)
            return tensors if by_tensor else [sum(tensors)]

        return one

    shared = (variables, ())
    tensors = examples.each(
        engine,
        begin,
        apply_fn,
        shared,
        inputs,
        rest,
        num=num,
        mesh=mesh,
        mask=mask,
    )
    structure = jax.tree.structure(variables["params"])
    total = sum(tensors)
    tree = jax.tree.unflatten(structure, tensors) if by_tensor else None
    return NormResult(total, fill(tree, jnp.zeros_like(total)) if by_tensor else None)
