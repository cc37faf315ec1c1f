"""Scores of methods on classes, each against a slow computation of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jalpose.acquisition.egl import Egl
from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.acquisition.ensemble import Ensemble
from jalpose.acquisition.entropy_gradnorm import EntropyGradnorm, entropy_loss
from jalpose.acquisition.expected_gradnorm import ExpectedGradnorm, expected_loss
from jalpose.acquisition.least_confidence import LeastConfidence
from jalpose.acquisition.least_margin import LeastMargin
from jalpose.acquisition.mc_dropout import McDropout
from jalpose.acquisition.parts import committees
from jalpose.acquisition.softmax_entropy import SoftmaxEntropy
from jalpose.models.output import Output
from jalpose.settings.checks import ConfigError
from tests.acquisition.test_methods import moved
from tests.support import classes, small
from tests.support.probes import GivenOutputs

POOL, C = classes.POOL, len(classes.CLASSES)
KEY = jax.random.key(3)


def choose(method, engine="exact", budget=4, **given):
    probe = classes.probe(engine=engine, **given)
    return method.acquire(KEY, probe, classes.pool(), budget)


def scores_of(logits, method):
    """Scores of examples with these logits [N, C]."""
    ids = np.arange(len(logits))
    probe = GivenOutputs(ids, np.asarray(logits, np.float32), task=classes.TASK)
    pool = classes.pool(ids)
    return method.acquire(KEY, probe, pool, 1).scores


# How sure a prediction is.


def slow_entropy(shares):
    return [scipy.stats.entropy(row) for row in shares]


def slow_doubt(shares):
    return [1 - max(row) for row in shares]


def slow_closeness(shares):
    found = []
    for row in shares:
        *_, second, first = sorted(row)
        found.append(1 - (first - second))
    return found


SURENESS = pytest.mark.parametrize(
    ("kind", "slow"),
    [
        (SoftmaxEntropy, slow_entropy),
        (LeastConfidence, slow_doubt),
        (LeastMargin, slow_closeness),
    ],
)


@SURENESS
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_how_sure_a_prediction_is(kind, slow, temperature):
    found = choose(kind(temperature=temperature))
    wanted = np.array(slow(classes.softmax(classes.logits(), temperature)))
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4)
    order = np.argsort(-wanted, kind="stable")[:4]
    assert found.indices.tolist() == POOL[order].tolist()
    (name,) = found.explanation
    assert found.explanation[name].shape == (len(POOL), 1)


@SURENESS
def test_the_surest_do_not_tie(kind, slow):
    # 1 - p is below the spacing of float32 round 1.
    found = scores_of([[40.0, 0, 0], [41.0, 0, 0], [42.0, 0, 1.0]], kind())
    shares = classes.softmax([[40.0, 0, 0], [41.0, 0, 0], [42.0, 0, 1.0]])
    rest = np.sort(shares, axis=1)[:, :2]
    wanted = {
        slow_doubt: rest.sum(axis=1),
        slow_closeness: rest.sum(axis=1) + rest[:, 1],
    }.get(slow, slow_entropy(shares))
    assert len(np.unique(found)) == 3
    if slow is not slow_entropy:
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


@SURENESS
def test_classes_as_probable_as_each_other_are_the_least_sure(kind, slow):
    found = scores_of([[0.0] * 4, [1.0, 1.0, 0, 0], [1.0, 0, 0, 0]], kind())
    assert found[0] == max(found) and found[2] == min(found)
    np.testing.assert_allclose(found, slow(classes.softmax(_FOUR)), rtol=1e-6)


_FOUR = [[0.0] * 4, [1.0, 1.0, 0, 0], [1.0, 0, 0, 0]]


@pytest.mark.parametrize("kind", [SoftmaxEntropy, LeastConfidence, LeastMargin])
def test_a_temperature_that_is_none_is_refused(kind):
    message = r"acquisition\.\w+\.temperature=0\.0 must be above 0"
    with pytest.raises(ConfigError, match=message):
        kind(temperature=0.0)


# Committees.


def slow_measures(shares):
    """Of posteriors [K, C] of one example, written out."""
    count, mean = len(shares), np.mean(shares, axis=0)
    votes = np.bincount([int(np.argmax(row)) for row in shares], minlength=C) / count
    return {
        "prediction": sum(np.var([row[c] for row in shares]) for c in range(C)),
        "decoded": 1 - max(votes),
        "mutual_information": scipy.stats.entropy(mean)
        - np.mean([scipy.stats.entropy(row) for row in shares]),
        "predictive_entropy": scipy.stats.entropy(mean),
        "vote_entropy": scipy.stats.entropy(votes),
        "variation_ratio": 1 - max(votes),
    }


MEASURES = pytest.mark.parametrize("measure", slow_measures(np.eye(C)))


@functools.cache
def members():
    network, found = classes.variables(), {}
    for k in range(5):
        draws = np.random.default_rng(k)
        logits = {
            name: value + draws.normal(0, 0.5, value.shape).astype(np.float32)
            for name, value in network["params"]["logits"].items()
        }
        params = {**network["params"], "logits": logits}
        found[str(k)] = moved({**network, "params": params}, k)
    return found


@pytest.mark.slow
@MEASURES
def test_members_disagree_as_measured(measure):
    each = [classes.softmax(classes.logits(weights=w)) for w in members().values()]
    wanted = [
        slow_measures(np.stack(each)[:, row])[measure] for row in range(len(POOL))
    ]
    assert np.ptp(wanted) > 0
    method = Ensemble(measure=measure)
    weights = {**classes.variables(), "members": members()}
    found = choose(method, weights=weights)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-3, atol=1e-7)


@functools.cache
def sampled():
    """Posteriors of samples under dropout: [M, K, C]."""

    def prediction(output, key):
        del key
        return {"prediction": output.prediction}

    probe = classes.probe()
    found = probe.reduce(prediction, POOL, KEY, over="dropout", samples=6)
    return classes.softmax(found["prediction"])


@pytest.mark.slow
@MEASURES
def test_samples_disagree_as_measured(measure):
    wanted = [slow_measures(one)[measure] for one in sampled()]
    assert np.ptp(wanted) > 0
    found = choose(McDropout(samples=6, measure=measure))
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-3, atol=1e-7)


def test_mutual_information_of_little_is_not_lost_in_a_difference():
    # About 1e-9: less than float32 keeps of two entropies of about 1.
    logits = np.float32([[1.0, 0, 0], [1.0001, 0, 0]])
    logs = np.log(classes.softmax(logits))
    one, other = np.exp(logs)
    mean = (one + other) / 2
    wanted = np.mean([scipy.stats.entropy(row, mean) for row in (one, other)])
    assert 0 < wanted < 1e-8
    fn = committees.disagreement(classes.TASK, "mutual_information")
    found = jax.jit(fn)(Output(logits, np.zeros((2, 1))), KEY)["variance"]
    np.testing.assert_allclose(found, [wanted], rtol=0.2)


@pytest.mark.parametrize("measure", committees.MEASURES)
def test_of_several_sites_each_has_its_disagreement(measure):
    maps = np.random.default_rng(0).normal(0, 2, (5, 2, 4, 4, 3)).astype(np.float32)
    fn = committees.disagreement(small.TASK, measure)
    found = jax.jit(fn)(Output(maps, np.zeros((5, 2))), KEY)["variance"]
    each = maps[:, -1].reshape(5, 16, 3)
    for j in range(3):
        shares = classes.softmax(each[..., j])
        mean = shares.mean(axis=0)
        votes = np.bincount(shares.argmax(axis=1), minlength=16) / 5
        wanted = {
            "mutual_information": np.mean(
                [scipy.stats.entropy(row, mean) for row in shares]
            ),
            "predictive_entropy": scipy.stats.entropy(mean),
            "vote_entropy": scipy.stats.entropy(votes),
            "variation_ratio": 1 - votes.max(),
        }
        np.testing.assert_allclose(found[j], wanted[measure], rtol=1e-4)


def test_ties_of_votes_are_drawn_and_do_not_depend_on_the_order():
    alike = {str(k): classes.variables() for k in range(3)}
    weights = {**classes.variables(), "members": alike}
    method = Ensemble(members=3, measure="vote_entropy")
    probe = classes.probe(weights=weights)

    def choice(seed, ids=POOL):
        key = jax.random.key(seed)
        found = method.acquire(key, probe, classes.pool(ids), 4)
        np.testing.assert_allclose(found.scores, 0, atol=1e-7)
        return found.indices.tolist()

    first = choice(0)
    assert first == choice(0) == choice(0, POOL[::-1])
    assert len({tuple(choice(seed)) for seed in range(4)}) > 1


def test_a_measure_of_posteriors_is_refused_where_there_are_none():
    class Voiceless:
        measures = ("prediction",)

    for method in (Ensemble, McDropout):
        method(measure="vote_entropy").check(classes.TASK, num_trained=36, budget=3)
        message = r"\.measure: 'vote_entropy'\. .*Known: prediction\.$"
        with pytest.raises(ConfigError, match=message):
            method(measure="vote_entropy").check(Voiceless(), num_trained=36, budget=3)


# Gradient norms.


def cross_entropy(logits, label):
    return -jax.nn.log_softmax(logits)[label]


@functools.cache
def squares_of_classes():
    """Squared gradient norms for each example and class: [M, C], by plain autodiff."""
    columns = [
        [sum(map(classes.square, leaves)) for leaves in found]
        for found in (
            classes.gradients(lambda logits, _, c=c: cross_entropy(logits, c))
            for c in range(C)
        )
    ]
    return np.array(columns).T


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact", "ghost"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_egl_is_the_expectation_over_all_classes(engine, temperature):
    shares = classes.softmax(classes.logits(), temperature)
    wanted = (shares * squares_of_classes()).sum(axis=1)
    method = Egl(peaks=C, posterior="softmax", temperature=temperature)
    found = choose(method, engine)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4)
    order = np.argsort(-wanted, kind="stable")[:4]
    assert found.indices.tolist() == POOL[order].tolist()


@pytest.mark.slow
def test_the_norm_of_egl_stands_inside_the_sum():
    # The mean gradient under the model's own posterior is nothing.
    mean = [
        sum(map(classes.square, leaves))
        for leaves in classes.gradients(
            lambda logits, _: jnp.sum(
                jax.lax.stop_gradient(jax.nn.softmax(logits))
                * -jax.nn.log_softmax(logits)
            )
        )
    ]
    found = choose(Egl(peaks=C, posterior="softmax")).scores
    assert (np.array(mean) < 1e-6 * found).all()
    assert (found < squares_of_classes().max(axis=1)).all()


def slow_entropies(norm):
    def entropy(logits, number):
        shares = jnp.exp(logits - logits.max())
        shares = shares / shares.sum()
        return -jnp.sum(shares * jnp.log(shares))

    found = classes.gradients(entropy)
    if norm == "global":
        return [np.sqrt(sum(map(classes.square, leaves))) for leaves in found]
    return [sum(np.sqrt(classes.square(leaf)) for leaf in leaves) for leaves in found]


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["global", "tensors"])
@pytest.mark.parametrize("kind", [ExpectedGradnorm, EntropyGradnorm])
@pytest.mark.parametrize("engine", ["exact", "ghost"])
def test_gradient_norms_of_the_expected_loss_and_of_the_entropy(kind, norm, engine):
    wanted = np.array(slow_entropies(norm))
    found = choose(kind(posterior="softmax", norm=norm), engine)
    np.testing.assert_allclose(found.scores, wanted, rtol=2e-4)
    order = np.argsort(-wanted, kind="stable")[:4]
    assert found.indices.tolist() == POOL[order].tolist()


def test_the_gradient_of_the_entropy_by_the_logits_is_the_known_one():
    # p_i (-ln p_i - H), which the papers' two losses share.
    logits = jnp.float32([0.3, -1.0, 2.0, 0.0, 0.7])
    shares = classes.softmax(logits)
    wanted = shares * (-np.log(shares) - scipy.stats.entropy(shares))
    posterior = classes.TASK, "softmax", 1.0
    for loss in (expected_loss(*posterior, True), entropy_loss(*posterior)):
        found = jax.grad(loss)(logits, None)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    detached = jax.grad(expected_loss(*posterior, False))(logits, None)
    np.testing.assert_allclose(detached, 0, atol=1e-6)


def test_the_posterior_of_poses_is_refused_for_classes():
    for method in (Egl(), ExpectedGradnorm(), EntropyGradnorm()):
        with pytest.raises(ConfigError, match=r"posterior: '\w+'\. .*softmax"):
            method.check(classes.TASK, num_trained=36, budget=3)


# EGL++.


def slow_neighbours(perplexity, number):
    """Classes and probabilities of the neighbours, by a search of its own."""
    labelled = classes.labelled_set()
    possible = np.flatnonzero(~labelled.held_out)

    def embed(ids):
        said = classes.apply(classes.variables(), classes.images(ids))
        return np.asarray(said.embedding, np.float64)

    pool, known = embed(POOL), embed(labelled.ids[possible])
    found = []
    for one in pool:
        squares = np.square(one - known).sum(axis=1)
        low, high = 1e-6, 1e9  # of the precision
        for _ in range(200):
            middle = np.sqrt(low * high)
            shares = classes.softmax(-middle * squares)
            wide = np.exp(scipy.stats.entropy(shares)) > perplexity
            low, high = (middle, high) if wide else (low, middle)
        best = np.argsort(-shares, kind="stable")[:number]
        chosen = labelled.labels["class"][possible[best]]
        found.append((chosen, shares[best] / shares[best].sum()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact", "ghost", "sketch"])
def test_eglpp_takes_the_classes_of_the_neighbours(engine):
    squares = squares_of_classes()
    wanted = np.array(
        [
            sum(q * squares[row, c] for c, q in zip(*neighbours, strict=True))
            for row, neighbours in enumerate(slow_neighbours(4.0, 6))
        ]
    )
    found = choose(EglPlusPlus(perplexity=4.0, neighbours=6), engine)
    # Directions of five classes have rank four: four passes of `sketch` are all.
    np.testing.assert_allclose(found.scores, wanted, rtol=2e-3)
    if engine != "sketch":
        norms = found.explanation["neighbour_squared_norms"]
        ids = found.explanation["neighbour_ids"]
        labels = classes.dataset().truth["class"][ids]
        expected = np.take_along_axis(squares, labels, axis=1)
        np.testing.assert_allclose(norms, expected, rtol=1e-4)


@pytest.mark.slow
def test_eglpp_can_take_what_the_network_says_of_the_neighbours():
    method = EglPlusPlus(perplexity=4.0, neighbours=6, labels="predicted")
    found = choose(method)
    ids = found.explanation["neighbour_ids"]
    said = classes.softmax(classes.logits(np.unique(ids)))
    places = np.searchsorted(np.unique(ids), ids)

    wanted = []
    for k in range(6):
        targets = jnp.asarray(said[places[:, k]], jnp.float32)
        found_gradients = classes.gradients(
            lambda logits, number, targets=targets: (
                -jnp.sum(targets[number] * jax.nn.log_softmax(logits))
            )
        )
        wanted.append([sum(map(classes.square, leaves)) for leaves in found_gradients])
    norms = found.explanation["neighbour_squared_norms"]
    np.testing.assert_allclose(norms, np.array(wanted).T, rtol=1e-3, atol=1e-9)
