"""How tests wait for processes: a hang is told from a machine with much to do."""

import subprocess
import sys

import pytest

from tests.support import processes

WORKS = "import time\nwhile time.process_time() < 0.5: pass"
WAITS = "import time\nwhile True: time.sleep(60)"


def start(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_who_has_ended_is_not_waited_for():
    started = [start("raise SystemExit(3)"), start(WORKS)]
    processes.wait(started)
    assert [process.returncode for process in started] == [3, 0]


def test_who_does_nothing_is_killed_also_beside_one_that_has_ended(monkeypatch):
    monkeypatch.setattr(processes, "QUIET", 1.0)
    started = [start("pass"), start(WAITS)]
    with pytest.raises(processes.Hang, match="2 processes have used"):
        processes.wait(started)
    assert [process.wait() for process in started][1] == -9


def test_who_works_for_ever_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "MOST", 0.2)
    started = [start("while True: pass")]
    with pytest.raises(processes.Hang):
        processes.wait(started)
    assert started[0].wait() == -9
