"""All tables of a report, in its order."""

from jalpose.report import (
    comparison_tables,
    gradnorm_tables,
    group_tables,
    measures,
    paper_tables,
    selection_tables,
    stopping,
)
from jalpose.report.gather import Gathered
from jalpose.report.grid import choose_reference
from jalpose.report.text_formats import Table


def make_tables(
    gathered: Gathered,
    *,
    reference: str | None = None,
    proposed: str | None = None,
    target: float | None = None,
) -> list[Table]:
    """Make every table there is something to say in.

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
    tables = [
        comparison_tables.scores_table(gathered, reference),
        comparison_tables.area_table(gathered, reference),
        measures.beside_table(gathered),
        stopping.stopping_table(gathered),
    ]
    if compared:
        tables += [
            comparison_tables.saved_table(gathered, reference, target),
            comparison_tables.penalty_table(gathered, reference),
            comparison_tables.penalty_table(gathered, reference, every_budget=True),
        ]
    tables += [
        paper_tables.eglpp_table(gathered, proposed),
        paper_tables.llpp_selected_table(gathered),
        paper_tables.llpp_test_table(gathered),
        gradnorm_tables.overlap_table(gathered),
        gradnorm_tables.gap_table(gathered),
        gradnorm_tables.fallen_table(gathered),
        selection_tables.parts_table(gathered),
        group_tables.groups_table(gathered),
        measures.measures_table(gathered),
    ]
    if compared:
        tables += [
            selection_tables.overlap_matrix(gathered),
            selection_tables.overlap_table(gathered),
        ]
    tables.append(selection_tables.cost_table(gathered))
    return [table for table in tables if table.rows]
