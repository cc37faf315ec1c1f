"""Our values beside those that the papers print."""

import numpy as np
import pytest

from jalpose.report import printed, printed_tables
from jalpose.report.contents import make_tables
from jalpose.report.gather import gather
from jalpose.report.text_formats import markdown
from tests.support.recorded_runs import write_run

SECTION = "acquisition.learning_loss"
LEARNING_LOSS = {
    "Learning Loss": {f"{SECTION}.objective": "margin", f"{SECTION}.head": "average"},
    "LL++": {f"{SECTION}.objective": "kl", f"{SECTION}.head": "average"},
    "LL++conv": {f"{SECTION}.objective": "kl", f"{SECTION}.head": "conv"},
}


def write(folder, name, methods, level=0.8, seeds=5, **changes):
    """Runs of five cycles of an experiment; later methods are the better ones."""
    for place, (label, method) in enumerate(methods.items()):
        for seed in range(seeds):
            rng = np.random.default_rng([seed, place])
            scores = level + 0.01 * np.arange(6) + 0.02 * place
            scores[0] = level + 0.001 * seed  # the base model's
            scores[1:] += 0.001 * rng.normal(size=5)
            write_run(
                folder / f"{label}{seed}",
                method,
                seed,
                scores.tolist(),
                budget=1000,
                changes={"name": name, **LEARNING_LOSS.get(label, {}), **changes},
                selected=(scores - 0.3 - 0.1 * place + rng.normal(0, 1e-3, 6)).tolist(),
            )
    return gather([folder])


@pytest.fixture(scope="module")
def llpp(tmp_path_factory):
    methods = {"Random": "random", "Core-set": "coreset"}
    methods |= dict.fromkeys(LEARNING_LOSS, "learning_loss")
    return write(tmp_path_factory.mktemp("llpp"), "llpp_table3_lsp", methods)


@pytest.mark.slow
def test_table_3_of_llpp_stands_beside_ours(llpp):
    selected, test = printed_tables.printed_tables(llpp)
    assert (selected.name, test.name) == ("printed_llpp_3a", "printed_llpp_3b")
    assert len(test.rows) == 25
    row = test.rows[3]  # LL++ after the first stage
    assert (row["stage"], row["method"], row["labelled"]) == ("S1", "LL++", 2000)
    assert row["ours"].mean == pytest.approx(0.8 + 0.01 + 0.06, abs=0.002)
    assert row["printed"] == (0.798, 0.005) and "p" not in row
    # Those before LL++ are worse, LL++conv is better: one-tailed for LL++.
    assert test.rows[0]["p"] < 0.01 and test.rows[4]["p"] > 0.99
    assert (0, "p") in test.bold and (4, "p") not in test.bold
    assert "| S1 | 2000 | LL++ | .87" in markdown(test)
    # Of the images selected the lowest score is the best; the base model has chosen.
    row = selected.rows[0]
    assert (row["stage"], row["labelled"]) == ("2000", 2000)
    assert row["ours"].mean == pytest.approx(0.8 - 0.3 + 0.002, abs=0.003)
    assert selected.rows[0]["p"] < 0.01 and selected.rows[4]["p"] > 0.99
    names = [table.name for table in make_tables(llpp)]
    assert {"printed_llpp_3a", "printed_llpp_3b"} <= set(names)


def test_table_1_of_eglpp_says_what_is_lost_and_what_small_forbids(tmp_path):
    methods = {"Random": "random", "Learning Loss": "learning_loss", "EGL++": "eglpp"}
    sizes = {"data.size": 64, "acquisition.pool_subset": 600, "acquisition.budget": 100}
    found = write(tmp_path, "eglpp_table1_lsp", methods, seeds=3, **sizes)
    (table,) = printed_tables.printed_tables(found)
    rows = {(row["stage"], row["method"]): row for row in table.rows}
    assert rows["2000", "Random"]["printed"] == (80.34, 0.31)
    assert rows["2000", "Random"]["printed_p"] == 0.285
    assert rows["2000", "Random"]["p"] < 0.1
    assert rows["2000", "EGL++"]["ours"].mean == pytest.approx(85, abs=0.2)
    assert rows["2000", "EGL++"]["printed"] is None  # in no text at hand
    assert "ours" not in rows["2000", "Core-set"]
    notes = " ".join(table.notes)
    assert "Multi-peak at 2000, 3000; EGL++ at 2000, 3000, 4000, 5000, 6000" in notes
    assert "Not among these runs: Core-set, Multi-peak." in notes
    assert "Ours: 3 runs a method." in notes
    assert "crops of 64 pixels" in notes and "out of a random 600" in notes
    assert "show that the protocol runs" in notes


def test_the_other_papers_table_stands_beside_where_its_method_was_run_too(tmp_path):
    methods = {"Random": "random", "LL++": "learning_loss", "EGL++": "eglpp"}
    found = write(tmp_path, "llpp_table3_lsp", methods, seeds=2)
    names = [table.name for table in printed_tables.printed_tables(found)]
    assert names == ["printed_llpp_3a", "printed_llpp_3b", "printed_eglpp_1"]


def test_other_experiments_have_no_printed_tables(tmp_path):
    found = write(tmp_path, "lsp", {"Random": "random", "EGL++": "eglpp"}, seeds=1)
    assert printed_tables.printed_tables(found) == []


def test_every_printed_row_has_all_its_stages():
    for tables in printed.OF_CONFIG.values():
        for table in tables:
            assert len(table.stages) == printed.STAGES
            assert table.proposed in table.rows
            for values in (*table.rows.values(), *table.p.values()):
                assert len(values) == printed.STAGES
