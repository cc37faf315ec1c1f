"""Runs side by side as plain-text tables, from their records alone."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jalpose.storage import records

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

MEASURE_COLUMNS = (
    Column("run"),
    Column("cycle"),
    Column("seconds", ".1f"),
    Column("peak_mib", ".0f", "MiB"),
    Column("selected_pck", ".1f", "PCK chosen"),
    Column("pool_pck", ".1f", "of all"),
    Column("ranking_accuracy", ".2f", "ranking"),
    Column("pearson", "+z.2f"),
    Column("spearman", "+z.2f"),
    Column("loss_overlap", ".0f", "top loss %"),
    Column("sq_norm_overlap", ".0f", "top norm %"),
    Column("chance_overlap", ".0f", "chance %"),
    Column("mean_distance", ".3g", "distance"),
    Column("smallest_distance", ".2g", "smallest"),
    Column("near_duplicates", "d", "near"),
)
WIDEST = 4  # runs side by side; more are one below the other


def compare_runs(workdirs: Workdirs, *, reference: str | None = None) -> list[dict]:
    """One row for each cycle any run has reached.

    A row holds `cycle`, `num_labelled` (of the run with most: a control without new
    labels stands beside those that bought them) and, under each label, PCK in
    percent; from two runs on also, under `{label} - {reference}`, the points above
    `reference` (by default the first label). What a run has no record of is None.

    Raises:
      ValueError: the runs were not scored alike: another threshold or test set.
    """
    if workdirs and reference is not None and reference not in workdirs:
        raise ValueError(f"unknown {reference=}; known: {', '.join(workdirs)}")
    cycles = {label: _cycles(path) for label, path in workdirs.items()}
    _check_scored_alike(cycles)
    scores = {label: _scores(run) for label, run in cycles.items()}
    first = next(iter(scores), "") if reference is None else reference
    labelled: dict[int, int] = {}
    for record in (record for run in cycles.values() for record in run):
        number = labelled.get(record["cycle"], 0)
        labelled[record["cycle"]] = max(number, record["num_labelled"])
    rows = []
    for cycle in sorted({cycle for run in scores.values() for cycle in run}):
        row: dict[str, Any] = {label: run.get(cycle) for label, run in scores.items()}
        for label in scores:
            if label != first:
                known = row[label] is not None and row[first] is not None
                points = row[label] - row[first] if known else None
                row[f"{label} - {first}"] = points
        rows.append({"cycle": cycle, "num_labelled": labelled[cycle], **row})
    return rows


def comparison_columns(
    labels: Sequence[str], reference: str | None = None
) -> list[Column]:
    """The columns of `compare_runs`: scores, then signed differences."""
    reference = labels[0] if reference is None and labels else reference
    others = [label for label in labels if label != reference]
    return [
        Column("cycle"),
        Column("num_labelled", heading="labelled"),
        *(Column(label, ".1f") for label in labels),
        *(Column(f"{label} - {reference}", "+z.1f") for label in others),
    ]


def runs_below_each_other(rows: Sequence[Mapping], labels: Sequence[str]):
    """The scores of `compare_runs` with a row a run: rows and columns."""
    below = [
        {"run": label, **{str(row["num_labelled"]): row[label] for row in rows}}
        for label in labels
    ]
    counts = [str(row["num_labelled"]) for row in rows]
    return below, [Column("run"), *(Column(count, ".1f") for count in counts)]


def measures_table(workdirs: Workdirs) -> list[dict]:
    """One row for each acquisition of each run: what it cost and what it chose.

    Fractions are in percent, except the ranking accuracy. Shown with
    `format_table(rows, MEASURE_COLUMNS)`.
    """
    percent = "selected_pck", "pool_pck", "loss_overlap", "sq_norm_overlap"
    rows = []
    for label, path in workdirs.items():
        for record in _cycles(path):
            acquisition = record.get("acquisition")
            if acquisition is None:
                continue
            row = {
                "run": label,
                "cycle": record["cycle"],
                **(record.get("measures") or {}),
            }
            for key in (*percent, "chance_overlap"):
                if row.get(key) is not None:
                    row[key] = 100 * row[key]
            row["seconds"] = acquisition["seconds"]
            row["peak_mib"] = acquisition["peak_bytes"] / 2**20
            rows.append(row)
    return rows


def spent_table(workdirs: Workdirs) -> list[dict]:
    """One row for each cycle of each run: its seconds and those of its acquisition.

    Each run of two or more cycles ends with a row of sums, whose cycle is "all".
    Shown with `format_table(rows, SPENT_COLUMNS)`.
    """
    rows = []
    for label, path in workdirs.items():
        run = [_spent(label, record) for record in _cycles(path)]
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


def _cycles(workdir: str | os.PathLike[str]) -> list[dict]:
    if not Path(workdir).is_dir():
        raise records.WorkdirError(f"{workdir} is not the workdir of a run: no folder")
    return records.read_cycles(workdir)


def _scores(cycles: list[dict]) -> dict[int, float | None]:
    """PCK in percent by the cycle."""
    scores = {}
    for record in cycles:
        pck = (record.get("metrics") or {}).get("pck")
        scores[record["cycle"]] = None if pck is None else 100 * pck
    return scores


def _check_scored_alike(cycles: dict[str, list[dict]]) -> None:
    for key in ("pck_threshold", "pck_reference", "num_images"):
        seen: dict[Any, str] = {}
        for label, run in cycles.items():
            for record in run:
                value = (record.get("metrics") or {}).get(key)
                if value is not None:
                    seen.setdefault(value, label)
        if len(seen) > 1:
            found = ", ".join(f"{value} in {label}" for value, label in seen.items())
            raise ValueError(f"runs that differ in {key} cannot be compared: {found}")


def _spent(label: str, record: dict) -> dict:
    acquisition = record.get("acquisition") or {}
    return {
        "run": label,
        "cycle": record["cycle"],
        "num_labelled": record.get("num_labelled"),
        "seconds": record.get("seconds"),
        "acquisition": acquisition.get("seconds"),
        "method": acquisition.get("method"),
        "engine": acquisition.get("engine"),
    }
