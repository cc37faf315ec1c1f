"""The chain of bounds by the labels bought, as Fig. 3 of the gradient-norm paper."""

import os
from collections.abc import Mapping

from matplotlib.ticker import MaxNLocator

from jalpose.report.bounds_tables import HEADINGS, LOSSES, TERMS
from jalpose.report.canvas import legend_below, look, new_panels, save, style


def plot_chain(path: str | os.PathLike[str], record: Mapping) -> None:
    """Draw the four terms' means over the pool, a panel for each loss.

    The axis is logarithmic; a mean target that is not above zero has no point.

    Args:
      path: of the PNG or PDF file.
      record: of `jalpose.bounds`.
    """
    cycles = record["cycles"]
    losses = [name for name in LOSSES if name in cycles[0]["losses"]]
    figure, panels = new_panels(len(losses), 3.4, 4.2)
    for panel, loss in zip(panels, losses, strict=True):
        for number, term in enumerate(TERMS):
            points = [
                (cycle["num_labelled"], cycle["losses"][loss][term])
                for cycle in cycles
                if cycle["losses"][loss][term] > 0
            ]
            panel.plot(
                [x for x, _ in points],
                [y for _, y in points],
                label=HEADINGS[term],
                **look(number),
            )
        style(panel, LOSSES[loss], "labelled images", "mean over the pool")
        panel.set_yscale("log")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    legend_below(figure, *panels[0].get_legend_handles_labels())
    save(figure, path)
