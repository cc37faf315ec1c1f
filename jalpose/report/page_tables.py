"""The tables of a report, and that of its runs, as the page shows them."""

import statistics
from collections.abc import Mapping
from typing import Any

from jalpose.report import page
from jalpose.report.gather import Gathered, Run
from jalpose.report.page import Markup
from jalpose.report.tables import Column
from jalpose.report.text_formats import Table
from jalpose.storage import cycles

_FEW_NOTES = 4


def runs_table(found: Gathered) -> Markup:
    """How far every run has come, its first and last score, and what it took.

    The base model's seconds stand apart: of the runs that share one only the first has
    trained it, and its record holds its seconds.
    """
    rows, scoring = [], found.scoring
    for run in (*found.runs, *found.full):
        last = run.cycles[-1]
        base, later = _training(run)
        choosing = [cycles.choosing_seconds(record) or 0.0 for record in run.cycles]
        rows.append(
            [
                run.method,
                run.seed,
                f"{len(cycles.choices(run.cycles))} of {run.last_cycle}",
                last.get("num_labelled"),
                _cell(scoring.value(run.cycles[0]), scoring.digits(1)),
                _cell(scoring.value(last), scoring.digits(1)),
                _seconds(base),
                _seconds(later),
                _seconds(sum(choosing) or None),
            ]
        )
    name = scoring.name
    columns = [
        *("method", "seed", "choices", "labelled", f"first {name}", f"last {name}"),
        *("base model s", "later trainings s", "choosing s"),
    ]
    hint = page.element("span", "A press on a heading sorts a table.", class_="screen")
    shared = (
        "Runs that start from another's base model have its seconds in their records "
        "only where they trained it themselves."
    )
    return page.table(columns, rows, "How far each has come", [shared, hint])


def _training(run: Run) -> tuple[float | None, float | None]:
    """Seconds of the base model's training, and of all later ones, with their tests."""
    base = [cycles.training_seconds(r) for r in run.cycles if r["cycle"] == 0]
    later = [cycles.training_seconds(r) or 0.0 for r in run.cycles if r["cycle"] > 0]
    return (base[0] if base else None), (sum(later) or None)


def _seconds(value: float | None) -> page.Cell | None:
    return None if value is None else page.Cell(f"{value:.0f}", value)


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


def as_markup(
    table: Table, files: Markup | str = "", colours: Mapping[str, str] | None = None
) -> Markup:
    """A table as HTML.

    Columns without a value and those that stand aside are left out.

    Args:
      table: what to show.
      files: where it is written, too.
      colours: of the methods, as the style sheet has them.
    """
    shown: list[tuple[Column, str]] = []
    aside: list[tuple[Column, str]] = []
    for column, heading in zip(table.columns, table.full_headings, strict=True):
        if any(table.text(row, column) for row in range(len(table.rows))):
            place = aside if column.key in table.aside else shown
            place.append((column, heading))
    rows = []
    for number, row in enumerate(table.rows):
        cells: list[Any] = []
        for column, _ in shown:
            said: Any = table.text(number, column) or None
            if said is not None and (number, column.key) in table.bold:
                said = page.element("strong", said)
            if said in (colours or {}):
                said = page.named(said, (colours or {})[said])
            cells.append(page.Cell(said, _sort_value(row.get(column.key))))
        rows.append(cells)
    notes: list[Any] = list(table.notes)
    if files and aside:
        more = ", ".join(heading for _, heading in aside)
        notes.append(page.join([f"With {more}: ", files]))
    elif files:
        notes.append(files)
    if len(notes) > _FEW_NOTES:  # what was found stands last
        *how, found, where = notes
        lines = [page.paragraph(note, class_="note") for note in how]
        notes = [page.details("how to read it", *lines), found, where]
    return page.table([heading for _, heading in shown], rows, table.caption, notes)


def _sort_value(value: Any) -> float | None:
    """What a cell sorts by: a number itself, of a mean and a deviation the mean."""
    value = value[0] if isinstance(value, tuple) else value
    return None if isinstance(value, str) else value


def _cell(value: float | None, form: str) -> page.Cell | None:
    return None if value is None else page.Cell(format(value, form), value)
