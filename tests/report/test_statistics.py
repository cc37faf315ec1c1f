import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jalpose.report import budgets, penalties, statistics
from jalpose.report.statistics import Interval, compare, holm

NAN = float("nan")
# Differences 1, 2, 3, 4, 5: mean 3, deviation sqrt(2.5), t = 3 / (sqrt(2.5) / sqrt(5)).
FIVE = np.array([11.0, 22.0, 33.0, 44.0, 55.0])
BASE = np.array([10.0, 20.0, 30.0, 40.0, 50.0])


def random_pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.normal(80, 1, count)
    return reference + rng.normal(0.5, 0.7, count), reference


# Comparisons


def test_a_hand_worked_comparison():
    found = compare(FIVE, BASE)
    assert (found.num_pairs, found.difference) == (5, 3.0)
    assert found.deviation == pytest.approx(math.sqrt(2.5))
    assert found.t == pytest.approx(3 * math.sqrt(2))  # 4.2426
    # Of Student's t with 4 degrees of freedom, F(t) = 1/2 + s (6 + t^2...) in closed
    # form: with s = t / sqrt(t^2 + 4) it is 1/2 + s/2 + s (1 - s^2) / 4.
    s = found.t / math.sqrt(found.t**2 + 4)
    upper = 0.5 - (s / 2 + s * (1 - s**2) / 4)
    assert found.greater == pytest.approx(upper)
    assert found.less == pytest.approx(1 - upper)
    assert found.two_tailed == pytest.approx(2 * upper)
    assert found.wilcoxon == 0.0625  # all of one sign: 2 of 32 orders of signs
    reach = 2.776445 * math.sqrt(2.5 / 5)
    assert found.interval == pytest.approx((3 - reach, 3 + reach), rel=1e-6)
    assert found.reason == ""
    assert found.caution == (
        "Wilcoxon cannot be significant: with 5 pairs that differ its p cannot fall "
        "below 0.0625"
    )


@pytest.mark.parametrize("count", [3, 4, 5, 8, 20])
def test_tests_agree_with_scipy(count):
    ours, theirs = random_pairs(count, seed=count)
    found = compare(ours, theirs)
    for alternative, value in (
        ("two-sided", found.two_tailed),
        ("greater", found.greater),
        ("less", found.less),
    ):
        expected = stats.ttest_rel(ours, theirs, alternative=alternative)
        assert value == pytest.approx(expected.pvalue, rel=1e-10)
    exact = stats.wilcoxon(ours, theirs, method="exact").pvalue
    assert found.wilcoxon == pytest.approx(exact, rel=1e-10)
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.interval == pytest.approx((low, high))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6])
def test_what_each_number_of_seeds_allows(count):
    ours, theirs = random_pairs(count)
    found = compare(ours, theirs)
    assert found.num_pairs == count
    assert (found.difference is None) == (count == 0)
    assert (found.interval is None) == (found.detectable is None) == (count < 2)
    p_values = found.greater, found.less, found.two_tailed, found.wilcoxon
    assert all((p is None) == (count < 3) for p in p_values)
    assert bool(found.reason) == (count < 3)
    if count in (1, 2):
        assert found.reason.startswith(f"{count} pair")
        assert found.reason.endswith("no p-value under 3")
    assert ("fragile" in found.caution) == (count in (3, 4))
    assert ("cannot be significant" in found.caution) == (count in (3, 4, 5))


def test_pairs_that_are_not_there_are_left_out():
    ours, theirs = random_pairs(7)
    with_gaps = ours.copy(), theirs.copy()
    with_gaps[0][1] = with_gaps[1][4] = NAN
    kept = [0, 2, 3, 5, 6]
    assert compare(*with_gaps) == compare(ours[kept], theirs[kept])


@pytest.mark.parametrize("gain", [0.0, 0.1, -0.1])
def test_equal_differences_have_no_t_test(gain):
    # 0.1 + 0.2 - 0.2 and the like differ by rounding alone.
    theirs = np.array([0.2, 0.3, 0.7, 0.1])
    found = compare(theirs + gain, theirs)
    assert found.t is found.two_tailed is None
    assert found.deviation == 0 and found.reason.startswith("all differences are equal")
    assert found.wilcoxon == (1.0 if gain == 0 else 0.125)


def test_other_seeds_are_refused():
    with pytest.raises(ValueError, match=r"not paired: scores.shape=\(3,\)"):
        compare(np.zeros(3), np.zeros(2))


@given(st.permutations(range(6)))
def test_the_order_of_seeds_changes_nothing(order):
    ours, theirs = random_pairs(6)
    shuffled = compare(ours[list(order)], theirs[list(order)])
    expected = compare(ours, theirs)
    assert shuffled.two_tailed == pytest.approx(expected.two_tailed, rel=1e-9)
    assert shuffled.wilcoxon == expected.wilcoxon


