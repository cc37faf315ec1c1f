"""Rows of `bench_peers.py`: what a way gives, how long it takes, and what it holds.

Memory is the growth of the resident set during one call, sampled: of both frameworks
alike, and only on a machine's own memory; on a GPU there is none.
"""

import ctypes
import dataclasses
import os
import statistics
import threading
import time
from collections.abc import Callable

import jax
import numpy as np

TOLERANCE = 1e-4
ONE, MANY, CLIPPED = "one label", "K labels", "clipped sum"
BATCHED = "batched gradient"


@dataclasses.dataclass
class Row:
    """One way of one framework to do one kind of work.

    Attributes:
      work: `ONE`, `MANY` or `CLIPPED`; `framework`: JAX or PyTorch; `way`: what is
        timed.
      make: () -> call, and call() -> result, which is ready when it returns.
      against: the way of JAX whose numbers these should be.
      estimate: the number is one for the mean over K, and need not agree.
      optional: may refuse the network without failing the run.
      reason: why there are no numbers; `found`: the numbers, of gradients their squared
        norm; `times`: seconds; `held`: bytes that one call took at its highest.
    """

    work: str
    framework: str
    way: str
    make: Callable
    against: str = "exact"
    estimate: bool = False
    optional: bool = False
    reason: str = ""
    found: np.ndarray | None = None
    times: list[float] = dataclasses.field(default_factory=list)
    held: int | None = None
    call: Callable | None = None

    def start(self):
        """Build, warm up, and keep the numbers or the reason why there are none."""
        try:
            call = self.make()
            result = call()
            if self.way == BATCHED or self.work == CLIPPED:
                leaves = jax.tree.leaves(result)
                result = [sum(float((leaf**2).sum()) for leaf in leaves)]
            elif self.framework == "PyTorch":
                result = result.detach().cpu()
            self.found, self.call = np.ravel(np.asarray(result)), call
        except Exception as error:  # Any: a refusal is a result here, not a crash.
            text = " ".join(str(error).split())
            self.reason = f"{type(error).__name__}: {text}"[:300]

    def time(self):
        """Time one call."""
        if self.call is not None:
            begun = time.perf_counter()
            self.call()
            self.times.append(time.perf_counter() - begun)

    def measure(self):
        """Take note of what one call holds; not while it is timed."""
        if self.call is not None and jax.default_backend() == "cpu":
            self.held = held_by(self.call)

    def seconds(self) -> float | None:
        """Median, if there is one."""
        return statistics.median(self.times) if self.times else None


def held_by(call: Callable) -> int:
    """Bytes by which the resident set grows during a call, at its highest."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    ended, highest = threading.Event(), 0

    def watch():
        nonlocal highest
        while not ended.wait(0.002):
            highest = max(highest, resident())

    # What is free is given back first, or a call would find room that others left.
    ctypes.CDLL(None).malloc_trim(0)
    before, watcher = resident(), threading.Thread(target=watch)
    watcher.start()
    result = call()
    ended.set()
    watcher.join()
    highest = max(highest, resident())
    del result
    return highest - before


def summary(rows: list[Row], batch: int) -> tuple[list[dict], bool]:
    """Rows as plain values, and whether all that should agree does.

    Args:
      rows: timed.
      batch: B, images with one label each.
    """
    named = {(row.work, row.framework, row.way): row for row in rows}

    def over(one, other):
        return one / other if one and other else None

    entries, agree = [], True
    for row in rows:
        images = 1 if row.work == MANY else batch
        seconds = row.seconds()
        batched = over(named[ONE, row.framework, BATCHED].seconds(), batch)
        reference, error = named[row.work, "JAX", row.against], None
        if row.found is None or reference.found is None:
            agree = agree and row.optional
        elif row is not reference:
            expected = reference.found.mean() if row.estimate else reference.found
            error = float(np.max(np.abs(row.found - expected) / expected))
            # In this form NaN does not agree.
            agree = agree and (row.estimate or error <= TOLERANCE)
        kept = "work", "framework", "way", "estimate", "reason", "times", "held"
        entry = {name: getattr(row, name) for name in kept}
        entries.append(
            entry
            | {
                "seconds": seconds,
                "seconds_an_image": over(seconds, images),
                "over_batched": over(over(seconds, images), batched),
                "over_ghost": over(seconds, named[row.work, "JAX", "ghost"].seconds()),
                "error": error,
                "mib": None if row.held is None else row.held / 2**20,
            }
        )
    return entries, agree


def print_table(entries: list[dict]):
    """An aligned table; a row without numbers has its reason instead."""
    names = "seconds", "seconds_an_image", "over_batched", "over_ghost", "error", "mib"
    forms = ".4g", ".4g", ".2f", ".2f", ".1e", ".0f"
    heads = "seconds", "s/image", "x batched", "x ghost", "error", "MiB"
    line = "{:12}{:10}{:34}".format
    print(line("work", "framework", "way") + "".join(f"{head:>11}" for head in heads))
    for entry in entries:
        cells = [
            "-" if entry[name] is None else format(entry[name], form)
            for name, form in zip(names, forms, strict=True)
        ]
        rest = (
            "".join(f"{cell:>11}" for cell in cells) + " estimate" * entry["estimate"]
        )
        if entry["reason"]:
            rest = f"    none: {entry['reason'][:160]}"
        print(line(entry["work"], entry["framework"], entry["way"]) + rest)
