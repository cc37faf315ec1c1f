"""Variances of joints and lengths of links: slow oracles, gradients at the edges."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jalpose.acquisition.pose.objectives import aleatoric, link_length
from jalpose.tasks.pose import heatmaps
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE
from jalpose.training.objectives import Truth
from tests.support import small
from tests.training.test_objectives import draws, fitted, value_and_grad


class Positions:
    """What objectives ask of the task, of predictions that are positions.

    All in heatmap pixels.
    """

    def in_map(self, xy):
        return xy

    def present(self, label):
        return label["status"] != ABSENT

    def errors(self, prediction, label):
        return prediction, label["joints"], self.present(label)


TASK = Positions()


def truth_of(predicted, joints, present):
    status = np.where(present, VISIBLE, ABSENT).astype(np.int8)
    losses = np.zeros(len(joints), np.float32)
    label = {"joints": joints, "status": status}
    return Truth(losses, present.any(axis=1), predicted, label)


def present(truth):
    return truth.label["status"] != ABSENT


def with_joints(truth, joints):
    return truth._replace(label={**truth.label, "joints": joints})


def poses(batch=3, joints=5, seed=0, absent=((0, 1), (2, 3), (2, 4))):
    """Labels and predictions in heatmap pixels; absent joints are NaN."""
    rng = np.random.default_rng(seed)
    label = rng.uniform(0, 63, (batch, joints, 2)).astype(np.float32)
    predicted = np.round(label + rng.normal(size=label.shape)).astype(np.float32)
    present = np.ones((batch, joints), bool)
    for place in absent:
        present[place], label[place] = False, np.nan
    return truth_of(predicted, label, present)


def test_aleatoric_is_the_likelihood_of_a_gaussian_in_the_plane():
    truth, s = poses(), draws(3, 5)
    each = [
        -stats.multivariate_normal.logpdf(
            truth.prediction[b, j], truth.label["joints"][b, j], math.exp(s[b, j])
        )
        for b, j in zip(*np.nonzero(present(truth)), strict=True)
    ]
    found, gradient = value_and_grad(aleatoric, s, truth, task=TASK)
    assert found + math.log(2 * math.pi) == pytest.approx(np.mean(each), rel=1e-5)
    assert not gradient[~present(truth)].any() and gradient[present(truth)].all()


def test_the_published_aleatoric_objective_has_half_of_s():
    truth, s = poses(), draws(3, 5)
    ours, _ = value_and_grad(aleatoric, s, truth, task=TASK)
    theirs, _ = value_and_grad(aleatoric, s, truth, task=TASK, published=True)
    half = np.asarray(s)[present(truth)].mean() / 2
    assert ours - theirs == pytest.approx(half, abs=1e-4)


@pytest.mark.parametrize(("published", "divisor"), [(False, 2), (True, 1)])
def test_the_best_variance_is_that_of_a_coordinate(published, divisor):
    truth = poses(absent=())
    squared = np.square(truth.prediction - truth.label["joints"]).sum(axis=-1)
    assert (squared > 1e-3).all()
    s = jnp.log(squared / divisor)
    _, gradient = value_and_grad(aleatoric, s, truth, task=TASK, published=published)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


LINKS = ((0, 1), (1, 2), (1, 3), (3, 4))


def test_link_length_is_the_likelihood_of_the_labels_distances():
    truth, outputs = poses(), draws(3, 8) * 3
    means, variances = outputs[:, :4], np.exp(outputs[:, 4:])
    each = []
    for b in range(3):
        for i, (parent, child) in enumerate(LINKS):
            if present(truth)[b, parent] and present(truth)[b, child]:
                length = np.linalg.norm(
                    truth.label["joints"][b, parent] - truth.label["joints"][b, child]
                )
                sd = math.sqrt(variances[b, i])
                each.append(-stats.norm.logpdf(length, means[b, i], sd))
    assert len(each) == 7  # of 12
    found, gradient = value_and_grad(
        link_length, outputs, truth, task=TASK, links=LINKS
    )
    constant = 0.5 * math.log(2 * math.pi)
    assert found + constant == pytest.approx(np.mean(each), rel=1e-5)
    assert (gradient != 0).sum() == 14


@pytest.mark.parametrize(
    ("objective", "outputs", "options"),
    [(aleatoric, 5, {}), (link_length, 8, {"links": LINKS})],
)
def test_labels_without_joints_leave_no_trace(objective, outputs, options):
    truth = poses()
    nowhere = np.full_like(truth.label["joints"], np.nan)
    empty = truth_of(truth.prediction, nowhere, np.zeros((3, 5), bool))
    found = value_and_grad(objective, draws(3, outputs), empty, task=TASK, **options)
    value, gradient = found
    assert value == 0 and not gradient.any()


def test_joints_on_one_spot_have_a_finite_gradient():
    truth = poses(absent=())
    truth = with_joints(truth, truth.prediction * 0)
    value_and_grad(link_length, jnp.zeros((3, 8)), truth, task=TASK, links=LINKS)
    truth = truth._replace(prediction=truth.label["joints"])
    value_and_grad(aleatoric, draws(3, 5), truth, task=TASK)


def test_of_poses_joints_are_in_heatmap_pixels_and_predicted_at_the_highest():
    """As `Positions` of the same places, labels in crop pixels, predictions maps."""
    truth = poses(joints=14, absent=((0, 1), (2, 3), (2, 4)))
    joints = truth.label["joints"] / np.float32(9)  # in the crop, of a map of 8
    places = np.clip(np.round(truth.prediction / 9), 0, 7).astype(int)
    wanted = with_joints(truth, joints)._replace(prediction=places.astype(np.float32))
    maps = np.zeros((3, 2, 8, 8, 14), np.float32)
    each, joint = np.indices((3, 14))
    maps[:, 0, 0, 0] = 2  # of the stack before the last
    maps[each, 1, places[..., 1], places[..., 0], joint] = 1
    in_crop = np.nan_to_num(np.asarray(heatmaps.heatmap_to_crop(joints, 32, 8)))
    given = with_joints(truth, in_crop)._replace(prediction=maps)
    for objective, said, options in (
        (aleatoric, draws(3, 14), {}),
        (link_length, draws(3, 8), {"links": LINKS}),
    ):
        one = value_and_grad(objective, said, given, task=small.TASK, **options)
        other = value_and_grad(objective, said, wanted, task=TASK, **options)
        assert one[0] == pytest.approx(other[0], rel=1e-5)
        np.testing.assert_allclose(one[1], other[1], rtol=1e-4, atol=1e-7)


def test_a_head_learns_the_variance_of_each_joint():
    embeddings = draws(512, 2)
    log_variance = np.stack([embeddings[:, 0], 1 - embeddings[:, 1]], axis=1)
    errors = draws(512, 2, 2, seed=5) * np.exp(log_variance / 2)[..., None]
    truth = truth_of(errors, np.zeros_like(errors), np.ones((512, 2), bool))
    objective = functools.partial(aleatoric, task=TASK)
    found = np.asarray(fitted(objective, truth, embeddings, 2))
    assert np.corrcoef(found.ravel(), np.ravel(log_variance))[0, 1] > 0.9
    assert abs(np.mean(found - log_variance)) < 0.2
