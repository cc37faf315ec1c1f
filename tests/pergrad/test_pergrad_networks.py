"""Whole networks, number formats, and how much is taken at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.models.hourglass import StackedHourglass
from jalpose.pergrad import api
from jalpose.pergrad.api import Engine
from tests.support import small
from tests.support.networks import (
    Net,
    assert_norms_agree,
    norms_of,
    random,
    slow_norms,
    square_loss,
    targets_for,
    variables_of,
    ways,
)

B, K = 2, 2


class ResNet(nn.Module):
    """Four stages of basic blocks, batch norm in evaluation mode; a small stem."""

    blocks: int  # a stage; two of them are ResNet-18
    width: int = 2

    @nn.compact
    def __call__(self, x):
        def norm(x):
            return nn.BatchNorm(use_running_average=True)(x)

        def conv(x, width, size=3, stride=1):
            return nn.Conv(width, (size, size), stride, use_bias=False)(x)

        x = nn.max_pool(nn.relu(norm(conv(x, self.width))), (2, 2), (2, 2))
        for stage in range(4):
            width = self.width * 2**stage
            for stride in (1 + (stage > 0), *[1] * (self.blocks - 1)):
                y = nn.relu(norm(conv(x, width, stride=stride)))
                y = norm(conv(y, width))
                if y.shape != x.shape:
                    x = norm(conv(x, width, 1, stride))
                x = nn.relu(x + y)
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class Transformer(nn.Module):
    """Two pre-norm blocks over tokens with positions."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(7, 4)(ids)
        x = x + self.param("positions", nn.initializers.normal(), (1, 5, 4))
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
            y = nn.gelu(nn.Dense(8)(nn.LayerNorm()(x)))
            x = x + nn.Dense(4)(y)
        return nn.Dense(7)(nn.LayerNorm()(x))


IMAGES = random(0, B, 16, 16, 3)
IDS = np.random.default_rng(0).integers(0, 7, (B, 5))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(ResNet(1), IMAGES, id="resnet10"),
        pytest.param(ResNet(2), IMAGES, id="resnet18", marks=pytest.mark.slow),
        pytest.param(Transformer(), IDS, id="transformer"),
    ],
)
def test_whole_networks_are_exact_without_a_fallback(model, inputs):
    variables = variables_of(model, inputs)
    arguments = model.apply, variables, inputs
    targets = targets_for(*arguments, K)
    (ghost,) = norms_of(("ghost",), *arguments, targets)
    # Deeper than the layers alone: roundings add up.
    assert_norms_agree(ghost, slow_norms(*arguments, targets), rtol=3e-4)
    for name, way in ways(*arguments).items():
        kernel = name.endswith(("kernel", "embedding"))
        assert way in (("direct", "gram", "shifted") if kernel else ("vector",)), name


@pytest.mark.slow
def test_the_papers_network_needs_no_fallback():
    # Traced only, at the papers' size; `test_pergrad` has the norms of a small one.
    model = StackedHourglass(14)
    images = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = api.routes(lambda v, x: model.apply(v, x).prediction, variables, images)
    assert len(found) == len(jax.tree.leaves(variables["params"]))
    for route in found:
        kernels = ("direct", "gram", "shifted")
        assert route.way in (kernels if len(route.shape) == 4 else ("vector",)), route
    # Few positions and many features at the bottom, the opposite at the top.
    assert {route.way for route in found} >= {"direct", "shifted"}


# Formats.


def small_net(dtype=None):
    """Every kind of rule, and a vector of each kind."""

    def body(module, x):
        x = nn.Conv(4, (3, 3), 2, feature_group_count=2, dtype=dtype)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, dtype=dtype)(x))
        x = nn.Conv(16, (3, 3), dtype=dtype)(x)  # few positions, many features
        x = nn.Dense(3, dtype=dtype)(jnp.tanh(x).reshape(len(x), -1, 16))
        return x.astype(jnp.promote_types(jnp.float32, x.dtype))

    return Net(body)


@pytest.fixture(scope="module")
def net():
    """(apply_fn, variables, inputs, targets, exact norms)."""
    module = small_net()
    inputs = random(0, 3, 6, 6, 4)
    variables = variables_of(module, inputs)
    targets = targets_for(module.apply, variables, inputs, 3)
    (exact,) = norms_of(("exact",), module.apply, variables, inputs, targets)
    return module.apply, variables, inputs, targets, exact


@pytest.mark.slow
def test_in_float64_norms_agree_to_nine_digits(net):
    apply_fn, variables, inputs, targets, exact32 = net
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (variables, inputs))
    with jax.enable_x64(True):
        arguments = (apply_fn, *wide, targets.astype(np.float64))
        engines = ("ghost", "exact", Engine("ghost", microbatch=2))
        ghost, exact, parts = norms_of(engines, *arguments)
        assert ghost.total.dtype == exact.total.dtype == jnp.float64
        assert_norms_agree(ghost, exact.by_tensor, rtol=1e-9)
        assert_norms_agree(parts, exact.by_tensor, rtol=1e-9)
        weights = np.full(targets.shape[:2], 0.5)
        sketch, expected = (
            jax.jit(api.expected_squared_norm, static_argnums=(0, 1, 2))(
                engine, apply_fn, square_loss, *arguments[1:], weights
            )
            for engine in (Engine("sketch", passes=3), "exact")
        )
        assert sketch.total.dtype == jnp.float64
        np.testing.assert_allclose(sketch.total, expected.total, rtol=1e-9)
    np.testing.assert_allclose(exact32.total, exact.total, rtol=1e-4)


