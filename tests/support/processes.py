"""Waits for processes that a test has started, however slow the machine is.

What tells a hang from a machine with much to do is not the clock: who waits for ever
uses no processor.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

QUIET, LITTLE = (
    600.0,
    1.0,
)  # seconds of the clock in which to use seconds of a processor
MOST = 7200.0  # seconds of processors after which they count as going round in circles


class Hang(AssertionError):
    """Processes do nothing any more, or the same for ever."""


def wait(processes: Sequence[subprocess.Popen]) -> None:
    """Return when all have ended; kill them where that will not be.

    Raises:
      Hang: they were killed.
    """
    used = dict.fromkeys(processes, 0.0)
    before, since = 0.0, time.monotonic()
    while any(process.poll() is None for process in processes):
        for process in processes:
            used[process] = max(used[process], _seconds(process.pid))
        total = sum(used.values())
        if total > before + LITTLE:
            before, since = total, time.monotonic()
        if time.monotonic() - since > QUIET or total > MOST:
            for process in processes:
                process.kill()
            raise Hang(
                f"{len(processes)} processes have used {total:.0f} s of processors, "
                f"and next to nothing in the last {time.monotonic() - since:.0f} s"
            )
        time.sleep(0.1)


def _seconds(number: int) -> float:
    """Processor time of a process, 0 where it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
