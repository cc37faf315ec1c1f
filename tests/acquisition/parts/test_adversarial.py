"""The adversarial objectives against NumPy, their steps, and whether they learn."""

import dataclasses
import functools
from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jalpose.acquisition.parts import adversarial
from jalpose.acquisition.parts.adversarial import Adversary, Weights
from jalpose.acquisition.sraal import Relabelling, Sraal, indicator
from jalpose.acquisition.vaal import Vaal
from jalpose.models import autoencoder
from jalpose.models.autoencoder import Code
from jalpose.models.output import Output
from jalpose.settings.checks import ConfigError
from jalpose.training.companion import Seen

WEIGHTS = Weights(beta=0.7, representation=1.3, adversarial=2.5)
LEARNER = Adversary(
    latents=3, width=4, hidden=16, size=0, weights=WEIGHTS, learning_rate=5e-4
)
COUNT, SIZE, CLASSES = 4, 8, 3


@dataclasses.dataclass(frozen=True)
class Classes:
    """A task of classes, as far as a learner asks."""

    posteriors = ("softmax",)

    def target(self, label):
        return label["class"]

    def loss(self, prediction, target):
        return -jax.nn.log_softmax(prediction)[target]

    def posterior(self, prediction, kind, temperature, log=False):
        assert kind == "softmax" and not log
        return jax.nn.softmax(prediction / temperature)[None]


RELABELLING = Relabelling(
    latents=3,
    width=4,
    hidden=16,
    size=0,
    weights=WEIGHTS,
    learning_rate=5e-4,
    task=Classes(),
    label_latents=2,
    supervised=0.6,
    posterior="softmax",
    temperature=2.0,
)


def seen(seed, labelled=True, low=0.0, high=1.0, count=COUNT):
    draws = np.random.default_rng(seed)
    images = draws.uniform(low, high, (count, SIZE, SIZE, 3)).astype(np.float32)
    prediction = draws.normal(size=(count, CLASSES)).astype(np.float32)
    output = Output(prediction, np.zeros((count, 2), np.float32))
    label = {"class": draws.integers(0, CLASSES, count)} if labelled else None
    return Seen(images, output, label)


@functools.cache
def begun(learner):
    found = jax.jit(learner.init)(jax.random.key(0), seen(0, count=1))
    return jax.tree.map(np.asarray, found)


@functools.cache
def stepper(learner):
    return jax.jit(learner.step)


KEY = jax.random.key(7)


def step(learner):
    return stepper(learner)(begun(learner), KEY, seen(1), seen(2, labelled=False))


# The parts, in float64.


def test_reconstruction_is_a_gaussian_likelihood_of_variance_1():
    draws = np.random.default_rng(0)
    images, found = draws.random((2, 3, 4, 4, 3))
    wanted = -norm.logpdf(images, found, 1).sum(axis=(1, 2, 3))
    wanted -= images[0].size * log(2 * np.pi) / 2
    got = adversarial.reconstruction(jnp.asarray(images), jnp.asarray(found))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_divergence_is_that_of_gaussians():
    # Of one dimension by quadrature, for two they add up.
    code = Code(np.array([[0.3, -1.2]]), np.array([[0.5, -0.8]]))
    grid = np.linspace(-12, 12, 100_001)
    wanted = 0.0
    for mean, variance in zip(code.mean[0], np.exp(code.log_variance[0]), strict=True):
        p = norm.pdf(grid, mean, np.sqrt(variance))
        log_p = norm.logpdf(grid, mean, np.sqrt(variance))
        wanted += np.trapezoid(p * (log_p - norm.logpdf(grid)), grid)
    np.testing.assert_allclose(adversarial.divergence(code), [wanted], rtol=1e-5)
    zero = Code(jnp.zeros((1, 4)), jnp.zeros((1, 4)))
    assert adversarial.divergence(zero).tolist() == [0.0]


def test_surprise_is_the_cross_entropy_of_a_state():
    odds = np.array([-3.0, 0.2, 40.0, -90.0])
    state = np.array([1.0, 0.3, 0.9, 0.0])
    p = 1 / (1 + np.exp(-odds))
    with np.errstate(divide="ignore"):
        wanted = -state * np.log(p) - (1 - state) * np.log1p(-p)
    wanted[2] = 0.1 * 40  # where 1 - p is no float
    got = adversarial.surprise(odds, state)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-30)


def test_both_parts_of_a_batch_count_by_their_means():
    values = jnp.array([1.0, 3.0, 10.0, 20.0, 30.0])
    assert adversarial.of_both(values, 2) == 2 + 20


# A step, written out again.


