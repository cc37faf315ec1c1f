"""Per-example gradient norms of any Linen model: one entry for every engine.

>>> result = squared_norms("exact", apply_fn, loss_fn, variables, x, y)
... # doctest: +SKIP
>>> result.total  # [B, K]  # doctest: +SKIP
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jalpose.pergrad import exact

ENGINES = {"exact": exact.cotangent_squared_norms}


class NormResult(NamedTuple):
    """Squared gradient norms.

    Attributes:
      total: float32, [B, K] of `squared_norms`, [B] of `expected_squared_norm`.
      by_tensor: a tree like `params` of the same shapes, or None.
      standard_error: of an engine that estimates, else None.
    """

    total: jax.Array
    by_tensor: object | None = None
    standard_error: jax.Array | None = None


def squared_norms(
    engine: str,
    apply_fn,
    loss_fn,
    variables,
    inputs,
    targets,
    *,
    chunk: int = 0,
    by_tensor: bool = False,
) -> NormResult:
    """Squared norm of the gradient of `loss_fn` for each example and candidate.

    Computed in float32 with matrix products of the highest precision.

    Args:
      engine: a key of `ENGINES`.
      apply_fn: (variables, inputs [B, ...]) -> outputs [B, ...], one array; examples
        of a batch independent of each other (batch norm in evaluation mode: a
        per-example gradient does not exist otherwise).
      loss_fn: (one output, one target) -> scalar.
      variables: Linen variables; all of `params` count.
      inputs: [B, ...].
      targets: tree of [B, K, ...], K candidate targets an example.
      chunk: candidates whose gradients are held at once; 0: all K.
      by_tensor: also return the norms of each parameter tensor.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}. Known: {', '.join(ENGINES)}")
    with jax.default_matmul_precision("highest"):
        outputs = apply_fn(variables, inputs)
        over_candidates = jax.vmap(jax.grad(loss_fn), (None, 0))
        cotangents = jax.vmap(over_candidates)(outputs, targets)  # [B, K, ...]
        total, tensors = ENGINES[engine](
            apply_fn, variables, inputs, cotangents, chunk=chunk, by_tensor=by_tensor
        )
    return NormResult(total, tensors)


def expected_squared_norm(
    engine: str, apply_fn, loss_fn, variables, inputs, targets, weights, **options
) -> NormResult:
    """Weighted sum over the candidates of `squared_norms`.

    Args:
      engine: as for `squared_norms`, and so are all arguments but `weights`.
      apply_fn: see there.
      loss_fn: see there.
      variables: see there.
      inputs: see there.
      targets: see there.
      weights: [B, K], e.g. the probabilities of the candidates.
      **options: of `squared_norms`.

    Returns:
      NormResult with `total` [B].
    """
    norms = squared_norms(
        engine, apply_fn, loss_fn, variables, inputs, targets, **options
    )

    def expectation(values):
        return jnp.sum(weights * values, axis=1)

    return NormResult(
        expectation(norms.total), jax.tree.map(expectation, norms.by_tensor)
    )
