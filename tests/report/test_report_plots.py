import math
import re

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from jalpose.report import canvas, contents, curves, evidence, page, plots
from jalpose.report.curves import Axis, Point
from jalpose.report.gather import gather
from tests.support import fake_runs, recorded_runs


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for method in ("random", "coreset", "control"):
        for seed in range(3):
            # One run of coreset is a cycle behind.
            done = 2 if (method, seed) == ("coreset", 2) else None
            gain = 0.02 * (method == "coreset")
            place = folder / f"{method}-{seed}"
            fake_runs.write_run(place, method, seed, done=done, gain=gain)
    full = folder / "full"
    labels = {"labelled": "all"}
    fake_runs.write_run(full, "random", 0, cycles=0, data=labels, name="fake_full")
    return gather([folder])


def lines_of(figure, axes=0):
    return {line.get_label(): line for line in figure.axes[axes].get_lines()}


# Intervals


def test_an_interval_is_students():
    values = [1.0, 2.0, 4.0, 7.0]
    (point,) = curves.intervals({10: values}, seeds=4)
    assert point.x == 10 and point.mean == 3.5 and point.complete
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert point.mean - point.half == pytest.approx(low)
    assert point.mean + point.half == pytest.approx(high)


def test_a_single_seed_has_no_interval_and_a_missing_one_is_told():
    points = curves.intervals({5: [1.0], 1: [2.0, math.nan], 9: [math.nan]}, seeds=2)
    assert [(p.x, p.mean, p.complete) for p in points] == [(1, 2, False), (5, 1, False)]
    assert all(math.isnan(point.half) for point in points)


# Learning curves


def test_curves_show_the_means_of_the_runs(found):
    plot, gains = evidence.learning(found, "random")
    drawn = lines_of(plot.figure)
    scores = [
        [100 * r["metrics"]["pck"] for r in run.cycles] for run in found.by("random")
    ]
    np.testing.assert_allclose(drawn["random"].get_ydata(), np.mean(scores, axis=0))
    np.testing.assert_allclose(drawn["random"].get_xdata(), [12, 18, 24], atol=0.2)
    # The control buys labels here too: it stands where the others do.
    np.testing.assert_allclose(drawn["control"].get_xdata(), [12, 18, 24], atol=0.2)
    ours = [
        [100 * r["metrics"]["pck"] for r in run.cycles] for run in found.by("coreset")
    ]
    last = np.mean([ours[s][2] - scores[s][2] for s in (0, 1)])
    above = lines_of(gains.figure)["coreset"].get_ydata()
    assert above[2] == pytest.approx(last)


def test_a_mean_of_too_few_seeds_is_hollow(found):
    plot, _ = evidence.learning(found, "random")
    hollow = [
        line
        for line in plot.figure.axes[0].get_lines()
        if line.get_markerfacecolor() == canvas.PAPER
    ]
    assert [len(line.get_xdata()) for line in hollow] == [1]  # coreset's last


def test_a_mean_of_fewer_seeds_than_another_method_has_is_hollow(tmp_path):
    for method, seed in (("random", 0), ("random", 1), ("coreset", 0)):
        fake_runs.write_run(tmp_path / f"{method}-{seed}", method, seed, cycles=1)
    for plot in evidence.learning(gather([tmp_path]), "random"):
        drawn = plot.figure.axes[0].get_lines()
        (hollow,) = (x for x in drawn if x.get_markerfacecolor() == canvas.PAPER)
        (whole,) = (x for x in drawn if x.get_label() == "coreset")
        assert hollow.get_ydata().tolist() == whole.get_ydata().tolist()
        assert "A hollow marker: a mean without some of the seeds." in plot.caption


def test_a_run_on_all_labels_is_a_level(found):
    plot, _ = evidence.learning(found, "random")
    words = [text.get_text() for text in plot.figure.legends[0].get_texts()]
    full = 100 * found.full[0].cycles[-1]["metrics"]["pck"]
    assert any(f"all 12 labels {full:.1f}" in word for word in words)
    assert "The line of all labels" in plot.caption
    assert any("mean pose 10.0" in word for word in words)


