"""Plots over methods and seeds: learning curves, matrices, scores, maps, costs.

Every function takes plain numbers and gives a figure; `canvas.save` writes it. Colour
is never alone: curves have markers and line styles, heatmaps their numbers written in.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from jalpose.report.canvas import COLOURS, GREY, INK, look, new_figure, style

MOST_CURVES = 6  # in one plot; more have a panel each
LEVEL = 0.95
_COLUMNS = 3
# Inches of a plot that a phone shows whole: its legend stands below.
_SINGLE = (5.9, 4.9)


class Point(NamedTuple):
    """A method's mean at one budget.

    Attributes:
      half: of the interval of the mean; NaN for a single seed.
      complete: all seeds of the method are in it.
    """

    x: float
    mean: float
    half: float
    complete: bool


def intervals(values: Mapping[float, Sequence[float]], seeds: int) -> list[Point]:
    """Means and half 95 % t intervals of the values at each budget.

    Args:
      values: of the seeds that have one, by the number labelled.
      seeds: of the method, those without a value included.
    """
    points = []
    for x, found in sorted(values.items()):
        known = np.array([v for v in found if v is not None], np.float64)
        known = known[np.isfinite(known)]
        if len(known):
            half = half_interval(known)
            points.append(Point(x, float(known.mean()), half, len(known) == seeds))
    return points


def half_interval(values: np.ndarray) -> float:
    """Half the 95 % t interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    quantile = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    return float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))


