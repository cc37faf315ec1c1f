"""The contract of a task's pictures: examples with predictions and labels, for reports.

NumPy and PIL alone: reports are written where there is no JAX. The module `pictures` of
a task has

    TITLE          what the task is, for the head of a report
    TERMS          by `data.name`: whose pictures they are
    drawn_seed     (config) -> int | None: what the images of a run are drawn from; None
                   where files are its data. Drawn examples of two seeds have the same
                   keys and are not the same
    open_library   (config, data_dir) -> Library: the data of a run; `data_dir` stands
                   in for the `data.dir` it recorded; DataError where it cannot be read
    make_pictures  (config) -> Pictures

with configs as `config.json` has them. A task without that module has reports without
pictures; see `registry.pictures_of`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

Arrays = Mapping[str, np.ndarray]  # of a cycle, see jalpose/storage/arrays.py
Prediction = Mapping[str, np.ndarray]  # of one example, arrays without their first axis


class Terms(NamedTuple):
    """Whose the images of a data set are, and under what terms they may be shown.

    Attributes:
      called: the data set, for people.
      line: under a gallery.
      rest: at the end of a page.
    """

    called: str
    line: str
    rest: str


class Key(NamedTuple):
    """An entry of a legend.

    Attributes:
      words: what it stands for.
      colour: RGB.
      thick: of its line, pixels.
      hollow: drawn as a ring.
    """

    words: str
    colour: tuple[int, int, int]
    thick: int
    hollow: bool = False


class Heat(NamedTuple):
    """A map of numbers over an example.

    Attributes:
      values: [h, w]; None where they were not kept: the words alone are shown.
      places: int [P, 2], (x, y) in pixels of the map: a ring round each, the first one
        thick.
      title: above the words.
      lines: what is known of it.
    """

    values: np.ndarray | None
    places: np.ndarray
    title: str = ""
    lines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeatGallery:
    """Maps of the examples of the highest and the lowest scores.

    Attributes:
      anchor: of its section.
      title: of its section.
      text: what is seen.
      needs: names of the arrays it is made from.
      heats: (arrays, row of `ids`) -> the maps of an example.
    """

    anchor: str
    title: str
    text: str
    needs: frozenset[str]
    heats: Callable[[Arrays, int], list[Heat]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Examples of the highest and the lowest of a number that predictions have.

    Attributes:
      anchor: of its section.
      title: of its section.
      text: what is seen, after "method, seed, cycle: ".
      what: is high or low, in the plural.
      unit: of one example.
      needs: names of the arrays it is made from.
      values: arrays -> float64 [M], rows of `ids`.
    """

    anchor: str
    title: str
    text: str
    what: str
    unit: str
    needs: frozenset[str]
    values: Callable[[Arrays], np.ndarray]


class Library(Protocol):
    """Images and labels of the data of a run, by example id."""

    @property
    def name(self) -> str:
        """Name of the data set, `data.name`."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the examples, as selections have them."""
        ...

    def crop(self, example: int, size: int) -> np.ndarray:
        """Read an image as the network sees it: uint8 [size, size, 3].

        Raises:
          DataError: it cannot be read.
        """
        ...


class Pictures(Protocol):
    """How the examples of a run are drawn."""

    @property
    def noun(self) -> str:
        """What stands on the images, in the plural: poses."""
        ...

    @property
    def one(self) -> str:
        """What stands on an image, with its article: a pose."""
        ...

    @property
    def prediction(self) -> tuple[str, ...]:
        """Names of the arrays of a cycle that hold the predictions."""
        ...

    @property
    def legend(self) -> tuple[Key, ...]:
        """What lines and colours mean."""
        ...

    @property
    def heats(self) -> HeatGallery | None:
        """A gallery of maps; None where the task has none."""
        ...

    @property
    def ranking(self) -> Ranking | None:
        """A gallery by a number that predictions have; None where they have none."""
        ...

    @property
    def overview_text(self) -> str:
        """Words above the maps of `overview`."""
        ...

    def draw(
        self,
        library: Any,
        example: int,
        image: np.ndarray | None,
        predicted: Prediction | None,
        *,
        labelled: bool,
        size: int,
    ) -> np.ndarray | None:
        """Draw an example: uint8 [size, size, 3]; None where there is nothing to draw.

        Args:
          library: what `open_library` gave; None where the data cannot be read.
          example: its id.
          image: as `Library.crop` gave it; None: an empty ground.
          predicted: the arrays of `prediction` of this example.
          labelled: draw the label too, where it can be read.
          size: of the picture, pixels.
        """
        ...

    def overview(self, arrays: Arrays, example: int) -> Heat | None:
        """All maps of an example in one; None where none are kept."""
        ...