def apply(learner, learnt, part, module, *arguments):
    return module.apply(
        {
            "params": learnt["generator"][part],
            "batch_stats": learnt["statistics"][part],
        },
        *arguments,
        train=True,
        mutable=["batch_stats"],
    )[0]


def softplus(x):
    return np.logaddexp(0, np.asarray(x, np.float64))


def written_out(learner, learnt, key):
    """What the step tells, by NumPy from what the networks say."""
    images = np.concatenate([seen(1).images, seen(2).images])
    code = apply(learner, learnt, "encoder", learner.encoder, images)
    points = autoencoder.sample(key, code)
    decoder = learner.decoder(SIZE)
    decoded = apply(learner, learnt, "decoder", decoder, points[:, : learner.latents])
    mean, log_variance = (np.asarray(part, np.float64) for part in code)
    errors = 0.5 * ((images - np.asarray(decoded, np.float64)) ** 2).sum(axis=(1, 2, 3))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
    odds = learner.discriminator.apply(
        {"params": learnt["discriminator"]}, jnp.asarray(code.mean)
    )

    def both(values):
        return values[:COUNT].mean() + values[COUNT:].mean()

    return {
        "reconstruction_loss": both(errors),
        "divergence": both(kl),
        "adversarial_loss": both(softplus(-odds)),
    }, points


@pytest.mark.slow
@pytest.mark.parametrize("learner", [LEARNER, RELABELLING])
def test_the_generator_minimises_the_papers_sum(learner):
    learnt = begun(learner)
    wanted, points = written_out(learner, learnt, KEY)
    _, told = step(learner)
    for name, value in wanted.items():
        np.testing.assert_allclose(told[name], value, rtol=1e-4, err_msg=name)
    total = 1.3 * (wanted["reconstruction_loss"] + 0.7 * wanted["divergence"])
    total += 2.5 * wanted["adversarial_loss"]
    if learner is RELABELLING:
        layer = learnt["generator"]["labels"]
        said = np.asarray(points[:COUNT, 3:]) @ layer["kernel"] + layer["bias"]
        said = said - np.log(np.exp(said).sum(axis=1, keepdims=True))
        loss = -said[np.arange(COUNT), seen(1).label["class"]].mean()
        np.testing.assert_allclose(told["supervised_loss"], loss, rtol=1e-4)
        total += 0.6 * loss
    np.testing.assert_allclose(told["loss"], total, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("learner", [LEARNER, RELABELLING])
def test_the_discriminator_learns_from_the_codes_of_the_generator_after_its_step(
    learner,
):
    learnt = begun(learner)
    after, told = step(learner)
    # The same statistics as in the generator's step, weights of after it.
    moved = {**learnt, "generator": after["generator"]}
    images = np.concatenate([seen(1).images, seen(2).images])
    code = apply(learner, moved, "encoder", learner.encoder, images)
    odds = np.asarray(
        learner.discriminator.apply({"params": learnt["discriminator"]}, code.mean)
    )
    states = np.zeros(COUNT)
    if learner is RELABELLING:
        states = 1 - np.array(
            [slow_indicator(p) for p in softmax(seen(2).output.prediction / 2.0)]
        )
    of_labelled = softplus(-odds[:COUNT]).mean()
    rest = odds[COUNT:]
    of_others = (states * softplus(-rest) + (1 - states) * softplus(rest)).mean()
    np.testing.assert_allclose(
        told["discriminator_loss"], of_labelled + of_others, rtol=1e-4
    )


def test_each_has_an_adam_of_its_own_at_the_learning_rate():
    # The first step of Adam is the learning rate wherever the gradient is large.
    learnt = begun(LEARNER)
    after, _ = step(LEARNER)
    for part in ("generator", "discriminator"):
        moves = jax.tree.map(lambda a, b: np.abs(a - b), after[part], learnt[part])
        every = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moves)])
        moved = every[every > 1e-5]  # the others are of units that say nothing
        assert len(moved) > 0.3 * len(every)
        np.testing.assert_allclose(np.median(moved), 5e-4, rtol=1e-2)
        assert moved.max() < 5.01e-4
        count = after[f"{part}_optimizer"][0].count
        assert int(count) == 1


@pytest.mark.slow
def test_the_generator_misleads_the_discriminator_and_not_the_other_way_round():
    only = dataclasses.replace(
        LEARNER, weights=Weights(beta=0.0, representation=0.0, adversarial=1.0)
    )
    learnt, told = begun(only), []
    for number in range(60):
        pair = seen(1), seen(2, labelled=False)
        key = jax.random.fold_in(KEY, number)
        new, found = stepper(only)(learnt, key, *pair)
        # The discriminator stays: what is left is the generator's doing.
        learnt = {
            **new,
            "discriminator": learnt["discriminator"],
            "discriminator_optimizer": learnt["discriminator_optimizer"],
        }
        told.append(float(found["adversarial_loss"]))
    assert told[-1] < 0.8 * told[0]
    decoder = learnt["generator"]["decoder"]
    np.testing.assert_array_equal(
        decoder["conv0"]["kernel"],
        begun(only)["generator"]["decoder"]["conv0"]["kernel"],
    )


