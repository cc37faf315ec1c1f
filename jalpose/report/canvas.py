"""Paper, ink and pens that all plots share; no display, no global state.

The first colours are Okabe and Ito's without their yellow; each curve has a marker and
a line style of its own besides, so that the plots read in grey as well. A method has
one pen in all plots of a report. On a page a colour is a variable of the style sheet
(`vector`), so that plots follow it into the dark.
"""

import io
import os
import re
import textwrap
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from jalpose.storage import records

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C5BB5",
    "#8C564B", "#999933", "#A33E6B",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))  # dashes: the reference
COLUMNS = 3  # of panels
# Inches of a plot that a phone shows whole: its legend stands below.
SINGLE = (5.9, 4.9)
GREY, INK, PAPER = "#767676", "#222222", "#FFFFFF"
GRID, EDGE, FAINT = "#E4E4E4", "#B0B0B0", "#D2D2D2"
# On shades that stay what they are in the dark.
ON_LIGHT, ON_DARK = "#1B1B1B", "#FDFDFD"
# What stands for them on a page, see page_style.css.
VARIABLES = {
    **{colour.lower(): f"var(--m{number})" for number, colour in enumerate(COLOURS)},
    INK.lower(): "var(--ink)",
    PAPER.lower(): "var(--card)",
    GREY: "var(--faint)",
    GRID.lower(): "var(--grid)",
    EDGE.lower(): "var(--edge)",
    FAINT.lower(): "var(--edge)",
}
MOST_SHAPES = 1500  # of a scatter on a page; more are an image


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
    """List what is drawn under the plot, markers without their error bars.

    What is wider than the plot is of several lines.
    """
    labels = wrapped(labels, int((figure.get_figwidth() - 0.7) / 0.078))
    handles = [h[0] if isinstance(h, ErrorbarContainer) else h for h in handles]
    where: dict[str, Any] = {"loc": "outside lower center", "frameon": False}
    # Inches of a label: its line, and its letters at this size.
    lines = [line for label in labels for line in label.split("\n")]
    widest = 0.7 + 0.078 * max(map(len, lines), default=0)
    columns = int(np.clip(figure.get_figwidth() // widest, 1, COLUMNS))
    where |= {"fontsize": 9, "handlelength": 3.4, "labelcolor": INK}
    figure.legend(handles, labels, ncols=columns, **where)


def wrapped(names: Iterable[str], width: int) -> list[str]:
    """Names in lines of so many letters at most; a short one as it is."""
    return [
        name if len(name) <= width else textwrap.fill(name, width) for name in names
    ]


def pens(methods: Iterable[str], reference: str | None = None) -> dict[str, dict]:
    """The look of each method in all plots: the reference in ink, dashed.

    Args:
      methods: labels; their order alone says which pen is whose.
      reference: the one that the others are compared with.
    """
    found, number = {}, 0
    every = sorted(methods)
    for name in every:
        if name == reference and len(every) > 1:
            found[name] = {**look(0), "color": INK, "marker": "x", "linestyle": "--"}
            found[name] |= {"markeredgecolor": INK, "markersize": 5}
        else:
            found[name], number = look(number), number + 1
    return found


def variable(pen: dict[str, Any]) -> str:
    """A pen's colour as the style sheet of a page has it."""
    return VARIABLES[pen["color"].lower()]


def look(index: int) -> dict[str, Any]:
    """Colour, marker and line of curve number `index`."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
        "linewidth": 1.8,
        "markersize": 6,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.8,
    }


def style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels and a grid that keep in the background.

    A title that is wider than its panel is smaller, and of several lines.
    """
    where, figure = axes.get_subplotspec(), axes.get_figure(root=True)
    columns = 1 if where is None else where.get_gridspec().ncols
    inches = 0.85 * (0 if figure is None else figure.get_figwidth()) / columns
    size = 12 if max(map(len, title.split("\n"))) * 0.095 <= inches else 9.5
    lines = [
        textwrap.fill(line, max(int(inches / 0.075), 10)) for line in title.split("\n")
    ]
    axes.set_title("\n".join(lines), fontsize=size, color=INK, loc="left")
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    axes.tick_params(which="both", labelsize=9, colors=INK, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(EDGE)


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


def vector(figure: Figure, name: str) -> str:
    """A figure as SVG for the inside of a page.

    Its size is its `viewBox`; colours are variables of the page's style, letters are
    outlines, and its ids begin with `name`, so that several can be in one page.
    """
    buffer = io.StringIO()
    shapes = [part for axes in figure.axes for part in axes.collections]
    many = [part for part in shapes if not part.get_rasterized() and _is_large(part)]
    for part in many:
        part.set_rasterized(True)
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        stamps = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=stamps)
    for part in many:
        part.set_rasterized(False)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"^<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", text)
    text = re.sub(r"<!--.*?-->\n?", "", text)
    # A variable is no value of an attribute, of a style it is.
    text = re.sub(r"#[0-9a-f]{6}\b", lambda m: VARIABLES.get(m[0], m[0]), text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    return re.sub(r'href="#', f'href="#{name}-', text)


def _is_large(part: Collection) -> bool:
    return len(np.asarray(part.get_offsets())) > MOST_SHAPES
