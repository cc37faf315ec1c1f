"""Conjugate gradients against a direct solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.influence.conjugate_gradients import CurvatureError, inner, norm, solve


def matrix(size, least=0.1, seed=0):
    """Symmetric, with eigenvalues from `least` on."""
    draws = np.random.default_rng(seed)
    basis = np.linalg.qr(draws.normal(size=(size, size)))[0]
    return basis * np.linspace(least, 5, size) @ basis.T


def as_tree(values):
    """A vector of 12 as a tree of two arrays."""
    return {"a": values[:5], "b": {"c": values[5:].reshape(7, 1)}}


def as_vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def product_of(dense):
    def product(tree):
        leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
        return as_tree(jnp.asarray(dense) @ jnp.concatenate(leaves))

    return product


@pytest.mark.parametrize("seed", range(3))
def test_it_is_numpys_solution(seed):
    with jax.enable_x64(True):
        dense, b = matrix(12, seed=seed), np.random.default_rng(seed).normal(size=12)
        told = []
        found = solve(
            product_of(dense),
            as_tree(jnp.asarray(b)),
            tolerance=1e-12,
            steps=100,
            progress=lambda *both: told.append(both),
        )
        x = as_vector(found.x)
    np.testing.assert_allclose(x, np.linalg.solve(dense, b), rtol=1e-8)
    assert found.steps <= 14 and found.residual <= 1e-12
    assert told[-1] == (found.steps, found.residual)


def test_after_fewer_steps_the_residual_says_what_is_left():
    with jax.enable_x64(True):
        dense, b = matrix(12), np.random.default_rng(0).normal(size=12)
        found = solve(
            product_of(dense), as_tree(jnp.asarray(b)), tolerance=1e-12, steps=4
        )
        x = as_vector(found.x)
    left = np.linalg.norm(b - dense @ x) / np.linalg.norm(b)
    assert found.steps == 4 and found.residual == pytest.approx(left) and left > 1e-4


def test_of_nothing_there_is_nothing_to_solve():
    found = solve(
        product_of(matrix(12)), as_tree(jnp.zeros(12)), tolerance=0.1, steps=3
    )
    assert (found.steps, found.residual) == (0, 0.0)
    assert not as_vector(found.x).any()


def test_a_matrix_that_is_not_positive_definite_is_said_with_its_curvature():
    dense = np.diag(np.r_[np.full(11, 1.0), -0.25]).astype(np.float32)
    b = np.r_[np.zeros(11), 1.0].astype(np.float32)
    with pytest.raises(CurvatureError, match=r"curvature -0\.25") as caught:
        solve(product_of(dense), as_tree(jnp.asarray(b)), tolerance=1e-3, steps=20)
    assert caught.value.curvature == pytest.approx(-0.25)


def test_a_product_that_is_not_finite_is_an_error():
    b = as_tree(jnp.ones(12))
    with pytest.raises(FloatingPointError, match="product of step 1"):
        solve(
            lambda tree: jax.tree.map(lambda v: v * np.nan, tree),
            b,
            tolerance=0.1,
            steps=2,
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_a_right_hand_side_without_a_length_is_an_error(value):
    b = as_tree(jnp.ones(12).at[3].set(value))
    with pytest.raises(FloatingPointError, match="right-hand side"):
        solve(lambda tree: tree, b, tolerance=0.1, steps=2)


def test_norms_and_inner_products_are_of_all_arrays_together():
    one, other = (np.random.default_rng(n).normal(size=12) for n in (0, 1))
    trees = as_tree(jnp.float32(one)), as_tree(jnp.float32(other))
    assert inner(*trees) == pytest.approx(one @ other, rel=1e-5)
    assert norm(trees[0]) == pytest.approx(np.linalg.norm(one), rel=1e-6)
