"""Where products cancel, overflow or mix number formats, and what is right there."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jalpose.pergrad import api, squares
from jalpose.pergrad.api import Engine
from tests.support.networks import (
    Net,
    norms_of,
    oracle_norms,
    random,
    square_loss,
    targets_for,
    variables_of,
)


def inner(output, cotangent):
    return jnp.sum(output * cotangent).real


def both(apply_fn, variables, inputs, cotangents):
    """Totals [b, k] of exact and ghost for given cotangents."""
    arguments = apply_fn, variables, inputs, cotangents, inner
    found = norms_of(("exact", "ghost"), *arguments)
    return [np.asarray(norms.total) for norms in found]


def product(variables, x):
    return x @ variables["params"]["w"]


def routes_of(apply_fn, variables, inputs):
    found = api.routes(apply_fn, variables, inputs)
    return {route.name: (route.way, route.reason) for route in found}


# Cancellation.


def flat_network(module, x):
    convolved = nn.Conv(32, (3, 3), padding="VALID", use_bias=False)(x)
    return nn.InstanceNorm()(convolved)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3, 1.0])
def test_the_norms_of_a_flat_image_before_a_normalisation(noise):
    net, x = Net(flat_network), 0.5 + noise * random(0, 1, 6, 6, 64)
    variables = variables_of(net, x)
    exact, ghost = both(net.apply, variables, x, random(1, 1, 1, 4, 4, 32))
    # Autodiff has the same roundings of the network; the products add none of theirs.
    np.testing.assert_allclose(ghost, exact, rtol=3e-5)
    assert routes_of(net.apply, variables, x)["Conv_0/kernel"][0] == "shifted"


@pytest.mark.parametrize("tokens", ["equal", "in pairs", "apart"])
def test_cotangents_that_cancel_have_the_norm_that_is_left(tokens):
    x, g = random(0, 1, 4, 64), random(1, 1, 1, 4, 64)
    if tokens == "equal":
        x[:] = x[:, :1]
        g -= g.mean(axis=2, keepdims=True)
    elif tokens == "in pairs":
        x[:, 1::2] = x[:, ::2]
        g[:, :, 1::2] = -g[:, :, ::2] * np.float32(1 + 1e-4)
    variables = {"params": {"w": random(2, 64, 64)}}
    assert routes_of(product, variables, x)["w"][0] == "gram"
    exact, ghost = both(product, variables, x, g)
    wanted = oracle_norms(product, variables, x, g)
    size = np.sum(x**2) * np.sum(g**2)
    assert np.all(ghost >= 0)
    # What autodiff leaves of a sum that is zero is no more than this.
    np.testing.assert_allclose(ghost, wanted, rtol=1e-4, atol=1e-12 * size)
    np.testing.assert_allclose(exact, wanted, rtol=1e-4, atol=1e-12 * size)


def test_a_gram_tells_when_it_is_not_to_be_trusted():
    def doubted(a, g):
        return squares.of_matrix_by_gram(a, g, accumulate=jnp.float32)

    a, g = random(0, 1, 6, 20), random(1, 3, 1, 6, 20)
    g[1] = 0
    a[0, 3:] = a[0, :3]
    g[2, 0, 3:] = -g[2, 0, :3]
    found = doubted(a, g)
    assert found.doubtful.tolist() == [False, False, True]
    wanted = np.sum(np.einsum("gtd,kgtp->kgdp", a, g) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found.norms[:2], wanted[:2], rtol=1e-5)
    g[0, 0, 0, 0] = np.nan
    assert doubted(a, g).doubtful.tolist() == [True, False, True]


# Range.


@pytest.mark.parametrize("positions", [1, 4])
@pytest.mark.parametrize(
    ("activations", "cotangents"),
    [(1e3, 1e-20), (1e20, 1e-20), (1e-20, 1e20), (1e-25, 1e15), (1e20, 1e20)],
)
def test_products_leave_the_range_where_the_norm_does(
    positions, activations, cotangents
):
    plain, unit = random(0, 2, positions, 64), random(1, 2, 2, positions, 64)
    variables = {"params": {"w": random(2, 64, 64)}}
    wanted = oracle_norms(product, variables, plain, unit)
    wanted = (wanted * (activations * cotangents) ** 2).astype(np.float32)
    x, g = (plain * np.float32(activations), unit * np.float32(cotangents))
    exact, ghost = both(product, variables, x, g)
    np.testing.assert_allclose(ghost, wanted, rtol=1e-5)
    np.testing.assert_allclose(exact, wanted, rtol=1e-5)
    assert np.isinf(ghost).all() == (activations * cotangents > 1e19)


def test_what_is_not_finite_is_so_in_its_own_example_alone():
    x, g = random(0, 4, 4, 64), random(1, 4, 2, 4, 64)
    variables = {"params": {"w": random(2, 64, 64)}}
    _, plain = both(product, variables, x, g)
    x[1, 2, 3], x[2, 0, 0], g[3, 1, 0, 0] = np.nan, np.inf, np.nan
    exact, found = both(product, variables, x, g)
    assert np.isnan(found[1]).all() and np.isnan(found[3, 1])
    assert np.isinf(exact[2]).all() and np.isinf(found[2]).all()
    np.testing.assert_array_equal(found[0], plain[0])
    np.testing.assert_array_equal(found[3, 0], plain[3, 0])


# Derivatives of the norms.


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ghost", Engine("ghost", microbatch=1)])
@pytest.mark.parametrize("kind", ["vectors", "tokens", "images", "ids"])
def test_norms_are_differentiated_as_autodiff_does(kind, engine):
    layers = {
        "vectors": ((5,), [nn.Dense(4), nn.Dense(3)]),
        "tokens": ((3, 9), [nn.Dense(8), nn.Dense(8)]),
        "images": ((4, 4, 8), [nn.Conv(32, (3, 3)), nn.Conv(2, (3, 3))]),
        "ids": ((4,), [nn.Embed(6, 4), nn.Dense(3)]),
    }
    shape, (first, second) = layers[kind]
    net = nn.Sequential([first, jnp.tanh, second])
    x = random(0, 2, *shape)
    if kind == "ids":
        x = np.array([[0, 2, 2, 5], [1, 1, 1, 1]])
    variables = variables_of(net, x)
    targets = targets_for(net.apply, variables, x, 2)

    def penalty(engine):
        def total(params, x, targets):
            arguments = net.apply, square_loss, {"params": params}
            return jnp.sum(api.squared_norms(engine, *arguments, x, targets).total)

        by = (0, 2) if kind == "ids" else (0, 1, 2)
        return jax.jit(jax.grad(total, by))(variables["params"], x, targets)

    found, wanted = penalty(engine), penalty("exact")
    for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert np.any(other)
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * scale)


# Number formats.


def spectrum(variables, x):
    """A real kernel over complex data."""
    waves = jnp.fft.fft(x, axis=1)
    return (waves @ variables["params"]["w"].astype(waves.dtype)).imag


COMPLEX = (random(1, 3, 4) + 1j * random(5, 3, 4)).astype(np.complex64)


@pytest.mark.parametrize(
    ("apply_fn", "w"),
    [
        (spectrum, random(1, 3, 4)),
        (lambda v, x: product(v, x).imag, COMPLEX),
        (lambda v, x: jnp.abs(v["params"]["w"][None, :1] * x[..., :1]), COMPLEX),
        (product, COMPLEX),
    ],
    ids=["data", "kernel", "factor", "output"],
)
def test_of_complex_numbers_the_absolute_values_are_squared(apply_fn, w):
    x, variables = random(0, 2, 5, 3), {"params": {"w": w}}
    shape = jax.eval_shape(apply_fn, variables, x)
    g = random(2, 2, 2, *shape.shape[1:])
    wanted = oracle_norms(apply_fn, variables, x, g)
    for found in both(apply_fn, variables, x, g):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert routes_of(apply_fn, variables, x)["w"][0] in ("autodiff", "vector")


def test_cotangents_of_complex_outputs_are_complex():
    x, g = random(0, 2, 5, 3), random(2, 2, 2, 5, 4) + 1j * random(3, 2, 2, 5, 4)
    found = api.cotangent_squared_norms(
        "ghost", product, {"params": {"w": COMPLEX}}, x, g
    )
    gradients = np.einsum("btd,bktp->bkdp", x, g)
    wanted = np.sum(np.abs(gradients) ** 2, axis=(2, 3))
    np.testing.assert_allclose(found.total, wanted, rtol=1e-4)


def test_nothing_comes_back_through_integers():
    def apply_fn(variables, x):
        p = variables["params"]
        rounded = p["w"].astype(jnp.int32).astype(jnp.float32)
        return x @ rounded + p["b"][None, None] + jnp.argmax(p["w"])

    x, g = random(0, 2, 5, 3), random(2, 2, 2, 5, 4)
    variables = {"params": {"w": 10 * random(1, 3, 4), "b": np.zeros(4, np.float32)}}
    wanted = np.sum(g.sum(axis=2) ** 2, axis=-1)
    for found in both(apply_fn, variables, x, g):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert routes_of(apply_fn, variables, x)["w"] == ("unused", "")


@pytest.mark.parametrize("dtype", [np.int8, np.uint32, bool])
def test_integer_parameters_are_left_out_and_told(dtype):
    def apply_fn(variables, x):
        p = variables["params"]
        return x @ p["w"].astype(jnp.float32) + p["b"][None, None]

    x, g = random(0, 2, 5, 3), random(2, 2, 2, 5, 4)
    w = np.arange(12).reshape(3, 4).astype(dtype)
    variables = {"params": {"w": w, "b": np.zeros(4, np.float32)}}
    wanted = np.sum(g.sum(axis=2) ** 2, axis=-1)
    found = norms_of(("exact", "ghost"), apply_fn, variables, x, g, inner)
    for norms in found:
        np.testing.assert_allclose(norms.total, wanted, rtol=1e-5)
        assert not np.any(norms.by_tensor["w"]) and norms.by_tensor["w"].shape == (2, 2)
    way, reason = routes_of(apply_fn, variables, x)["w"]
    assert way == "left out" and reason == f"{np.dtype(dtype)} has no gradient"


@pytest.mark.parametrize("width", [2, 64])
def test_integers_as_data_meet_float_kernels(width):
    def apply_fn(variables, x):
        numbers = (((2,), (0,)), ((), ()))
        w = variables["params"]["w"]
        return lax.dot_general(x, w, numbers, preferred_element_type=jnp.float32)

    x = np.random.default_rng(0).integers(-100, 100, (2, 5, 64)).astype(np.int8)
    variables, g = {"params": {"w": random(1, 64, width)}}, random(2, 2, 2, 5, width)
    wanted = np.einsum("btd,bktp->bkdp", x.astype(float), g)
    for found in both(apply_fn, variables, x, g):
        np.testing.assert_allclose(found, np.sum(wanted**2, axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_convolution_in_bfloat16_that_adds_up_in_float32(layout):
    def apply_fn(variables, x):
        for name in "vw":
            x = lax.conv_general_dilated(
                x.astype(jnp.bfloat16),
                variables["params"][name],
                (1, 1),
                "SAME",
                dimension_numbers=(layout, "HWIO", layout),
                preferred_element_type=jnp.float32,
            )
        return x

    kernels = (jnp.asarray(random(seed, 3, 3, 4, 4), jnp.bfloat16) for seed in (1, 2))
    variables = {"params": dict(zip("vw", kernels, strict=True))}
    x, g = jnp.asarray(random(0, 2, 4, 4, 4), jnp.bfloat16), random(3, 2, 1, 4, 4, 4)
    exact, ghost = both(apply_fn, variables, x, g)
    np.testing.assert_allclose(ghost, exact, rtol=1e-2)  # autodiff rounds more
    assert {way for way, _ in routes_of(apply_fn, variables, x).values()} <= {
        "direct",
        "gram",
        "shifted",
    }


# Rows that are not there.


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["promise_in_bounds", "fill", "clip", "drop"])
@pytest.mark.parametrize("dtype", [np.int32, np.int8])
def test_rows_out_of_range_are_taken_as_autodiff_takes_them(mode, dtype):
    def apply_fn(variables, ids):
        return variables["params"]["w"].at[ids].get(mode=mode, fill_value=0)

    variables = {"params": {"w": np.ones((3, 1), np.float32)}}
    ids = np.array([[0, 7], [7, 7], [2, -9]], dtype)
    exact, ghost = both(apply_fn, variables, ids, np.ones((3, 1, 2, 1), np.float32))
    np.testing.assert_array_equal(ghost, exact)
    if mode == "promise_in_bounds":
        assert ghost[:2, 0].tolist() == [1, 0]


# Programs.


def test_a_jit_that_closes_over_an_array_is_read():
    constant = jnp.asarray(random(9, 4))
    layer = jax.jit(lambda x, w: jnp.tanh(x @ w) * constant[None, None])

    def apply_fn(variables, x):
        return layer(x, variables["params"]["w"])

    x, variables = random(0, 2, 5, 3), {"params": {"w": random(1, 3, 4)}}
    exact, ghost = both(apply_fn, variables, x, random(2, 2, 2, 5, 4))
    np.testing.assert_allclose(ghost, exact, rtol=1e-5)
    assert routes_of(apply_fn, variables, x)["w"] == ("direct", "")


@pytest.mark.parametrize("count", [1, 3])
def test_what_vmap_does_not_take_is_looped_over(count):
    def apply_fn(variables, x):
        tokens = x.reshape(-1, 3)
        sizes = jnp.array([2, len(tokens) - 2], jnp.int32)
        found = lax.ragged_dot(tokens, variables["params"]["w"], sizes)
        return jnp.tanh(found).reshape(len(x), -1, 4)

    x, variables = random(0, count, 5, 3), {"params": {"w": random(1, 2, 3, 4)}}
    g = random(2, count, 2, 5, 4)
    wanted = oracle_norms_one_by_one(apply_fn, variables, x, g)
    for found in both(apply_fn, variables, x, g):
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert routes_of(apply_fn, variables, x)["w"][0] == "autodiff"


def oracle_norms_one_by_one(apply_fn, variables, inputs, cotangents):
    def norm(x, g):
        def loss(w):
            return jnp.sum(apply_fn({"params": {"w": w}}, x[None])[0] * g)

        return jnp.sum(jnp.square(jax.grad(loss)(variables["params"]["w"])))

    return np.array(
        [[norm(x, g) for g in gs] for x, gs in zip(inputs, cotangents, strict=True)]
    )


def test_a_layer_whose_output_is_empty_has_no_rule():
    def apply_fn(variables, x):
        p = variables["params"]
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(
            x, p["w"], (1, 1), "VALID", dimension_numbers=numbers
        )
        return y.sum(axis=(1, 2)) + p["b"][None]

    variables = {"params": {"w": random(0, 5, 5, 3, 4), "b": random(1, 4)}}
    x, g = random(2, 2, 3, 3, 3), random(3, 2, 1, 4)
    for found in both(apply_fn, variables, x, g):
        np.testing.assert_allclose(found, np.sum(g**2, axis=2), rtol=1e-5)
