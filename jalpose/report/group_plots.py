"""Maps of the embeddings coloured by video: of which ones a method chooses.

Fig. 2 of EGL++ (M. Shukla, WACV 2022): t-SNE of the averaged features, coloured by the
video of MPII that a frame is of; some videos are sampled heavily there, some lightly.
"""

import numpy as np
from matplotlib.figure import Figure

from jalpose.report import tsne
from jalpose.report.canvas import COLOURS, GREY, INK, legend_below, new_panels, style
from jalpose.report.evidence import ArraysOf, Plot, first_choices
from jalpose.report.gather import Gathered
from jalpose.storage import cycles
from jalpose.storage.arrays import EMBEDDINGS, GROUP_NUMBERS, IDS, SELECTED

MOST = 600  # points of a map: t-SNE goes over all pairs
COLOURED = 6  # groups that have a colour, the largest ones of the map


def group_maps(found: Gathered, arrays_of: ArraysOf) -> list[Plot]:
    """t-SNE of what was scored at each method's first choice, coloured by group."""
    panels, maps = {}, {}
    for run, cycle, arrays in first_choices(found, arrays_of):
        record = run.record(cycle)
        if not {EMBEDDINGS, GROUP_NUMBERS} <= arrays.keys() or record is None:
            continue
        names = list(cycles.groups(record))
        selected = np.isin(arrays[IDS], arrays[SELECTED])
        kept = shown(len(arrays[IDS]))
        points = np.asarray(arrays[EMBEDDINGS])[kept]
        if len(points) < 4 or not np.isfinite(points).all():
            continue
        key = points.tobytes()  # methods of one base model may share a map
        if key not in maps:
            maps[key] = tsne.embed(points)
        numbers = arrays[GROUP_NUMBERS][kept]
        panels[run.method] = maps[key], numbers, selected[kept], names
    if not panels:
        return []
    caption = (
        "t-SNE (perplexity 30) of the embeddings of what was scored, coloured by the "
        f"video, sequence or group it is of, the {COLOURED} largest; what the first "
        "choice of each method's first seed took has a ring. As Fig. 2 of EGL++. Of "
        f"more than {MOST} examples some. Distances between clusters mean nothing."
    )
    return [Plot("group_map", _draw(panels), "Map by group", caption)]


def shown(count: int) -> np.ndarray:
    """Rows of a map: all, or of many a draw of `MOST`, always the same; rising.

    Not the chosen first: that would make every group look heavily sampled.
    """
    if count <= MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:MOST])


def largest(panels) -> list[str]:
    """Names of the groups that have a colour, those of most points first."""
    counts: dict[str, int] = {}
    for _, numbers, _, names in panels.values():
        for number in numbers[numbers >= 0].tolist():
            counts[names[number]] = counts.get(names[number], 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))[:COLOURED]


def _draw(panels) -> Figure:
    figure, drawn = new_panels(len(panels), height=2.9, width=3.1)
    coloured = largest(panels)
    for axes, (method, (places, numbers, selected, names)) in zip(
        drawn, panels.items(), strict=False
    ):
        own = np.array([names[n] if n >= 0 else "" for n in numbers.tolist()])
        other = ~np.isin(own, coloured)
        x, y = places.T
        axes.scatter(x[other], y[other], s=8, color=GREY, linewidths=0, label="others")
        for place, name in enumerate(coloured):
            rows = own == name
            axes.scatter(
                x[rows],
                y[rows],
                s=16,
                color=COLOURS[place],
                marker="osD^vP"[place],
                linewidths=0,
                label=name,
            )
        axes.scatter(
            x[selected],
            y[selected],
            s=42,
            facecolors="none",
            edgecolors=INK,
            linewidths=0.8,
            label="selected",
        )
        style(axes, method, "", "")
        axes.set_xticks([])
        axes.set_yticks([])
    legend_below(figure, *drawn[0].get_legend_handles_labels())
    return figure
