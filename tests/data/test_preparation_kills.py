"""Preparation killed: what is there after the next one is as if nothing had been."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from jalpose.data import leftovers
from tests.data.test_preparation import Folder, jpeg, run_python

KILLS = 10


def contents(cache):
    """Bytes of every file below a folder, by path."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
    }


def folders(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


@pytest.mark.slow
def test_killed_at_random_it_prepares_the_same_records(tmp_path):
    folder = Folder(tmp_path, 400)
    for number, file in enumerate(folder.files):
        (folder.raw / file).write_bytes(jpeg(number, size=(200, 150)))
    script = f"""
        from pathlib import Path
        from tests.data.test_preparation import Folder
        folder = Folder.__new__(Folder)
        folder.raw = Path({str(folder.raw)!r})
        folder.cache = Path({str(folder.cache)!r})
        folder.labels, folder.files = folder.raw / "labels", {folder.files!r}
        from array_record.python import array_record_module
        print("begins", flush=True)
        folder.prepare()
        print("ends", flush=True)
    """
    begun = run_python(script)
    assert begun.stdout.readline() == "begins\n"
    start = time.monotonic()
    assert begun.stdout.readline() == "ends\n"
    whole = time.monotonic() - start
    assert begun.wait() == 0
    undisturbed = contents(folder.cache)
    (final,) = folders(folder.cache)
    draw, killed_within = random.Random(0), 0
    for _ in range(KILLS):
        for name in undisturbed:
            (folder.cache / name).unlink()
        (folder.cache / final).rmdir()
        process = run_python(script)
        assert process.stdout.readline() == "begins\n"
        time.sleep(draw.random() * whole)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        left = folders(folder.cache)
        killed_within += final not in left and any(leftovers.MARK in n for n in left)
        folder.prepare()
        assert contents(folder.cache) == undisturbed
        assert folders(folder.cache) == [final]
    print(f"{killed_within} of {KILLS} killed while records were written")
    assert killed_within >= KILLS // 3  # however the machine's speed changes


# Where a folder is without its lock for a moment: (function of `os`, before or after).
MOMENTS = {
    "before it is made": ("mkdir", "before"),
    "made, and without its lock": ("mkdir", "after"),
    "before its lock goes": ("unlink", "before"),
    "its lock gone, before it has its name": ("unlink", "after"),
    "after it has its name": ("rename", "after"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_chosen_moment_it_leaves_nothing(tmp_path, moment):
    name, when = MOMENTS[moment]
    final = tmp_path / "photos"
    script = f"""
        import os, signal
        from jalpose.data import leftovers
        original = os.{name}
        def {name}(*arguments, **options):
            if {when == "before"}:
                os.kill(os.getpid(), signal.SIGKILL)
            original(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        os.{name} = {name}
        with leftovers.temporary_folder({str(final)!r}) as folder:
            open(os.path.join(folder, "records"), "w").write("records")
            leftovers.finish(folder, {str(final)!r})
    """
    assert run_python(script).wait() == -signal.SIGKILL
    leftovers.remove(str(tmp_path))
    there = {"photos"} if moment == "after it has its name" else set()
    assert {path.name for path in tmp_path.iterdir()} == there


def test_where_nothing_can_be_locked_what_is_young_stays(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(leftovers.fcntl, "flock", no_locks)
    with leftovers.temporary_folder(str(tmp_path / "photos")) as folder:
        os.unlink(os.path.join(folder, "lock"))
        leftovers.remove(str(tmp_path))
        assert Path(folder).is_dir()
