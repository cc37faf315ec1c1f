"""The stopping hint: gains, their error, the law they go on by, and the words."""

import numpy as np
import pytest

from jalpose.evaluation import stopping
from jalpose.report.stopping import hint


def test_a_power_law_is_gone_on_by():
    labelled = np.array([100, 200, 400.0])
    losses = 7 * labelled**-0.4
    found = stopping.expected(labelled, losses, 600)
    assert found == pytest.approx(7 * (400**-0.4 - 600**-0.4))
    # Two points are one, and one that rises gains nothing.
    assert stopping.expected(labelled[:2], losses[:2], 300) > 0
    assert stopping.expected(labelled, losses[::-1], 600) == 0


def test_the_error_is_that_of_paired_differences():
    draws = np.random.default_rng(0)
    before = draws.random(50)
    now = before - 0.1 + 0.01 * draws.random(50)
    found = stopping.gains([10, 20], [before.mean(), now.mean()], before, now)
    apart = before - now
    assert found["labels"] == 10 and found["gained"] == pytest.approx(apart.mean())
    assert found["error"] == pytest.approx(apart.std(ddof=1) / 50**0.5)


def test_alike_examples_count_as_their_groups():
    values = np.repeat([1.0, 2.0, 4.0], 5)
    groups = np.repeat(["a", "b", "c"], 5)
    each, grouped = (stopping.standard_error(values, g) for g in (None, groups))
    assert grouped == pytest.approx(np.array([1, 2, 4]).std(ddof=1) / 3**0.5)
    assert grouped > 2 * each
    alone = stopping.standard_error(values, np.arange(15))
    assert alone == pytest.approx(each)
    assert np.isnan(stopping.standard_error(values, np.zeros(15)))


@pytest.mark.parametrize(
    ("labelled", "losses"),
    [([10], [1]), ([10, 10], [1, 0.9]), ([10, 20], [0, 0]), ([10, 20], [np.nan, 1])],
)
def test_of_nothing_nothing_is_said(labelled, losses):
    each = np.ones(5)
    assert stopping.gains(labelled, losses, each, each) is None
    assert hint(None, 1.0) == ""


def test_the_words_say_whether_the_test_set_could_tell():
    found = {"labels": 60, "gained": 0.02, "error": 0.004, "expected": 0.01}
    assert hint(found, 0.5) == (
        "the last 60 labels changed the test loss by -4.0% (standard error 0.8%); as "
        "many more are expected to change it by -2.0%: more labels still pay"
    )
    said = hint({**found, "expected": 0.0}, 0.5)
    assert "expected to change it by +0.0%: less than this test set can tell" in said
    assert hint({**found, "error": float("nan")}, 0.5) == ""
