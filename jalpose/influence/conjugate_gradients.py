"""Conjugate gradients on trees of arrays: a linear system by products alone."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Product = Callable[[Any], Any]


class CurvatureError(ArithmeticError):
    """The matrix is not positive definite.

    Attributes:
      curvature: p'Ap / p'p of the direction p that shows it.
    """

    def __init__(self, curvature: float):
        super().__init__(f"a direction of curvature {curvature:.3g}")
        self.curvature = curvature


class Solution(NamedTuple):
    """What was found.

    Attributes:
      x: tree like the right-hand side.
      steps: products taken.
      residual: |b - A x| / |b|, as the recursion has it.
    """

    x: Any
    steps: int
    residual: float


def solve(
    product: Product,
    b,
    *,
    tolerance: float,
    steps: int,
    progress: Callable[[int, float], None] = lambda step, residual: None,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A, from x = 0.

    Hestenes & Stiefel, 1952. Of many eigenvalues few steps find the large ones: what is
    left is in the residual, which is returned.

    Args:
      product: tree -> A times it.
      b: right-hand side, a tree of floating arrays.
      tolerance: of the residual, at which it stops.
      steps: at most.
      progress: (steps taken, residual) -> None.

    Raises:
      CurvatureError: A is not positive definite along a direction that was searched.
      FloatingPointError: the right-hand side or a product is not finite.
    """
    x = jax.tree.map(jnp.zeros_like, b)
    residual, direction = b, b
    first = square = float(_dot(b, b))
    if not math.isfinite(first):
        raise FloatingPointError("the right-hand side, or its length, is not finite")
    if first == 0:
        return Solution(x, 0, 0.0)
    step = 0
    while step < steps and math.sqrt(square / first) > tolerance:
        image = product(direction)
        curvature, length = (
            float(_dot(direction, image)),
            float(_dot(*2 * (direction,))),
        )
        if not math.isfinite(curvature):
            raise FloatingPointError(f"the product of step {step + 1} is not finite")
        if curvature <= 0:
            raise CurvatureError(curvature / length)
        x = _plus(x, square / curvature, direction)
        residual = _plus(residual, -square / curvature, image)
        before, square = square, float(_dot(residual, residual))
        direction = _plus(residual, square / before, direction)
        step += 1
        progress(step, math.sqrt(square / first))
    return Solution(x, step, math.sqrt(square / first))


@jax.jit
def _dot(one, other):
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), one, other)
    return sum(jax.tree.leaves(products))


@jax.jit
def _plus(one, factor, other):
    return jax.tree.map(lambda a, b: a + jnp.asarray(factor, b.dtype) * b, one, other)


def norm(tree) -> float:
    """Euclidean norm of all arrays together."""
    return math.sqrt(float(_dot(tree, tree)))


def inner(one, other) -> float:
    """Inner product of two trees alike."""
    return float(_dot(one, other))
