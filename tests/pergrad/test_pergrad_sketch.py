"""The engine `sketch`: the expectation over the candidates from a few passes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.pergrad import api
from jalpose.pergrad.api import Engine
from tests.support.networks import (
    Net,
    expected_norm,
    norms_of,
    random,
    square_loss,
    targets_for,
    variables_of,
)

B, K = 3, 6


def body(module, x):
    """A convolution, and a head of few parameters."""
    x = jnp.tanh(nn.Conv(4, (3, 3), 2, name="conv")(x))
    return nn.Conv(2, (1, 1), name="head")(x)


NET = Net(body)
INPUTS = random(0, B, 6, 6, 2)
VARIABLES = variables_of(NET, INPUTS)
TARGETS = 0.5 + targets_for(NET.apply, VARIABLES, INPUTS, K)  # a mean apart from zero


# With all arrays as arguments: of constants they would be computed by the compiler.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def compiled(engine, loss_fn, by_tensor, keys, *arrays):
    return api.expected_squared_norm(
        engine, NET.apply, loss_fn, *arrays, keys=keys, by_tensor=by_tensor
    )


def expected(engine, weights, keys=None, loss_fn=square_loss, by_tensor=False):
    arrays = VARIABLES, INPUTS, TARGETS, weights
    return compiled(engine, loss_fn, by_tensor, keys, *arrays)


def weights_with_zeros():
    weights = np.random.default_rng(2).random((B, K)).astype(np.float32)
    weights[0, [1, 4]] = weights[1, 2:] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return weights * np.float32([[1], [1], [3]])  # they need not sum to one


WEIGHTS = weights_with_zeros()


@functools.cache
def exact():
    return jax.device_get(expected("exact", WEIGHTS, by_tensor=True))


# As many passes as candidates.


@pytest.mark.parametrize("split_mean", [True, False])
def test_with_a_pass_for_each_candidate_it_is_exact(split_mean):
    engine = Engine("sketch", passes=K, split_mean=split_mean)
    found = expected(engine, WEIGHTS, by_tensor=True)
    assert found.total.shape == (B,) and found.standard_error is None
    np.testing.assert_allclose(found.total, exact().total, rtol=1e-4)
    jax.tree.map(
        lambda ours, wanted: np.testing.assert_allclose(ours, wanted, rtol=1e-4),
        found.by_tensor,
        exact().by_tensor,
    )


def test_more_passes_than_candidates_are_not_taken():
    engine = Engine("sketch", passes=K + 5, remainder=4)
    keys = jax.random.split(jax.random.key(0), B)
    found = expected(engine, WEIGHTS, keys)
    np.testing.assert_allclose(found.total, exact().total, rtol=1e-4)
    assert found.standard_error is None  # nothing is drawn


@pytest.mark.parametrize("split_mean", [True, False])
def test_weights_of_zero_have_an_expectation_of_zero(split_mean):
    engine = Engine("sketch", passes=K, split_mean=split_mean)
    weights = WEIGHTS.copy()
    weights[1] = 0
    found = expected(engine, weights).total
    assert found[1] == 0
    np.testing.assert_allclose(found[::2], exact().total[::2], rtol=1e-4)


def test_the_loss_need_not_be_quadratic():
    def cross_entropy(logits, target):
        logs = jax.nn.log_softmax(logits.reshape(-1))
        return -jnp.sum(jax.nn.softmax(target.reshape(-1)) * logs)

    wanted = expected("exact", WEIGHTS, loss_fn=cross_entropy).total
    found = expected(Engine("sketch", passes=K), WEIGHTS, loss_fn=cross_entropy).total
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_network_that_ends_in_a_reciprocal_is_exact_too():
    # What is last is not linear: 1 / x of zeros must not come into the metric.
    def apply_fn(variables, x):
        return 1 / (x @ variables["params"]["w"])

    variables = {"params": {"w": 2 + random(0, 4, 3)}}
    x, targets = 1 + random(1, 2, 4) ** 2, random(2, 2, 3, 3)
    weights = np.full((2, 3), 1 / 3, np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def norms(engine, *arrays):
        return api.expected_squared_norm(engine, apply_fn, square_loss, *arrays).total

    arrays = variables, x, targets, weights
    found, wanted = norms(Engine("sketch", passes=3), *arrays), norms("exact", *arrays)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


# Fewer passes.


@pytest.mark.slow
@pytest.mark.parametrize("split_mean", [True, False])
def test_it_grows_with_the_passes_and_stays_below_the_exact(split_mean):
    options = {"split_mean": split_mean, "extrapolate": False}
    totals = [
        expected(Engine("sketch", passes=passes, **options), WEIGHTS).total
        for passes in (1, 2, 4)
    ]
    totals = np.stack([*totals, exact().total])  # [4, B]
    assert (np.diff(totals, axis=0) >= -1e-5 * totals[-1]).all()
    # The directions are well chosen; some of the norm is beyond the first.
    assert (totals[2] > 0.9 * totals[-1]).all()
    assert (totals[0] < 0.99 * totals[-1]).all()


def test_the_first_pass_is_the_gradient_of_the_mean():
    # The loss is quadratic: the mean gradient is that of the mean target. It counts
    # with the sum of the weights.
    found = expected(Engine("sketch", passes=1), WEIGHTS).total
    mass = WEIGHTS.sum(axis=1)
    sums = np.einsum("bk,bkhwc->bhwc", WEIGHTS, TARGETS)
    mean = (sums / mass[:, None, None, None])[:, None]
    (wanted,) = norms_of(("exact",), NET.apply, VARIABLES, INPUTS, mean)
    np.testing.assert_allclose(found, mass * wanted.total[:, 0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("passes", "split_mean"), [(2, True), (3, False)])
def test_extrapolation_is_exact_where_the_last_layer_is_all_there_is(
    passes, split_mean
):
    net = Net(lambda m, x: nn.Conv(2, (1, 1), 2, name="head")(x))
    variables = variables_of(net, INPUTS)
    found, wanted, bound = (
        expected_norm(engine, net.apply, variables, INPUTS, TARGETS, WEIGHTS).total
        for engine in (
            Engine("sketch", passes=passes, split_mean=split_mean),
            Engine("exact"),
            Engine("sketch", passes=passes, split_mean=split_mean, extrapolate=False),
        )
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert (bound[0] < 0.999 * wanted[0]) or passes > 2  # there is something to add


def test_extrapolation_brings_the_estimate_nearer():
    def error(**options):
        found = expected(Engine("sketch", passes=2, **options), WEIGHTS, by_tensor=True)
        tensors = sum(jax.tree.leaves(found.by_tensor))
        np.testing.assert_allclose(tensors, found.total, rtol=1e-5)
        return np.abs(found.total / exact().total - 1).mean()

    assert error() < 0.7 * error(extrapolate=False)


@pytest.mark.parametrize("microbatch", [2, 4])
def test_a_microbatch_changes_nothing(microbatch):
    whole = expected(Engine("sketch", passes=3), WEIGHTS).total
    engine = Engine("sketch", passes=3, microbatch=microbatch)
    np.testing.assert_allclose(expected(engine, WEIGHTS).total, whole, rtol=1e-5)


# Keys, and what cannot be asked.


def test_signs_belong_to_their_keys():
    engine = Engine("sketch", passes=3, remainder=2)
    keys = jax.random.split(jax.random.key(1), B)
    found = np.asarray(expected(engine, WEIGHTS, keys).total)
    np.testing.assert_array_equal(expected(engine, WEIGHTS, keys).total, found)
    other = expected(engine, WEIGHTS, keys[::-1]).total
    assert other[0] != found[0] and other[1] == found[1]


def test_single_norms_cannot_be_had():
    with pytest.raises(ValueError, match=r"sketch computes the expectation .* ghost"):
        api.squared_norms("sketch", NET.apply, square_loss, VARIABLES, INPUTS, TARGETS)


def test_signs_need_keys():
    with pytest.raises(ValueError, match="give keys, one an example"):
        expected(Engine("sketch", remainder=1), WEIGHTS)
