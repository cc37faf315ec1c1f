"""Profiler traces of some pieces of a run's work."""

import contextlib
import os
import re

import jax


class Traces:
    """Traces the first pieces of each kind of work that compile nothing.

    A piece is what the loop does at a time: the steps up to the next report, some
    blocks of a pass over the pool. The first of its kind compiles, and is left out.

    Args:
      folder: of the traces; a folder each is made in it.
      pieces: of each kind to trace, in this process; 0: none.
    """

    def __init__(self, folder: str | os.PathLike, pieces: int):
        self._folder, self._pieces = folder, pieces
        self._traced: dict[str, int] = {}
        self._coming = ""

    def piece(self) -> contextlib.AbstractContextManager:
        """Round the next piece: a trace of it, or nothing."""
        number = self._traced.get(self._coming, 0)
        if not self._coming or number >= self._pieces:
            return contextlib.nullcontext()
        self._traced[self._coming] = number + 1
        name = f"{re.sub('[^a-z0-9]+', '_', self._coming.lower())}_{number}"
        # Files of both viewers: Perfetto takes the one, XProf the other.
        return jax.profiler.trace(
            os.path.join(self._folder, name), create_perfetto_trace=True
        )

    def next_is(self, kind: str) -> None:
        """Say what the next piece will be if work goes on; "" where that is open."""
        self._coming = kind
