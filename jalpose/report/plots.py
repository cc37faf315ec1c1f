"""Curves and scatters as PNG files."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from jalpose.report.canvas import COLOURS, GREY, INK, look, new_figure, save, style

Curve = Sequence[tuple[int, float | None]]


def plot_learning_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, Curve],
    *,
    title: str,
    ylabel: str,
    baseline: float | None = None,
) -> None:
    """Draw scores over the number of labelled images, a curve for each method.

    Args:
      path: of the PNG file.
      curves: (number labelled, score as a fraction) of each method, by its label;
        a score that is None or NaN leaves a gap.
      ylabel: what the score is; "(%)" is added.
      baseline: the score of predicting the mean pose: a dotted line, or a note in the
        corner where the line would squeeze the curves.
    """
    figure, axes = _figure((7.2, 4.3))
    percents = {label: _percent(curve) for label, curve in curves.items()}
    for index, (label, (x, y)) in enumerate(percents.items()):
        axes.plot(x, y, label=label, **look(index))
    style(axes, title, "labelled images", f"{ylabel} (%)")
    _integer_ticks(
        axes, np.concatenate([np.zeros(0), *(x for x, _ in percents.values())])
    )
    if baseline is not None and math.isfinite(baseline):
        heights = [y[np.isfinite(y)] for _, y in percents.values()]
        _draw_baseline(axes, 100 * baseline, np.concatenate([np.zeros(0), *heights]))
    _draw_legend(axes, {label: y for label, (_, y) in percents.items()})
    save(figure, path)


def plot_score_against_loss(
    path: str | os.PathLike[str],
    scores: np.ndarray,
    losses: np.ndarray,
    selected: np.ndarray | Sequence[int],
) -> None:
    """Scatter acquisition scores against true losses, the selected examples marked.

    Args:
      path: of the PNG file.
      scores: [N]; examples without a score or a loss (NaN) are left out.
      losses: [N], the true loss of each.
      selected: bool [N], or the positions in `scores` of those selected.
    """
    scores, losses = np.asarray(scores, np.float64), np.asarray(losses, np.float64)
    chosen = np.zeros(scores.shape, bool)
    if len(selected):
        chosen[np.asarray(selected)] = True
    known = np.isfinite(scores) & np.isfinite(losses)
    figure, axes = _figure((5.6, 4.4))
    rest, best = known & ~chosen, known & chosen
    plain: dict[str, Any] = {"s": 12, "color": GREY, "alpha": 0.45, "linewidths": 0}
    label = f"not selected ({rest.sum()})"
    axes.scatter(scores[rest], losses[rest], label=label, **plain)
    marked: dict[str, Any] = {"s": 26, "marker": "D", "edgecolors": INK}
    marked |= {"color": COLOURS[1], "linewidths": 0.6}
    label = f"selected ({best.sum()})"
    axes.scatter(scores[best], losses[best], label=label, **marked)
    title = _spearman_title(scores[known], losses[known])
    style(axes, title, "acquisition score", "true loss")
    _choose_scales(axes, scores[known], losses[known])
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


# Parts of the curves


def _percent(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    ordered = sorted(curve, key=lambda point: point[0])
    x = np.array([number for number, _ in ordered], np.float64)
    return x, 100 * np.array([score for _, score in ordered], np.float64)


def _draw_legend(axes: Axes, percents: dict[str, np.ndarray]) -> None:
    """List the curves beside the plot, the one that ends highest first."""
    handles, labels = axes.get_legend_handles_labels()

    def last(position: int) -> float:
        known = percents[labels[position]]
        known = known[np.isfinite(known)]
        return known[-1] if len(known) else -math.inf

    order = sorted(range(len(labels)), key=last, reverse=True)
    if order:
        axes.legend(
            [handles[i] for i in order],
            [f"{labels[i]}  {last(i):.1f}".replace("-inf", "-") for i in order],
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            frameon=False,
            fontsize=9,
            handlelength=3.2,
        )


def _integer_ticks(axes: Axes, numbers: np.ndarray) -> None:
    """Ticks at the numbers that occur where they are few and apart, else round ones."""
    unique = np.unique(numbers)
    gap = np.diff(unique).min(initial=np.inf)
    if 0 < len(unique) <= 12 and gap >= np.ptp(unique) / 14:
        axes.set_xticks(unique, [f"{number:.0f}" for number in unique])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_baseline(axes: Axes, baseline: float, heights: np.ndarray) -> None:
    """A dotted line, unless it is so far below that it would squeeze the curves."""
    text = f"mean pose {baseline:.1f}"
    note: dict[str, Any] = {"fontsize": 9, "color": INK}
    low, high = heights.min(initial=np.inf), heights.max(initial=-np.inf)
    if low - baseline > max(high - low, 5.0) and len(heights):
        text += " (below the axis)"
        note["bbox"] = {"color": "white", "pad": 1.5}
        axes.text(0.985, 0.025, text, ha="right", transform=axes.transAxes, **note)
        return
    axes.axhline(baseline, color=INK, linestyle=":", linewidth=1.3)
    note |= {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, (1.0, baseline), xytext=(-4, 3), ha="right", **note)


# Parts of the scatter


def _spearman_title(scores: np.ndarray, losses: np.ndarray) -> str:
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(losses) == 0:
        return f"Spearman correlation undefined (n = {len(scores)})"
    correlation = stats.spearmanr(scores, losses).statistic
    return f"Spearman correlation {correlation:.2f} (n = {len(scores)})"


def _choose_scales(axes: Axes, scores: np.ndarray, losses: np.ndarray) -> None:
    """Logarithmic where values are positive and heavy-tailed: ranks do not change."""
    for values, set_scale in ((scores, axes.set_xscale), (losses, axes.set_yscale)):
        if len(values) and values.min() > 0 and values.max() > 20 * np.median(values):
            set_scale("log")


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = new_figure(size)
    return figure, figure.add_subplot()
