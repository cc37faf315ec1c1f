"""Records of cycles read: one place that knows where in them a thing stands.

A record is a line of `cycles.jsonl`, a dict:

    cycle, num_labelled, seconds     of the training with its test
    metrics      of the test set: the score under the keys of the task, test_loss;
                 where asked for or known, train_<score> and train_loss of the images
                 trained on, norms_fallen of those bought last
    acquisition  method, budget, num_scored, seconds, peak_bytes, engine, ...; None
                 where nothing was chosen; groups, where the set has them: by name
                 {"pool", "chosen"}, examples of the whole pool and of the choice
    stopping     labels, gained, error, expected: see `evaluation.stopping`; from the
                 second cycle that bought any
    measures     of the choice, by the labels of all that was scored; seconds
    throughput   how fast training and scoring went

Of records that are unfinished or of an older version parts are not there.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jalpose.storage import records

Record = Mapping[str, Any]


def metrics(record: Record) -> Mapping[str, Any]:
    """Metrics of the test set; {} where there are none."""
    return record.get("metrics") or {}


def acquisition(record: Record) -> Mapping[str, Any]:
    """What choosing was and cost; {} where nothing was chosen."""
    return record.get("acquisition") or {}


def measures(record: Record) -> Mapping[str, Any]:
    """Measures of the choice; {} where there are none."""
    return record.get("measures") or {}


def throughput(record: Record) -> Mapping[str, Any]:
    """How fast training and scoring went; {} where that was not recorded."""
    return record.get("throughput") or {}


def stopping(record: Record) -> Mapping[str, Any]:
    """What the last labels gained and as many more may; {} where nobody knows."""
    return record.get("stopping") or {}


def chose(record: Record) -> bool:
    """Whether a cycle ended with a choice, be it of nothing."""
    return bool(acquisition(record))


def choices(cycles: Sequence[Record]) -> list[Mapping[str, Any]]:
    """The acquisitions of a run, in its order."""
    return [acquisition(record) for record in cycles if chose(record)]


def groups(record: Record) -> Mapping[str, Mapping[str, int]]:
    """Examples of each group in the `pool` and `chosen`; {} of a set without groups."""
    return acquisition(record).get("groups") or {}


def training_seconds(record: Record) -> float | None:
    """Seconds of training and test; None where they were not recorded."""
    return record.get("seconds")


def choosing_seconds(record: Record) -> float | None:
    """Seconds of scoring and choosing; None where nothing was chosen."""
    return acquisition(record).get("seconds")


def all_seconds(record: Record) -> float:
    """Seconds of a cycle with all its parts, as far as they were recorded."""
    parts = record, acquisition(record), measures(record)
    return sum(part.get("seconds") or 0.0 for part in parts)


def peak_mib(chosen: Mapping[str, Any]) -> float:
    """Most memory of an acquisition's passes on one device."""
    return chosen["peak_bytes"] / 2**20


def most_labelled(runs: Sequence[Sequence[Record]]) -> dict[int, int]:
    """Examples labelled at each cycle, of the run with most.

    A control, which buys no labels, stands beside those that bought them.
    """
    found: dict[int, int] = {}
    for record in (record for run in runs for record in run):
        number = found.get(record["cycle"], 0)
        found[record["cycle"]] = max(number, record["num_labelled"])
    return found


def read_whole(workdir: records.PathLike) -> tuple[list[dict], list[str]]:
    """Read what of `cycles.jsonl` is whole, while it may be written to.

    Returns:
      The records by rising cycle, of one that is there twice the last; and a sentence
      on each line that is damaged or repeats a cycle.
    """
    path = Path(workdir) / records.CYCLES
    if not path.exists():
        return [], []
    found: dict[int, dict] = {}
    warnings = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
            cycle, scored = record["cycle"], record["metrics"]
            if type(cycle) is not int or cycle < 0 or not isinstance(scored, dict):
                raise ValueError("no number of a cycle, or no metrics")
            int(record["num_labelled"])
        except (ValueError, TypeError, KeyError) as error:
            warnings.append(
                f"{path}:{number} is damaged and left out "
                f"({type(error).__name__}: {error})"
            )
            continue
        if cycle in found:
            warnings.append(f"{path}:{number} repeats cycle {cycle}: this line counts")
        found[cycle] = record
    return [found[cycle] for cycle in sorted(found)], warnings
