"""Products with curvature, and derivatives along a direction, against dense ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jalpose.influence import products
from jalpose.influence.conjugate_gradients import solve
from jalpose.influence.products import Block
from tests.support import classes, small

COUNT = 11  # two blocks of 8, the second padded
IDS = np.arange(COUNT)
DEVICES = pytest.mark.parametrize("devices", [1, 8])


def apply_fn(variables, rows):
    return classes.NETWORK.apply(variables, rows["image"]).prediction


def cross_entropies(outputs, rows):
    logs = jax.nn.log_softmax(outputs)
    return -jnp.take_along_axis(logs, rows["label"][:, None], axis=1)[:, 0]


@functools.cache
def wide():
    """Variables in float64, small enough that nothing is flat."""
    return jax.tree.map(lambda v: 0.5 * np.asarray(v, np.float64), classes.variables())


@functools.cache
def rows():
    return {
        "image": np.asarray(classes.images(IDS), np.float64),
        "label": classes.dataset().truth["class"][IDS],
    }


def blocks():
    """Padded with rows whose weight is 0: copies of the last."""
    found = []
    for start in (0, 8):
        at = np.minimum(np.arange(start, start + 8), COUNT - 1)
        weights = (np.arange(start, start + 8) < COUNT).astype(np.float64)
        found.append(Block({k: v[at] for k, v in rows().items()}, weights))
    return found


@functools.cache
def dense():
    """Gradients [N, P], Hessian and Gauss-Newton [P, P] of the sum, in float64."""
    variables = dict(wide())
    flat, back = ravel_pytree(variables.pop("params"))

    def outputs(flat):
        return apply_fn({**variables, "params": back(flat)}, rows())

    def losses(flat):
        return cross_entropies(outputs(flat), rows())

    gradients = jax.jacrev(losses)(flat)
    hessian = jax.hessian(lambda flat: losses(flat).sum())(flat)
    jacobian = jax.jacrev(outputs)(flat)  # [N, C, P]
    shares = jax.nn.softmax(outputs(flat))
    bent = jax.vmap(jnp.diag)(shares) - jnp.einsum("nc,nd->ncd", shares, shares)
    gauss_newton = jnp.einsum("ncp,ncd,ndq->pq", jacobian, bent, jacobian)
    return tuple(map(np.asarray, (gradients, hessian, gauss_newton)))


def summed(kind, devices=1):
    return products.summed(small.mesh(devices), apply_fn, cross_entropies, kind)


def direction(seed=0):
    flat, back = ravel_pytree(wide()["params"])
    drawn = np.random.default_rng(seed).normal(size=flat.shape)
    return drawn, back(jnp.asarray(drawn))


@pytest.mark.slow
@DEVICES
def test_the_summed_gradient_is_the_sum_of_each(devices):
    with jax.enable_x64(True):
        found = summed(products.gradient, devices)(wide(), None, blocks())
        found, _ = ravel_pytree(found)
        wanted = dense()[0].sum(axis=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)


@DEVICES
@pytest.mark.parametrize(("name", "place"), [("hessian", 1), ("gauss_newton", 2)])
def test_products_are_those_of_the_dense_matrix(name, place, devices):
    with jax.enable_x64(True):
        drawn, tree = direction()
        found = summed(products.PRODUCTS[name], devices)(wide(), tree, blocks())
        found, _ = ravel_pytree(found)
        wanted = dense()[place] @ drawn
        others = dense()[3 - place] @ drawn
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-8)
    assert np.abs(wanted - others).max() > 1e-3  # the two are not alike here


def test_derivatives_along_a_direction_are_inner_products_of_gradients():
    with jax.enable_x64(True):
        drawn, tree = direction(1)
        whole = {"network": wide(), "direction": tree}
        found = products.along(apply_fn, cross_entropies)(whole, rows())["along"]
        wanted = dense()[0] @ drawn
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "damping"), [("gauss_newton", 2, 1e-2), ("hessian", 1, 10.0)]
)
def test_influence_is_that_of_a_dense_inverse(name, place, damping):
    """v . g with v = (H + damping)^-1 sum_j g_j, all by products, in float64."""
    with jax.enable_x64(True):
        gradients, matrix = dense()[0], dense()[place] / COUNT
        right = gradients.sum(axis=0)
        inverse = np.linalg.inv(matrix + damping * np.eye(len(matrix)))
        wanted = gradients @ inverse @ right
        bend, all_blocks = summed(products.PRODUCTS[name]), blocks()

        def damped(tree):
            found = bend(wide(), tree, all_blocks)
            return jax.tree.map(lambda a, b: a / COUNT + damping * b, found, tree)

        b = summed(products.gradient)(wide(), None, all_blocks)
        solution = solve(damped, b, tolerance=1e-12, steps=300)
        whole = {"network": wide(), "direction": solution.x}
        found = products.along(apply_fn, cross_entropies)(whole, rows())["along"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert (np.linalg.eigvalsh(matrix + damping * np.eye(len(matrix))) > 0).all()
    assert np.linalg.eigvalsh(matrix).min() < 1e-9  # without it there is no inverse
