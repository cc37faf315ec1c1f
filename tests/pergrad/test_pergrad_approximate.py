"""The engines that leave something out, against what they say they compute."""

import functools
import math

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
    norms_of,
    random,
    square_loss,
    targets_for,
    variables_of,
    ways,
)

B, K = 2, 3


def prepared(module, inputs):
    variables = variables_of(module, inputs)
    targets = targets_for(module.apply, variables, inputs, K)
    return module.apply, variables, inputs, targets


def cotangents_of(apply_fn, variables, inputs, targets):
    """Gradients of `square_loss` by the output, for K candidates: [B, K, ...]."""
    return np.asarray(jax.jit(apply_fn)(variables, inputs))[:, None] - targets


# Goodfellow (2015): |a_t|^2 |g_t|^2, summed over positions t.


def test_goodfellow_is_exact_for_layers_on_vectors():
    def body(module, x):
        return nn.Dense(3)(jnp.tanh(nn.Dense(4)(x)))

    arguments = prepared(Net(body), random(0, B, 5))
    found, exact = norms_of(("goodfellow", "exact"), *arguments)
    assert_norms_agree(found, exact.by_tensor)
    assert set(ways(*arguments[:3], "goodfellow").values()) == {"positions"}


def test_goodfellow_sums_over_the_positions_of_a_dense_layer():
    arguments = prepared(nn.Dense(4), random(0, B, 5, 3))
    x, g = arguments[2], cotangents_of(*arguments)
    found, exact = norms_of(("goodfellow", "exact"), *arguments)
    lengths = np.sum(g**2, axis=-1)  # [B, K, T]
    energy = np.sum(x**2, axis=-1)[:, None]
    wanted = {
        "bias": lengths.sum(axis=-1),
        "kernel": np.sum(energy * lengths, axis=-1),
    }
    assert_norms_agree(found, wanted)
    assert not np.allclose(found.total, exact.total, rtol=0.1)


