"""Methods against each other: scores, area under the curve, penalties, labels saved.

Every function takes what `gather` found and gives a `Table`. Differences and tests are
such that more is better, whether the highest or the lowest score is the best.
"""

import numpy as np

from jalpose.report import budgets, comparison_notes, penalties, statistics
from jalpose.report.gather import Gathered
from jalpose.report.grid import (
    choose_reference,
    controls,
    full_level,
    reference_first,
    score_grid,
    summary,
)
from jalpose.report.scoring import Scoring
from jalpose.report.statistics import LEVEL, Comparison
from jalpose.report.tables import Column
from jalpose.report.text_formats import Table, counted, p_value, spread


def _aside(rows: list[dict]) -> frozenset[str]:
    """What the page leaves to the files, for those who ask more."""
    more = {"one_tailed", "two_tailed", "wilcoxon", "wilcoxon_holm", "detectable"}
    equal = len({row["runs"] for row in rows}) == 1
    return frozenset(more | ({"runs"} if equal else set()))


def _test_columns(scoring: Scoring) -> tuple[Column, ...]:
    """Columns of a comparison with the reference."""
    return (
        Column("difference", scoring.digits(2, "+")),
        Column("interval", scoring.digits(2, "+"), "95 % interval"),
        Column("holm", "", "p Holm"),
        Column("runs"),
        Column("one_tailed", "", "p one-tailed"),
        Column("two_tailed", "", "p two-tailed"),
        Column("wilcoxon", "", "p Wilcoxon"),
        Column("wilcoxon_holm", "", "p Wilcoxon Holm"),
        Column("detectable", scoring.digits(2)),
    )


def scores_table(gathered: Gathered, reference: str | None = None) -> Table:
    """Mean and deviation of each method at each budget, tested against a reference.

    Cycle 0 comes before any choice: it is shown and not tested.
    """
    grid, scoring = score_grid(gathered), gathered.scoring
    reference = choose_reference(grid.methods, reference)
    rows: list[dict] = []
    comparisons: list[Comparison] = []
    for cycle, labelled in enumerate(grid.labelled.tolist()):
        for method in reference_first(grid.methods, reference):
            scores = grid.of(method)[:, cycle]
            row = {
                "labelled": labelled,
                "method": method,
                "runs": int(np.isfinite(scores).sum()),
                "score": summary(scores),
            }
            if row["runs"] and cycle > 0 and method != reference:
                others = grid.of(reference)[:, cycle]
                found = statistics.compare(scoring.sign * scores, scoring.sign * others)
                comparisons.append(found)
                row |= _cells(found)
            if row["runs"]:
                rows.append(row)
    family = _correct(rows)
    bold = _better(rows, "score")
    if (full := full_level(gathered)) is not None:
        row = {"labelled": full.labelled, "method": "all labels", "runs": full.runs}
        rows.append({**row, "score": full.score})
    columns = (
        Column("labelled"),
        Column("method"),
        Column("score", scoring.digits(2), scoring.name),
        *_test_columns(scoring),
    )
    compared = f", compared with {reference}" if len(grid.methods) > 1 else ""
    return Table(
        "scores",
        f"{scoring.in_unit} by labelled images{spread(rows)}{compared}",
        columns,
        tuple(rows),
        (
            *comparison_notes.legend(comparisons, reference, family, scoring),
            *comparison_notes.bold_notes(bold, reference),
            *comparison_notes.control_notes(gathered),
            *comparison_notes.full_notes(gathered),
            *comparison_notes.significance_notes(comparisons, rows, reference, family),
        ),
        bold=bold,
        aside=_aside(rows),
    )


