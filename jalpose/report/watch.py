"""A report that is written again as records come."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jalpose.report.gather import Gathered, NothingYet, run_folders
from jalpose.report.text_formats import counted
from jalpose.storage import locks, records

LOOK = 5.0  # seconds between two looks at the records
SHARE = 4.0  # looking is this many times as long as the last writing, at least

PathLike = str | os.PathLike[str]


class Written(NamedTuple):
    """A report as it was just written: the runs, and the path of its page."""

    found: Gathered
    page: Path


def watch(
    folders: Sequence[PathLike],
    write: Callable[[], Written],
    say: Callable[[str], None],
    *,
    wait: Callable[[float], None] | None = None,
) -> None:
    """Write a report whenever records have changed, until the runs are finished.

    They are where nothing is missing and, at two looks, nobody is at work in their
    folders: an experiment holds none between two runs. Ctrl-C ends it, too.

    Args:
      folders: of the runs, as asked for.
      write: gathers and writes; NothingYet where no cycle is there.
      say: prints a line.
      wait: for so many seconds; None: as the clock has it.

    Raises:
      WorkdirError: the runs cannot be reported on.
    """
    seen: object = None
    quiet, pause = 0, LOOK
    written: Written | None = None
    try:
        while True:
            now = stamp(folders)
            if now != seen:
                seen, begun, quiet = now, time.monotonic(), 0
                try:
                    written = write()
                except NothingYet:
                    say("no cycle is there yet: waiting for the first; Ctrl-C ends")
                else:
                    say(_told(written))
                pause = max(LOOK, SHARE * (time.monotonic() - begun))
            if written is not None and not written.found.missing and not _busy(folders):
                quiet += 1
            else:
                quiet = 0
            if quiet == 2 and written is not None:
                say(f"all runs are finished: the report is {written.page}")
                return
            (wait or time.sleep)(pause)
    except KeyboardInterrupt:
        where = "no report" if written is None else f"the report is {written.page}"
        say(f"stopped watching: {where}")


def stamp(folders: Iterable[PathLike]) -> dict[Path, tuple[int, int]]:
    """Size and time of the records of all runs at and below folders."""
    found = {}
    for folder in run_folders(folders):
        for name in (records.CONFIG, records.CYCLES):
            try:
                about = (folder / name).stat()
            except OSError:
                continue
            found[folder / name] = about.st_size, about.st_mtime_ns
    return found


def _busy(folders: Iterable[PathLike]) -> bool:
    asked = [Path(folder) for folder in folders]
    return any(locks.holder(folder) for folder in (*asked, *run_folders(folders)))


def _told(written: Written) -> str:
    """How far the runs are, in a line."""
    runs = written.found.runs
    there = sum(len(run.cycles) for run in runs)
    wanted = sum(run.last_cycle + 1 for run in runs)
    moment = time.strftime("%H:%M:%S")
    return (
        f"{moment} {counted(len(runs), 'run')}, {there} of {wanted} cycles: "
        f"{written.page}"
    )
