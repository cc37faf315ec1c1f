"""The layouts of the papers' tables: EGL++ Table 1 and LL++ Table 3."""

import numpy as np

from jalpose.report import measures, statistics
from jalpose.report.gather import Gathered
from jalpose.report.grid import (
    Grid,
    choose_reference,
    controls,
    make_grid,
    random_first,
    score_grid,
    summary,
)
from jalpose.report.scoring import Scoring
from jalpose.report.tables import Column
from jalpose.report.text_formats import (
    BEST,
    MU,
    SIGMA,
    Table,
    mark_best,
    p_value,
    spread,
)
from jalpose.storage import cycles

PROPOSED = "eglpp"


def eglpp_table(gathered: Gathered, proposed: str | None = None) -> Table:
    """Table 1 of EGL++: mean, deviation and p by the budget, the proposed method last.

    As there, p is that of a one-tailed paired t-test that the proposed method is
    better, not corrected, and cycle 0, which all methods share, is left out.

    Args:
      gathered: the runs.
      proposed: label of a method; by default eglpp, or the first that is neither
        random nor a control.
    """
    grid, scoring = score_grid(gathered), gathered.scoring
    rivals = {"random", *controls(gathered)}
    usual = [m for m in grid.methods if m.split()[0] not in rivals] or grid.methods
    proposed = proposed or choose_reference(usual, None, PROPOSED)
    proposed = choose_reference(grid.methods, proposed)
    others = [name for name in random_first(grid.methods) if name != proposed]
    rows, reasons = [], set()
    for method in [*others, proposed]:
        row: dict = {"method": method}
        for cycle in range(1, len(grid.labelled)):
            scores = grid.of(method)[:, cycle]
            found = summary(scores)
            row[f"mean {cycle}"] = found and found.mean
            row[f"sd {cycle}"] = found and found.sd
            if method != proposed:
                best = grid.of(proposed)[:, cycle]
                result = statistics.compare(scoring.sign * scores, scoring.sign * best)
                row[f"p {cycle}"] = p_value(result.less)
                if found:
                    reasons |= {result.reason} - {""}
        rows.append(row)
    columns, groups = [Column("method")], [""]
    for cycle, labelled in enumerate(grid.labelled.tolist()):
        if cycle > 0:
            columns += [
                Column(f"mean {cycle}", scoring.digits(2), MU),
                Column(f"sd {cycle}", scoring.digits(2), SIGMA),
                Column(f"p {cycle}", "", "p"),
            ]
            groups += [str(labelled)] * 3
    means = [column.key for column in columns if column.key.startswith("mean ")]
    return Table(
        "eglpp_table_1",
        f"{scoring.in_unit} by labelled images, in the layout of "
        f"Table 1 of EGL++: mean, standard deviation over {_seeds(grid)}, and p of a "
        f"one-tailed paired t-test that {proposed} is better",
        tuple(columns),
        tuple(rows),
        (*(f"{reason[0].upper()}{reason[1:]}." for reason in sorted(reasons)), BEST),
        tuple(groups),
        mark_best(rows, means, lowest=scoring.sign < 0, digits=scoring.digits(2)),
    )


def llpp_selected_table(gathered: Gathered) -> Table:
    """Table 3a of LL++: the score of the images selected, before training on them.

    The worse it is, the better a method finds failures. A control selects none.
    """
    scoring = gathered.scoring
    key = measures.selected_key(scoring.keys)
    grid = make_grid(gathered, lambda record: cycles.measures(record).get(key))
    worse = "lower" if scoring.sign > 0 else "higher"
    stages = range(len(grid.labelled) - 1)
    return _llpp_table(
        grid,
        scoring,
        [(cycle, str(grid.labelled[cycle + 1])) for cycle in stages],
        name="llpp_table_3a",
        caption=f"{scoring.name} of the images selected to reach that many "
        f"labels, before training on them ({worse}: better at finding failures), in "
        "the layout of Table 3a of LL++",
        lowest=scoring.sign > 0,
    )


def llpp_test_table(gathered: Gathered) -> Table:
    """Table 3b of LL++: the test score after each stage."""
    scoring = gathered.scoring
    grid = make_grid(gathered, scoring.share)
    stages = range(1, len(grid.labelled))
    return _llpp_table(
        grid,
        scoring,
        [(cycle, f"S{cycle}") for cycle in stages],
        name="llpp_table_3b",
        caption=f"{scoring.name} of the test images after each stage, in the "
        "layout of Table 3b of LL++",
        lowest=scoring.sign < 0,
        notes=[
            "Labelled images: "
            + ", ".join(f"S{cycle} {grid.labelled[cycle]}" for cycle in stages)
            + "."
        ]
        if stages
        else [],
    )


def _llpp_table(
    grid: Grid, scoring: Scoring, stages, *, name, caption, lowest, notes=()
) -> Table:
    rows = []
    for method in random_first(grid.methods):
        row: dict = {"method": method}
        row |= {str(cycle): summary(grid.of(method)[:, cycle]) for cycle, _ in stages}
        if any(row[str(cycle)] is not None for cycle, _ in stages):
            rows.append(row)
    percent = scoring.keys.percent  # shares of one, as LL++ prints them
    digits = ".3f" if percent else ".4g"
    form = f"!{digits}" if percent else digits
    columns = [Column(str(cycle), form, heading) for cycle, heading in stages]
    return Table(
        name,
        f"{caption}{spread(rows, _seeds(grid))}",
        (Column("method"), *columns),
        tuple(rows),
        (*notes, BEST),
        bold=mark_best(rows, [c.key for c in columns], lowest=lowest, digits=digits),
    )


def _seeds(grid: Grid) -> str:
    """How many runs a method has, where some have fewer at some budget."""
    counts = np.isfinite(grid.values).sum(axis=1)
    counts = counts[counts > 0]
    if not counts.size:
        return "no runs"
    low, high = int(counts.min()), int(counts.max())
    runs = "run" if high == 1 else "runs"
    return f"{high} {runs}" if low == high else f"{low} to {high} {runs}"
