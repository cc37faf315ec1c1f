"""The page of the papers' theory: tables, plots, and how many values are equal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jalpose.report import canvas, page, page_tables, text_formats
from jalpose.report.page import Section
from jalpose.report.text_formats import Table
from jalpose.storage import records
from jalpose.theory import loss_pairs, tables
from jalpose.theory.loss_pairs import PAPER, Gamma
from jalpose.theory.losses import TrueLosses
from jalpose.theory.two_sides import Sides

PAGE = "index.html"


def write(out: Path, found: Sequence[Sides], losses: TrueLosses | None) -> list[str]:
    """Write the page, its tables and plots: lines for the screen.

    Args:
      out: folder.
      found: EGL and variance of pools.
      losses: of a finished run, or None.
    """
    regression = [
        tables.worked_regression(),
        tables.agreements(found),
        tables.partings(found),
    ]
    objectives = [tables.pairs()]
    margins = [tables.loss_distribution(), tables.similar_pairs()]
    gradients = [
        tables.expected_shares(),
        tables.expected_gradients(PAPER, [float(m) for m in tables.TABLE_2]),
    ]
    parts = [
        ("egl", "EGL for regression and predictive variance", regression),
        ("pairs", "Learning Loss and LearningLoss++ on a pair", objectives),
        ("margins", "How often two losses are alike", margins),
        ("gradients", "What a pair is expected to teach", gradients),
    ]
    figures = {
        "egl": ("egl_against_variance", sides_plot(found), _SIDES),
        "margins": ("loss_distribution", density_plot(PAPER), _DENSITY),
        "gradients": ("expected_factor", factor_plot(PAPER), _FACTOR),
    }
    if losses is not None:
        gamma, own = tables.of_run(losses)
        in_units = gamma.shape / gamma.rate * PAPER.rate / PAPER.shape
        scaled = [float(m) * in_units for m in tables.TABLE_2]
        parts.append(
            (
                "run",
                "The same of a finished run",
                [own, _renamed(tables.expected_gradients(gamma, scaled))],
            )
        )
        figures["run"] = (
            "loss_distribution_of_run",
            density_plot(gamma, losses.values),
            f"True losses of {losses.workdir}, cycle {losses.cycle}, and their Gamma.",
        )
    every = [table for _, _, some in parts for table in some]
    written = text_formats.write_tables(every, out / "tables")
    sections = []
    for anchor, title, some in parts:
        body = [
            page_tables.as_markup(
                one,
                page.links(str(path.relative_to(out)) for path in written[one.name]),
            )
            for one in some
        ]
        if anchor in figures:
            name, figure, caption = figures[anchor]
            canvas.save(figure, out / "plots" / f"{name}.png")
            files = page.join([" ", page.links([f"plots/{name}.png"])])
            svg = canvas.vector(figure, name)
            body.append(page.drawing(svg, caption, caption, files))
        sections.append(Section(anchor, title, page.join(body)))
    lines = summary(every)
    lead = page.bullets(lines)
    text = page.render("The papers' theory, recomputed", lead, sections)
    records.atomic_write_text(out / PAGE, text)
    return lines


def summary(every: Sequence[Table]) -> list[str]:
    """How many values are equal to what is beside them, and which are not."""
    rows = [(table, row) for table in every for row in table.rows if row.get("verdict")]
    off = [(table, row) for table, row in rows if row["verdict"] != "equal"]
    lines = [
        f"{len(rows) - len(off)} of {len(rows)} values round to what is printed (or to "
        "the check value, where the paper prints none)."
    ]
    for table, row in off:
        why = f" ({row['note']})" if row["note"] else ""
        lines.append(
            f"{table.name}, {row['what']}: {row['ours']:.6f} against {row['other']}, "
            f"{row['verdict']}{why}"
        )
    return lines


def sides_plot(found: Sequence[Sides]) -> Figure:
    """EGL against predictive variance, a panel for each pool and kind of models."""
    figure, panels = canvas.new_panels(len(found), height=2.7, width=3.1)
    for panel, side in zip(panels, found, strict=True):
        panel.scatter(side.variance, side.egl, s=9, color=canvas.COLOURS[0], alpha=0.6)
        panel.set_xscale("log")
        panel.set_yscale("log")
        title = f"{side.data}\n{side.models}"
        canvas.style(panel, title, "predictive variance", "EGL")
    return figure


def density_plot(gamma: Gamma, losses: np.ndarray | None = None) -> Figure:
    """A Gamma's density, over the histogram of losses where there are any."""
    figure = canvas.new_figure(canvas.SINGLE)
    axes = figure.add_subplot()
    most = 3 * gamma.shape / gamma.rate
    if losses is not None:
        most = float(np.quantile(losses, 0.99))
        kept = losses[losses <= most]
        # As dense as of all losses: the tail that is cut off counts.
        axes.hist(
            kept,
            bins=40,
            weights=np.full(len(kept), 40 / most / len(losses)),
            range=(0, most),
            color=canvas.COLOURS[4],
            label="true losses",
        )
    x = np.linspace(most / 400, most, 400)
    label = f"Gamma({gamma.shape}, {gamma.rate:.4g})"
    axes.plot(x, gamma.density(x), color=canvas.COLOURS[1], label=label)
    canvas.style(axes, "Distribution of true losses", "true loss", "density")
    canvas.legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def factor_plot(gamma: Gamma) -> Figure:
    """Eq. 6 by the predicted difference, a curve for each margin."""
    figure = canvas.new_figure(canvas.SINGLE)
    axes = figure.add_subplot()
    x = np.linspace(-3, 3, 121)
    for number, margin in enumerate(tables.TABLE_2):
        factors = loss_pairs.expected_factor(margin, x, gamma)
        look = {**canvas.look(number), "marker": ""}
        axes.plot(x, factors, label=f"margin {margin:g}", **look)
    axes.axhline(0.0, color=canvas.GREY, linestyle=":", linewidth=1.2)
    words = "predicted loss, higher less lower"
    canvas.style(axes, "Expected factor of h_i - h_j", words, "factor")
    canvas.legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def _renamed(table: Table) -> Table:
    return Table(
        f"{table.name}_of_run",
        f"{table.caption}, by the run's Gamma",
        table.columns,
        table.rows,
        table.notes,
    )


_SIDES = (
    "EGL against predictive variance, a point an example: on one rising line they "
    "would choose alike."
)
_DENSITY = "LL++'s Fig. 3: the density that both its tables follow from."
_FACTOR = (
    "LL++'s Eq. 6: what a pair teaches by the difference that the head predicts; the "
    "larger the true margin, the larger a difference it takes for no gradient."
)
