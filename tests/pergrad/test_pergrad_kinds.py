"""Networks as Flax's examples have them: all that is offered, against autodiff.

A ResNet of bottlenecks, a transformer whose blocks are scanned, checkpointed and tied
at both ends, and a classifier of sentences by LSTMs in both directions.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.pergrad import api
from tests.support.networks import Net, random, square_loss, targets_for, variables_of

B, K = 3, 2
IDS = np.random.default_rng(0).integers(0, 12, (B, 5)).astype(np.int32)


def resnet(module, x):
    def conv(x, width, size=1, stride=1):
        x = nn.Conv(width, (size, size), (stride, stride), use_bias=False)(x)
        return nn.BatchNorm(use_running_average=True)(x)

    x = nn.relu(conv(x, 4, 3))
    for width, stride in ((2, 1), (4, 2)):
        y = nn.relu(conv(x, width))
        y = conv(nn.relu(conv(y, width, 3, stride)), 4 * width)
        x = nn.relu(y + conv(x, 4 * width, 1, stride))
    return nn.Dense(3)(x.mean(axis=(1, 2)))


class Block(nn.Module):
    """Attention to what came before, and two layers, each behind a norm."""

    @nn.compact
    def __call__(self, x, mask):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2)(y, mask=mask)
        y = nn.gelu(nn.Dense(8)(nn.LayerNorm()(x)))
        return x + nn.Dense(4)(y), None


def transformer(module, ids):
    embed = nn.Embed(12, 4)
    x = embed(ids) + module.param("positions", nn.initializers.normal(), (1, 5, 4))
    blocks = nn.scan(
        nn.remat(Block, prevent_cse=False),
        {"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=2,
    )
    x, _ = blocks(name="blocks")(x, nn.make_causal_mask(ids))
    return embed.attend(nn.LayerNorm()(x))


def lstm(module, ids):
    x = nn.Embed(12, 3)(ids)
    cells = [nn.RNN(nn.OptimizedLSTMCell(3, param_dtype=float)) for _ in range(2)]
    x = nn.Bidirectional(*cells)(x)
    weights = jax.nn.softmax(nn.Dense(1)(jnp.tanh(nn.Dense(4)(x))), axis=1)
    return nn.Dense(2)((weights * x).sum(axis=1))


KINDS = {
    "resnet": (Net(resnet), random(0, B, 8, 8, 3)),
    "transformer": (Net(transformer), IDS),
    "lstm": (Net(lstm), IDS),
}


def wide(tree):
    def cast(x):
        x = np.asarray(x)
        return x.astype(float) if x.dtype == np.float32 else x

    return jax.tree.map(cast, tree)


@functools.cache
def case(name):
    network, inputs = KINDS[name]
    variables = variables_of(network, inputs)
    targets = targets_for(network.apply, variables, inputs, K)
    return network.apply, variables, inputs, targets


def flat_gradients(apply_fn, variables, inputs, targets):
    """[b, k, n] by `vmap` of `grad`."""

    def one(x, target):
        def loss(params):
            output = apply_fn({**variables, "params": params}, x[None])[0]
            return square_loss(output, target)

        leaves = jax.tree.leaves(jax.grad(loss)(variables["params"]))
        return jnp.concatenate([leaf.ravel() for leaf in leaves])

    with jax.default_matmul_precision("highest"):
        return jax.vmap(jax.vmap(one, (None, 0)))(inputs, targets)


def raveled(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", KINDS)
def test_all_that_is_offered_is_exact(name, bits):
    apply_fn, *arrays = case(name)
    weights = random(3, B, K)

    @jax.jit
    def everything(*arrays):
        arguments = apply_fn, square_loss, *arrays
        norms = api.squared_norms("ghost", *arguments).total
        limit = jnp.sqrt(jnp.median(norms))
        return (
            limit,
            flat_gradients(apply_fn, *arrays),
            norms,
            api.norms_and_gradient("ghost", *arguments),
            api.weighted_gradient(*arguments, jnp.asarray(weights)),
            [
                api.clipped_gradient(engine, *arguments, limit).gradient
                for engine in ("ghost", "exact")
            ],
            api.inner_products(*arguments),
        )

    with jax.enable_x64(bits == 64):
        found = everything(*(wide(arrays) if bits == 64 else arrays))
        limit, each, norms, beside, weighted, clipped, products = found
        limit = np.asarray(limit)  # a jax.Array divides in 32 bits out of here
        assert each.dtype == norms.dtype == f"float{bits}"
    rtol = 1e-9 if bits == 64 else 1e-5
    each = np.asarray(each, float)
    squares = np.sum(each**2, axis=-1)
    np.testing.assert_allclose(norms, squares, rtol)
    np.testing.assert_allclose(beside.squared_norms, squares, rtol)
    factors = np.minimum(1, limit / np.sqrt(squares))
    assert 0 < np.sum(factors < 1) < B * K
    lengths = np.sqrt(squares)
    for sums, terms in (
        (beside.gradient, np.full((B, K), 1 / (B * K))),
        (weighted, weights),
        *((one, factors) for one in clipped),
    ):
        wanted = np.einsum("bk,bkn->n", terms, each)
        error = np.linalg.norm(raveled(sums) - wanted)
        assert error < rtol * np.sum(np.abs(terms) * lengths)
    wanted = np.einsum("akn,bln->akbl", each, each)
    scales = lengths[:, :, None, None] * lengths[None, None]
    assert np.abs(products - wanted).max() < rtol * scales.max()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_sketches_are_unbiased(name):
    apply_fn, variables, inputs, targets = case(name)
    size, keys = 64, jax.random.split(jax.random.key(0), 200)

    @jax.jit
    def found(keys, *arrays):
        def one(key):
            options = {"size": size, "key": key}
            return api.sketches("ghost", apply_fn, square_loss, *arrays, **options)

        return jax.lax.map(one, keys), flat_gradients(apply_fn, *arrays)

    rows, each = found(keys, variables, inputs, targets[:, :1])
    rows, each = (np.asarray(x, float)[..., 0, :] for x in (rows, each))
    gram, estimates = each @ each.T, np.einsum("nax,nbx->nab", rows, rows)
    lengths = np.sqrt(np.diag(gram))
    off = (estimates - gram) / np.outer(lengths, lengths)
    # By its own standard error; and that is the one of a projection of the whole.
    errors = off.std(axis=0) / len(keys) ** 0.5
    assert np.all(np.abs(off.mean(axis=0)) < 4.5 * errors)
    assert off.std(axis=0).max() < 2 * (2 / size) ** 0.5
    # A scale that is a tenth off would be seen.
    assert errors.max() * 4.5 < 0.1
