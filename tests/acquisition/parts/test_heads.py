"""What methods with a head have in common: needs, objectives, options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.learning_loss import LearningLoss
from jalpose.acquisition.pose.aleatoric import Aleatoric
from jalpose.acquisition.pose.vl4pose import Vl4Pose
from jalpose.models.heads import AverageHead
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose.skeletons import LSP
from jalpose.tasks.pose.task import PoseTask
from jalpose.training import objectives
from tests.support import small
from tests.support.probes import GivenOutputs

METHODS = pytest.mark.parametrize("method", [LearningLoss, Aleatoric, Vl4Pose])
MPII = dataclasses.replace(LSP, name="mpii16", joints=(*LSP.joints, "pelvis", "thorax"))


def head_of(method, skeleton=LSP, **options):
    task = PoseTask(skeleton=skeleton, spec=small.SPEC)
    return method(head="average", **options).needs(task).head


@METHODS
@pytest.mark.parametrize("skeleton", [LSP, MPII], ids=lambda s: s.name)
def test_equal_options_need_equal_heads(method, skeleton):
    options = {"weight": 1.0, "detach_after": 0.0, "steps": 10}
    first, second = (head_of(method, skeleton, **options) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert (first.weight, first.detach_after, first.steps) == (1.0, 0.0, 10)
    assert head_of(method, skeleton, **{**options, "detach_after": 3.0}) != first
    joints = skeleton.num_joints
    outputs = {LearningLoss: 1, Aleatoric: joints, Vl4Pose: 2 * (joints - 1)}
    assert first.module == AverageHead(outputs[method])


@METHODS
def test_objectives_take_the_outputs_of_their_heads(method):
    head = head_of(method)
    maps = np.ones((4, 2, 8, 8, 14), np.float32)
    label = {"joints": np.ones((4, 14, 2), np.float32)}
    label["status"] = np.ones((4, 14), np.int8)
    truth = objectives.Truth(np.ones(4, np.float32), np.ones(4, bool), maps, label)
    outputs = jnp.zeros((4, head.module.outputs))
    assert jax.eval_shape(head.objective, outputs, truth).shape == ()


@METHODS
def test_scores_that_are_not_finite_are_refused_by_id(method):
    head = np.zeros((3, 26), np.float32)
    head[1] = np.nan
    ids = [100, 101, 102]
    probe = GivenOutputs(ids, np.zeros((3, 1, 4, 4, 14), np.float32), head)
    with pytest.raises(FloatingPointError, match="id 101"):
        method().acquire(jax.random.key(0), probe, small.pool(ids), 1)


@METHODS
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"head": "averge"},
            r"head: 'averge'\. .*Known: stacks",
        ),
        ({"weight": 0.0}, r"weight=0.0 must be above 0"),
        ({"detach_after": -1.0}, r"detach_after=-1.0 must not be negative"),
        ({"steps": 0}, r"steps=0 must be at least 1"),
    ],
)
def test_a_shared_option_that_cannot_work_is_refused(method, changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.\w+\.{message}"):
        method(**changes)
