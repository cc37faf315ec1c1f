"""The engine `ghost` against autodiff, layer by layer, and the way each is taken."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jalpose.pergrad import api
from tests.support.networks import (
    Net,
    assert_norms_agree,
    layer,
    norms_of,
    random,
    slow_norms,
    targets_for,
    variables_of,
    ways,
)

B, K = 2, 2


def param(module, name, *shape):
    return module.param(name, nn.initializers.normal(), shape)


def image(height=6, width=5, channels=4):
    return random(0, B, height, width, channels)


def sequence(length=5, width=3):
    return random(0, B, length, width)


NORM = {"bias": "vector", "scale": "vector"}
VECTORS, SEQUENCES, IMAGES = random(0, B, 3), sequence(), image()

# name -> (network, inputs, way of each parameter, or of all)
CASES: dict = {}

# Matrices.
CASES |= {
    "dense": (nn.Dense(4), VECTORS, layer("gram")),
    "dense on sequences": (nn.Dense(4), SEQUENCES, layer("direct")),
    "dense general": (
        nn.DenseGeneral((2, 3), axis=(-2, -1)),
        random(0, B, 4, 3, 2),
        layer("gram"),
    ),
    "dense general, axes apart": (
        nn.DenseGeneral((2, 3), axis=(1, 3)),
        random(0, B, 4, 3, 2),
        layer("gram"),
    ),
    "dense general, batched": (
        Net(
            lambda m, x: jnp.moveaxis(
                nn.DenseGeneral(4, batch_dims=(0,))(jnp.moveaxis(x, 2, 0)), 0, 2
            )
        ),
        random(0, B, 6, 3, 2),
        layer("direct", "DenseGeneral_0/"),
    ),
    "einsum": (nn.Einsum((3, 4), "abc,cd->abd"), SEQUENCES, layer("direct")),
    "einsum, batched": (
        nn.Einsum((2, 3, 4), "bthd,hde->bteh"),
        random(0, B, 5, 2, 3),
        layer("direct"),
    ),
    "einsum, kernel first": (
        Net(lambda m, x: jnp.einsum("edh,bthd->bhet", param(m, "w", 4, 3, 2), x)),
        random(0, B, 5, 2, 3),
        {"w": "direct"},
    ),
    "raw product": (
        Net(lambda m, x: x @ param(m, "w", 3, 4)),
        SEQUENCES,
        {"w": "direct"},
    ),
    "raw product, transposed": (
        Net(lambda m, x: x @ param(m, "w", 4, 3).T),
        SEQUENCES,
        {"w": "direct"},
    ),
    "raw product, kernel first": (
        Net(lambda m, x: (param(m, "w", 4, 3) @ x.mT).mT),
        SEQUENCES,
        {"w": "direct"},
    ),
    "inner product": (
        Net(lambda m, x: x @ param(m, "w", 3)),
        SEQUENCES,
        {"w": "direct"},
    ),
    "repeated kernel": (
        Net(lambda m, x: x @ jnp.broadcast_to(param(m, "w", 1, 4), (3, 4))),
        SEQUENCES,
        {"w": "autodiff"},
    ),
    "product of two parameters": (
        Net(lambda m, x: x @ (param(m, "a", 3, 2) @ param(m, "b", 2, 4))),
        SEQUENCES,
        {"a": "autodiff", "b": "autodiff"},
    ),
    "product with itself": (
        Net(lambda m, x: (lambda w: x @ (w @ w.T))(param(m, "w", 3, 2))),
        SEQUENCES,
        {"w": "autodiff"},
    ),
}

# Norms, and other vectors.
CASES |= {
    "batch norm": (nn.BatchNorm(use_running_average=True), IMAGES, NORM),
    "layer norm": (nn.LayerNorm(), SEQUENCES, NORM),
    "RMS norm": (nn.RMSNorm(), SEQUENCES, {"scale": "vector"}),
    "group norm": (nn.GroupNorm(2), IMAGES, NORM),
    "instance norm": (nn.InstanceNorm(), IMAGES, NORM),
    "weight norm": (
        nn.WeightNorm(nn.Dense(4)),
        SEQUENCES,
        {
            "layer_instance/bias": "vector",
            "layer_instance/kernel": "vector",
            "layer_instance/kernel/scale": "vector",
        },
    ),
    "spectral norm": (
        Net(lambda m, x: nn.SpectralNorm(nn.Dense(4))(x, update_stats=False)),
        SEQUENCES,
        layer("autodiff", "Dense_0/"),
    ),
    "PReLU": (nn.PReLU(), SEQUENCES - 0.1, {"negative_slope": "vector"}),
    "masked kernel": (
        Net(lambda m, x: x @ (param(m, "w", 3, 4) * np.tri(3, 4, dtype=np.float32))),
        SEQUENCES,
        {"w": "vector"},
    ),
    "positions": (
        Net(lambda m, x: jnp.tanh(x + param(m, "p", 1, 5, 3))),
        SEQUENCES,
        {"p": "vector"},
    ),
    "a parameter put out": (
        Net(lambda m, x: jnp.broadcast_to(param(m, "w", 1, 4), (len(x), 4))),
        SEQUENCES,
        {"w": "autodiff"},
    ),
    "unused": (
        Net(lambda m, x: (nn.Dense(4)(x), param(m, "w", 2, 2))[0]),
        SEQUENCES,
        {**layer("direct", "Dense_0/"), "w": "unused"},
    ),
}

# Tables.
IDS = np.array([[0, 2, 2, 5, 2], [1, 1, 1, 1, 0]])


def tied(module, ids):
    table = nn.Embed(6, 3)
    return table.attend(jnp.tanh(table(ids)))


def row_by_row(module, ids, keepdims=False):
    """As a layer of one index does it, under `vmap`."""
    table = param(module, "w", 6, 3)

    def row(index):
        return lax.dynamic_index_in_dim(table, index, keepdims=keepdims)

    return jax.vmap(jax.vmap(row))(ids)


CASES |= {
    "embedding": (nn.Embed(6, 3), IDS, {"embedding": "gram"}),
    "embedding, out of range": (
        nn.Embed(6, 3),
        np.where(IDS == 5, 9, IDS),
        {"embedding": "gram"},
    ),
    "embedding, from the end": (
        Net(lambda m, ids: param(m, "w", 6, 2, 3)[ids - 2]),
        IDS,
        {"w": "gram"},
    ),
    "embedding, clipped": (
        Net(lambda m, ids: jnp.take(param(m, "w", 4, 3), ids, axis=0, mode="clip")),
        IDS,
        {"w": "gram"},
    ),
    "embedding, a row at a time": (
        Net(row_by_row),
        IDS,
        {"w": "gram"},
    ),
    "embedding, a row at a time, kept": (
        Net(lambda m, ids: row_by_row(m, ids, keepdims=True)),
        IDS,
        {"w": "gram"},
    ),
    "embedding by columns": (
        Net(
            lambda m, ids: jnp.moveaxis(
                jnp.take(param(m, "w", 3, 6), ids, axis=1), 0, 2
            )
        ),
        IDS,
        {"w": "autodiff"},
    ),
    "embedding and positions": (
        Net(lambda m, ids: nn.Embed(6, 3)(ids) + nn.Embed(5, 3)(jnp.arange(5))[None]),
        IDS,
        {f"Embed_{n}/embedding": "gram" for n in (0, 1)},
    ),
    "tied embedding": (Net(tied), IDS, {"Embed_0/embedding": "summed"}),
}

# Attention, recurrence, and what transforms a network.


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(3, name="out")(jnp.tanh(nn.Dense(4, name="in")(x)))


class Step(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        carry = jnp.tanh(nn.Dense(3, name="dense")(carry) + x)
        return carry, carry


def scanned(module, x):
    step = nn.scan(
        Step,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=1,
        out_axes=1,
    )
    return step()(jnp.zeros((len(x), 3)), x)[1]


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Block(name="block")(x), None


def stacked(module, x):
    layers = nn.scan(Layer, {"params": 0}, split_rngs={"params": True}, length=3)
    return layers()(x, None)[0]


def twice(module, x):
    block = nn.Dense(3)
    return block(jnp.tanh(block(x)))


def mapped(shared):
    axis, split = (None, False) if shared else (0, True)
    return nn.vmap(
        nn.Dense,
        {"params": axis},
        split_rngs={"params": split},
        in_axes=2,
        out_axes=2,
    )


def mapped_conv(shared):
    axis, split = (None, False) if shared else (0, True)
    return nn.vmap(
        nn.Conv, {"params": axis}, split_rngs={"params": split}, in_axes=3, out_axes=3
    )


@jax.jit
def product(x, w):
    return jnp.tanh(x @ w)


@jax.custom_vjp
def squared_product(x, w):
    return jnp.square(x @ w)


squared_product.defvjp(
    lambda x, w: (jnp.square(x @ w), (x, w)),
    lambda kept, g: jax.vjp(lambda x, w: jnp.square(x @ w), *kept)[1](g),
)


def chosen(module, x):
    """`lax.cond` between two uses of a parameter."""
    w = param(module, "w", 3, 4)
    return lax.cond(jnp.sum(x) > 0, lambda: x @ w, lambda: -2 * jnp.sin(x) @ w)


CASES |= {
    "attention": (
        nn.MultiHeadDotProductAttention(2, qkv_features=4),
        sequence(4),
        layer("direct", "key/", "out/", "query/", "value/"),
    ),
    "GRU": (nn.RNN(nn.GRUCell(3)), SEQUENCES, {"direct", "vector"}),
    "LSTM": (nn.RNN(nn.OptimizedLSTMCell(3)), SEQUENCES, {"summed", "vector"}),
    "scan, broadcast": (Net(scanned), SEQUENCES, {"direct", "vector"}),
    "scan over layers": (Net(stacked), SEQUENCES, {"direct", "vector"}),
    "remat": (
        Net(lambda m, x: nn.remat(Block)()(x)),
        SEQUENCES,
        layer("direct", "CheckpointBlock_0/in/", "CheckpointBlock_0/out/"),
    ),
    "vmap, shared": (
        Net(lambda m, x: mapped(True)(4)(x)),
        random(0, B, 5, 2, 3),
        layer("direct", "VmapDense_0/"),
    ),
    "vmap, apart": (
        Net(lambda m, x: mapped(False)(4)(x)),
        random(0, B, 5, 2, 3),
        layer("direct", "VmapDense_0/"),
    ),
    "vmap of conv, shared": (
        Net(lambda m, x: mapped_conv(True)(3, (3, 3))(x)),
        random(0, B, 4, 5, 2, 2),
        layer("direct", "VmapConv_0/"),
    ),
    "vmap of conv, apart": (
        Net(lambda m, x: mapped_conv(False)(3, (3, 3))(x)),
        random(0, B, 4, 5, 2, 2),
        layer("direct", "VmapConv_0/"),
    ),
    "applied twice": (Net(twice), SEQUENCES, layer("direct", "Dense_0/")),
    "jit called twice": (
        Net(
            lambda m, x: (
                product(x, param(m, "w", 3, 4))
                + product(2 * x, m.variables["params"]["w"])
            )
        ),
        SEQUENCES,
        {"w": "direct"},
    ),
    "jit called with two kernels": (
        Net(lambda m, x: product(product(x, param(m, "v", 3, 3)), param(m, "w", 3, 4))),
        SEQUENCES,
        {"v": "direct", "w": "direct"},
    ),
    "custom VJP": (
        Net(lambda m, x: squared_product(nn.Dense(3)(x), param(m, "w", 3, 4))),
        SEQUENCES,
        {**layer("direct", "Dense_0/"), "w": "autodiff"},
    ),
    "cond": (Net(chosen), SEQUENCES, {"w": "autodiff"}),
}


def computed(name):
    module, inputs, _ = CASES[name]
    variables = variables_of(module, inputs)
    targets = targets_for(module.apply, variables, inputs, K)
    return module.apply, variables, inputs, targets


@pytest.mark.parametrize("name", CASES)
def test_ghost_is_exact(name):
    apply_fn, variables, inputs, targets = computed(name)
    ghost, exact = norms_of(("ghost", "exact"), apply_fn, variables, inputs, targets)
    assert_norms_agree(ghost, exact.by_tensor)
    found, expected = ways(apply_fn, variables, inputs), CASES[name][2]
    if isinstance(expected, set):
        assert set(found.values()) == expected
    else:
        assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["dense on sequences", "attention", "embedding", "GRU", "remat"]
)
def test_ghost_is_one_gradient_at_a_time(name):
    apply_fn, variables, inputs, targets = computed(name)
    (ghost,) = norms_of(("ghost",), apply_fn, variables, inputs, targets)
    slow = slow_norms(apply_fn, variables, inputs, targets)
    assert ghost.total.shape == (B, K) and ghost.total.dtype == jnp.float32
    assert_norms_agree(ghost, slow)


def test_what_is_unused_has_no_norm():
    apply_fn, variables, inputs, targets = computed("unused")
    (ghost,) = norms_of(("ghost",), apply_fn, variables, inputs, targets)
    assert not np.any(ghost.by_tensor["w"]) and np.all(ghost.total > 0)


def test_a_row_that_is_not_there_takes_no_gradient():
    # Linen puts NaN out for it, and so the loss and the cotangent are NaN.
    apply_fn, variables, inputs, targets = computed("embedding, out of range")
    assert np.isnan(apply_fn(variables, inputs)[0, 3]).all()
    found = norms_of(("ghost", "goodfellow"), apply_fn, variables, inputs, targets)
    assert all(np.isfinite(norms.total).all() for norms in found)


def test_a_fallback_says_why():
    reasons = {
        "cond": "no rule for cond",
        "embedding by columns": "no rule for gather",
        "a parameter put out": "no rule for output",
    }
    for name, reason in reasons.items():
        apply_fn, variables, inputs, _ = computed(name)
        routes = api.routes(apply_fn, variables, inputs)
        assert [r.reason for r in routes if r.way == "autodiff"][-1] == reason
        assert all(not r.reason for r in routes if r.way != "autodiff")
