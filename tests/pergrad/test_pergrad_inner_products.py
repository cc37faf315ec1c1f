"""Inner products of gradients, against the gradients."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jalpose.pergrad import api
from tests.support.gradients import NETWORKS, B, case, each_gradient, flat
from tests.support.networks import random, square_loss

K = 2


def products(apply_fn, *arrays, **options):
    @jax.jit
    def run(*arrays):
        return api.inner_products(apply_fn, square_loss, *arrays, **options)

    return run(*arrays)


def assert_products(found, left, right, rtol=1e-5):
    wanted = np.einsum("bkn,cln->bkcl", left, right)
    sizes = [np.linalg.norm(rows, axis=-1) for rows in (left, right)]
    scale = np.einsum("bk,cl->bkcl", *sizes)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found / scale, wanted / scale, atol=rtol)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_all_pairs_of_a_set_with_itself(name):
    arguments = case(name, K)
    rows = flat(each_gradient(*arguments))
    assert_products(products(*arguments, block=3), rows, rows)


def linear(variables, x):
    return jnp.tanh(x @ variables["params"]["w"])


PARAMS = {"params": {"w": random(0, 5, 3), "steps": np.arange(2)}}


def gradients(inputs, targets):
    """[b, k, n] by hand."""
    made = np.tanh(inputs @ PARAMS["params"]["w"])[:, None]
    slopes = (made - targets) * (1 - made**2)
    rows = np.einsum("bi,bkj->bkij", inputs, slopes)
    return rows.reshape(*rows.shape[:2], -1).astype(float)


@pytest.mark.parametrize("block", [1, 2, 5, 100])
def test_two_sets_in_blocks_of_any_size(block):
    first, second = (random(1, 5, 5), random(2, 5, K, 3)), (random(3, 3, 5),)
    second = (*second, random(4, 3, 1, 3))
    found = products(linear, PARAMS, *first, *second, block=block)
    assert_products(found, gradients(*first), gradients(*second))


def test_the_diagonal_is_the_squared_norm():
    arrays = random(1, B, 5), random(2, B, 1, 3)
    found = products(linear, PARAMS, *arrays)[:, 0, :, 0]
    norms = jax.jit(
        lambda *arrays: api.squared_norms("ghost", linear, square_loss, *arrays).total
    )(PARAMS, *arrays)
    np.testing.assert_allclose(np.diag(found), norms[:, 0], rtol=1e-5)


def test_padding_has_zeros_and_nan_stays_in_its_row():
    inputs, targets = random(1, B, 5), random(2, B, 1, 3)
    rows = gradients(inputs, targets)
    inputs[1] = np.nan
    found = np.asarray(products(linear, PARAMS, inputs, targets))[:, 0, :, 0]
    whole = (rows[:, 0] @ rows[:, 0].T)[[0, 2, 3]][:, [0, 2, 3]]
    np.testing.assert_allclose(found[[0, 2, 3]][:, [0, 2, 3]], whole, rtol=1e-4)
    assert np.isnan(found[1]).all() and np.isnan(found[:, 1]).all()
    mask = np.array([True, False, True, True])
    found = np.asarray(products(linear, PARAMS, inputs, targets, mask=mask))
    assert not found[1].any() and not found[:, :, 1].any()
    np.testing.assert_allclose(found[mask][:, 0, mask, 0], whole, rtol=1e-4)


def test_in_float64_to_nine_digits():
    with jax.enable_x64(True):
        draws = np.random.default_rng(0)
        inputs, targets = draws.normal(size=(B, 5)), draws.normal(size=(B, K, 3))
        variables = jax.tree.map(
            lambda x: x.astype(float) if x.dtype == np.float32 else x, PARAMS
        )
        found = products(linear, variables, inputs, targets)
        rows = gradients(inputs, targets)
        assert_products(found, rows, rows, rtol=1e-12)


def test_complex_gradients_have_real_products():
    params = {"params": {"w": random(0, 4) + 1j * random(1, 4)}}

    def apply_fn(variables, x):
        return jnp.abs(x @ variables["params"]["w"])

    arrays = params, random(2, B, 4), random(3, B, 1)
    found = products(apply_fn, *arrays)[:, 0, :, 0]
    norms = api.squared_norms("exact", apply_fn, square_loss, *arrays).total[:, 0]
    np.testing.assert_allclose(np.diag(found), norms, rtol=1e-5)


def test_mistakes_are_named(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    call = functools.partial(api.inner_products, linear, square_loss, PARAMS)
    inputs, targets = random(1, B, 5), random(2, B, 1, 3)
    for options, message in (
        ({"block": 0}, "block=0 must be at least 1"),
        ({"other_inputs": inputs}, "other_inputs and other_targets, or neither"),
        ({"other_mask": np.ones(B, bool)}, "other_mask is of other_inputs"),
        ({"mask": np.ones(2, bool)}, r"mask must be \[4\] booleans"),
        (
            {"other_inputs": inputs, "other_targets": targets[:3]},
            r"must be \[B, K, \.\.\.\]",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call(inputs, targets, **options)
