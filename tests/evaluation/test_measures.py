import itertools
import json
import math
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jalpose.evaluation import measures

NAN = math.nan
SUMMARY = {
    "ranking_accuracy",
    "pearson",
    "spearman",
    "loss_overlap",
    "selected_loss",
    "selected_loss_sd",
    "pool_loss",
    "sq_norm_overlap",
    "chance_overlap",
    "mean_distance",
    "smallest_distance",
    "near_duplicates",
    "pool_distance",
}

# Few different values: most pairs tie in one, in the other or in both.
tied = st.sampled_from([0.0, 1.0, 2.0, 2.5, 1e-300, math.inf, -math.inf, NAN])
pairs_of_values = st.lists(st.tuples(tied, tied), min_size=0, max_size=30)


def slow_ranking_accuracy(scores, losses):
    """The definition: a loop over the pairs."""
    right, counted = 0.0, 0
    known = [p for p in zip(scores, losses, strict=True) if not np.isnan(p).any()]
    for (score, loss), (other_score, other_loss) in itertools.combinations(known, 2):
        if loss == other_loss:
            continue
        counted += 1
        if score == other_score:
            right += 0.5
        else:
            right += (score > other_score) == (loss > other_loss)
    return right / counted if counted else NAN


def slow_ranks(values):
    """The definition of a mid-rank: those below, and half of the equal others."""
    return [np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values]


def slow_pearson(x, y):
    x, y = x - np.mean(x), y - np.mean(y)
    return np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))


def draw(seed, count=60, missing=0.2):
    """Scores and losses that go together, with ties and NaN."""
    draws = np.random.default_rng(seed)
    losses = draws.gamma(2.0, size=count).round(1)
    scores = (losses + draws.normal(size=count)).round(1)
    losses[draws.random(count) < missing] = NAN
    scores[draws.random(count) < missing] = NAN
    return scores, losses


# Ranking accuracy.


def test_ranking_accuracy_by_hand():
    losses = np.array([1.0, 2, 3, 4])
    # Of six pairs one, (3, 4), is in the wrong order.
    assert measures.ranking_accuracy(np.array([1.0, 2, 4, 3]), losses) == 5 / 6
    assert measures.ranking_accuracy(losses**3, losses) == 1
    assert measures.ranking_accuracy(-losses, losses) == 0
    # Four pairs are in order, (1, 2) and (3, 4) count a half each.
    assert measures.ranking_accuracy(np.array([0.0, 0, 5, 5]), losses) == 5 / 6
    # Without the pair (2, 3), which has no true order, five are counted.
    tied = np.array([1.0, 2, 2, 4])
    assert measures.ranking_accuracy(np.array([1.0, 3, 2, 0]), tied) == 2 / 5


def test_a_constant_score_is_as_good_as_chance():
    assert measures.ranking_accuracy(np.ones(9), np.arange(9.0)) == 0.5


@pytest.mark.parametrize(
    "scores, losses",
    [([], []), ([1.0], [1.0]), ([1.0, 2.0], [3.0, 3.0]), ([NAN, 2.0], [1.0, 2.0])],
    ids=["nothing", "one image", "equal losses", "one score"],
)
def test_without_a_pair_there_is_no_ranking_accuracy(scores, losses):
    assert math.isnan(measures.ranking_accuracy(np.array(scores), np.array(losses)))


