"""Where examples are: embeddings, and projections of their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.badge import Badge
from jalpose.acquisition.bait import Bait
from jalpose.acquisition.coreset import CoreSet
from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.acquisition.kmeanspp import KMeansPlusPlus
from jalpose.acquisition.lcmd import Lcmd
from jalpose.acquisition.maxdet import MaxDet
from jalpose.acquisition.maxherding import MaxHerding
from jalpose.acquisition.method import Pool
from jalpose.acquisition.typiclust import TypiClust
from jalpose.pergrad.api import last_layer
from jalpose.settings.checks import ConfigError
from tests.support import small
from tests.support.tasks import bare

POOL = np.arange(40, 52)
KEY = jax.random.key(5)


def pool(labelled=slice(8)):
    return Pool(unlabelled=POOL, labelled=small.labelled_set().at(labelled))


def probe(devices=1, engine="ghost", **options):
    weights = small.flat_variables()
    return small.probe(
        small.flat_passes(devices), weights, engine=engine, microbatch=4, **options
    )


@functools.cache
def placed(cotangents, size, seed=5, **options):
    method = Lcmd(space="gradients", cotangents=cotangents, size=size, **options)
    return method.place(jax.random.key(seed), probe(), pool())


@functools.cache
def gradients(loss_fn):
    """Gradient of a loss of each example of pool and labelled, flat, float64.

    Args:
      loss_fn: (prediction, id) -> scalar.
    """
    variables = small.flat_variables()
    stats = {"batch_stats": variables["batch_stats"]}
    ids = np.concatenate([POOL, pool().labelled.ids])

    @jax.jit
    def gradient(image, number):
        def loss(params):
            output = small.FLAT.apply({"params": params, **stats}, image[None])
            return loss_fn(output.prediction[0], number)

        return jax.tree.leaves(jax.grad(loss)(variables["params"]))

    images = small.crops(ids)["image"] / np.float32(255)
    return np.stack(
        [
            np.concatenate([np.ravel(g) for g in gradient(image, number)])
            for image, number in zip(images, ids, strict=True)
        ]
    ).astype(np.float64)


def task():
    return small.TASK


def of_answer(prediction, number):
    del number
    target = task().target(task().predicted_label(prediction))
    return task().loss(prediction, jax.lax.stop_gradient(target))


def inner(placed):
    every = np.concatenate([placed.pool, placed.labelled]).astype(np.float64)
    return every @ every.T


@pytest.mark.slow
def test_inner_products_are_those_of_gradients_under_the_answer():
    exact = gradients(of_answer)
    exact = exact @ exact.T
    found = np.mean(
        [inner(placed("predicted", 256, seed)) for seed in range(12)], axis=0
    )
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    # 12 projections of 256 numbers: a standard deviation of about sqrt(2 / 3072).
    assert np.abs(found - exact).max() < 5 * np.sqrt(2 / 3072) * scale.max()
    # All examples share the projections, so their errors are much alike.
    assert (np.abs(found - exact) / scale).mean() < 3 * np.sqrt(2 / 3072)


@pytest.mark.slow
def test_random_directions_estimate_the_tangent_kernel():
    def jacobian(image):
        variables = small.flat_variables()
        stats = {"batch_stats": variables["batch_stats"]}

        def predict(params):
            output = small.FLAT.apply({"params": params, **stats}, image[None])
            return output.prediction.ravel()

        found = jax.jacrev(predict)(variables["params"])
        leaves = jax.tree.leaves(found)
        return jnp.concatenate([g.reshape(len(g), -1) for g in leaves], axis=1)

    images = small.crops(POOL[:2])["image"] / np.float32(255)
    first, second = (np.asarray(jax.jit(jacobian)(i), np.float64) for i in images)
    exact = np.array([np.sum(first**2), np.sum(second**2), np.sum(first * second)])
    found = []
    for seed in range(10):
        rows = placed("random", 256, seed, directions=3).pool[:2].astype(np.float64)
        found.append([rows[0] @ rows[0], rows[1] @ rows[1], rows[0] @ rows[1]])
    found = np.array(found)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error).all()
    assert (error < 0.2 * np.abs(exact[:2]).max()).all()


@pytest.mark.slow
def test_squared_lengths_of_neighbours_gradients_estimate_the_score_of_eglpp():
    scoring = EglPlusPlus(perplexity=1.0, neighbours=3)
    score = scoring.acquire(KEY, probe(), pool(), 1).scores
    lengths = np.mean(
        [
            np.sum(placed("neighbours", 256, s, candidates=3).pool ** 2, axis=1)
            for s in range(8)
        ],
        axis=0,
    )
    np.testing.assert_allclose(lengths, score, rtol=0.35)
    np.testing.assert_allclose(np.mean(lengths / score), 1, rtol=0.1)


def test_predicted_poses_are_compared_wherever_they_stand():
    found = Lcmd(space="prediction").place(KEY, probe(), pool())
    for place, ids in ((found.pool, POOL), (found.labelled, pool().labelled.ids)):
        joints = np.asarray(probe().describe(ids)["joints"], np.float64)
        centred = joints - joints.mean(axis=1, keepdims=True)
        expected = centred.reshape(len(ids), -1) / task().size
        np.testing.assert_allclose(place, expected, atol=1e-6)


def test_a_task_without_points_is_refused_before_anything_compiles():
    message = (
        r"^acquisition\.lcmd\.space='prediction' does not work on the task bare, which "
        r"lacks predicted_point .*: set it to 'embedding'$"
    )
    with pytest.raises(ConfigError, match=message):
        Lcmd(space="prediction").check(bare(), num_trained=8, budget=2)


@pytest.mark.slow
@pytest.mark.parametrize("cotangents", ["random", "predicted", "neighbours"])
def test_places_do_not_depend_on_the_other_examples(cotangents):
    method = Lcmd(
        space="gradients", cotangents=cotangents, size=32, candidates=3, directions=2
    )
    one = method.place(KEY, probe(), pool())
    some = method.place(KEY, probe(), pool()._replace(unlabelled=POOL[::3]))
    np.testing.assert_allclose(some.pool, one.pool[::3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(some.labelled, one.labelled, rtol=1e-4, atol=1e-6)
    other = method.place(jax.random.key(6), probe(), pool())
    assert not np.allclose(other.pool, one.pool, rtol=0.1)


@pytest.mark.parametrize("method", [Lcmd, CoreSet, Badge])
def test_a_method_works_on_gradients(method):
    made = method(space="gradients", size=32, directions=2)
    found = made.acquire(KEY, probe(), pool(), 5)
    assert len(set(found.indices.tolist())) == 5
    assert made.uses_engine and not method(space="embedding").uses_engine
    assert np.isin(found.indices, POOL).all()


@pytest.mark.slow
def test_badge_begins_with_the_longest_gradient_whatever_is_labelled():
    lengths = np.linalg.norm(gradients(of_answer)[: len(POOL)], axis=1)
    made = Badge(size=256)
    found = [made.acquire(KEY, probe(), pool(slice(n)), 3).indices for n in (8, 2)]
    assert found[0].tolist() == found[1].tolist()
    assert lengths[POOL.tolist().index(found[0][0])] > 0.9 * lengths.max()


@pytest.mark.slow
def test_badge_takes_the_last_layer_alone_as_the_paper_does():
    made = Badge(size=256, layers="last")
    found = [made.place(jax.random.key(n), probe(), pool()) for n in range(12)]
    grams = [inner(places) for places in found]
    # Of the whole gradient, the part of the head: in the order of the leaves.
    variables = small.flat_variables()["params"]
    counts = np.cumsum([0, *(leaf.size for leaf in jax.tree.leaves(variables))])
    apply_fn = small.flat_passes(1).gradient_model.apply
    names = last_layer(
        lambda v, x: apply_fn(v, x).prediction,
        small.flat_variables(),
        jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
    )
    routes = jax.tree.leaves_with_path(variables)
    columns = [
        np.arange(*counts[n : n + 2])
        for n, (path, _) in enumerate(routes)
        if jax.tree_util.keystr(path, simple=True, separator="/") in names
    ]
    assert len(columns) == 4
    exact = gradients(of_answer)[:, np.concatenate(columns)]
    exact = exact @ exact.T
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    error = np.abs(np.mean(grams, axis=0) - exact).max()
    assert error < 5 * np.sqrt(2 / 3072) * scale.max()


@pytest.mark.parametrize(
    "method",
    [Badge, Bait, CoreSet, KMeansPlusPlus, Lcmd, MaxDet, MaxHerding, TypiClust],
)
@pytest.mark.parametrize("labelled", [0, 8])
def test_examples_in_one_place_are_chosen_each_once(method, labelled, monkeypatch):
    asked = probe()
    monkeypatch.setattr(asked, "embeddings", lambda ids: np.ones((len(ids), 3), "f4"))
    made = method(space="embedding")
    if not labelled and method in (CoreSet, KMeansPlusPlus, Lcmd):
        with pytest.raises(ValueError, match="needs labelled examples"):
            made.acquire(KEY, asked, pool(slice(labelled)), len(POOL))
        return
    found = made.acquire(KEY, asked, pool(slice(labelled)), len(POOL))
    np.testing.assert_array_equal(np.sort(found.indices), POOL)


def test_what_cannot_be_projected_is_refused():
    with pytest.raises(ConfigError, match=r"badge\.layers: 'lats'.*Did you mean"):
        Badge(layers="lats")
    with pytest.raises(ConfigError, match=r"lcmd\.space: 'gradient'.*Did you mean"):
        Lcmd(space="gradient")
    with pytest.raises(ConfigError, match=r"lcmd\.size=0 must be above 0"):
        Lcmd(size=0)
    answer = Lcmd(space="gradients", cotangents="predicted")
    with pytest.raises(ConfigError, match="lacks predicted_label"):
        answer.check(bare("posterior"), num_trained=9, budget=1)
    near = Lcmd(space="gradients", cotangents="neighbours")
    with pytest.raises(ConfigError, match=r"lcmd\.candidates=9, but only 8 labelled"):
        near.check(task(), num_trained=8, budget=1)
    # Where there is nothing to project, nothing is asked for.
    Lcmd(cotangents="neighbours").check(bare(), num_trained=1, budget=1)


def test_a_projection_is_no_longer_than_the_gradient():
    made = Lcmd(space="gradients", layers="last", directions=1, size=10**6)
    found = made.place(KEY, probe(), pool(slice(0))).pool
    head = small.flat_variables()["params"]
    most = sum(leaf.size for leaf in jax.tree.leaves(head))
    assert 0 < found.shape[1] < most and np.isfinite(found).all()
