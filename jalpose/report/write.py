"""Writes a report: plots and tables as files, and one page that holds them all."""

import csv
import dataclasses
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jalpose.report import (
    canvas,
    contents,
    diversity,
    engine_plots,
    evidence,
    group_plots,
    interpret,
    origins,
    page,
    page_tables,
    pictured,
    text_formats,
    verdict,
)
from jalpose.report.evidence import Plot
from jalpose.report.gather import Gathered, Run
from jalpose.report.grid import choose_reference
from jalpose.report.page import Markup, Section
from jalpose.report.text_formats import Table, counted
from jalpose.storage import records
from jalpose.storage.arrays import EMBEDDINGS, LABELLED_EMBEDDINGS
from jalpose.tasks import registry

PAGE, LABEL_CHECK = "index.html", "label_check.csv"
RELOAD = 20  # seconds
_LARGEST = {EMBEDDINGS, LABELLED_EMBEDDINGS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a report shows.

    Attributes:
      reference: the method that others are compared with; None: random or, where
        that is not there, the first.
      photographs: False leaves out every image of the data; what is predicted is
        still drawn.
      data_dir: stands in for the data folder that the runs recorded.
      watched: it is written again as records come: until then the page reloads itself.
    """

    reference: str | None = None
    photographs: bool = True
    data_dir: str | None = None
    watched: bool = False


class Report:
    """A report on gathered runs in the making.

    Args:
      found: the runs.
      folders: as asked for; comparisons of engines are looked for in them.
      out: folder of the report.
    """

    def __init__(
        self,
        found: Gathered,
        folders: Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        options: Options,
    ):
        self.found, self.out, self.options = found, Path(out), options
        self.folders = [Path(folder) for folder in folders]
        self.reference = choose_reference(found.methods, options.reference)
        self.warnings = list(found.warnings)
        pens = canvas.pens(found.methods, self.reference)
        self.colours = {name: canvas.variable(pen) for name, pen in pens.items()}
        task = registry.pictures_of(found.task)
        self.pictured = None
        if task is not None:
            self.pictured = pictured.Sections(
                task, found, self.reference, options.photographs, options.data_dir
            )
        self._newest: tuple[Any, dict[str, np.ndarray]] = (None, {})

    def write(self) -> Path:
        """Write everything; the path of the page."""
        # In this order: what cannot be read comes to light on the way.
        runs = (*self.found.runs, *self.found.full, *self.found.bases)
        results, *groups = self._groups()
        parts = [
            results,
            self._diversity(),
            *groups,
            self._scores(),
            self._engines(),
            *self._interpretation(),
            self._label_check(),
            self._runs(),
            None if self.pictured is None else self.pictured.terms(),
            Section("provenance", "Provenance", origins.provenance(runs)),
        ]
        sections = [part for part in parts if part is not None]
        again = RELOAD if self.options.watched and self.found.missing else None
        html = page.render(self._title(), self._lead(), sections, self._top(), again)
        path = self.out / PAGE
        records.atomic_write_text(path, html)
        return path

    def arrays(self, run: Run, cycle: int) -> Mapping[str, np.ndarray]:
        """Arrays of a cycle, {} where they are missing or damaged, which is noted."""
        name = (run.path, cycle)
        if self._newest[0] != name:  # sections ask for the same ones in a row
            try:
                self._newest = name, run.arrays(cycle)
            except records.WorkdirError as error:
                self.warn(f"{error}: left out")
                self._newest = name, {}
        return self._newest[1]

    def warn(self, line: str) -> None:
        """Tell of a problem on the page, once."""
        if line not in self.warnings:
            self.warnings.append(line)

    # Head of the page

    def _title(self) -> str:
        names = {str(run.config.get("data", {}).get("name")) for run in self.found.runs}
        if self.pictured is None:
            return f"Active learning for {self.found.task}: {', '.join(sorted(names))}"
        return f"Active learning for {self.pictured.title(names)}"

    def _lead(self) -> Markup:
        methods, seeds = self.found.methods, self.found.seeds
        bare = (
            f" Examples are not drawn: the task {self.found.task} has no pictures."
            if self.pictured is None
            else ""
        )
        return page.paragraph(
            f"{counted(len(methods), 'method')}, {counted(len(seeds), 'seed')}, "
            f"{counted(len(self.found.runs), 'run')}; written by jalpose.report from "
            f"the records of these runs alone.{bare}",
            class_="lead",
        )

    def _top(self) -> Markup:
        """The verdict beside the learning curves, and below what is amiss."""
        found = verdict.judge(self.found, self.reference)
        said = [
            page.paragraph(*_claim_first(found.sentence), class_="sentence"),
            page.paragraph(found.saved) if found.saved else "",
            *(page.paragraph(line, class_="caution") for line in found.warnings),
            *(page.paragraph(line, class_="note") for line in found.notes),
        ]
        card = page.element("div", *said, class_="verdict")
        curves, *_ = evidence.learning(self.found, self.reference)
        first = page.element("div", card, self._plot(curves), class_="first")
        return page.join([first, self._amiss()])

    def _amiss(self) -> Markup:
        warnings = list(self.warnings)
        if self.pictured is not None:
            warnings += self.pictured.problems()
        return page.join(
            page.element(
                "div", page.element("h3", title), page.bullets(lines), class_="warnings"
            )
            for title, lines in (
                ("Not there yet", self.found.missing),
                ("Warnings", warnings),
            )
            if lines
        )

    # Results

    def _groups(self) -> list[Section | None]:
        """The sections of `contents`, each with its plots before its tables."""
        found, reference = self.found, self.reference
        plots = {
            "results": evidence.learning(found, reference)[1:],
            "cost": evidence.costs(found, reference),
            "pairs": evidence.matrices(found, reference),
        }
        return [
            self._section(
                group.anchor,
                group.title,
                [
                    *map(self._plot, plots.get(group.anchor, [])),
                    *map(self._table, group.tables),
                ],
            )
            for group in contents.make_groups(found, reference=reference)
        ]

    def _diversity(self) -> Section | None:
        found, reference = self.found, self.reference
        if len(found.methods) < 2:
            return None
        measured = diversity.measure(found, self.arrays, reference)
        if measured is None:
            return None
        drawn = diversity.drawn(found, measured, self.arrays, reference)
        parts = [
            self._table(diversity.table(found, measured, reference)),
            *map(self._plot, drawn),
        ]
        return self._section("diversity", "Diversity beside score", parts)

    def _runs(self) -> Section:
        tables = page_tables.runs_table, page_tables.throughput_table
        return Section("runs", "Runs", page.join(table(self.found) for table in tables))

    def _scores(self) -> Section | None:
        plots = [
            *evidence.score_and_loss(self.found, self.arrays),
            *evidence.embeddings(self.found, self.arrays),
            *group_plots.group_maps(self.found, self.arrays),
        ]
        return self._section("scores", "Scores and embeddings", map(self._plot, plots))

    def _engines(self) -> Section | None:
        places = [run.path for run in (*self.found.runs, *self.found.bases)]
        found, problems = evidence.comparisons([*self.folders, *places])
        for problem in problems:
            self.warn(problem)
        parts = []
        for number, comparison in enumerate(found):
            parts.append(self._comparison(comparison, f"engines_{number}"))
        return self._section("engines", "Exact against approximate norms", parts)

    def _comparison(self, comparison: evidence.Comparison, name: str) -> Markup:
        record, reference = comparison.record, comparison.record["reference"]
        others = [row for row in record["engines"] if row["label"] != reference]
        figure = engine_plots.scores_figure(
            comparison.scores[reference],
            {row["label"]: comparison.scores[row["label"]] for row in others},
            {row["label"]: row["spearman"] for row in others},
            reference,
            [row["label"] for row in others if row["stands_in"]],
        )
        caption = (
            f"Gradient norms of {record.get('num_images')} pool images by each engine "
            f"against those by {reference}, with Spearman's correlation: "
            f"{comparison.folder}."
        )
        plot = Plot(name, figure, "norms by engine", caption)
        rows = [
            [
                row["label"],
                row.get("spearman"),
                row.get("median_error"),
                row.get("seconds_an_image"),
                row.get("peak_mib"),
            ]
            for row in record["engines"]
        ]
        columns = "engine", "Spearman", "median error", "s an image", "peak MiB"
        return page.join([self._plot(plot), page.table(columns, rows)])

    # Interpretation

    def _interpretation(self) -> list[Section]:
        if self.pictured is None:
            return []
        # Not with the largest, which no picture needs: those of all methods are held.
        choices = [
            (run, cycle, {k: v for k, v in arrays.items() if k not in _LARGEST})
            for run, cycle, arrays in evidence.first_choices(self.found, self.arrays)
        ]
        return self.pictured.explanations(choices)

    def _label_check(self) -> Section | None:
        drawn = self.pictured
        readings = [_Reading(self, run) for run in self.found.runs]
        names = () if drawn is None else drawn.prediction
        bought = interpret.bought_labels(readings, names)
        rows = interpret.label_check_rows(bought)
        if not rows:
            return None
        text = io.StringIO()
        writer = csv.DictWriter(
            text, interpret.LABEL_CHECK_COLUMNS, lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
        records.atomic_write_text(self.out / LABEL_CHECK, text.getvalue())
        what = "an example" if drawn is None else drawn.one
        intro = page.paragraph(
            "Examples whose labels were bought, ranked by the norm of the gradient "
            "and by the loss that their labels gave the model which chose them. "
            f"A wrong label makes both high, and so does {what} the model does not "
            f"know: look before correcting. All {counted(len(rows), 'example')} are "
            "in ",
            page.links([LABEL_CHECK]),
            ", for annotators.",
        )
        body = intro if drawn is None else drawn.label_check(intro, bought)
        return Section("labels", "Label check", body)

    # Parts

    def _section(self, anchor, title, parts: Iterable[Markup]) -> Section | None:
        body = page.join(parts)
        return Section(anchor, title, body) if body else None

    def _plot(self, plot: Plot) -> Markup:
        paths = [f"plots/{plot.name}.{kind}" for kind in ("pdf", "png")]
        for path in paths:
            canvas.save(plot.figure, self.out / path)
        svg = canvas.vector(plot.figure, plot.name)
        files = page.join([" ", page.links(paths)])
        return page.drawing(svg, plot.caption, plot.title, files)

    def _table(self, table: Table) -> Markup:
        written = text_formats.write_tables([table], self.out / "tables")[table.name]
        files = page.links(f"tables/{path.name}" for path in written)
        return page_tables.as_markup(table, files, self.colours)


def _claim_first(sentence: str) -> list[Markup | str]:
    """A sentence whose claim, up to its first colon or stop, stands out."""
    claim = re.match(r".{12,}?[:.] ", sentence)
    if claim is None:
        return [sentence]
    return [page.element("strong", claim[0].strip()), " ", sentence[claim.end() :]]


@dataclasses.dataclass(frozen=True)
class _Reading:
    """A run whose arrays are read by a report, which notes what is damaged."""

    report: Report
    run: Run

    @property
    def method(self) -> str:
        return self.run.method

    @property
    def seed(self) -> int:
        return self.run.seed

    @property
    def drawn(self) -> int | None:
        drawn = self.report.pictured
        return None if drawn is None else drawn.drawn_seed(self.run)

    @property
    def cycles(self) -> list[dict]:
        return self.run.cycles

    def arrays(self, cycle: int) -> Mapping[str, np.ndarray]:
        return self.report.arrays(self.run, cycle)

    def selection(self, cycle: int) -> list[dict]:
        try:
            return self.run.selection(cycle)
        except records.WorkdirError as error:
            self.report.warn(f"{error}: left out")
            return []
