"""The plots of a report: which numbers of which runs each is made of."""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jalpose.report import (
    canvas,
    curves,
    interpret,
    penalties,
    plots,
    statistics,
    tables,
    verdict,
)
from jalpose.report.curves import Axis
from jalpose.report.gather import Gathered, Run
from jalpose.report.grid import Grid, full_level, score_grid
from jalpose.report.scoring import Scoring
from jalpose.report.text_formats import PValue
from jalpose.storage import cycles as cycle_records
from jalpose.storage.arrays import EMBEDDINGS, IDS, SCORES, SELECTED, TRUE_LOSSES

Arrays = Mapping[str, np.ndarray]
ArraysOf = Callable[[Run, int], Arrays]

_LEVEL = (
    " The line of all labels is the mean of runs without a choice, trained from new "
    "weights for as many steps as the last network of a method's run has behind it."
)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure, the name of its files, and what it shows."""

    name: str
    figure: Figure
    title: str
    caption: str


def learning(found: Gathered, reference: str) -> list[Plot]:
    """Scores over the number labelled, and the same less the reference's."""
    grid, full, scoring = score_grid(found), full_level(found), found.scoring
    scores = {method: _points(grid, grid.of(method)) for method in grid.methods}
    pens = canvas.pens(grid.methods, reference)
    how, bounds = _how_drawn(found, grid), ""
    if scoring.keys.percent and len(grid.seeds) > 1:
        bounds = " Intervals are cut at 0 and 100 %."
    lower = " The lower a score the better." if scoring.sign < 0 else ""
    figure = curves.learning_curves(
        scores,
        _axis(scoring),
        title="Test score over the labels bought",
        pens=pens,
        reference=reference,
        levels=_levels(found),
    )
    if scoring.sign > 0 and figure.axes[0].get_ylim()[0] > 0:
        lower += " The axis does not begin at 0."
    level = "" if full is None else _LEVEL
    drawn = [
        Plot("learning_curves", figure, "Learning curves", how + bounds + lower + level)
    ]
    gains = {
        method: points
        for method in grid.methods
        if method != reference
        and (points := _points(grid, _gains(grid, scoring, method, reference)))
    }
    if gains:
        said = scoring.gain(reference)
        figure = curves.learning_curves(
            gains,
            _axis_of_gains(scoring, scoring.axis_of_gains),
            title=f"{said[0].upper()}{said[1:]}",
            pens=pens,
            levels={"": 0.0},
        )
        caption = (
            f"Differences to {reference} of the same seed, so that what a seed's base "
            "model is worth falls out. " + how
        )
        if scoring.sign < 0:
            caption += " The lower a score the better: above 0 a method is better."
        title = scoring.gain("").strip()
        alt = f"{title[0].upper()}{title[1:]}"
        drawn.append(Plot("gain_curves", figure, alt, caption))
    return drawn


def progress(workdirs: tables.Workdirs) -> Figure:
    """Learning curves of single runs of one seed, for the end of a run.

    Args:
      workdirs: by label; all were scored alike.
    """
    rows, scoring = tables.compare_runs(workdirs), tables.scoring_of_runs(workdirs)
    scores = {
        label: curves.intervals({row["num_labelled"]: [row[label]] for row in rows}, 1)
        for label in workdirs
    }
    runs = [tables.read_cycles(path) for path in workdirs.values()]
    return curves.learning_curves(
        scores,
        _axis(scoring),
        title="Test score after each acquisition",
        reference="random" if "random" in scores else None,
        levels=_baseline(scoring, itertools.chain(*runs)),
    )


def matrices(found: Gathered, reference: str) -> list[Plot]:
    """Heatmaps of p-values and of penalties, where there are seeds enough for them."""
    grid, scoring = score_grid(found), found.scoring
    cycle, p_values = _p_values(scoring.sign * grid.values)
    if p_values is None:
        return []
    p_figure = plots.matrix(
        p_values,
        grid.methods,
        grid.methods,
        title=f"p-values at {grid.labelled[cycle]} labelled images",
        xlabel="than this",
        ylabel="this is better",
        write=lambda p: format(PValue(p)),
        limits=(0.0, 0.2),
        dark_is_low=True,
        unit="one-tailed p",
    )
    p_caption = (
        "One-tailed paired t-tests over seeds that the row's method is better than "
        "the column's, not corrected for their number: darker is smaller, from 0.2 on "
        f"all are alike; under {statistics.FEWEST} pairs there is none."
    )
    means = grid.means[grid.methods.index(reference)]
    cycles = penalties.checkpoints(
        means[np.isfinite(means)], lowest_best=scoring.sign < 0
    )
    values = penalties.penalty_matrix(scoring.sign * grid.values, cycles)
    beaten = bool((values > 0).any())  # NaN is not
    if not beaten:
        p_caption += (
            " At BADGE's budgets no method beats another with p < 0.05: there are no "
            "penalties."
        )
    drawn = [Plot("p_values", p_figure, "p-values", p_caption)]
    if not beaten:
        return drawn
    figure = plots.matrix(
        values,
        grid.methods,
        grid.methods,
        title="Pairwise penalties",
        xlabel="loses to the row",
        ylabel="beats the column",
        limits=(0.0, 1.0),
        unit="share of the budgets",
    )
    caption = (
        "Share of the budgets, by BADGE's rule, at which the row's method beats the "
        "column's significantly (two-tailed paired t-test, p < 0.05, not corrected); "
        "nothing stands where the two were not tested."
    )
    return [*drawn, Plot("penalties", figure, "Penalties", caption)]


