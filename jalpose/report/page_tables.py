"""The tables of a report, and that of its runs, as the page shows them."""

from typing import Any

from jalpose.report import page
from jalpose.report.gather import Gathered
from jalpose.report.grid import pck_percent, score_name
from jalpose.report.page import Markup
from jalpose.report.text_formats import Table


def runs_table(found: Gathered) -> Markup:
    """How far every run has come, and its first and last score."""
    rows = []
    for run in (*found.runs, *found.full):
        last = run.cycles[-1]
        seconds = sum(record.get("seconds") or 0.0 for record in run.cycles)
        rows.append(
            [
                run.method,
                run.seed,
                f"{len(run.cycles)} of {run.last_cycle + 1}",
                last.get("num_labelled"),
                _percent(pck_percent(run.cycles[0])),
                _percent(pck_percent(last)),
                page.Cell(f"{seconds:.0f}", seconds),
            ]
        )
    name = score_name(found)
    columns = "method", "seed", "cycles", "labelled", f"first {name}", f"last {name}"
    hint = page.element("span", "A press on a heading sorts a table.", class_="screen")
    return page.table([*columns, "training s"], rows, "How far each has come", [hint])


def as_markup(table: Table, files: str) -> Markup:
    """A table of the report as HTML, its best cells bold."""
    filled = [
        (column, heading)
        for column, heading in zip(table.columns, table.full_headings, strict=True)
        if any(table.text(row, column) for row in range(len(table.rows)))
    ]
    rows = []
    for number, row in enumerate(table.rows):
        cells: list[Any] = []
        for column, _ in filled:
            shown: Any = table.text(number, column) or None
            if shown is not None and (number, column.key) in table.bold:
                shown = page.element("strong", shown)
            cells.append(page.Cell(shown, _sort_value(row.get(column.key))))
        rows.append(cells)
    notes: list[Any] = list(table.notes)
    if empty := set(table.full_headings) - {heading for _, heading in filled}:
        names = [heading for heading in table.full_headings if heading in empty]
        notes.append(f"Columns without a value, not shown: {', '.join(names)}.")
    notes.append(page.element("code", files))
    return page.table([heading for _, heading in filled], rows, table.caption, notes)


def _sort_value(value: Any) -> float | None:
    """What a cell sorts by: a number itself, of a mean and a deviation the mean."""
    value = value[0] if isinstance(value, tuple) else value
    return None if isinstance(value, str) else value


def _percent(value: float | None) -> page.Cell | None:
    return None if value is None else page.Cell(f"{value:.1f}", value)
