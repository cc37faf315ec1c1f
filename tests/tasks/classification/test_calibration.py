"""Likelihood, calibration and accuracy by class against slow sums."""

import numpy as np
import pytest

from jalpose.tasks.classification import calibration

COUNT, CLASSES = 200, 4


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.5), COUNT).astype(np.float32)
    return probabilities, rng.integers(0, CLASSES, COUNT)


def test_negative_log_likelihood(drawn):
    probabilities, labels = drawn
    slow = np.mean([-np.log(float(p[y])) for p, y in zip(*drawn, strict=True)])
    found = calibration.negative_log_likelihood(probabilities, labels)
    assert found == pytest.approx(slow)


def test_a_probability_of_nothing_counts_as_the_least_there_is():
    found = calibration.negative_log_likelihood(np.array([[0.0, 1.0]]), np.array([0]))
    assert found == pytest.approx(87.33655)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_expected_calibration_error(drawn, bins):
    probabilities, labels = drawn
    right = probabilities.argmax(axis=1) == labels
    confidence = probabilities.max(axis=1)
    slow = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        own = (confidence > low) & (confidence <= high)
        if own.any():
            gap = abs(right[own].mean() - confidence[own].mean(dtype=np.float64))
            slow += own.mean() * gap
    found = calibration.expected_calibration_error(probabilities, right, bins)
    assert found == pytest.approx(slow, abs=1e-9)


def test_the_calibration_of_who_is_sure_and_of_who_says_how_often_he_is_right():
    sure = np.tile(np.array([1.0, 0.0]), (10, 1))
    right = np.arange(10) < 6
    found = calibration.expected_calibration_error(sure, right, 15)
    assert found == pytest.approx(0.4)
    honest = np.tile(np.array([0.6, 0.4]), (10, 1))
    found = calibration.expected_calibration_error(honest, right, 15)
    assert found == pytest.approx(0)


def test_accuracy_of_classes(drawn):
    probabilities, labels = drawn
    right = probabilities.argmax(axis=1) == labels
    found = calibration.accuracy_of_classes(right, labels, CLASSES + 1)
    for number in range(CLASSES):
        assert found[number] == pytest.approx(right[labels == number].mean())
    assert np.isnan(found[CLASSES])
