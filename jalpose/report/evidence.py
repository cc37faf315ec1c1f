"""The plots of a report: which numbers of which runs each is made of."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jalpose.report import curves, interpret, penalties, statistics
from jalpose.report.gather import Gathered, Run
from jalpose.report.grid import Grid, full_level, make_grid, pck_percent, score_name
from jalpose.report.text_formats import PValue

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
    grid, full = make_grid(found, pck_percent), full_level(found)
    scores = {method: _points(grid, grid.of(method)) for method in grid.methods}
    how = (
        "Means over seeds with 95 % t intervals; a hollow marker stands for a mean "
        "that not all seeds have reached; a single seed has no interval."
    )
    figure = curves.learning_curves(
        scores,
        title="Test score over the labels bought",
        ylabel=f"{score_name(found)} (%)",
        reference=reference,
        levels=_levels(found),
    )
    level = "" if full is None else _LEVEL
    plots = [Plot("learning_curves", figure, "Learning curves", how + level)]
    gains = {
        method: points
        for method in grid.methods
        if method != reference
        and (points := _points(grid, grid.of(method) - grid.of(reference)))
    }
    if gains:
        figure = curves.learning_curves(
            gains,
            title=f"Points above {reference}",
            ylabel=f"{score_name(found)}, points",
            levels={"": 0.0},
        )
        caption = (
            f"Differences to {reference} of the same seed, so that what a seed's base "
            "model is worth falls out. " + how
        )
        plots.append(Plot("gain_curves", figure, "Points above", caption))
    return plots


def matrices(found: Gathered, reference: str) -> list[Plot]:
    """Heatmaps of p-values and of penalties, where there are seeds enough for them."""
    grid = make_grid(found, pck_percent)
    cycle, p_values = _p_values(grid)
    if p_values is None:
        return []
    p_figure = curves.matrix(
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
    cycles = penalties.checkpoints(means[np.isfinite(means)])
    figure = curves.matrix(
        penalties.penalty_matrix(grid.values, cycles),
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
        "column's significantly (two-tailed paired t-test, p < 0.05, not corrected)."
    )
    return [
        Plot("p_values", p_figure, "p-values", p_caption),
        Plot("penalties", figure, "Penalties", caption),
    ]


def costs(found: Gathered, reference: str) -> list[Plot]:
    """Seconds of acquisition against points above the reference."""
    grid = make_grid(found, pck_percent)
    points: dict[str, tuple[list[float], list[float]]] = {}
    for run in found.runs:
        pair = _last_pair(grid, run.method, reference, run.seed)
        if pair is None or run.method == reference:
            continue
        cycle, gain = pair
        seconds = sum(
            (record.get("acquisition") or {}).get("seconds") or 0.0
            for record in run.cycles
            if record["cycle"] < cycle
        )
        if seconds > 0:
            of_method = points.setdefault(run.method, ([], []))
            of_method[0].append(seconds)
            of_method[1].append(gain)
    if not points:
        return []
    caption = (
        "Seconds of scoring and choosing, all cycles of a run together, training left "
        f"out, against the points above {reference} at the last cycle both have. Bars: "
        "95 % t intervals of the mean gain. Seconds can be compared only between runs "
        "on one machine with nothing else to do."
    )
    figure = curves.cost_against_gain(
        points, ylabel=f"points above {reference}, {score_name(found)}"
    )
    return [Plot("cost_against_gain", figure, "Cost against gain", caption)]


def score_and_loss(found: Gathered, arrays_of: ArraysOf) -> list[Plot]:
    """Acquisition scores against true losses, of each method's first choice."""
    panels = {}
    for run, cycle, arrays in first_choices(found, arrays_of):
        if not {"scores", "true_losses"} <= arrays.keys():
            continue
        if np.isfinite(arrays["scores"]).any():
            selected = np.isin(arrays["ids"], arrays["selected"])
            panel = arrays["scores"], arrays["true_losses"], selected
            panels[_panel_name(run, cycle)] = panel
    if not panels:
        return []
    caption = (
        "Each pool example's score before any label was seen, against the loss its "
        "label then gave, and Spearman's correlation of the two: the first "
        "acquisition of each method's first seed. Methods without a score (random) "
        "are not here. Axes of heavy-tailed values are logarithmic."
    )
    figure = curves.scores_against_losses(panels)
    return [Plot("score_against_loss", figure, "Score against true loss", caption)]


def embeddings(found: Gathered, arrays_of: ArraysOf) -> list[Plot]:
    """Principal components of the pool, what each method chose marked."""
    panels = {}
    for run, cycle, arrays in first_choices(found, arrays_of):
        if "embeddings" in arrays and len(arrays["ids"]) > 1:
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
        "marked. The papers draw t-SNE, which needs a package more; here distances "
        "keep their meaning. Methods that start from one base model share one map."
    )
    figure = curves.embedding_maps(panels)
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
    """Of each method's first seed that chose: run, cycle and arrays of the choice."""
    for method in found.methods:
        for run in found.by(method):
            cycles = interpret.scored_cycles(run)
            arrays = arrays_of(run, cycles[0]) if cycles else {}
            if {"ids", "selected"} <= arrays.keys() and len(arrays["selected"]):
                yield run, cycles[0], arrays
                break


def _panel_name(run, cycle: int) -> str:
    # First choices are those of cycle 0, unless that record is lost.
    return run.method if cycle == 0 else f"{run.method}, cycle {cycle}"


def _points(grid: Grid, values: np.ndarray) -> list[curves.Point]:
    """Means and intervals of [seeds, cycles] at the numbers labelled."""
    seeds = int(np.isfinite(values).any(axis=1).sum())
    by_budget: dict[float, list[float]] = {}
    for labelled, column in zip(grid.labelled.tolist(), values.T, strict=True):
        by_budget.setdefault(labelled, []).extend(column.tolist())
    return curves.intervals(by_budget, seeds)


def _p_values(grid: Grid) -> tuple[int, np.ndarray | None]:
    """The last of the cycles at which most can be tested, and p that a row is better.

    Of unfinished runs the last cycle would show the few that are ahead.
    """
    most = 0
    best: tuple[int, np.ndarray | None] = (0, None)
    for cycle in range(1, len(grid.labelled)):
        found = np.full((len(grid.methods),) * 2, np.nan)
        for row, column in np.ndindex(found.shape):
            first, second = grid.values[row, :, cycle], grid.values[column, :, cycle]
            if row != column:
                p = statistics.compare(first, second).greater
                found[row, column] = np.nan if p is None else p
        count = int(np.isfinite(found).sum())
        if count >= max(most, 1):
            most, best = count, (cycle, found)
    return best


def _last_pair(grid: Grid, method: str, reference: str, seed: int):
    """The last cycle after a choice that both have, and the gain there; or None."""
    row = grid.seeds.index(seed)
    gains = grid.of(method)[row] - grid.of(reference)[row]
    known = np.flatnonzero(np.isfinite(gains[1:])) + 1
    return (int(known[-1]), float(gains[known[-1]])) if len(known) else None


def _levels(found: Gathered) -> dict[str, float]:
    """Heights of the mean pose and, where a run on all labels is there, of that."""
    levels = {}
    poses = [
        record["metrics"].get("mean_pose_pck")
        for run in found.runs
        for record in run.cycles
    ]
    known = [pck for pck in poses if pck is not None]
    if known:
        levels["mean pose"] = 100 * float(np.mean(known))
    full = full_level(found)
    if full is not None:
        levels[f"all {full.labelled} labels"] = full.score.mean
    return levels
