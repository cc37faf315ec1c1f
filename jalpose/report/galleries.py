"""Pictures that explain choices, as the papers show them, and suspicious labels."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jalpose.data.source import DataError
from jalpose.report import images, interpret, page
from jalpose.report.page import Markup
from jalpose.tasks.pose import drawings, skeletons

NEIGHBOURS = 5  # drawn beside an example
EXTREMES = 6  # of each end of a ranking
CHOSEN = 6  # of each method
PEAKED = 4  # of each end, with their heatmaps
JOINTS = 4  # of an example, with their heatmaps
SUSPICIOUS = 18  # of each ranking of labels


class Album:
    """Pictures of every run's data, opened once for each data set and seed.

    Attributes:
      problems: sentences on what could not be read, in the order it was found out.
    """

    def __init__(self, photographs: bool = True, data_dir: str | None = None):
        self.photographs = photographs
        self.problems: list[str] = []
        self._data_dir = data_dir
        self._opened: dict[str, images.Pictures] = {}
        self._shown: set[str] = set()

    def of(self, run: Any) -> images.Pictures:
        """The pictures of a run's examples."""
        data = run.config.get("data") or {}
        seed = images.drawn_seed(run.config)
        name = json.dumps([data, seed], sort_keys=True, default=str)
        if name not in self._opened:
            self._opened[name] = self._open(run, data)
        return self._opened[name]

    def tile(self, run: Any, example: int, predicted=None, **options) -> Markup | None:
        """A picture as markup; None where nothing can be drawn."""
        pictures = self.of(run)
        drawn = pictures.tile(example, predicted, **options)
        if drawn is None:
            return None
        if drawn.photograph and pictures.library is not None:
            self._shown.add(pictures.library.name)
        return page.picture(drawn.data, drawn.mime, pictures.key(example))

    def heat(self, run: Any, example: int, values, places) -> Markup:
        """A heatmap [h, w] over an example, with rings round its peaks [P, 2]."""
        pictures = self.of(run)
        drawn = pictures.heat(example, values, places)
        if drawn.photograph and pictures.library is not None:
            self._shown.add(pictures.library.name)
        return page.picture(drawn.data, drawn.mime, pictures.key(example))

    def terms(self) -> list[tuple[str, str]]:
        """Whose images were shown, and under what terms: a line and the rest."""
        return [images.TERMS[name] for name in sorted(self._shown)]

    def unreadable(self) -> list[str]:
        """A sentence for each data set of which images could not be read."""
        lines = []
        for pictures in self._opened.values():
            if pictures.unreadable:
                first = next(iter(pictures.unreadable.values()))
                count = len(pictures.unreadable)
                lines.append(f"{count} images could not be read; the first: {first}")
        return lines

    def _open(self, run, data) -> images.Pictures:
        mpii = data.get("name") == "mpii"
        skeleton = skeletons.MPII if mpii else skeletons.LSP
        library = None
        try:
            library = images.open_library(run.config, self._data_dir)
            for cycle in interpret.scored_cycles(run):
                images.check_keys(library, run.selection(cycle))
        except (DataError, KeyError, TypeError, ValueError) as error:
            why = f"missing {error} in the config" if type(error) is KeyError else error
            self.problems.append(
                f"images and labels of {run.path} cannot be read, poses are drawn "
                f"without: {why}"
            )
            library = None
        return images.Pictures(library, skeleton, self.photographs)


def legend() -> Markup:
    """What the lines and joints of the pictures mean."""
    left, right, middle = drawings.PREDICTED.colours
    white = drawings.TRUE.colours[0]
    entries = (
        ("predicted: left", left, 6, ""),
        ("right", right, 6, ""),
        ("middle", middle, 6, ""),
        ("label", white, 2, ""),
        ("label, hidden in the image", white, 2, "hollow"),
    )
    keys = []
    for words, colour, thick, kind in entries:
        look = f"--colour: rgb{colour}; --thick: {thick}px"
        mark = page.element("i", style=look, aria_hidden="true")
        keys.append(page.element("span", mark, words, class_=f"key {kind}".strip()))
    return page.element("div", *keys, class_="keys")


Choice = tuple[Any, int, Mapping[str, np.ndarray]]


