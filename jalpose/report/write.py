"""Writes a report: plots and tables as files, and one page that holds them all."""

import csv
import dataclasses
import datetime
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jalpose import records
from jalpose.report import (
    canvas,
    engine_plots,
    evidence,
    galleries,
    images,
    interpret,
    page,
    sameness,
)
from jalpose.report.evidence import Plot
from jalpose.report.gather import Gathered, GatherError, Run
from jalpose.report.page import Markup, Section

PAGE, LABEL_CHECK = "index.html", "label_check.csv"
DEFAULT_REFERENCE = "random"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a report shows.

    Attributes:
      reference: the method that others are compared with; None: random, if there.
      photographs: False leaves out every image of the data, poses are still drawn.
      data_dir: stands in for the data folder that the runs recorded.
    """

    reference: str | None = None
    photographs: bool = True
    data_dir: str | None = None


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
        self.reference = choose_reference(found, options.reference)
        self.warnings = list(found.warnings)
        self.album = galleries.Album(options.photographs, options.data_dir)
        self._newest: tuple[Any, dict[str, np.ndarray]] = (None, {})

    def write(self) -> Path:
        """Write everything; the path of the page."""
        # In this order: what cannot be read comes to light on the way.
        parts = [
            self._runs(),
            self._results(),
            *self._tables(),
            self._scores(),
            self._engines(),
            *self._interpretation(),
            self._label_check(),
            self._provenance(),
        ]
        sections = [part for part in parts if part is not None]
        sections.insert(0, self._state())
        html = page.render(self._title(), self._lead(), sections)
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
                self._warn(f"{error}: left out")
                self._newest = name, {}
        return self._newest[1]

    def _warn(self, line: str) -> None:
        if line not in self.warnings:
            self.warnings.append(line)

    # Head of the page

    def _title(self) -> str:
        names = sorted(
            {str(run.config.get("data", {}).get("name")) for run in self.found.runs}
        )
        sets = {"lsp": "LSP/LSPET", "mpii": "MPII", "figures": "drawn figures"}
        where = ", ".join(sets.get(name, name) for name in names)
        return f"Active learning for human pose estimation: {where}"

    def _lead(self) -> Markup:
        methods, seeds = self.found.methods, self.found.seeds
        return page.paragraph(
            f"{_count(len(methods), 'method')}, {_count(len(seeds), 'seed')}, "
            f"{_count(len(self.found.runs), 'run')}; written by jalpose.report from "
            "the records of these runs alone.",
            class_="lead",
        )

    def _state(self) -> Section:
        warnings = [*self.warnings, *self.album.problems, *self.album.unreadable()]
        boxes = [
            page.element(
                "div", page.element("h3", title), page.bullets(lines), class_="warnings"
            )
            for title, lines in (
                ("Not there yet", self.found.missing),
                ("Warnings", warnings),
            )
            if lines
        ]
        if not boxes:
            boxes = [page.paragraph("All runs are finished and nothing is amiss.")]
        return Section("state", "What is missing", page.join(boxes))

    # Results

    def _runs(self) -> Section:
        rows = []
        for run in self.found.runs:
            done = [record["cycle"] for record in run.cycles]
            last = run.cycles[-1] if run.cycles else {}
            seconds = [r.get("seconds") for r in run.cycles if r.get("seconds")]
            rows.append(
                [
                    run.method,
                    run.seed,
                    f"{len(done)} of {run.last_cycle + 1}",
                    last.get("num_labelled"),
                    _percent(evidence.score(run.cycles[0])),
                    _percent(evidence.score(last)),
                    page.Cell(f"{sum(seconds):.0f}", sum(seconds)),
                ]
            )
        name = evidence.score_name(self.found)
        columns = (
            "method",
            "seed",
            "cycles",
            "labelled",
            f"first {name}",
            f"last {name}",
            "training s",
        )
        caption = "Runs. A press on a heading sorts a table."
        return Section("runs", "Runs", page.table(columns, rows, caption))

    def _results(self) -> Section | None:
        found, reference = self.found, self.reference
        plots = [
            *evidence.learning(found, reference),
            *evidence.costs(found, reference),
        ]
        return self._section("results", "Results", map(self._plot, plots))

    def _tables(self) -> list[Section]:
        return []

    def _scores(self) -> Section | None:
        plots = [
            *evidence.score_and_loss(self.found, self.arrays),
            *evidence.embeddings(self.found, self.arrays),
        ]
        return self._section("scores", "Scores and embeddings", map(self._plot, plots))

    def _engines(self) -> Section | None:
        places = [run.path for run in (*self.found.runs, *self.found.bases)]
        found, problems = evidence.comparisons([*self.folders, *places])
        for problem in problems:
            self._warn(problem)
        parts = []
        for number, comparison in enumerate(found):
            parts.append(self._comparison(comparison, f"engines_{number}"))
        return self._section("engines", "Exact against approximate norms", parts)

    def _comparison(self, comparison: evidence.Comparison, name: str) -> Markup:
        record, reference = comparison.record, comparison.record["reference"]
        others = [row for row in record["engines"] if row["label"] != reference]
        for kind in ("png", "pdf"):
            engine_plots.plot_scores(
                self.out / "plots" / f"{name}.{kind}",
                comparison.scores[reference],
                {row["label"]: comparison.scores[row["label"]] for row in others},
                {row["label"]: row["spearman"] for row in others},
                reference,
                [row["label"] for row in others if row["stands_in"]],
            )
        caption = (
            f"Squared gradient norms of {record.get('num_images')} pool images by "
            f"each engine against those by {reference}, with Spearman's correlation: "
            f"{comparison.folder}."
        )
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
        return page.join(
            [self._inlined(name, caption, "norms by engine"), page.table(columns, rows)]
        )

    # Interpretation

    def _interpretation(self) -> list[Section | None]:
        choices = evidence.first_choices(self.found, self.arrays)
        both = {"neighbour_ids", "neighbour_probabilities"}
        parts: list[Section | None] = []
        legend = self._legend()

        def add(anchor, title, draw: Callable, needed: set[str], chosen=choices):
            fitting = [c for c in chosen if needed <= c[2].keys()]
            if fitting:
                body = page.join([legend, draw(fitting[0], self.album)])
                parts.append(Section(anchor, title, self._with_terms(body)))

        if choices:
            body = page.join([legend, galleries.chosen(choices, self.album)])
            parts.append(
                Section("chosen", "First examples chosen", self._with_terms(body))
            )
        add(
            "neighbours",
            "Expected gradient norms explained",
            galleries.neighbours,
            both,
        )
        peaks = {"joint_entropy", "num_peaks", "scores"}
        add("entropy", "Multi-peak entropies", galleries.entropies, peaks)
        add("confidence", "Most and least confident", galleries.confidences, {"peaks"})
        return parts

    def _label_check(self) -> Section | None:
        bought = interpret.bought_labels(_Reading(self, run) for run in self.found.runs)
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
        runs = {(run.method, run.seed): run for run in self.found.runs}
        intro = page.paragraph(
            "Examples whose labels were bought, ranked by the norm of the gradient "
            "and by the loss that their labels gave the model which chose them. "
            "A wrong label makes both high, and so does a pose the model does not "
            f"know: look before correcting. All {_count(len(rows), 'example')} are in ",
            page.element("code", LABEL_CHECK),
            ", for annotators.",
        )
        pictures = galleries.label_check(bought, runs, self.album)
        body = page.join([intro, self._legend(), pictures])
        return Section("labels", "Label check", self._with_terms(body))

    def _legend(self) -> Markup:
        drawn = images.legend()
        alt = "coloured: predicted; white: true; hollow: hidden in the image"
        card = page.element(
            "div", page.picture(drawn.data, drawn.mime, alt), class_="card"
        )
        return page.element("figure", card, class_="plot")

    def _with_terms(self, body: Markup) -> Markup:
        """The line under a gallery on whose pictures it shows."""
        if not self.options.photographs:
            lines = ["Photographs are left out (--no-images): poses alone are drawn."]
        else:
            lines = self.album.terms()
        below = [page.paragraph(line, class_="note terms") for line in lines]
        return page.join([body, *below])

    # Provenance

    def _provenance(self) -> Section:
        runs = (*self.found.runs, *self.found.bases)
        flat = [sameness.flatten(run.config) for run in runs]
        keys = sorted(set().union(*flat))
        texts = [{k: json.dumps(f.get(k)) for k in keys} for f in flat]
        differing = [k for k in keys if len({t[k] for t in texts}) > 1]
        rows = [
            [
                run.method,
                run.seed,
                (run.about.get("device") or {}).get("kind"),
                _versions(run.about.get("versions") or {}),
                str(run.about.get("git") or "-")[:12],
                _date(run.path / records.CONFIG),
                _date(run.path / records.CYCLES),
                str(run.path),
            ]
            for run in runs
        ]
        columns = (
            "method",
            "seed",
            "device",
            "versions",
            "revision",
            "begun",
            "last record",
            "folder",
        )
        notes = ["Dates are those of the files config.json and cycles.jsonl, in UTC."]
        parts = [page.table(columns, rows, "Where the runs come from.", notes)]
        if differing:
            names = [f"{run.method}, seed {run.seed}" for run in runs]
            lines = [[key, *(text[key] for text in texts)] for key in differing]
            caption = "Keys of the configs in which runs differ."
            tables = page.table(["key", *names], lines, caption)
            parts.append(page.details(f"{len(differing)} keys differ", tables))
        common = {key: flat[0][key] for key in keys if key not in differing}
        text = "\n".join(
            f"{key} = {json.dumps(value)}" for key, value in common.items()
        )
        shared = page.element("pre", text)
        parts.append(
            page.details(f"{len(common)} keys are the same in all runs", shared)
        )
        return Section("provenance", "Provenance", page.join(parts))

    # Parts

    def _section(self, anchor, title, parts: Iterable[Markup]) -> Section | None:
        body = page.join(parts)
        return Section(anchor, title, body) if body else None

    def _plot(self, plot: Plot) -> Markup:
        for kind in ("png", "pdf"):
            canvas.save(plot.figure, self.out / "plots" / f"{plot.name}.{kind}")
        return self._inlined(plot.name, plot.caption, plot.title)

    def _inlined(self, name: str, caption: str, alt: str) -> Markup:
        data = (self.out / "plots" / f"{name}.png").read_bytes()
        files = page.element("code", f"plots/{name}.pdf")
        return page.plot(data, caption, alt, files)


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
    def cycles(self) -> list[dict]:
        return self.run.cycles

    def arrays(self, cycle: int) -> Mapping[str, np.ndarray]:
        return self.report.arrays(self.run, cycle)

    def selection(self, cycle: int) -> list[dict]:
        try:
            return self.run.selection(cycle)
        except records.WorkdirError as error:
            self.report._warn(f"{error}: left out")
            return []


def choose_reference(found: Gathered, asked: str | None) -> str | None:
    """The reference asked for; without one random, if there.

    Raises:
      GatherError: there is no run of the method asked for.
    """
    if asked is None:
        return DEFAULT_REFERENCE if DEFAULT_REFERENCE in found.methods else None
    if asked not in found.methods:
        raise GatherError(
            f"--reference={asked} is no method of these runs; there are: "
            + ", ".join(found.methods)
        )
    return asked


def _percent(value: float | None) -> page.Cell | None:
    return None if value is None else page.Cell(f"{value:.1f}", value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _date(path: Path) -> str | None:
    try:
        seconds = path.stat().st_mtime
    except OSError:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M")