@pytest.mark.slow
def test_a_discriminator_tells_two_kinds_of_images_apart():
    learner = dataclasses.replace(
        LEARNER, weights=Weights(beta=1.0, representation=1.0, adversarial=0.1)
    )
    learner = dataclasses.replace(learner, learning_rate=5e-3)
    learnt = begun(learner)
    first = None
    for number in range(150):
        dark = seen(number, high=0.6)
        light = seen(1000 + number, labelled=False, low=0.4)
        learnt, told = stepper(learner)(
            learnt, jax.random.fold_in(KEY, number), dark, light
        )
        first = told if first is None else first
    assert told["reconstruction_loss"] < 0.5 * first["reconstruction_loss"]
    variables = learner.variables(learnt)
    say = jax.jit(learner.describe)
    labelled = say(variables, seen(5000, high=0.6, count=64))["log_odds"]
    others = say(variables, seen(5001, low=0.4, count=64))["log_odds"]
    # Share of pairs in which the labelled one has more.
    assert np.mean(labelled[:, None] > others[None]) > 0.95
    assert np.mean(np.concatenate([labelled > 0, others < 0])) > 0.9


# The indicator of SRAAL.


def softmax(x):
    found = np.exp(x - x.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def slow_indicator(p):
    p = np.asarray(p, np.float64)
    flat = np.full(len(p), (1 - p.max()) / (len(p) - 1))
    flat[0] = p.max()
    least, variance = flat.var(), p.var()
    return 1 - (least / variance if variance > 0 else 1) * p.max()


@pytest.mark.parametrize("values", [2, 3, 10, 64])
def test_the_indicator_is_by_maximum_and_variance(values):
    draws = np.random.default_rng(values)
    found = softmax(3 * draws.normal(size=(20, values)))
    wanted = [slow_indicator(p) for p in found]
    got = [float(indicator(jnp.asarray(p)[None])) for p in found]
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)
    assert min(got) >= 0 and max(got) <= 1


def test_no_vector_of_the_same_maximum_has_a_smaller_variance():
    draws = np.random.default_rng(0)
    for _ in range(200):
        rest = draws.dirichlet(np.ones(4)) * 0.5
        if rest.max() < 0.5:
            assert np.var([0.5, *rest]) >= np.var([0.5, *[0.125] * 4]) - 1e-12


def test_the_indicator_of_extremes():
    assert float(indicator(jnp.eye(4)[:1])) == 0
    assert float(indicator(jnp.full((1, 4), 0.25))) == 0.75
    # The second coming nearer makes it larger, at the same maximum.
    near, far = jnp.array([[0.5, 0.4, 0.1]]), jnp.array([[0.5, 0.25, 0.25]])
    assert indicator(near) > indicator(far)
    both = jnp.concatenate([near, far])
    np.testing.assert_allclose(
        indicator(both), (indicator(near) + indicator(far)) / 2, rtol=1e-6
    )


# Options.


@pytest.mark.parametrize("method", [Vaal, Sraal])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"batch": 0}, "batch=0 must be at least 1"),
        ({"latents": 0}, "latents=0 must be at least 1"),
        ({"size": -1}, "size=-1 must be at least 0"),
        ({"beta": -0.5}, "beta=-0.5 must be at least 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(method, change, message):
    name = method.__name__.lower()
    with pytest.raises(ConfigError, match=rf"acquisition\.{name}\.{message}"):
        method(**change)


def test_options_reach_the_learner():
    found = Vaal(beta=0.1, representation=0.2, adversarial=0.3, size=16).needs(None)
    learner = found.companion.learner
    assert learner.weights == Weights(beta=0.1, representation=0.2, adversarial=0.3)
    assert (learner.size, learner.latents, learner.width) == (16, 32, 128)
    assert learner.learning_rate == 5e-4
    assert (found.companion.steps, found.companion.batch) == (39_000, 128)
    task = Classes()
    learner = Sraal(supervised=0.4, label_latents=7).needs(task).companion.learner
    assert learner.task is task and learner.supervised == 0.4
    assert learner.encoder.latents == 39
    with pytest.raises(ConfigError, match="label_latents=0 must be at least 1"):
        Sraal(label_latents=0)
    with pytest.raises(ConfigError, match="normalised"):
        Sraal(posterior="normalised").check(task, num_trained=9, budget=3)