def slow_wilcoxon(differences):
    """Over all signs of the ranks; zeros left out."""
    magnitudes = [abs(d) for d in differences if d != 0]
    ranks = [
        sum(m < magnitude for m in magnitudes) + (magnitudes.count(magnitude) + 1) / 2
        for magnitude in magnitudes
    ]
    signs = [d > 0 for d in differences if d != 0]
    observed = abs(sum(r if s else -r for r, s in zip(ranks, signs, strict=True)))
    sums = [
        abs(sum(r * s for r, s in zip(ranks, way, strict=True)))
        for way in itertools.product((-1, 1), repeat=len(ranks))
    ]
    return sum(s >= observed for s in sums) / len(sums)


@given(st.lists(st.integers(-4, 4), min_size=0, max_size=9))
def test_wilcoxon_with_ties_and_zeros_is_exact(differences):
    found = statistics.wilcoxon_p(np.array(differences, float))
    assert found == pytest.approx(slow_wilcoxon(differences))


def test_ties_but_for_rounding_are_ties():
    # 0.1 + 0.2 - 0.3 is not 0 and 0.3 - 0.1 is not 0.2.
    ours, theirs = np.array([0.1 + 0.2, 0.3, 0.2, 0.5]), np.array([0.3, 0.1, 0.4, 0.1])
    rounded = np.array([0, 2, -2, 4])
    assert compare(ours, theirs).wilcoxon == slow_wilcoxon(rounded.tolist())


def slow_holm(p_values):
    """Of each the largest, over all not above it, of p times hypotheses still left."""
    corrected = []
    for p in p_values:
        below = [q for q in p_values if q <= p]
        left = [sum(r >= q for r in p_values) for q in below]
        steps = [min(1.0, q * n) for q, n in zip(below, left, strict=True)]
        corrected.append(max(steps))
    return corrected


@given(st.lists(st.sampled_from([0.001, 0.01, 0.02, 0.03, 0.04, 0.2, 1.0]), max_size=8))
def test_holm_against_its_slow_definition(p_values):
    assert holm(p_values) == pytest.approx(slow_holm(p_values))


def test_holm_by_hand():
    # 4 * 0.01, 3 * 0.02, then 2 * 0.025 would fall below 0.06, then 0.9.
    assert holm([0.9, 0.01, 0.025, 0.02]) == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm([None, 0.02, NAN, 0.04]) == [None, 0.04, None, 0.04]
    assert holm([]) == []


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30])
def test_the_detectable_difference_has_the_power(count):
    found = statistics.minimal_detectable_difference(1.5, count)
    critical = stats.t.ppf(0.975, count - 1)
    noncentral = found / (1.5 / math.sqrt(count))
    power = stats.nct.sf(critical, count - 1, noncentral)
    assert power == pytest.approx(0.8, abs=1e-5)  # the other tail is nothing


def test_the_detectable_difference_by_simulation():
    rng = np.random.default_rng(0)
    size = statistics.minimal_detectable_difference(2.0, 5)
    assert size == pytest.approx(2 * 1.682, abs=1e-3)  # Cohen's d_z of the power tables
    drawn = rng.normal(size, 2.0, (20_000, 5))
    found = stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20_000))
    assert statistics.minimal_detectable_difference(2.0, 1) is None


def test_the_smallest_p_of_wilcoxon():
    assert [statistics.smallest_wilcoxon_p(n) for n in (0, 1, 3, 5, 6)] == [
        1.0,
        1.0,
        0.25,
        0.0625,
        0.03125,
    ]


