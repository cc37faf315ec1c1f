"""Runs side by side as plain-text tables, from their records alone."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jalpose.report.scoring import Scoring, how, scoring_of
from jalpose.storage import cycles, records
from jalpose.tasks import registry

Workdirs = Mapping[str, str | os.PathLike[str]]


class Column(NamedTuple):
    """A key of the rows, the format of its values and, if another, its heading."""

    key: str
    format: str = ""
    heading: str | None = None


SPENT_COLUMNS = (
    Column("run"),
    Column("cycle"),
    Column("num_labelled", heading="labelled"),
    Column("seconds", ".1f"),
    Column("acquisition", ".1f", "acquisition s"),
    Column("method"),
    Column("engine"),
)

WIDEST = 4  # runs side by side; more are one below the other


def compare_runs(workdirs: Workdirs, *, reference: str | None = None) -> list[dict]:
    """One row for each cycle any run has reached.

    A row holds `cycle`, `num_labelled` (of the run with most: a control without new
    labels stands beside those that bought them) and, under each label, the score as it
    is shown; from two runs on also, under `{label} - {reference}`, the difference to
    `reference` (by default the first label). What a run has no record of is None.

    Raises:
      ValueError: the runs were not scored alike: another threshold or test set.
    """
    if workdirs and reference is not None and reference not in workdirs:
        raise ValueError(f"unknown {reference=}; known: {', '.join(workdirs)}")
    found = {label: read_cycles(path) for label, path in workdirs.items()}
    scoring = scoring_of_runs(workdirs)
    _check_scored_alike(found, scoring)
    scores = {
        label: {record["cycle"]: scoring.value(record) for record in run}
        for label, run in found.items()
    }
    first = next(iter(scores), "") if reference is None else reference
    labelled = cycles.most_labelled(list(found.values()))
    rows = []
    for cycle in sorted({cycle for run in scores.values() for cycle in run}):
        row: dict[str, Any] = {label: run.get(cycle) for label, run in scores.items()}
        for label in scores:
            if label != first:
                known = row[label] is not None and row[first] is not None
                row[f"{label} - {first}"] = row[label] - row[first] if known else None
        rows.append({"cycle": cycle, "num_labelled": labelled[cycle], **row})
    return rows


def scoring_of_runs(workdirs: Workdirs) -> Scoring:
    """How the score of runs is read and spoken of."""
    configs = [records.read_config(path) or {} for path in workdirs.values()]
    tasks = [registry.recorded_in(config.get("config") or {}) for config in configs]
    task = tasks[0] if tasks else registry.USUAL
    return scoring_of(task, itertools.chain(*map(read_cycles, workdirs.values())))


def comparison_columns(
    labels: Sequence[str], reference: str | None = None, digits: str = "z.1f"
) -> list[Column]:
    """The columns of `compare_runs`: scores, then signed differences.

    Args:
      labels: of the runs.
      reference: one of them.
      digits: format of the scores, see `Scoring.digits`.
    """
    reference = labels[0] if reference is None and labels else reference
    others = [label for label in labels if label != reference]
    return [
        Column("cycle"),
        Column("num_labelled", heading="labelled"),
        *(Column(label, digits) for label in labels),
        *(Column(f"{label} - {reference}", f"+{digits}") for label in others),
    ]


def runs_below_each_other(
    rows: Sequence[Mapping], labels: Sequence[str], digits: str = "z.1f"
) -> tuple[list[dict], list[Column]]:
    """The scores of `compare_runs` with a row a run: rows and columns."""
    below = [
        {"run": label, **{str(row["num_labelled"]): row[label] for row in rows}}
        for label in labels
    ]
    counts = [str(row["num_labelled"]) for row in rows]
    return below, [Column("run"), *(Column(count, digits) for count in counts)]


def spent_table(workdirs: Workdirs) -> list[dict]:
    """One row for each cycle of each run: its seconds and those of its acquisition.

    Each run of two or more cycles ends with a row of sums, whose cycle is "all".
    Shown with `format_table(rows, SPENT_COLUMNS)`.
    """
    rows = []
    for label, path in workdirs.items():
        run = [_spent(label, record) for record in read_cycles(path)]
        rows += run
        if len(run) > 1:
            sums: dict[str, Any] = {"run": label, "cycle": "all"}
            for key in ("seconds", "acquisition"):
                known = [row[key] for row in run if row[key] is not None]
                sums[key] = sum(known) if known else None
            rows.append(sums)
    return rows


def format_table(rows: Sequence[Mapping], columns: Sequence[str | Column]) -> str:
    """Align rows as text: numbers right, words left, `-` for what is missing."""
    wanted = [Column(item) if isinstance(item, str) else item for item in columns]
    lines = [[item.key if item.heading is None else item.heading for item in wanted]]
    lines += [[_text(row.get(key), spec) for key, spec, _ in wanted] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    words = [_is_words([row.get(item.key) for row in rows]) for item in wanted]
    lines.insert(1, ["-" * width for width in widths])
    text = ""
    for line in lines:
        cells = [
            cell.ljust(width) if is_words else cell.rjust(width)
            for cell, width, is_words in zip(line, widths, words, strict=True)
        ]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def _is_words(values: list) -> bool:
    numbers = any(isinstance(value, int | float) for value in values)
    return not numbers and any(isinstance(value, str) for value in values)


def _text(value: Any, spec: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return value if isinstance(value, str) else format(value, spec)


def read_cycles(workdir: str | os.PathLike[str]) -> list[dict]:
    """The records of a run; WorkdirError where there is no such folder."""
    if not Path(workdir).is_dir():
        raise records.WorkdirError(f"{workdir} is not the workdir of a run: no folder")
    return records.read_cycles(workdir)


def _check_scored_alike(runs: dict[str, list[dict]], scoring: Scoring) -> None:
    seen: dict[str, dict[Any, str]] = {}
    for label, run in runs.items():
        for record in run:
            found = how(cycles.metrics(record), scoring.keys)
            for key, value in found.items():
                if value is not None:
                    seen.setdefault(key, {}).setdefault(value, label)
    for key, holders in seen.items():
        if len(holders) > 1:
            named = ", ".join(f"{value} in {label}" for value, label in holders.items())
            raise ValueError(f"runs that differ in {key} cannot be compared: {named}")


def _spent(label: str, record: dict) -> dict:
    chosen = cycles.acquisition(record)
    return {
        "run": label,
        "cycle": record["cycle"],
        "num_labelled": record.get("num_labelled"),
        "seconds": cycles.training_seconds(record),
        "acquisition": cycles.choosing_seconds(record),
        "method": chosen.get("method"),
        "engine": chosen.get("engine"),
    }
