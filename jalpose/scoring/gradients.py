"""Passes of gradients: what is differentiated, and how it is fitted to memory."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jalpose.pergrad import api as pergrad
from jalpose.pergrad import dtypes, gradient_sketches
from jalpose.pergrad import memory as limits
from jalpose.pergrad.api import Engine
from jalpose.pergrad.program import tensor_name
from jalpose.scoring.passes import Fitted, example_keys
from jalpose.training.trainer import network_of, scale_images


class Functions(NamedTuple):
    """What gradient norms are taken of; see `Probe.squared_norms`."""

    targets_fn: Callable
    loss_fn: Callable
    value: str = "squared"


def fitted(
    build: Callable,
    engine: Engine,
    *,
    model,
    block: int,
    num_labels: int,
    memory: float,
):
    """A pass of gradient norms, its microbatch yet to be found where it is 0.

    Args:
      build: engine -> pass.
      engine: its microbatch is kept unless it is 0.
      model: Linen module returning `Output`, whose norms they are.
      block: examples a pass on one device.
      num_labels: candidate labels an example.
      memory: GiB a device they may take; 0: what it reports.
    """
    if engine.microbatch:
        return build(engine)

    def forward(variables, images):
        return model.apply(network_of(variables), scale_images(images)).prediction

    def most(variables, rows):
        whole = rows["image"]
        images = jax.ShapeDtypeStruct((block, *whole.shape[1:]), whole.dtype)
        return limits.worthwhile(forward, variables, images, num_labels)

    return Fitted(
        lambda size: build(dataclasses.replace(engine, microbatch=size)),
        most,
        int(memory * 2**30) or limits.limit_bytes(),
    )


def norm_arguments(model, functions: Functions, variables, rows):
    """What `pergrad.expected_squared_norm` takes after the engine, a tuple.

    Args:
      model: Linen module returning `Output`.
      functions: its targets and loss.
      variables: of the network.
      rows: of one device; rows["context"] holds what `targets_fn` takes, and weights.
    """

    def apply_fn(variables, images):
        return model.apply(variables, images).prediction

    context = dict(rows["context"])
    weights = context.pop("weights")
    images = scale_images(rows["image"])
    # An example without context has a row of it all the same: its targets.
    targets = jax.vmap(lambda row, _: functions.targets_fn(row))(context, weights)
    return apply_fn, functions.loss_fn, network_of(variables), images, targets, weights


def norms_of(model, functions: Functions, engine: Engine):
    """Pass of gradient norms: (variables, rows) -> norms and their expectation."""

    def norms(variables, rows):
        arguments = norm_arguments(model, functions, variables, rows)
        if engine.name != "sketch":
            *others, weights = arguments
            by_tensor = functions.value == "tensors"
            result = pergrad.squared_norms(engine, *others, by_tensor=by_tensor)
            each = _VALUES[functions.value](result)
            return {"norms": each, "expected": (weights * each).sum(axis=1)}
        keys = example_keys(jax.random.key(0), rows["id"])
        result = pergrad.expected_squared_norm(engine, *arguments, keys=keys)
        found = {"expected": result.total}
        if result.standard_error is not None:
            found["standard_error"] = result.standard_error
        return found

    return norms


_VALUES = {
    "squared": lambda result: result.total,
    "norm": lambda result: jnp.sqrt(result.total),
    "tensors": lambda result: sum(map(jnp.sqrt, jax.tree.leaves(result.by_tensor))),
}


def sketches_of(
    model, functions: Functions, engine: Engine, size: int, layers: str = "all"
):
    """Pass of gradient sketches: (variables, rows) -> sketch [B, size].

    Of fewer parameters it has as many numbers. See `Probe.sketches`; what it takes
    beside `norm_arguments` is in the context.
    """

    def sketches(variables, rows):
        rows = {**rows, "context": dict(rows["context"])}
        names, draws = (rows["context"].pop(name) for name in ("names", "draw"))
        rows["context"]["weights"] = rows["context"].pop("scales")
        *arguments, scales = norm_arguments(model, functions, variables, rows)
        key = jax.random.wrap_key_data(draws[0])  # the same for all
        apply_fn, _, variables, images, _ = arguments
        trainable = None
        if layers == "last":
            trainable = pergrad.last_layer(apply_fn, variables, images).__contains__
        # A longer sketch says no more than a gradient itself.
        length = min(size, _num_numbers(variables["params"], trainable))
        found = gradient_sketches.sketches(
            engine, *arguments, size=length, key=key, trainable=trainable
        )

        def signs(name):
            drawn = jax.random.fold_in(jax.random.fold_in(key, 1), name)
            return jax.random.rademacher(drawn, (length,), found.dtype)

        # A turn a candidate: what is held are the signs of one.
        def add(total, one):
            projection, name, scale = one
            each = jax.vmap(signs)(name) * projection
            return total + scale[:, None] * each, None

        turns = jnp.moveaxis(found, 1, 0), names.T, scales.T
        zero = jnp.zeros_like(found[:, 0])
        return {"sketch": jax.lax.scan(add, zero, turns)[0]}

    return sketches


def _num_numbers(params, trainable) -> int:
    """How many numbers a gradient by these parameters has."""
    return sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if dtypes.has_gradient(leaf)
        and (trainable is None or trainable(tensor_name(path)))
    )
