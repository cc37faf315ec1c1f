"""t-SNE, and the map of the embeddings coloured by video."""

import json

import numpy as np
import pytest

from jalpose.report import group_plots, tsne
from jalpose.report.evidence import Plot
from jalpose.report.gather import gather
from jalpose.storage import records
from tests.support import fake_runs


@pytest.mark.slow
@pytest.mark.parametrize("perplexity", [2.0, 5.0, 11.0])
def test_rows_have_the_perplexity_asked_for(perplexity):
    points = np.random.default_rng(0).normal(size=(40, 5)) * 100
    squares = np.square(points[:, None] - points[None]).sum(axis=2)
    found = tsne.affinities(points, perplexity)
    assert found.sum() == pytest.approx(1) and (found == found.T).all()
    assert (np.diag(found) == 0).all()
    # Written out: the precision of each row by trying many.
    rows = np.zeros_like(squares)
    for i in range(40):
        others = np.delete(np.arange(40), i)
        best = np.inf
        for precision in np.geomspace(1e-7, 1e-1, 4001):
            weights = np.exp(
                -precision * (squares[i, others] - squares[i, others].min())
            )
            weights /= weights.sum()
            reached = np.exp(-np.sum(weights * np.log(np.maximum(weights, 1e-300))))
            if abs(reached - perplexity) < best:
                best = abs(reached - perplexity)
                rows[i, others] = weights
    np.testing.assert_allclose(found, (rows + rows.T) / 80, atol=2e-4)


def test_clusters_stay_together_and_equal_points_give_equal_maps():
    rng = np.random.default_rng(1)
    cluster = np.arange(60) % 3
    points = 20 * rng.normal(size=(3, 10))[cluster] + rng.normal(size=(60, 10))
    places = tsne.embed(points, perplexity=10)
    np.testing.assert_array_equal(places, tsne.embed(points.copy(), perplexity=10))
    apart = np.square(places[:, None] - places[None]).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (cluster[apart.argmin(axis=1)] == cluster).all()
    for few in range(5):
        assert tsne.embed(points[:few]).shape == (few, 2)
    assert np.isfinite(tsne.embed(np.ones((30, 4)))).all()


def with_groups(folder, names=("a", "b", "c")):
    """Give a run's first choice groups."""
    ids = records.read_arrays(folder, 0, ("ids",))["ids"]
    numbers = (ids % len(names)).astype(np.int32)
    records.add_arrays(folder, 0, group_numbers=numbers)
    path = folder / "cycles.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    counts = {name: {"pool": 10, "chosen": 2} for name in names}
    lines[0]["acquisition"]["groups"] = counts
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_the_map_has_a_colour_for_each_video_and_a_ring_for_what_is_chosen(tmp_path):
    for method in ("random", "eglpp"):
        with_groups(fake_runs.write_run(tmp_path / method, method, 0))
    found = gather([tmp_path])
    (plot,) = group_plots.group_maps(found, lambda run, cycle: run.arrays(cycle))
    assert isinstance(plot, Plot) and "Fig. 2 of EGL++" in plot.caption
    axes = plot.figure.axes[:2]
    assert [a.get_title() or a.get_title("left") for a in axes] == ["eglpp", "random"]
    labels = [c.get_label() for c in axes[0].collections]
    assert labels[0] == "others" and labels[-1] == "selected"
    assert sorted(labels[1:-1]) == ["a", "b", "c"]
    counts = [len(c.get_offsets()) for c in axes[0].collections]
    assert sum(counts[:-1]) == fake_runs.POOL and counts[-1] == fake_runs.BUDGET


def test_runs_without_groups_have_no_such_map(tmp_path):
    fake_runs.write_run(tmp_path, "random", 0)
    found = gather([tmp_path])
    assert group_plots.group_maps(found, lambda run, cycle: run.arrays(cycle)) == []


def test_of_a_large_pool_a_draw_that_is_always_the_same_is_shown():
    assert group_plots.shown(5).tolist() == [0, 1, 2, 3, 4]
    rows = group_plots.shown(10**4)
    assert len(rows) == group_plots.MOST == len(set(rows.tolist()))
    np.testing.assert_array_equal(rows, group_plots.shown(10**4))