def area_table(gathered: Gathered, reference: str | None = None) -> Table:
    """Area under the budget curve of each method, tested against a reference."""
    grid, scoring = score_grid(gathered), gathered.scoring
    reference = choose_reference(grid.methods, reference)
    low, high = grid.labelled[0], grid.labelled[-1]
    rising = bool((np.diff(grid.labelled) > 0).all())
    areas = np.full(grid.values.shape[:2], np.nan)
    if rising:
        areas = budgets.area_under_curve(grid.labelled, grid.values)
    rows: list[dict] = []
    comparisons = []
    for method in reference_first(grid.methods, reference):
        own = areas[grid.methods.index(method)]
        row = {"method": method, "runs": int(np.isfinite(own).sum())}
        row["area"] = summary(own)
        if method != reference and row["runs"]:
            others = areas[grid.methods.index(reference)]
            found = statistics.compare(scoring.sign * own, scoring.sign * others)
            comparisons.append(found)
            row |= _cells(found)
        rows.append(row)
    family = _correct(rows)
    bold = _better(rows, "area")
    notes = comparison_notes.legend(comparisons, reference, family, scoring)
    if not rising:
        notes.append("Budgets do not rise: there is no area under the curve.")
    if any(row["runs"] < len(gathered.by(row["method"])) for row in rows):
        notes.append(f"Only runs that have every budget up to {high} are counted.")
    return Table(
        "area",
        f"Area under the budget curve: mean {scoring.in_unit} over "
        f"{low} to {high} labelled images (trapezoids)",
        (
            Column("method"),
            Column("area", scoring.digits(2)),
            *_test_columns(scoring),
        ),
        tuple(rows),
        (
            *notes,
            *comparison_notes.bold_notes(bold, reference),
            *comparison_notes.control_notes(gathered),
            *comparison_notes.significance_notes(comparisons, rows, reference, family),
        ),
        bold=bold,
        aside=_aside(rows),
    )


def penalty_table(
    gathered: Gathered, reference: str | None = None, *, every_budget: bool = False
) -> Table:
    """BADGE's pairwise penalty matrix; `every_budget`: at all after cycle 0."""
    grid, scoring = score_grid(gathered), gathered.scoring
    reference = choose_reference(grid.methods, reference)
    if every_budget:
        cycles, which = list(range(1, len(grid.labelled))), "every budget"
    else:
        curve = grid.means[grid.methods.index(reference)]
        lowest_best = scoring.sign < 0
        cycles = penalties.checkpoints(
            curve[np.isfinite(curve)], lowest_best=lowest_best
        )
        stop = penalties.stop_words(lowest_best)
        which = f"BADGE's budgets: doubling until {reference} is {stop}"
    matrix = penalties.penalty_matrix(scoring.sign * grid.values, cycles)
    rows: list[dict] = [
        {"method": name, **dict(zip(grid.methods, map(_known, row), strict=True))}
        for name, row in zip(grid.methods, matrix.tolist(), strict=True)
    ]
    # A method's own 0 alone is no result.
    means = {
        name: float(np.nanmean(column)) if np.isfinite(column).sum() > 1 else None
        for name, column in zip(grid.methods, matrix.T, strict=True)
    }
    rows.append({"method": "mean of the column", **means})
    last = len(rows) - 1
    known = {mean for mean in means.values() if mean is not None}
    bold = {
        (last, name)
        for name, mean in means.items()
        if len(known) > 1 and mean == min(known)
    }
    better = "higher" if scoring.sign > 0 else "lower"
    notes = [
        "A cell is the share of the budgets at which the row's method beats the "
        f"column's: its mean is {better} and a two-tailed paired t-test has p < "
        f"{LEVEL}. The lower a column's mean, the better the method (Ash et al., "
        "ICLR 2020). Not corrected for the number of comparisons.",
        f"Compared at {which}: {_numbers(grid.labelled[cycles])} labelled images. The "
        "start, which all methods share, is left out.",
    ]
    if bold:
        notes.append("Bold: the lowest mean of a column.")
    if cycles and not np.isfinite(matrix).all():
        notes.append(
            "A missing number: at none of these budgets can the two be tested."
        )
    if not cycles:
        notes.append("Nothing has been chosen yet: there is nothing to compare.")
    if len(grid.seeds) < statistics.FEWEST:
        notes.append(
            f"With {counted(len(grid.seeds), 'run')} a method there is no "
            "p-value, hence no penalty: this matrix says nothing."
        )
    return Table(
        "penalties_all" if every_budget else "penalties",
        f"Pairwise penalty matrix, at {'every budget' if every_budget else which}",
        (Column("method"), *(Column(name, ".2f") for name in grid.methods)),
        tuple(rows),
        tuple(notes),
        bold=frozenset(bold),
    )


