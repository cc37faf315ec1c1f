"""Measures of choices: their keys, headings and formats, and both tables of them.

The recorder keeps them in a cycle's record (`measures`). Two are of the task's score:
`selected_<key>` of the images selected and `pool_<key>` of all scored, before training
on them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from jalpose.report import tables
from jalpose.report.gather import Gathered
from jalpose.report.grid import make_grid, summary
from jalpose.report.scoring import Scoring
from jalpose.report.tables import Column, Workdirs
from jalpose.report.text_formats import Table, spread
from jalpose.storage import cycles
from jalpose.tasks.labels import ScoreKeys

LEGEND = (
    "seconds and MiB: of choosing. chosen, of all: test score of those images before\n"
    "they were trained on. ranking, pearson, spearman: of the scores with the true\n"
    "losses (ranking by chance: 0.5). top loss, top norm: of the chosen, in percent,\n"
    "that are among as many of the highest (at random: chance). distance, smallest:\n"
    "between the chosen, in the embedding; near: pairs that are near duplicates.\n"
)


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure of a choice.

    Attributes:
      key: in the records.
      heading: in the report.
      form: of its values there.
      short: heading on the screen.
      short_form: of its values there.
      percent: a share of one, shown in percent.
      of_choice: it is there only where something was chosen.
      optional: recorded only where a config asks for it; else not shown.
    """

    key: str
    heading: str
    form: str
    short: str
    short_form: str
    percent: bool = False
    of_choice: bool = True
    optional: bool = False

    def value(self, record: cycles.Record) -> float | None:
        """The measure of a cycle as it is shown; None where there is none."""
        value = cycles.measures(record).get(self.key)
        return 100 * value if value is not None and self.percent else value


def selected_key(keys: ScoreKeys) -> str:
    """Key of the score of the images selected."""
    return f"selected_{keys.key}"


def measures_of(scoring: Scoring) -> tuple[Measure, ...]:
    """All measures, in the order of the tables."""
    keys, name = scoring.keys, scoring.keys.usual_name
    form = scoring.digits(1)
    of_score: dict[str, Any] = {"short_form": form, "percent": keys.percent}
    return (
        Measure(
            selected_key(keys), f"{name} selected", form, f"{name} chosen", **of_score
        ),
        Measure(
            f"pool_{keys.key}",
            f"{name} scored",
            form,
            "of all",
            of_choice=False,
            **of_score,
        ),
        Measure("ranking_accuracy", "ranking accuracy", ".3f", "ranking", ".2f"),
        Measure("pearson", "Pearson", ".2f", "pearson", "+z.2f"),
        Measure("spearman", "Spearman", ".2f", "spearman", "+z.2f"),
        Measure(
            "test_ranking_accuracy",
            "ranking accuracy, test",
            ".3f",
            "test ranking",
            ".2f",
            optional=True,
        ),
        Measure(
            "test_pearson", "Pearson, test", ".2f", "test p.", "+z.2f", optional=True
        ),
        Measure(
            "test_spearman", "Spearman, test", ".2f", "test s.", "+z.2f", optional=True
        ),
        Measure("loss_overlap", "top losses %", ".1f", "top loss %", ".0f", True),
        Measure("selected_loss", "loss selected", ".4g", "loss chosen", ".3g"),
        Measure("selected_loss_sd", "its spread", ".4g", "spread", ".3g"),
        Measure("pool_loss", "loss scored", ".4g", "of all", ".3g", False, False),
        Measure("sq_norm_overlap", "top norms %", ".1f", "top norm %", ".0f", True),
        Measure("chance_overlap", "chance %", ".1f", "chance %", ".0f", True, False),
        Measure("mean_distance", "mean distance", ".3g", "distance", ".3g"),
        Measure("smallest_distance", "smallest distance", ".2g", "smallest", ".2g"),
        Measure(
            "near_duplicates", "near duplicates", ".1f", "near", "d", of_choice=False
        ),
    )


