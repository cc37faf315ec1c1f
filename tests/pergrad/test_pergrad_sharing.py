"""Weights that are used several times, and layers under `lax.scan`: exact, no fallback.

Each network is compared with autodiff in float64, where nothing but a wrong formula
shows; three of them in float32 too.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jalpose.pergrad import api
from tests.support.networks import (
    Net,
    random,
    square_loss,
    targets_for,
    variables_of,
)

B, K = 2, 2
SEQUENCES = random(0, B, 5, 3)
IMAGES = random(0, B, 6, 6, 2)
IDS = np.random.default_rng(0).integers(0, 40, (B, 4)).astype(np.int32)
IDS[0, 1] = IDS[0, 0]
LONG = np.random.default_rng(1).integers(0, 40, (B, 24)).astype(np.int32)


def param(module, name, *shape):
    return module.param(name, nn.initializers.normal(), shape)


def weights(module, *shape, name="w"):
    return param(module, name, *shape)


# Several places of a program.


def tied(vocabulary, features):
    def network(module, ids):
        embed = nn.Embed(vocabulary, features)
        return embed.attend(jnp.tanh(nn.Dense(features)(embed(ids))))

    return Net(network)


def tied_twice(module, ids):
    """Encoder and decoder from one table, and the head too."""
    embed = nn.Embed(40, 6)
    other = embed(ids[:, :3]).sum(axis=1, keepdims=True)
    return embed.attend(jnp.tanh(embed(ids)) * other)


def scales(module, x):
    """One head on maps of two sizes, as detectors have it."""
    head = nn.Conv(3, (3, 3))
    small = nn.avg_pool(x, (2, 2), (2, 2))
    return jnp.concatenate(
        [head(part).reshape(len(x), -1, 3) for part in (x, small)], axis=1
    )


def autoencoder(module, x):
    w = weights(module, 3, 4)
    return jnp.tanh(x @ w) @ w.T


def thirds(module, x):
    """Queries, keys and values by slices of one kernel, and by `split`."""
    w, v = weights(module, 3, 6), weights(module, 3, 4, name="v")
    query, key = x @ w[:, :3], x @ w[:, 3:]
    first, second = jnp.split(v, 2, axis=1)
    return jax.nn.softmax(query @ key.mT) @ jnp.tanh(x @ first) * (x @ second)


def overlapping(module, x):
    w = weights(module, 3, 6)
    return jnp.tanh(x @ w[:, :4]) + x @ w[:, 2:]


def joined(module, x):
    w, v = weights(module, 3, 2), weights(module, 3, 3, name="v")
    return x @ jnp.concatenate([w, v], axis=1)


def joined_with_itself(module, x):
    w = weights(module, 3, 2)
    return jnp.tanh(x @ jnp.concatenate([w, 2 * jnp.ones((3, 1)), w], axis=1))


def joined_with_another(module, x):
    """The one has no rule, and so the other has none."""
    v = weights(module, 3, 3, name="v")
    return x @ jnp.concatenate([weights(module, 3, 2), v], axis=1) + jnp.sin(v).sum()


# Scans.


def recurrent(*cells):
    def network(module, x):
        for cell in cells:
            x = nn.RNN(cell.clone(param_dtype=float))(x)
        return x

    return Net(network)


class Layer(nn.Module):
    """A pre-norm transformer's block."""

    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(1)(nn.LayerNorm()(x))
        return x + nn.Dense(3)(nn.gelu(nn.Dense(4)(nn.LayerNorm()(x)))), None


class Plain(nn.Module):
    """A layer."""

    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(nn.Dense(3)(x)), None


class DeepCell(nn.Module):
    """Layers scanned over time, themselves scanned over."""

    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(nn.RNN(nn.SimpleCell(3, param_dtype=float))(x)), None


def layers(block, length=3, **options):
    def network(module, x):
        stack = nn.scan(
            block, {"params": 0}, split_rngs={"params": True}, length=length, **options
        )
        return stack()(x, None)[0]

    return Net(network)


def steps(step, **options):
    """`lax.scan` over time, of `step(w, v, carry, x)`."""

    def network(module, x):
        w, v = weights(module, 3, 3), weights(module, 3, 3, name="v")

        def one(carry, x):
            carry = step(w, v, carry, x)
            return carry, carry

        found = lax.scan(one, jnp.zeros((len(x), 3)), x.swapaxes(0, 1), **options)[1]
        return found.swapaxes(0, 1)

    return Net(network)


