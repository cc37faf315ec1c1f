"""Networks of a layer or two, drawn at random, and their gradient norms the slow way.

Nothing is initialised by the networks themselves: that would be compiled, layer by
layer, for longer than anything else here takes.
"""

import zlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jalpose.pergrad import api


class Net(nn.Module):
    """A network that is one function of (itself, inputs)."""

    body: Callable

    @nn.compact
    def __call__(self, x):
        return self.body(self, x)


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def variables_of(module, inputs, seed=0):
    """Every parameter and statistic at a value it has not by convention."""
    first = jax.tree.map(lambda x: x[:1], inputs)
    shapes = jax.eval_shape(module.init, jax.random.key(0), first)

    def value(path, leaf):
        name = jax.tree_util.keystr(path)
        draws = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if any(word in name for word in ("scale", "var", "sigma")):
            return draws.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        return draws.normal(0, 0.5, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(value, shapes)


def square_loss(output, target):
    return 0.5 * jnp.sum(jnp.square(output - target))


def targets_for(apply_fn, variables, inputs, num, seed=1):
    """Random targets [b, k, ...] for `square_loss`."""
    shape = jax.eval_shape(apply_fn, variables, inputs).shape
    return random(seed, shape[0], num, *shape[1:])


def ways(apply_fn, variables, inputs, engine="ghost") -> dict[str, str]:
    """How the norm of each parameter is found, by its name."""
    found = api.routes(apply_fn, variables, inputs, engine)
    return {route.name: route.way for route in found}


def layer(way, *paths) -> dict[str, str]:
    """Ways of layers whose kernels are taken the given one, by their paths."""
    found = {}
    for path in paths or ("",):
        found |= {f"{path}bias": "vector", f"{path}kernel": way}
    return found


def norms_of(engines, apply_fn, variables, inputs, targets, loss_fn=square_loss):
    """Norms by tensor of several engines, compiled together."""

    @jax.jit
    def norms(variables, inputs, targets):
        return [
            api.squared_norms(
                engine, apply_fn, loss_fn, variables, inputs, targets, by_tensor=True
            )
            for engine in engines
        ]

    return norms(variables, inputs, targets)


def expected_norm(
    engine, apply_fn, variables, inputs, targets, weights, by_tensor=False
):
    """Expected squared norm for `square_loss`, compiled as one program."""

    @jax.jit
    def expected(variables, inputs, targets, weights):
        return api.expected_squared_norm(
            engine,
            apply_fn,
            square_loss,
            variables,
            inputs,
            targets,
            weights,
            by_tensor=by_tensor,
        )

    return expected(variables, inputs, targets, weights)


def slow_norms(apply_fn, variables, inputs, targets, loss_fn=square_loss):
    """Norms, one example and one candidate at a time: a tree of [b, k]."""

    @jax.jit
    def gradient(params, x, target):
        def loss(params):
            batch = jax.tree.map(lambda leaf: leaf[None], x)
            output = apply_fn({**variables, "params": params}, batch)[0]
            return loss_fn(output, target)

        return jax.grad(loss)(params)

    batch, num = jax.tree.leaves(targets)[0].shape[:2]
    rows = []
    for b in range(batch):
        x = jax.tree.map(lambda leaf, b=b: leaf[b], inputs)
        row = []
        for k in range(num):
            target = jax.tree.map(lambda leaf, b=b, k=k: leaf[b, k], targets)
            found = gradient(variables["params"], x, target)
            row.append(
                jax.tree.map(lambda g: np.sum(np.asarray(g, np.float64) ** 2), found)
            )
        rows.append(jax.tree.map(lambda *values: np.stack(values), *row))
    return jax.tree.map(lambda *values: np.stack(values), *rows)


def oracle_norms(apply_fn, variables, inputs, cotangents):
    """Squared norms [b, k] for given cotangents, by `vmap` of `grad` in float64."""

    def wide(leaf):
        leaf = np.asarray(leaf)
        if np.issubdtype(leaf.dtype, np.integer) or leaf.dtype == bool:
            return leaf
        return leaf.astype(complex if leaf.dtype.kind == "c" else float)

    def one(params, variables, x, cotangent):
        def loss(params):
            batch = jax.tree.map(lambda leaf: leaf[None], x)
            output = apply_fn({**variables, "params": params}, batch)[0]
            return jnp.sum(output * cotangent).real

        found = jax.tree.leaves(jax.grad(loss)(params))
        return sum(jnp.sum(jnp.square(jnp.abs(leaf))) for leaf in found)

    with jax.enable_x64(True):
        variables, inputs, cotangents = jax.tree.map(
            wide, (variables, inputs, cotangents)
        )
        each = jax.vmap(jax.vmap(one, (None, None, None, 0)), (None, None, 0, 0))
        arguments = variables["params"], variables, inputs, cotangents
        key = apply_fn, jax.tree.structure(arguments)
        if key not in _ORACLES:
            _ORACLES.clear()  # of the one network at hand
            _ORACLES[key] = jax.jit(each)
        return np.asarray(_ORACLES[key](*arguments))


_ORACLES: dict = {}


def assert_norms_agree(found, wanted, rtol=5e-5):
    """Assert that norms agree by tensor, relative to the largest too, and in total.

    Args:
      found: of an engine, with norms by tensor.
      wanted: norms by tensor.
      rtol: of each.
    """
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(wanted)]
    wanted = [np.asarray(leaf) for leaf in jax.tree.leaves(wanted)]
    ours = jax.tree.leaves(found.by_tensor)
    atol = 0.1 * rtol * max(leaf.max() for leaf in wanted)
    assert atol > 0
    for name, got, expected in zip(names, ours, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol, atol, err_msg=name)
    np.testing.assert_allclose(found.total, sum(wanted), rtol)
