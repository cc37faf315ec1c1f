"""Learning curves: means with their intervals over the number labelled.

Plain numbers in, a figure out; `canvas.save` writes it. Colour is never alone: curves
have markers and line styles.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from jalpose.report import canvas
from jalpose.report.canvas import FAINT, INK, PAPER, SINGLE, new_figure, style

MOST_CURVES = 6  # in one plot; more have a panel each
LEVEL = 0.95


class Axis(NamedTuple):
    """What the heights of curves are.

    Attributes:
      label: what the axis says.
      digits: format of the numbers in words.
      room: spread of the heights that counts at least: a level much farther off would
        squeeze the curves and is told in words; an axis is twice as long at least, so
        that noise does not look like news.
      bounds: what no height can be beyond, where there is such a thing.
      lowest_best: the legend begins with the curve that ends lowest.
    """

    label: str
    digits: str = ".1f"
    room: float = 0.0
    bounds: tuple[float, float] | None = None
    lowest_best: bool = False


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
    axis: Axis,
    *,
    title: str,
    pens: Mapping[str, Mapping[str, Any]] | None = None,
    reference: str | None = None,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Draw means with their intervals over the number labelled.

    Args:
      curves: by the method's name.
      axis: of the heights.
      title: of the plot.
      pens: looks of the methods, see `canvas.pens`.
      reference: drawn in every panel where there are several.
      levels: heights of dotted lines by what they say, "" for nothing.
    """
    looks = canvas.pens(curves, reference) if pens is None else pens
    if len(curves) <= MOST_CURVES:
        figure = new_figure(SINGLE)
        axes = figure.add_subplot()
        _draw_curves(axes, curves, looks, axis)
        style(axes, title, "labelled images", axis.label)
        lines = _draw_levels(axes, levels or {}, curves, axis)
        _frame(axes, curves, axis)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        order = _best_first(curves, axis.lowest_best)
        said = {f"{n}  {_ending(curves[n], axis.digits)}": handles[n] for n in order}
        said |= lines
        canvas.legend_below(figure, list(said.values()), list(said))
        return figure
    others = [name for name in curves if name != reference]
    figure, panels = canvas.new_panels(len(others), height=2.2, sharey=True)
    for name, axes in zip(others, panels, strict=False):
        for faint in others:
            x = [point.x for point in curves[faint]]
            y = [point.mean for point in curves[faint]]
            axes.plot(x, y, color=FAINT, linewidth=0.8, zorder=1)
        shown = {n: curves[n] for n in curves if n in (reference, name)}
        _draw_curves(axes, shown, looks, axis)
        style(axes, name, "", "")
        lines = _draw_levels(axes, levels or {}, curves, axis)
    # When all are drawn: they share their heights, and a set one grows no more.
    for axes in panels:
        _frame(axes, curves, axis, few=4)
    if lines:
        canvas.legend_below(figure, list(lines.values()), list(lines))
    rest = "faint: the others" if reference is None else f"dashed: {reference}"
    title = f"{title} ({rest})"
    figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left")
    # Not of the whole figure: a legend below would be written over it.
    for axes in panels[-canvas.COLUMNS :]:
        axes.set_xlabel("labelled images", fontsize=10, color=INK)
    figure.supylabel(axis.label, fontsize=10, color=INK)
    return figure


def widen(axes: Axes, length: float, bounds: tuple[float, float] | None = None) -> None:
    """Make the vertical axis at least so long, about its middle and within bounds."""
    low, high = axes.get_ylim()
    more = max(0.0, length - (high - low)) / 2
    low, high = low - more, high + more
    if bounds is not None:
        least, most = bounds
        # A hair beyond, so that a marker on the edge is whole.
        edge = 0.02 * (high - low)
        low, high = max(low, least - edge), min(high, most + edge)
    axes.set_ylim(low, high)


# Parts


def _draw_curves(axes: Axes, curves, looks, axis: Axis) -> None:
    """Curves with error bars, a little apart so that the bars can be told apart."""
    xs = _budgets(curves)
    step = np.diff(xs).min(initial=np.inf) if len(xs) > 1 else 0.0
    barred = any(np.isfinite(p.half) for points in curves.values() for p in points)
    apart = 0.015 * min(step, np.ptp(xs)) if barred and len(xs) > 1 else 0.0
    least, most = axis.bounds or (-math.inf, math.inf)
    for position, (name, points) in enumerate(curves.items()):
        pen = looks[name]
        shift = (position - (len(curves) - 1) / 2) * apart
        x = np.array([point.x for point in points]) + shift
        y = np.array([point.mean for point in points])
        half = np.array([point.half for point in points])
        axes.plot(x, y, label=name, zorder=3, **pen)
        known = np.isfinite(half)
        if known.any():
            bars: dict[str, Any] = {"fmt": "none", "capsize": 3, "elinewidth": 1.1}
            bars |= {"ecolor": pen["color"], "zorder": 2}
            down, up = np.minimum(half, y - least), np.minimum(half, most - y)
            axes.errorbar(x[known], y[known], [down[known], up[known]], **bars)
        rest = np.array([not point.complete for point in points], bool)
        if rest.any():  # hollow: not all seeds are there yet
            hollow = {**pen, "linestyle": "none", "markeredgecolor": pen["color"]}
            hollow |= {"markerfacecolor": PAPER, "zorder": 4}
            axes.plot(x[rest], y[rest], **hollow)


def _draw_levels(axes: Axes, levels, curves, axis: Axis) -> dict[str, Line2D]:
    """Dotted lines by what a legend says of them, those off the axis in words alone."""
    heights = [point.mean for points in curves.values() for point in points]
    said = {}
    for number, (name, level) in enumerate(levels.items()):
        words = f"{name} {level:{axis.digits}}"
        spread = max(np.ptp(heights) if heights else 0.0, axis.room)
        away = max(min(heights) - level, level - max(heights)) if heights else 0.0
        pen: dict[str, Any] = {"color": INK, "linestyle": _DOTS[number % len(_DOTS)]}
        if away > 1.5 * spread:
            side = "above" if level > max(heights) else "below"
            words, pen = f"{words}: {side} what is shown", {"linestyle": "none"}
        else:
            axes.axhline(level, linewidth=1.3, zorder=1.5, **pen)
        if name:
            said[words] = Line2D([], [], linewidth=1.3, **pen)
    return said


_DOTS = (":", (0, (1, 3)))


def _frame(axes: Axes, curves, axis: Axis, few: int = 12) -> None:
    """An honest length of the heights; ticks at the numbers labelled."""
    widen(axes, 2 * axis.room, axis.bounds)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    _integer_ticks(axes, curves, few)


def _budgets(curves) -> np.ndarray:
    return np.unique([float(p.x) for points in curves.values() for p in points])


def _best_first(curves: Mapping[str, Sequence[Point]], lowest_best: bool) -> list[str]:
    """Names by where their curves end; those without a point last."""
    sign = 1 if lowest_best else -1
    return sorted(
        curves,
        key=lambda name: sign * curves[name][-1].mean if curves[name] else math.inf,
    )


def _ending(points: Sequence[Point], digits: str) -> str:
    return format(points[-1].mean, digits) if points else "-"


def _integer_ticks(axes: Axes, curves, few: int = 12) -> None:
    """Ticks at the numbers that occur where they are few and apart, else round ones."""
    xs = _budgets(curves)
    apart = np.diff(xs).min(initial=np.inf) >= np.ptp(xs) / 14 if len(xs) else False
    if 0 < len(xs) <= few and apart:
        axes.set_xticks(xs, [f"{x:.0f}" for x in xs])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=min(few, 8), integer=True))
