"""A comparison of engines as PNG files."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from jalpose.report.canvas import COLOURS, GREY, INK, look, new_figure, save, style

PathLike = str | os.PathLike[str]
# Whose shares stand beside the exact ones.
_SHOWN = ("conv_linear", "goodfellow")
_HATCHES = ("", "///", "...")


def plot_all(
    folder: PathLike, record: Mapping, scores: Mapping[str, np.ndarray]
) -> None:
    """Draw scores, overlap, stages and times of a comparison into `folder`.

    Args:
      folder: of scores.png, overlap.png, stages.png and times.png.
      record: of the comparison.
      scores: [M] by label, the reference among them.
    """
    folder, reference = Path(folder), record["reference"]
    rows = {row["label"]: row for row in record["engines"]}
    others = {label: row for label, row in rows.items() if label != reference}
    figure = scores_figure(
        scores[reference],
        {label: scores[label] for label in others},
        {label: row["spearman"] for label, row in others.items()},
        reference,
        [label for label, row in others.items() if row["stands_in"]],
    )
    save(figure, folder / "scores.png")
    plot_overlap(
        folder / "overlap.png",
        record["curve_budgets"],
        {label: row["overlap_curve"] for label, row in others.items()},
        reference,
    )
    layers = record["layers"]
    shares = {"exact": layers["exact"]["stage"]}
    for label in _SHOWN:
        if label in layers["engines"]:
            shares[label] = layers["engines"][label]["share"]["stage"]
    plot_stages(folder / "stages.png", shares)
    plot_times(
        folder / "times.png",
        {label: row.get("seconds_an_image") for label, row in rows.items()},
        {label: row["spearman"] for label, row in rows.items()},
        reference,
    )


def scores_figure(
    exact: np.ndarray,
    scores: Mapping[str, np.ndarray],
    spearman: Mapping[str, float | None],
    reference: str = "exact",
    stand_ins: Collection[str] = (),
) -> Figure:
    """Scatter norms against the exact ones, both logarithmic, a panel for each.

    Args:
      exact: [M], squared norms.
      scores: [M] by label, likewise; what is not above zero is left out, and counted.
      spearman: by label.
      reference: what the exact scores are called.
      stand_ins: labels of scores in another unit: without a line of equal values.
    """
    columns = min(4, math.ceil(math.sqrt(len(scores) * 1.3)))
    lines = math.ceil(len(scores) / columns)
    figure = new_figure((2.5 * columns + 0.3, 2.5 * lines + 0.3))
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for index, (label, values) in enumerate(scores.items()):
        panel, rank = panels[index], spearman[label]
        style(panel, f"{label}  {'-' if rank is None else format(rank, '.3f')}", "", "")
        _draw_scatter(panel, exact, values, label not in stand_ins)
        # Of a shared axis the lowest has labels: also where the one below is empty.
        panel.tick_params(labelbottom=index + columns >= len(scores))
    for panel in panels[len(scores) :]:
        panel.set_visible(False)
    figure.supxlabel(f"gradient norm by {reference}", fontsize=10, color=INK)
    figure.supylabel("by the engine named", fontsize=10, color=INK)
    figure.suptitle("Norms, and their Spearman correlation", fontsize=12, color=INK)
    return figure


def plot_overlap(
    path: PathLike,
    budgets: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    reference: str = "exact",
) -> None:
    """Draw which share of the images selected by the reference each selects too.

    Args:
      path: of the PNG file.
      budgets: as fractions of the images.
      curves: an overlap for each budget, by label.
      reference: whose selection is meant.
    """
    figure = new_figure((7.2, 4.6))
    axes = figure.add_subplot()
    x = 100 * np.asarray(budgets)
    means = {label: float(np.mean(curve)) for label, curve in curves.items()}
    for index, (label, curve) in enumerate(curves.items()):
        pen = {**look(index), "markersize": 4.5, "linewidth": 1.4}
        axes.plot(x, 100 * np.asarray(curve), label=label, **pen)
    # Of any set, chance finds the share that it takes.
    axes.plot(x, x, color=GREY, linestyle=":", linewidth=1.3, label="chance")
    style(
        axes,
        f"Overlap with the selection of {reference}",
        "budget (% of the images)",
        "the same images (%)",
    )
    axes.set_ylim(0, 103)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: -means.get(labels[i], -1.0))
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        handlelength=3.2,
    )
    save(figure, path)


def plot_stages(path: PathLike, shares: Mapping[str, Mapping[str, float]]) -> None:
    """Draw shares of the exact squared norm by stage, a bar for each engine.

    Args:
      path: of the PNG file.
      shares: by label, then stage; the first gives the order of the stages.
    """
    stages = list(next(iter(shares.values())))
    figure = new_figure((max(6.0, 0.75 * len(stages) + 1.5), 4.2))
    axes = figure.add_subplot()
    width = 0.8 / len(shares)
    for index, (label, found) in enumerate(shares.items()):
        offset = (index - (len(shares) - 1) / 2) * width
        axes.bar(
            np.arange(len(stages)) + offset,
            [found[stage] for stage in stages],
            width,
            label=f"{label} ({sum(found.values()):.0%})",
            color=COLOURS[index],
            hatch=_HATCHES[index % len(_HATCHES)],
            edgecolor="white",
            linewidth=0.5,
        )
    style(axes, "Where the squared norm is", "", "share of the exact squared norm")
    axes.set_xticks(np.arange(len(stages)), stages, rotation=35, ha="right")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    save(figure, path)


def plot_times(
    path: PathLike,
    seconds: Mapping[str, float | None],
    spearman: Mapping[str, float | None],
    reference: str = "exact",
) -> None:
    """Draw the correlation with the exact scores against the time of an image.

    Args:
      path: of the PNG file.
      seconds: an image, by label; None for what costs nothing of its own: a line.
      spearman: by label; None is left out.
      reference: what the correlation is with.
    """
    figure = new_figure((7.2, 4.4))
    axes = figure.add_subplot()
    for index, (label, time) in enumerate(seconds.items()):
        rank, pen = spearman[label], look(index)
        if rank is None:
            continue
        if time is None:
            text = f"{label}  {rank:.3f}"
            axes.axhline(rank, color=GREY, linestyle=":", label=text, linewidth=1.3)
            continue
        marked: dict[str, Any] = {"color": pen["color"], "marker": pen["marker"]}
        text = f"{label}  {rank:.3f}, {time:.3g} s"
        axes.scatter([time], [rank], s=70, edgecolors="white", label=text, **marked)
    style(
        axes,
        "What the correlation costs",
        "seconds an image",
        f"Spearman correlation with {reference}",
    )
    axes.set_xscale("log")
    _round_ticks(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    save(figure, path)


def _draw_scatter(
    axes: Axes, exact: np.ndarray, values: np.ndarray, same_unit: bool
) -> None:
    """Points, and in the same unit a line of equal values."""
    known = (exact > 0) & (values > 0)
    x, y = np.sqrt(exact[known]), np.sqrt(values[known])
    axes.scatter(x, y, s=9, color=COLOURS[0], alpha=0.5, linewidths=0)
    axes.title.set_fontsize(10)
    axes.tick_params(which="both", labelsize=7)
    if known.any():  # nothing has no logarithm
        axes.set_xscale("log")
        axes.set_yscale("log")
    if known.any() and same_unit:
        ends = (x.min(), x.max())
        axes.plot(ends, ends, color=INK, linestyle=":", linewidth=1)
    if not known.all():
        place: dict[str, Any] = {"ha": "right", "transform": axes.transAxes}
        note = f"{(~known).sum()} not above 0"
        axes.text(0.97, 0.04, note, fontsize=7, color=INK, **place)


def _round_ticks(axes: Axes) -> None:
    """Ticks at 1, 2 and 5 times powers of ten: a short axis has more than one then."""
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
