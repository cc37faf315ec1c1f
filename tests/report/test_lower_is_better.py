"""Reports on a task that is no pose: its score is an error, not in percent."""

import re

import numpy as np
import pytest
from scipy import stats

from jalpose.report import __main__ as command
from jalpose.report import (
    comparison_tables,
    evidence,
    measures,
    paper_tables,
    selection_tables,
    tables,
)
from jalpose.report.gather import gather
from jalpose.report.text_formats import markdown
from jalpose.tasks import registry
from tests.support.recorded_runs import write_experiment, write_run

# How far each method's error is below random's, by cycle.
GAINS = {"random": (0, 0, 0), "eglpp": (0, 0.02, 0.03), "coreset": (0, -0.03, -0.03)}


@pytest.fixture(scope="module", autouse=True)
def brightness():
    with pytest.MonkeyPatch.context() as patch:
        task = {"brightness": "tests.support.brightness"}
        patch.setattr(registry, "TASKS", registry.TASKS | task)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, brightness):
    rng = np.random.default_rng(0)
    fall = np.array([0.30, 0.20, 0.15])
    base = rng.normal(0, 0.01, (5, 1)) + fall
    noise = {method: rng.normal(0, 0.001, (5, 3)) * (fall < 0.3) for method in GAINS}
    scores = {
        method: (base - np.array(gain) + noise[method]).tolist()
        for method, gain in GAINS.items()
    }
    place = write_experiment(
        tmp_path_factory.mktemp("brightness"), scores, task="brightness"
    )
    full = {"data.labelled": "all"}
    write_run(
        place / "full",
        "random",
        0,
        (0.1,),
        cycles=0,
        labelled=(2000,),
        changes=full,
        task="brightness",
    )
    return place


@pytest.fixture(scope="module")
def found(folder):
    return gather([folder])


def errors(found, method, cycle):
    runs = found.by(method)
    return [run.cycles[cycle]["metrics"]["brightness_error"] for run in runs]


def bold_methods(table):
    return {(table.rows[row]["method"], key) for row, key in table.bold}


def test_the_lowest_is_the_best(found):
    scores = comparison_tables.scores_table(found)
    assert bold_methods(scores) == {("eglpp", "score")}
    assert bold_methods(comparison_tables.area_table(found)) == {("eglpp", "area")}
    assert scores.caption.startswith("MAE by labelled images")
    (level,) = [row for row in scores.rows if row["method"] == "all labels"]
    assert level["score"].mean == 0.1


def test_a_lower_error_is_called_better_and_a_higher_one_worse(found):
    for table in (
        comparison_tables.scores_table(found),
        comparison_tables.area_table(found),
    ):
        rows = {(r["method"], r.get("labelled", 1200)): r for r in table.rows}
        better, worse = rows["eglpp", 1200], rows["coreset", 1200]
        assert better["difference"] > 0 > worse["difference"]
        assert better["one_tailed"] < 0.01 and worse["one_tailed"] > 0.99
        assert "Difference: random minus method" in " ".join(table.notes)
        said = [note for note in table.notes if note.startswith("Significantly")]
        best, worst = " ".join(said).split("Significantly worse than random")
        assert best.startswith("Significantly better than random") and "eglpp" in best
        assert "coreset" in worst and "coreset" not in best
    row = next(
        r
        for r in comparison_tables.scores_table(found).rows
        if (r["method"], r["labelled"]) == ("eglpp", 1200)
    )
    ours, theirs = (errors(found, method, 2) for method in ("eglpp", "random"))
    expected = stats.ttest_rel(ours, theirs, alternative="less").pvalue
    assert row["one_tailed"] == pytest.approx(expected)
    assert row["difference"] == pytest.approx(np.mean(theirs) - np.mean(ours))


def test_labels_are_saved_where_the_error_falls_sooner(found):
    table = comparison_tables.saved_table(found)
    rows = {row["method"]: row for row in table.rows}
    assert rows["eglpp"]["target"] == pytest.approx(np.mean(errors(found, "random", 2)))
    assert rows["eglpp"]["reference"] == 1200
    assert 1100 < rows["eglpp"]["needed"] < 1200 and rows["eglpp"]["saved"] > 0
    assert rows["coreset"]["needed"] is None  # never as low
    assert "Multiples of that at 1200 labels: random 1.5" in " ".join(table.notes)
    high = comparison_tables.saved_table(found, target=0.25).rows
    assert all(row["target"] == 0.25 and row["needed"] is not None for row in high)


def test_who_beats_whom(found):
    every = comparison_tables.penalty_table(found, every_budget=True)
    rows = {row["method"]: row for row in every.rows}
    assert rows["eglpp"]["random"] == rows["random"]["coreset"] == 1.0
    assert rows["random"]["eglpp"] == rows["coreset"]["random"] == 0.0
    assert bold_methods(every) == {("mean of the column", "eglpp")}
    assert "its mean is lower" in every.notes[0]
    by_rule = comparison_tables.penalty_table(found)
    # Doubling from 1: cycle 1 is far above random's last error.
    assert ": 1100 labelled" in by_rule.notes[1]
    assert "until random is below 101% of its last score" in by_rule.notes[1]


