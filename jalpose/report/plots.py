"""Plots over methods that are no curves: matrices, scores, maps, costs.

Every function takes plain numbers and gives a figure; `canvas.save` writes it. Colour
is never alone: dots have forms, heatmaps their numbers written in.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy import stats

from jalpose.report.canvas import (
    COLOURS,
    GREY,
    GRID,
    INK,
    ON_DARK,
    ON_LIGHT,
    SINGLE,
    legend_below,
    new_figure,
    new_panels,
    style,
    wrapped,
)
from jalpose.report.curves import Axis, half_interval, widen

PALEST = 0.02  # of a heatmap's shades, from which on a cell has a colour
LONGEST = 36  # letters of a line of a name beside a heatmap
# From few to many: each is told from white paper and from a dark page.
ON_ANY_PAPER = LinearSegmentedColormap.from_list(
    "on_any_paper", ["#86bfe6", "#4f86d9", "#b0418f"]
)


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    xlabel: str = "",
    ylabel: str = "",
    write: Callable[[float], str] = "{:.2f}".format,
    limits: tuple[float, float] | None = None,
    dark_is_low: bool = False,
    unit: str = "",
) -> Figure:
    """A heatmap with its numbers written in; what is not finite stays empty.

    Args:
      values: [rows, columns].
      write: a number as words.
      limits: of the colours; None: of the values.
      dark_is_low: small values are the dark ones, as for p-values.
      unit: beside the bar of colours.
    """
    values = np.asarray(values, np.float64)
    rows, columns = (wrapped(names, LONGEST) for names in (rows, columns))
    wide = 1.9 + 0.62 * max(len(columns), 3)
    wide += 0.06 * min(max(map(len, rows), default=0), LONGEST)
    tall = 1.4 + 0.42 * max(len(rows), 2)  # and names of columns, turned
    tall += 0.048 * min(max(map(len, columns), default=0), LONGEST)
    figure = new_figure((max(wide, 4.0), tall))
    axes = figure.add_subplot()
    known = values[np.isfinite(values)]
    low, high = limits or (known.min(initial=np.inf), known.max(initial=-np.inf))
    # One hue from light to dark reads in grey and by every eye.
    blues = matplotlib.colormaps["Blues_r" if dark_is_low else "Blues"]
    high = max(high, low + 1e-9)
    shares = (values - low) / (high - low)
    darkness = 1 - shares if dark_is_low else shares
    # The palest cells are the paper's, whichever that is.
    pale = {"over": "none"} if dark_is_low else {"under": "none"}
    shades = blues.with_extremes(**pale)
    edge = PALEST * (high - low)
    ends = (low, high - edge) if dark_is_low else (low + edge, high)
    drawn = axes.imshow(values, cmap=shades, vmin=ends[0], vmax=ends[1], aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
            ink = ON_DARK if darkness[row, column] > 0.55 else ON_LIGHT
            ink = ink if darkness[row, column] > PALEST else INK
            axes.text(column, row, write(float(value)), color=ink, **where)
    style(axes, title, xlabel, ylabel)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(columns)), columns, **turned)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.02)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.set_label(unit, fontsize=9, color=INK)
    return figure


def scores_against_losses(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Figure:
    """Scatter scores against the losses of the labels, a panel for each method.

    Args:
      panels: scores [N], losses [N] and selected bool [N] by the panel's title.
    """
    figure, places = new_panels(len(panels), height=2.7, width=3.1)
    for axes, (name, (scores, losses, selected)) in zip(
        places, panels.items(), strict=False
    ):
        scores, losses = (np.asarray(v, np.float64) for v in (scores, losses))
        known = np.isfinite(scores) & np.isfinite(losses)
        _scatter(axes, scores, losses, known, np.asarray(selected, bool))
        style(axes, f"{name}\n{spearman_text(scores[known], losses[known])}", "", "")
        for v, set_scale in ((scores, axes.set_xscale), (losses, axes.set_yscale)):
            v = v[known]
            # Heavy tails only: ranks do not change.
            if len(v) and v.min() > 0 and v.max() > 20 * np.median(v):
                set_scale("log")
    figure.supxlabel("acquisition score", fontsize=10, color=INK)
    figure.supylabel("loss", fontsize=10, color=INK)
    _legend_above(figure, places)
    return figure


def spearman_text(first: np.ndarray, second: np.ndarray) -> str:
    """Spearman's correlation as a label, or that there is none."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return "Spearman undefined"
    return f"Spearman {stats.spearmanr(first, second).statistic:.2f}"


def embedding_maps(
    panels: Mapping[str, tuple[Mapping[str, np.ndarray], tuple[float, float]]],
) -> Figure:
    """Maps of embeddings, a panel for each method.

    Args:
      panels: places [N, 2] by pool, labelled and selected, and the two shares of
        variance.
    """
    figure, drawn = new_panels(len(panels), height=2.7, width=3.1)
    for axes, (name, (groups, shares)) in zip(drawn, panels.items(), strict=False):
        for group, places in groups.items():
            if len(places):
                _dots(axes, places[:, 0], places[:, 1], group)
        style(axes, name, f"PC 1 ({shares[0]:.0%})", f"PC 2 ({shares[1]:.0%})")
        axes.set_xticks([])
        axes.set_yticks([])
    _legend_above(figure, drawn)
    return figure


