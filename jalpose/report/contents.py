"""All tables of a report, in the order of their importance.

A table more is a line here: in the group it belongs to.
"""

from typing import NamedTuple

from jalpose.report import (
    comparison_tables,
    gradnorm_tables,
    group_tables,
    measures,
    paper_tables,
    printed_tables,
    selection_tables,
    stopping,
)
from jalpose.report.gather import Gathered
from jalpose.report.grid import choose_reference
from jalpose.report.statistics import FEWEST
from jalpose.report.text_formats import Table


class Group(NamedTuple):
    """Tables of one section of the page, which has its heading from here."""

    anchor: str
    title: str
    tables: list[Table]


def make_groups(
    gathered: Gathered,
    *,
    reference: str | None = None,
    proposed: str | None = None,
    target: float | None = None,
) -> list[Group]:
    """Make every table there is something to say in, by section.

    Args:
      gathered: the runs.
      reference: method that others are tested against; by default random.
      proposed: method EGL++'s table tests for; by default eglpp.
      target: score of the labels saved, as it is shown; by default the reference's
        last.

    Raises:
      GatherError: a method of that label is not there.
    """
    reference = choose_reference(gathered.methods, reference)
    compared = len(gathered.methods) > 1
    tested = compared and len(gathered.seeds) >= FEWEST
    results = [comparison_tables.scores_table(gathered, reference)]
    choices = [
        measures.measures_table(gathered),
        group_tables.groups_table(gathered),
    ]
    pairs, layouts = [], []
    if compared:
        saved = comparison_tables.saved_table(gathered, reference, target)
        results.insert(0, comparison_tables.area_table(gathered, reference))
        if any(row["saved"] for row in saved.rows):  # neither 0 nor unknown
            results.append(saved)
        choices += [
            selection_tables.overlap_matrix(gathered),
            selection_tables.overlap_table(gathered),
        ]
        layouts = [
            paper_tables.eglpp_table(gathered, proposed),
            paper_tables.llpp_selected_table(gathered),
            paper_tables.llpp_test_table(gathered),
        ]
    if tested:
        matrices = [
            comparison_tables.penalty_table(gathered, reference, every_budget=every)
            for every in (False, True)
        ]
        pairs = [table for table in matrices if comparison_tables.penalised(table)]
    layouts += [
        *printed_tables.printed_tables(gathered),
        gradnorm_tables.overlap_table(gathered),
        gradnorm_tables.gap_table(gathered),
        gradnorm_tables.fallen_table(gathered),
    ]
    part = gathered.scoring.keys.part
    parts = [
        measures.beside_table(gathered),
        selection_tables.parts_table(gathered),
    ]
    cost = [
        stopping.stopping_table(gathered),
        selection_tables.cost_table(gathered),
    ]
    groups = [
        Group("results", "Results", results),
        Group("choices", "What was chosen", choices),
        Group("parts", f"Scores of each {part}", parts),
        Group("cost", "Cost, and what more labels may bring", cost),
        Group("pairs", "Every pair of methods", pairs),
        Group("layouts", "In the layouts of the papers", layouts),
    ]
    return [
        group._replace(tables=[table for table in group.tables if table.rows])
        for group in groups
    ]


def make_tables(
    gathered: Gathered,
    *,
    reference: str | None = None,
    proposed: str | None = None,
    target: float | None = None,
) -> list[Table]:
    """The tables of `make_groups` one after the other."""
    groups = make_groups(
        gathered, reference=reference, proposed=proposed, target=target
    )
    return [table for group in groups for table in group.tables]
