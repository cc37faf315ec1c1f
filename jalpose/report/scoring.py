"""How the score of the runs is read from records, compared and spoken of.

A task's `ScoreKeys` say where its score stands, whether it is a share of one, shown in
percent, and whether the highest or the lowest is the best. What is tested or compared
is `sign` times the score, so that more is better everywhere; what is shown is the score
itself.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from jalpose.storage import cycles
from jalpose.tasks import registry
from jalpose.tasks.labels import ScoreKeys


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The score of runs of one task.

    Attributes:
      keys: how it stands in records.
      name: what it is called: PCK@0.2.
    """

    keys: ScoreKeys
    name: str

    # Numbers

    @property
    def sign(self) -> int:
        """1 or, where the lowest score is the best, -1."""
        return 1 if self.keys.higher_is_better else -1

    def value(self, record: cycles.Record) -> float | None:
        """The score of a cycle as it is shown; None where there is none."""
        return self.keys.value_of(cycles.metrics(record))

    def baseline(self, record: cycles.Record) -> float | None:
        """The score that needs no image, as it is shown."""
        return self.keys.baseline_of(cycles.metrics(record))

    def parts(self, record: cycles.Record) -> dict[str, float | None]:
        """The score of each part (joint, class), as it is shown."""
        return self.keys.parts_of(cycles.metrics(record))

    def share(self, record: cycles.Record) -> float | None:
        """The score of a cycle as it is recorded: a share of one, not percent."""
        return cycles.metrics(record).get(self.keys.key)

    # Words

    @property
    def in_unit(self) -> str:
        """The name and the unit: "PCK@0.2 in percent"."""
        return f"{self.name} in percent" if self.keys.percent else self.name

    @property
    def axis(self) -> str:
        """The name and the unit on an axis: "PCK@0.2 (%)"."""
        return f"{self.name} (%)" if self.keys.percent else self.name

    @property
    def axis_of_gains(self) -> str:
        """The name and the unit of differences on an axis: "PCK@0.2, points"."""
        return f"{self.name}, points" if self.keys.percent else self.name

    def gain(self, reference: str) -> str:
        """What is the more the better: "points above random"."""
        side = "above" if self.keys.higher_is_better else "below"
        return (
            f"points {side} {reference}"
            if self.keys.percent
            else (f"{side} {reference}")
        )

    def minus(self, reference: str) -> str:
        """What scores less those of the reference are: "points above random"."""
        if self.keys.higher_is_better:
            return self.gain(reference)
        return f"minus {reference}, below 0 where better"

    def difference(self, reference: str) -> str:
        """What a difference is of: "method minus random"; the more the better."""
        if self.keys.higher_is_better:
            return f"method minus {reference}"
        return f"{reference} minus method, above 0 where the method is better"

    def digits(self, percent: int, sign: str = "", other: str = ".4g") -> str:
        """Format of scores: decimals in percent, digits that count of other numbers."""
        form = f".{percent}f" if self.keys.percent else other
        return f"{sign}z{form}"  # no -0.0


def keys_of(task: str, metrics: Mapping[str, Any] = MappingProxyType({})) -> ScoreKeys:
    """How the score of a task stands in records.

    Args:
      task: of the runs.
      metrics: of a cycle: where a task has several scores, the main one has its name in
        them. Without, the usual.

    Raises:
      ConfigError: there is no such task.
    """
    labels = registry.labels_of(task)
    every = getattr(labels, "EVERY_KEYS", (labels.KEYS,))
    return next((k for k in every if f"{k.key}_name" in metrics), labels.KEYS)


def scoring_of(task: str, records: Iterable[cycles.Record]) -> Scoring:
    """The score of records of a task, named as the first that has a name."""
    every = [cycles.metrics(record) for record in records]
    keys = next(
        (k for k in (keys_of(task, m) for m in every) if k != keys_of(task)),
        keys_of(task),
    )
    named = f"{keys.key}_name"
    first: Mapping[str, Any] = next((m for m in every if named in m), {})
    return Scoring(keys, keys.name_of(first))


def how(metrics: Mapping[str, Any], keys: ScoreKeys) -> dict[str, Any]:
    """What of a test's metrics says how it was scored, and on how many examples.

    That are the words of the score (its name, what it is measured in) and its
    threshold; other numbers are results.
    """
    own = f"{keys.key}_"
    return {
        name: value
        for name, value in metrics.items()
        if name == "num_images"
        or name == f"{own}threshold"
        or (name.startswith(own) and isinstance(value, str))
    }
