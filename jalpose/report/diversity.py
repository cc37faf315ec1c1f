"""Diversity beside score: from how many clusters of the pool each method chose.

The embeddings of what was scored are clustered anew for each choice, by the network
that chose: all methods of a seed share the first clusters, later each has its own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jalpose.report import canvas, clusters, curves, plots, statistics, verdict
from jalpose.report.evidence import ArraysOf, Plot, first_choices
from jalpose.report.gather import Gathered
from jalpose.report.grid import reference_first, score_grid, summary
from jalpose.report.interpret import scored_cycles
from jalpose.report.statistics import LEVEL, Comparison
from jalpose.report.tables import Column
from jalpose.report.text_formats import Table, listed, p_value
from jalpose.storage.arrays import EMBEDDINGS, IDS, SELECTED


@dataclasses.dataclass(frozen=True)
class Diversity:
    """Shares of the clusters that runs chose from, and their scores.

    Attributes:
      methods: labels, the first axis.
      covered: percent, mean over the choices of a run that the heights are of:
        [methods, seeds]; NaN where no embeddings are recorded or no height is known.
      by_chance: the same in expectation of a choice at random from these pools.
      heights: mean height of the learning curves, [methods, seeds].
      over: the numbers labelled that it is over.
    """

    methods: tuple[str, ...]
    covered: np.ndarray
    by_chance: np.ndarray
    heights: np.ndarray
    over: str


def measure(found: Gathered, arrays_of: ArraysOf, reference: str) -> Diversity | None:
    """Cluster what each choice was made from; None where that is nowhere recorded."""
    grid = score_grid(found)
    last = verdict.last_shared(grid, reference)
    if last is None:
        return None
    heights = verdict.heights(grid, last)
    covered = np.full(grid.values.shape[:2], np.nan)
    by_chance = covered.copy()
    for run in found.runs:
        place = grid.methods.index(run.method), grid.seeds.index(run.seed)
        # The same choices of all: clusters change with the networks and the pool.
        whole = np.isfinite(heights[place])
        ours, chance = [], []
        for cycle in scored_cycles(run):
            if cycle >= last or not whole:
                break
            arrays = arrays_of(run, cycle)
            if not {EMBEDDINGS, IDS, SELECTED} <= arrays.keys():
                continue
            chosen = np.isin(arrays[IDS], arrays[SELECTED])
            numbers = _numbers(arrays[EMBEDDINGS], chosen)
            if numbers is not None:
                ours.append(clusters.share_covered(numbers, chosen))
                chance.append(clusters.share_by_chance(numbers, int(chosen.sum())))
        if ours:
            covered[place] = 100 * np.mean(ours)
            by_chance[place] = 100 * np.mean(chance)
    if not np.isfinite(covered).any():
        return None
    over = f"{grid.labelled[0]} to {grid.labelled[last]}"
    return Diversity(grid.methods, covered, by_chance, heights, over)


def table(found: Gathered, of: Diversity, reference: str) -> Table:
    """Clusters covered and mean score of each method, both against the reference."""
    scoring = found.scoring
    others = reference_first(of.methods, reference)[1:]
    wider = _against(of, of.covered, reference, others)
    better = _against(of, scoring.sign * of.heights, reference, others)
    rows: list[dict[str, Any]] = []
    for method in reference_first(of.methods, reference):
        place = of.methods.index(method)
        row: dict[str, Any] = {
            "method": method,
            "covered": summary(of.covered[place]),
            "chance": _mean(of.by_chance[place]),
            "score": summary(of.heights[place]),
        }
        for key, comparisons in (("wider", wider), ("better", better)):
            if method in comparisons:
                against, holm = comparisons[method]
                row[key] = against.difference
                row[f"{key}_interval"] = against.interval
                row[f"{key}_holm"] = p_value(holm)
        rows.append(row)
    bold = {
        (place, shown)
        for place, row in enumerate(rows)
        for key, shown in (("wider", "covered"), ("better", "score"))
        if (row.get(f"{key}_holm") or 1.0) < LEVEL and (row[key] or 0.0) > 0
    }
    return Table(
        "diversity",
        f"Clusters of the pool that choices are from, and mean {scoring.in_unit} over "
        f"{of.over} labelled images, against {reference}",
        (
            Column("method"),
            Column("covered", "z.1f", "clusters %"),
            Column("wider", "+z.1f", f"to {reference}"),
            Column("wider_interval", "+z.1f", "95 % interval"),
            Column("wider_holm", "", "p Holm"),
            Column("chance", "z.1f", "by chance %"),
            Column("score", scoring.digits(2), scoring.name),
            Column("better", scoring.digits(2, "+"), f"{scoring.name} to {reference}"),
            Column("better_interval", scoring.digits(2, "+"), "its 95 % interval"),
            Column("better_holm", "", "its p Holm"),
        ),
        tuple(rows),
        (
            "Clusters: k-means of the embeddings of what was scored, by the network "
            f"that chose, as many as were chosen and no more than {clusters.MOST}; the "
            "share of them with an example chosen, mean over the choices up to "
            f"{of.over.split()[-1]} labelled images. By chance: what a draw "
            "at random from the same clusters covers.",
            *(
                [f"Bold: significantly more than {reference} after Holm's correction."]
                if bold
                else []
            ),
            sentence(wider, better, reference),
        ),
        bold=frozenset(bold),
        aside=frozenset({"better_interval"}),
    )


_Against = dict[str, tuple[Comparison, float | None]]


def sentence(wider: _Against, better: _Against, reference: str) -> str:
    """What is significant after Holm's correction, in one sentence."""

    def names(of: _Against, sign: int) -> list[str]:
        return [
            method
            for method, (against, holm) in of.items()
            if holm is not None
            and holm < LEVEL
            and sign * (against.difference or 0.0) > 0
        ]

    if all(holm is None for _, holm in (*wider.values(), *better.values())):
        return f"Nothing is tested: under {statistics.FEWEST} pairs of runs."
    found = [
        f"{listed(some)} {'has' if len(some) == 1 else 'have'} {words}"
        for some, words in (
            (names(wider, 1), "covered more clusters"),
            (names(wider, -1), "covered fewer clusters"),
            (names(better, 1), "the better mean score"),
            (names(better, -1), "the worse mean score"),
        )
        if some
    ]
    if not found:
        return (
            "After Holm's correction no method differs significantly from "
            f"{reference}, neither in clusters covered nor in mean score."
        )
    return (
        f"Significant against {reference} after Holm's correction: {'; '.join(found)}."
    )


