"""Learning curves: means with their intervals over the number labelled.

Plain numbers in, a figure out; `canvas.save` writes it. Colour is never alone: curves
have markers and line styles.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from jalpose.report.canvas import (
    INK,
    SINGLE,
    legend_below,
    look,
    new_figure,
    new_panels,
    style,
)

MOST_CURVES = 6  # in one plot; more have a panel each
LEVEL = 0.95


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
    lowest_best: bool = False,
    digits: str = ".1f",
    room: float = 5.0,
) -> Figure:
    """Draw means with their intervals over the number labelled.

    Args:
      curves: by the method's name.
      reference: drawn black and dashed, in every panel where there are several.
      levels: heights of dotted lines by what they say, "" for nothing.
      lowest_best: the legend begins with the curve that ends lowest.
      digits: format of the numbers in words.
      room: spread of the scores that counts at least: a level much farther off would
        squeeze the curves and is told in words.
    """
    if len(curves) <= MOST_CURVES:
        figure = new_figure(SINGLE)
        axes = figure.add_subplot()
        _draw_curves(axes, curves, reference)
        style(axes, title, "labelled images", ylabel)
        _draw_levels(axes, levels or {}, curves, digits, room)
        _integer_ticks(axes, curves)
        order = _best_first(curves, lowest_best)
        labels = {text: handle for handle, text in _entries(axes)}
        legend_below(
            figure,
            [labels[name] for name in order],
            [f"{name}  {_ending(curves[name], digits)}" for name in order],
        )
        return figure
    others = [name for name in curves if name != reference]
    figure, panels = new_panels(len(others), height=2.2, sharey=True)
    for index, (name, axes) in enumerate(zip(others, panels, strict=False)):
        for faint in others:
            x = [point.x for point in curves[faint]]
            y = [point.mean for point in curves[faint]]
            axes.plot(x, y, color="#D2D2D2", linewidth=0.8, zorder=1)
        shown = {n: curves[n] for n in curves if n in (reference, name)}
        _draw_curves(axes, shown, reference, first=index)
        style(axes, name, "", "")
        _draw_levels(axes, levels or {}, curves, digits, room, text=index == 0)
        _integer_ticks(axes, curves, few=4)
    rest = "grey: the others" if reference is None else f"black: {reference}"
    title = f"{title} ({rest})"
    figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left")
    figure.supxlabel("labelled images", fontsize=10, color=INK)
    figure.supylabel(ylabel, fontsize=10, color=INK)
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


def _draw_levels(
    axes: Axes, levels, curves, digits: str, room: float, text: bool = True
) -> None:
    """Dotted lines, or a note in the corner where a line would squeeze the curves."""
    heights = [point.mean for points in curves.values() for point in points]
    far = []
    for name, level in levels.items():
        spread = max(np.ptp(heights) if heights else 0.0, room)
        away = max(min(heights) - level, level - max(heights)) if heights else 0.0
        if away > 1.5 * spread:
            far.append(f"{name} {level:{digits}} (off the axis)")
            continue
        axes.axhline(level, color=INK, linestyle=":", linewidth=1.3)
        if text and name:
            axes.annotate(
                f"{name} {level:{digits}}",
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
