"""The plots of a report: which numbers of which runs each is made of."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jalpose.report import curves, interpret

FULL = "_full"  # ends the config name of a run on all labels


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure, the name of its files, and what it shows."""

    name: str
    figure: Figure
    title: str
    caption: str


def learning(found: Any, reference: str | None) -> list[Plot]:
    """Scores over the number labelled, and the same less the reference's."""
    name = score_name(found)
    by_method = {
        method: curves.intervals(_scores(found, method), len(found.by(method)))
        for method in found.methods
    }
    by_method = {method: points for method, points in by_method.items() if points}
    if not by_method:
        return []
    how = (
        "Means over seeds with 95 % t intervals; a hollow marker stands for a mean "
        "that not all seeds of the method have reached; a single seed has no interval."
    )
    plots = [
        Plot(
            "learning_curves",
            curves.learning_curves(
                by_method,
                title="Test score over the labels bought",
                ylabel=f"{name} (%)",
                reference=reference,
                levels=_levels(found),
            ),
            "Learning curves",
            how,
        )
    ]
    gains = {
        method: curves.intervals(
            _gains(found, method, reference), _pairs(found, method, reference)
        )
        for method in found.methods
        if method != reference
    }
    gains = {method: points for method, points in gains.items() if points}
    if reference is not None and gains:
        figure = curves.learning_curves(
            gains,
            title=f"Points above {reference}",
            ylabel=f"{name}, points",
            levels={reference: 0.0},
        )
        caption = (
            f"Differences to {reference} of the same seed, so that what a seed's base "
            "model is worth falls out. " + how
        )
        plots.append(Plot("gain_curves", figure, "Points above", caption))
    return plots


def costs(found: Any, reference: str | None) -> list[Plot]:
    """Seconds of acquisition against points above the reference."""
    if reference is None:
        return []
    points: dict[str, tuple[list[float], list[float]]] = {}
    for run in found.runs:
        other = found.run(reference, run.seed)
        pair = None if other is None else _last_pair(run, other)
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


def score_and_loss(found: Any, arrays_of: Any) -> list[Plot]:
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


def embeddings(found: Any, arrays_of: Any) -> list[Plot]:
    """Principal components of the pool, what each method chose marked."""
    panels = {}
    for run, cycle, arrays in first_choices(found, arrays_of):
        if "embeddings" in arrays and len(arrays["ids"]) > 1:
            drawn = interpret.map_embeddings(arrays)
            panel = drawn.places, drawn.selected, drawn.explained
            panels[_panel_name(run, cycle)] = panel
    if not panels:
        return []
    caption = (
        "First two principal components (not t-SNE: distances keep their meaning) of "
        "the pool's embeddings, the first choice of each method's first seed marked. "
        "Methods that start from one base model share one map. Embeddings of examples "
        "labelled before are not recorded, so these are not drawn."
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


def score_name(found: Any) -> str:
    """What the test score is called: PCK@0.2."""
    for run in found.runs:
        for record in run.cycles:
            return str((record.get("metrics") or {}).get("pck_name", "PCK"))
    return "PCK"


def score(record: Mapping | None) -> float | None:
    """The test score of a record, in percent."""
    pck = ((record or {}).get("metrics") or {}).get("pck")
    return None if pck is None else 100 * pck


def first_choices(found: Any, arrays_of: Any) -> list[tuple[Any, int, Mapping]]:
    """Of each method's first seed that chose: run, cycle and arrays of the choice."""
    choices = []
    for method in found.methods:
        for run in found.by(method):
            cycles = interpret.scored_cycles(run)
            arrays = arrays_of(run, cycles[0]) if cycles else {}
            if {"ids", "selected"} <= arrays.keys() and len(arrays["selected"]):
                choices.append((run, cycles[0], arrays))
                break
    return choices


def _panel_name(run, cycle: int) -> str:
    # First choices are those of cycle 0, unless that record is lost.
    return run.method if cycle == 0 else f"{run.method}, cycle {cycle}"


def _labelled(found) -> dict[int, int]:
    """Number labelled in each cycle: of the run with most, as a control buys none."""
    numbers: dict[int, int] = {}
    for run in found.runs:
        for record in run.cycles:
            number = max(numbers.get(record["cycle"], 0), record["num_labelled"])
            numbers[record["cycle"]] = number
    return numbers


def _scores(found, method: str) -> dict[float, list[float]]:
    x = _labelled(found)
    values: dict[float, list[float]] = {}
    for run in found.by(method):
        for record in run.cycles:
            if (value := score(record)) is not None:
                values.setdefault(x[record["cycle"]], []).append(value)
    return values


def _gains(found, method: str, reference) -> dict[float, list[float]]:
    x = _labelled(found)
    values: dict[float, list[float]] = {}
    for run, other in _paired(found, method, reference):
        for record in run.cycles:
            gain = _gain(run, other, record["cycle"])
            if gain is not None:
                values.setdefault(x[record["cycle"]], []).append(gain)
    return values


def _paired(found, method: str, reference) -> list[tuple[Any, Any]]:
    if reference is None:
        return []
    pairs = [(run, found.run(reference, run.seed)) for run in found.by(method)]
    return [(run, other) for run, other in pairs if other is not None]


def _pairs(found, method: str, reference) -> int:
    return len(_paired(found, method, reference))


def _gain(run, other, cycle: int) -> float | None:
    mine, theirs = score(run.record(cycle)), score(other.record(cycle))
    return None if mine is None or theirs is None else mine - theirs


def _last_pair(run, other) -> tuple[int, float] | None:
    """The last cycle after an acquisition that both runs have, and the gain there."""
    for record in reversed(run.cycles):
        gain = _gain(run, other, record["cycle"])
        if record["cycle"] > 0 and gain is not None:
            return record["cycle"], gain
    return None


def _levels(found) -> dict[str, float]:
    """Heights of the mean pose and, where a run on all labels is there, of that."""
    levels = {}
    for run in found.runs:
        for record in run.cycles:
            mean_pose = (record.get("metrics") or {}).get("mean_pose_pck")
            if mean_pose is not None:
                levels.setdefault("mean pose", 100 * mean_pose)
    full = _full_scores(getattr(found, "bases", ()))
    if full:
        levels["all labels"] = float(np.mean(full))
    return levels


def _full_scores(bases: Sequence[Any]) -> list[float]:
    scores = [
        score(run.cycles[-1])
        for run in bases
        if run.cycles and str(run.config.get("name", "")).endswith(FULL)
    ]
    return [value for value in scores if value is not None]
