"""What a person sees of a run: progress bars on a terminal, plain lines elsewhere."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

LINE_SECONDS = 10.0  # at least this long between two plain progress lines
FIRST_SECONDS = 2.0  # after which it is said what takes so long
NARROWEST = 20  # columns of a terminal that a bar is drawn on


class Screen:
    """Progress with time left, and lines in between.

    Args:
      stream: written to; bars are drawn only if it is a terminal.
      silent: write nothing.
    """

    def __init__(self, stream=None, *, silent: bool = False):
        self._stream = stream or sys.stdout
        self._silent = silent
        self._bars = not silent and _wide_enough(self._stream)
        self._lock = threading.RLock()
        self._bar: tqdm | None = None
        self._what = ("", 0)  # phase and its total
        self._begun = self._last = 0.0
        self._first = self._done = 0

    def line(self, text: str) -> None:
        """Print one line above any bar."""
        if self._silent:
            return
        with self._lock:
            if self._bar is not None:
                self._bar.write(text, file=self._stream)
            else:
                print(text, file=self._stream, flush=True)

    @contextlib.contextmanager
    def doing(self, what: str, how: Callable[[], str] = str) -> Iterator[None]:
        """Say what is being done, and for how long, as soon as that takes a while.

        Args:
          what: is done, until the block ends.
          how: is asked for a word on it at each time, e.g. "compiling"; "": none.
        """
        if self._silent:
            yield
            return
        ended, begun = threading.Event(), time.monotonic()
        thread = threading.Thread(
            target=self._watch, args=(what, how, begun, ended), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, what, how, begun, ended: threading.Event):
        wait = FIRST_SECONDS
        while not ended.wait(wait):
            wait = 1.0 if self._bar is not None else LINE_SECONDS
            past = duration(time.monotonic() - begun)
            text = ", ".join(filter(None, (how(), f"{past} so far")))
            with self._lock:
                if self._bar is not None:
                    self._bar.set_postfix_str(text)
                else:
                    self.line(f"{what}: {text}")

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` of `what` are done."""
        with self._lock:
            self._progress(what, done, total, note)

    def _progress(self, what, done, total, note):
        now = time.monotonic()
        # A phase may pass twice under one name, as over the pool, then the labelled.
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
        self._done = done
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
