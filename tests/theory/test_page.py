"""The page of the theory, and what it refuses."""

import json

import numpy as np
import pytest

from jalpose.storage import records
from jalpose.theory import losses, printed, tables, two_sides
from jalpose.theory.__main__ import main
from jalpose.theory.loss_pairs import PAPER

CHOSE = {"cycle": 0, "metrics": {}, "acquisition": {"method": "random"}}


def workdir(folder, **arrays):
    records.write_config(folder, {"config": {}})
    records.write_cycle(folder, CHOSE)
    records.write_arrays(folder, 0, ids=np.arange(400), **arrays)
    return folder


def test_what_is_equal_and_what_is_off():
    assert printed.verdict(0.0934700036, "0.094") == "off by -0.00053"
    assert printed.verdict(0.1852891262, "0.185") == "equal"
    assert printed.verdict(0.304313, "0.3") == "equal"
    assert printed.verdict(0.0033, "0.00") == "equal"
    assert printed.verdict(-0.5, "0.5").startswith("off by -1")


@pytest.mark.slow
def test_the_page_of_a_run_is_written_and_tells_what_is_off(tmp_path, capsys):
    drawn = np.random.default_rng(0).gamma(2, 0.5, 400).astype(np.float32)
    drawn[:3] = 0, np.nan, 0
    run = workdir(tmp_path / "run", true_losses=drawn)
    data = tmp_path / "rows.csv"
    numbers = np.random.default_rng(1).normal(size=(90, 3))
    lines = [",".join(map(str, row)) for row in numbers.tolist()]
    data.write_text("\n".join(["a,b,c", *lines]))
    flags = [f"--out={tmp_path / 'out'}", f"--run={run}", f"--data={data}"]
    assert main(flags) == 0
    said = capsys.readouterr().out
    assert "33 of 36 values" in said and "rounded twice" in said
    page = (tmp_path / "out" / "index.html").read_text()
    for words in ("3 others are 0 or not finite", "Gamma of shape 2", "LL++ Eq. 6"):
        assert words in page
    assert page.count("<svg viewBox=") == 4
    table = (tmp_path / "out" / "tables" / "llpp_table_1.csv").read_text()
    assert table.splitlines()[1].endswith("rounded twice")
    assert "equal" in table.splitlines()[2]
    again = tables.of_run(losses.read(run))
    assert again[0].shape == 2


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({}, "no true losses of its 400 scored examples"),
        ({"true_losses": np.zeros(400, np.float32)}, "0 of 400 true losses"),
        ({"true_losses": np.ones(400, np.float32)}, "not two different ones"),
    ],
)
def test_a_run_without_usable_losses_is_refused_by_name(
    tmp_path, capsys, arrays, message
):
    run = workdir(tmp_path / "people", **arrays)
    assert main([f"--out={tmp_path / 'out'}", f"--run={run}"]) == 2
    said = capsys.readouterr().err
    assert message in said and str(run) in said and said.count("\n") == 1


def test_no_run_and_one_that_has_not_chosen_are_refused(tmp_path, capsys):
    assert main([f"--out={tmp_path / 'out'}", f"--run={tmp_path / 'none'}"]) == 2
    assert "there is no run" in capsys.readouterr().err
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text(json.dumps({}))
    assert main([f"--out={tmp_path / 'out'}", f"--run={begun}"]) == 2
    assert "has chosen nothing yet" in capsys.readouterr().err


def test_each_table_says_what_is_equal():
    rows = [*tables.similar_pairs().rows, *tables.expected_shares().rows]
    assert [row["verdict"] != "equal" for row in rows] == [True] + [False] * 12
    assert all(row["verdict"] == "equal" for row in tables.worked_regression().rows)
    (zero, *others) = tables.expected_gradients(PAPER, (0.0, 0.1)).rows
    assert zero["zero"] == 0 and others[0]["zero"] == pytest.approx(0.466529, abs=1e-6)


@pytest.mark.slow
def test_where_the_sides_part():
    """The identity holds to the last digit; of a process the norm parts the orders."""
    rows = two_sides.rows_of("curve", labelled=30)
    rows = rows._replace(pool=rows.pool[:80])
    found = two_sides.sides(rows, members=5)
    assert len(found) == 3
    for side in found:
        agreed = two_sides.agreement(side)
        assert agreed["identity"] < 1e-12
        rows = two_sides.partings(side)
        assert len({row["example"] for row in rows}) == 3
    assert agreed["bias_only"] > 0.9 > 0.7 > agreed["norm_only"]


@pytest.mark.parametrize(
    "data, message",
    [
        ("curv", "unknown value of --data: 'curv'"),
        ("none.csv", "none.csv cannot be read as CSV"),
        ("twins.csv", "singular: its 3 columns have rank 2"),
        ("few.csv", "data.initial=40, but what is left of FEW has"),
    ],
)
def test_rows_that_cannot_be_compared_on_are_refused(tmp_path, capsys, data, message):
    numbers = np.random.default_rng(1).normal(size=(90, 3))
    numbers[:, 1] = 2 * numbers[:, 0]
    lines = [",".join(map(str, row)) for row in numbers.tolist()]
    (tmp_path / "twins.csv").write_text("\n".join(["a,b,c", *lines]))
    (tmp_path / "few.csv").write_text("\n".join(["a,b,c", *lines[:30]]))
    path = tmp_path / data if data.endswith(".csv") else data
    assert main([f"--out={tmp_path / 'out'}", f"--data={path}"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
