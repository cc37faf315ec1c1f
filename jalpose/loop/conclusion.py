"""What a run ends with: tables, learning curves and a report of all its methods."""

from pathlib import Path

from ml_collections import ConfigDict

from jalpose.report import plots, tables
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
    cycles = {method: records.read_cycles(path) for method, path in runs.items()}
    reference = "random" if "random" in runs else next(iter(runs))
    rows = tables.compare_runs(runs, reference=reference)
    # A control buys no labels: it is drawn where the others stand at its cycle.
    labelled = {row["cycle"]: row["num_labelled"] for row in rows}
    curves = {
        method: [(labelled[r["cycle"]], r["metrics"]["pck"]) for r in lines]
        for method, lines in cycles.items()
    }
    metrics = next(iter(cycles.values()))[0]["metrics"]
    plots.plot_learning_curves(
        Path(workdir) / "pictures" / "learning_curves.png",
        curves,
        title="Test score after each acquisition",
        ylabel=metrics["pck_name"],
        baseline=metrics["mean_pose_pck"],
    )
    if len(runs) > tables.WIDEST:
        below = tables.runs_below_each_other(rows, list(runs))
        screen.line(f"{metrics['pck_name']} in percent, by labelled images:")
        screen.line(tables.format_table(*below))
    else:
        columns = tables.comparison_columns(list(runs), reference)
        screen.line(f"{metrics['pck_name']} in percent, points above the reference:")
        screen.line(tables.format_table(rows, columns))
    measures = tables.measures_table(runs)
    if measures:
        screen.line("What was chosen, and what choosing cost:")
        screen.line(tables.format_table(measures, tables.MEASURE_COLUMNS))
    screen.line(f"records and pictures: {workdir}")
    if config.output.report and len(runs) > 1:
        _write_report(workdir, screen)


def _write_report(workdir, screen):
    from jalpose.report.gather import gather
    from jalpose.report.write import Options, Report

    out = Path(workdir) / "report"
    try:
        page = Report(gather([workdir]), [workdir], out, Options()).write()
    except records.WorkdirError as error:  # the runs themselves are finished
        screen.line(f"warning: no report: {error}")
        return
    screen.line(f"report: {page}")
