import pytest

from jalpose.report import tables
from jalpose.storage import records


def write_run(workdir, scores, *, threshold=0.2, seconds=10.0):
    for cycle, (number, pck) in enumerate(scores):
        last = cycle == len(scores) - 1
        acquisition = {"method": "eglpp", "engine": "ghost", "seconds": 2.5}
        metrics = {"pck": pck, "pck_threshold": threshold, "num_images": 1000}
        records.write_cycle(
            workdir,
            {
                "cycle": cycle,
                "num_labelled": number,
                "metrics": metrics,
                "acquisition": None if last else acquisition,
                "seconds": seconds * (cycle + 1),
            },
        )
    workdir.mkdir(exist_ok=True)
    return workdir


@pytest.fixture
def runs(tmp_path):
    return {
        "random": write_run(tmp_path / "r", [(1000, 0.5), (1100, 0.5236), (1200, 0.6)]),
        "EGL++": write_run(tmp_path / "e", [(1000, 0.5), (1100, 0.55)]),
        "new": write_run(tmp_path / "n", []),
    }


def test_comparison_golden(runs):
    rows = tables.compare_runs(runs)
    assert rows[1]["EGL++ - random"] == pytest.approx(2.64)
    text = tables.format_table(rows, tables.comparison_columns(list(runs)))
    assert text == (
        "cycle  labelled  random  EGL++  new  EGL++ - random  new - random\n"
        "-----  --------  ------  -----  ---  --------------  ------------\n"
        "    0      1000    50.0   50.0    -            +0.0             -\n"
        "    1      1100    52.4   55.0    -            +2.6             -\n"
        "    2      1200    60.0      -    -               -             -\n"
    )


def test_comparison_with_another_reference(runs):
    rows = tables.compare_runs(runs, reference="EGL++")
    assert rows[1]["random - EGL++"] == pytest.approx(-2.64)
    columns = tables.comparison_columns(["random", "EGL++"], "EGL++")
    assert [column.key for column in columns][-1] == "random - EGL++"
    assert "-2.6" in tables.format_table(rows, columns)


def test_one_run_has_no_differences(runs):
    rows = tables.compare_runs({"random": runs["random"]})
    assert rows[0] == {"cycle": 0, "num_labelled": 1000, "random": 50.0}
    assert tables.compare_runs({}) == tables.compare_runs({"new": runs["new"]}) == []


def test_spent_golden(runs):
    text = tables.format_table(tables.spent_table(runs), tables.SPENT_COLUMNS)
    assert text == (
        "run     cycle  labelled  seconds  acquisition s  method  engine\n"
        "------  -----  --------  -------  -------------  ------  ------\n"
        "random      0      1000     10.0            2.5  eglpp   ghost\n"
        "random      1      1100     20.0            2.5  eglpp   ghost\n"
        "random      2      1200     30.0              -  -       -\n"
        "random    all         -     60.0            5.0  -       -\n"
        "EGL++       0      1000     10.0            2.5  eglpp   ghost\n"
        "EGL++       1      1100     20.0              -  -       -\n"
        "EGL++     all         -     30.0            2.5  -       -\n"
    )


def test_a_table_without_rows():
    assert tables.format_table([], ["a", "bc"]) == "a  bc\n-  --\n"
    assert tables.format_table([{"a": float("nan")}], ["a"]) == "a\n-\n-\n"


def test_tables_refuse(runs, tmp_path):
    with pytest.raises(ValueError, match=r"unknown reference='egl'; known: random"):
        tables.compare_runs(runs, reference="egl")
    runs["head"] = write_run(tmp_path / "h", [(1000, 0.5)], threshold=0.5)
    with pytest.raises(ValueError, match=r"pck_threshold .*: 0.2 in random, 0.5 in h"):
        tables.compare_runs(runs)
    with pytest.raises(records.WorkdirError, match="gone is not the workdir"):
        tables.spent_table({"gone": tmp_path / "gone"})