@given(pairs_of_values)
def test_ranking_accuracy_is_the_loop_over_the_pairs(values):
    scores, losses = np.array(values, np.float64).reshape(-1, 2).T
    found = measures.ranking_accuracy(scores, losses)
    assert found == pytest.approx(slow_ranking_accuracy(scores, losses), nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_accuracy_of_correlated_scores_is_the_loop_over_the_pairs(seed):
    scores, losses = draw(seed)
    expected = slow_ranking_accuracy(scores, losses)
    assert 0.6 < expected < 1
    assert measures.ranking_accuracy(scores, losses) == pytest.approx(expected, 1e-14)
    # Turned round, every pair in order is out of order and a tie is still a half.
    assert measures.ranking_accuracy(-scores, losses) == pytest.approx(1 - expected)


def test_ranking_accuracy_of_many_images_counts_exactly():
    losses = np.arange(100_000.0)
    scores = losses.copy()
    scores[[0, 1]] = scores[[1, 0]]  # one pair of 5 * 10^9 is in the wrong order
    pairs = 100_000 * 99_999 // 2
    assert measures.ranking_accuracy(scores, losses) == (pairs - 1) / pairs


# Correlations.


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_those_of_the_definitions(seed):
    scores, losses = draw(seed)
    scores[0], losses[1] = math.inf, -math.inf  # left out as NaN is
    known = np.isfinite(scores) & np.isfinite(losses)
    x, y = scores[known], losses[known]
    assert measures.pearson(scores, losses) == pytest.approx(slow_pearson(x, y))
    expected = slow_pearson(slow_ranks(x), slow_ranks(y))
    assert measures.spearman(scores, losses) == pytest.approx(expected)


def test_correlations_by_hand():
    # One neighbouring pair of four swapped: 1 - 6 * 2 / (4 * 15).
    x = np.array([1.0, 2, 3, 4])
    assert measures.spearman(x, np.array([1.0, 3, 2, 40])) == pytest.approx(0.8)
    assert measures.pearson(x, 5 - 2 * x) == pytest.approx(-1)


@pytest.mark.parametrize("correlation", [measures.pearson, measures.spearman])
@pytest.mark.parametrize(
    "scores, losses",
    [([], []), ([1.0, NAN], [2.0, 1.0]), ([1.0, 1.0], [1.0, 2.0])],
    ids=["nothing", "one finite", "constant"],
)
def test_without_variation_there_is_no_correlation(correlation, scores, losses):
    # The other way round as well: neither side may be constant.
    scores, losses = np.array(scores), np.array(losses)
    assert math.isnan(correlation(scores, losses))
    assert math.isnan(correlation(losses, scores))


# Overlap with the truly highest.


def test_overlap_by_hand():
    ids, values = np.array([7, 3, 5, 9]), np.array([4.0, 3, 2, 1])
    # The highest two are 7 and 3.
    for selected, share in (([3, 7], 1), ([3, 9], 0.5), ([5, 9], 0)):
        found = measures.overlap_with_top(np.array(selected), ids, values)
        assert found == (share, 0.5)
    # All equal: the lower ids, 3 and 5.
    assert measures.overlap_with_top(np.array([3, 5]), ids, np.ones(4)).share == 1


def test_an_image_of_unknown_value_is_never_among_the_highest():
    ids, values = np.arange(4), np.array([NAN, 1.0, -math.inf, NAN])
    found = measures.overlap_with_top(np.array([0, 1]), ids, values)
    assert found == (0.5, 0.5)  # 1 and 2 are the highest
    # Of three selected, two can be among the two that are known.
    assert measures.overlap_with_top(ids[:3], ids, values) == (2 / 3, 2 / 4)
    unknown = measures.overlap_with_top(ids[:1], ids, np.full(4, NAN))
    assert math.isnan(unknown.share) and unknown.chance == 0


@pytest.mark.parametrize("seed", range(5))
def test_overlap_is_that_of_sorted_pairs(seed):
    draws = np.random.default_rng(seed)
    ids = draws.permutation(200)[:50]
    values = draws.integers(8, size=50).astype(float)
    selected = draws.choice(ids, 20, replace=False)
    ranked = sorted(zip(-values, ids, strict=True))
    expected = len({i for _, i in ranked[:20]} & set(selected)) / 20
    assert measures.overlap_with_top(selected, ids, values) == (expected, 0.4)


def test_random_selections_overlap_by_chance():
    draws = np.random.default_rng(0)
    ids, values = np.arange(50), draws.random(50)
    found = [
        measures.overlap_with_top(draws.permutation(ids)[:20], ids, values)
        for _ in range(400)
    ]
    shares = [each.share for each in found]
    # Hypergeometric: a share's standard deviation is 0.086 here, that of the mean of
    # 400 is 0.0043.
    assert abs(np.mean(shares) - found[0].chance) < 4 * 0.0043


@pytest.mark.parametrize(
    "selected, ids, message",
    [
        ([1, 1], [1, 2, 3], "selected must not repeat."),
        ([1], [1, 2, 2], "ids must not repeat."),
        ([1, 8], [1, 2, 3], "selected holds [8], not of ids."),
    ],
)
def test_ids_that_cannot_be_are_refused(selected, ids, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        measures.overlap_with_top(np.array(selected), np.array(ids), np.zeros(3))
    with pytest.raises(ValueError, match=re.escape(message)):
        measures.summarise(np.array(ids), np.zeros(3), np.array(selected), None)


# Spread.


def slow_distances(embeddings):
    pairs = itertools.combinations(embeddings.astype(np.float64), 2)
    return np.array([math.dist(x, y) for x, y in pairs])


def test_spread_by_hand():
    # A right triangle of sides 3, 4 and 5.
    embeddings = np.array([[0, 0], [3, 0], [0, 4]], np.float32)
    assert measures.spread(embeddings, near=4.0) == (4, 3, 1)
    assert measures.spread(embeddings, near=3.0).near_duplicates == 0  # not below
    # Of the pool, twice the variances: 2 * (9 + 16 + 25) / 2 / 3 over the two axes.
    assert measures.pool_distance(embeddings) == pytest.approx(math.sqrt(50 / 3))


@pytest.mark.parametrize("block_values", [1, 40, 100, 2**22])
def test_spread_is_that_of_all_pairs_whatever_the_blocks(block_values):
    draws = np.random.default_rng(0)
    embeddings = draws.normal(size=(37, 5)).astype(np.float32)
    embeddings[20] = embeddings[3]
    embeddings[21] = embeddings[4] + np.float32(1e-4)
    expected = slow_distances(embeddings)
    found = measures.spread(embeddings, near=1e-3, block_values=block_values)
    assert found.mean == pytest.approx(expected.mean(), 1e-12)
    assert (found.smallest, found.near_duplicates) == (0, 2)


def test_short_distances_far_from_the_origin_are_not_lost():
    embeddings = np.array([[1e6, 0], [1e6 + 0.125, 0]], np.float32)
    assert measures.spread(embeddings, near=1.0) == (0.125, 0.125, 1)


def test_the_pools_distance_is_the_root_mean_square_of_all_pairs():
    embeddings = np.random.default_rng(0).normal(size=(30, 4)) + 100
    expected = math.sqrt(np.mean(slow_distances(embeddings) ** 2))
    assert measures.pool_distance(embeddings) == pytest.approx(expected)


def test_the_distance_of_a_mapped_pool_takes_no_copy_of_it(tmp_path):
    pool = np.memmap(tmp_path / "pool", np.float32, "w+", shape=(100_000, 256))
    pool[:, 3] = np.arange(len(pool))
    tracemalloc.start()
    try:
        found = measures.pool_distance(pool)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == pytest.approx(math.sqrt(2 * np.var(np.arange(1e5), ddof=1)))
    assert peak < pool.nbytes  # in float64 it would be twice that


def test_one_image_has_no_spread():
    for count in (0, 1):
        found = measures.spread(np.ones((count, 3)), near=1.0)
        assert math.isnan(found.mean) and math.isnan(found.smallest)
        assert found.near_duplicates == 0
        assert math.isnan(measures.pool_distance(np.ones((count, 3))))


# The summary.


def test_the_summary_has_each_measure_by_name():
    ids, selected = np.array([4, 2, 9, 7]), np.array([9, 2])
    scores, losses = np.float32([1, 3, 4, 2]), np.float32([1, 2, 4, 3])
    embeddings = np.float32([[9, 9], [3, 4], [0, 0], [5, 5]])
    found = measures.summarise(
        ids,
        scores,
        selected,
        losses,
        sq_norms=np.float32([1, 2, 3, 4]),
        embeddings=embeddings,
        more={"selected_pck": np.float64(0.25), "pool_pck": 0.5},
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found.keys() == SUMMARY | {"selected_pck", "pool_pck"}
    assert list(found)[-2:] == ["selected_pck", "pool_pck"]
    assert found["ranking_accuracy"] == 5 / 6
    assert found["pearson"] == pytest.approx(0.8)
    assert found["spearman"] == pytest.approx(0.8)
    assert found["loss_overlap"] == 0.5  # 9 and 7 have the highest
    # Of 9 and 2, and of all: true losses 4 and 2, and 1, 2, 3, 4.
    assert found["selected_loss"] == 3
    assert found["selected_loss_sd"] == pytest.approx(math.sqrt(2))
    assert found["pool_loss"] == 2.5
    assert found["sq_norm_overlap"] == 0.5  # 7 and 9
    assert found["chance_overlap"] == 0.5
    assert found["mean_distance"] == found["smallest_distance"] == 5  # of 2 and 9
    assert found["near_duplicates"] == 0
    assert found["pool_distance"] == measures.pool_distance(embeddings)
    assert (found["selected_pck"], found["pool_pck"]) == (0.25, 0.5)


def test_near_duplicates_are_measured_by_the_pool_whatever_its_unit():
    # Two of the selected differ by 0.4, all else by 10: a mean square of 5 pairs in 6.
    embeddings = np.array([[0, 0, 0], [0.4, 0, 0], [10, 0, 0], [0, 10, 0]])
    ids = np.arange(4)
    for unit in (1e-6, 1.0, 1e6):
        found = measures.summarise(
            ids, np.zeros(4), ids[:3], None, embeddings=unit * embeddings
        )
        assert found["near_duplicates"] == 1


def test_what_is_not_known_is_none():
    ids, scores = np.arange(5), np.full(5, NAN)
    found = measures.summarise(ids, scores, ids[:1], None, more={"pool_pck": None})
    assert found.keys() == SUMMARY | {"pool_pck"}
    assert found.pop("chance_overlap") == 0.2
    assert set(found.values()) == {None}
    # A core-set gives no scores, yet what it selected has losses.
    found = measures.summarise(ids, scores, ids[:1], -ids, more={"pck": NAN})
    known = {name: value for name, value in found.items() if value is not None}
    losses = {"loss_overlap": 1, "selected_loss": 0, "pool_loss": -2}
    assert known == {"chance_overlap": 0.2, **losses}


# Ends of a ranking.


@pytest.mark.parametrize(
    ("most", "wanted"),
    [
        (0, []),
        (1, []),
        (2, [3, 7]),
        (5, [3, 4, 7, 8]),
        (6, [3, 4, 5, 6, 7, 8]),
        (99, [3, 4, 5, 6, 7, 8]),
    ],
)
def test_ends_are_of_the_highest_and_the_lowest_ties_by_id(most, wanted):
    # Falling: 7, then 4 and 5 alike, then 6 and 8 alike, then 3; 9 has no score.
    ids = np.array([3, 4, 5, 6, 7, 8, 9])
    scores = np.array([0.0, 2.0, 2.0, 1.0, 3.0, 1.0, NAN])
    assert measures.ends(ids, scores, most).tolist() == wanted


def test_there_are_no_ends_without_scores():
    assert measures.ends(np.arange(3), np.full(3, NAN), 4).tolist() == []


# What falls.


def test_the_share_that_has_fallen_by_hand():
    ids, before = np.array([3, 5, 8, 9]), np.array([1.0, 4.0, 2.0, np.nan])
    fell = measures.share_fallen(ids, before, np.array([8, 3]), np.array([1.0, 1.0]))
    assert fell == 0.5  # as large as before is not below
    assert measures.share_fallen(ids, before, ids[:3], np.array([0.5, 3, 1])) == 1.0
    assert measures.share_fallen(ids, before, np.array([9]), np.array([0.0])) is None
    assert measures.share_fallen(ids, before, ids[:0], before[:0]) is None
    some = measures.share_fallen(ids, before, np.array([9, 5]), np.array([0.0, 5.0]))
    assert some == 0.0  # the unknown is left out