def cost_against_gain(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    axis: Axis,
    pens: Mapping[str, Mapping[str, Any]],
) -> Figure:
    """Place methods by the seconds they cost and the points they gain.

    Args:
      points: seconds and gains of the seeds by the method; the mean is drawn, and the
        interval of the mean gain.
      axis: of the gains.
      pens: looks of the methods.
    """
    figure = new_figure(SINGLE)
    axes = figure.add_subplot()
    for name, (seconds, gains) in points.items():
        pen = {**pens[name], "linestyle": "none", "markersize": 8}
        half = half_interval(np.asarray(gains, np.float64))
        axes.errorbar(
            float(np.mean(seconds)),
            float(np.mean(gains)),
            None if math.isnan(half) else half,
            capsize=3,
            label=name,
            **pen,
        )
    axes.axhline(0.0, color=GREY, linestyle=":", linewidth=1.2)
    means = [float(np.mean(seconds)) for seconds, _ in points.values()]
    wide = min(means) > 0 and max(means) > 5 * min(means)
    note = " (log)" if wide else ""
    style(axes, "Cost against gain", f"acquisition, seconds a run{note}", axis.label)
    if wide:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, None)
    widen(axes, 2 * axis.room)
    legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def diversity_against_score(
    points: Mapping[str, Sequence[tuple[float, float]]],
    ylabel: str,
    pens: Mapping[str, Mapping[str, Any]],
    room: float,
) -> Figure:
    """Place methods by the clusters that they choose from and by their mean score.

    Args:
      points: mean and half interval (NaN: none) of the clusters covered, in percent,
        and of the score, by the method.
      ylabel: what the scores are.
      pens: looks of the methods.
      room: shortest length of the scores' axis.
    """
    figure = new_figure(SINGLE)
    axes = figure.add_subplot()
    for name, ((x, wide), (y, high)) in points.items():
        pen = {**pens[name], "linestyle": "none", "markersize": 8}
        up = None if math.isnan(high) else high
        # A share: its interval ends where shares do.
        along = None if math.isnan(wide) else [[min(wide, x)], [min(wide, 100.0 - x)]]
        axes.errorbar(x, y, up, along, capsize=3, elinewidth=1.1, label=name, **pen)
    label = "clusters of the pool chosen from (%)"
    style(axes, "Diversity beside score", label, ylabel)
    widen(axes, room)
    low, high = axes.get_xlim()
    axes.set_xlim(max(min(low, high - 10.0), -2.0), min(max(high, low + 10.0), 102.0))
    legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def clusters_chosen(counts: Mapping[str, np.ndarray]) -> Figure:
    """A strip for each method: how many it chose from each cluster.

    Args:
      counts: int [clusters] by the method; nothing is drawn where there is none.
    """
    most = max(map(len, counts.values()))
    values = np.full((len(counts), most), np.nan)
    for row, found in enumerate(counts.values()):
        values[row, : len(found)] = np.where(found > 0, found, np.nan)
    figure = new_figure((5.9, 1.6 + 0.34 * len(counts)))
    axes = figure.add_subplot()
    highest = max(np.nanmax(values), 2.0)
    shades: dict[str, Any] = {"cmap": ON_ANY_PAPER, "vmin": 1.0, "vmax": highest}
    drawn = axes.imshow(values, aspect="auto", **shades)
    style(axes, "Clusters chosen from", "clusters, the largest first", "")
    axes.set_yticks(range(len(counts)), wrapped(counts, LONGEST))
    axes.set_xticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for edge in range(1, len(counts)):
        axes.axhline(edge - 0.5, color=GRID, linewidth=0.8)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, ticks=_whole_ticks(int(highest)))
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.set_label("chosen", fontsize=9, color=INK)
    return figure


def _whole_ticks(most: int) -> list[int]:
    step = -(-most // 5)
    return list(range(step, most + 1, step))


# Parts

_MOST_SHAPES = 10_000  # in a PDF

# Told apart by form as well as by colour.
_DOTS: dict[str, dict[str, Any]] = {
    "pool": {"s": 11, "color": GREY, "alpha": 0.5, "linewidths": 0},
    "labelled": {"s": 17, "marker": "x", "color": COLOURS[0], "linewidths": 0.8},
    "selected": {
        "s": 24,
        "marker": "D",
        "edgecolors": INK,
        "color": COLOURS[1],
        "linewidths": 0.6,
    },
}


def _scatter(axes: Axes, x, y, known, selected) -> None:
    for group, rows in (("pool", known & ~selected), ("selected", known & selected)):
        _dots(axes, x[rows], y[rows], group)


def _dots(axes: Axes, x, y, group: str) -> None:
    # Of a large pool an image: as shapes they are megabytes a viewer labours over.
    many = len(x) > _MOST_SHAPES
    axes.scatter(x, y, label=group, rasterized=many, **_DOTS[group])


def _legend_above(figure: Figure, panels: Sequence[Axes]) -> None:
    if panels:
        handles, labels = panels[0].get_legend_handles_labels()
        where: dict[str, Any] = {"loc": "outside upper left", "frameon": False}
        where |= {"fontsize": 9, "labelcolor": INK}
        figure.legend(handles, labels, ncols=len(labels), **where)
