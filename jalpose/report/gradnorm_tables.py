"""The tables of the gradient-norm paper (Wang et al., AAAI 2022), in its layout.

Each is there where the runs recorded what it is of.
"""

from collections.abc import Callable

from jalpose.report.gather import Gathered
from jalpose.report.grid import make_grid, random_first, summary
from jalpose.report.tables import Column
from jalpose.report.text_formats import BEST, Table, mark_best, spread
from jalpose.storage import cycles


def overlap_table(gathered: Gathered) -> Table:
    """Table 1: how many of the chosen are among as many of truly highest norm."""
    chance = _budget_table(gathered, _chance)
    expected = {
        labelled: f"{row[labelled].mean:.0f}"
        for row in chance[:1]
        for labelled in row
        if labelled != "method" and row[labelled] is not None
    }
    listed = ", ".join(f"{count} at {labelled}" for labelled, count in expected.items())
    return _table(
        "gradnorm_table_1",
        "How many of the chosen are among as many of truly highest gradient norm, by "
        "labelled images",
        _budget_table(gathered, _in_top),
        ".0f",
        (
            "The norms are exact, of the labels, by the network that chose.",
            *([f"Of a choice at random are expected {listed}."] if listed else []),
        ),
    )


def gap_table(gathered: Gathered) -> Table:
    """Table 3: the score of the images trained on less that of the test set."""
    scoring = gathered.scoring
    key = f"train_{scoring.keys.key}"

    def gap(record: cycles.Record) -> float | None:
        metrics = cycles.metrics(record)
        ours, test = metrics.get(key), scoring.value(record)
        if ours is None or test is None:
            return None
        train = 100 * ours if scoring.keys.percent else ours
        return scoring.sign * (train - test)

    better = "" if scoring.sign > 0 else " (test less training: above 0 it overfits)"
    return _table(
        "gradnorm_table_3",
        f"Gap between training and test {scoring.in_unit}{better}, by labelled images",
        _budget_table(gathered, gap),
        scoring.digits(2),
        (
            "Of the images trained on, without augmentation, less that of the test "
            "set. The smaller, the less a network overfits; at the first count all "
            "methods of a seed may share one network.",
        ),
        lowest=True,
    )


def fallen_table(gathered: Gathered) -> Table:
    """Appendix A.2: share of the images bought last whose gradient norm has fallen."""

    def fallen(record: cycles.Record) -> float | None:
        share = cycles.metrics(record).get("norms_fallen")
        return None if share is None else 100 * share

    return _table(
        "gradnorm_fallen",
        "Share, in percent, of the images bought last whose gradient norm has fallen "
        "with the training on them, by labelled images",
        _budget_table(gathered, fallen),
        ".1f",
        (
            "Of the labels' gradients; the paper's figure, above 90, is of its "
            "losses without labels.",
        ),
    )


def _in_top(record: cycles.Record) -> float | None:
    share = cycles.measures(record).get("sq_norm_overlap")
    return None if share is None else share * cycles.acquisition(record)["budget"]


def _chance(record: cycles.Record) -> float | None:
    share = cycles.measures(record).get("chance_overlap")
    known = cycles.measures(record).get("sq_norm_overlap") is not None
    return share * cycles.acquisition(record)["budget"] if share and known else None


def _budget_table(
    gathered: Gathered, read: Callable[[cycles.Record], float | None]
) -> list[dict]:
    """A row a method, a column for each number labelled that any method has."""
    grid = make_grid(gathered, read)
    rows = []
    for method in random_first(grid.methods):
        found = {
            str(labelled): summary(grid.of(method)[:, cycle])
            for cycle, labelled in enumerate(grid.labelled.tolist())
        }
        if any(value is not None for value in found.values()):
            rows.append({"method": method, **found})
    there = [
        name
        for name in map(str, grid.labelled.tolist())
        if any(row[name] is not None for row in rows)
    ]
    return [{"method": row["method"], **{n: row[n] for n in there}} for row in rows]


def _table(name, caption, rows: list[dict], form, notes, *, lowest=False) -> Table:
    columns = [key for row in rows[:1] for key in row if key != "method"]
    return Table(
        name,
        f"{caption}{spread(rows)}",
        (Column("method"), *(Column(key, form) for key in columns)),
        tuple(rows),
        (*notes, BEST),
        bold=mark_best(rows, columns, lowest=lowest, digits=form),
    )