def costs(found: Gathered, reference: str) -> list[Plot]:
    """Seconds of acquisition against points above the reference, at one budget."""
    grid, scoring = score_grid(found), found.scoring
    last = verdict.last_shared(grid, reference)
    if last is None:
        return []
    points: dict[str, tuple[list[float], list[float]]] = {}
    for run in found.runs:
        gains = _gains(grid, scoring, run.method, reference)
        ours = float(gains[grid.seeds.index(run.seed), last])
        seconds = sum(
            cycle_records.choosing_seconds(record) or 0.0
            for record in run.cycles
            if record["cycle"] < last
        )
        if seconds > 0 and math.isfinite(ours) and run.method != reference:
            of_method = points.setdefault(run.method, ([], []))
            of_method[0].append(seconds)
            of_method[1].append(ours)
    if len(points) < 2:  # a dot alone compares nothing
        return []
    gain = scoring.gain(reference)
    against = f"the {gain}" if scoring.keys.percent else f"the {scoring.name} {gain}"
    caption = (
        "Seconds of scoring and choosing, all cycles of a run together, training left "
        f"out, against {against}, both up to {grid.labelled[last]} labels. Bars: "
        "95 % t intervals of the mean gain. Seconds can be compared only between runs "
        "on one machine with nothing else to do."
    )
    figure = plots.cost_against_gain(
        points,
        axis=_axis_of_gains(scoring, f"{gain}, {scoring.name}"),
        pens=canvas.pens(grid.methods, reference),
    )
    return [Plot("cost_against_gain", figure, "Cost against gain", caption)]


def score_and_loss(found: Gathered, arrays_of: ArraysOf) -> list[Plot]:
    """Acquisition scores against the labels' losses, of each method's first choice."""
    panels = {}
    for run, cycle, arrays in first_choices(found, arrays_of):
        if not {SCORES, TRUE_LOSSES} <= arrays.keys():
            continue
        if np.isfinite(arrays[SCORES]).any():
            selected = np.isin(arrays[IDS], arrays[SELECTED])
            panel = arrays[SCORES], arrays[TRUE_LOSSES], selected
            panels[_panel_name(run, cycle)] = panel
    if not panels:
        return []
    caption = (
        "Each pool example's score before any label was seen, against the loss that "
        "its label then gave, and Spearman's correlation of the two: the first "
        "acquisition of each method's first seed. Methods without a score (random) "
        "are not here. Axes of heavy-tailed values are logarithmic."
    )
    figure = plots.scores_against_losses(panels)
    return [Plot("score_against_loss", figure, "Score against loss", caption)]


def embeddings(found: Gathered, arrays_of: ArraysOf) -> list[Plot]:
    """Principal components of the pool, what each method chose marked."""
    panels = {}
    for run, cycle, arrays in first_choices(found, arrays_of):
        if EMBEDDINGS in arrays and len(arrays[IDS]) > 1:
            drawn = interpret.map_embeddings(arrays)
            groups = {
                "pool": drawn.places[~drawn.selected],
                "labelled": drawn.labelled,
                "selected": drawn.places[drawn.selected],
            }
            panels[_panel_name(run, cycle)] = groups, drawn.explained
    if not panels:
        return []
    caption = (
        "First two principal components of the embeddings of what was scored and of "
        "what was labelled before, the first choice of each method's first seed "
        "marked. Unlike in the papers' t-SNE, distances keep their meaning. Methods "
        "that start from one base model share one map."
    )
    figure = plots.embedding_maps(panels)
    return [Plot("embedding_map", figure, "Map of the embeddings", caption)]


class Comparison(NamedTuple):
    """A finished comparison of engines: its folder and its record."""

    folder: Path
    record: Mapping[str, Any]
    scores: Mapping[str, np.ndarray]


