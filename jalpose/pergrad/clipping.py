"""The sum of gradients none of which is longer than a limit."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jalpose.pergrad import (
    AnyArray,
    checks,
    dtypes,
    exact,
    examples,
    given,
    memory,
    places,
)
from jalpose.pergrad.engines import Engine, engine_of
from jalpose.pergrad.gradients import weighted_gradient, without_zeros
from jalpose.pergrad.norms import squared_norms
from jalpose.pergrad.trainable import Trainable, select


class ClippedGradient(NamedTuple):
    """What `clipped_gradient` returns.

    Attributes:
      gradient: the sum of the clipped gradients, a tree like the parameters.
      squared_norms: [b, k], of the gradients before they were clipped.
      weights: [b, k], what each was multiplied by: at most one, zero for padding and
        for gradients that are not finite.
    """

    gradient: PyTree[Array]
    squared_norms: Float[Array, "b k"]
    weights: Float[Array, "b k"]


def clipped_gradient(
    engine: str | Engine,
    apply_fn: Callable[..., Any],
    loss_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    targets: PyTree[Shaped[AnyArray, "b k ..."]],
    clip_norm: float | Float[AnyArray, ""],
    *,
    mask: Bool[AnyArray, " b"] | None = None,
    trainable: Trainable | None = None,
    mesh: Mesh | None = None,
) -> ClippedGradient:
    """Sum of all gradients, none longer than `clip_norm`: norms, then weights.

    The sum of g min(1, clip_norm / |g|) over examples and candidates (Abadi et al.,
    "Deep Learning with Differential Privacy", CCS 2016, Algorithm 1, before the noise).
    With `clip_norm` infinite it is the ordinary gradient. A gradient that is not finite
    has no length to clip, and counts for nothing.

    Args:
      engine: as for `api.squared_norms`, and so are all arguments but the following.
        `exact` forms each gradient, a microbatch of them at once, and adds it up
        clipped: one backward pass, the faster way on a CPU and for few examples. The
        others are of the norms, and a second pass is of the weighted losses: no
        gradient is kept (Lee and Kifer, PETS 2021); the microbatch, over the
        candidates, is that of both passes.
      apply_fn: see there.
      loss_fn: see there.
      variables: see there.
      inputs: see there.
      targets: see there.
      clip_norm: the longest a gradient may be, above zero.
      mask: see there.
      trainable: see there; the norms are of these alone.
      mesh: see there.

    Returns:
      ClippedGradient.

    Raises:
      ValueError: as `api.squared_norms`; a `clip_norm` that is not above zero.
    """
    engine = engine_of(engine)
    given.clip_norm(clip_norm)
    arguments = (apply_fn, loss_fn, variables, inputs, targets)
    if engine.name == "exact":
        return _clipped_one_by_one(engine, *arguments, clip_norm, mask, trainable, mesh)
    norms = squared_norms(
        engine, *arguments, mask=mask, trainable=trainable, mesh=mesh
    ).total
    weights = _clipping(norms, clip_norm)
    if mask is not None:
        weights = jnp.where(jnp.asarray(mask)[:, None], weights, 0)
    at_once = math.ceil(engine.microbatch / norms.shape[1])
    gradient = weighted_gradient(
        *arguments,
        weights,
        microbatch=at_once,
        mask=mask,
        trainable=trainable,
        mesh=mesh,
    )
    return ClippedGradient(gradient, norms, weights)


def _clipping(norms, clip_norm):
    """What gradients of these squared norms are multiplied by."""
    lengths = jnp.sqrt(norms)
    weights = jnp.where(lengths > clip_norm, clip_norm / lengths, 1)
    return jnp.where(jnp.isfinite(norms), weights, 0).astype(norms.dtype)


def _clipped_one_by_one(
    engine,
    apply_fn,
    loss_fn,
    variables,
    inputs,
    targets,
    clip_norm,
    mask,
    trainable,
    mesh,
):
    """The same, each gradient formed, measured and added up."""
    checks.network(variables)
    checks.shapes(inputs, targets)
    apply_fn, variables = select(apply_fn, variables, trainable)
    count, num = jax.tree.leaves(targets)[0].shape[:2]
    counts = given.counted(mask, count)
    leaves, structure = jax.tree.flatten(variables["params"])

    def part(variables, arguments):
        inputs, (targets, counts, limits) = arguments
        inputs, (targets, counts) = without_zeros((inputs, (targets, counts)))
        params, other = examples.split(variables)

        def of_example(example, targets, counts, limit):
            output, gradients_of = exact.forward(apply_fn, params, other, example)
            pulled = examples.cotangents(loss_fn, output, targets, loop=False)

            def of_one(cotangent, counts):
                found = gradients_of(cotangent)
                squares = map(dtypes.sum_of_squares, found.values())
                norm = sum(squares, jnp.zeros((), jnp.float32))
                weight = jnp.where(counts, _clipping(norm, limit), 0)
                clipped = {
                    number: jnp.where(weight > 0, weight * gradient, 0)
                    for number, gradient in found.items()
                }
                return norm, weight, clipped

            at_once = examples.chunk(engine, num, loop=False)
            if at_once >= num:
                norms, weights, clipped = jax.vmap(of_one)(pulled, counts)
                return norms, weights, _summed(clipped)

            def add(total, one):
                norm, weight, clipped = of_one(*one)
                return jax.tree.map(jnp.add, total, clipped), (norm, weight)

            first = jax.tree.map(lambda x: x[0], (pulled, counts))
            shapes = jax.eval_shape(of_one, *first)[2]
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            zeros = places.vary_as(zeros, (params, example, pulled))
            total, (norms, weights) = jax.lax.scan(add, zeros, (pulled, counts))
            return norms, weights, total

        norms, weights, clipped = jax.vmap(of_example)(inputs, targets, counts, limits)
        return (norms, weights), _summed(clipped)

    per_example = engine.microbatch or memory.worthwhile(
        apply_fn, variables, inputs, num
    )
    (norms, weights), sums = examples.sums(
        max(1, per_example // num),
        part,
        apply_fn,
        variables,
        inputs,
        (
            targets,
            jnp.broadcast_to(counts[:, None], (count, num)),
            jnp.broadcast_to(jnp.asarray(clip_norm, float), (count,)),
        ),
        mesh=mesh,
    )
    norms = jnp.where(counts[:, None], norms, 0)
    gradient = [
        sums[n].astype(leaf.dtype) if n in sums else jnp.zeros_like(leaf)
        for n, leaf in enumerate(leaves)
    ]
    return ClippedGradient(jax.tree.unflatten(structure, gradient), norms, weights)


def _summed(gradients):
    return jax.tree.map(lambda g: g.sum(axis=0), gradients)