def learning_curves(
    curves: Mapping[str, Sequence[Point]],
    *,
    title: str,
    ylabel: str,
    reference: str | None = None,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Draw means with their intervals over the number labelled.

    Args:
      curves: by the method's name, in percent.
      reference: drawn black and dashed, in every panel where there are several.
      levels: heights of dotted lines by what they say, "" for nothing.
    """
    if len(curves) <= MOST_CURVES:
        figure = new_figure(_SINGLE)
        axes = figure.add_subplot()
        _draw_curves(axes, curves, reference)
        style(axes, title, "labelled images", ylabel)
        _draw_levels(axes, levels or {}, curves)
        _integer_ticks(axes, curves)
        order = sorted(curves, key=lambda name: -_last(curves[name]))
        labels = {text: handle for handle, text in _entries(axes)}
        _legend_below(
            figure,
            [labels[name] for name in order],
            [f"{name}  {_last(curves[name]):.1f}" for name in order],
        )
        return figure
    others = [name for name in curves if name != reference]
    figure, panels = _panels(len(others), height=2.2, sharey=True)
    for index, (name, axes) in enumerate(zip(others, panels, strict=False)):
        for faint in others:
            x = [point.x for point in curves[faint]]
            y = [point.mean for point in curves[faint]]
            axes.plot(x, y, color="#D2D2D2", linewidth=0.8, zorder=1)
        shown = {n: curves[n] for n in curves if n in (reference, name)}
        _draw_curves(axes, shown, reference, first=index)
        style(axes, name, "", "")
        _draw_levels(axes, levels or {}, curves, text=index == 0)
        _integer_ticks(axes, curves, few=4)
    rest = "grey: the others" if reference is None else f"black: {reference}"
    title = f"{title} ({rest})"
    figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left")
    figure.supxlabel("labelled images", fontsize=10, color=INK)
    figure.supylabel(ylabel, fontsize=10, color=INK)
    return figure


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
    wide = 1.9 + 0.62 * max(len(columns), 3) + 0.06 * max(map(len, rows), default=0)
    figure = new_figure((max(wide, 4.0), 1.9 + 0.42 * max(len(rows), 2)))
    axes = figure.add_subplot()
    known = values[np.isfinite(values)]
    low, high = limits or (known.min(initial=np.inf), known.max(initial=-np.inf))
    # One hue from light to dark reads in grey and by every eye.
    shade = "Blues_r" if dark_is_low else "Blues"
    high = max(high, low + 1e-9)
    drawn = axes.imshow(values, cmap=shade, vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            share = (value - low) / (high - low)
            dark = (1 - share if dark_is_low else share) > 0.55
            where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
            ink = "white" if dark else INK
            axes.text(column, row, write(float(value)), color=ink, **where)
    style(axes, title, xlabel, ylabel)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(columns)), columns, **turned)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.02)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.set_label(unit, fontsize=9, color=INK)
    return figure


def scores_against_losses(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Figure:
    """Scatter scores against true losses, a panel for each method.

    Args:
      panels: scores [N], losses [N] and selected bool [N] by the panel's title.
    """
    figure, places = _panels(len(panels), height=2.7, width=3.1)
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
    figure.supylabel("true loss", fontsize=10, color=INK)
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
    figure, drawn = _panels(len(panels), height=2.7, width=3.1)
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
    ylabel: str,
) -> Figure:
    """Place methods by the seconds they cost and the points they gain.

    Args:
      points: seconds and gains of the seeds by the method; the mean is drawn, and the
        interval of the mean gain.
    """
    figure = new_figure(_SINGLE)
    axes = figure.add_subplot()
    for index, (name, (seconds, gains)) in enumerate(points.items()):
        pen = {**look(index), "linestyle": "none", "markersize": 8}
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
    style(axes, "Cost against gain", f"acquisition, seconds a run{note}", ylabel)
    if wide:
        axes.set_xscale("log")
    _legend_below(figure, *axes.get_legend_handles_labels())
    return figure


# Parts


def _draw_curves(axes: Axes, curves, reference, first: int = 0) -> None:
    """Curves with error bars, a little apart so that the bars can be told apart."""
    xs = _budgets(curves)
    step = np.diff(xs).min(initial=np.inf) if len(xs) > 1 else 0.0
    barred = any(np.isfinite(p.half) for points in curves.values() for p in points)
    apart = 0.015 * min(step, np.ptp(xs)) if barred and len(xs) > 1 else 0.0
    number = first
    for position, (name, points) in enumerate(curves.items()):
        if name == reference:
            pen = {**look(0), "color": "black", "marker": "x", "linestyle": "--"}
            pen |= {"markeredgecolor": "black", "markersize": 5}
        else:
            pen, number = look(number % 6), number + 1
        shift = (position - (len(curves) - 1) / 2) * apart
        x = np.array([point.x for point in points]) + shift
        y = np.array([point.mean for point in points])
        half = np.array([point.half for point in points])
        axes.plot(x, y, label=name, zorder=3, **pen)
        known = np.isfinite(half)
        if known.any():
            bars: dict[str, Any] = {"fmt": "none", "capsize": 3, "elinewidth": 1.1}
            bars |= {"ecolor": pen["color"], "zorder": 2}
            axes.errorbar(x[known], y[known], half[known], **bars)
        rest = np.array([not point.complete for point in points], bool)
        if rest.any():  # hollow: not all seeds are there yet
            hollow = {**pen, "linestyle": "none", "markeredgecolor": pen["color"]}
            hollow |= {"markerfacecolor": "white", "zorder": 4}
            axes.plot(x[rest], y[rest], **hollow)


def _draw_levels(axes: Axes, levels, curves, text: bool = True) -> None:
    """Dotted lines, or a note in the corner where a line would squeeze the curves."""
    heights = [point.mean for points in curves.values() for point in points]
    far = []
    for name, level in levels.items():
        spread = max(np.ptp(heights) if heights else 0.0, 5.0)
        away = max(min(heights) - level, level - max(heights)) if heights else 0.0
        if away > 1.5 * spread:
            far.append(f"{name} {level:.1f} (off the axis)")
            continue
        axes.axhline(level, color=INK, linestyle=":", linewidth=1.3)
        if text and name:
            axes.annotate(
                f"{name} {level:.1f}",
                (1.0, level),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                xytext=(-4, 3),
                ha="right",
                fontsize=8,
                color=INK,
            )
    if far and text:
        where: dict[str, Any] = {"ha": "right", "fontsize": 8, "color": INK}
        where["bbox"] = {"color": "white", "pad": 1.0}
        axes.text(0.985, 0.025, "\n".join(far), transform=axes.transAxes, **where)


def _entries(axes: Axes) -> Iterable[tuple[Any, str]]:
    return zip(*axes.get_legend_handles_labels(), strict=True)


def _budgets(curves) -> np.ndarray:
    return np.unique([float(p.x) for points in curves.values() for p in points])


def _last(points: Sequence[Point]) -> float:
    return points[-1].mean if points else math.nan


def _integer_ticks(axes: Axes, curves, few: int = 12) -> None:
    """Ticks at the numbers that occur where they are few and apart, else round ones."""
    xs = _budgets(curves)
    apart = np.diff(xs).min(initial=np.inf) >= np.ptp(xs) / 14 if len(xs) else False
    if 0 < len(xs) <= few and apart:
        axes.set_xticks(xs, [f"{x:.0f}" for x in xs])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=min(few, 8), integer=True))


def _panels(count: int, height: float, width: float = 2.9, sharey: bool = False):
    """A figure and its panels, those not needed hidden."""
    columns = min(_COLUMNS, max(count, 1))
    lines = -(-max(count, 1) // columns)
    figure = new_figure((max(width * columns, 4.2), height * lines + 0.7))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=sharey)
    panels = list(grid.ravel())
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


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


def _legend_below(figure: Figure, handles, labels) -> None:
    where: dict[str, Any] = {"loc": "outside lower center", "frameon": False}
    columns = 2 if max(map(len, labels), default=0) > 18 else 3
    figure.legend(handles, labels, ncols=columns, fontsize=9, handlelength=3.4, **where)


def _legend_above(figure: Figure, panels: Sequence[Axes]) -> None:
    if panels:
        handles, labels = panels[0].get_legend_handles_labels()
        where: dict[str, Any] = {"loc": "outside upper left", "frameon": False}
        figure.legend(handles, labels, ncols=len(labels), fontsize=9, **where)
