"""The tables of a report, and that of its runs, as the page shows them."""

import statistics
from typing import Any

from jalpose.report import page
from jalpose.report.gather import Gathered
from jalpose.report.page import Markup
from jalpose.report.text_formats import Table
from jalpose.storage import cycles


def runs_table(found: Gathered) -> Markup:
    """How far every run has come, and its first and last score."""
    rows, scoring = [], found.scoring
    for run in (*found.runs, *found.full):
        last = run.cycles[-1]
        seconds = sum(cycles.training_seconds(record) or 0.0 for record in run.cycles)
        rows.append(
            [
                run.method,
                run.seed,
                f"{len(run.cycles)} of {run.last_cycle + 1}",
                last.get("num_labelled"),
                _cell(scoring.value(run.cycles[0]), scoring.digits(1)),
                _cell(scoring.value(last), scoring.digits(1)),
                page.Cell(f"{seconds:.0f}", seconds),
            ]
        )
    name = scoring.name
    columns = "method", "seed", "cycles", "labelled", f"first {name}", f"last {name}"
    hint = page.element("span", "A press on a heading sorts a table.", class_="screen")
    return page.table([*columns, "training s"], rows, "How far each has come", [hint])


def throughput_table(found: Gathered) -> Markup:
    """How fast every run went: medians of its cycles, of memory the most."""
    rows = []
    for run in (*found.runs, *found.full):
        accounts = [a for record in run.cycles if (a := cycles.throughput(record))]
        if not accounts:
            continue
        cells: list[Any] = [run.method, run.seed]
        for work in ("training", "scoring"):
            cells.append(_median(accounts, work, "images_per_second"))
            cells.append(_median(accounts, work, "share_waiting", 100))
        compiling = sum(account["seconds_compiling"] for account in accounts)
        cells.append(page.Cell(f"{compiling:.0f}", compiling))
        for kind in ("device", "process"):
            peaks = [account["peak_bytes"][kind] or 0 for account in accounts]
            gib = max(peaks) / 2**30
            cells.append(page.Cell(f"{gib:.1f}", gib) if gib else None)
        rows.append(cells)
    if not rows:
        return page.join([])
    columns = ["method", "seed"]
    for work in ("training", "scoring"):
        columns += [f"{work}, images a second", "waiting for data, %"]
    columns += ["compiling s", "device GiB", "process GiB"]
    note = page.element(
        "span",
        "Medians of the cycles, compiling included; most memory so far of a process, "
        "which may have done other runs before. A CPU does not report its own.",
    )
    return page.table(columns, rows, "How fast each went", [note])


def _median(accounts, work, name, unit=1.0) -> page.Cell | None:
    values = [account[work][name] for account in accounts]
    values = [unit * value for value in values if value is not None]
    if not values:
        return None
    middle = statistics.median(values)
    return page.Cell(f"{middle:.3g}", middle)


def as_markup(table: Table, files: str = "") -> Markup:
    """A table as HTML, its best cells bold; `files` are where else it is written."""
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
    if files:
        notes.append(page.element("code", files))
    return page.table([heading for _, heading in filled], rows, table.caption, notes)


def _sort_value(value: Any) -> float | None:
    """What a cell sorts by: a number itself, of a mean and a deviation the mean."""
    value = value[0] if isinstance(value, tuple) else value
    return None if isinstance(value, str) else value


def _cell(value: float | None, form: str) -> page.Cell | None:
    return None if value is None else page.Cell(format(value, form), value)
