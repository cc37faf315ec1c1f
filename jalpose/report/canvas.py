"""Paper, ink and pens that all plots share; no display, no global state.

Colours are Okabe and Ito's without their yellow; each curve has a marker and a line
style of its own besides, so that the plots read in grey as well.
"""

import io
import os
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jalpose.storage import records

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
COLUMNS = 3  # of panels
# Inches of a plot that a phone shows whole: its legend stands below.
SINGLE = (5.9, 4.9)
GREY, INK = "#767676", "#222222"


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of `size` inches."""
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_panels(
    count: int, height: float, width: float = 2.9, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels of so many inches, those not needed hidden."""
    columns = min(COLUMNS, max(count, 1))
    lines = -(-max(count, 1) // columns)
    figure = new_figure((max(width * columns, 4.2), height * lines + 0.7))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=sharey)
    panels = list(grid.ravel())
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def legend_below(figure: Figure, handles, labels) -> None:
    """List what is drawn under the plot."""
    where: dict[str, Any] = {"loc": "outside lower center", "frameon": False}
    columns = 2 if max(map(len, labels), default=0) > 18 else 3
    figure.legend(handles, labels, ncols=columns, fontsize=9, handlelength=3.4, **where)


def look(index: int) -> dict[str, Any]:
    """Colour, marker and line of curve number `index`."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
        "linewidth": 1.8,
        "markersize": 6,
        "markeredgecolor": "white",
        "markeredgewidth": 0.8,
    }


def style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels and a grid that keep in the background."""
    axes.set_title(title, fontsize=12, color=INK, loc="left")
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    axes.tick_params(which="both", labelsize=9, colors=INK, length=0)
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG or PDF by its name's end, whole or not at all."""
    kind = os.path.splitext(path)[1][1:] or "png"
    buffer = io.BytesIO()
    # Without versions and dates in the file: equal records give equal plots.
    figure.savefig(buffer, format=kind, metadata=dict.fromkeys(_STAMPS[kind]))
    records.atomic_write_bytes(path, buffer.getvalue())


_STAMPS = {
    "png": ("Software",),
    "pdf": ("Creator", "Producer", "CreationDate"),
}
