"""The expected squared gradient norm over k candidates from m backward passes.

The gradient is linear in the cotangent of the output, so with weights q and cotangents
r_i (stacked in R) sum_i q_i |J^T r_i|^2 is the trace of A = S R^T J J^T R S, where
S = diag(sqrt q), and that is sum_i v_i^T A v_i for any orthonormal basis v of the k
candidates: each term one backward pass of the combined cotangent R S v_i. No term is
negative, so the first m of a well-chosen basis are a lower bound, and all k of them
the norm itself.

The basis: first sqrt(q) itself, whose term is the norm of the mean gradient (the
squared bias of the papers' Eq. 10), then the leading eigenvectors of the Gram of the
last layer's gradients, which a forward pass gives. On request some of the passes are
spent on random signs over what is left out: the estimate is then unbiased and has a
standard error. Without them what is left out is extrapolated by the Gram, on request.

EGL++ (Shukla, WACV 2022) takes all k passes. Any loss will do, quadratic or not: only
the network has to be the same for all candidates of an example.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes
from jalpose.pergrad.plan import Plan
from jalpose.pergrad.uses import Path

_LINEAR = frozenset(
    {"reshape", "transpose", "squeeze", "expand_dims", "convert_element_type", "copy"}
    | {"rev", "concatenate", "stack", "slice", "broadcast_in_dim"}
    | {"add", "sub", "neg"}
)
_SCALING = frozenset({"mul", "div"})


def last_layers(plan: Plan) -> tuple[set[Path], list[int]]:
    """Layers whose output reaches the function's own through linear steps alone.

    Returns:
      Paths of their equations, and the positions of the equations between, in order.
      Empty where there is no such layer.
    """
    jaxpr = plan.program.closed.jaxpr
    made = {
        variable: index
        for index, equation in enumerate(jaxpr.eqns)
        for variable in equation.outvars
    }
    layers, between = set[Path](), set[int]()
    waiting = list(jaxpr.outvars)
    while waiting:
        variable = waiting.pop()
        if isinstance(variable, core.Literal) or variable not in made:
            continue
        index = made[variable]
        equation = jaxpr.eqns[index]
        name = equation.primitive.name
        scales = name in _SCALING and any(
            isinstance(operand, core.Literal)
            for operand in equation.invars[name == "div" :]  # 1 / x is not linear
        )
        if (index,) in plan.taps:
            if plan.taps[(index,)][0].gradient is not None:
                layers.add((index,))
        elif index not in between and (name in _LINEAR or scales):
            between.add(index)
            waiting += equation.invars
    return layers, sorted(between)


def gram(
    plan: Plan,
    seen: dict[Path, Shaped[AnyArray, "..."]],
    cotangents: PyTree[Inexact[Array, "k ..."]],
) -> Float[Array, "k k"]:
    """Gram of the last layers' gradients, or of the cotangents where there is none.

    What a layer's output does on other ways than straight to the function's output
    (an hourglass's maps also feed the next one) is left out.

    Args:
      plan: of `taps.make_plan`.
      seen: data of the tapped operations, of `taps.linearise`.
      cotangents: of each array of the function's output that has a gradient.

    Returns:
      [k, k], in at least float32 where there is a last layer, else in the dtype of
      the cotangents.
    """
    layers, between = last_layers(plan)
    parts = jax.tree.leaves(cotangents)
    num = len(parts[0])
    if not layers:
        rows = [part.reshape(num, -1) for part in parts]
        return sum((flat @ flat.T.conj()).real for flat in rows)
    straight = _straight(plan, layers, between)
    shapes: dict[Path, Any] = {
        path: plan.program.equations[path].outvars[0].aval for path in sorted(layers)
    }
    zeros = {path: jnp.zeros(aval.shape, aval.dtype) for path, aval in shapes.items()}
    _, back = jax.vjp(straight, zeros)
    (arriving,) = jax.vmap(back)(parts)
    total = jnp.zeros((num, num), jnp.float32)
    for path in sorted(layers):
        rule, _ = plan.taps[path]
        assert rule.gradient is not None  # of last_layers
        gradients = rule.gradient(seen[path], arriving[path])
        total = total + gradients @ gradients.T
        # The bias of such a layer: the sum of the cotangents over all positions.
        sums = arriving[path].reshape(num, -1, shapes[path].shape[-1])
        sums = sums.sum(axis=1)
        total = total + sums @ sums.T
    return total


def _straight(plan: Plan, layers, between) -> Callable:
    """Linear steps from the layers' outputs to the function's own, of floats."""
    jaxpr = plan.program.closed.jaxpr
    floats = [out for out in jaxpr.outvars if dtypes.has_gradient(out.aval)]

    def straight(outputs):
        values = {}
        for path, output in outputs.items():
            values[jaxpr.eqns[path[0]].outvars[0]] = output

        def read(variable):
            if isinstance(variable, core.Literal):
                return variable.val
            if variable not in values:
                aval: Any = variable.aval
                values[variable] = jnp.zeros(aval.shape, aval.dtype)
            return values[variable]

        for index in between:
            equation = jaxpr.eqns[index]
            operands = map(read, equation.invars)
            result = equation.primitive.bind(*operands, **equation.params)
            values[equation.outvars[0]] = result
        return [read(variable) for variable in floats]

    return straight


def basis(
    metric: Float[AnyArray, "k k"], weights: Float[AnyArray, " k"], *, split_mean: bool
) -> Float[Array, "k k"]:
    """Orthonormal directions among the candidates, the most telling first.

    Args:
      metric: a Gram of the unweighted candidates.
      weights: not negative.
      split_mean: let sqrt(weights) be the first direction.

    Returns:
      [k, k] in the dtype of the metric, a direction a row. Not so the last with
      `split_mean` where all weights are zero: then the first is zero too.
    """
    roots = jnp.sqrt(weights).astype(metric.dtype)
    weighted = roots[:, None] * metric * roots[None]
    if not split_mean:
        _, vectors = jnp.linalg.eigh(weighted)
        return vectors.T[::-1]
    length = jnp.linalg.norm(roots)
    mean = roots / jnp.where(length > 0, length, 1)
    # Deflation: the mean direction becomes the eigenvector of the smallest
    # eigenvalue, below zero, and is then put first.
    seen = weighted @ mean
    deflated = (
        weighted
        - mean[:, None] * seen[None]
        - seen[:, None] * mean[None]
        + (mean @ seen - jnp.trace(weighted)) * mean[:, None] * mean[None]
    )
    _, vectors = jnp.linalg.eigh(deflated)
    return jnp.concatenate([mean[None], vectors.T[:0:-1]])


def directions(
    key: PRNGKeyArray,
    metric: Float[AnyArray, "k k"],
    weights: Float[AnyArray, " k"],
    *,
    passes: int,
    split_mean: bool,
    remainder: int,
) -> Float[Array, "m k"]:
    """Combinations of the candidates whose backward passes are taken.

    Args:
      key: of the signs.
      metric: see `basis`.
      weights: not negative.
      passes: m, at most k.
      split_mean: see `basis`.
      remainder: how many of the m are random signs over what the others leave out.

    Returns:
      [m, k] in the dtype of the metric: cotangent i is the sum over the candidates j
      of entry [i, j] times sqrt(weights[j]) r_j.
    """
    found = basis(metric, weights, split_mean=split_mean)
    leading = passes - remainder
    if not remainder:
        return found[:passes]
    rest = found[leading:]
    signs = jax.random.rademacher(key, (remainder, len(rest)), found.dtype)
    return jnp.concatenate([found[:leading], signs @ rest])


def extrapolation(
    metric: Float[AnyArray, "k k"],
    weights: Float[AnyArray, " k"],
    chosen: Float[AnyArray, "m k"],
) -> Float[Array, " m"]:
    """Factors that make up for what the directions taken leave out.

    What is left out is to the passes taken as it is in the metric: the first
    direction aside, whose cotangent is unlike the rest (the mean residual, or nearly).
    From one pass alone nothing is extrapolated.

    Args:
      metric: see `basis`.
      weights: not negative.
      chosen: leading rows of a basis.

    Returns:
      [m] in the dtype of the metric, by which the squared norms are multiplied before
      they are added up; ones where nothing is left out.
    """
    roots = jnp.sqrt(weights).astype(metric.dtype)
    weighted = roots[:, None] * metric * roots[None]
    terms = jnp.einsum("ij,jk,ik->i", chosen, weighted, chosen)
    left_out = jnp.maximum(jnp.trace(weighted) - terms.sum(), 0)
    counted = jnp.arange(len(chosen)) > 0
    known = jnp.sum(jnp.where(counted, terms, 0))
    share = jnp.where(known > 0, left_out / jnp.where(known > 0, known, 1), 0)
    return jnp.where(counted, 1 + share, 1)


def combine(
    norms: Float[AnyArray, "m b"], remainder: int
) -> tuple[Float[Array, " b"], Float[Array, " b"] | None]:
    """Estimate and its standard error from the squared norms of m directions.

    Args:
      norms: of the cotangents of `directions`.
      remainder: how many of them, the last, are of random signs.

    Returns:
      Both in the dtype of `norms`. The standard error needs two passes of signs: with
      one it is NaN, without any None.
    """
    leading = norms.shape[0] - remainder
    total = norms[:leading].sum(axis=0)
    if not remainder:
        return total, None
    drawn = norms[leading:]
    spread = jnp.std(drawn, axis=0, ddof=1) if remainder > 1 else jnp.nan * total
    return total + drawn.mean(axis=0), spread / remainder**0.5
