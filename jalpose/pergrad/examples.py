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
from jaxtyping import Bool, PyTree, Shaped

from jalpose.pergrad import AnyArray, checks, exact, memory, places, taps
from jalpose.pergrad.engines import Engine
from jalpose.pergrad.measures import SQUARES, Measure


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
        checks.mask_fits(mask, count)
        rest = (rest, jnp.asarray(mask))
    checks.independent_if_concrete(apply_fn, shared[0], inputs)
    if mesh is None:
        checks.on_one_device(inputs)
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
            counts = arguments[1][1]
            order = jnp.where(counts, jnp.arange(here), jnp.argmax(counts))
            arguments = (
                jax.tree.map(lambda x: x[order], arguments[0]),
                (jax.tree.map(lambda x: x[order], arguments[1][0]), counts),
            )

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

    if mesh is not None:
        checks.divides(count, mesh)
        checks.unconstrained(apply_fn, shared[0], inputs)
        all_examples = places.spread(all_examples, mesh, mesh.axis_names[:1])
    elif (found := places.mesh_of(inputs)) is not None:
        axes = places.sharing(count, found)
        all_examples = places.spread(all_examples, found, axes)
    with jax.default_matmul_precision("highest"):
        return all_examples(shared, (inputs, rest))


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
) -> taps.Plan:
    """The plan of an engine for inputs of one example, of which shapes are enough."""
    reading = {"sketch": "ghost", "exact": "ghost"}.get(engine.name, engine.name)
    params, other = split(variables)
    return taps.make_plan(
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
) -> tuple[Any, exact.Pull, tuple[taps.Plan | None, Any]]:
    """Forward pass of one example: (output, pull, (plan, seen))."""
    params, other = split(variables)
    if engine.name == "exact":
        found = exact.linearise(apply_fn, params, other, example, measure, drawn)
        return *found, (None, None)
    plan = plan_of(engine, apply_fn, variables, example)
    output, pull, seen = taps.linearise(plan, params, other, example, measure, drawn)
    return output, pull, (plan, seen)


def inner_product(output, cotangent):
    """The loss whose gradient by the output is the cotangent."""
    return jnp.sum(output * cotangent).real


def cotangents(loss_fn: Callable[..., Any], output: Any, targets: PyTree, loop: bool):
    """Gradients of the loss by the output of one example, for each target: [k, ...]."""
    if loss_fn is inner_product:
        checks.cotangents_fit(output, targets)
        return targets.astype(output.dtype)
    checks.loss(loss_fn, output, targets)
    gradient = functools.partial(jax.grad(loss_fn), output)
    return jax.lax.map(gradient, targets) if loop else jax.vmap(gradient)(targets)


def chunk(engine: Engine, num: int, loop: bool) -> int:
    """How many are pulled back at once; 0: one, and without `vmap`."""
    return 0 if loop else min(num, engine.microbatch or num)
