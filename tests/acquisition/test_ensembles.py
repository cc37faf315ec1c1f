"""Several predictions of one image: ensembles and dropout, and how much they differ."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.ensemble import Ensemble
from jalpose.acquisition.mc_dropout import McDropout
from jalpose.models.output import Output
from jalpose.runtime import sharding
from jalpose.scoring.passes import Passes
from jalpose.settings.checks import ConfigError
from jalpose.training.trainer import scale_images
from tests.support import small

POOL = np.arange(40, 51)  # two blocks of 8, the second padded
KEY = jax.random.key(3)
MEASURES = pytest.mark.parametrize("measure", small.TASK.measures)


@functools.cache
def passes(model, devices=1):
    return Passes(model, small.TASK, mesh=small.mesh(devices), threads=1)


def probe(variables, model=small.FLAT, devices=1):
    walker = passes(model, devices)
    return small.probe(walker, sharding.replicate(walker.mesh, variables))


# Members.


def everything(output, key):
    del key
    return {"prediction": output.prediction, "embedding": output.embedding}


def moved(variables, seed):
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda v: v * (1 + 0.3 * draws.random(v.shape, np.float32)), variables
    )


def test_members_are_each_network_by_itself_in_their_order():
    network = small.flat_variables()
    # As names, "10" comes before "2".
    members = {str(k): moved(network, k) for k in range(11)}
    found = probe({**network, "members": members}).reduce(
        everything, POOL, over="members"
    )
    images = scale_images(small.crops(POOL)["image"])
    for k in range(11):
        output = small.flat_apply(members[str(k)], images)
        np.testing.assert_allclose(
            found["prediction"][:, k], output.prediction, rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            found["embedding"][:, k], output.embedding, rtol=1e-4
        )
    # Members agree with nobody but themselves.
    assert not np.allclose(
        found["prediction"][:, 0], found["prediction"][:, 1], rtol=1e-2
    )


class Bright(nn.Module):
    """Lights a column of its own up where an image is bright, and nothing elsewhere."""

    @nn.compact
    def __call__(self, images, train: bool = False) -> Output:
        least = self.param("least", lambda key: jnp.float32(0))
        column = self.param("column", lambda key: jnp.float32(0))
        self.variable("batch_stats", "unused", lambda: jnp.float32(0))
        above = jax.nn.relu(images.mean(axis=(1, 2, 3)) - least)  # [B]
        lit = above[:, None] * jax.nn.one_hot(column.astype(int), 8)[None]  # [B, w]
        maps = jnp.broadcast_to(lit[:, None, None, :, None], (len(images), 1, 8, 8, 14))
        return Output(maps, jnp.zeros((len(images), 2)))


@MEASURES
def test_images_on_which_the_members_disagree_are_chosen(measure):
    brightness = small.crops(POOL)["image"].mean(axis=(1, 2, 3)) / 255
    order = np.argsort(-brightness, kind="stable")
    least = brightness[order[2:4]].mean()  # three are brighter

    def member(column):
        params = {"least": np.float32(least), "column": np.float32(column)}
        return {"params": params, "batch_stats": {"unused": np.float32(0)}}

    members = {str(k): member(column) for k, column in enumerate((1, 4, 7))}
    method = Ensemble(members=3, steps=1, start="warm", measure=measure)
    walker = probe({**member(0), "members": members}, Bright())
    found = method.acquire(KEY, walker, small.pool(POOL), 3)
    assert set(found.indices.tolist()) == set(POOL[order[:3]].tolist())
    assert (found.scores[order[:3]] > 0).all()
    np.testing.assert_array_equal(found.scores[order[3:]], 0)
    assert found.explanation["joint_variance"].shape == (len(POOL), 14)


# Dropout.

DROPPING = small.Flat(dropout=0.3)


def samples(model=DROPPING, ids=POOL, key=KEY, devices=1, number=4):
    found = probe(small.flat_variables(), model, devices)
    found = found.reduce(everything, ids, key, over="dropout", samples=number)
    return found["prediction"]


@functools.cache
def usual():
    return samples()


def test_samples_differ_from_each_other_and_from_the_whole_network():
    found = usual()
    assert found.shape == (len(POOL), 4, 2, 8, 8, 14)
    for one in range(4):
        for other in range(one):
            assert not np.allclose(found[:, one], found[:, other], rtol=1e-3)
    whole = probe(small.flat_variables(), DROPPING).reduce(everything, POOL)[
        "prediction"
    ]
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


def choose(model, measure="prediction"):
    method = McDropout(samples=4, measure=measure)
    walker = probe(small.flat_variables(), model)
    return method.acquire(KEY, walker, small.pool(POOL), 3)


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
        small.flat_context({"acquisition.method": "mc_dropout"})
    small.flat_context({"acquisition.method": "mc_dropout", "model.dropout": 0.1})


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (Ensemble, {"members": 1}, r"ensemble\.members=1 must be at least 2"),
        (Ensemble, {"steps": 0}, r"ensemble\.steps=0 must be at least 1: every member"),
        (Ensemble, {"start": "hot"}, r"ensemble\.start: 'hot'\. Known: warm, fresh"),
        (McDropout, {"samples": 1}, r"mc_dropout\.samples=1 must be at least 2"),
    ],
)
def test_options_that_cannot_work_are_refused(method, changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.{message}"):
        method(**changes)


@pytest.mark.parametrize("method", [Ensemble, McDropout])
def test_a_measure_that_the_task_does_not_have_is_refused(method):
    def check(measure):
        method(measure=measure).check(small.TASK, num_trained=36, budget=3)

    check("decoded")
    message = r"acquisition\.\w+\.measure: 'x'\. Known: prediction, decoded"
    with pytest.raises(ConfigError, match=message):
        check("x")
