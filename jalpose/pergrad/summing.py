"""Norms of single gradients beside the sum of them all, from one backward pass.

The program of one example is batched as a whole, so that the gradient of a weight comes
back as the sum over the batch, as it does in training. At a tapped operation there are
two ways to have the norms too:

- by the gradients: those of single examples are formed, a few at a time, squared and
  added up. The sum is then all there, for no more products than the sum alone takes.
- beside: the sum is taken as autodiff takes it, and the norms by the Gram matrices of
  few positions, which cost little beside it.

Vectors, and what has no rule, are given to each example as a copy: the norms are those
of the copies' gradients, the sum is theirs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jaxtyping import Array, Float, PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes, places
from jalpose.pergrad.plan import Plan
from jalpose.pergrad.rule import Rule
from jalpose.pergrad.sharing import Shared
from jalpose.pergrad.taps import Evaluation, back_to_data, zero_taps

# A pass over a gradient costs about as much as this many multiplications an entry, and
# there are three: it is written, squared and added.
_FORMING = 24
# Bytes of gradients formed at once, and of a convolution's examples on a CPU.
_GRADIENTS, _EXAMPLES = 2**26, 2**20


def norms_and_sum(
    plan: Plan,
    leaves: list[AnyArray],
    others: list[AnyArray],
    loss: Callable[[PyTree, Any], Float[Array, ""]],
    example_arrays: list[AnyArray],
    rest: PyTree,
) -> tuple[Float[Array, " n"], list[Shaped[Array, "..."]]]:
    """Squared norms of the gradients of n examples' losses, and the losses' gradient.

    Args:
      plan: exact, of the program of one example.
      leaves: parameters.
      others: the other variables, flat.
      loss: (output of one example, its part of `rest`) -> scalar.
      example_arrays: inputs of the n examples, flat.
      rest: tree of [n, ...].

    Returns:
      The norms, in at least float32, and the sum of the gradients, like the parameters
      in shape and dtype, with zeros where a parameter has none.
    """
    count = len(example_arrays[0])
    each = set(plan.differentiated)
    summed = {n: leaves[n] for n in {number for _, number in plan.taps.values()}}
    copies = {n: jnp.broadcast_to(leaves[n], (count, *leaves[n].shape)) for n in each}
    taps = jax.tree.map(
        lambda tap: jnp.broadcast_to(tap, (count, *tap.shape)), zero_taps(plan, ())
    )
    varying = (leaves, example_arrays)
    taps, copies = places.vary_as((taps, copies), varying)

    def total(summed, copies, taps):
        def one(copies, taps, arrays, rest):
            values = {**dict(enumerate(leaves)), **summed, **copies}
            arguments = [*(values[n] for n in range(len(leaves))), *others, *arrays]
            evaluation = Evaluation(plan, _operation, seen={})
            return loss(evaluation.output(arguments, taps), rest)

        return jnp.sum(jax.vmap(one)(copies, taps, example_arrays, rest))

    gradients = jax.grad(total, argnums=(0, 1, 2))(summed, copies, taps)
    of_summed, of_copies, of_taps = gradients
    squares = [of_taps[path].reshape(count, -1).sum(axis=1) for path in plan.taps]
    squares += [jax.vmap(dtypes.sum_of_squares)(g) for g in of_copies.values()]
    sums = dict(of_summed) | {n: g.sum(axis=0) for n, g in of_copies.items()}
    for n, shared in plan.shared.items():
        square, sums[n] = _of_shared(shared, leaves[n], of_taps)
        squares.append(square)
    found = [
        sums[n] if n in sums else jnp.zeros(leaf.shape, leaf.dtype)
        for n, leaf in enumerate(leaves)
    ]
    return sum(squares, jnp.zeros(count, jnp.float32)), found


def _of_shared(shared: Shared, leaf, kept):
    """Norms [n] and the sum of gradients that are put together of what was kept."""
    data, cotangents = jax.vmap(shared.collect)({p: kept[p] for p in shared.paths})

    def of_slice(data, cotangents):
        weight = jnp.zeros(shared.of_weight, leaf.dtype)
        way = _by_gradients if _forms(shared.rule) else _beside
        return way(shared.rule, data, weight, cotangents)

    first = jax.tree.map(lambda x: x.swapaxes(0, 1), (data, cotangents))
    squares, gradients = shared.per_slice(of_slice, *first)
    gradient = shared.whole(gradients, leaf.shape).astype(leaf.dtype)
    return squares.sum(axis=0), gradient


def _operation(rule: Rule, data, weight, tap):
    return _tapped(rule)(data, weight, tap)


def _tapped(rule: Rule):
    """The operation of a rule with a tap, whose weight is the same for all examples."""

    @custom_batching.custom_vmap
    def one(data, weight, tap):
        return _of_batch(rule)(data[None], weight, tap[None])[0]

    @one.def_vmap
    def batched(axis_size, in_batched, data, weight, tap):
        of_data, of_weight, _ = in_batched
        assert not of_weight  # a copy of an example's own has no tap
        if not of_data:
            data = jnp.broadcast_to(data, (axis_size, *data.shape))
        return _of_batch(rule)(data, weight, tap), True

    return one


def _of_batch(rule: Rule):
    """The operation for n examples: (data [n, ...], weight, tap [n]) -> [n, ...]."""

    @jax.custom_vjp
    def tapped(data, weight, tap):
        del tap
        return jax.vmap(rule.forward, (0, None))(data, weight)

    def forward(data, weight, tap):
        return tapped(data, weight, tap), (data, weight)

    def backward(kept, cotangents):
        data, weight = kept
        back = None
        if rule.linear and dtypes.has_gradient(data):
            back = jax.vmap(functools.partial(back_to_data, rule), (0, None, 0))(
                data, weight, cotangents
            )
        way = _by_gradients if _forms(rule) else _beside
        squares, gradient = way(rule, data, weight, cotangents)
        wide = dtypes.wide(cotangents)
        return back, gradient.astype(weight.dtype), squares.astype(wide)

    tapped.defvjp(forward, backward)
    return tapped


def _forms(rule: Rule) -> bool:
    """Whether single gradients are formed: the norms cost less that way."""
    if rule.arrange is None or rule.shape is None or rule.positions == 1:
        return False
    if rule.route == "direct":
        return True
    depth, width = rule.shape
    gram = rule.positions**2 * (2 * (depth + width) + 8)
    return _FORMING * depth * width < gram


def _by_gradients(rule, data, weight, cotangents):
    arrays = jax.tree.leaves((data, cotangents))
    count, example_bytes = len(arrays[0]), sum(x[0].nbytes for x in arrays)
    on_cpu = jax.default_backend() == "cpu" and rule.kind == "conv"
    most = _EXAMPLES // example_bytes if on_cpu else _GRADIENTS // weight.nbytes
    at_once = max(
        m for m in range(1, count + 1) if count % m == 0 and m <= max(1, most)
    )

    def part(data, cotangents):
        def gradient(x, g):
            return rule.gradient(x, jax.tree.map(lambda g: g[None], g))[0]

        found = jax.vmap(gradient)(data, cotangents)
        return jnp.sum(jnp.square(found), axis=1), found.sum(axis=0)

    if at_once == count:
        squares, total = part(data, cotangents)
        return squares, rule.arrange(total)
    chunks = jax.tree.map(
        lambda x: x.reshape(-1, at_once, *x.shape[1:]), (data, cotangents)
    )

    def add(total, chunk):
        squares, found = part(*chunk)
        return total + found, squares

    shape = jax.eval_shape(part, *jax.tree.map(lambda x: x[:1], (data, cotangents)))[1]
    zero = places.vary_as(jnp.zeros(shape.shape, shape.dtype), (data, cotangents))
    total, squares = lax.scan(add, zero, chunks)
    return squares.reshape(-1), rule.arrange(total)


def _beside(rule, data, weight, cotangents):
    def square(x, g):
        return rule.square(x, jax.tree.map(lambda g: g[None], g))[0]

    squares = jax.vmap(square)(data, cotangents)
    # In one dtype, as operations of several have no transpose.
    floats = [x for x in jax.tree.leaves(data) if dtypes.has_gradient(x)]
    dtype = jnp.result_type(weight, *jax.tree.leaves(cotangents), *floats)

    def cast(x):
        return x.astype(dtype) if dtypes.has_gradient(x) else x

    data, cotangents = jax.tree.map(cast, (data, cotangents))
    (gradient,) = jax.linear_transpose(
        lambda w: jax.tree.map(cast, jax.vmap(rule.forward, (0, None))(data, w)),
        cast(weight),
    )(cotangents)
    return squares, gradient