def test_intervals():
    assert statistics.t_interval(np.array([1.0, NAN])) is None
    # Two values: t of one degree of freedom is tan(0.95 * pi / 2) = 12.706.
    low, high = statistics.t_interval(np.array([1.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert f"{Interval(-1.234, math.inf):+.1f}" == "[-1.2, +inf]"


# Curves over the budget


def test_area_under_a_curve_by_hand():
    # From 1000 to 2000 mean 0.6, from 2000 to 4000 mean 0.8: (0.6 + 2 * 0.8) / 3.
    area = budgets.area_under_curve([1000, 2000, 4000], [[0.5, 0.7, 0.9], [1, 1, 1]])
    assert area == pytest.approx([2.2 / 3, 1.0])
    assert np.isnan(budgets.area_under_curve([1000], [[0.5]])).all()
    assert np.isnan(budgets.area_under_curve([1, 2], [0.5, NAN]))
    with pytest.raises(ValueError, match=r"labelled must rise: \[1.0, 1.0\]"):
        budgets.area_under_curve([1, 1], [0.5, 0.6])


@pytest.mark.parametrize(
    "scores, target, expected",
    [
        ([0.5, 0.6, 0.8], 0.7, 250),
        ([0.5, 0.6, 0.8], 0.6, 200),
        ([0.5, 0.6, 0.8], 0.5, 100),
        ([0.5, 0.6, 0.8], 0.1, 100),
        ([0.5, 0.6, 0.8], 0.81, math.inf),
        ([0.5, 0.7, 0.6], 0.65, 175),  # the first time
        ([0.5, 0.5, 0.5], 0.5, 100),
    ],
)
def test_labels_to_reach_a_score(scores, target, expected):
    found = budgets.labels_to_reach([100, 200, 300], scores, target)
    assert found == pytest.approx(expected)


RISING = np.array([100, 200, 300])
SLOW = np.array([[50.0, 60.0, 70.0]] * 3) + np.array([[0.0], [1.0], [2.0]])
FAST = SLOW + np.array([0.0, 10.0, 10.0])


def test_labels_saved_by_hand():
    # The reference's mean ends at 71 with 300 labels; the faster one has it at 200.
    found = budgets.labels_saved(RISING, FAST, SLOW)
    assert (found.target, found.reference, found.method) == (71.0, 300.0, 200.0)
    assert (found.saved, found.num_pairs) == (100.0, 3)
    # Every resample shifts both curves alike.
    assert found.interval == pytest.approx((100.0, 100.0))
    back = budgets.labels_saved(RISING, SLOW, FAST, target=66.0)
    assert back.saved == pytest.approx(
        175 - 250
    )  # 3/4 from 51 to 71, and half from 61 to 71


def test_labels_saved_where_the_target_is_not_reached():
    found = budgets.labels_saved(RISING, SLOW, FAST)
    assert (found.reference, found.method, found.saved) == (300.0, None, None)
    assert found.interval == (-math.inf, -math.inf)
    nobody = budgets.labels_saved(RISING, SLOW, FAST, target=99.0)
    assert nobody.reference is nobody.method is nobody.saved is nobody.interval is None


def test_labels_saved_with_few_or_broken_seeds():
    assert budgets.labels_saved(RISING, FAST[:2], SLOW[:2]).interval is None
    broken = FAST.copy()
    broken[1, 2] = NAN
    assert budgets.labels_saved(RISING, broken, SLOW).num_pairs == 2
    assert budgets.labels_saved(RISING, broken[1:2], SLOW[1:2]) is None


def bootstrap(slow, fast, all_rows):
    found = []
    for rows in all_rows:
        means = fast[list(rows)].mean(axis=0), slow[list(rows)].mean(axis=0)
        ours, theirs = (np.interp(62.0, mean, RISING) for mean in means)
        found.append(theirs - ours)
    return np.sort(found)


@pytest.mark.parametrize("count", [3, 8])
def test_the_interval_of_labels_saved_is_a_bootstrap(count):
    rng = np.random.default_rng(count)
    slow = np.array([50.0, 60.0, 70.0]) + rng.normal(0, 1, (count, 3))
    fast = slow + np.array([0.0, 5.0, 5.0]) + rng.normal(0, 1, (count, 3))
    found = budgets.labels_saved(RISING, fast, slow, target=62.0)
    if count == 3:  # all ways, of which less than one lies beyond each end
        saved = bootstrap(slow, fast, itertools.product(range(3), repeat=3))
        assert found.interval == pytest.approx((saved[0], saved[-1]))
    else:
        saved = bootstrap(slow, fast, rng.integers(8, size=(4000, 8)))
        assert found.interval == pytest.approx(np.percentile(saved, [2.5, 97.5]), abs=3)
    assert budgets.labels_saved(RISING, fast, slow, target=62.0) == found


# Penalties


def test_the_checkpoints_of_badge():
    curve = np.array([0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.0])
    assert penalties.checkpoints(curve) == [1, 2, 4]  # 8 is at the plateau
    assert penalties.checkpoints(np.array([0.5, 0.7, 0.9, 0.899])) == [1]
    assert penalties.checkpoints(np.array([0.5, 0.7, 0.8, 0.81, 0.9])) == [1, 2]
    # The first choice is compared even on the plateau; the shared start never is.
    assert penalties.checkpoints(np.array([0.9, 0.9])) == [1]
    assert penalties.checkpoints(np.array([0.9])) == []


def test_who_is_better_everywhere_has_the_penalty_one():
    curve = np.array([0.5, 0.6, 0.7, 0.75, 0.8])
    noise = np.random.default_rng(0).normal(0, 0.001, (2, 5, 5))
    scores = curve + noise
    scores[:, :, 0] = 0.5  # the base models, of both methods the same
    scores[1, :, 1:] += 0.1
    cycles = penalties.checkpoints(curve)
    np.testing.assert_allclose(
        penalties.penalty_matrix(scores, cycles), [[0, 0], [1, 0]]
    )


def test_a_penalty_matrix_by_hand():
    # Differences of 1 and 3 at the second checkpoint: t = 2.05 / 0.32 with 4 degrees
    # of freedom is beyond 2.776; at the first all are alike, at the third too spread.
    noise = np.array([1.0, 3.0, 2.0, 1.5, 2.75])
    first = np.zeros((5, 4))
    second = np.stack([np.zeros(5), noise, noise - noise.mean(), noise * 50], axis=1)
    scores = np.stack([first, second])
    matrix = penalties.penalty_matrix(scores, [0, 1, 2])
    np.testing.assert_allclose(matrix, [[0, 0], [1 / 3, 0]])
    np.testing.assert_allclose(
        penalties.penalty_matrix(scores[::-1], [1, 3]), [[0, 1], [0, 0]]
    )
    untested = [[0, np.nan], [np.nan, 0]]  # under three seeds
    np.testing.assert_equal(penalties.penalty_matrix(scores[:, :2], [1]), untested)
