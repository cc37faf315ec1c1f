"""Expected gradient length over a network's own peaks, by going through them all."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.egl import Egl
from jalpose.scoring.passes import Passes
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose import heatmaps, losses
from jalpose.tasks.pose.skeletons import Skeleton
from jalpose.tasks.pose.task import PoseTask
from jalpose.training.trainer import scale_images
from tests.support import small

POOL = np.arange(40, 44)
# Of three joints, so that all combinations can be gone through.
ARM = Skeleton(
    name="arm",
    joints=("shoulder", "elbow", "wrist"),
    flip_pairs=(),
    limbs=((0, 1), (1, 2)),
    torso=((0, 1), (1, 2)),
)
JOINTS = ARM.num_joints
TASK = PoseTask(skeleton=ARM, spec=small.SPEC)
FLAT = small.Flat(JOINTS)
apply = jax.jit(FLAT.apply)


@functools.cache
def passes():
    return Passes(FLAT, TASK, mesh=small.mesh(), threads=1)


@functools.cache
def network(seed=0):
    variables = jax.jit(FLAT.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda v: np.asarray(v) + 0.1 * draws.random(v.shape, np.float32), variables
    )


def with_last_maps(variables, change):
    """`change(kernel, bias)` -> kernel and bias of the last stack's maps."""
    last = variables["params"]["maps1"]
    kernel, bias = change(np.array(last["kernel"]), np.array(last["bias"]))
    params = {**variables["params"], "maps1": {"kernel": kernel, "bias": bias}}
    return {**variables, "params": params}


def images():
    return scale_images(small.crops(POOL)["image"])


def choose(method, variables, budget=2, *, engine="exact"):
    probe = small.probe(passes(), variables, engine=engine, microbatch=8)
    return method.acquire(jax.random.key(0), probe, small.pool(POOL), budget)


def egl_scores(variables, **options):
    return choose(Egl(**options), variables).scores


def slow_peaks(plane, number, distance=1):
    """Values and (x, y) of the strongest local maxima of [h, w], by looking."""
    found = []
    height, width = plane.shape
    for y, x in itertools.product(range(height), range(width)):
        near = plane[
            max(0, y - distance) : y + distance + 1,
            max(0, x - distance) : x + distance + 1,
        ]
        if plane[y, x] == near.max() and plane[y, x] > plane.min():
            found.append((plane[y, x], (x, y)))
    return sorted(found, reverse=True)[:number]


def slow_probabilities(values, posterior, temperature):
    values = np.array(values, np.float64)
    if posterior == "softmax":
        weights = np.exp((values - values.max()) / temperature)
    else:
        weights = np.maximum(values, 0)
        if weights.sum() == 0:
            weights = np.ones(len(values))
    return weights / weights.sum()


@jax.jit
def squared_norm(variables, image, target, present):
    """Of the gradient of the training loss for one image and one label, by autodiff."""

    def loss(params):
        maps = FLAT.apply({**variables, "params": params}, image[None]).prediction[0]
        return losses.heatmap_loss(maps, target, present)

    gradient = jax.grad(loss)(variables["params"])
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient))


def slow_egl(variables, peaks, posterior="normalised", temperature=1.0):
    """The expectation over all combinations of peaks; and how many combinations."""
    scores, numbers = [], []
    for image in images():
        maps = np.asarray(apply(variables, image[None]).prediction[0, -1])
        found = [slow_peaks(maps[..., j], peaks) for j in range(JOINTS)]
        present = np.array([len(one) > 0 for one in found])
        joints = [
            list(
                zip(
                    slow_probabilities([v for v, _ in one], posterior, temperature),
                    [place for _, place in one],
                    strict=True,
                )
            )
            if one
            else [(1.0, (0, 0))]
            for one in found
        ]
        score, number = 0.0, 0
        for combination in itertools.product(*joints):
            places = jnp.array([place for _, place in combination], jnp.float32)
            points = heatmaps.heatmap_to_crop(places, 32, 8)
            target = small.SPEC.render(points, jnp.array(present))
            norm = float(squared_norm(variables, image, target, present))
            score += np.prod([share for share, _ in combination]) * norm
            number += 1
        scores.append(score)
        numbers.append(number)
    return np.array(scores), np.array(numbers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peaks", "posterior", "temperature"),
    [
        (1, "normalised", 1.0),
        (2, "normalised", 1.0),
        (3, "normalised", 1.0),
        (2, "softmax", 5.0),
    ],
)
def test_the_score_is_the_expectation_over_all_combinations(
    peaks, posterior, temperature
):
    wanted, numbers = slow_egl(network(), peaks, posterior, temperature)
    assert numbers.max() == peaks**JOINTS
    options = {"peaks": peaks, "posterior": posterior, "temperature": temperature}
    np.testing.assert_allclose(egl_scores(network(), **options), wanted, rtol=1e-4)


@pytest.mark.slow
def test_the_engine_ghost_agrees():
    exact, ghost = (
        choose(Egl(), network(), engine=name) for name in ("exact", "ghost")
    )
    np.testing.assert_allclose(ghost.scores, exact.scores, rtol=1e-4)
    assert ghost.indices.tolist() == exact.indices.tolist()


def test_probabilities_of_the_peaks_sum_to_one_for_each_joint():
    found = choose(Egl(peaks=3), network())
    shares = found.explanation["peak_probabilities"]
    assert shares.shape == (len(POOL), JOINTS, 3)
    np.testing.assert_allclose(shares.sum(axis=2), 1, rtol=1e-6)
    places = found.explanation["peak_positions"]
    assert places.shape == (*shares.shape, 2)
    np.testing.assert_array_equal((places >= 0).all(axis=3), shares > 0)
    # The strongest first.
    assert (np.diff(shares, axis=2) <= 0).all()
    assert found.summary["mean_peaks"] == (shares > 0).sum(axis=2).mean()


@pytest.mark.slow
def test_peaks_below_zero_are_as_probable_as_each_other():
    def lower(kernel, bias):
        return kernel, bias - 30

    variables = with_last_maps(network(), lower)
    wanted, numbers = slow_egl(variables, 2)
    assert numbers.max() > 1
    np.testing.assert_allclose(egl_scores(variables), wanted, rtol=1e-4)


def test_joints_without_peaks_are_left_out():
    def silence_one(kernel, bias):
        kernel[..., 1] = 0
        return kernel, bias

    variables = with_last_maps(network(), silence_one)
    found = choose(Egl(), variables)
    assert not found.explanation["peak_probabilities"][:, 1].any()
    wanted, _ = slow_egl(variables, 2)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 2.0, -2.0])
@pytest.mark.parametrize("posterior", ["normalised", "softmax"])
def test_constant_heatmaps_have_no_label_and_score_zero(value, posterior):
    def silence(kernel, bias):
        return 0 * kernel, 0 * bias + np.float32(value)

    found = egl_scores(with_last_maps(network(), silence), posterior=posterior)
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peaks": 0}, r"egl\.peaks=0 must be at least 1"),
        ({"min_distance": 0}, r"egl\.min_distance=0 must be at least 1"),
        ({"temperature": 0.0}, r"egl\.temperature=0.0 must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.{message}"):
        Egl(**changes)


def test_a_posterior_that_the_task_does_not_have_is_refused():
    Egl(posterior="softmax").check(TASK, num_trained=36, budget=2)
    for posterior in ("max", "window"):  # a window round a peak has the one
        message = rf"egl\.posterior: '{posterior}'\. .*: normalised, softmax"
        with pytest.raises(ConfigError, match=message):
            Egl(posterior=posterior).check(TASK, num_trained=36, budget=2)
