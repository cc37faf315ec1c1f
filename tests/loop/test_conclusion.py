"""What an experiment ends with: a table of its methods and the page's place."""

import io

import pytest
from ml_collections import ConfigDict

from jalpose.loop.conclusion import conclude_experiment
from jalpose.runtime.screen import Screen
from tests.support import fake_runs


def concluded(workdir, report):
    stream, config = io.StringIO(), ConfigDict({"output": {"report": report}})
    conclude_experiment(config, workdir, Screen(stream))
    return stream.getvalue()


@pytest.mark.slow
def test_an_experiment_ends_with_a_table_and_its_report(tmp_path):
    for seed in (0, 1):
        for method in ("coreset", "random"):
            folder = tmp_path / f"seed_{seed}" / method
            fake_runs.write_run(folder, method, seed)
    said = concluded(tmp_path, report=False)
    head, names, _, *rows = said.splitlines()
    assert head == "test score by labelled images, mean of 2 seeds:"
    assert names.split() == ["method", "12", "18", "24"]
    assert [row.split()[0] for row in rows[:2]] == ["coreset", "random"]
    said = concluded(tmp_path, report=True)
    page = tmp_path / "report" / "index.html"
    assert said.splitlines()[-1] == f"report: {page}" and page.is_file()


def test_without_runs_it_says_so(tmp_path):
    assert concluded(tmp_path, report=True).startswith("no table: ")
