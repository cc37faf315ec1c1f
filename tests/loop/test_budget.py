"""Budgets in clicks: what labels are expected to cost, and what is bought for it."""

import numpy as np
import pytest

from jalpose.loop import advance
from jalpose.loop.budget import _affordable
from jalpose.loop.events import Finished, Selected, Trained
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose import clicks
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE
from tests.loop.test_oracles import People
from tests.support import small

CHANGES = {
    "acquisition.method": "softmax_entropy",
    "acquisition.budget_unit": "clicks",
    "acquisition.budget": 60,
    "training.base_steps": 2,
    "training.cycle_steps": 2,
    "loop.cycles": 1,
}


def test_what_was_annotated_has_been_clicked():
    status = np.array([[VISIBLE, OCCLUDED, ABSENT], [ABSENT] * 3], np.int8)
    assert clicks.spent(status).tolist() == [2, 1]


def test_prices_of_the_labelled_are_right_on_average():
    draws = np.random.default_rng(0)
    for _ in range(20):
        count, joints = draws.integers(2, 30), draws.integers(1, 6)
        peaks = draws.permutation(count * joints).reshape(count, joints)
        shares = draws.random(joints)
        status = np.where(draws.random((count, joints)) < shares, VISIBLE, ABSENT)
        found = np.zeros(count, int)
        for joint in range(joints):  # slowly: the highest peaks of each joint
            there = int((status[:, joint] != ABSENT).sum())
            for row in np.argsort(-peaks[:, joint])[:there]:
                found[row] += 1
        own = clicks.expected(peaks, status.astype(np.int8), peaks)
        np.testing.assert_array_equal(own, np.maximum(1, found))


def test_a_joint_that_all_or_none_have_costs_all_or_nothing():
    known = np.array([[5.0, 5, 5], [6, 6, 6]])
    status = np.array([[VISIBLE, ABSENT, VISIBLE], [VISIBLE, ABSENT, ABSENT]], np.int8)
    # A peak lower, or higher, than any that was labelled changes neither.
    others = np.array([[0.0, 9, 0], [9, 9, 6]])
    assert clicks.expected(known, status, others).tolist() == [1, 2]


def test_a_budget_pays_for_picks_in_their_order():
    assert _affordable(np.array([3, 3, 9, 1]), 14) == 2
    assert _affordable(np.array([3, 3, 8, 1]), 15) == 4
    assert _affordable(np.array([30, 3]), 5) == 1


@pytest.fixture(scope="module")
def chosen():
    """(choice, trained models) of a choice for 60 clicks; figures have 14 joints."""
    context = small.flat_context(CHANGES, base=small.flat_variables())
    events = small.advance_until(advance.start(context), context, Finished)[1]
    (selected,) = [e for e in events if isinstance(e, Selected)]
    return selected, [e for e in events if isinstance(e, Trained)]


def test_so_many_are_bought_as_the_clicks_pay_for(chosen):
    selected, trained = chosen
    assert len(selected.arrays["selected"]) == 4
    assert selected.acquisition["expected_clicks"] == 56
    assert selected.acquisition["budget_unit"] == "clicks"
    assert set(selected.arrays["expected_clicks"].tolist()) <= {13, 14}
    spent = [event.metrics["clicks"] for event in trained]
    assert np.diff(spent).tolist() == [56]


def test_they_are_the_first_of_a_budget_of_images(chosen):
    images = {"acquisition.budget_unit": "images", "acquisition.budget": 4}
    context = small.flat_context({**CHANGES, **images}, base=small.flat_variables())
    _, events = small.advance_until(advance.start(context), context, Selected)
    assert (
        events[-1].arrays["selected"].tolist() == chosen[0].arrays["selected"].tolist()
    )
    assert "budget_unit" not in events[-1].acquisition


def test_people_are_asked_for_the_same(chosen):
    from tests.loop.test_oracles import without_labels

    context = small.flat_context(
        CHANGES,
        base=small.flat_variables(),
        oracle=People(),
        dataset=without_labels(),
    )
    _, events = small.advance_until(advance.start(context), context, Selected)
    assert (
        events[-1].arrays["selected"].tolist() == chosen[0].arrays["selected"].tolist()
    )


def test_clicks_that_pay_for_nobody_are_refused():
    with pytest.raises(ConfigError, match="do not pay for one label, which costs up"):
        small.flat_context({**CHANGES, "acquisition.budget": 13})
    with pytest.raises(ConfigError, match=r"acquisition\.budget_unit"):
        small.configure({"acquisition.budget_unit": "hours"})
