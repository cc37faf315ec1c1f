"""The gradient-norm paper's tables: Table 1, Table 3, and what falls (A.2)."""

import pytest

from jalpose.report import gradnorm_tables
from jalpose.report.contents import make_tables
from jalpose.report.gather import gather
from jalpose.report.measures import columns_of_runs, measures_table, rows_of_runs
from jalpose.report.text_formats import MeanSd, markdown
from jalpose.storage import records
from tests.support.recorded_runs import write_run

SCORES = (0.5, 0.6, 0.7)


def measured_run(folder, method, seed, overlaps, gaps, fallen, task=None):
    """A run with these shares, gaps in the score's unit, and shares that fell."""
    write_run(folder, method, seed, SCORES, budget=100, task=task)
    for record in records.read_cycles(folder):
        cycle = record["cycle"]
        metrics = record["metrics"]
        key = next(k for k in ("pck", "accuracy") if k in metrics)
        if gaps:
            metrics[f"train_{key}"] = metrics[key] + gaps[cycle]
        if fallen and cycle:
            metrics["norms_fallen"] = fallen[cycle - 1]
        if record["acquisition"] and overlaps:
            record["measures"]["sq_norm_overlap"] = overlaps[cycle]
        records.write_cycle(folder, record)
    return folder


def rows_by_method(table):
    return {row["method"]: row for row in table.rows}


@pytest.fixture(params=[None, "classification"], ids=["poses", "classes"])
def found(request, tmp_path):
    for seed in (0, 1):
        more = 0.02 * seed
        for method, share in (("entropy_gradnorm", 0.6), ("random", 0.1)):
            measured_run(
                tmp_path / f"{method}{seed}",
                method,
                seed,
                (share, share + more),
                (0.3, 0.2 + more, share / 10),
                (0.9, 0.95 + more / 2) if method != "random" else None,
                request.param,
            )
    return gather([tmp_path])


def test_table_1_counts_the_chosen_among_the_truly_highest(found):
    table = gradnorm_tables.overlap_table(found)
    rows = rows_by_method(table)
    assert list(rows) == ["random", "entropy_gradnorm"]
    ours = rows["entropy_gradnorm"]
    assert ours["1000"] == MeanSd(pytest.approx(60), pytest.approx(0))
    assert ours["1100"] == MeanSd(pytest.approx(61), pytest.approx(2**0.5))
    assert "1200" not in ours  # nothing is chosen there
    assert {table.rows[i]["method"] for i, _ in table.bold} == {"entropy_gradnorm"}
    assert "Of a choice at random are expected 10 at 1000, 10 at 1100." in table.notes


def test_table_3_is_training_less_test_in_points(found):
    table = gradnorm_tables.gap_table(found)
    ours = rows_by_method(table)["entropy_gradnorm"]
    assert ours["1000"].mean == pytest.approx(30)
    assert ours["1100"] == MeanSd(pytest.approx(21), pytest.approx(2**0.5))
    assert ours["1200"].mean == pytest.approx(6)
    best = {key: table.rows[i]["method"] for i, key in table.bold}
    assert best == {"1200": "random"}  # the smallest


def test_what_fell_is_in_percent(found):
    table = gradnorm_tables.fallen_table(found)
    assert list(rows_by_method(table)) == ["entropy_gradnorm"]
    ours = rows_by_method(table)["entropy_gradnorm"]
    assert ours["1100"].mean == pytest.approx(90)
    assert ours["1200"].mean == pytest.approx(95.5)


def test_tables_are_there_only_where_something_was_recorded(found, tmp_path):
    named = {"gradnorm_table_1", "gradnorm_table_3", "gradnorm_fallen"}
    assert named <= {table.name for table in make_tables(found)}
    plain = write_run(tmp_path / "other" / "run", "random", 0, SCORES)
    assert not named & {table.name for table in make_tables(gather([plain]))}


def test_where_less_is_better_the_gap_is_turned_round(tmp_path, monkeypatch):
    from jalpose.tasks import registry

    monkeypatch.setitem(registry.TASKS, "brightness", "tests.support.brightness")
    write_run(tmp_path, "random", 0, (0.3, 0.2), task="brightness")
    for record in records.read_cycles(tmp_path):
        record["metrics"]["train_brightness_error"] = 0.1
        records.write_cycle(tmp_path, record)
    table = gradnorm_tables.gap_table(gather([tmp_path]))
    (row,) = table.rows
    assert row["1000"].mean == pytest.approx(0.2)
    assert row["1100"].mean == pytest.approx(0.1)
    assert "test less training" in table.caption


def test_measures_on_the_test_set_are_columns_where_a_run_has_them(tmp_path):
    folder = write_run(tmp_path / "a", "eglpp", 0, SCORES)
    runs = {"eglpp": folder}

    def keys():
        rows = rows_of_runs(runs)
        on_screen = {column.key for column in columns_of_runs(runs, rows)}
        table = measures_table(gather([folder]))
        return on_screen, {column.key for column in table.columns}, table

    for found in keys()[:2]:
        assert "test_ranking_accuracy" not in found
    for record in records.read_cycles(folder):
        if record["acquisition"]:
            record["measures"]["test_ranking_accuracy"] = 0.9074
            records.write_cycle(folder, record)
    *both, table = keys()
    for found in both:
        assert "test_ranking_accuracy" in found and "test_pearson" not in found
    assert "0.907" in markdown(table)
