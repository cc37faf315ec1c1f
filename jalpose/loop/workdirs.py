"""One run at a time in a workdir, of one host or of several, and longer ones."""

import contextlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from jalpose.runtime import hosts
from jalpose.runtime.screen import Screen
from jalpose.storage import locks, records


@contextlib.contextmanager
def alone_in(workdir, screen: Screen) -> Iterator[locks.Lock | None]:
    """Hold the lock of a workdir for all hosts of this run: the lead has it.

    Args:
      workdir: of the run; made where needed.
      screen: is told of a wait.

    Raises:
      WorkdirError: another process is at work there, on every host; or the workdir was
        removed meanwhile.
    """
    lock, refusal = None, None
    with contextlib.ExitStack() as stack:
        if hosts.lead():
            try:
                records.check_workdir(workdir)
                lock = stack.enter_context(locks.alone_in(workdir, screen.line))
            except records.WorkdirError as error:
                refusal = error
        if hosts.any_host(refusal is not None):
            raise refusal or records.WorkdirError(
                f"host 0 cannot have the workdir {workdir}: it says why"
            )
        with explain_lost(lock):
            yield lock


@contextlib.contextmanager
def explain_lost(lock: locks.Lock | None) -> Iterator[None]:
    """Raise WorkdirError for whatever error came of a workdir that is gone."""
    try:
        yield
    except Exception:
        if lock is not None:
            lock.check()
        raise


def write_extension(config: ConfigDict, workdir) -> None:
    """Write down that a run has more cycles now than it began with; the lead does."""
    record = records.read_config(workdir) if hosts.lead() else None
    if record and record["config"]["loop"]["cycles"] < config.loop.cycles:
        record["config"]["loop"]["cycles"] = config.loop.cycles
        records.write_config(workdir, record)
