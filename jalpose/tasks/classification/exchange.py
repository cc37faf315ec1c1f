"""Classes handed out to be labelled, and read back: a CSV, or a folder a class.

<folder>/classes.csv   rank, id, name, class, rejected, guess, probability, file, score,
                       why: `class` is to be filled in, or `rejected` with any mark
                       that is not 0, no or false

What comes back is known by the name of the picture, in the column `name` (or `file`, or
the number in `id`), or as that of an image file in a folder that is called as its class
is, or `rejected`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.settings.checks import did_you_mean
from jalpose.tasks.classification.annotations import classes_of
from jalpose.tasks.exchange import (
    REJECTED,
    Request,
    Returned,
    UnreadableError,
    is_image,
    read_rejected,
    read_table,
    text_of,
    write_table,
)
from jalpose.tasks.labels import Truth

TABLE = "classes.csv"
_COLUMNS = (
    "rank",
    "id",
    "name",
    "class",
    "rejected",
    "guess",
    "probability",
    "file",
    "score",
    "why",
)


_NO = ("", "0", "false", "no")  # in `rejected`: check boxes of spreadsheets


@dataclasses.dataclass(frozen=True)
class ClassExchange:
    """How images are handed out for their classes; see `tasks.exchange.Exchange`.

    Attributes:
      classes: their names.
    """

    classes: tuple[str, ...]
    formats = (
        "a CSV with the columns name and class",
        "image files in folders that are called as classes are",
        "a list that begins with the line `rejected`",
    )
    sites = ()
    tools: ClassVar = {"a spreadsheet": (TABLE,)}

    def write(self, folder: Path, requests: Sequence[Request], images: str) -> None:
        """Write the table to fill in."""
        del images
        rows = []
        for one in requests:
            guess = int(one.predicted["class"])
            share = float(one.predicted["probabilities"][guess])
            rows.append(
                (
                    one.rank,
                    one.id,
                    one.name,
                    "",
                    "",
                    self.classes[guess],
                    f"{share:.3f}",
                    one.file,
                    "" if one.score is None else f"{one.score:.6g}",
                    one.why,
                )
            )
        write_table(folder / TABLE, _COLUMNS, rows)

    def box_of(self, example: int) -> None:
        """The whole crop: a class is of no part of it."""
        del example

    def close_up(self, request: Request) -> None:
        """None, likewise."""
        del request

    def read(self, path: Path, name: PurePosixPath) -> list[Returned] | None:
        """What a table, a list of rejected ones, or an image in a folder says."""
        if is_image(path):
            return self._read_image(name)
        text = text_of(path)
        rejected = read_rejected(text)
        if rejected is not None:
            return rejected
        table = read_table(text)
        if table is None:
            return None
        columns, rows = table
        known = [name for name in ("name", "file", "id") if name in columns]
        if "class" not in columns or not known:
            return None
        return [
            self._read_row(row, row[known[0]], number)
            for number, row in enumerate(rows, start=2)
        ]

    def objection(self, request: Request, label: Truth) -> str:
        """Nothing: every class may be that of every image."""
        del request, label
        return ""

    def doubt(self, answered: Sequence[tuple[Request, Truth]]) -> str:
        """Nothing: all may be of one class."""
        del answered
        return ""

    def difference(self, before: Truth, now: Truth) -> str:
        """The two classes, where they are not the same."""
        one, other = (int(label["class"]) for label in (before, now))
        if one == other:
            return ""
        return f"was {self.classes[one]!r}, is now {self.classes[other]!r}"

    def _read_row(self, row: dict[str, str], name: str, number: int) -> Returned:
        where = f"line {number}"
        if row.get(REJECTED, "").lower() not in _NO:
            if row["class"]:
                raise UnreadableError(
                    f"{where}: {name!r} has the class {row['class']!r} and is rejected "
                    f"({row[REJECTED]!r}): empty one of the two"
                )
            return Returned(name, None, where, rejected=True)
        if not row["class"]:
            return Returned(name, None, where)
        return Returned(name, self._label(row["class"], where), where)

    def _read_image(self, name: PurePosixPath) -> list[Returned]:
        parent = name.parent.name
        where = f"folder {parent!r}"
        if parent == REJECTED and REJECTED not in self.classes:
            return [Returned(name.name, None, where, rejected=True)]
        if not parent:
            raise UnreadableError(
                "it is an image in no folder: put it into one that is called as its "
                f"class is ({', '.join(self.classes[:8])})"
            )
        return [Returned(name.name, self._label(parent, where), where)]

    def _label(self, name: str, where: str) -> Truth:
        if name not in self.classes:
            listed = ", ".join(self.classes[:20])
            more = len(self.classes) - 20
            raise UnreadableError(
                f"{where}: there is no class {name!r}. Known: {listed}"
                + (f" and {more} more" if more > 0 else "")
                + f".{did_you_mean(name, self.classes)}"
            )
        return {"class": np.asarray(self.classes.index(name), np.int32)}


def make_exchange(config: ConfigDict, dataset: Dataset) -> ClassExchange:
    """The exchange of a data set of classes."""
    del config
    return ClassExchange(classes_of(dataset))
