"""What a run ends with: tables, learning curves and a report of all its methods."""

import textwrap
from pathlib import Path

from ml_collections import ConfigDict

from jalpose.report import canvas, evidence, grid, measures, tables, verdict
from jalpose.report import gather as gathering
from jalpose.runtime.screen import Screen
from jalpose.storage import records


def conclude(config: ConfigDict, workdir, runs: dict[str, str], screen: Screen) -> None:
    """Print the runs side by side, draw their learning curves, write their report.

    Args:
      config: of the first run.
      workdir: of the first run; the others are below it.
      runs: workdirs by method.
      screen: to print on.
    """
    reference = "random" if "random" in runs else next(iter(runs))
    rows, scoring = (
        tables.compare_runs(runs, reference=reference),
        tables.scoring_of_runs(runs),
    )
    path = Path(workdir) / "pictures" / "learning_curves.png"
    canvas.save(evidence.progress(runs), path)
    digits = scoring.digits(1)
    if len(runs) > tables.WIDEST:
        below = tables.runs_below_each_other(rows, list(runs), digits)
        screen.line(f"{scoring.in_unit}, by labelled images:")
        screen.line(tables.format_table(*below))
    else:
        columns = tables.comparison_columns(list(runs), reference, digits)
        screen.line(f"{scoring.in_unit}, {scoring.minus('the reference')}:")
        screen.line(tables.format_table(rows, columns))
    choices = measures.rows_of_runs(runs)
    if choices:
        screen.line("What was chosen, and what choosing cost:")
        columns = measures.columns_of_runs(runs, choices)
        screen.line(tables.format_table(choices, columns))
        screen.line(measures.LEGEND)
    if len(runs) > 1:
        _say_verdict(workdir, screen)
    if not config.output.report or len(runs) < 2:
        screen.line(f"as a page: python -m jalpose.report {workdir}")
    screen.line(f"records and pictures: {workdir}")
    if config.output.report and len(runs) > 1:
        _write_report(workdir, screen)


def conclude_experiment(config: ConfigDict, workdir, screen: Screen) -> None:
    """Print the mean scores of an experiment's methods, and write its report."""
    try:
        found = grid.score_grid(gathering.gather([workdir]))
    except records.WorkdirError as error:  # nothing is there yet
        screen.line(f"no table: {error}")
        return
    counts = [str(count) for count in found.labelled.tolist()]
    rows = [
        {"method": method, **dict(zip(counts, means.tolist(), strict=True))}
        for method, means in zip(found.methods, found.means, strict=True)
    ]
    columns = [tables.Column("method"), *(tables.Column(n, ".1f") for n in counts)]
    screen.line(f"test score by labelled images, mean of {len(found.seeds)} seeds:")
    screen.line(tables.format_table(rows, columns))
    _say_verdict(workdir, screen)
    if config.output.report:
        _write_report(workdir, screen)


def _say_verdict(workdir, screen):
    """Print what the runs show, as it stands on top of their report."""
    try:
        said = verdict.lines([workdir])
    except records.WorkdirError as error:  # the runs themselves are finished
        screen.line(f"warning: no verdict: {error}")
        return
    for line in said:
        screen.line(textwrap.fill(line, 88))


def _write_report(workdir, screen):
    from jalpose.report.write import Options, Report

    out = Path(workdir) / "report"
    try:
        with screen.doing("writing the report"):
            found = gathering.gather([workdir])
            page = Report(found, [workdir], out, Options()).write()
    except records.WorkdirError as error:  # the runs themselves are finished
        screen.line(f"warning: no report: {error}")
        return
    screen.line(f"report: {page}")