def drawn(
    found: Gathered, of: Diversity, arrays_of: ArraysOf, reference: str
) -> list[Plot]:
    """Mean score against clusters covered, and what first choices are from."""
    scoring, points = found.scoring, {}
    for place, method in enumerate(of.methods):
        pair = of.covered[place], of.heights[place]
        known = np.isfinite(pair[0]) & np.isfinite(pair[1])
        if known.any():
            points[method] = [
                (float(values[known].mean()), curves.half_interval(values[known]))
                for values in pair
            ]
    pens = canvas.pens(found.methods, reference)
    figure = plots.diversity_against_score(
        points, f"mean {scoring.axis}", pens, 5.0 if scoring.keys.percent else 0.0
    )
    caption = (
        "Share of the pool's clusters that a method chose from, mean over its choices, "
        f"against its mean score over {of.over} labelled images. Bars: 95 % t "
        "intervals, of shares cut at 0 and 100 %."
    )
    made = [Plot("diversity_against_score", figure, "Diversity and score", caption)]
    counts = {}
    for run, _, arrays in first_choices(found, arrays_of):
        if EMBEDDINGS in arrays:
            chosen = np.isin(arrays[IDS], arrays[SELECTED])
            numbers = _numbers(arrays[EMBEDDINGS], chosen)
            if numbers is not None:
                most = int(numbers.max()) + 1
                counts[run.method] = np.bincount(numbers[chosen], minlength=most)
    if counts:
        caption = (
            "How many of the first choice of each method's first seed are from each "
            "cluster of what was scored, the largest cluster first; nothing is drawn "
            "where none is. Methods that start from one base model share the clusters."
        )
        figure = plots.clusters_chosen(counts)
        made.append(Plot("clusters_chosen", figure, "Clusters chosen from", caption))
    return made


def _numbers(embeddings: np.ndarray, chosen: np.ndarray) -> np.ndarray | None:
    """Clusters of what was scored; None where nothing was chosen, or of no numbers."""
    if not chosen.any() or len(chosen) < 2 or not np.isfinite(embeddings).all():
        return None
    count = clusters.number_of_clusters(len(chosen), int(chosen.sum()))
    return clusters.cluster(embeddings, count)


def _against(
    of: Diversity, values: np.ndarray, reference: str, others: Sequence[str]
) -> _Against:
    theirs = values[of.methods.index(reference)]
    found = [
        statistics.compare(values[of.methods.index(method)], theirs)
        for method in others
    ]
    holm = statistics.holm([one.two_tailed for one in found])
    pairs = zip(others, found, holm, strict=True)
    return {method: (one, p) for method, one, p in pairs if one.num_pairs}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
