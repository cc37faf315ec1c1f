"""One process at a time in a folder, on one machine or on several.

    with locks.hold(folder) as lock:
        if lock: ...  # else another process is at it
    with locks.alone_in(folder, tell) as lock: ...  # or WorkdirError, with its name

A lock is a file `.lock.NNNNNN` made with O_EXCL, which works on network file systems
where `flock` may not. It names its holder, who touches it while alive. A lock whose
holder is dead is never removed to be taken: the next number is made instead, which
only one process can do, so that two that find the same dead holder do not both go on.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jalpose.storage.records import WorkdirError

BEAT = 20.0  # seconds between two touches
DEAD = 300.0  # seconds without a touch after which a holder elsewhere counts as dead
LOOK = 2.0  # seconds between two looks at one of whom it is not known
_NAME = re.compile(r"\.lock\.(\d{6})")


class Holder(NamedTuple):
    """A process that holds, or held, a lock.

    Attributes:
      host: by name.
      space: of the process numbers: machine, its start and container; "": not known.
      pid: process number.
      begun: when the process was started, by the machine's clock ticks; "": not known.
    """

    host: str
    space: str
    pid: int
    begun: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def myself() -> Holder:
    """The holder that is asking."""
    return Holder(socket.gethostname(), _space(), os.getpid(), _begun(os.getpid()))


class Lock:
    """A lock that this process holds.

    Args:
      path: of its file, which names this process.
    """

    def __init__(self, path: Path):
        self._path, self._text = path, path.read_text()

    @property
    def lost(self) -> bool:
        """Was it removed with its folder, or its holder taken for dead?"""
        try:
            return self._path.read_text() != self._text
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # of a network's file system: says nothing
            return False

    def check(self) -> None:
        """Raise WorkdirError where the lock is lost: nothing more may be written."""
        if self.lost:
            raise WorkdirError(
                f"{self._path.parent} was removed, or taken over by another process, "
                "while this one was at work in it. Start the command again: what is "
                "there, if anything, goes on"
            )

    def touch(self) -> None:
        """Give a sign of life."""
        if not self.lost:
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def give_back(self) -> None:
        """Let others have it."""
        # Not removed: the number stays taken, see the head of this file.
        if not self.lost:
            with contextlib.suppress(OSError):
                self._path.write_text("given back")


@contextlib.contextmanager
def hold(folder) -> Iterator[Lock | None]:
    """Hold the lock of `folder` (made where needed): None where another does."""
    path = _acquire(Path(folder))
    if path is None:
        yield None
        return
    lock, stop = Lock(path), threading.Event()
    thread = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        stop.set()
        thread.join()
        lock.give_back()


@contextlib.contextmanager
def alone_in(folder, tell: Callable[[str], None]) -> Iterator[Lock]:
    """Hold the lock of `folder`, or refuse to work beside another process.

    One on this machine is known to live or not. Of one elsewhere, say on a node that a
    job was taken from, a sign of life is waited for, at most until it counts as dead.

    Args:
      folder: made where needed.
      tell: is given a line before a longer wait.

    Raises:
      WorkdirError: another process is at work there, which is named.
    """
    signs: dict[Holder, float] = {}
    while True:
        with hold(folder) as lock:
            if lock is not None:
                yield lock
                return
        other, sign = holder(folder), _last_sign(Path(folder))
        if other is None:
            continue
        if other.pid and (other.space == _space() or signs.get(other, sign) != sign):
            raise WorkdirError(
                f"{folder} is in use by {other}: let it finish or end it, or choose "
                "another --workdir"
            )
        if other.pid and not signs:
            tell(
                f"{folder} was last used by {other}, and whether that still runs "
                "cannot be seen from here: waiting for a sign of it, at most "
                f"{DEAD / 60:.0f} minutes"
            )
        if other.pid:
            signs[other] = sign
        time.sleep(LOOK)


def _last_sign(folder: Path) -> float:
    try:
        return _path(folder, _newest(folder)).stat().st_mtime
    except OSError:
        return 0.0


def holder(folder) -> Holder | None:
    """Who holds the lock of `folder`; None where nobody alive does."""
    number = _newest(Path(folder))
    return _holder(_path(Path(folder), number)) if number else None


def _acquire(folder: Path) -> Path | None:
    folder.mkdir(parents=True, exist_ok=True)
    number = _newest(folder)
    if number and _holder(_path(folder, number)):
        return None
    lock = _path(folder, number + 1)
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        json.dump(myself()._asdict(), file)
    # Slow between looking and making, this number may have come and gone meanwhile.
    if _newest(folder) > number + 1:
        lock.unlink()
        return None
    for path in folder.glob(".lock.*"):
        if _number(path) <= number:
            path.unlink(missing_ok=True)
    return lock


def _beat(lock: Lock, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        lock.touch()


def _newest(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return max((_number(path) for path in folder.glob(".lock.*")), default=0)


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else 0


def _path(folder: Path, number: int) -> Path:
    return folder / f".lock.{number:06d}"


def _holder(lock: Path) -> Holder | None:
    try:
        text, touched = lock.read_text(), lock.stat().st_mtime
    except FileNotFoundError:
        return None  # taken over by the next number
    try:
        found = Holder(**json.loads(text))
    except (ValueError, TypeError):
        # Given back; or just made, its holder not yet written down.
        young = _now(lock.parent) - touched < 5
        return Holder("?", "", 0, "") if young and not text else None
    here = _space()
    if here and found.space == here:
        return found if _begun(found.pid) == found.begun else None
    return found if _now(lock.parent) - touched < DEAD else None


def _now(folder: Path) -> float:
    """The time by the clock that touches files there, which may not be ours."""
    probe = folder / f".now.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _space() -> str:
    """Within which process numbers mean something; "" where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _begun(pid: int) -> str:
    """When a process was started, "" where there is none: numbers are used again."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # A zombie holds nothing any more; the name in brackets may contain anything.
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
