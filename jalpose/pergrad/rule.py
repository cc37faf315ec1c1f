"""How an operation acts on its parameter, and what its gradients are measured by."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from jalpose.pergrad import AnyArray, dtypes, projections, stable
from jalpose.pergrad.stable import Square
from jalpose.pergrad.uses import Operation


@dataclasses.dataclass(frozen=True)
class Settings:
    """How squares are computed.

    Attributes:
      approximate: Goodfellow's sum over positions instead of the norm.
      dtype: activations and cotangents are rounded to it before they are multiplied;
        None: they are left as they are.
      cpu: work in blocks that fit a CPU's caches.
    """

    approximate: bool
    dtype: DTypeLike | None
    cpu: bool


# What an operation takes, indices for an embedding, and k cotangents of its result.
Data = Shaped[AnyArray, "..."]
Weight = Float[AnyArray, "..."]
Cotangents = Float[AnyArray, "k ..."]


@dataclasses.dataclass(frozen=True)
class Rule:
    """How an operation y = op(data, weight) acts, and the norm of its weight gradient.

    Attributes:
      kind: `dense`, `conv`, `embedding`, `bias`, or `shared` (`sharing`).
      data: which operand is the data.
      weight: which one the parameter.
      forward: (data, weight) -> y.
      square: (data, cotangents [k, *y.shape]) -> [k], in at least float32.
      route: what `square` does, for one cotangent.
      gradient: (data, cotangents [k, *y.shape]) -> the gradients themselves, each
        flat, in at least float32.
      input_gradient: (weight, cotangent, shape of the data) -> cotangent of the data;
        None: that of `forward` by autodiff.
      linear: whether y is linear in the data (an embedding has no such thing).
      shape: of the matrix that the weight's gradient is as `projections` sees it.
      positions: that the weight is applied at, in all.
      arrange: one of the gradients of `gradient` -> an array like the weight.
      project: (drawn of `projections`, size, data, cotangents [k, *y.shape]) ->
        sketches [k, size] of the weight's gradient, in at least float32.
      sides: (data, cotangents) -> the two whose product the gradient is, as `squares`
        takes them, of a matrix or of rows.
      operation: y = op(data, weight) itself.
      several: n -> the rule of n operations by the same weight: data and cotangents
        have an axis of n before their own.
    """

    kind: str
    data: int
    weight: int
    forward: Callable[[Any, Weight], Any]
    square: Square
    route: str
    gradient: Callable[[Data, Cotangents], Float[Array, "k _"]] | None = None
    input_gradient: (
        Callable[[Weight, Float[Array, "..."], tuple[int, ...]], Float[Array, "..."]]
        | None
    ) = None
    linear: bool = True
    shape: projections.Shape | None = None
    positions: int = 1
    arrange: Callable[[Float[Array, " _"]], Float[Array, "..."]] | None = None
    project: Callable[..., Float[Array, "k size"]] | None = None
    sides: Callable[..., tuple[Array, Array]] | None = None
    operation: Operation | None = None
    several: "Callable[[int], Rule] | None" = None


def rounded(settings, *arrays):
    """The arrays in the dtype of products; integers among them become floats."""
    dtype = settings.dtype
    found = (
        a if dtypes.has_gradient(a) else a.astype(dtypes.wide(*arrays)) for a in arrays
    )
    return tuple(a if dtype is None else a.astype(dtype) for a in found)


def binding(operation: Operation, weight: int):
    """An operation as a function of (data, weight)."""

    def forward(data, kernel):
        operands = (kernel, data) if weight == 0 else (data, kernel)
        return operation.primitive.bind(*operands, **operation.params)

    return forward


def of_several(plain: Rule, joined: Rule, into_data, into_result) -> Rule:
    """The rule of several operations, of that of the one that does all their work.

    Args:
      plain: of one of them.
      joined: of the one on all their data.
      into_data: data [n, ...] -> as `joined` takes it.
      into_result: results of n -> as `joined` has it.
    """

    def through(function):
        def moved(*arguments):
            *first, x, g = arguments
            return function(*first, into_data(x), jax.vmap(into_result)(g))

        return moved if function is not None else None

    return dataclasses.replace(
        joined,
        forward=jax.vmap(plain.forward, (0, None)),
        square=through(joined.square),
        gradient=through(joined.gradient),
        project=through(joined.project),
        sides=through(joined.sides),
        input_gradient=None,
        several=None,
    )


def route_of(settings, way):
    """The way of a route, by the name of the exact one."""
    return "positions" if settings.approximate else way


def batched(settings, square, positions, way, grams, *, loop, again) -> Square:
    """Norms by the cheapest way for the k cotangents there are, batched by `vmap`.

    Args:
      settings: of the squares.
      square: the direct way, or Goodfellow's.
      positions: where there is but one, the gradient is an outer product, and its norm
        a product of norms: nothing can cancel.
      way: k -> name of the cheapest way.
      grams: name -> the same with doubts.
      loop: see `stable.by_example`, and so for `again`.
      again: the direct way of one cotangent.
    """
    if settings.approximate or positions == 1:
        return stable.by_example(stable.scaled(square), loop=loop)

    def cheapest(a, g):
        name = way(len(g))
        return square(a, g) if name == "direct" else grams[name](a, g)

    return stable.by_example(cheapest, loop=loop, again=again)