CONVOLUTIONS = {
    "plain": nn.Conv(6, (3, 3)),
    "strided, cropped": nn.Conv(6, (3, 2), (2, 1), padding=((-1, 2), (1, 0))),
    "grouped": nn.Conv(6, (3, 3), 2, feature_group_count=2),
    "depthwise": nn.Conv(4, (3, 3), feature_group_count=4),
    "a trous": nn.Conv(6, (3, 3), kernel_dilation=2),
    "pointwise": nn.Conv(6, (1, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_goodfellow_sums_over_the_patches_of_a_convolution(name):
    conv = CONVOLUTIONS[name]
    arguments = prepared(conv, random(0, B, 6, 5, 4))
    x, g = arguments[2], cotangents_of(*arguments)
    groups, padding = conv.feature_group_count, conv.padding
    find_patches = functools.partial(
        lax.conv_general_dilated_patches,
        filter_shape=conv.kernel_size,
        window_strides=np.broadcast_to(conv.strides, 2),
        padding=padding,
        rhs_dilation=np.broadcast_to(conv.kernel_dilation, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    patches = jax.jit(find_patches)(x)  # [B, *O, C * k]: channels outside
    grouped = np.asarray(patches).reshape(*patches.shape[:-1], groups, -1)
    energy = np.sum(grouped**2, axis=-1)[:, None]  # [B, 1, *O, groups]
    lengths = np.sum(g.reshape(*g.shape[:-1], groups, -1) ** 2, axis=-1)
    wanted = {
        "bias": lengths.sum(axis=(2, 3, 4)),
        "kernel": np.sum(energy * lengths, axis=(2, 3, 4)),
    }
    (found,) = norms_of(("goodfellow",), *arguments)
    assert_norms_agree(found, wanted)


def test_goodfellow_adds_the_uses_of_a_kernel():
    # A sum over positions, in which two uses are no different from two positions.
    def body(module, x):
        dense = nn.Dense(3, name="dense")
        return jnp.concatenate([dense(x), dense(2 * x)], axis=1)

    arguments = prepared(Net(body), random(0, B, 1, 4))
    x, g = arguments[2], cotangents_of(*arguments)
    lengths = np.sum(g**2, axis=-1)  # [B, K, 2]
    energy = np.sum(x**2, axis=(1, 2))[:, None]  # [B, 1]
    wanted = {
        "bias": lengths.sum(axis=-1),
        "kernel": energy * (lengths[..., 0] + 4 * lengths[..., 1]),
    }
    (found,) = norms_of(("goodfellow",), *arguments)
    assert_norms_agree(found, {"dense": wanted})


# What counts.


def mixed(module, x):
    """A layer of every kind."""
    x = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(x))
    x = nn.Conv(4, (3, 3), name="conv")(x)
    x = nn.LayerNorm(name="layer_norm")(x).mean(axis=(1, 2))
    x = x + module.param("shift", nn.initializers.normal(), (1, 4))
    return nn.Dense(3, name="dense")(jnp.tanh(x))


LINEAR = ("conv", "dense")


def norm_of_zero(tree):
    return not any(np.any(leaf) for leaf in jax.tree.leaves(tree))


def test_conv_linear_is_exact_over_convolutions_and_linear_layers():
    arguments = prepared(Net(mixed), random(0, B, 4, 4, 3))
    found, exact = norms_of(("conv_linear", "exact"), *arguments)
    wanted = {
        name: tree if name in LINEAR else jax.tree.map(np.zeros_like, tree)
        for name, tree in exact.by_tensor.items()
    }
    assert_norms_agree(found, wanted)
    assert (found.total < 0.99 * exact.total).all()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["goodfellow", "conv_linear"])
def test_other_layers_are_left_out(engine):
    arguments = prepared(Net(mixed), random(0, B, 4, 4, 3))
    (found,) = norms_of((engine,), *arguments)
    for name, tree in found.by_tensor.items():
        if name in LINEAR:
            assert all(np.all(leaf > 0) for leaf in jax.tree.leaves(tree)), name
        else:
            assert norm_of_zero(tree), name
    for route in api.routes(*arguments[:3], engine):
        left_out = not route.name.startswith(LINEAR)
        assert (route.way == "left out") == left_out
        assert bool(route.reason) == left_out


def test_tables_are_left_out_by_conv_linear():
    def body(module, ids):
        return nn.Dense(2, name="dense")(nn.Embed(5, 3, name="table")(ids))

    arguments = prepared(Net(body), np.array([[0, 1], [4, 4]]))
    found, exact = norms_of(("conv_linear", "exact"), *arguments)
    assert norm_of_zero(found.by_tensor["table"])
    for ours, wanted in zip(
        jax.tree.leaves(found.by_tensor["dense"]),
        jax.tree.leaves(exact.by_tensor["dense"]),
        strict=True,
    ):
        np.testing.assert_allclose(ours, wanted, rtol=5e-5)


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
    return step(name="cell")(jnp.zeros((len(x), 3)), x)[1]


def chosen(module, x):
    w = module.param("w", nn.initializers.normal(), (3, 4))
    return lax.cond(jnp.sum(x) > 0, lambda: x @ w, lambda: -jnp.sin(x) @ w)


def test_layers_in_a_scan_have_their_place():
    arguments = prepared(Net(scanned), random(0, B, 5, 3))
    linear, ghost, goodfellow = norms_of(
        ("conv_linear", "ghost", "goodfellow"), *arguments
    )
    np.testing.assert_allclose(linear.total, ghost.total, 1e-5)
    # A sum over the steps, where ghost has a double sum.
    assert set(ways(*arguments[:3], "goodfellow").values()) == {"positions"}
    apply_fn, variables, inputs, targets = arguments
    first = targets[:, :, :1]  # of one step there is but one position

    def one_step(variables, x):
        return apply_fn(variables, x)[:, :1]

    ghost, goodfellow = norms_of(
        ("ghost", "goodfellow"), one_step, variables, inputs, first
    )
    np.testing.assert_allclose(goodfellow.total, ghost.total, 1e-5)


@pytest.mark.parametrize("engine", ["goodfellow", "conv_linear"])
def test_what_has_no_place_is_an_error_that_names_it(engine):
    apply_fn, variables, inputs, targets = prepared(Net(chosen), random(0, B, 5, 3))
    with pytest.raises(ValueError, match=r"parameter w .*it enters cond"):
        api.squared_norms(engine, apply_fn, square_loss, variables, inputs, targets)
    with pytest.raises(ValueError, match="take ghost or exact"):
        api.routes(apply_fn, variables, inputs, engine)


@pytest.mark.parametrize("engine", ["goodfellow", "conv_linear"])
def test_a_product_of_parameters_has_no_place(engine):
    def body(module, x):
        shapes = {"a": (3, 2), "b": (2, 4)}
        a, b = (
            module.param(name, nn.initializers.normal(), shape)
            for name, shape in shapes.items()
        )
        return x @ (a @ b)

    apply_fn, variables, inputs, _ = prepared(Net(body), random(0, B, 5, 3))
    with pytest.raises(ValueError, match="parameter a belongs to: it enters dot_gen"):
        api.routes(apply_fn, variables, inputs, engine)


def test_goodfellow_bounds_the_exact_norm():
    # By Cauchy-Schwarz the norm of a sum over T positions is at most T times theirs.
    arguments = prepared(nn.Conv(3, (3, 3), use_bias=False), random(0, B, 4, 5, 2))
    found, exact = norms_of(("goodfellow", "exact"), *arguments)
    assert (exact.total <= math.prod((4, 5)) * found.total).all()