def penalised(table: Table) -> bool:
    """Does a matrix of penalties say of any method that another beats it?"""
    return any(row[name] for row in table.rows for name in row if name != "method")


def saved_table(
    gathered: Gathered, reference: str | None = None, target: float | None = None
) -> Table:
    """Labels each method saves against a reference.

    Args:
      gathered: the runs.
      reference: label of a method.
      target: score as it is shown; by default the reference's mean at the last budget.
    """
    grid, scoring = score_grid(gathered), gathered.scoring
    reference = choose_reference(grid.methods, reference)
    rows = []
    for method in reference_first(grid.methods, reference):
        found = None
        if method in controls(gathered):
            continue
        if method != reference and (np.diff(grid.labelled) > 0).all():
            found = budgets.labels_saved(
                grid.labelled,
                scoring.sign * grid.of(method),
                scoring.sign * grid.of(reference),
                None if target is None else scoring.sign * target,
            )
        if found is None:
            continue
        factor = None
        if found.reference is not None and found.method:
            factor = found.reference / found.method
        rows.append(
            {
                "method": method,
                "runs": found.num_pairs,
                "target": scoring.sign * found.target,
                "reference": found.reference,
                "needed": found.method,
                "saved": found.saved,
                "interval": found.interval if found.method is not None else None,
                "factor": factor,
            }
        )
    notes = [
        "Linear between the budgets of the mean curves. A missing number: the curve "
        "never reaches the target. Factor: labels of the reference over those of the "
        "method. Interval: seeds resampled in pairs; -inf: some never reach it."
    ]
    if any(row["reference"] == grid.labelled[0] for row in rows):
        notes.append(
            f"{reference} reaches the target before any choice: there is nothing to "
            "save. Name another target."
        )
    notes += comparison_notes.shares_of_full(gathered, grid, reference)
    if len(grid.seeds) < statistics.FEWEST:
        notes.append(f"No interval under {statistics.FEWEST} seeds.")
    elif len(grid.seeds) < statistics.FEW:
        notes.append(
            f"Intervals from {len(grid.seeds)} seeds are too narrow: they show the "
            "order of magnitude."
        )
    return Table(
        "labels_saved",
        f"Labels saved against {reference} at a target {scoring.name}",
        (
            Column("method"),
            Column("runs"),
            Column("target", scoring.digits(2)),
            Column("reference", ".0f", f"labels of {reference}"),
            Column("needed", ".0f", "labels of the method"),
            Column("saved", "+.0f"),
            Column("interval", "+.0f", "95 % interval"),
            Column("factor", ".2f"),
        ),
        tuple(rows),
        tuple(notes),
    )


# Parts


def _cells(found: Comparison) -> dict:
    return {
        "difference": found.difference,
        "interval": found.interval,
        "one_tailed": p_value(found.greater),
        "two_tailed": p_value(found.two_tailed),
        "wilcoxon": p_value(found.wilcoxon),
        "detectable": found.detectable,
    }


def _correct(rows: list[dict]) -> int:
    """Add Holm's p-values to the rows; the size of the family."""
    family = 0
    for key, into in (("two_tailed", "holm"), ("wilcoxon", "wilcoxon_holm")):
        p_values = [row.get(key) for row in rows]
        family = max(family, sum(p is not None for p in p_values))
        for row, p in zip(rows, statistics.holm(p_values), strict=True):
            row[into] = p_value(p)
    return family


def _better(rows: list[dict], key: str) -> frozenset[tuple[int, str]]:
    """The cells of what is significantly better than the reference."""
    return frozenset(
        (place, key)
        for place, row in enumerate(rows)
        if row.get("holm") is not None and row["holm"] < LEVEL and row["difference"] > 0
    )


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _numbers(values: np.ndarray) -> str:
    return ", ".join(map(str, values.tolist())) or "no"
