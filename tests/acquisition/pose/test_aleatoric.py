"""Aleatoric uncertainty: the largest predicted variance of the joints."""

import jax
import numpy as np
import pytest

from jalpose.acquisition.pose import objectives
from jalpose.acquisition.pose.aleatoric import Aleatoric
from tests.support import small
from tests.support.probes import GivenOutputs


def test_aleatoric_chooses_the_largest_mean_log_variance():
    variances = np.random.default_rng(0).normal(size=(6, 14)).astype(np.float32)
    ids = np.arange(100, 106)
    probe = GivenOutputs(ids.tolist(), np.zeros((6, 1, 4, 4, 14)), variances)
    found = Aleatoric().acquire(jax.random.key(0), probe, small.pool(ids), 2)
    means = variances.mean(axis=1)
    np.testing.assert_allclose(found.scores, means, rtol=1e-5, atol=1e-7)
    assert found.indices.tolist() == ids[np.argsort(-means)[:2]].tolist()
    np.testing.assert_array_equal(found.explanation["log_variances"], variances)


@pytest.mark.parametrize("published", [True, False])
def test_aleatoric_learns_by_the_likelihood_asked_for(published):
    objective = Aleatoric(published=published).needs(small.TASK).head.objective
    assert objective.func is objectives.aleatoric
    assert objective.keywords == {"task": small.TASK, "published": published}