def test_many_methods_have_a_panel_each_with_the_reference():
    points = [Point(10, 50.0, 1.0, True), Point(20, 60.0, 1.0, True)]
    many = {f"method {i}": points for i in range(8)} | {"random": points}
    figure = curves.learning_curves(
        many, Axis("PCK (%)"), title="Title", reference="random"
    )
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == list(many)[:8]
    for axes in shown:
        assert "random" in [line.get_label() for line in axes.get_lines()]


def test_panels_share_heights_that_hold_every_interval():
    many = {
        f"method {i}": [Point(10, 50.0, 1.0, True), Point(20, 52.0 + i, 1.5 + i, True)]
        for i in range(8)
    }
    figure = curves.learning_curves(many, Axis("PCK (%)", room=5.0), title="Title")
    for axes in figure.axes[:8]:
        low, high = axes.get_ylim()
        assert low <= 50.0 - 1.5 and high >= 59.0 + 8.5  # of the last and highest


@pytest.mark.parametrize("words", ["x" * 90, "learning_loss" + " option=value" * 6])
def test_a_very_long_name_stays_in_the_picture(words):
    points = [Point(x, 50.0 + x, 1.0, True) for x in (10, 20)]
    figure = curves.learning_curves({words: points}, Axis("score"), title="Scores")
    figures = [figure, plots.matrix(np.eye(2), [words, "b"], [words, "b"], title="p")]
    for figure in figures:
        figure.canvas.draw()
        axes = figure.axes[0]
        texts = [text for legend in figure.legends for text in legend.get_texts()]
        texts = texts or [*axes.get_xticklabels(), *axes.get_yticklabels()]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text
            assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text
        assert axes.bbox.width > 100 and axes.bbox.height > 100


LONG = [f"learning_loss head=average objective={name}" for name in "abcdefg"]


@pytest.mark.parametrize("count", [3, 7])
def test_long_names_stay_in_the_picture_and_clear_of_each_other(count):
    points = [Point(x, 50.0 + x, 1.0, True) for x in (10, 20)]
    named = {name: points for name in LONG[:count]}
    figure = curves.learning_curves(named, Axis("score"), title="Scores over labels")
    figure.canvas.draw()
    texts = [
        text
        for text in figure.findobj(Text)
        if "score" in text.get_text().lower() or "learning" in text.get_text()
    ]
    assert len([t for t in texts if "learning" in t.get_text()]) == count
    boxes = [text.get_window_extent() for text in texts]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
        assert not any(box.overlaps(other) for other in boxes[:place])


def test_curves_differ_in_more_than_colour():
    points = [Point(10, 50.0, 1.0, True), Point(20, 60.0, 1.0, True)]
    figure = curves.learning_curves(
        {f"method {i}": points for i in range(5)}, Axis(""), title=""
    )
    lines = [line for name, line in lines_of(figure).items() if "method" in name]
    assert len({line.get_marker() for line in lines}) == len(lines) == 5
    assert len({line.get_linestyle() for line in lines}) >= 3


# Runs side by side


@pytest.fixture
def runs(tmp_path):
    """Two runs of one seed, one a cycle behind, and one that has nothing yet."""
    scores = {"random": (0.5, 0.55, 0.58), "EGL++": (0.5, 0.6), "not run": ()}
    for name, found in scores.items():
        recorded_runs.write_run(tmp_path / name, name, 0, found, cycles=2)
    return {name: tmp_path / name for name in scores}


