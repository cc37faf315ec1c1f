"""Tables of runs on classes: scores beside the accuracy, and very many classes."""

import json

import numpy as np
import pytest

from jalpose.report import measures, selection_tables
from jalpose.report.gather import gather
from jalpose.storage import records
from tests.support.recorded_runs import write_experiment

SCORES = {"random": [[0.4, 0.5], [0.42, 0.54]], "egl": [[0.4, 0.6], [0.42, 0.58]]}


def edit(folder, change):
    """Have `change(metrics, row)` made to every record below a folder."""
    for path in folder.rglob(records.CYCLES):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            change(row["metrics"], row)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path, SCORES, task="classification")


def test_scores_beside_the_accuracy(folder):
    assert measures.beside_table(gather([folder])).rows == ()

    def change(metrics, row):
        metrics["negative_log_likelihood"] = 2 - metrics["accuracy"]
        metrics["expected_calibration_error"] = 0.1 + 0.05 * row["cycle"]

    edit(folder, change)
    table = measures.beside_table(gather([folder]))
    assert [column.heading or column.key for column in table.columns] == [
        "labelled",
        "method",
        "negative log-likelihood",
        "expected calibration error",
    ]
    rows = {(row["labelled"], row["method"]): row for row in table.rows}
    assert len(rows) == 4
    found = rows[1100, "egl"]
    assert found["negative_log_likelihood"].mean == pytest.approx(2 - 0.59)
    deviation = np.std([0.6, 0.58], ddof=1)
    assert found["negative_log_likelihood"].sd == pytest.approx(deviation)
    assert found["expected_calibration_error"].mean == pytest.approx(0.15)


def test_of_very_many_classes_the_ends_are_shown(folder, monkeypatch):
    monkeypatch.setattr(selection_tables, "MOST_PARTS", 9)
    monkeypatch.setattr(selection_tables, "ENDS", 2)

    def change(metrics, row):
        score = metrics["accuracy"]
        parts = {f"class {n}": score + n / 100 for n in range(10)}
        metrics["accuracy_per_class"] = {**parts, "nowhere": None}

    edit(folder, change)
    table = selection_tables.parts_table(gather([folder]))
    names = [row["class"] for row in table.rows]
    assert names == ["class 0", "class 1", "class 8", "class 9", "all"]
    assert table.rows[0]["egl"].mean == pytest.approx(59)
    assert any("lowest 2 and the highest 2 of 11" in note for note in table.notes)
    monkeypatch.setattr(selection_tables, "MOST_PARTS", 11)
    table = selection_tables.parts_table(gather([folder]))
    assert len(table.rows) == 12 and table.notes == ("Runs: egl 2, random 2.",)