def test_the_papers_layouts(found):
    table = paper_tables.eglpp_table(found)
    rows = {row["method"]: row for row in table.rows}
    assert rows["random"]["p 2"] < 0.01 and rows["coreset"]["p 2"] < 0.01
    assert bold_methods(table) == {("eglpp", "mean 1"), ("eglpp", "mean 2")}
    chosen = paper_tables.llpp_selected_table(found)
    assert "(higher: better at finding failures)" in chosen.caption
    assert {method for method, _ in bold_methods(chosen)} <= {"coreset", "random"}
    assert ("coreset", "1") in bold_methods(chosen)
    tested = paper_tables.llpp_test_table(found)
    assert {method for method, _ in bold_methods(tested)} == {"eglpp"}


def test_the_parts_are_classes(found):
    table = selection_tables.parts_table(found)
    assert table.name == "classes" and table.caption.startswith("MAE of each class")
    assert [row["class"] for row in table.rows] == ["first", "second", "all"]
    first, _, whole = table.rows
    assert first["eglpp"].mean == pytest.approx(whole["eglpp"].mean + 0.05)


def test_measures_of_the_score_are_as_recorded(found):
    table = measures.measures_table(found)
    headings = dict(zip(table.headings, table.columns, strict=True))
    assert {"MAE selected", "MAE scored"} <= headings.keys()
    rows = [row for row in table.rows if row["method"] == "random"]
    expected = np.mean(errors(found, "random", 0)) / 2
    key = headings["MAE selected"].key
    assert key == "selected_brightness_error"
    assert rows[0][key].mean == pytest.approx(expected)
    assert rows[0]["chance_overlap"].mean == pytest.approx(10.0)  # in percent still


def test_what_lies_below_the_reference_is_drawn_above(found):
    scores, gains = evidence.learning(found, "random")
    legend = [text.get_text() for text in scores.figure.legends[0].get_texts()]
    assert [line.split()[0] for line in legend[:3]] == ["eglpp", "random", "coreset"]
    assert scores.figure.axes[0].get_ylabel() == "MAE"
    assert legend[3:] == ["mean brightness 0.2", "all 2000 labels 0.1"]
    assert gains.figure.axes[0].get_title(loc="left") == "Below random"
    lines = {line.get_label(): line for line in gains.figure.axes[0].get_lines()}
    assert lines["eglpp"].get_ydata()[2] == pytest.approx(0.03, abs=0.005)
    assert lines["coreset"].get_ydata()[2] == pytest.approx(-0.03, abs=0.005)
    (cost,) = evidence.costs(found, "random")
    assert "below random, MAE" in cost.figure.axes[0].get_ylabel()
    p_values, penalties = evidence.matrices(found, "random")
    drawn = [
        plot.figure.axes[0].get_images()[0].get_array()
        for plot in (p_values, penalties)
    ]
    better, worse = (found.methods.index(name) for name in ("eglpp", "coreset"))
    assert drawn[0][better, worse] < 0.01 < 0.99 < drawn[0][worse, better]
    assert drawn[1][better, worse] > 0 == drawn[1][worse, better]


@pytest.mark.slow
def test_the_whole_report_is_written(folder, tmp_path):
    assert command.main([str(folder), f"--out={tmp_path}"]) == 0
    html = (tmp_path / "index.html").read_text("utf-8")
    words = re.sub(
        r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", html, flags=re.S
    )
    assert "Active learning for brightness: lsp" in words
    assert "Examples are not drawn: the task brightness has no pictures." in words
    head = words[: words.index("Where the runs come from")]
    assert not re.search(r"PCK|\bpose|\bjoint|points|in percent by", head)
    assert {path.name for path in (tmp_path / "plots").glob("*.png")} == {
        f"{name}.png"
        for name in (
            "cost_against_gain", "gain_curves", "learning_curves", "p_values",
            "penalties",
        )
    }  # fmt: skip
    assert (tmp_path / "tables" / "classes.csv").exists()


def test_runs_side_by_side(folder):
    runs = {method: folder / method / "0" for method in GAINS}
    rows, scoring = tables.compare_runs(runs), tables.scoring_of_runs(runs)
    assert (scoring.name, scoring.axis, scoring.in_unit) == ("MAE",) * 3
    assert rows[2]["eglpp - random"] < 0 < rows[2]["coreset - random"]
    text = tables.format_table(
        rows, tables.comparison_columns(list(runs), digits=scoring.digits(1))
    )
    assert re.search(r"-0\.0\d+", text)
    assert measures.rows_of_runs(runs)[0]["pool_brightness_error"] < 1
    assert evidence.progress(runs).axes[0].get_ylabel() == "MAE"
    assert (
        "percent"
        not in markdown(measures.measures_table(gather([folder]))).split(
            "images selected"
        )[0]
    )


def test_which_score_is_the_main_one_is_told_by_its_name_in_the_records():
    from jalpose.report import scoring

    pixels = {"metrics": {"pixel_error": 4.0, "pixel_error_name": "px", "pck": 0.5}}
    found = scoring.scoring_of("pose", [{"metrics": {}}, pixels])
    assert (found.keys.key, found.name, found.sign) == ("pixel_error", "px", -1)
    assert found.value(pixels) == 4.0
    shares = {"metrics": {"pck": 0.5, "pck_name": "PCK@0.2", "pixel_error": 4.0}}
    found = scoring.scoring_of("pose", [shares])
    assert (found.keys.key, found.sign, found.value(shares)) == ("pck", 1, 50.0)
    assert scoring.scoring_of("pose", []).keys.key == "pck"
