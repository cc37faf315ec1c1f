"""Learning Loss and LL++: the largest predicted losses, of a sub-pool too."""

import jax
import numpy as np
import pytest

from jalpose.acquisition.learning_loss import LearningLoss
from jalpose.models.heads import LevelsHead, StackHead
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "mse"}, "objective: 'mse'. Known: margin, kl"),
        ({"margin": 0.0}, "margin=0.0 must be above 0"),
        ({"sub_pool": -1}, "sub_pool=-1 must not be negative"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.learning_loss\.{message}"):
        LearningLoss(**changes)
