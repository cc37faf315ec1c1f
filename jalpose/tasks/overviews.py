"""The contract of a task's overview: what a data set holds, and what looks wrong.

NumPy alone. The module `overview` of a task has `overview(config, dataset) -> Overview`
for a data set that was opened without `data.check`; see `registry.overview_of`. A task
without that module has counts and pictures alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jalpose.tasks.findings import Finding
from jalpose.tasks.labels import Truth
from jalpose.tasks.pictures import Key


class Heading(NamedTuple):
    """The heading of a column, the group it is in, and the format of its numbers."""

    words: str
    format: str = ""
    group: str = ""


class Summary(NamedTuple):
    """A table of a data set.

    Attributes:
      name: of letters, digits and "_".
      caption: what it is of.
      headings: of the columns.
      rows: words, numbers, or None for what is not known.
      notes: sentences below it.
    """

    name: str
    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()


Draw = Callable[[np.ndarray, np.ndarray | None, Truth], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overview:
    """What a task says of a data set.

    Attributes:
      tables: of its labels.
      findings: what is wrong or unlikely.
      labelled: bool [N], which examples have a label.
      draw: (image, window, truth of one example) -> its label: uint8 [H, W, 3].
      legend: what lines and colours mean.
    """

    tables: tuple[Summary, ...]
    findings: tuple[Finding, ...]
    labelled: np.ndarray
    draw: Draw
    legend: tuple[Key, ...]
