"""The contract of a task's exchange: examples handed out to be labelled, labels read.

The module `exchange` of a task has `make_exchange(config, dataset) -> Exchange`. NumPy
alone: what is handed out are files, and what comes back are files that annotation tools
have written.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np

from jalpose.tasks.labels import Predicted, Truth

# Beginnings of image files.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # beginnings of texts in it
REJECTED = "rejected"  # first line of a list of those that nobody can label


class UnreadableError(ValueError):
    """A file of labels cannot be read; says why and what to do."""


class Request(NamedTuple):
    """An example that people are asked to label.

    Attributes:
      rank: among those chosen, from 1.
      id: of the example.
      name: of its picture, by which its label is known again.
      key: stable name of the example.
      file: of its image, relative to the data folder.
      size: width and height of the image, pixels.
      window: float [3], of its crop: centre (x, y) and side, pixels; None: the image.
      box: round what is to be labelled, (x0, y0, x1, y1) in pixels whose centres are
        whole numbers.
      score: that it was chosen by; None: the method gives none.
      why: it was chosen.
      predicted: by the model, in pixels of the image; arrays of one example.
    """

    rank: int
    id: int
    name: str
    key: str
    file: str
    size: tuple[int, int]
    window: np.ndarray | None
    box: tuple[float, float, float, float]
    score: float | None
    why: str
    predicted: Predicted


class Returned(NamedTuple):
    """What a file says of one picture.

    Attributes:
      name: of the picture, as the file has it.
      label: arrays of `Dataset.truth` of one example; None: it is not labelled.
      where: in the file, for messages.
      rejected: nobody can label it.
      size: width and height of the picture as the file has them; None: it does not
        tell.
    """

    name: str
    label: Truth | None
    where: str
    rejected: bool = False
    size: tuple[int, int] | None = None


class Exchange(Protocol):
    """How examples of a task are handed out, and labels of them read.

    Attributes:
      formats: that are read, for messages.
      sites: names of what a prediction consists of, as methods tell apart: joints; ()
        of a task without.
      tools: names of the files that `write` writes, by the tool that takes them.
    """

    formats: tuple[str, ...]
    sites: tuple[str, ...]
    tools: Mapping[str, tuple[str, ...]]

    def write(self, folder: Path, requests: Sequence[Request], images: str) -> None:
        """Write what annotation tools take, with the predictions as a first guess.

        The same requests give the same bytes.

        Args:
          folder: to write into.
          requests: of a choice, by rank.
          images: folder that names are relative to, itself relative to `folder`; "":
            they are relative to the data folder.
        """
        ...

    def box_of(self, example: int) -> np.ndarray | None:
        """Box round what is to be labelled of an example: float [4], as `Request`'s.

        None where it is the whole crop.
        """
        ...

    def close_up(self, request: Request) -> np.ndarray | None:
        """Window of what is too small to be seen where the whole crop is drawn.

        None where it is not.
        """
        ...

    def read(self, path: Path, name: PurePosixPath) -> list[Returned] | None:
        """What a file says, told by its content; None: it is in no known format.

        Args:
          path: of the file.
          name: relative to the folder of labels.

        Raises:
          UnreadableError: it is of a known format, and not as it has to be.
        """
        ...

    def objection(self, request: Request, label: Truth) -> str:
        """Why a label cannot be that of a request; "" where nothing is against it."""
        ...

    def doubt(self, answered: Sequence[tuple[Request, Truth]]) -> str:
        """Why the labels of a file cannot all be right together; "" where they can."""
        ...

    def difference(self, before: Truth, now: Truth) -> str:
        """How two labels of an example differ; "" where they are the same."""
        ...


def is_image(path: Path) -> bool:
    """Does a file begin as an image does?"""
    with open(path, "rb") as file:
        data = file.read(16)
    return data.startswith(_IMAGES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def text_of(path: Path) -> str:
    """The text of a file; "" where it holds none.

    Raises:
      UnreadableError: it is text in another encoding than UTF-8.
    """
    data = path.read_bytes()
    if b"\0" in data[:4096] and not data.startswith(_UTF16):
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f'it is no UTF-8 ({error}): where it is a table, save it as "CSV UTF-8"; '
            "where it is no labels, take it out"
        ) from error


def read_rejected(text: str) -> list[Returned] | None:
    """A list of what nobody can label: `rejected`, then a picture's name a line."""
    lines = [line.strip() for line in text.splitlines()]
    if not lines or lines[0].lower() != REJECTED:
        return None
    return [
        Returned(name, None, f"line {number}", rejected=True)
        for number, name in enumerate(lines[1:], start=2)
        if name
    ]


def separator(line: str) -> str:
    """What stands between the cells of a table whose first line this is.

    Spreadsheets of countries that write decimals with commas separate by semicolons.
    """
    return ";" if line.count(";") > line.count(",") else ","


def read_table(text: str) -> tuple[list[str], list[dict[str, str]]] | None:
    """Columns and rows of a CSV, commas or semicolons between them; None: it is none.

    Columns are in small letters, without spaces round them. Rows that are too short
    have empty cells.

    Raises:
      UnreadableError: a row has more cells than there are columns.
    """
    if not text or text.lstrip()[:1] in ("{", "[", "<"):
        return None
    mark = separator(text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        lines = [line for line in reader if any(cell.strip() for cell in line)]
    except csv.Error:
        return None
    if not lines:
        return None
    names = [cell.strip().lower() for cell in lines[0]]
    for line in lines[1:]:
        if any(cell.strip() for cell in line[len(names) :]):
            raise UnreadableError(
                f"the row {mark.join(line)} has {len(line)} cells, and there are "
                f"{len(names)} columns: put cells with a {mark!r} in them in quotes"
            )
    rows = [
        {
            name: line[place].strip() if place < len(line) else ""
            for place, name in enumerate(names)
        }
        for line in lines[1:]
    ]
    return names, rows


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Write a CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