def test_the_end_of_a_run_shows_its_curves(runs):
    figure = evidence.progress(runs)
    axes = figure.axes[0]
    assert axes.get_ylabel() == "PCK@0.2 (%)"
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["1000", "1100", "1200"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [
        *("EGL++  60.0", "random  58.0", "not run  -"),
        "mean pose 20.0: below what is shown",
    ]
    assert axes.get_ylim()[0] > 40  # not squeezed
    looks = {(line.get_marker(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len({line.get_color() for line in axes.lines}) == 3


def test_a_run_alone_and_none_are_drawn(runs):
    assert len(evidence.progress({"random": runs["random"]}).axes[0].lines) == 1
    assert evidence.progress({"not run": runs["not run"]}).axes[0].get_xlabel()


@pytest.mark.parametrize("level", [48.0, 62.0], ids=["below", "above"])
def test_a_level_in_reach_is_a_line(level):
    points = [Point(10, 50.0, math.nan, True), Point(20, 60.0, math.nan, True)]
    figure = curves.learning_curves(
        {"random": points}, Axis(""), title="", levels={"mean pose": level}
    )
    axes = figure.axes[0]
    assert axes.lines[-1].get_linestyle() == ":"
    low, high = axes.get_ylim()
    assert low < level < high


def test_many_numbers_of_labels_have_whole_ticks():
    points = [Point(number, 50.0, math.nan, True) for number in range(10, 40)]
    figure = curves.learning_curves({"a": points}, Axis(""), title="")
    ticks = figure.axes[0].get_xticks()
    assert (ticks == np.round(ticks)).all()


# Matrices


def test_numbers_stand_in_a_heatmap_and_none_where_there_is_none():
    values = np.array([[np.nan, 0.25], [0.5, np.nan]])
    figure = plots.matrix(values, "ab", "ab", title="Title")
    texts = {t.get_position(): t.get_text() for t in figure.axes[0].texts}
    assert texts == {(1, 0): "0.25", (0, 1): "0.50"}


@pytest.mark.parametrize("dark_is_low", [False, True])
def test_the_palest_cells_of_a_heatmap_are_the_papers(dark_is_low):
    pale, dark = (0.9, 0.0) if dark_is_low else (0.0, 0.9)
    values = np.array([[pale, dark]])
    figure = plots.matrix(
        values, "a", "ab", title="", limits=(0.0, 0.9), dark_is_low=dark_is_low
    )
    (image,) = figure.axes[0].get_images()
    assert image.to_rgba(values)[0, :, 3].tolist() == [0.0, 1.0]
    inks = [text.get_color() for text in figure.axes[0].texts]
    assert inks == [canvas.INK, canvas.ON_DARK]


def test_shares_of_clusters_end_where_shares_do():
    pens = canvas.pens(["a", "random"], "random")
    points = {"a": [(90.0, 30.0), (50.0, 2.0)], "random": [(5.0, 30.0), (50.0, 2.0)]}
    figure = plots.diversity_against_score(points, "", pens, 5.0)
    ends = {}
    for bars in figure.axes[0].containers:
        along = bars.lines[2][0].get_segments()[0]
        ends[bars.get_label()] = along[:, 0].tolist()
    assert ends == {"a": [60.0, 100.0], "random": [0.0, 35.0]}
    handles = figure.legends[0].legend_handles
    assert all(isinstance(handle, Line2D) for handle in handles)  # no bars in it


def test_many_from_a_cluster_are_seen_on_dark_pages_as_on_paper():
    figure = plots.clusters_chosen({"a": np.array([1, 0, 12])})
    (image,) = figure.axes[0].get_images()
    for count in (1.0, 6.0, 12.0):
        colour = image.to_rgba(np.array([[count]]))[0, 0, :3]
        for paper in (1.0, 0.013):  # relative luminances
            assert contrast(luminance(colour), paper) > 1.9
    assert image.get_array().mask.tolist() == [[False, True, False]]


def luminance(colour):
    linear = np.where(colour <= 0.04, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_without_penalties_there_is_no_matrix_of_them(tmp_path):
    for method in ("random", "coreset"):
        for seed in range(3):
            fake_runs.write_run(tmp_path / f"{method}_{seed}", method, seed)
    found = gather([tmp_path])
    (plot,) = evidence.matrices(found, "random")
    assert plot.name == "p_values" and "there are no penalties" in plot.caption
    assert not [t for t in contents.make_tables(found) if "penalties" in t.name]


def test_p_values_are_one_tailed_and_paired(found):
    p_plot, penalties = evidence.matrices(found, "random")
    assert "18 labelled" in p_plot.figure.axes[0].get_title(loc="left")
    image = p_plot.figure.axes[0].get_images()[0].get_array()
    pcks = {
        method: [run.cycles[1]["metrics"]["pck"] for run in found.by(method)]
        for method in ("coreset", "random")
    }
    expected = stats.ttest_rel(
        pcks["coreset"], pcks["random"], alternative="greater"
    ).pvalue
    row, column = (found.methods.index(m) for m in ("coreset", "random"))
    assert image[row, column] == pytest.approx(expected)
    assert penalties.figure.axes[0].get_images()[0].get_array().shape == (3, 3)


# Scores, maps, costs


def test_score_and_loss_are_those_of_the_first_choice(found):
    (plot,) = evidence.score_and_loss(found, lambda run, cycle: run.arrays(cycle))
    names = [axes.get_title(loc="left").split("\n")[0] for axes in plot.figure.axes]
    assert names == ["control", "coreset"]  # random has no scores
    arrays = found.by("coreset")[0].arrays(0)
    rest, chosen = plot.figure.axes[1].collections
    assert len(chosen.get_offsets()) == fake_runs.BUDGET
    assert len(rest.get_offsets()) == len(arrays["ids"]) - fake_runs.BUDGET
    rho = stats.spearmanr(arrays["scores"], arrays["true_losses"]).statistic
    assert plot.figure.axes[1].get_title(loc="left").endswith(f"Spearman {rho:.2f}")


def test_costs_are_seconds_against_paired_points(found):
    (plot,) = evidence.costs(found, "random")
    handles, labels = plot.figure.axes[0].get_legend_handles_labels()
    assert labels == ["control", "coreset"]
    x, y = (data[0] for data in handles[1].lines[0].get_data())
    assert x == pytest.approx(4)  # 2 s a choice; a run that has made one is left out
    gains = []
    for seed in (0, 1):
        pair = [
            found.run(m, seed).cycles[2]["metrics"]["pck"]
            for m in ("coreset", "random")
        ]
        gains.append(100 * (pair[0] - pair[1]))
    assert y == pytest.approx(np.mean(gains))
    assert "both up to 24 labels" in plot.caption


def test_one_run_alone_has_its_curve_and_no_comparison(tmp_path):
    found = gather([fake_runs.write_run(tmp_path / "run", "coreset", 0)])
    assert [plot.name for plot in evidence.learning(found, "coreset")] == [
        "learning_curves"
    ]
    assert evidence.matrices(found, "coreset") == []
    assert evidence.costs(found, "coreset") == []


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_a_plot_is_the_same_bytes_again(tmp_path, kind):
    files = []
    for name in ("a", "b"):
        figure = plots.matrix(np.eye(2), "ab", "ab", title="Title")
        canvas.save(figure, tmp_path / f"{name}.{kind}")
        files.append((tmp_path / f"{name}.{kind}").read_bytes())
    assert len(files[0]) > 500
    assert files[0] == files[1]
    if kind == "png":
        assert Image.open(tmp_path / "a.png").size[0] > 300


# Comparisons of engines


def test_a_damaged_comparison_is_named_and_left_out(tmp_path):
    folder = tmp_path / "compare_engines"
    folder.mkdir()
    (folder / "comparison.json").write_text("{")
    found, problems = evidence.comparisons([tmp_path, folder])
    assert found == []
    assert len(problems) == 1 and "comparison.json cannot be read" in problems[0]


@pytest.mark.parametrize(("count", "shapes"), [(100, True), (10_001, False)])
def test_dots_of_a_large_pool_are_an_image_in_a_pdf(count, shapes):
    rng = np.random.default_rng(0)
    groups = {"pool": rng.normal(size=(count, 2)), "selected": rng.normal(size=(5, 2))}
    figure = plots.embedding_maps({"random": (groups, (0.6, 0.4))})
    pool, selected = figure.axes[0].collections
    assert pool.get_rasterized() != shapes
    assert not selected.get_rasterized()


# Axes, pens, pages


def test_an_axis_is_honest():
    near = [Point(10, 63.0, math.nan, True), Point(20, 63.4, math.nan, True)]
    axis = Axis("PCK (%)", room=5.0, bounds=(0.0, 100.0))
    figure = curves.learning_curves({"a": near}, axis, title="")
    low, high = figure.axes[0].get_ylim()
    assert high - low == pytest.approx(10.0)  # noise does not fill the plot
    edge = [Point(10, 99.0, 5.0, True), Point(20, 2.0, 5.0, True)]
    figure = curves.learning_curves({"a": edge}, axis, title="")
    (bars,) = figure.axes[0].containers
    ends = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    np.testing.assert_allclose(ends, [(94.0, 100.0), (0.0, 7.0)])


def test_a_baseline_above_the_curves_is_called_so_in_the_legend():
    points = [Point(10, 1.5, math.nan, True), Point(20, 1.9, math.nan, True)]
    figure = curves.learning_curves(
        {"a": points}, Axis("", room=5.0), title="", levels={"mean pose": 43.7}
    )
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["a  1.9", "mean pose 43.7: above what is shown"]
    assert not figure.axes[0].texts  # nothing covers a point


def test_a_method_has_one_pen_in_all_plots(found):
    pens = canvas.pens(found.methods, "random")
    scores, gains = evidence.learning(found, "random")
    (cost,) = evidence.costs(found, "random")
    for plot in (scores, gains):
        for name, line in lines_of(plot.figure).items():
            if name in pens:
                assert line.get_color() == pens[name]["color"]
    drawn = {c.get_label(): c.lines[0] for c in cost.figure.axes[0].containers}
    assert drawn.keys() == {"coreset", "control"}
    assert all(line.get_color() == pens[n]["color"] for n, line in drawn.items())
    assert pens["random"]["color"] == canvas.INK


def test_a_plot_on_a_page_follows_its_colours(found):
    plot, *_ = evidence.learning(found, "random")
    svg = canvas.vector(plot.figure, "curves")
    assert svg == canvas.vector(plot.figure, "curves")
    assert svg.startswith('<svg viewBox="0 0 ') and svg.rstrip().endswith("</svg>")
    fixed = set(re.findall("#[0-9a-f]{6}", svg))
    assert not {colour.lower() for colour in canvas.COLOURS} & fixed
    assert "var(--m0)" in svg and "var(--ink)" in svg
    assert {name[:7] for name in re.findall(r'\bid="(.*?)"', svg)} == {"curves-"}
    assert "http" not in svg and "metadata" not in svg
    style = page.resource("page_style.css")
    assert set(re.findall(r"var\((--\w+)\)", svg)) <= set(re.findall(r"--\w+", style))


def test_a_large_cloud_is_an_image_on_a_page():
    groups = {"pool": np.zeros((canvas.MOST_SHAPES + 1, 2))}
    figure = plots.embedding_maps({"random": (groups, (0.6, 0.4))})
    assert "data:image/png" in canvas.vector(figure, "maps")
    assert not figure.axes[0].collections[0].get_rasterized()  # a PDF has its shapes


def test_a_dot_alone_is_no_plot_of_costs(tmp_path):
    for method in ("random", "eglpp"):
        fake_runs.write_run(tmp_path / method, method, 0)
    assert evidence.costs(gather([tmp_path]), "random") == []
