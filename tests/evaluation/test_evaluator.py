"""A model scored on the test set, against slow computations."""

import jax
import numpy as np
import pytest

from jalpose.data.crops import from_crop
from jalpose.runtime.throughput import Meter
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED
from jalpose.training.trainer import scale_images
from tests.support import small


def slow_pck(data, predicted, occluded, threshold):
    """PCK of predictions in image pixels, one joint after the other."""
    skeleton = data.sources[0].skeleton
    hits = {joint: [] for joint in skeleton.joints}
    images = 0
    for row, example in enumerate(data.test):
        joints, status = (data.truth[name][example] for name in ("joints", "status"))
        lengths = [
            float(np.hypot(*(joints[a].astype(float) - joints[b].astype(float))))
            for a, b in skeleton.torso
            if ABSENT not in (status[a], status[b])
        ]
        if not lengths:
            continue
        images += 1
        for j, name in enumerate(skeleton.joints):
            if status[j] == ABSENT or (status[j] == OCCLUDED and not occluded):
                continue
            away = np.hypot(*(predicted[row, j].astype(float) - joints[j]))
            hits[name].append(away < threshold * max(lengths))
    per_joint = {name: float(np.mean(found)) for name, found in hits.items()}
    return per_joint, images


@pytest.mark.parametrize("occluded", [True, False])
def test_evaluate_equals_a_slow_computation(occluded):
    threshold = 0.5  # so that an untrained network has hits
    changes = {"evaluation.threshold": threshold, "evaluation.occluded": occluded}
    context, data = small.flat_context(changes), small.dataset()
    variables = small.flat_variables()
    metrics, arrays = context.evaluator.evaluate(context.passes, variables, Meter())

    ids = data.test
    rows = small.crops(ids)
    output = small.flat_apply(variables, scale_images(rows["image"]))
    decode = jax.jit(context.task.decode)
    joints = np.stack([decode(maps)["joints"] for maps in output.prediction])
    predicted = from_crop(joints, data.windows[ids], 32)
    found = arrays["test_joints"]
    per_joint, images = slow_pck(data, found, occluded, threshold)

    np.testing.assert_array_equal(arrays["test_ids"], ids)
    np.testing.assert_allclose(arrays["test_joints"], predicted, atol=0.05)
    assert metrics["pck_per_joint"] == pytest.approx(per_joint)
    assert metrics["pck"] == pytest.approx(np.mean(list(per_joint.values())))
    assert 0 < metrics["pck"] < 1
    assert metrics["num_images"] == images
    assert metrics["num_images"] + metrics["num_left_out"] == len(ids)
    assert metrics["pck_threshold"] == threshold
    assert metrics["test_loss"] == pytest.approx(arrays["test_losses"].mean(), rel=1e-6)
    assert 0 < metrics["mean_pose_pck"] < 1
