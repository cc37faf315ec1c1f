"""The JAX half of classes against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jalpose.tasks.classification.task import ClassTask
from jalpose.tasks.task import CAPABILITIES, CandidateOptions, lacking

CLASSES = 5
TASK = ClassTask(size=8, num_classes=CLASSES)
ALL = CandidateOptions(peaks=1000, min_distance=5, posterior="softmax", temperature=1.0)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (6, CLASSES)).astype(np.float32)


def label(number):
    return {"class": np.array(number, np.int32)}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(logits, smoothing):
    task = ClassTask(size=8, num_classes=CLASSES, smoothing=smoothing)
    for row in logits:
        logs = special.log_softmax(row.astype(np.float64))
        for number in range(CLASSES):
            shares = np.full(CLASSES, smoothing / CLASSES)
            shares[number] += 1 - smoothing
            found = task.loss(row, task.target(label(number)))
            assert float(found) == pytest.approx(-(shares * logs).sum(), rel=1e-5)


def test_an_unknown_class_has_no_loss_and_no_gradient(logits):
    target = TASK.target(label(-1))
    assert not TASK.known(target) and TASK.known(TASK.target(label(0)))
    loss, gradient = jax.value_and_grad(TASK.loss)(jnp.asarray(logits[0]), target)
    assert loss == 0 and not np.asarray(gradient).any()


def test_logits_far_apart_have_a_finite_loss_and_gradient():
    far = jnp.array([1e4, 0.0, -1e4, 0.0, 0.0])
    loss, gradient = jax.value_and_grad(TASK.loss)(far, TASK.target(label(2)))
    assert float(loss) == pytest.approx(2e4)
    np.testing.assert_allclose(gradient, [1, 0, -1, 0, 0], atol=1e-6)


def test_what_is_decoded(logits):
    for row in logits:
        found = TASK.decode(row)
        assert found["class"] == row.argmax() and found["class"].dtype == np.int32
        np.testing.assert_allclose(
            found["probabilities"], special.softmax(row), rtol=1e-5
        )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_posterior_is_one_site_of_all_classes(logits, temperature):
    for row in logits:
        expected = special.softmax(row.astype(np.float64) / temperature)
        found = TASK.posterior(row, "softmax", temperature)
        assert found.shape == (1, CLASSES)
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)
        logs = TASK.posterior(row, "softmax", temperature, log=True)
        np.testing.assert_allclose(logs[0], np.log(expected), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="normalised"):
        TASK.posterior(logits[0], "normalised", 1.0)


def test_disagreement_of_predictions(logits):
    shares = special.softmax(logits.astype(np.float64), axis=1)
    found = TASK.disagreement(logits, "prediction")
    np.testing.assert_allclose(found, [shares.var(axis=0).sum()], rtol=1e-5)
    np.testing.assert_allclose(TASK.disagreement(logits[:1], "prediction"), [0])


def test_disagreement_of_votes():
    votes = np.eye(CLASSES, dtype=np.float32)[[0, 0, 0, 1, 2, 2]]
    np.testing.assert_allclose(TASK.disagreement(votes, "decoded"), [0.5])
    np.testing.assert_allclose(TASK.disagreement(votes[:3], "decoded"), [0])
    votes[1, 3] = np.nan
    assert np.isnan(TASK.disagreement(votes, "decoded")).all()


def test_the_predicted_target_has_no_gradient_of_its_own(logits):
    row = logits[0]
    target = TASK.predicted_target(row, label(3))
    np.testing.assert_allclose(target[0], special.softmax(row), rtol=1e-5)
    assert bool(target[1]) and not TASK.predicted_target(row, label(-1))[1]
    gradient = jax.grad(TASK.loss)(jnp.asarray(row), target)
    np.testing.assert_allclose(gradient, np.zeros(CLASSES), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_candidates_are_all_classes_each_as_probable_as_it_is(logits, smoothing):
    task = ClassTask(size=8, num_classes=CLASSES, smoothing=smoothing)
    labels = task.candidates(ALL)
    assert task.candidates(ALL) is labels  # compiled once
    found = jax.vmap(labels.find)(logits)
    weights = labels.weights(found)
    assert weights.shape == (len(logits), CLASSES)
    for row, expected in enumerate(special.softmax(logits.astype(np.float64), axis=1)):
        one = {name: values[row] for name, values in found.items()}
        shares, known = labels.targets(one)
        assert known.all()
        for candidate in range(CLASSES):
            number = int(one["candidates"][candidate])
            np.testing.assert_allclose(
                shares[candidate], task.target(label(number))[0], rtol=1e-6
            )
            assert weights[row, candidate] == pytest.approx(expected[number], rel=1e-4)
    arrays, summary = labels.explain({k: np.asarray(v) for k, v in found.items()})
    assert arrays == {} and summary["candidates"] == CLASSES


def test_the_expectation_over_candidates_is_that_over_all_classes(logits):
    # Of logits that are the parameters themselves the squared gradient norm of class y
    # is |p - e_y|^2.
    labels = TASK.candidates(ALL)
    for row in logits:
        shares = special.softmax(row.astype(np.float64))
        slow = sum(
            shares[y] * ((shares - np.eye(CLASSES)[y]) ** 2).sum()
            for y in range(CLASSES)
        )
        found = labels.find(row)
        squares = [
            float(jnp.sum(jax.grad(labels.loss)(jnp.asarray(row), (share, known)) ** 2))
            for share, known in zip(*labels.targets(found), strict=True)
        ]
        fast = np.dot(
            labels.weights({k: v[None] for k, v in found.items()})[0], squares
        )
        assert fast == pytest.approx(slow, rel=1e-4)


def test_fewer_candidates_are_the_likeliest():
    labels = TASK.candidates(ALL._replace(peaks=2))
    row = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))
    found = labels.find(row)
    assert found["candidates"].tolist() == [1, 3]
    np.testing.assert_allclose(found["shares"], [4 / 7, 3 / 7], rtol=1e-5)
    arrays, summary = labels.explain({k: v[None] for k, v in found.items()})
    assert arrays["candidates"].tolist() == [[1, 3]] and summary["candidates"] == 2


def test_equal_tasks_are_one_and_what_it_lacks_is_named():
    assert ClassTask(size=8, num_classes=CLASSES) == TASK
    assert hash(ClassTask(size=8, num_classes=CLASSES)) == hash(TASK)
    assert lacking(TASK, tuple(CAPABILITIES)) == (
        "illustrate",
        "moments",
        "skeleton",
    )
    assert TASK.label_shapes["class"].shape == () and TASK.num_outputs == CLASSES
