"""How much several predictions of one image differ."""

import jax
import numpy as np
import pytest

from jalpose.acquisition.parts import committees
from jalpose.models.output import Output
from tests.support import small

KEY = jax.random.key(3)
MEASURES = pytest.mark.parametrize("measure", small.TASK.measures)


def predictions(count=5, seed=0):
    maps = np.random.default_rng(seed).normal(0, 10, (count, 2, 8, 8, 3))
    return Output(maps.astype(np.float32), np.zeros((count, 2), np.float32))


def variance(output, measure):
    fn = committees.disagreement(small.TASK, measure)
    assert fn is committees.disagreement(small.TASK, measure)  # compiled once
    return jax.jit(fn)(output, KEY)["variance"]


def test_heatmaps_differ_by_their_variance():
    output = predictions()
    found = variance(output, "prediction")
    last = output.prediction[:, -1].astype(np.float64)
    wanted = [np.mean(np.var(last[..., j], axis=0)) for j in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_joints_differ_by_the_variance_of_their_highest_pixels():
    output = predictions()
    found = variance(output, "decoded")
    wanted = []
    for j in range(3):
        places = [
            np.unravel_index(np.argmax(maps[-1, :, :, j]), (8, 8))
            for maps in output.prediction
        ]
        wanted.append(np.var([y for y, _ in places]) + np.var([x for _, x in places]))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@MEASURES
def test_equal_predictions_do_not_differ(measure):
    output = jax.tree.map(lambda leaf: np.repeat(leaf, 4, axis=0), predictions(1))
    found = variance(output, measure)
    np.testing.assert_allclose(found, 0, atol=1e-10)


@MEASURES
def test_a_map_with_a_nan_makes_the_difference_nan_for_its_joint_alone(measure):
    output = predictions()
    output.prediction[2, -1, 3, 4, 1] = np.nan
    found = variance(output, measure)
    assert np.isnan(found).tolist() == [False, True, False]
