"""How fast examples go through training and scoring, and what holds them up."""

import dataclasses
import resource
import time
from collections.abc import Iterator

import jax

_COMPILING = "/jax/core/compile/"
# JAX tells of each part when it ends: after this one the compiler itself has the word.
_BEFORE = f"{_COMPILING}jaxpr_to_mlir_module_duration"
_spent_compiling = 0.0
_compiling = False


def _count_compiling(event: str, duration_secs: float, **_) -> None:
    global _spent_compiling, _compiling  # JAX has no listener of one caller's own
    if event.startswith(_COMPILING):
        _spent_compiling += duration_secs
        _compiling = event == _BEFORE


jax.monitoring.register_event_duration_secs_listener(_count_compiling)


def take_compiling() -> float:
    """Seconds this process has spent on tracing and compiling since last asked."""
    global _spent_compiling
    taken, _spent_compiling = _spent_compiling, 0.0
    return taken


def compiling() -> str:
    """A word for the screen while something is compiled, else ""."""
    return "compiling" if _compiling else ""


@dataclasses.dataclass
class Flow:
    """Counts of one kind of work since they were last taken.

    Attributes:
      images: examples gone through, of all hosts.
      seconds: between the request for the first and the end of the last.
      waiting: of them those in which the devices had nothing to do, as an example was
        yet to be read and cropped.
    """

    images: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def through(self, items: Iterator, images, idle=lambda: True) -> Iterator:
        """The items, counted and timed while they are asked for and worked on.

        Args:
          items: read ahead by other threads, or not.
          images: item -> number of examples in it.
          idle: have the devices done what they were given? Asked when an item comes.
        """
        begun = time.perf_counter()
        for item in items:
            came = time.perf_counter()
            if idle():
                self.waiting += came - begun
            self.seconds += came - begun
            self.images += images(item)
            try:
                yield item
            finally:  # also of the last, after which no more are asked for
                begun = time.perf_counter()
                self.seconds += begun - came

    def take(self) -> dict[str, float]:
        """The counts, which begin anew."""
        taken = dataclasses.asdict(self)
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0
        return taken


@dataclasses.dataclass
class Meter:
    """What one piece of a run's work has taken; whoever does the work counts in it.

    Attributes:
      training: examples trained on.
      scoring: examples walked over.
      peak_bytes: of the largest pass that was executed, on one device, by the
        compiler's account.
      microbatch: gradients at once in the last pass of gradient norms whose number was
        fitted to the device; 0 where none was executed.
    """

    training: Flow = dataclasses.field(default_factory=Flow)
    scoring: Flow = dataclasses.field(default_factory=Flow)
    peak_bytes: int = 0
    microbatch: int = 0


def rates(images: float, seconds: float, waiting: float) -> dict[str, float | None]:
    """Images a second and the share of time waiting; None where nothing was done."""
    if not seconds:
        return {"images_per_second": None, "share_waiting": None}
    return {"images_per_second": images / seconds, "share_waiting": waiting / seconds}


def peak_bytes() -> dict[str, int | None]:
    """Most memory in use so far: on a device of this host, as it reports it (a CPU does
    not), and of the process.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"device": max(peaks, default=None), "process": resident}
