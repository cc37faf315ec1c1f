import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jalpose.report import (
    comparison_tables,
    measures,
    paper_tables,
    selection_tables,
)
from jalpose.report.contents import make_tables
from jalpose.report.gather import GatherError, gather
from jalpose.report.grid import choose_reference, score_grid
from jalpose.report.text_formats import MeanSd, csv_text, latex, markdown, plain_text
from tests.support.recorded_runs import write_experiment, write_run

# EGL++ Table 1, MPII: mean and deviation at 2000, 3000, 4000, 5000 and 6000.
EGLPP_TABLE_1 = {
    "random": "75.95 .55 78.33 .65 80.31 .91 81.35 .41 82.23 .74",
    "coreset": "76.61 .60 79.24 .70 81.25 .67 82.23 1.14 82.97 1.11",
    "multipeak_entropy": "76.74 .61 79.56 .46 81.19 .31 82.61 .50 83.11 .71",
    "learning_loss": "76.28 .76 79.27 .52 81.35 .35 82.94 .44 83.79 .46",
    "eglpp": "77.28 .63 79.58 .33 81.53 .51 83.07 .25 84.00 .38",
}
# LL++ Table 3a and 3b, LSP and LSPET, two of the methods.
LLPP_3A = {
    "random": ".430 .017 .527 .012 .593 .007 .624 .009 .645 .007",
    "learning_loss": ".305 .013 .253 .021 .358 .025 .520 .011 .617 .017",
}
LLPP_3B = {
    "random": ".803 .003 .818 .002 .827 .003 .834 .003 .841 .002",
    "learning_loss": ".796 .004 .814 .003 .823 .004 .833 .003 .842 .005",
}


def numbers(printed):
    flat = [float(word) for word in printed.split()]
    return list(zip(flat[::2], flat[1::2], strict=True))


def made_up(printed, name, unit=1.0):
    """Five runs by stage with just these means and deviations."""
    rng = np.random.default_rng([*name.encode()])
    stages = []
    for mean, sd in numbers(printed):
        drawn = rng.normal(size=5)
        drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
        stages.append((mean + sd * drawn) / unit)
    return np.array(stages).T  # [5, stages]


@pytest.fixture(scope="module")
def eglpp_runs(tmp_path_factory):
    scores = {
        name: [[0.7, *run] for run in made_up(printed, name, 100).tolist()]
        for name, printed in EGLPP_TABLE_1.items()
    }
    folder = tmp_path_factory.mktemp("eglpp")
    return gather([write_experiment(folder, scores, budget=1000)])


