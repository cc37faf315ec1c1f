"""Folders that are written under a temporary name, and what killed processes leave.

Who writes a temporary folder holds a lock on a file in it until the end, which the
system takes back from a process that dies, however it dies. A folder whose lock is to
be had is nobody's. It is without one only while the folder round it is locked: from
when it is made until its own lock is held, and from when that goes until it has its
final name. So one without, seen under the outer lock, is nobody's either.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator

MARK = ".tmp-"  # in the names of temporary folders
_LOCK = "lock"
_OWNER = re.compile(r"(?:(?P<host>.*)-)?(?P<pid>[0-9]+)-[0-9a-f]{8}")
_OLD_SECONDS = 3600  # since the last change of a folder that may be somebody's


@contextlib.contextmanager
def temporary_folder(final: str) -> Iterator[str]:
    """A locked folder beside `final`, removed at the end if it is still there."""
    host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
    owner = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    folder = f"{final}{MARK}{owner}"
    with contextlib.ExitStack() as held:
        # Nobody looks for leftovers before the new folder is locked.
        with _locked(os.path.dirname(final), wait=True):
            os.mkdir(folder)
            held.enter_context(_locked(os.path.join(folder, _LOCK), wait=True))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def finish(folder: str, final: str) -> None:
    """Give a temporary folder its name; where another process was first, leave it.

    Raises:
      OSError: it cannot be renamed.
    """
    with _locked(os.path.dirname(final), wait=True):
        os.unlink(os.path.join(folder, _LOCK))
        try:
            os.rename(folder, final)
        except OSError:
            if not os.path.isdir(final):
                raise


def remove(folder: str) -> None:
    """Remove the temporary folders in `folder` that nobody holds."""
    with _locked(folder, wait=True) as alone:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if MARK in name and os.path.isdir(path) and not _held(path, alone):
                shutil.rmtree(path, ignore_errors=True)


def _held(path: str, alone: bool) -> bool:
    """Does somebody write a temporary folder? `alone`: the outer lock is ours."""
    lock = os.path.join(path, _LOCK)
    if os.path.exists(lock):
        with _locked(lock, wait=False) as free:
            return not free
    found = _OWNER.fullmatch(path.rpartition(MARK)[2])
    if found is None:
        return True  # not a name of ours
    if alone and found["host"]:
        return False
    # Where there are no locks, or of a version without: its names have no host.
    young = time.time() - os.stat(path).st_mtime < _OLD_SECONDS
    return young or _alive(int(found["pid"]))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


@contextlib.contextmanager
def _locked(path: str, wait: bool) -> Iterator[bool]:
    """Is the lock of a file or folder ours, inside the block?

    It is not where it is another's, with `wait` False, and on a system without locks:
    then nothing is removed that may be somebody's.
    """
    try:
        if os.path.isdir(path):
            file = os.open(path, os.O_RDONLY)
        else:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        if wait:
            raise
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            got = True
        except OSError:
            got = False
        yield got
    finally:
        os.close(file)
