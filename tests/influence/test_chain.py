"""The chain of bounds and the overlap of its choices, by hand."""

import numpy as np
import pytest

from jalpose.influence import chain
from jalpose.influence.chain import Scores

IDS = np.array([3, 4, 7, 9])
SCORES = Scores(
    along=np.array([2.0, -4.0, 1.0, 0.5]),
    next_norms=np.array([2.0, 3.0, 1.0, 0.0]),
    norms=np.array([3.0, 2.0, 1.0, 4.0]),
    length=2.0,
)


def test_terms_are_those_of_equations_3_to_5():
    terms = SCORES.terms()
    assert list(terms) == list(chain.TERMS)
    np.testing.assert_array_equal(terms["target"], SCORES.along)
    np.testing.assert_array_equal(terms["approx_1"], [2, 4, 1, 0.5])
    np.testing.assert_array_equal(terms["approx_2"], [4, 6, 2, 0])
    np.testing.assert_array_equal(terms["approx_3"], [6, 4, 2, 8])


def test_means_and_how_often_the_last_bound_holds():
    found = chain.of_loss(SCORES, IDS, chosen=np.array([4, 9]))
    assert found["target"] == pytest.approx(-0.125)
    assert found["approx_1"] == pytest.approx(1.875)
    assert found["approx_2"] == pytest.approx(3.0)
    assert found["approx_3"] == pytest.approx(5.0)
    assert found["bound_holds"] == 0.75 and found["bound_holds_chosen"] == 0.5
    assert found["approx_1_over_2"] == pytest.approx(0.5)  # 1/2, 2/3, 1/2
    nothing = chain.of_loss(SCORES, IDS, chosen=IDS[:0])
    assert nothing["bound_holds_chosen"] is None


def test_numbers_chosen_alike():
    entropy = SCORES._replace(norms=np.array([0.0, 1.0, 5.0, 2.0]))
    found = chain.overlaps({"labels": SCORES, "entropy": entropy}, IDS, 2)
    # Eq. 3 chooses 3 and 7, by size 4 and 3; Eq. 5 9 and 3; of the entropy 7 and 9.
    assert found["eq3 size"] == 1
    assert found["eq4 labels"] == found["eq4 entropy"] == 1
    assert found["eq5 labels"] == found["eq5 entropy"] == 1
    assert found["chance"] == 1.0
    all_of_it = chain.overlaps({"labels": SCORES}, IDS, 4)
    assert all_of_it["eq5 labels"] == 4
