"""Passes over the examples of a batch: so many at once, on all devices.

What every entry of `api` stands on. Nothing is computed here: a function of one example
is mapped over the batch.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Integer, PyTree, Shaped

from jalpose.pergrad import AnyArray, checks, exact, given, memory, places, taps
from jalpose.pergrad import plan as planning
from jalpose.pergrad.engines import Engine
from jalpose.pergrad.measures import SQUARES, Measure
from jalpose.pergrad.program import cut


def each(
    engine: Engine,
    begin: Callable[..., Callable[..., PyTree]],
    apply_fn: Callable[..., Any],
    shared: tuple[Mapping[str, PyTree], PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    rest: PyTree[Shaped[AnyArray, "b ..."]],
    *,
    num: int,
    mesh: Mesh | None,
    mask: Bool[AnyArray, " b"] | None = None,
) -> PyTree[Shaped[AnyArray, "b ..."]]:
    """Results of a function of one example, for each of the batch.

    Products are taken in the highest precision of the hardware. With arrays in hand
    examples are first checked to be independent of each other.

    Args:
      engine: its microbatch says how many gradients are taken at once.
      begin: (shared) -> the function, (arguments, loop) -> tree of arrays; arguments
        are the (inputs, rest) of one example, and `loop` is whether it has to do
        without `vmap` itself.
      apply_fn: the network.
      shared: the variables, and what else is the same for all examples.
      inputs: tree of [b, ...].
      rest: other arguments of the examples.
      num: gradients of an example.
      mesh: see `api.squared_norms`.
      mask: False where an example is padding, and has zeros.

    Raises:
      ValueError: see `api.squared_norms`.
    """
    count = len(jax.tree.leaves(inputs)[0])
    if mask is not None:
        given.mask_fits(mask, count)
        rest = (rest, jnp.asarray(mask))
    _check(apply_fn, shared[0], inputs, mesh)
    shared = places.vary_as(shared, (shared, inputs, rest))
    inputs, rest = places.vary_as((inputs, rest), (shared, inputs, rest))

    def all_examples(shared, arguments):
        here = len(jax.tree.leaves(arguments)[0])
        gradients = engine.microbatch or memory.worthwhile(
            apply_fn, shared[0], arguments[0], num
        )
        at_once = min(here, max(1, gradients // num))
        function = begin(*shared)
        if mask is not None:
            # Nothing of padding is computed with, or NaN there would reach derivatives.
            example, (others, counts) = arguments
            order = jnp.where(counts, jnp.arange(here), jnp.argmax(counts))
            example, others = rows_of((example, others), order)
            arguments = (example, (others, counts))

        def one(arguments, loop=False):
            if mask is None:
                return function(arguments, loop)
            example, (others, counts) = arguments
            found = function((example, others), loop)
            return jax.tree.map(lambda x: jnp.where(counts, x, 0), found)

        try:
            if at_once == here:
                return jax.vmap(one)(arguments)
            size = at_once if at_once > 1 else None
            return jax.lax.map(one, arguments, batch_size=size)
        except NotImplementedError:  # an operation without a rule of `vmap`
            return jax.lax.map(functools.partial(one, loop=True), arguments)

    all_examples = _placed(all_examples, mesh, inputs)
    with jax.default_matmul_precision("highest"):
        return all_examples(shared, (inputs, rest))


def sums(
    microbatch: int,
    function: Callable[..., tuple[PyTree, PyTree]],
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray, "b ..."]],
    rest: PyTree[Shaped[AnyArray, "b ..."]],
    *,
    mesh: Mesh | None,
) -> tuple[PyTree[Shaped[AnyArray, "b ..."]], PyTree]:
    """Results of a function of several examples, and the sum of what it adds up.

    Args:
      microbatch: examples that are given to it at once; 0: all.
      function: (variables, (inputs, rest) [n, ...]) -> (tree of [n, ...], tree of sums
        over the examples).
      apply_fn: see `each`, and so for all that follow.
      variables: see there.
      inputs: see there.
      rest: see there.
      mesh: see there.

    Raises:
      ValueError: see there.
    """
    _check(apply_fn, variables, inputs, mesh)
    varying = (variables, inputs, rest)
    variables, inputs, rest = places.vary_as(varying, varying)

    def all_examples(variables, arguments):
        here = len(jax.tree.leaves(arguments)[0])
        at_once = min(microbatch or here, here)
        rounds = here // at_once
        if rounds == 1 and at_once == here:
            return function(variables, arguments)
        parts = jax.tree.map(
            lambda x: x[: rounds * at_once].reshape(rounds, at_once, *x.shape[1:]),
            arguments,
        )

        def add(total, part):
            each, found = function(variables, part)
            return jax.tree.map(jnp.add, total, found), each

        first = jax.tree.map(lambda x: x[0], parts)
        _, shapes = jax.eval_shape(function, variables, first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        zeros = places.vary_as(zeros, (variables, arguments))
        total, each = jax.lax.scan(add, zeros, parts)
        each = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), each)
        if rounds * at_once < here:
            left = jax.tree.map(lambda x: x[rounds * at_once :], arguments)
            others, found = function(variables, left)
            total = jax.tree.map(jnp.add, total, found)
            each = jax.tree.map(lambda *x: jnp.concatenate(x), each, others)
        return each, total

    all_examples = _placed(all_examples, mesh, inputs, sums=True)
    with jax.default_matmul_precision("highest"):
        return all_examples(variables, (inputs, rest))


def _check(apply_fn, variables, inputs, mesh):
    checks.independent_if_concrete(apply_fn, variables, inputs)
    if mesh is None:
        checks.on_one_device(inputs)
        return
    checks.divides(len(jax.tree.leaves(inputs)[0]), mesh)
    checks.unconstrained(apply_fn, variables, inputs)


def _placed(function, mesh, inputs, *, sums=False):
    """A function of (shared, arguments) on the devices that there are to share them."""
    if mesh is not None:
        return places.spread(function, mesh, mesh.axis_names[:1], sums=sums)
    if (found := places.mesh_of(inputs)) is not None:
        axes = places.sharing(len(jax.tree.leaves(inputs)[0]), found)
        return places.spread(function, found, axes, sums=sums)
    return function


def rows_of(arrays: PyTree, order: Integer[Array, " n"]) -> PyTree:
    """Rows of every array of a tree, in an order that may be traced."""
    return jax.tree.map(
        lambda x: (x if isinstance(x, jax.Array) else jnp.asarray(x))[order], arrays
    )


def split(
    variables: Mapping[str, PyTree],
) -> tuple[PyTree, dict[str, PyTree]]:
    """Parameters, and the other collections of the variables."""
    other = {name: tree for name, tree in variables.items() if name != "params"}
    return variables["params"], other


def plan_of(
    engine: Engine,
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    example: PyTree,
) -> planning.Plan:
    """The plan of an engine for inputs of one example, of which shapes are enough."""
    reading = {"sketch": "ghost", "exact": "ghost"}.get(engine.name, engine.name)
    params, other = split(variables)
    return planning.make_plan(
        apply_fn,
        params,
        other,
        example,
        reading=reading,
        dtype=engine.product_dtype,
    )


def linearise(
    engine: Engine,
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    example: PyTree,
    measure: Measure = SQUARES,
    drawn: Any = None,
) -> tuple[Any, exact.Pull, tuple[planning.Plan | None, Any]]:
    """Forward pass of one example: (output, pull, (plan, seen))."""
    params, other = split(variables)
    if engine.name == "exact":
        found = exact.linearise(apply_fn, params, other, example, measure, drawn)
        return *found, (None, None)
    plan = plan_of(engine, apply_fn, variables, example)
    output, pull, seen = taps.linearise(plan, params, other, example, measure, drawn)
    return output, pull, (plan, seen)


def inner_product(output: PyTree, cotangent: PyTree):
    """The loss whose gradient by the output is the cotangent."""
    parts = zip(jax.tree.leaves(output), jax.tree.leaves(cotangent), strict=True)
    return sum(jnp.sum(made * wanted).real for made, wanted in parts)


def cotangents(
    loss_fn: Callable[..., Any], output: PyTree, targets: PyTree, loop: bool
) -> list[Array]:
    """Gradients of a loss by the floats of one example's output, for each target.

    Args:
      loss_fn: (one output, one target) -> scalar; `inner_product`: targets are the
        gradients themselves.
      output: of one example, any tree.
      targets: tree of [k, ...].
      loop: see `each`.

    Returns:
      [k, ...] of each array of the output that has a gradient, in their order.
    """
    parts = cut(output)
    if loss_fn is inner_product:
        checks.cotangents_fit(output, targets)
        floats = [
            target
            for target, kind in zip(jax.tree.leaves(targets), parts.kinds, strict=True)
            if kind
        ]
        return [
            target.astype(made.dtype)
            for target, made in zip(floats, parts.floats, strict=True)
        ]
    checks.loss(loss_fn, output, targets)

    def gradient(target):
        return jax.grad(lambda floats: loss_fn(parts.tree(floats), target))(
            parts.floats
        )

    return jax.lax.map(gradient, targets) if loop else jax.vmap(gradient)(targets)


def chunk(engine: Engine, num: int, loop: bool) -> int:
    """How many are pulled back at once; 0: one, and without `vmap`."""
    return 0 if loop else min(num, engine.microbatch or num)
