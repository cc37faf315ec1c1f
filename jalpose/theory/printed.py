"""Values that the papers print, or that were computed by another way, beside ours."""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from jalpose.report.tables import Column
from jalpose.report.text_formats import Table


class Compared(NamedTuple):
    """A value of ours beside another's.

    Attributes:
      what: it is of.
      ours: computed.
      other: as printed; its digits say how exact it is.
      note: why they differ, where that is known.
    """

    what: str
    ours: float
    other: str
    note: str = ""


def verdict(ours: float, other: str) -> str:
    """`equal` where ours rounds to what is printed, else by how much it is off."""
    printed = Decimal(other)
    rounded = Decimal(repr(float(ours))).quantize(printed, ROUND_HALF_UP)
    return "equal" if rounded == printed else f"off by {ours - float(other):+.2g}"


def table(
    name: str,
    caption: str,
    rows: Iterable[Compared],
    other: str,
    digits: str = ".6f",
    notes: tuple[str, ...] = (),
) -> Table:
    """A table of comparisons; `other` heads the column of what is printed."""
    found: list[Mapping[str, Any]] = [
        {
            "what": row.what,
            "ours": row.ours,
            "other": row.other,
            "verdict": verdict(row.ours, row.other),
            "note": row.note,
        }
        for row in rows
    ]
    columns = [
        Column("what", "", ""),
        Column("ours", digits, "computed"),
        Column("other", "", other),
        Column("verdict", "", "beside it"),
    ]
    if any(row["note"] for row in found):
        columns.append(Column("note", "", "note"))
    return Table(name, caption, tuple(columns), tuple(found), notes)