@pytest.mark.slow
def test_a_network_in_bfloat16_has_norms_in_float32(net):
    _, variables, inputs, targets, exact32 = net
    apply_fn = small_net(jnp.bfloat16).apply
    ghost, exact = norms_of(("ghost", "exact"), apply_fn, variables, inputs, targets)
    assert ghost.total.dtype == jnp.float32
    # Autodiff rounds its gradients to bfloat16, ghost does not.
    assert_norms_agree(ghost, exact.by_tensor, rtol=3e-2)
    np.testing.assert_allclose(ghost.total, exact32.total, rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ghost", "goodfellow", "conv_linear"])
def test_products_in_bfloat16_are_close_and_of_float32(net, name):
    apply_fn, variables, inputs, targets, _ = net
    engines = Engine(name), Engine(name, products="bfloat16")
    plain, rounded = norms_of(engines, apply_fn, variables, inputs, targets)
    assert rounded.total.dtype == jnp.float32
    np.testing.assert_allclose(rounded.total, plain.total, rtol=2e-2)
    assert not np.allclose(rounded.total, plain.total, rtol=1e-5)


def test_sums_over_many_positions_do_not_stall_in_bfloat16():
    # 4,096 products of 1/64: one by one in bfloat16 they would stop at four.
    x = jnp.full((1, 4096, 1), 1 / 64)
    found = api.cotangent_squared_norms(
        Engine("ghost", products="bfloat16"),
        lambda variables, x: x @ variables["params"]["w"],
        {"params": {"w": jnp.ones((1, 1))}},
        x,
        jnp.ones((1, 1, 4096, 1)),
    )
    np.testing.assert_allclose(found.total, [[64.0**2]], rtol=1e-5)


# How much at once.


@pytest.mark.slow
def test_every_microbatch_gives_the_same_norms(net):
    # Nine gradients: three examples with three candidates.
    apply_fn, variables, inputs, targets, _ = net
    engines = [Engine("ghost", microbatch=size) for size in (0, 1, 2, 4, 7)]
    engines += [Engine("goodfellow", microbatch=size) for size in (0, 4)]
    whole, *parts, other, part = norms_of(engines, apply_fn, variables, inputs, targets)
    for found in parts:
        assert_norms_agree(found, whole.by_tensor, rtol=1e-5)
    assert_norms_agree(part, other.by_tensor, rtol=1e-5)


def test_a_microbatch_bounds_what_is_pulled_back_at_once():
    # A cotangent of the hidden layer for each gradient that is taken at once.
    def apply_fn(variables, x):
        w = variables["params"]["w"]
        return jnp.tanh(x @ w) @ w[:4]

    def widest(microbatch):
        jaxpr = jax.make_jaxpr(
            lambda w, x, t: (
                api.squared_norms(
                    Engine("ghost", microbatch=microbatch),
                    apply_fn,
                    square_loss,
                    {"params": {"w": w}},
                    x,
                    t,
                ).total
            )
        )(jnp.ones((4, 4)), jnp.ones((6, 5, 4)), jnp.ones((6, 7, 5, 4)))
        text = str(jaxpr)
        return {size for size in range(1, 50) if f"f32[{size},1,5,4]" in text}

    assert 7 not in widest(2) and 7 in widest(7)


def test_inputs_may_be_a_tree_and_the_loss_any():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            x = nn.Conv(3, (3, 3))(inputs["image"]).mean(axis=(1, 2))
            return nn.Dense(4)(x + nn.Embed(5, 3)(inputs["label"]))

    def cross_entropy(logits, label):
        return -jax.nn.log_softmax(logits)[label]

    inputs = {"image": random(0, 3, 4, 4, 2), "label": np.array([4, 0, 2])}
    variables = variables_of(Two(), inputs)
    labels = np.array([[0, 1], [2, 3], [1, 1]])
    ghost, exact = norms_of(
        ("ghost", "exact"), Two().apply, variables, inputs, labels, cross_entropy
    )
    assert_norms_agree(ghost, exact.by_tensor)
    np.testing.assert_allclose(ghost.total[2, 0], ghost.total[2, 1], rtol=1e-6)


def test_cotangents_may_be_given():
    module, inputs = nn.Dense(3), random(0, 2, 5, 4)
    variables = variables_of(module, inputs)
    cotangents = random(1, 2, 3, 5, 3)
    found = api.cotangent_squared_norms(
        "ghost", module.apply, variables, inputs, cotangents, by_tensor=True
    )
    kernels = np.einsum("btd,bktp->bkdp", inputs, cotangents)
    wanted = {
        "bias": np.sum(cotangents.sum(axis=2) ** 2, axis=-1),
        "kernel": np.sum(kernels**2, axis=(2, 3)),
    }
    assert_norms_agree(found, wanted)


def test_the_small_pose_network_has_no_fallback():
    images = jnp.zeros((1, 32, 32, 3))
    found = ways(
        lambda v, x: small.FLAT.apply(v, x).prediction, small.flat_variables(), images
    )
    assert "autodiff" not in found.values() and len(found) == 8