def measures_table(gathered: Gathered) -> Table:
    """What the papers measure about each acquisition, mean and deviation over seeds."""
    scoring = gathered.scoring
    listed = measures_of(scoring)
    grids = [make_grid(gathered, measure.value) for measure in listed]
    labelled = grids[0].labelled.tolist()
    rows: list[dict[str, Any]] = []
    for cycle, method in itertools.product(range(len(labelled)), gathered.methods):
        found = {
            measure.key: summary(grid.of(method)[:, cycle])
            for measure, grid in zip(listed, grids, strict=True)
        }
        if any(found[m.key] is not None for m in listed if m.of_choice):
            rows.append({"labelled": labelled[cycle], "method": method, **found})
    columns = [
        Column(measure.key, measure.form, measure.heading)
        for measure in listed
        if any(row[measure.key] is not None for row in rows)
    ]
    keys = scoring.keys
    in_unit = f"{keys.usual_name} in percent" if keys.percent else keys.usual_name
    return Table(
        "measures",
        f"Measures of each acquisition{spread(rows)}",
        (Column("labelled"), Column("method"), *columns),
        tuple(rows),
        (
            f"{in_unit} of the images selected and of all scored, before training "
            "on them. Ranking accuracy (1/2 is chance) and correlations: of the scores "
            "with the losses of the labels, of all scored and, where asked for, of the "
            "test set. Top losses and norms: share of the selected among as many of "
            "truly highest loss or gradient norm. Loss: mean and standard deviation "
            "over the images selected. Distances: between embeddings of the selected.",
        ),
        # Else it is wider than most screens.
        aside=frozenset(
            {"pearson", "selected_loss_sd", "pool_loss", "smallest_distance"}
        ),
    )


def beside_table(gathered: Gathered) -> Table:
    """Other numbers of the test set than the score, by the number labelled."""
    named = gathered.scoring.keys.beside
    grids = {
        key: make_grid(gathered, functools.partial(_of_test, key)) for key, _ in named
    }
    rows: list[dict[str, Any]] = []
    labelled = next(iter(grids.values())).labelled.tolist() if grids else []
    for cycle, method in itertools.product(range(len(labelled)), gathered.methods):
        found = {key: summary(grid.of(method)[:, cycle]) for key, grid in grids.items()}
        if any(value is not None for value in found.values()):
            rows.append({"labelled": labelled[cycle], "method": method, **found})
    return Table(
        "beside",
        f"Other scores of the test set{spread(rows)}",
        (
            Column("labelled"),
            Column("method"),
            *(Column(key, ".3f", words) for key, words in named),
        ),
        tuple(rows),
    )


def _of_test(key: str, record: cycles.Record) -> float | None:
    return cycles.metrics(record).get(key)


def rows_of_runs(workdirs: Workdirs) -> list[dict]:
    """One row for each acquisition of each run: what it cost and what it chose.

    Shown with `format_table(rows, columns_of_runs(workdirs, rows))`.
    """
    rows = []
    listed = measures_of(tables.scoring_of_runs(workdirs))
    for label, path in workdirs.items():
        for record in tables.read_cycles(path):
            if cycles.chose(record):
                chosen = cycles.acquisition(record)
                rows.append(
                    {
                        "run": label,
                        "cycle": record["cycle"],
                        "seconds": chosen["seconds"],
                        "peak_mib": cycles.peak_mib(chosen),
                        **{measure.key: measure.value(record) for measure in listed},
                    }
                )
    return rows


def columns_of_runs(workdirs: Workdirs, rows: Sequence[Mapping]) -> list[Column]:
    """Columns of `rows_of_runs`; of optional measures those that a row has."""
    listed = measures_of(tables.scoring_of_runs(workdirs))
    return [
        Column("run"),
        Column("cycle"),
        Column("seconds", ".1f"),
        Column("peak_mib", ".0f", "MiB"),
        *(
            Column(measure.key, measure.short_form, measure.short)
            for measure in listed
            if not measure.optional or any(row[measure.key] is not None for row in rows)
        ),
    ]
