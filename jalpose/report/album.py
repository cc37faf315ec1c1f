"""Pictures of single examples as markup, drawn by the task of the runs.

The task says how an example looks (`jalpose.tasks.pictures`); here its data are opened,
once for all runs on them, its images read, and what is drawn is encoded. Where the data
cannot be read, or photographs are not wanted, predictions stand on an empty ground.
"""

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from jalpose.data.source import DataError
from jalpose.report import interpret, page
from jalpose.report.page import Markup
from jalpose.tasks import sheets
from jalpose.tasks.pictures import Heat, Library, Pictures, Prediction, Terms

TILE = 320  # pixels of a picture: enough to be looked at large
HEAT = 176  # of a map


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """One encoded picture; `photograph`: an image is in it, not a drawing alone."""

    data: bytes
    mime: str
    photograph: bool


def encode(picture: np.ndarray, photograph: bool) -> Tile:
    """JPEG of what holds a photograph, PNG of what is drawn."""
    buffer = io.BytesIO()
    if photograph:
        Image.fromarray(picture).save(buffer, "JPEG", quality=80, optimize=True)
    else:
        Image.fromarray(picture).quantize(64).save(buffer, "PNG", optimize=True)
    mime = "image/jpeg" if photograph else "image/png"
    return Tile(data=buffer.getvalue(), mime=mime, photograph=photograph)


class Drawer:
    """Draws examples of one run's data, and remembers what it could not read.

    Args:
      pictures: how the task draws.
      library: the data; None where they cannot be read.
      photographs: False draws everything on an empty ground.
    """

    def __init__(
        self, pictures: Pictures, library: Library | None, photographs: bool = True
    ):
        self.pictures, self.library = pictures, library
        self.photographs = photographs
        self.unreadable: dict[int, str] = {}
        self._crops: dict[tuple[int, int], np.ndarray | None] = {}

    def key(self, example: int) -> str:
        """Name of an example: its key, or its id where keys cannot be read."""
        return self.library.keys[example] if self.library else f"example {example}"

    def tile(
        self,
        example: int,
        predicted: Prediction | None = None,
        *,
        labelled: bool = True,
        size: int = TILE,
    ) -> Tile | None:
        """Draw an example `size` pixels square; None where there is nothing to draw.

        Args:
          example: its id.
          predicted: arrays of the prediction.
          labelled: draw the label too, where it can be read.
          size: of the picture.
        """
        image = self._crop(example, size)
        drawn = self.pictures.draw(
            self.library, example, image, predicted, labelled=labelled, size=size
        )
        return None if drawn is None else encode(drawn, image is not None)

    def heat(self, example: int, heat: Heat, size: int = HEAT) -> Tile | None:
        """Draw a map over an example, with its peaks; None of one that is not kept."""
        if heat.values is None:
            return None
        image = self._crop(example, size)
        under = sheets.ground(size) if image is None else image
        picture = sheets.heatmap(under, heat.values, heat.places)
        return encode(picture, image is not None)

    def _crop(self, example: int, size: int) -> np.ndarray | None:
        if not self.photographs or self.library is None:
            return None
        if (example, size) not in self._crops:
            crop = None
            try:
                crop = self.library.crop(example, size)
            except DataError as error:
                self.unreadable[example] = str(error)
            self._crops[example, size] = crop
        return self._crops[example, size]


class Album:
    """Pictures of every run's data, opened once for each data set and seed.

    Args:
      task: the module `pictures` of the runs' task.
      photographs: False leaves out every image of the data.
      data_dir: stands in for the data folder that the runs recorded.

    Attributes:
      problems: sentences on what could not be read, in the order it was found out.
    """

    def __init__(
        self, task: ModuleType, photographs: bool = True, data_dir: str | None = None
    ):
        self.task, self.photographs = task, photographs
        self.problems: list[str] = []
        self._data_dir = data_dir
        self._opened: dict[str, Drawer] = {}
        self._shown: set[str] = set()

    def of(self, run: Any) -> Drawer:
        """What draws a run's examples."""
        data = run.config.get("data") or {}
        seed = self.task.drawn_seed(run.config)
        name = json.dumps([data, seed], sort_keys=True, default=str)
        if name not in self._opened:
            self._opened[name] = self._open(run)
        return self._opened[name]

    def predicted(self, run: Any, arrays: Mapping, row: int) -> Prediction | None:
        """The prediction of a row of a cycle's arrays; None where it is not there."""
        return interpret.prediction(arrays, self.of(run).pictures.prediction, row)

    def tile(self, run: Any, example: int, predicted=None, **options) -> Markup | None:
        """A picture as markup; None where nothing can be drawn."""
        return self._markup(
            run, example, lambda d: d.tile(example, predicted, **options)
        )

    def heat(self, run: Any, example: int, heat: Heat) -> Markup | None:
        """A map over an example, with rings round its peaks; None of one not kept."""
        return self._markup(run, example, lambda drawer: drawer.heat(example, heat))

    def terms(self) -> list[Terms]:
        """Whose images were shown, and under what terms."""
        known = [name for name in sorted(self._shown) if name in self.task.TERMS]
        return [self.task.TERMS[name] for name in known]

    def unreadable(self) -> list[str]:
        """A sentence for each data set of which images could not be read."""
        lines = []
        for drawer in self._opened.values():
            if drawer.unreadable:
                first = next(iter(drawer.unreadable.values()))
                count = len(drawer.unreadable)
                lines.append(f"{count} images could not be read; the first: {first}")
        return lines

    def _markup(
        self, run, example: int, draw: Callable[[Drawer], Tile | None]
    ) -> Markup | None:
        drawer = self.of(run)
        drawn = draw(drawer)
        if drawn is None:
            return None
        if drawn.photograph and drawer.library is not None:
            self._shown.add(drawer.library.name)
        key = drawer.key(example)
        return page.zoom(page.picture(drawn.data, drawn.mime, key))

    def _open(self, run) -> Drawer:
        pictures = self.task.make_pictures(run.config)
        try:
            library = self.task.open_library(run.config, self._data_dir)
            for cycle in interpret.scored_cycles(run):
                check_keys(library, run.selection(cycle))
        except (DataError, KeyError, TypeError, ValueError) as error:
            why = f"missing {error} in the config" if type(error) is KeyError else error
            self.problems.append(
                f"images and labels of {run.path} cannot be read, {pictures.noun} are "
                f"drawn without: {why}"
            )
            library = None
        return Drawer(pictures, library, self.photographs)


def check_keys(library: Library, rows: Iterable[Mapping]) -> None:
    """Raise DataError where rows of a selection name other examples than these."""
    for row in rows:
        known = library.keys[row["id"]] if row["id"] < len(library.keys) else "nothing"
        if row["key"] != known:
            raise DataError(
                f"example {row['id']} of the run is {row['key']}, but {known} in the "
                "data at hand: not the same data"
            )


def legend(keys: Iterable[Any]) -> Markup:
    """What lines and colours of the pictures mean, see `jalpose.tasks.pictures.Key`."""
    entries = []
    for key in keys:
        look = f"--colour: rgb{tuple(key.colour)}; --thick: {key.thick}px"
        mark = page.element("i", style=look, aria_hidden="true")
        kind = "key hollow" if key.hollow else "key"
        entries.append(page.element("span", mark, key.words, class_=kind))
    return page.element("div", *entries, class_="keys")
