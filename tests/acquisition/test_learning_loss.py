"""Learning Loss and LL++: the largest predicted losses, of a sub-pool too."""

import jax
import numpy as np
import pytest

from jalpose.acquisition.learning_loss import LearningLoss
from jalpose.loop import advance, configs, run
from jalpose.loop.context import make_context
from jalpose.loop.events import Finished, StepsTaken
from jalpose.models.heads import BlocksHead, LevelsHead, StackHead
from jalpose.settings.checks import ConfigError
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


def draw_sub_pool(ids, key=KEY, budget=10, sub_pool=40):
    """Which of `ids` are scored, and the selection."""
    probe = predicting(np.arange(200.0))
    found = acquire(LearningLoss(sub_pool=sub_pool), probe, ids, budget, key)
    (asked,) = probe.asked
    return asked, found


def test_only_the_sub_pool_is_scored():
    ids = np.random.default_rng(0).permutation(200) + FIRST
    asked, found = draw_sub_pool(ids)
    assert len(set(asked.tolist())) == 40 and np.isin(asked, ids).all()
    # The losses go up with the ids.
    assert found.indices.tolist() == sorted(asked.tolist())[:-11:-1]
    inside = np.isin(ids, asked)
    np.testing.assert_array_equal(found.scores[inside], ids[inside] - FIRST)
    assert found.scores.shape == (200,) and np.isnan(found.scores[~inside]).all()
    assert found.summary == {"scored": 40}


def test_the_sub_pool_goes_by_key_and_id_alone():
    ids = np.arange(200) + FIRST
    asked, _ = draw_sub_pool(ids)
    shuffled, _ = draw_sub_pool(np.random.default_rng(1).permutation(ids))
    assert sorted(asked.tolist()) == sorted(shuffled.tolist())
    other, _ = draw_sub_pool(ids, jax.random.key(1))
    assert sorted(asked.tolist()) != sorted(other.tolist())
    # Without an example outside it, the same are drawn.
    outside = np.setdiff1d(ids, asked)
    fewer, _ = draw_sub_pool(np.setdiff1d(ids, outside[:5]))
    assert sorted(asked.tolist()) == sorted(fewer.tolist())


@pytest.mark.parametrize("sub_pool", [0, 200, 500])
def test_a_sub_pool_of_all_is_all(sub_pool):
    asked, found = draw_sub_pool(np.arange(200) + FIRST, sub_pool=sub_pool)
    assert len(asked) == 200 and not np.isnan(found.scores).any()


def test_a_sub_pool_smaller_than_the_budget_is_refused_before_anything_compiles():
    method = LearningLoss(sub_pool=9)
    method.check(small.TASK, num_trained=30, budget=9)
    message = r"learning_loss\.sub_pool=9 is smaller than the budget, 10"
    with pytest.raises(ConfigError, match=message):
        method.check(small.TASK, num_trained=30, budget=10)
    changes = {"acquisition.learning_loss.sub_pool": 3}
    with pytest.raises(ConfigError, match="sub_pool=3 is smaller than the budget, 8"):
        small.flat_context({"acquisition.method": "learning_loss", **changes})


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
        ({"sub_pool": -1}, "sub_pool=-1 must not be negative"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.learning_loss\.{message}"):
        LearningLoss(**changes)


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