def chosen(choices: Sequence[Choice], album: Album) -> Markup:
    """The first examples that each method chose, a row of pictures for each."""
    rows = [
        page.paragraph(
            "Below the pictures of methods that score: all heatmaps of the example in "
            "one, at each place the highest, from 0 to the maximum."
        )
        if any("heatmaps" in arrays for _, _, arrays in choices)
        else ""
    ]
    for run, cycle, arrays in choices:
        found = []
        for rank, example in enumerate(arrays["selected"][:CHOSEN].tolist(), start=1):
            row = int(np.searchsorted(arrays["ids"], example))
            lines = _scores(arrays, row)
            maps = interpret.heatmaps_of(arrays, example)
            below = None
            if maps is not None:
                below = album.heat(run, example, maps.max(axis=2), np.zeros((0, 2)))
                lines.append(f"highest peak {_short(float(maps.max()))}")
            found.append(
                _tile(
                    album, run, arrays, row, lines, f"{rank}. ", size=176, below=below
                )
            )
        rows.append(page.element("h3", _whose(run, cycle)))
        rows.append(page.tiles(found, "tiles small"))
    return page.join(rows)


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
        interpret.extremes(arrays["scores"], EXTREMES),
        strict=True,
    ):
        lines = []
        for row in rows.tolist():
            first = _tile(album, run, arrays, row, _scores(arrays, row), kind="query")
            others = [
                page.tile(
                    album.tile(run, example, size=176),
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


def peaks(choices: Sequence[Choice], album: Album) -> Markup:
    """Highest and lowest scores of methods that read peaks: heatmaps with the peaks."""
    parts = [
        page.paragraph(
            "The pool examples of the highest and the lowest scores, and of each the "
            "heatmaps of the joints whose peaks have the greatest entropy: the "
            "brighter the higher, each from 0 to its own maximum, with a ring round "
            "each peak that was counted, the highest one's thick. Numbers are the "
            "heights of the peaks; a perfect heatmap has one, of height "
            f"{_perfect(choices[0][0])}."
        )
    ]
    for choice in choices:
        run, cycle, arrays = choice
        parts.append(page.element("h3", _whose(run, cycle)))
        for title, rows in zip(
            ("Highest scores", "Lowest scores"),
            interpret.extremes(arrays["scores"], PEAKED),
            strict=True,
        ):
            lines = [_peaked(album, choice, row) for row in rows.tolist()]
            parts += [page.element("h4", title), page.tiles(lines, "rows")]
    return page.join(parts)


def _peaked(album: Album, choice: Choice, row: int) -> Markup:
    """An example and the heatmaps of its most uncertain joints."""
    run, _, arrays = choice
    example = int(arrays["ids"][row])
    maps = interpret.heatmaps_of(arrays, example)
    found = [_tile(album, run, arrays, row, _scores(arrays, row), kind="query")]
    for joint, entropy, places in interpret.most_uncertain_joints(arrays, row, JOINTS):
        name, count = album.of(run).skeleton.joints[joint], len(places)
        said, drawn = f"{count} peak{'s' * (count != 1)}", None
        if maps is not None:
            values = maps[..., joint]
            drawn = album.heat(run, example, values, places)
            heights = [f"{values[y, x]:.3g}" for x, y in places.tolist()]
            said = f"{said}: {', '.join(heights)}" if heights else said
        found.append(page.tile(drawn, name, said, f"entropy {entropy:.2f}"))
    return page.tiles(found, "row")


def confidences(choice: Choice, album: Album) -> Markup:
    """Most and least confident predictions by the height of their peaks."""
    run, cycle, arrays = choice
    values = interpret.confidence(arrays)
    intro = page.paragraph(
        f"{_whose(run, cycle)}: the pool examples whose heatmaps have the highest and "
        "the lowest peaks, mean over the joints; a perfect heatmap has "
        f"{_perfect(run)}."
    )

    def lines(row):
        said = [f"mean peak {values[row]:.2f}"]
        if "true_losses" in arrays:
            said.append(f"true loss {_short(arrays['true_losses'][row])}")
        return said

    return page.join([intro, _ends(album, choice, values, "peaks", lines)])


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


def _ends(album, choice: Choice, values, what: str, lines) -> Markup:
    run, _, arrays = choice
    parts = []
    for title, rows in zip(
        (f"Highest {what}", f"Lowest {what}"),
        interpret.extremes(values, EXTREMES),
        strict=True,
    ):
        found = [_tile(album, run, arrays, row, lines(row)) for row in rows.tolist()]
        parts += [page.element("h3", title), page.tiles(found)]
    return page.join(parts)


def _tile(
    album, run, arrays, row, lines, rank="", kind="", size=208, below=None
) -> Markup:
    example = int(arrays["ids"][row])
    predicted = arrays["joints"][row] if "joints" in arrays else None
    drawn = album.tile(run, example, predicted, size=size)
    if drawn is not None and below is not None:
        drawn = page.join([drawn, below])
    return page.tile(drawn, f"{rank}{album.of(run).key(example)}", *lines, kind=kind)


def _scores(arrays, row: int) -> list[str]:
    score = float(arrays["scores"][row]) if "scores" in arrays else float("nan")
    lines = [f"score {_short(score)}"] if np.isfinite(score) else []
    if "true_losses" in arrays:
        lines.append(f"true loss {_short(arrays['true_losses'][row])}")
    return lines


def _whose(run, cycle: int) -> str:
    return f"{run.method}, seed {run.seed}, choice of cycle {cycle}"


def _perfect(run) -> str:
    """The height of a perfect heatmap's peak."""
    return f"{run.config['heatmap']['peak']:g}"


def _short(value: float | None) -> str:
    """Three digits, zeros at the end among them."""
    return "-" if value is None else f"{value:#.3g}".rstrip(".")
