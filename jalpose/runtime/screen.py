"""What a person sees of a run: progress bars on a terminal, plain lines elsewhere."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

LINE_SECONDS = 10.0  # at least this long between two plain progress lines
SILENT_SECONDS = 10.0  # after which it is said what takes so long; doubled each time
BAR_SECONDS = 2.0  # after which a bar that stands still says so
NARROWEST = 20  # columns of a terminal that a bar is drawn on


def quiet() -> None:
    """Say nothing of backends that JAX has not found, nor of matplotlib's fonts."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


class Screen:
    """Progress with time left, and lines in between.

    Args:
      stream: written to; bars are drawn only if it is a terminal.
      silent: write nothing.
      clock: seconds that have passed since some moment.
    """

    def __init__(
        self,
        stream=None,
        *,
        silent: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = stream or sys.stdout
        self._silent = silent
        self._clock = clock
        self._bars = not silent and _wide_enough(self._stream)
        self._lock = threading.RLock()
        self._bar: tqdm | None = None
        self._what = ("", 0)  # what there is progress of, and its total
        self._begun = self._last = 0.0
        self._first = self._done = 0
        self._note = ""
        self._heard = clock()  # when there last was a line or some progress
        self._phase, self._phase_begun = "", self._heard  # what is being done
        self._patience = SILENT_SECONDS  # before the phase is next told of

    def line(self, text: str) -> None:
        """Print one line above any bar."""
        if self._silent:
            return
        with self._lock:
            self._heard = self._clock()
            if self._bar is not None:
                self._bar.write(text, file=self._stream)
            else:
                print(text, file=self._stream, flush=True)

    @contextlib.contextmanager
    def doing(self, what: str, how: Callable[[], str] = str) -> Iterator[None]:
        """Say what is being done, and for how long, once it has been silent a while.

        A phase may be done in many pieces, one block each: it begins with the first,
        and each time it is told of, the silence before the next has to be longer.

        Args:
          what: is done, until the block ends.
          how: is asked for a word on it at each time, e.g. "compiling"; "": none.
        """
        if self._silent:
            yield
            return
        look = self.watching(what, how)
        ended = threading.Event()
        thread = threading.Thread(target=_look_until, args=(look, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def watching(self, what: str, how: Callable[[], str] = str) -> Callable[[], float]:
        """What tells of a piece of a phase if it is time to; see `doing`.

        Returns:
          A function to call now and again: it returns in how many seconds.
        """
        with self._lock:
            begun = self._clock()
            if what != self._phase:
                self._phase, self._phase_begun = what, begun
                self._patience = SILENT_SECONDS

        def look() -> float:
            with self._lock:
                if self._bar is not None:
                    return self._look_at_bar(self._bar, begun, how)
                return self._look_at_lines(how)

        return look

    def _look_at_bar(self, bar, begun, how) -> float:
        now = self._clock()
        standing = now - max(begun, self._heard)
        if standing < BAR_SECONDS:
            return BAR_SECONDS - standing
        past = f"{duration(now - begun)} so far"
        bar.set_postfix_str(_listed(self._note, how(), past))
        return 1.0

    def _look_at_lines(self, how) -> float:
        now = self._clock()
        silent = now - max(self._phase_begun, self._heard)
        if silent < self._patience:
            return self._patience - silent
        past = f"{duration(now - self._phase_begun)} so far"
        self.line(f"{self._phase}: {_listed(how(), past)}")
        self._patience *= 2
        return self._patience

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` of `what` are done."""
        with self._lock:
            self._progress(what, done, total, note)

    def _progress(self, what, done, total, note):
        now = self._clock()
        # A pass may come twice under one name, as over the pool, then the labelled.
        if (what, total) != self._what or done < self._done:
            self.end()
            self._what, self._begun, self._first = (what, total), now, done
            if self._bars:
                self._bar = tqdm(
                    total=total,
                    initial=done,
                    desc=what,
                    file=self._stream,
                    leave=False,
                    dynamic_ncols=True,
                )
        self._done, self._note = done, note
        self._heard = now  # also where no line is due: one will be, if this goes on
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif now - self._last >= LINE_SECONDS or done == total:
            self._last = now
            rate = (done - self._first) / max(now - self._begun, 1e-9)
            left = f", {duration((total - done) / rate)} left" if rate else ""
            self.line(f"{what}: {done}/{total}{left}{', ' + note if note else ''}")

    def end(self) -> None:
        """Close the bar of the phase under way."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
            self._bar, self._what = None, ("", 0)


def _look_until(look: Callable[[], float], ended: threading.Event) -> None:
    """Look whenever there may be something to tell, until it has ended."""
    while not ended.wait(look()):
        pass


def _listed(*words: str) -> str:
    """The words that there are."""
    return ", ".join(filter(None, words))


def _wide_enough(stream) -> bool:
    """Is it a terminal that bars can be drawn on? Some say that they have 0 columns."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns >= NARROWEST
    except OSError:  # it does not say
        return True


def duration(seconds: float) -> str:
    """Whole seconds, or minutes and seconds, as people write them."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min {seconds % 60:02d} s"
