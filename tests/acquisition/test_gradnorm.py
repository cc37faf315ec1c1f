"""Expected-gradnorm and entropy-gradnorm: one function, against a slow oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.entropy_gradnorm import EntropyGradnorm, entropy_loss
from jalpose.acquisition.expected_gradnorm import ExpectedGradnorm, expected_loss
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose import heatmaps
from jalpose.training.trainer import scale_images
from tests.support import small

POOL = np.arange(40, 46)
# A posterior and its temperature; Flat's maps are in the tens.
POSTERIORS = pytest.mark.parametrize(
    ("posterior", "temperature"),
    [("window", 1.0), ("normalised", 1.0), ("softmax", 1.0), ("softmax", 20.0)],
)


@functools.cache
def losses_of(posterior, temperature):
    """Attached, detached, entropy, each with its gradient.

    Without the target they do not look at.
    """
    found = (
        expected_loss(small.TASK, posterior, temperature, True),
        expected_loss(small.TASK, posterior, temperature, False),
        entropy_loss(small.TASK, posterior, temperature),
    )
    found = [functools.partial(loss, target=None) for loss in found]
    return [jax.jit(jax.value_and_grad(loss)) for loss in found]


def random_maps(seed=0):
    draws = np.random.default_rng(seed)
    return draws.normal(0, 10, (2, 8, 8, 14)).astype(np.float32)


def probe(engine="exact", variables=None):
    variables = small.flat_variables() if variables is None else variables
    return small.probe(small.flat_passes(), variables, engine=engine, microbatch=8)


def choose(method, engine="exact", **given):
    walker = probe(engine, **given)
    return method.acquire(jax.random.key(0), walker, small.pool(POOL), 3)


# Equations 6 and 7.


@POSTERIORS
def test_attached_the_expected_loss_is_the_entropy(posterior, temperature):
    attached, _, entropy = losses_of(posterior, temperature)
    for seed in range(3):
        maps = random_maps(seed)
        value, gradient = attached(maps)
        wanted, wanted_gradient = entropy(maps)
        assert value == pytest.approx(float(wanted), rel=1e-6) and value > 0
        np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-5, atol=1e-9)
        assert np.abs(gradient).max() > 1e-5


@POSTERIORS
def test_detached_its_gradient_is_nothing(posterior, temperature):
    attached, detached, _ = losses_of(posterior, temperature)
    for seed in range(3):
        maps = random_maps(seed)
        value, gradient = detached(maps)
        wanted, attached_gradient = attached(maps)
        assert value == pytest.approx(float(wanted), rel=1e-6)
        # The sum of the probabilities is one: sum_i P_i grad P_i / P_i = 0.
        size = np.abs(attached_gradient).max()
        assert np.abs(gradient).max() < 1e-4 * size


@pytest.mark.slow
@POSTERIORS
def test_both_methods_score_alike(posterior, temperature):
    options = {"posterior": posterior, "temperature": temperature}
    one = choose(ExpectedGradnorm(**options))
    other = choose(EntropyGradnorm(**options))
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
    assert one.indices.tolist() == other.indices.tolist()
    assert len(np.unique(one.scores)) == len(POOL)


def test_detached_is_refused():
    message = r"expected_gradnorm\.attached=False: .* is 0 for every image.*choose egl"
    ExpectedGradnorm(attached=True)
    with pytest.raises(ConfigError, match=message):
        ExpectedGradnorm(attached=False)
    with pytest.raises(ConfigError, match=message):
        small.configure({"acquisition.expected_gradnorm.attached": False})


# The scores.


@functools.cache
def slow_gradients(posterior, temperature):
    """Of each example, one at a time, of the entropy written out: a tree a row."""
    variables = dict(small.flat_variables())
    params = variables.pop("params")

    def of_a_joint(values):
        if posterior == "softmax":
            shares = jnp.exp(values / temperature - values.max() / temperature)
        else:
            shares = jnp.maximum(values, 0)
        if posterior == "window":  # of 3x3 pixels: sigma 1.75 is 0.2 at 8x8
            y, x = jnp.unravel_index(jnp.argmax(values), values.shape)
            rows, columns = jnp.indices(values.shape)
            shares *= (abs(rows - y) <= 1) & (abs(columns - x) <= 1)
        shares = shares / shares.sum()
        return -(shares * jnp.log(jnp.where(shares > 0, shares, 1))).sum()

    @jax.jit
    def gradient(params, image):
        def entropy(params):
            output = small.FLAT.apply({**variables, "params": params}, image[None])
            return jax.vmap(of_a_joint, in_axes=2)(output.prediction[0, -1]).sum() / 14

        return jax.grad(entropy)(params)

    images = scale_images(small.crops(POOL)["image"])
    return [jax.tree.leaves(gradient(params, image)) for image in images]


def square(leaf):
    return np.sum(np.asarray(leaf, np.float64) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["global", "tensors"])
@POSTERIORS
def test_scores_equal_a_slow_computation(posterior, temperature, norm):
    gradients = slow_gradients(posterior, temperature)
    if norm == "global":
        wanted = [np.sqrt(sum(map(square, leaves))) for leaves in gradients]
    else:
        wanted = [sum(np.sqrt(square(leaf)) for leaf in leaves) for leaves in gradients]
    found = choose(EntropyGradnorm(posterior, temperature, norm))
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4)
    order = np.argsort(-np.array(wanted), kind="stable")[:3]
    np.testing.assert_array_equal(found.indices, POOL[order])


@pytest.mark.parametrize("norm", ["global", "tensors"])
def test_the_engines_exact_and_ghost_agree(norm):
    exact = choose(EntropyGradnorm(norm=norm), "exact")
    ghost = choose(EntropyGradnorm(norm=norm), "ghost")
    np.testing.assert_allclose(ghost.scores, exact.scores, rtol=1e-4)


@pytest.mark.parametrize("method", ["expected_gradnorm", "entropy_gradnorm"])
def test_the_engine_sketch_is_refused(method):
    changes = {"acquisition.method": method, "acquisition.engine": "sketch"}
    message = rf"{method} .* acquisition\.engine=sketch .*choose ghost or exact"
    with pytest.raises(ConfigError, match=message):
        small.context(changes)


# Heatmaps that say nothing.

EMPTY = {"zero": 0.0, "constant": 3.0, "all negative": -2.0}


@POSTERIORS
@pytest.mark.parametrize("value", EMPTY.values(), ids=EMPTY)
def test_uniform_maps_have_the_largest_entropy_and_no_gradient(
    value, posterior, temperature
):
    maps = np.full((2, 8, 8, 14), value, np.float32)
    for loss in losses_of(posterior, temperature):
        found, gradient = loss(maps)
        # Of a constant map the window is that of the corner.
        pixels = 4 if (posterior, value) == ("window", 3.0) else 64
        assert found == pytest.approx(np.log(pixels), rel=2e-5)  # of 896 in float32
        assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e-6


@POSTERIORS
def test_maps_below_zero_have_a_finite_gradient(posterior, temperature):
    maps = -1 - np.abs(random_maps())
    for loss in losses_of(posterior, temperature):
        found, gradient = loss(maps)
        assert np.isfinite(found) and np.isfinite(gradient).all()
        if posterior != "softmax":  # uniform, whatever the values
            assert not np.asarray(gradient).any()


def test_a_map_with_all_its_weight_on_one_pixel_has_a_finite_gradient():
    maps = np.zeros((1, 8, 8, 14), np.float32)
    maps[0, 3, 4] = 30
    for posterior in heatmaps.POSTERIORS:
        for loss in losses_of(posterior, 0.01):
            found, gradient = loss(maps)
            assert found == pytest.approx(0, abs=1e-6)
            assert np.isfinite(gradient).all()


def test_a_network_without_heatmaps_scores_nothing():
    def silent(variables):
        params = dict(variables["params"])
        params["maps1"] = jax.tree.map(jnp.zeros_like, params["maps1"])
        return {**variables, "params": params}

    found = choose(EntropyGradnorm(), variables=silent(small.flat_variables()))
    np.testing.assert_array_equal(found.scores, 0)


# Options.


METHODS = pytest.mark.parametrize("method", [ExpectedGradnorm, EntropyGradnorm])


@METHODS
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, r"\.temperature=0\.0 must be above 0"),
        ({"norm": "l1"}, r"\.norm: 'l1'\. Known: global, tensors"),
    ],
)
def test_unknown_options_are_refused_with_those_there_are(method, changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.\w+_gradnorm{message}"):
        method(**changes)


@METHODS
def test_a_posterior_that_the_task_does_not_have_is_refused(method):
    method(posterior="softmax").check(small.TASK, num_trained=36, budget=3)
    message = r"_gradnorm\.posterior: 'sigmoid'\. Known: window, normalised, softmax"
    with pytest.raises(ConfigError, match=message):
        method(posterior="sigmoid").check(small.TASK, num_trained=36, budget=3)
