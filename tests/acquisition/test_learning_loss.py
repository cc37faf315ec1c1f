"""Learning Loss and LL++: the largest predicted losses, the weight for poses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.learning_loss import LearningLoss
from jalpose.loop import advance, configs, run
from jalpose.loop.context import make_context
from jalpose.loop.events import Finished, StepsTaken
from jalpose.models.heads import BlocksHead, LevelsHead, StackHead
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose.heatmaps import HeatmapSpec
from jalpose.tasks.pose.losses import heatmap_loss
from jalpose.training import objectives
from tests.support import small
from tests.support.probes import GivenOutputs

FIRST = 100  # the id of the first example
KEY = jax.random.key(0)


def predicting(losses):
    """A probe of examples FIRST, FIRST + 1, ... whose head says these losses."""
    head = np.asarray(losses, np.float32)[:, None]
    ids = (FIRST + np.arange(len(head))).tolist()
    return GivenOutputs(ids, np.zeros((len(head), 1)), head)


def acquire(method, probe, ids, budget, key=KEY):
    return method.acquire(key, probe, small.pool(ids), budget)


def head_of(method):
    return method.needs(small.TASK).head


def test_the_largest_predicted_losses_are_chosen_ties_by_id():
    probe = predicting([0.5, 2.0, -1.0, 2.0, 0.7])
    found = acquire(LearningLoss(), probe, [104, 103, 102, 101, 100], 3)
    assert found.indices.tolist() == [101, 103, 104]
    np.testing.assert_allclose(found.scores, [0.7, 2.0, -1.0, 2.0, 0.5], rtol=1e-6)
    assert found.summary == {"scored": 5}


def test_the_papers_weight_for_poses_keeps_its_share_of_an_empty_answer():
    # As the module says: pi (peak sigma)^2 / 64^2 is what answering nothing costs.
    shares = []
    for peak, sigma, weight in ((1.0, 1.0, 1e-4), (30.0, 1.75, 0.28)):
        spec = HeatmapSpec(256, 64, sigma, peak)
        joint = jnp.full((1, 2), 127.0)  # in the middle
        present = jnp.ones(1, bool)
        target = spec.render(joint, present)
        empty = float(heatmap_loss(jnp.zeros((2, 64, 64, 1)), target, present))
        assert empty == pytest.approx(math.pi * (peak * sigma) ** 2 / 64**2, rel=1e-3)
        shares.append(weight / empty)
        assert weight == pytest.approx(1e-4 * (peak * sigma) ** 2, rel=0.02)
    assert shares[0] == pytest.approx(shares[1], rel=0.02)
    config = configs.default()
    assert (config.heatmap.peak, config.heatmap.sigma) == (30.0, 1.75)


def test_learning_loss_needs_what_its_options_name():
    ranked = head_of(LearningLoss(objective="margin", head="stacks", margin=0.5))
    assert ranked.module == StackHead(1)
    assert ranked.objective.func is objectives.margin_ranking
    assert ranked.objective.keywords == {"margin": 0.5}
    ranked = head_of(LearningLoss(objective="kl", head="conv", weight=2.0))
    assert ranked.module == LevelsHead(1) and ranked.weight == 2.0
    assert ranked.objective is objectives.pair_kl
    variant = head_of(LearningLoss(objective="mse", head="blocks", weight=0.1))
    assert variant.module == BlocksHead(1) and variant.weight == 0.1
    assert variant.objective is objectives.squared_error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "mae"}, "objective: 'mae'. .*Known: margin, kl, mse"),
        ({"margin": 0.0}, "margin=0.0 must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.learning_loss\.{message}"):
        LearningLoss(**changes)


@pytest.mark.slow
def test_the_papers_protocol_on_classes_goes_all_the_way():
    # SGD for network and head, a drop, all labels trained on; attached, then not.
    delta = {
        "data.name": "shapes",
        "data.size": 16,
        "model.width": 4,
        "training.optimizer": "sgd",
        "training.learning_rate": 0.02,
        "training.weight_decay": 5e-4,
        "training.schedule": "steps",
        "training.drop_steps": (3,),
        "training.heldout": "none",
        "training.keep": "last",
        "training.base_steps": 0,
        "training.base_epochs": 1,
        "training.cycle_steps": 2,
        "acquisition.learning_loss.detach_after": 0.4,
        "acquisition.pieces": 10**9,
        "evaluation.true_norms": False,
        "loop.cycles": 1,
        "output.images": 0,
    }
    config = configs.assemble(
        "scale=tiny,method=learning_loss",
        name="shapes",
        task="classification",
        delta=delta,
        method="random",
    )
    configs.check(config)
    context = make_context(config, run.load_dataset(config), small.programs())
    assert context.method == LearningLoss("margin", "blocks", detach_after=0.4, steps=6)
    state = advance.start(context)
    assert set(state.phase.train.head) == {"block0", "block1", "block2", "out"}
    before = small.copied(state.phase.train.head)
    state, events = small.advance_until(state, context, Finished)
    # 40 labels in batches of 8.
    steps = [e for e in events if isinstance(e, StepsTaken)]
    assert [(e.cycle, e.step) for e in steps] == [(0, 4), (0, 5), (1, 2)]
    assert all({"loss", "head_loss"} <= set(e.means) for e in steps)
    assert all(e.heldout_loss is None for e in steps)
    after = small.copied(state.phase.variables["head"])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, before, after)
    assert not moved["out"].pop("bias")  # of no difference of two predictions
    assert all(jax.tree.leaves(moved))
    assert len(state.labelled) == 48