def looked_up(module, ids):
    """An embedding inside of the scan, tied to its head."""
    w = weights(module, 40, 3)

    def one(carry, ids):
        carry = jnp.tanh(carry + w[ids])
        return carry, carry @ w.T

    return lax.scan(one, jnp.zeros((len(ids), 3)), ids.T)[1].swapaxes(0, 1)


def in_and_outside(module, x):
    """One weight at every step of a scan, and before it."""
    w = weights(module, 3, 3)

    def one(carry, x):
        carry = jnp.tanh(carry @ w + x)
        return carry, carry

    return lax.scan(one, x[:, 0] @ w, (x @ w).swapaxes(0, 1))[1].swapaxes(0, 1)


def layers_at_every_step(module, x):
    """A scan over time of a scan over layers."""
    w = weights(module, 2, 3, 3)

    def one(carry, x):
        def inner(y, w):
            return jnp.tanh(y @ w), None

        carry = lax.scan(inner, carry + x, w)[0]
        return carry, carry

    return lax.scan(one, jnp.zeros((len(x), 3)), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def convolved(module, x):
    """A recurrent convolution, and a stack of others after it."""
    w = weights(module, 3, 3, 2, 2)
    stack = weights(module, 2, 3, 3, 2, 2, name="stack")

    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    x, _ = lax.scan(lambda y, _: (jnp.tanh(convolve(y, w) + x), None), x, length=3)
    return lax.scan(lambda y, w: (jnp.tanh(convolve(y, w)), None), x, stack)[0]


def stacked_and_whole(module, x):
    """Slices of a tensor by a scan, and all of it."""
    w = weights(module, 2, 3, 3)
    y = lax.scan(lambda y, w: (jnp.tanh(y @ w), None), x, w)[0]
    return y + jnp.einsum("btd,ndp->btp", x, w)


def carried(module, x):
    """A weight in the carry."""
    w = weights(module, 3, 3)

    def one(carry, x):
        w, y = carry
        y = jnp.tanh(y @ w + x)
        return (w + 0, y), y

    first = (w, jnp.zeros((len(x), 3)))
    return lax.scan(one, first, x.swapaxes(0, 1))[1].swapaxes(0, 1)


# name -> (network, inputs, ways of its matrices)
CASES = {
    "tied, large": (tied(40, 6), IDS, {"gram"}),
    "tied, of many tokens": (tied(40, 3), LONG, {"direct", "summed"}),
    "tied twice": (Net(tied_twice), IDS, {"summed"}),
    "two scales": (Net(scales), IMAGES, {"summed"}),
    "autoencoder": (Net(autoencoder), SEQUENCES, {"summed"}),
    "slices": (Net(thirds), SEQUENCES, {"summed"}),
    "overlapping": (Net(overlapping), SEQUENCES, {"summed"}),
    "joined": (Net(joined), SEQUENCES, {"summed"}),
    "joined with itself": (Net(joined_with_itself), SEQUENCES, {"summed"}),
    "joined with another": (Net(joined_with_another), SEQUENCES, {"autodiff"}),
    "GRU and LSTM": (
        recurrent(nn.GRUCell(3), nn.OptimizedLSTMCell(3)),
        SEQUENCES,
        {"direct", "summed"},
    ),
    "LSTM": (recurrent(nn.LSTMCell(3)), SEQUENCES, {"direct"}),
    "blocks": (layers(Layer), SEQUENCES, {"direct"}),
    "blocks of remat": (
        layers(nn.remat(Layer, prevent_cse=False), unroll=2),
        SEQUENCES,
        {"direct"},
    ),
    "layers of steps": (layers(DeepCell), SEQUENCES, {"direct"}),
    "steps of layers": (Net(layers_at_every_step), SEQUENCES, {"direct"}),
    "backwards": (
        steps(lambda w, v, y, x: jnp.tanh(y @ w + (x * y) @ w + x @ v), reverse=True),
        SEQUENCES,
        {"direct"},
    ),
    "embedding in steps": (Net(looked_up), IDS, {"gram"}),
    "in and outside": (Net(in_and_outside), SEQUENCES, {"summed"}),
    "convolutions": (Net(convolved), IMAGES, {"direct"}),
    "slices and all": (Net(stacked_and_whole), SEQUENCES, {"autodiff"}),
    "carried": (Net(carried), SEQUENCES, {"autodiff"}),
}


def wide(tree):
    def cast(x):
        x = np.asarray(x)
        return x.astype(float) if x.dtype == np.float32 else x

    return jax.tree.map(cast, tree)


def computed(name):
    network, inputs, _ = CASES[name]
    variables = variables_of(network, inputs)
    return (
        network.apply,
        variables,
        inputs,
        targets_for(network.apply, variables, inputs, K),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_norms_and_sums_are_those_of_autodiff(name):
    apply_fn, *arrays = computed(name)

    @jax.jit
    def both(variables, inputs, targets):
        arguments = apply_fn, square_loss, variables, inputs, targets
        ghost = api.squared_norms("ghost", *arguments, by_tensor=True)
        exact = api.squared_norms("exact", *arguments, by_tensor=True)
        beside = api.norms_and_gradient("ghost", *arguments)
        weights = jnp.full((B, K), 1 / (B * K), targets.dtype)
        return ghost, exact, beside, api.weighted_gradient(*arguments, weights)

    with jax.enable_x64(True):
        ghost, exact, beside, mean = both(*wide(arrays))
        assert ghost.total.dtype == jnp.float64
        for norms, oracle in zip(
            *map(jax.tree.leaves, (ghost.by_tensor, exact.by_tensor)), strict=True
        ):
            np.testing.assert_allclose(norms, oracle, 1e-9)
        np.testing.assert_allclose(beside.squared_norms, exact.total, 1e-9)
        for found, wanted in zip(
            *map(jax.tree.leaves, (beside.gradient, mean)), strict=True
        ):
            np.testing.assert_allclose(found, wanted, 1e-9, 1e-12)
    found = api.routes(apply_fn, arrays[0], arrays[1])
    matrices = {r.way for r in found if len(r.shape) > 1 and r.way != "vector"}
    assert matrices == CASES[name][2]
    assert all(bool(route.reason) == (route.way == "autodiff") for route in found)


def test_a_scan_within_a_shard_map_of_ones_own():
    network, inputs = layers(Plain), SEQUENCES
    apply_fn, variables = network.apply, variables_of(network, inputs)
    targets = targets_for(apply_fn, variables, inputs, K)
    mesh, whole, part = Mesh(np.array(jax.devices()[:2]), ("d",)), P(), P("d")

    def norms(*arrays):
        return api.squared_norms("ghost", apply_fn, square_loss, *arrays).total

    split = jax.shard_map(
        norms, mesh=mesh, in_specs=(whole, part, part), out_specs=part
    )
    found = jax.jit(split)(variables, inputs, targets)
    wanted = jax.jit(norms)(variables, inputs, targets)
    np.testing.assert_allclose(found, wanted, 1e-5)


@pytest.mark.slow
def test_norms_are_differentiated_through_what_was_kept():
    apply_fn, *arrays = computed("in and outside")

    def penalty(engine, variables, inputs, targets):
        return jnp.sum(
            api.squared_norms(
                engine, apply_fn, square_loss, variables, inputs, targets
            ).total
        )

    with jax.enable_x64(True):
        ghost, exact = (
            jax.jit(jax.grad(functools.partial(penalty, engine), argnums=(0, 1)))(
                *wide(arrays)
            )
            for engine in ("ghost", "exact")
        )
        for found, wanted in zip(*map(jax.tree.leaves, (ghost, exact)), strict=True):
            np.testing.assert_allclose(found, wanted, 1e-9, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [40, 6000])
def test_the_sketch_of_a_tied_table_is_that_of_its_gradient(vocabulary):
    def apply_fn(variables, ids, fallback=0):
        w = variables["params"]["w"]
        made = jnp.tanh(w[ids]) @ w.T
        return made + 0 * jnp.sin(w).sum() if fallback else made

    variables = {"params": {"w": random(1, vocabulary, 6)}}
    targets = targets_for(apply_fn, variables, IDS, K)

    @jax.jit
    def both(*arrays):
        options = {"size": 16, "key": jax.random.key(2)}
        return [
            api.sketches("ghost", fn, square_loss, *arrays, **options)
            for fn in (apply_fn, functools.partial(apply_fn, fallback=1))
        ]

    ours, formed = both(variables, IDS, targets)
    np.testing.assert_allclose(ours, formed, 1e-4, 1e-4 * np.abs(formed).max())
    for fallback in (0, 1):
        fn = functools.partial(apply_fn, fallback=fallback)
        (route,) = api.routes(fn, variables, IDS)
        assert (route.way == "autodiff") == bool(fallback)
