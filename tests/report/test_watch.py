"""A report that is written again as records come."""

import pytest

from jalpose.report import __main__ as command
from jalpose.report import watch
from jalpose.report.gather import gather
from jalpose.report.write import Options, Report
from jalpose.storage import locks, records
from tests.support.recorded_runs import write_run

SCORES = (0.5, 0.55, 0.6)


@pytest.fixture
def watched(tmp_path):
    """What is said while a run goes on at each wait, until `ends` raises."""

    def go(steps):
        said, written = [], []
        rest = iter(steps)

        def write():
            found = gather([tmp_path])
            written.append(sum(len(run.cycles) for run in found.runs))
            return watch.Written(found, tmp_path / "index.html")

        def wait(seconds):
            assert seconds >= watch.LOOK
            next(rest)()

        watch.watch([tmp_path], write, said.append, wait=wait)
        return said, written

    return go


def test_the_page_grows_with_the_run_and_ends_with_it(watched, tmp_path):
    def at(count):
        return lambda: write_run(tmp_path, "random", 0, SCORES[:count], cycles=2)

    said, written = watched([at(1), lambda: None, at(3), lambda: None])
    assert written == [1, 3]  # not written again where nothing has changed
    assert said[0].startswith("no cycle is there yet")
    assert "1 run, 1 of 3 cycles" in said[1] and "1 run, 3 of 3 cycles" in said[2]
    assert said[3].startswith("all runs are finished: the report is ")


def test_what_somebody_works_at_is_not_finished(watched, tmp_path):
    write_run(tmp_path / "a", "random", 0, SCORES)
    with locks.hold(tmp_path / "a"), pytest.raises(StopIteration):
        watched([lambda: None] * 4)
    said, _ = watched([lambda: None])
    assert said[-1].startswith("all runs are finished")


def test_a_watched_page_reloads_itself_until_all_is_there(tmp_path):
    for count, again in ((2, True), (3, False)):
        write_run(tmp_path / "run", "random", 0, SCORES[:count], cycles=2)
        report = Report(
            gather([tmp_path / "run"]), [], tmp_path / "out", Options(watched=True)
        )
        assert ('http-equiv="refresh"' in report.write().read_text()) == again


def test_ctrl_c_ends_it(watched, tmp_path):
    def press():
        raise KeyboardInterrupt

    assert watched([press])[0][-1] == "stopped watching: no report"
    write_run(tmp_path, "random", 0, SCORES[:2], cycles=2)
    assert watched([press])[0][-1].startswith("stopped watching: the report is ")


def test_a_folder_that_is_not_there_is_an_error(tmp_path, capsys):
    arguments = [str(tmp_path / "none"), f"--out={tmp_path}", "--watch"]
    assert command.main(arguments) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_finished_run_is_watched_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    write_run(tmp_path / "run", "random", 0, SCORES)
    arguments = [str(tmp_path / "run"), f"--out={tmp_path / 'out'}", "--watch"]
    assert command.main(arguments) == 0
    assert "all runs are finished" in capsys.readouterr().out
    assert records.CONFIG not in {p.name for p in (tmp_path / "out").iterdir()}
