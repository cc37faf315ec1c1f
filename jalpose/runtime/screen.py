"""What a person sees of a run: progress bars on a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 10.0  # at least this long between two plain progress lines


class Screen:
    """Progress with time left, and lines in between.

    Args:
      stream: written to; bars are drawn only if it is a terminal.
      silent: write nothing.
    """

    def __init__(self, stream=None, *, silent: bool = False):
        self._stream = stream or sys.stdout
        self._silent = silent
        self._bars = self._stream.isatty() and not silent
        self._bar: tqdm | None = None
        self._what = ("", 0)  # phase and its total
        self._begun = self._last = 0.0
        self._first = self._done = 0

    def line(self, text: str) -> None:
        """Print one line above any bar."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` of `what` are done."""
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
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ("", 0)


def duration(seconds: float) -> str:
    """Whole seconds, or minutes and seconds, as people write them."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min {seconds % 60:02d} s"
