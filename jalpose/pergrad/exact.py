"""Exact per-example gradient norms by `jax.vmap` over autodiff: the oracle.

The k candidate gradients of one example differ only in the cotangent of the output,
so one forward pass is shared and k cotangents are pulled back through it under
`vmap`: the same numbers as `vmap(grad)` over k copies of the example, without k - 1
of the forward passes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array, Float, Inexact, PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes, measures, places
from jalpose.pergrad.measures import SQUARES, Measure
from jalpose.pergrad.program import checked, cut

# (cotangents, how many at once) -> the squared norms of each parameter tensor's
# gradient, or what else is asked of it, at least float32, in the order of the leaves.
Pull = Callable[[PyTree[Inexact[Array, "k ..."]], int], list[Float[Array, "k ..."]]]


def linearise(
    apply_fn: Callable[..., Any],
    params: PyTree,
    other: Mapping[str, PyTree],
    example: PyTree,
    measure: Measure = SQUARES,
    drawn: Sequence[PyTree] | None = None,
) -> tuple[PyTree[Shaped[Array, "..."]], Pull]:
    """Run one example forward.

    Args:
      apply_fn: (variables, inputs [b, ...]) -> tree of [b, ...].
      params: tree of parameters of any shape; integers among them have zeros.
      other: the other collections of the variables.
      example: tree of the inputs of one example, without an axis of examples.
      measure: what is asked of the gradients.
      drawn: of each tensor, what the measure wants, see `taps.linearise`.

    Returns:
      The output, without an axis of examples, and what pulls cotangents of
      its floats back through it.

    Raises:
      ValueError: the function returns anything but arrays of one row an example.
    """
    leaves = jax.tree.leaves(params)
    drawn = [()] * len(leaves) if drawn is None else drawn
    output, gradients_of = forward(apply_fn, params, other, example)

    def pull(cotangents, chunk):
        def measured(cotangent):
            found = measures.zeros(measure, leaves)
            for number, gradient in gradients_of(cotangent).items():
                whole = places.unsplit(gradient)
                found[number] = measure.of_gradient(whole, drawn[number])
            return found

        return by_chunks(measured, cotangents, chunk)

    return output, pull


def forward(
    apply_fn: Callable[..., Any],
    params: PyTree,
    other: Mapping[str, PyTree],
    example: PyTree,
) -> tuple[PyTree[Shaped[Array, "..."]], Callable[[PyTree], dict[int, Array]]]:
    """Run one example forward, for gradients that are wanted themselves.

    Args:
      apply_fn: see `linearise`, and so for all that follow.
      params: see there.
      other: see there.
      example: see there.

    Returns:
      The output, without an axis of examples, and (one cotangent of its floats) -> the
      gradients, by the number of the parameter among the leaves; integers have none.

    Raises:
      ValueError: see there.
    """
    batch = jax.tree.map(lambda x: x[None], example)
    leaves, structure = jax.tree.flatten(params)
    numbers = [n for n, leaf in enumerate(leaves) if dtypes.has_gradient(leaf)]

    def run(differentiated):
        values = list(leaves)
        for number, value in zip(numbers, differentiated, strict=True):
            values[number] = value
        params = jax.tree.unflatten(structure, values)
        output = checked(apply_fn({**other, "params": params}, batch), 1)
        parts = cut(jax.tree.map(lambda leaf: leaf[0], output))
        return parts.floats, parts

    differentiated = [leaves[number] for number in numbers]
    floats, pull_back, parts = jax.vjp(run, differentiated, has_aux=True)

    def gradients_of(cotangent):
        (gradients,) = pull_back(jax.tree.leaves(cotangent))
        return dict(zip(numbers, gradients, strict=True))

    return parts.tree(floats), gradients_of


def by_chunks(
    found: Callable[..., list[Float[Array, "..."]]],
    cotangents: PyTree[Inexact[AnyArray, "k ..."]],
    chunk: int,
) -> list[Float[Array, "k ..."]]:
    """Results of `found` for each of the k cotangents, `chunk` of them at once.

    A chunk of 0 is one at a time without `vmap`, for what has no rule for it.
    """
    if chunk >= len(jax.tree.leaves(cotangents)[0]):
        return jax.vmap(found)(cotangents)
    return jax.lax.map(found, cotangents, batch_size=chunk or None)
