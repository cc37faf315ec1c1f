"""EGL for regression: identities, check values, draws and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.parts import expected_gradients as eg
from jalpose.theory import two_sides


def drawn(draws, rows=7, members=5):
    return (
        draws.random(rows) * 4,
        draws.normal(size=rows),
        draws.normal(size=(rows, members)),
        draws.random((rows, members)),
    )


@pytest.mark.parametrize("members", range(1, 9))
def test_egl_is_the_norm_times_variance_and_bias(members):
    draws = np.random.default_rng(members)
    for _ in range(20):
        norms, said, means, variances = drawn(draws, members=members)
        egl = eg.expected_squared(norms, said, means, variances)
        both = eg.predictive_variance(means, variances) + eg.squared_bias(said, means)
        np.testing.assert_allclose(egl, norms * both, rtol=1e-12)
        centred = eg.expected_squared(norms, means.mean(axis=1), means, variances)
        np.testing.assert_allclose(
            centred, norms * eg.predictive_variance(means, variances), rtol=1e-12
        )


def test_eq_11_as_the_paper_has_it():
    _, _, means, variances = drawn(np.random.default_rng(0))
    printed = variances.mean(1) + (means**2).mean(1) - means.mean(1) ** 2
    np.testing.assert_allclose(
        eg.predictive_variance(means, variances), printed, rtol=1e-12
    )


def test_cai_is_at_most_egl_without_variances():
    norms, said, means, variances = drawn(np.random.default_rng(1))
    plain = eg.expected_squared(norms, said, means, 0 * variances)
    assert np.all(plain >= eg.expected_change(norms, said, means) ** 2)
    one = means[:, :1]
    np.testing.assert_allclose(
        eg.expected_squared(norms, said, one, 0 * one),
        eg.expected_change(norms, said, one) ** 2,
        rtol=1e-12,
    )


def test_check_values():
    three = two_sides.three_models()
    known = [1.98, 0.898146239, 0.98, 0.302222222, 0.027777778]
    np.testing.assert_allclose(list(three.values()), known, atol=1e-6)
    np.testing.assert_allclose(
        list(two_sides.flipped().values()), [0.5, 0.3, 0.25, 0.36], atol=1e-6
    )
    side = two_sides.three_processes()
    np.testing.assert_allclose(side.egl, [0.139768, 1.176432, 2.715508], atol=1e-6)
    np.testing.assert_allclose(side.variance, [0.340506, 0.597388, 0.942010], atol=1e-6)
    np.testing.assert_allclose(side.bias, [0.002126, 0.591059, 1.788827], atol=1e-6)


def test_labels_drawn_have_that_expectation():
    """Whatever the labels' distribution: only two moments count."""
    draws, count = np.random.default_rng(2), 200_000
    x, said = np.array([1.0, 2.0, -1.0]), 0.5
    means, sds = np.array([0.2, 0.7, 1.1]), np.array([0.3, 0.5, 0.4])
    for shape in (
        draws.normal(size=(count, 3)),
        draws.laplace(scale=np.sqrt(0.5), size=(count, 3)),
        draws.choice([-1.0, 1.0], size=(count, 3)),
    ):
        squares = (x @ x) * (said - (means + sds * shape)) ** 2
        error = np.sqrt((squares.var(axis=0) / count).sum()) / 3
        assert abs(squares.mean() - 1.98) < 5 * error


def test_eq_10_is_the_expected_squared_gradient_of_a_network():
    """Gauss-Hermite with three nodes is exact: the square is quadratic in the label."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    with jax.enable_x64(True):
        draws = np.random.default_rng(3)
        params = [jnp.array(draws.normal(size=s)) for s in ((3, 4), (4,), (4,))]

        def network(params, x):
            return jnp.tanh(x @ params[0] + params[1]) @ params[2]

        def loss(params, x, y):
            return 0.5 * jnp.square(y - network(params, x))

        def squared(tree):
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))

        x = jnp.array(draws.normal(size=3))
        means, sds = draws.normal(size=4), draws.random(4)
        by_nodes = np.mean(
            [
                sum(
                    w * squared(jax.grad(loss)(params, x, m + s * z))
                    for w, z in zip(weights, nodes, strict=True)
                )
                for m, s in zip(means, sds, strict=True)
            ]
        )
        norm = float(squared(jax.grad(network)(params, x)))
        said = float(network(params, x))
    egl = eg.expected_squared([norm], [said], means[None], sds[None] ** 2)
    np.testing.assert_allclose(egl, by_nodes, rtol=1e-12)


def test_scale_and_shift():
    norms, said, means, variances = drawn(np.random.default_rng(4))
    egl = eg.expected_squared(norms, said, means, variances)
    moved = eg.expected_squared(norms, said + 3, means + 3, variances)
    scaled = eg.expected_squared(norms, 2 * said, 2 * means, 4 * variances)
    np.testing.assert_allclose(moved, egl, rtol=1e-12)
    np.testing.assert_allclose(scaled, 4 * egl, rtol=1e-12)
