"""Expected gradient length over what the members of an ensemble say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.pose import egl_ensemble
from jalpose.acquisition.pose.egl_ensemble import EglEnsemble
from jalpose.models.output import Output
from jalpose.pergrad import api
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose import heatmaps
from jalpose.tasks.pose.heatmaps import HeatmapSpec
from tests.acquisition.test_egl import (
    FLAT,
    JOINTS,
    POOL,
    TASK,
    apply,
    choose,
    images,
    network,
)

MEMBERS = 3


def method(**changes):
    return EglEnsemble(**{"members": MEMBERS, "steps": 1, "start": "warm", **changes})


@functools.cache
def ensemble():
    members = {str(k): network(k + 1) for k in range(MEMBERS)}
    return {**network(), "members": members}


SIGMA = TASK.spec.sigma
POSTERIORS = [("window", 1.0), ("normalised", 1.0), ("softmax", 10.0)]


def joints_of(variables, image, posterior="normalised", temperature=1.0):
    maps = FLAT.apply(variables, image[None]).prediction[0, -1]
    return heatmaps.soft_argmax(maps, posterior, temperature, SIGMA).reshape(-1)


@functools.cache
def jacobians(posterior, temperature):
    """Of the 2 J joint coordinates by all parameters: float64 [M, 2 J, P]."""
    variables = network()

    @jax.jit
    def jacobian(params, image):
        return jax.jacrev(
            lambda params: joints_of(
                {**variables, "params": params}, image, posterior, temperature
            )
        )(params)

    found = []
    for image in images():
        leaves = jax.tree.leaves(jacobian(variables["params"], image))
        rows = [np.asarray(leaf, np.float64).reshape(2 * JOINTS, -1) for leaf in leaves]
        found.append(np.concatenate(rows, axis=1))
    return np.array(found)


posterior_of = jax.jit(heatmaps.posterior, static_argnums=(1, 2, 3))


def slow_moments(image, posterior, temperature):
    """f, the members' mu_k, and their covariances Sigma_k [K, 2 J, 2 J]."""
    said, covariances = [], []
    for member in (network(), *ensemble()["members"].values()):
        maps = apply(member, image[None]).prediction[0, -1]
        weights = np.asarray(posterior_of(maps, posterior, temperature, SIGMA))
        mean, covariance = [], np.zeros((2 * JOINTS, 2 * JOINTS))
        for j in range(JOINTS):
            share = weights[..., j].astype(np.float64)
            y, x = np.indices(share.shape)
            at = np.stack([x.ravel(), y.ravel()], axis=1)
            centre = share.ravel() @ at
            spread = (share.ravel()[:, None] * (at - centre)).T @ (at - centre)
            covariance[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = spread
            mean.append(centre)
        said.append(np.concatenate(mean))
        covariances.append(covariance)
    return said[0], np.array(said[1:]), np.array(covariances[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("posterior", "temperature"),
    [("window", 1.0), ("normalised", 1.0), ("softmax", 5.0)],
)
def test_joints_are_the_soft_argmax_and_the_covariance_that_of_the_posterior(
    posterior, temperature
):
    maps = np.random.default_rng(0).normal(0, 10, (5, 2, 8, 8, 3)).astype(np.float32)
    output = Output(maps, np.zeros((5, 2), np.float32))
    fn = jax.jit(egl_ensemble.mean_joints(posterior, temperature, 8.0))
    found = fn(output, jax.random.key(3))
    covariances = []
    for k, maps in enumerate(output.prediction[:, -1]):
        joints = heatmaps.soft_argmax(maps, posterior, temperature, 8.0)
        np.testing.assert_allclose(found["joints"][k], joints, rtol=1e-4)
        weights = np.asarray(heatmaps.posterior(maps, posterior, temperature, 8.0))
        y, x = np.indices((8, 8))
        for j in range(3):
            share = weights[..., j].ravel()
            at = np.stack([x.ravel(), y.ravel()])
            covariances.append(np.cov(at, aweights=share, ddof=0))
    wanted = np.reshape(covariances, (5, 3, 2, 2)).mean(axis=0)
    np.testing.assert_allclose(found["covariance"], wanted, rtol=1e-3, atol=1e-4)


def without_blur(covariance, blur):
    """Covariances of the joints less that of a label, no direction below nothing."""
    left = np.zeros_like(covariance)
    for j in range(JOINTS):
        block = slice(2 * j, 2 * j + 2)
        values, vectors = np.linalg.eigh(covariance[block, block] - blur * np.eye(2))
        left[block, block] = vectors * np.maximum(values, 0) @ vectors.T
    return left


@pytest.mark.slow
@pytest.mark.parametrize(("posterior", "temperature"), POSTERIORS)
@pytest.mark.parametrize("variance", [False, True])
def test_the_score_is_equation_10_for_vectors(variance, posterior, temperature):
    wanted = []
    blur = egl_ensemble.blur_of_labels(TASK.spec, posterior, temperature)[0, 0]
    for image, jacobian in zip(
        images(), jacobians(posterior, temperature), strict=True
    ):
        said, members, covariances = slow_moments(image, posterior, temperature)
        away = members - said
        matrix = away.T @ away / MEMBERS
        if variance:
            matrix += without_blur(covariances.mean(axis=0), blur)
        wanted.append(np.trace(jacobian @ jacobian.T @ matrix))
    options = {"posterior": posterior, "temperature": temperature}
    found = choose(method(variance=variance, **options), ensemble())
    np.testing.assert_allclose(found.scores, wanted, rtol=2e-3)
    order = np.argsort(-np.array(wanted), kind="stable")[:2]
    assert found.indices.tolist() == POOL[order].tolist()


@pytest.mark.slow
def test_the_form_of_cai_is_the_mean_of_the_norms():
    wanted, apart = [], []
    for image, jacobian in zip(images(), jacobians("window", 1.0), strict=True):
        said, members, _ = slow_moments(image, "window", 1.0)
        wanted.append(np.linalg.norm((members - said) @ jacobian, axis=1).mean())
        apart.append(members.reshape(MEMBERS, JOINTS, 2).var(axis=0).sum(axis=1))
    found = choose(method(form="cai"), ensemble())
    np.testing.assert_allclose(found.scores, wanted, rtol=2e-3)
    variance = found.explanation["joint_variance"]
    np.testing.assert_allclose(variance, apart, rtol=1e-3, atol=1e-6)
    # Jensen: the mean square is no less than the square of the mean.
    trace = choose(method(), ensemble())
    assert (trace.scores >= 0.999 * found.scores**2).all()


def test_members_that_agree_with_the_network_score_zero():
    same = {**network(), "members": {str(k): network() for k in range(MEMBERS)}}
    found = choose(method(variance=False), same)
    usual = choose(method(variance=False), ensemble())
    assert (found.scores < 1e-6 * usual.scores).all()


@pytest.mark.slow
def test_a_perfect_heatmap_has_no_variance_of_its_own():
    spec = HeatmapSpec(256, 64, 1.75, 30.0)
    shares = {"normalised": 1.75**2, "window": 3.01}  # cut off 5 pixels away
    for posterior, wanted in shares.items():
        blur = egl_ensemble.blur_of_labels(spec, posterior, 1.0)
        np.testing.assert_allclose(blur, wanted * np.eye(2), rtol=0.01)
    # Perfect maps, of joints between pixels too, and one of twice the width.
    joints = jnp.array([[101.5, 81.5], [103.0, 84.5], [127.5, 127.5]])
    maps = spec.render(joints, jnp.ones(3, bool))
    wide = spec._replace(sigma=2.5).render(joints[:1], jnp.ones(1, bool))
    maps = jnp.concatenate([maps, wide], axis=-1)
    output = Output(jnp.stack([maps[None]] * 2), jnp.zeros((2, 1)))
    said = egl_ensemble.mean_joints("window", 1.0, 1.75)(output, None)
    own = np.asarray(said["covariance"]) - egl_ensemble.blur_of_labels(
        spec, "window", 1.0
    )
    left = np.square(egl_ensemble.directions(own[None])[0]).sum(axis=(0, 2))
    assert (left[:3] < 0.1).all() and left[3] > 2


def test_directions_are_a_square_root_of_the_covariance():
    draws = np.random.default_rng(0)
    roots = draws.normal(size=(5, JOINTS, 2, 2))
    roots[0, 0, :, 1] = 0  # of rank one
    roots[1, 1] = 0  # none at all
    covariance = roots @ roots.swapaxes(-1, -2)
    found = egl_ensemble.directions(covariance).reshape(5, 2 * JOINTS, 2 * JOINTS)
    blocks = np.zeros((5, 2 * JOINTS, 2 * JOINTS))
    for j in range(JOINTS):
        blocks[:, 2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = covariance[:, j]
    products = np.einsum("mda,mdb->mab", found, found)
    np.testing.assert_allclose(products, blocks, rtol=1e-4, atol=1e-6)


# Linear regression, where everything is known: theory, section 2. Of the two pixels
# of a map, the second has the share theta.x: that is the soft-argmax's x, its y is 0.


def linear(variables, inputs):
    share = inputs @ variables["params"]
    maps = jnp.stack([1 - share, share], axis=-1)
    return maps[:, None, None, :, None]  # [B, S, h, w, J]


def lengths(theta, x, members, variance=0.0):
    """Squared norms of the gradients for each member's label, and for the variance."""
    aims = np.zeros((1, len(members), 1, 2), np.float32)
    aims[0, :, 0, 0] = members
    spread = np.zeros((1, 1, 2, 2))
    spread[..., 0, 0] = variance
    aims = np.concatenate([aims, egl_ensemble.directions(spread)], axis=1)
    targets = egl_ensemble.aims_and_moves(len(members))
    loss_fn = egl_ensemble.distance_loss("normalised", 1.0, 1.75)

    @jax.jit
    def total(theta, x, aims):
        labels = jax.vmap(lambda aims: targets({"aims": aims}))(aims)
        variables = {"params": theta}
        return api.squared_norms("exact", linear, loss_fn, variables, x, labels).total

    arguments = (np.asarray(part, np.float32) for part in (theta, x[None], aims))
    norms = np.asarray(total(*arguments)[0], np.float64)
    return norms[: len(members)], norms[len(members) :]


def equation_10(*arguments):
    each, spread = lengths(*arguments)
    return each.mean() + spread.sum()


def equation_2(*arguments):
    each, _ = lengths(*arguments)
    return np.sqrt(each).mean()


X, SAID = np.array([1.0, 2.0, -1.0]), 0.5
THETA = SAID * X / (X @ X)


def test_the_worked_example_of_linear_regression():
    mu, s = np.array([0.2, 0.7, 1.1]), np.array([0.3, 0.5, 0.4])
    found = equation_10(THETA, X, mu, np.mean(s**2))
    assert found == pytest.approx(1.98, rel=1e-5)
    assert equation_10(THETA, X, mu) == pytest.approx(0.98, rel=1e-5)
    assert equation_2(THETA, X, mu) == pytest.approx(0.898146, rel=1e-5)


def test_equation_2_can_order_two_examples_the_other_way():
    x = np.array([0.6, 0.8, 0.0])  # of length one
    theta = SAID * x
    first = SAID - np.array([0.5, -0.5, 0.5, -0.5])
    second = SAID - np.array([0.0, 0.0, 0.0, 1.2])
    for form, wanted in ((equation_2, (0.5, 0.3)), (equation_10, (0.25, 0.36))):
        found = form(theta, x, first), form(theta, x, second)
        assert found == pytest.approx(wanted, rel=1e-5)


def test_for_one_output_it_is_the_variance_and_the_bias_times_the_gradient():
    draws = np.random.default_rng(0)
    for count in (1, 5):
        x, s = draws.normal(size=3), draws.random(count)
        theta = draws.uniform(0.2, 0.8) * x / (x @ x)
        mu = draws.normal(0.5, 1, count)
        predictive = np.mean(s**2) + np.var(mu)
        bias = mu.mean() - theta @ x
        wanted = (x @ x) * (predictive + bias**2)
        found = equation_10(theta, x, mu, np.mean(s**2))
        assert found == pytest.approx(wanted, rel=1e-4)


# Options.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 1}, r"egl_ensemble\.members=1 must be at least 2"),
        ({"steps": 0}, r"egl_ensemble\.steps=0 must be at least 1"),
        ({"form": "sum"}, r"egl_ensemble\.form: 'sum'\. Known: trace, cai"),
        ({"start": "cold"}, r"egl_ensemble\.start: 'cold'\. Known: warm, fresh"),
        ({"posterior": "max"}, r"egl_ensemble\.posterior: 'max'\. .*window, norm"),
        ({"temperature": 0.0}, r"egl_ensemble\.temperature=0\.0 must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.{message}"):
        method(**changes)


def test_only_the_form_of_cai_needs_each_norm():
    for form, needed in (("trace", False), ("cai", True)):
        found = method(form=form).needs(TASK)
        assert found.each_norm is needed and found.members.count == MEMBERS
