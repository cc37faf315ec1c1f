"""Locks: one process at a time in a folder, and those of the dead are taken over."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jalpose.storage import locks, records

ROOT = Path(__file__).parents[2]
ELSEWHERE = locks.Holder("elsewhere", "elsewhere/x/y", 7, "1")


def lay_lock(folder, holder, age=0.0, number=1):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".lock.{number:06d}"
    path.write_text(holder if isinstance(holder, str) else to_json(holder))
    now = time.time()
    os.utime(path, (now - age, now - age))


def to_json(holder):
    return json.dumps(holder._asdict())


def test_a_lock_is_held_by_one_and_given_back(tmp_path):
    for _ in range(3):
        with locks.hold(tmp_path / "x") as first, locks.hold(tmp_path / "x") as second:
            assert first and not second
            assert locks.holder(tmp_path / "x").pid == os.getpid()
        assert locks.holder(tmp_path / "x") is None
    assert len(list((tmp_path / "x").iterdir())) == 1


@pytest.mark.parametrize(
    ("holder", "age", "free"),
    [
        (ELSEWHERE, 0, False),
        (ELSEWHERE, locks.DEAD - 30, False),
        (ELSEWHERE, locks.DEAD + 1, True),
        (locks.myself(), locks.DEAD + 1, False),  # alive, however long it is silent
        (locks.myself()._replace(begun="1"), 0, True),  # its number is used again
        (locks.myself()._replace(pid=2**22 + 1), 0, True),
        ("", 0, False),  # just made
        ("", 60, True),  # died in making it
        ("given back", 0, True),
    ],
    # Not of the values: they hold this process's number.
    ids=[
        "elsewhere",
        "elsewhere, silent for long",
        "elsewhere, silent for too long",
        "me, silent for too long",
        "my number, another process",
        "no such process",
        "just made",
        "never filled in",
        "given back",
    ],
)
def test_who_counts_as_alive(tmp_path, holder, age, free):
    lay_lock(tmp_path, holder, age)
    assert (locks.holder(tmp_path) is None) == free
    with locks.hold(tmp_path) as mine:
        assert (mine is not None) == free


def test_a_killed_process_leaves_its_lock_to_others(tmp_path):
    code = (
        "import sys; from jalpose.storage import locks\n"
        "with locks.hold(sys.argv[1]) as mine:\n"
        "    assert mine; print(1, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "x"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"1\n"
    assert locks.holder(tmp_path / "x").pid == process.pid
    with locks.hold(tmp_path / "x") as mine:
        assert not mine
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with locks.hold(tmp_path / "x") as mine:
        assert mine


def test_of_many_that_find_a_dead_holder_one_goes_on(tmp_path):
    for trial in range(30):
        folder = tmp_path / str(trial)
        lay_lock(folder, ELSEWHERE, locks.DEAD + 1)
        barrier, won = threading.Barrier(4), []

        def rush(folder=folder, barrier=barrier, won=won):
            barrier.wait()
            with locks.hold(folder) as mine:
                won.append(mine is not None)
                barrier.wait()  # held until all have tried

        threads = [threading.Thread(target=rush) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False, False, False, True]


def test_one_that_was_slow_does_not_take_a_number_that_is_past(tmp_path, monkeypatch):
    lay_lock(tmp_path, ELSEWHERE, locks.DEAD + 1)
    make, made = os.open, []

    def slow(path, *arguments, **options):
        # Between its looking and its making others take the next two numbers.
        if Path(path).name == ".lock.000002" and not made:
            made.append(path)
            lay_lock(tmp_path, locks.myself(), number=3)
        return make(path, *arguments, **options)

    monkeypatch.setattr(os, "open", slow)
    with locks.hold(tmp_path) as mine:
        assert not mine
    assert made
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock.000001",
        ".lock.000003",
    ]


def test_a_lock_is_lost_with_its_folder_or_to_another(tmp_path):
    for loses in (shutil.rmtree, lambda folder: lay_lock(folder, ELSEWHERE)):
        with locks.hold(tmp_path / "x") as lock:
            lock.check()
            loses(tmp_path / "x")
            assert lock.lost
            with pytest.raises(records.WorkdirError, match=r"x was removed, or taken"):
                lock.check()
            lock.touch()
        # What is another's now is not given back.
        there = (tmp_path / "x").is_dir()
        assert not there or locks.holder(tmp_path / "x") == ELSEWHERE
        shutil.rmtree(tmp_path / "x", ignore_errors=True)


def test_alone_or_refused_with_the_name_of_the_other(tmp_path):
    said = []
    with locks.alone_in(tmp_path, said.append) as lock:
        assert not lock.lost
        told = rf"in use by process {os.getpid()} on {re.escape(socket.gethostname())}:"
        with (
            pytest.raises(records.WorkdirError, match=told),
            locks.alone_in(tmp_path, said.append),
        ):
            pass
    with locks.alone_in(tmp_path, said.append):
        pass
    assert said == []


@pytest.mark.parametrize("alive", [True, False])
def test_of_one_elsewhere_a_sign_of_life_is_waited_for(tmp_path, monkeypatch, alive):
    monkeypatch.setattr(locks, "LOOK", 0.01)
    lay_lock(tmp_path, ELSEWHERE, age=30)
    said, looks = [], []

    def sleep(_):
        looks.append(1)
        if len(looks) == 3:  # it touches its lock, or has been silent for too long
            lay_lock(tmp_path, ELSEWHERE, age=10 if alive else locks.DEAD + 1)

    monkeypatch.setattr(locks.time, "sleep", sleep)
    if alive:
        with (
            pytest.raises(records.WorkdirError, match="by process 7 on elsewhere: let"),
            locks.alone_in(tmp_path, said.append),
        ):
            pass
    else:
        with locks.alone_in(tmp_path, said.append) as lock:
            assert not lock.lost
    (line,) = said
    assert "was last used by process 7 on elsewhere" in line and "5 minutes" in line
    assert len(looks) == 3


def test_one_that_is_just_taking_the_lock_is_waited_for_by_name(tmp_path, monkeypatch):
    lay_lock(tmp_path, "")
    monkeypatch.setattr(
        locks.time, "sleep", lambda _: lay_lock(tmp_path, locks.myself())
    )
    told = f"by process {os.getpid()} on"
    with (
        pytest.raises(records.WorkdirError, match=told),
        locks.alone_in(tmp_path, pytest.fail),
    ):
        pass
