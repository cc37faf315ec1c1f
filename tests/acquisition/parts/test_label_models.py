"""Linear models and Gaussian processes against plain formulas; bad designs refused."""

import functools
import itertools

import numpy as np
import pytest

from jalpose.acquisition.parts import label_models as lm
from jalpose.acquisition.parts.label_models import Kernel
from jalpose.data.source import DataError


def rows(count=12, columns=3, seed=0):
    draws = np.random.default_rng(seed)
    inputs = np.c_[np.ones(count), draws.normal(size=(count, columns - 1))]
    targets = inputs @ np.arange(1, columns + 1) + 0.3 * draws.normal(size=count)
    return inputs, targets, draws.normal(size=(5, columns))


def test_least_squares_as_its_formulas_have_it():
    inputs, targets, queries = rows()
    inverse = np.linalg.inv(inputs.T @ inputs)
    weights = inverse @ inputs.T @ targets
    noise = np.sum((targets - inputs @ weights) ** 2) / (12 - 3)
    spread = np.einsum("mp,pq,mq->m", queries, inverse, queries)
    found = lm.linear(inputs, targets, queries)
    np.testing.assert_allclose(found.means, queries @ weights, rtol=1e-10)
    np.testing.assert_allclose(found.variances, noise * (1 + spread), rtol=1e-10)
    without = lm.linear(inputs, targets, queries, noise=False)
    np.testing.assert_allclose(without.variances, noise * spread, rtol=1e-10)


def test_a_singular_design_and_too_few_rows_are_refused():
    inputs, targets, queries = rows()
    inputs[:, 2] = 2 * inputs[:, 1]
    with pytest.raises(DataError, match="3 columns have rank 2"):
        lm.linear(inputs, targets, queries)
    with pytest.raises(DataError, match="more than 3 labelled rows"):
        lm.linear(inputs[:3], targets[:3], queries)


def test_a_process_by_the_check_values_and_at_its_own_rows():
    inputs, targets = np.array([[0.0], [1], [2.5]]), np.array([0, 1, -0.5])
    queries = np.array([[0.5], [1.75], [4]])
    found = lm.gaussian_process(inputs, targets, queries, Kernel())
    np.testing.assert_allclose(found.means, [0.625369, 0.475392, -0.344661], atol=1e-6)
    np.testing.assert_allclose(
        found.variances, [0.025200, 0.100385, 0.880782], atol=1e-6
    )
    noisy = lm.gaussian_process(inputs, targets, queries, Kernel(noise=0.01))
    np.testing.assert_allclose(noisy.means, [0.618737, 0.462973, -0.336331], atol=1e-6)
    np.testing.assert_allclose(
        noisy.variances, [0.031466, 0.109127, 0.882452], atol=1e-6
    )
    own = lm.gaussian_process(inputs, targets, inputs, Kernel())
    np.testing.assert_allclose(own.means, targets, atol=1e-8)
    np.testing.assert_allclose(own.variances, 0, atol=1e-8)
    far = lm.gaussian_process(inputs, targets, np.array([[99.0]]), Kernel())
    np.testing.assert_allclose([far.means[0], far.variances[0]], [0, 1], atol=1e-8)


def test_rows_that_are_there_twice_get_jitter_and_nan_an_error():
    inputs, targets = np.array([[0.0], [0], [1]]), np.array([1.0, 1, 0])
    found = lm.gaussian_process(inputs, targets, inputs, Kernel())
    np.testing.assert_allclose(found.means, targets, atol=1e-4)
    with pytest.raises(DataError, match="NaN or infinite"):
        lm.gaussian_process(inputs * np.nan, targets, inputs, Kernel())


def surprise(inputs, targets, kernel):
    """Negative log marginal likelihood, but for a constant."""
    count = len(inputs)
    matrix = lm.covariance(inputs, inputs, kernel) + kernel.noise * np.eye(count)
    _, log = np.linalg.slogdet(matrix)
    return 0.5 * (targets @ np.linalg.solve(matrix, targets) + log)


def test_no_kernel_near_by_is_likelier_than_the_one_that_is_fitted():
    draws = np.random.default_rng(0)
    inputs = draws.uniform(0, 8, (30, 1))
    true = Kernel(length=1.5, noise=0.01)
    matrix = lm.covariance(inputs, inputs, true) + 0.01 * np.eye(30)
    targets = np.linalg.cholesky(matrix) @ draws.normal(size=30)
    found = lm.fitted(inputs, targets)
    least = surprise(inputs, targets, found)
    assert least < surprise(inputs, targets, true)
    for factors in itertools.product((0.8, 1, 1.25), repeat=3):
        other = Kernel(*(f * v for f, v in zip(factors, found, strict=True)))
        assert least < surprise(inputs, targets, other) + 0.01
    assert lm.fitted(inputs, np.zeros(30)) == Kernel()


def test_bootstraps_are_fitted_one_by_one_and_never_singular():
    inputs, targets, queries = rows(count=6)
    found = lm.bootstraps(
        lm.linear,
        inputs,
        targets,
        queries,
        members=4,
        draws=np.random.default_rng(0),
    )
    assert found.means.shape == found.variances.shape == (5, 4)
    assert np.isfinite(found.variances).all()
    assert len(np.unique(found.means[0])) == 4
    process = functools.partial(lm.gaussian_process, kernel=Kernel(noise=0.1))
    draws, again = np.random.default_rng(1), np.random.default_rng(1)
    found = lm.bootstraps(process, inputs, targets, queries, members=2, draws=draws)
    drawn = again.choice(6, 6)
    first = process(inputs[drawn], targets[drawn], queries)
    np.testing.assert_array_equal(found.means[:, 0], first.means)


def test_more_members_than_rows_are_refused():
    inputs, targets, queries = rows(count=4)
    with pytest.raises(DataError, match="5 members, but only 4 labelled rows"):
        lm.bootstraps(
            lm.linear,
            inputs,
            targets,
            queries,
            members=5,
            draws=np.random.default_rng(0),
        )