def lines_of(text):
    """Cells of the lines of a Markdown table, without bold."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip().strip("*") for c in row.strip("|").split("|")] for row in rows]
    return {row[0]: row[1:] for row in cells}


# The papers' layouts


def test_the_layout_of_eglpp_table_1(eglpp_runs):
    table = paper_tables.eglpp_table(eglpp_runs)
    lines = lines_of(markdown(table))
    # Random first and the proposed method last, with no p.
    assert list(lines)[2:] == sorted(set(lines) & set(EGLPP_TABLE_1), key=_printed)
    assert lines["method"][:4] == ["2000 μ", "2000 σ", "2000 p", "3000 μ"]  # noqa: RUF001
    for name, printed in EGLPP_TABLE_1.items():
        for stage, (mean, sd) in enumerate(numbers(printed)):
            cells = lines[name][3 * stage : 3 * stage + 3]
            assert cells[:2] == [f"{mean:.2f}", f"{sd:.2f}"]
            ours, best = (
                [run.cycles[stage + 1]["metrics"]["pck"] for run in eglpp_runs.by(m)]
                for m in (name, "eglpp")
            )
            if name == "eglpp":
                assert cells[2] == "-"
                continue
            p = stats.ttest_rel(best, ours, alternative="greater").pvalue
            assert cells[2] == (
                "<0.001".replace("<", "\\<") if p < 1e-3 else f"{p:.3f}"
            )
    bold = {(table.rows[row]["method"], key) for row, key in table.bold}
    assert bold == {("eglpp", f"mean {cycle}") for cycle in range(1, 6)}
    assert "over 5 runs" in table.caption
    (note,) = table.notes
    assert note == "Bold: the best mean, as the paper prints it; that is no test."


def _printed(name):
    return (name == "eglpp", name != "random", name)


def test_eglpp_table_1_in_latex(eglpp_runs):
    text = latex(paper_tables.eglpp_table(eglpp_runs))
    assert r" & \multicolumn{3}{c}{2000} & \multicolumn{3}{c}{3000}" in text
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7}" in text
    assert r"method & $\mu$ & $\sigma$ & p & $\mu$" in text
    assert r"eglpp & \textbf{77.28} & 0.63 & -- & \textbf{79.58} & 0.33" in text
    assert r"multipeak\_entropy & 76.74 & 0.61 &" in text


def test_the_layout_of_llpp_table_3(tmp_path):
    for name in LLPP_3A:
        selected, test = (made_up(t[name], name) for t in (LLPP_3A, LLPP_3B))
        for seed in range(5):
            options = {"selected": selected[seed].tolist(), "budget": 1000}
            scores = [0.75, *test[seed].tolist()]
            write_run(tmp_path / name / str(seed), name, seed, scores, **options)
    found = gather([tmp_path])
    for table, printed in (
        (paper_tables.llpp_selected_table(found), LLPP_3A),
        (paper_tables.llpp_test_table(found), LLPP_3B),
    ):
        lines = lines_of(markdown(table))
        assert list(lines)[2:] == ["random", "learning_loss"]
        for name in printed:
            expected = [f"{m:.3f}±{s:.3f}" for m, s in numbers(printed[name])]
            assert lines[name] == [cell.replace("0.", ".") for cell in expected]
    lowest = paper_tables.llpp_selected_table(found)
    assert lines_of(markdown(lowest))["method"] == [
        "2000",
        "3000",
        "4000",
        "5000",
        "6000",
    ]
    assert {row for row, _ in lowest.bold} == {1}
    assert lines["method"] == ["S1", "S2", "S3", "S4", "S5"]
    # Random up to S4, learning loss at S5, as printed.
    assert sorted(table.bold) == [(0, "1"), (0, "2"), (0, "3"), (0, "4"), (1, "5")]


# Comparisons


def paired(folder, seeds, gains=(0.0, 0.02, 0.03), noise=0.002, **options):
    """Random and a method `gains` above it, but for noise, from shared base models."""
    rng = np.random.default_rng(0)
    rise = np.array([0.0, 0.05, 0.08])
    base = 0.5 + rng.normal(0, 0.01, (seeds, 1)) + rise
    moved = base + np.array(gains) + rng.normal(0, noise, (seeds, 3)) * (rise > 0)
    scores = {"random": base.tolist(), "eglpp": moved.tolist()}
    return gather([write_experiment(folder, scores, **options)])


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5])
def test_scores_by_the_number_of_seeds(tmp_path, seeds):
    found = paired(tmp_path, seeds)
    table = comparison_tables.scores_table(found)
    assert [row["labelled"] for row in table.rows] == [1000] * 2 + [1100] * 2 + [
        1200
    ] * 2
    assert [row["method"] for row in table.rows][:2] == ["random", "eglpp"]
    notes = " ".join(table.notes)
    row = table.rows[3]
    ours, theirs = (
        [100 * run.cycles[1]["metrics"]["pck"] for run in found.by(method)]
        for method in ("eglpp", "random")
    )
    assert row["runs"] == seeds
    assert row["score"].mean == pytest.approx(np.mean(ours))
    assert row["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    if seeds < 3:
        assert row["one_tailed"] is row["holm"] is row["wilcoxon"] is None
        assert "no p-value under 3" in notes
        assert "Nothing here is shown to be significant" in notes
        return
    assert row["two_tailed"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    greater = stats.ttest_rel(ours, theirs, alternative="greater").pvalue
    assert row["one_tailed"] == pytest.approx(greater)
    both = sorted([row["two_tailed"], table.rows[5]["two_tailed"]])
    assert min(row["holm"], table.rows[5]["holm"]) == pytest.approx(2 * both[0])
    assert ("fragile" in notes) == (seeds < 5)
    assert "Wilcoxon cannot be significant" in notes
    assert "corrected over the 2 comparisons" in notes
    assert "Significantly better than random at 0.05 after Holm's" in notes
    # Cycle 0 is before any choice: not tested.
    assert "difference" not in table.rows[1]


def test_what_is_not_significant_is_said(tmp_path):
    found = paired(tmp_path, 6, gains=(0, 0, 0), noise=0.02)
    notes = comparison_tables.scores_table(found).notes
    assert notes[-1] == (
        "After Holm's correction no method differs significantly from random at 0.05 "
        "(paired t-test)."
    )
    # 2^(1 - 6) = 0.03125 could be significant alone, but not as one of two.
    assert notes[-2] == (
        "Corrected over 2 comparisons Wilcoxon cannot be significant: its p cannot "
        "fall below 0.0625."
    )


def test_a_worse_method_is_called_worse(tmp_path):
    found = paired(tmp_path, 5, gains=(0, -0.05, -0.05))
    last = comparison_tables.scores_table(found).notes[-1]
    assert last.startswith("Significantly worse than random")
    other = comparison_tables.scores_table(found, "eglpp").notes[-1]
    assert other.startswith("Significantly better than eglpp")


def test_the_area_under_the_curve(tmp_path):
    found = paired(tmp_path, 3)
    table = comparison_tables.area_table(found)
    curves = np.array(
        [[100 * r["metrics"]["pck"] for r in run.cycles] for run in found.by("random")]
    )
    mean = (curves @ [0.25, 0.5, 0.25]).mean()  # half a step at either end
    assert table.rows[0]["area"].mean == pytest.approx(mean)
    assert table.rows[1]["two_tailed"] < 0.05


def test_labels_saved(tmp_path):
    table = comparison_tables.saved_table(paired(tmp_path, 3))
    (row,) = table.rows
    assert row["method"] == "eglpp" and row["reference"] == 1200
    assert 1000 < row["needed"] < 1200
    assert row["saved"] == pytest.approx(1200 - row["needed"])
    assert row["factor"] == pytest.approx(1200 / row["needed"])
    assert any("3 seeds are too narrow" in note for note in table.notes)
    high = comparison_tables.saved_table(gather([tmp_path]), target=99.0).rows[0]
    assert high["saved"] is high["factor"] is None and high["target"] == 99.0


@pytest.mark.parametrize("full", [(), (0.8,), (0.8, 0.84, 0.82)])
def test_the_level_of_all_labels_is_told(tmp_path, full):
    paired(tmp_path, 3)
    for seed, score in enumerate(full):
        write_run(
            tmp_path / f"full{seed}",
            "random",
            seed,
            (score,),
            cycles=0,
            labelled=(2000,),
            changes={"data.labelled": "all"},
        )
    found = gather([tmp_path])
    table = comparison_tables.scores_table(found)
    rows = [row for row in table.rows if row["method"] == "all labels"]
    saved = " ".join(comparison_tables.saved_table(found).notes)
    assert any(note.startswith("All labels:") for note in table.notes) == bool(full)
    assert ("All 2000 labels reach" in saved) == bool(full)
    if not full:
        assert rows == []
        return
    (row,) = rows
    assert (row["labelled"], row["runs"]) == (2000, len(full))
    assert row["score"].mean == pytest.approx(100 * np.mean(full))
    assert not any(place == len(table.rows) - 1 for place, _ in table.bold)
    grid = score_grid(found)
    shares = 100 * grid.means[:, -1] / row["score"].mean
    assert f"random {shares[1]:.0f}%, eglpp {shares[0]:.0f}%." in saved
    assert "Shares of that at 1200 labels: random" in saved


def test_penalties(tmp_path):
    found = paired(tmp_path, 5)
    table = comparison_tables.penalty_table(found, every_budget=True)
    assert table.rows == (
        {"method": "eglpp", "eglpp": 0.0, "random": 1.0},
        {"method": "random", "eglpp": 0.0, "random": 0.0},
        {"method": "mean of the column", "eglpp": 0.0, "random": 0.5},
    )
    assert table.bold == {(2, "eglpp")}
    # BADGE's rule, but for cycle 0, where all are alike: cycle 1.
    by_rule = comparison_tables.penalty_table(found)
    assert by_rule.rows[0]["random"] == 1
    assert any(": 1100 labelled" in note for note in by_rule.notes)


def test_a_method_never_tested_does_not_win_the_matrix_of_penalties(tmp_path):
    paired(tmp_path, 5)
    write_run(tmp_path / "coreset", "coreset", 0, (0.5, 0.9, 0.9))
    table = comparison_tables.penalty_table(gather([tmp_path]), every_budget=True)
    matrix = {row["method"]: row for row in table.rows}
    assert matrix["random"]["coreset"] is matrix["coreset"]["random"] is None
    means = {"coreset": None, "eglpp": 0.0, "random": 0.5}
    assert matrix["mean of the column"] == {"method": "mean of the column", **means}
    assert table.bold == {(3, "eglpp")}
    assert "A missing number: at none of these budgets can" in " ".join(table.notes)


def test_a_control_stands_at_its_cycle(tmp_path):
    paired(tmp_path, 3)
    for seed in range(3):
        write_run(
            tmp_path / f"control{seed}",
            "control",
            seed,
            (0.5, 0.51, 0.52),
            labelled=(1000, 1000, 1000),
            selections=[[], []],
        )
    found = gather([tmp_path])
    table = comparison_tables.scores_table(found)
    last = [row for row in table.rows if row["labelled"] == 1200]
    assert [row["method"] for row in last] == ["random", "control", "eglpp"]
    assert any(note.startswith("control buys no labels") for note in table.notes)
    saved = comparison_tables.saved_table(found)
    assert [row["method"] for row in saved.rows] == ["eglpp"]
    rows = paper_tables.llpp_selected_table(found).rows
    assert [row["method"] for row in rows] == ["random", "eglpp"]


# Selections, measures, joints, cost


def test_overlaps_by_hand(tmp_path):
    chosen = {
        "random": [[1, 2, 3, 4], [5, 6, 7, 8]],
        "eglpp": [[3, 4, 5, 9], [1, 2, 6]],
    }
    for method, selections in chosen.items():
        write_run(tmp_path / method, method, 0, (0.5, 0.6, 0.7), selections=selections)
    found = gather([tmp_path])
    table = selection_tables.overlap_table(found)
    first, second = table.rows
    assert (first["first"], first["second"], first["runs"]) == ("eglpp", "random", 1)
    assert first["jaccard"].mean == pytest.approx(2 / 6)
    assert first["share"].mean == pytest.approx(2 / 4)
    assert second["jaccard"].mean == pytest.approx(1 / 6)
    assert second["share"].mean == pytest.approx(1 / 3)
    # All of 3 4 5 9 1 2 6 but 9 are among 1 to 8.
    assert second["so_far"].mean == pytest.approx(6 / 7)
    assert any("have 0.100 in common" in note for note in table.notes)
    matrix = selection_tables.overlap_matrix(found)
    assert matrix.rows[0] == {"method": "eglpp", "eglpp": 1.0, "random": 0.5}
    path = found.runs[0].path / "selections" / "cycle_00.csv"
    path.write_text("rank,id\n")
    damaged = selection_tables.overlap_table(found)
    assert [row["cycle"] for row in damaged.rows] == [1]
    assert damaged.rows[0]["so_far"] is None
    assert any(f"{path} is damaged" in note for note in damaged.notes)


def test_joints_measures_and_cost(tmp_path):
    found = paired(tmp_path, 2)
    joints = selection_tables.parts_table(found)
    assert [row["joint"] for row in joints.rows] == ["head", "neck", "all"]
    head, _, whole = joints.rows
    assert head["eglpp"].mean == pytest.approx(whole["eglpp"].mean + 5)
    table = measures.measures_table(found)
    assert len(table.rows) == 4  # two acquisitions of two methods
    assert table.rows[0]["ranking_accuracy"] == MeanSd(0.75, 0.0)
    assert table.rows[1]["ranking_accuracy"] is None
    assert "pearson" not in [column.key for column in table.columns]
    cost = selection_tables.cost_table(found)
    row = cost.rows[0]
    assert row["first"] == row["later"] == MeanSd(2.5, pytest.approx(math.sqrt(0.5)))
    assert (row["peak"], row["engine"], row["training"].mean) == (3.0, "ghost", 60.5)
    assert cost.rows[1]["engine"] is None


def test_unfinished_runs_are_in_the_tables(tmp_path):
    scores = {"random": [(0.5, 0.6, 0.7)] * 3, "eglpp": [(0.5, 0.6), (0.5,)]}
    found = gather([write_experiment(tmp_path, scores, cycles=4)])
    tables = {table.name: table for table in make_tables(found)}
    assert {row["labelled"] for row in tables["scores"].rows} == {1000, 1100, 1200}
    assert [row["runs"] for row in tables["area"].rows] == [3, 0]
    assert "Runs: eglpp 0, random 3." in tables["joints"].notes
    for table in tables.values():
        assert (
            markdown(table) and latex(table) and csv_text(table) and plain_text(table)
        )
    assert len(found.missing) == 6  # one run of eglpp is not there at all


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory):
    return paired(tmp_path_factory.mktemp("order"), 3)


@pytest.mark.slow
@given(order=st.permutations(range(6)))
@settings(max_examples=5)
def test_the_order_of_folders_changes_no_table(three_seeds, order):
    folders = [three_seeds.runs[i].path for i in order]
    assert make_tables(gather(folders)) == make_tables(three_seeds)


def test_references(tmp_path):
    assert choose_reference(["eglpp", "random"]) == "random"
    assert choose_reference(["b", "a"]) == "a"
    found = paired(tmp_path, 1)
    with pytest.raises(GatherError, match=r"unknown reference method 'egl'. Known: eg"):
        make_tables(found, reference="egl")