def comparisons(folders: Iterable[Path]) -> tuple[list[Comparison], list[str]]:
    """Results of `jalpose.compare` at or right below folders; and what is damaged."""
    files = {
        path.resolve(): path
        for folder in folders
        for pattern in ("comparison.json", "*/comparison.json")
        for path in sorted(Path(folder).glob(pattern))
    }
    found, problems = [], []
    for path in files.values():
        try:
            record = json.loads(path.read_bytes())
            with np.load(path.with_name("scores.npz")) as arrays:
                scores = {
                    name.removeprefix("scores:"): arrays[name]
                    for name in arrays.files
                    if name.startswith("scores:")
                }
            rows = {row["label"] for row in record["engines"]}
            if not {record["reference"], *rows} <= scores.keys():
                raise ValueError("scores of some engines are missing")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path} cannot be read and is left out: {error}")
            continue
        found.append(Comparison(path.parent, record, scores))
    return found, problems


# Numbers of runs


def first_choices(
    found: Gathered, arrays_of: ArraysOf
) -> Iterator[tuple[Run, int, Arrays]]:
    """Run, cycle and arrays of the first choice of each method's first seed."""
    for method in found.methods:
        for run in found.by(method):
            cycles = interpret.scored_cycles(run)
            arrays = arrays_of(run, cycles[0]) if cycles else {}
            if {IDS, SELECTED} <= arrays.keys() and len(arrays[SELECTED]):
                yield run, cycles[0], arrays
                break


def _panel_name(run, cycle: int) -> str:
    # First choices are those of cycle 0, unless that record is lost.
    return run.method if cycle == 0 else f"{run.method}, cycle {cycle}"


def _points(grid: Grid, values: np.ndarray) -> list[curves.Point]:
    """Means and intervals of [seeds, cycles] at the numbers labelled.

    A mean over fewer seeds than any other method has is not complete: what it is apart
    from theirs may be the seeds' alone.
    """
    by_budget: dict[float, list[float]] = {}
    for labelled, column in zip(grid.labelled.tolist(), values.T, strict=True):
        by_budget.setdefault(labelled, []).extend(column.tolist())
    return curves.intervals(by_budget, len(grid.seeds))


def _gains(grid: Grid, scoring: Scoring, method: str, reference: str) -> np.ndarray:
    """How much better a method is: [seeds, cycles]."""
    return scoring.sign * grid.of(method) - scoring.sign * grid.of(reference)


def _p_values(values: np.ndarray) -> tuple[int, np.ndarray | None]:
    """The last of the cycles at which most can be tested, and p that a row is better.

    Of unfinished runs the last cycle would show the few that are ahead.

    Args:
      values: [methods, seeds, cycles], the higher the better.
    """
    most = 0
    best: tuple[int, np.ndarray | None] = (0, None)
    for cycle in range(1, values.shape[2]):
        found = np.full((len(values),) * 2, np.nan)
        for row, column in np.ndindex(found.shape):
            first, second = values[row, :, cycle], values[column, :, cycle]
            if row != column:
                p = statistics.compare(first, second).greater
                found[row, column] = np.nan if p is None else p
        count = int(np.isfinite(found).sum())
        if count >= max(most, 1):
            most, best = count, (cycle, found)
    return best


def _axis(scoring: Scoring) -> Axis:
    """The axis of scores."""
    percent = scoring.keys.percent
    return Axis(
        scoring.axis,
        scoring.digits(1),
        5.0 if percent else 0.0,
        (0.0, 100.0) if percent else None,
        scoring.sign < 0,
    )


def _axis_of_gains(scoring: Scoring, label: str) -> Axis:
    """The axis of differences, above 0 where a method is better."""
    return Axis(label, scoring.digits(1, "+"), 1.0 if scoring.keys.percent else 0.0)


def _how_drawn(found: Gathered, grid: Grid) -> str:
    """What means, bars and markers are, as far as there are some."""
    if len(grid.seeds) == 1:
        how = "One seed: no intervals."
    else:
        how = "Means over seeds with 95 % t intervals."
    if not np.isfinite(grid.values).all():
        how += " A hollow marker: a mean without some of the seeds."
    return how


def _levels(found: Gathered) -> dict[str, float]:
    """Heights of the baseline and, where a run on all labels is there, of that."""
    levels = _baseline(found.scoring, [r for run in found.runs for r in run.cycles])
    full = full_level(found)
    if full is not None:
        levels[f"all {full.labelled} labels"] = full.score.mean
    return levels


def _baseline(scoring: Scoring, found: Iterable[cycle_records.Record]):
    """Height of the mean of the baselines; {} where there are none."""
    scores = [scoring.baseline(record) for record in found]
    known = [score for score in scores if score is not None]
    return {scoring.keys.baseline_name: float(np.mean(known))} if known else {}
