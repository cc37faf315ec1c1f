"""The account of a cycle: seconds by kind of work, and what went through."""

from jalpose.loop.events import Event, LabelsCame, Measured, Passed, Selected
from jalpose.runtime.throughput import Flow, peak_bytes, rates, take_compiling

_SECONDS = ("seconds", "acquisition", "measures", "compiling")


def new_clock() -> dict:
    """The account of a cycle that begins."""
    seconds = dict.fromkeys(_SECONDS, 0.0)
    return {**seconds, "training": Flow().take(), "scoring": Flow().take()}


def charge(clock: dict, event: Event, seconds: float) -> None:
    """Charge the seconds that a piece of work took, and what it brought through."""
    match event:
        case Passed(measuring=False) | Selected():
            charged = "acquisition"
        case Passed() | Measured():
            charged = "measures"
        case _:
            charged = "seconds"
    clock[charged] += seconds
    clock["compiling"] += take_compiling()
    _add(clock["training"], event.meter.training)
    if charged != "seconds":  # else over the test set
        _add(clock["scoring"], event.meter.scoring)


def ends_with(event: Event) -> bool:
    """Does the account end with this event? What follows is of the next cycle."""
    return isinstance(event, Measured | LabelsCame)


def throughput_record(clock: dict) -> dict:
    """A cycle's throughput so far, for its record.

    Images a second and share of time waiting for data, in training and in scoring
    (choosing and measuring together); seconds spent compiling, in the first cycle
    what came before it too; peak memory in bytes.
    """
    return {
        "training": rates(**clock["training"]),
        "scoring": rates(**clock["scoring"]),
        "seconds_compiling": clock["compiling"],
        "peak_bytes": peak_bytes(),
    }


def _add(counts: dict, flow: Flow) -> None:
    for name, count in flow.take().items():
        counts[name] += count
