"""Several predictions of one image: ensembles and dropout, and how much they differ."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition import ensemble, mc_dropout
from jalpose.acquisition.parts import committees
from jalpose.models.hourglass import PoseOutput
from jalpose.runtime import sharding
from jalpose.scoring.passes import Passes
from jalpose.settings.keys import ConfigError
from jalpose.tasks.pose import heatmaps
from jalpose.training.trainer import scale_images
from tests.support import small

POOL = np.arange(40, 51)  # two blocks of 8, the second padded
KEY = jax.random.key(3)
MEASURES = pytest.mark.parametrize("measure", committees.MEASURES)


@functools.cache
def passes(model, devices=1):
    return Passes(
        model,
        small.dataset(),
        small.SPEC,
        refine="none",
        mesh=small.mesh(devices),
        threads=1,
    )


def probe(variables, model=small.FLAT, devices=1):
    walker = passes(model, devices)
    return small.probe(walker, sharding.replicate(walker.mesh, variables))


# How predictions differ.


def predictions(count=5, seed=0):
    maps = np.random.default_rng(seed).normal(0, 10, (count, 2, 8, 8, 3))
    return PoseOutput(maps.astype(np.float32), np.zeros((count, 2), np.float32))


def test_heatmaps_differ_by_their_variance():
    output = predictions()
    found = jax.jit(committees.disagreement("heatmaps"))(output, KEY)["variance"]
    last = output.heatmaps[:, -1].astype(np.float64)
    wanted = [np.mean(np.var(last[..., j], axis=0)) for j in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_joints_differ_by_the_variance_of_their_highest_pixels():
    output = predictions()
    found = jax.jit(committees.disagreement("joints"))(output, KEY)["variance"]
    wanted = []
    for j in range(3):
        places = [
            np.unravel_index(np.argmax(maps[-1, :, :, j]), (8, 8))
            for maps in output.heatmaps
        ]
        wanted.append(np.var([y for y, _ in places]) + np.var([x for _, x in places]))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@MEASURES
def test_equal_predictions_do_not_differ(measure):
    output = jax.tree.map(lambda leaf: np.repeat(leaf, 4, axis=0), predictions(1))
    found = jax.jit(committees.disagreement(measure))(output, KEY)["variance"]
    np.testing.assert_allclose(found, 0, atol=1e-10)


@MEASURES
def test_a_map_with_a_nan_makes_the_difference_nan_for_its_joint_alone(measure):
    output = predictions()
    output.heatmaps[2, -1, 3, 4, 1] = np.nan
    found = jax.jit(committees.disagreement(measure))(output, KEY)["variance"]
    assert np.isnan(found).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("posterior", "temperature"), [("normalised", 1.0), ("softmax", 5.0)]
)
def test_joints_are_the_soft_argmax_and_the_covariance_that_of_the_posterior(
    posterior, temperature
):
    output = predictions()
    fn = jax.jit(committees.mean_joints(posterior, temperature))
    found = fn(output, KEY)
    covariances = []
    for k, maps in enumerate(output.heatmaps[:, -1]):
        joints = heatmaps.soft_argmax(maps, posterior, temperature)
        np.testing.assert_allclose(found["joints"][k], joints, rtol=1e-4)
        weights = np.asarray(heatmaps.posterior(maps, posterior, temperature))
        y, x = np.indices((8, 8))
        for j in range(3):
            share = weights[..., j].ravel()
            at = np.stack([x.ravel(), y.ravel()])
            covariances.append(np.cov(at, aweights=share, ddof=0))
    wanted = np.reshape(covariances, (5, 3, 2, 2)).mean(axis=0)
    np.testing.assert_allclose(found["covariance"], wanted, rtol=1e-3, atol=1e-4)


# Members.


def everything(output, key):
    del key
    return {"heatmaps": output.heatmaps, "embedding": output.embedding}


def moved(variables, seed):
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda v: v * (1 + 0.3 * draws.random(v.shape, np.float32)), variables
    )


def test_members_are_each_network_by_itself_in_their_order():
    pose = small.flat_variables()
    # As names, "10" comes before "2".
    members = {str(k): moved(pose, k) for k in range(11)}
    found = probe({**pose, "members": members}).reduce(everything, POOL, over="members")
    images = scale_images(small.crops(POOL)["image"])
    for k in range(11):
        output = small.flat_apply(members[str(k)], images)
        np.testing.assert_allclose(
            found["heatmaps"][:, k], output.heatmaps, rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            found["embedding"][:, k], output.embedding, rtol=1e-4
        )
    # Members agree with nobody but themselves.
    assert not np.allclose(found["heatmaps"][:, 0], found["heatmaps"][:, 1], rtol=1e-2)


class Bright(nn.Module):
    """Lights a column of its own up where an image is bright, and nothing elsewhere."""

    @nn.compact
    def __call__(self, images, train: bool = False) -> PoseOutput:
        least = self.param("least", lambda key: jnp.float32(0))
        column = self.param("column", lambda key: jnp.float32(0))
        self.variable("batch_stats", "unused", lambda: jnp.float32(0))
        above = jax.nn.relu(images.mean(axis=(1, 2, 3)) - least)  # [B]
        lit = above[:, None] * jax.nn.one_hot(column.astype(int), 8)[None]  # [B, w]
        maps = jnp.broadcast_to(lit[:, None, None, :, None], (len(images), 1, 8, 8, 14))
        return PoseOutput(maps, jnp.zeros((len(images), 2)))


@MEASURES
def test_images_on_which_the_members_disagree_are_chosen(measure):
    brightness = small.crops(POOL)["image"].mean(axis=(1, 2, 3)) / 255
    order = np.argsort(-brightness, kind="stable")
    least = brightness[order[2:4]].mean()  # three are brighter

    def member(column):
        params = {"least": np.float32(least), "column": np.float32(column)}
        return {"params": params, "batch_stats": {"unused": np.float32(0)}}

    members = {str(k): member(column) for k, column in enumerate((1, 4, 7))}
    found = ensemble.METHOD.acquire(
        KEY,
        probe({**member(0), "members": members}, Bright()),
        None,
        POOL,
        3,
        members=3,
        steps=1,
        start="warm",
        measure=measure,
    )
    assert set(found.indices.tolist()) == set(POOL[order[:3]].tolist())
    assert (found.scores[order[:3]] > 0).all()
    np.testing.assert_array_equal(found.scores[order[3:]], 0)
    assert found.explanation["joint_variance"].shape == (len(POOL), 14)


# Dropout.

DROPPING = small.Flat(dropout=0.3)


def samples(model=DROPPING, ids=POOL, key=KEY, devices=1, number=4):
    found = probe(small.flat_variables(), model, devices)
    return found.reduce(everything, ids, key, over="dropout", samples=number)[
        "heatmaps"
    ]


@functools.cache
def usual():
    return samples()


def test_samples_differ_from_each_other_and_from_the_whole_network():
    found = usual()
    assert found.shape == (len(POOL), 4, 2, 8, 8, 14)
    for one in range(4):
        for other in range(one):
            assert not np.allclose(found[:, one], found[:, other], rtol=1e-3)
    whole = probe(small.flat_variables(), DROPPING).reduce(everything, POOL)["heatmaps"]
    assert not np.allclose(found[:, 0], whole, rtol=1e-3)


def test_samples_depend_on_the_id_and_the_key_alone():
    order = np.random.default_rng(0).permutation(len(POOL))
    np.testing.assert_allclose(
        samples(ids=POOL[order]), usual()[order], rtol=1e-5, atol=1e-5
    )
    # Alone, and so elsewhere in its block.
    np.testing.assert_allclose(
        samples(ids=POOL[6:7]), usual()[6:7], rtol=1e-5, atol=1e-5
    )
    assert not np.allclose(samples(key=jax.random.key(4)), usual(), rtol=1e-3)


def test_samples_are_the_same_on_eight_devices():
    np.testing.assert_allclose(samples(devices=8), usual(), rtol=1e-4, atol=1e-4)


def test_more_samples_go_on_from_the_same_ones():
    np.testing.assert_allclose(samples(number=6)[:, :4], usual(), rtol=1e-5, atol=1e-5)


def choose(model, measure="heatmaps"):
    return mc_dropout.METHOD.acquire(
        KEY,
        probe(small.flat_variables(), model),
        None,
        POOL,
        3,
        samples=4,
        measure=measure,
    )


@MEASURES
def test_without_dropout_nothing_differs(measure):
    found = choose(small.FLAT, measure)
    np.testing.assert_allclose(found.scores, 0, atol=1e-6)
    assert (choose(DROPPING, measure).scores > 0).any()


def test_the_score_of_mc_dropout_is_the_variance_of_the_samples():
    found = choose(DROPPING)
    wanted = usual()[:, :, -1].var(axis=1).mean(axis=(1, 2))  # [M, J]
    np.testing.assert_allclose(found.explanation["joint_variance"], wanted, rtol=1e-3)
    np.testing.assert_allclose(found.scores, wanted.mean(axis=1), rtol=1e-3)


# What is refused.


def test_mc_dropout_of_a_network_without_dropout_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"mc_dropout needs .*set model\.dropout"):
        small.flat_problem({"acquisition.method": "mc_dropout"})
    small.flat_problem({"acquisition.method": "mc_dropout", "model.dropout": 0.1})


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (ensemble, {"members": 1}, r"ensemble\.members=1 must be at least 2"),
        (ensemble, {"steps": 0}, r"ensemble\.steps=0 must be at least 1: every member"),
        (ensemble, {"start": "hot"}, r"ensemble\.start='hot'. Known: warm, fresh"),
        (ensemble, {"measure": "x"}, r"ensemble\.measure='x'. Known: heatmaps, joints"),
        (mc_dropout, {"samples": 1}, r"mc_dropout\.samples=1 must be at least 2"),
        (mc_dropout, {"measure": "x"}, r"mc_dropout\.measure='x'. Known: heatmaps"),
    ],
)
def test_options_that_cannot_work_are_refused(method, changes, message):
    options = {
        ensemble: {"members": 2, "steps": 1, "start": "warm", "measure": "joints"},
        mc_dropout: {"samples": 2, "measure": "joints"},
    }[method]
    method.METHOD.check(36, **options)
    with pytest.raises(ValueError, match=message):
        method.METHOD.check(36, **{**options, **changes})
