"""Pooling, starting weights and normalisation that networks share."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.models.layers import (
    batch_norm,
    bias_init,
    max_pool,
    max_pool_overlapping,
    normalised,
)

# Pooling.


def pooled_and_gradient(pool, x, weights):
    def loss(x):
        y = pool(x)
        return jnp.sum(weights * y), y

    (_, y), gradient = jax.value_and_grad(loss, has_aux=True)(x)
    return y, gradient


USUAL = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
OVERLAPPING = functools.partial(
    nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
)


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize(
    ("pool", "usual", "size"),
    [
        (max_pool, USUAL, (6, 8)),
        (max_pool_overlapping, OVERLAPPING, (6, 8)),
        (max_pool_overlapping, OVERLAPPING, (7, 5)),
    ],
)
def test_pools_are_the_usual_ones_in_value_and_gradient(pool, usual, size, levels):
    # With one level all are equal, with three most windows have ties.
    rng = np.random.default_rng(2)
    x = rng.integers(-levels, 1, (2, *size, 5)).astype(np.float32)
    weights = rng.normal(size=(2, -(-size[0] // 2), -(-size[1] // 2), 5))

    @jax.jit
    def run(x, weights):
        return [pooled_and_gradient(pool, x, weights) for pool in (pool, usual)]

    (y, gradient), (expected, expected_gradient) = run(x, np.float32(weights))
    np.testing.assert_array_equal(y, expected)
    # Where windows overlap, a pixel's gradient is a sum.
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_the_gradient_of_max_pool_goes_to_the_first_of_equals():
    # One window a channel, in reading order.
    rows = np.array(
        [[3, 3, 3, 3], [1, 2, 2, 0], [0, 1, 0, 1], [0, 0, 2, 2]], np.float32
    )
    x = rows.T.reshape(1, 2, 2, 4)
    weights = np.ones((1, 1, 1, 4), np.float32)
    _, gradient = jax.jit(functools.partial(pooled_and_gradient, max_pool))(x, weights)
    first = np.asarray(gradient).reshape(4, 4).T.argmax(axis=1)
    assert first.tolist() == [0, 1, 1, 2]
    assert np.asarray(gradient).sum() == 4


@pytest.mark.parametrize("where", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_max_pool_keeps_nan(where):
    x = np.ones((1, 2, 2, 1), np.float32)
    x[0, *where, 0] = np.nan
    for pool in (max_pool, max_pool_overlapping):
        assert np.isnan(jax.jit(pool)(x)).all()


# Starting weights, batch norm, normalisation.


def test_biases_start_as_pytorchs():
    drawn = np.asarray(bias_init(25)(jax.random.key(0), (4000,)))
    assert drawn.dtype == np.float32
    assert 0.199 < np.abs(drawn).max() <= 0.2  # 1 / sqrt(25)
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.03)


def test_batch_norm_keeps_nine_tenths_of_its_statistics():
    norm = batch_norm(True, jnp.float32, "norm")
    x = np.random.default_rng(0).normal(3, 2, (5, 4)).astype(np.float32)
    stats = {"mean": np.full(4, 7, np.float32), "var": np.full(4, 2, np.float32)}
    weights = {"scale": np.full(4, 3, np.float32), "bias": np.ones(4, np.float32)}
    variables = {"params": weights, "batch_stats": stats}
    y, changed = norm.apply(variables, x, mutable=["batch_stats"])
    wanted = 3 * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5) + 1
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)
    moved = changed["batch_stats"]
    np.testing.assert_allclose(moved["mean"], 6.3 + 0.1 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moved["var"], 1.8 + 0.1 * x.var(axis=0), rtol=1e-4)


def test_images_are_normalised_by_channel_or_not_at_all():
    images = np.random.default_rng(0).random((2, 3, 3, 3), np.float32)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.5)
    wanted = (images - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalised(images, mean, std), wanted, rtol=1e-5)
    assert normalised(images, (), ()) is images
