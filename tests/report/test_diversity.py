"""Clusters of the pool that choices are from, beside the score."""

import itertools
import math

import numpy as np
import pytest

from jalpose.report import clusters, diversity
from jalpose.report.gather import gather
from jalpose.storage import records
from tests.support.recorded_runs import write_run

CENTRES = 20.0 * np.eye(4)
SIZES = (12, 8, 6, 4)
GROUPS = np.repeat(np.arange(4), SIZES)
IDS = np.arange(100, 130)


def embeddings(seed=0, width=4):
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=0.3, size=(len(GROUPS), width))
    noise[:, :4] += CENTRES[GROUPS]
    return noise.astype(np.float32)


@pytest.mark.parametrize("width", [4, 40])
def test_what_lies_apart_is_told_apart(width):
    mixed = np.random.default_rng(1).permutation(len(GROUPS))
    numbers = clusters.cluster(embeddings(width=width)[mixed], 4)
    # The largest is number 0.
    np.testing.assert_array_equal(numbers, GROUPS[mixed])


def test_of_equal_points_there_is_one_cluster():
    numbers = clusters.cluster(np.ones((7, 3)), 5)
    np.testing.assert_array_equal(numbers, np.zeros(7))
    assert clusters.share_covered(numbers, np.arange(7) == 2) == 1.0
    assert clusters.share_by_chance(numbers, 1) == pytest.approx(1.0)


def test_an_expectation_is_that_of_all_draws():
    numbers = np.array([0, 0, 0, 1, 1, 2])
    every = [
        clusters.share_covered(numbers, np.isin(np.arange(6), drawn))
        for drawn in itertools.combinations(range(6), 2)
    ]
    assert len(every) == math.comb(6, 2)
    found = clusters.share_by_chance(numbers, 2)
    assert found == pytest.approx(np.mean(every))


def test_clusters_are_no_more_than_a_choice_could_cover():
    assert clusters.number_of_clusters(1000, 10) == 10
    assert clusters.number_of_clusters(1000, 400) == clusters.MOST
    assert clusters.number_of_clusters(6, 10) == 3


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Random, one method that takes of every group and scores, and one of one group."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for seed in range(5):
        base = 0.5 + rng.normal(0, 0.01)
        drawn = rng.permutation(len(IDS))[:4]
        rows = {"random": drawn, "spread": [0, 12, 20, 26], "narrow": [0, 1, 2, 3]}
        gains = {"random": 0.0, "spread": 0.05, "narrow": 0.0}
        for method, chosen in rows.items():
            place = folder / f"{method}-{seed}"
            gain = gains[method] + 0.002 * (seed - 2) * (method != "random")
            ids = [IDS[chosen].tolist()]
            write_run(place, method, seed, (base, base + gain), selections=ids)
            arrays = {
                "ids": IDS,
                "selected": IDS[chosen],
                "embeddings": embeddings(seed),
            }
            records.write_arrays(place, 0, **arrays)
    return gather([folder])


def arrays_of(run, cycle):
    return run.arrays(cycle)


def test_coverage_stands_beside_the_score(found):
    measured = diversity.measure(found, arrays_of, "random")
    table = diversity.table(found, measured, "random")
    rows = {row["method"]: row for row in table.rows}
    assert list(rows) == ["random", "narrow", "spread"]
    assert rows["spread"]["covered"].mean == 100.0
    assert rows["narrow"]["covered"].mean == 25.0
    assert 25 < rows["random"]["covered"].mean <= 100
    chance = np.mean([clusters.share_by_chance(GROUPS, 4)])
    assert rows["random"]["chance"] == pytest.approx(100 * chance)
    assert rows["spread"]["better_holm"] < 0.05 <= rows["narrow"]["better_holm"]
    assert table.notes[-1] == (
        "Significant against random after Holm's correction: spread has covered more "
        "clusters; narrow has covered fewer clusters; spread has the better mean score."
    )
    bold = {(table.rows[row]["method"], key) for row, key in table.bold}
    assert bold == {("spread", "covered"), ("spread", "score")}


def test_clusters_and_scores_are_drawn(found):
    measured = diversity.measure(found, arrays_of, "random")
    score, chosen = diversity.drawn(found, measured, arrays_of, "random")
    assert len(score.figure.axes[0].containers) == 3
    strips = chosen.figure.axes[0].get_images()[0].get_array()
    assert np.ma.filled(strips, 0)[0].tolist() == [4, 0, 0, 0]  # narrow


def test_without_embeddings_nothing_is_said(tmp_path):
    for method in ("random", "eglpp"):
        write_run(tmp_path / method, method, 0, (0.5, 0.6))
    assert diversity.measure(gather([tmp_path]), arrays_of, "random") is None


def test_clusters_are_of_the_choices_that_the_scores_are_of(tmp_path):
    every, one = IDS[[0, 12, 20, 26]], IDS[[1, 2, 3, 4]]
    ids = [every.tolist(), one.tolist()]
    for method, scores in (("random", (0.5, 0.6, 0.7)), ("ahead", (0.5, 0.6))):
        write_run(tmp_path / method, method, 0, scores, cycles=2, selections=ids)
        for cycle, chosen in enumerate((every, one)[: len(scores)]):
            arrays = {"ids": IDS, "selected": chosen, "embeddings": embeddings()}
            records.write_arrays(tmp_path / method, cycle, **arrays)
    measured = diversity.measure(gather([tmp_path]), arrays_of, "random")
    assert measured.over == "1000 to 1100"
    # Random's second choice, of one cluster, is not told by the scores up to here.
    np.testing.assert_array_equal(measured.covered, [[100.0], [100.0]])
