"""Pictures that explain choices, as the papers show them, and suspicious labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jalpose.report import interpret, page
from jalpose.report.album import Album
from jalpose.report.page import Markup
from jalpose.storage.arrays import IDS, SCORES, SELECTED
from jalpose.tasks.pictures import HeatGallery, Ranking

NEIGHBOURS = 5  # drawn beside an example
EXTREMES = 6  # of each end of a ranking
CHOSEN = 6  # of each method
PEAKED = 4  # of each end, with their maps
SUSPICIOUS = 18  # of each ranking of labels

Choice = tuple[Any, int, Mapping[str, np.ndarray]]


def chosen(choices: Sequence[Choice], album: Album) -> Markup:
    """The first examples that each method chose, a row of pictures for each."""
    rows, text = [], ""
    for run, cycle, arrays in choices:
        found = []
        pictures = album.of(run).pictures
        for rank, example in enumerate(arrays[SELECTED][:CHOSEN].tolist(), start=1):
            row = int(np.searchsorted(arrays[IDS], example))
            lines = _scores(arrays, row)
            overview = pictures.overview(arrays, example)
            below = None
            if overview is not None:
                below = album.heat(run, example, overview)
                lines += overview.lines
                text = pictures.overview_text
            found.append(
                _tile(album, run, arrays, row, lines, f"{rank}. ", below=below)
            )
        rows.append(page.element("h3", _whose(run, cycle)))
        rows.append(page.tiles(found, "tiles small"))
    return page.join([page.paragraph(text) if text else "", *rows])


def neighbours(choice: Choice, album: Album) -> Markup:
    """Highest and lowest EGL++ scores, each with its nearest labelled neighbours."""
    run, cycle, arrays = choice
    parts = [
        page.paragraph(
            f"{_whose(run, cycle)}: the pool examples of the highest and the lowest "
            "expected gradient norms, each with the labelled neighbours in the "
            "embedding that stand in for its unknown label, likeliest first, with "
            "their probabilities p and their labels drawn. Neighbours far from the "
            "prediction make a score high."
        )
    ]
    for title, rows in zip(
        ("Highest scores", "Lowest scores"),
        interpret.extremes(arrays[SCORES], EXTREMES),
        strict=True,
    ):
        lines = []
        for row in rows.tolist():
            first = _tile(album, run, arrays, row, _scores(arrays, row), kind="query")
            others = [
                page.tile(
                    album.tile(run, example),
                    f"p = {probability:.3f}",
                    album.of(run).key(example),
                )
                for example, probability in interpret.neighbours_of(
                    arrays, row, NEIGHBOURS
                )
            ]
            lines.append(page.tiles([first, *others], "row"))
        parts += [page.element("h3", title), page.tiles(lines, "rows")]
    return page.join(parts)


def heats(gallery: HeatGallery, choices: Sequence[Choice], album: Album) -> Markup:
    """Maps of the highest and the lowest scores of methods that have them."""
    parts = [page.paragraph(gallery.text)]
    for choice in choices:
        run, cycle, arrays = choice
        parts.append(page.element("h3", _whose(run, cycle)))
        for title, rows in zip(
            ("Highest scores", "Lowest scores"),
            interpret.extremes(arrays[SCORES], PEAKED),
            strict=True,
        ):
            lines = [_heats_of(gallery, album, choice, row) for row in rows.tolist()]
            parts += [page.element("h4", title), page.tiles(lines, "rows")]
    return page.join(parts)


def _heats_of(gallery: HeatGallery, album: Album, choice: Choice, row: int) -> Markup:
    """An example and its maps."""
    run, _, arrays = choice
    example = int(arrays[IDS][row])
    found = [_tile(album, run, arrays, row, _scores(arrays, row), kind="query")]
    for heat in gallery.heats(arrays, row):
        drawn = album.heat(run, example, heat)
        found.append(page.tile(drawn, heat.title, *heat.lines))
    return page.tiles(found, "row")


def ranked(ranking: Ranking, choice: Choice, album: Album) -> Markup:
    """The highest and the lowest of a number that the predictions have."""
    run, cycle, arrays = choice
    values = ranking.values(arrays)
    parts = [page.paragraph(f"{_whose(run, cycle)}: {ranking.text}")]
    for title, rows in zip(
        (f"Highest {ranking.what}", f"Lowest {ranking.what}"),
        interpret.extremes(values, EXTREMES),
        strict=True,
    ):
        found = []
        for row in rows.tolist():
            lines = [f"{ranking.unit} {values[row]:.2f}", *_loss(arrays, row)]
            found.append(_tile(album, run, arrays, row, lines))
        parts += [page.element("h3", title), page.tiles(found)]
    return page.join(parts)


def label_check(
    bought: Sequence[interpret.Bought], runs: Mapping[Any, Any], album: Album
) -> Markup:
    """Suspicious labels by gradient norm and by loss, drawn with predictions.

    Args:
      bought: in the order of `interpret.bought_labels`.
      runs: a run by (method, seed), to read its pictures.
    """
    by_loss = interpret.by_loss(bought)
    rankings = [("By loss", by_loss)]
    if any(b.gradient_norm is not None for b in bought):
        rankings.insert(0, ("By gradient norm", list(bought)))
    parts = []
    for title, ranked in rankings:
        found = []
        for rank, b in enumerate(ranked[:SUSPICIOUS], start=1):
            lines = [
                f"gradient norm {_short(b.gradient_norm)}, loss {_short(b.loss)}",
                f"{b.method}, seed {b.seed}, cycle {b.cycle}"
                + (f"; bought {b.purchases} times" if b.purchases > 1 else ""),
            ]
            drawn = album.tile(runs[b.method, b.seed], b.example, b.predicted)
            found.append(page.tile(drawn, f"{rank}. {b.key}", *lines))
        parts += [page.element("h3", title), page.tiles(found)]
    return page.join(parts)


def _tile(album, run, arrays, row, lines, rank="", kind="", below=None) -> Markup:
    example = int(arrays[IDS][row])
    drawn = album.tile(run, example, album.predicted(run, arrays, row))
    if drawn is not None and below is not None:
        drawn = page.join([drawn, below])
    return page.tile(drawn, f"{rank}{album.of(run).key(example)}", *lines, kind=kind)


def _scores(arrays, row: int) -> list[str]:
    score = interpret.score(arrays, row)
    lines = [] if score is None else [f"score {_short(score)}"]
    return lines + _loss(arrays, row)


def _loss(arrays, row: int) -> list[str]:
    loss = interpret.true_loss(arrays, row)
    return [] if loss is None else [f"loss {_short(loss)}"]


def _whose(run, cycle: int) -> str:
    return f"{run.method}, seed {run.seed}, choice of cycle {cycle}"


def _short(value: float | None) -> str:
    """Three digits, zeros at the end among them."""
    return "-" if value is None else f"{value:#.3g}".rstrip(".")
