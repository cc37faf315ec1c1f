"""What people are given to label: `<workdir>/to_label/cycle_NN/`.

    index.html        contact sheet: predictions, why each was chosen, what to do
    tiles/            its pictures
    images/           the images, copied or linked (`oracle.copy`)
    selection.csv     rank, id, name, key, file, box, score, why
    requests.json     the same, as it is read again
    ...               what the task writes for annotation tools

A picture handed out is called `<id>_<end of the key>`: the id is in the name, which
every tool keeps. Each example has a picture of its own, so that two people in one image
are not taken for one another. With `oracle.copy=none` an image is known by its file.
"""

import functools
import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from jalpose.data import images
from jalpose.data.dataset import Dataset
from jalpose.data.prepared import digest_of
from jalpose.data.source import DataError
from jalpose.oracles import contact_sheet, reasons
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.storage.arrays import IDS, PEAKS, SCORES
from jalpose.storage.folders import atomic_folder
from jalpose.tasks.exchange import Exchange, Request, write_table
from jalpose.tasks.labels import Labels
from jalpose.tasks.sheets import CASING, PAPER

FOLDER, INDEX, SELECTION, IMAGES = (
    "to_label",
    "requests.json",
    "selection.csv",
    "images",
)
_ENDING = re.compile(r"\.(?:jpe?g|png|tiff?|bmp|webp|gif)(#|$)", re.IGNORECASE)
_SHOWN = (".jpg", ".jpeg", ".png")  # as every annotation tool shows them


class Choice(NamedTuple):
    """What was chosen, and by what.

    Attributes:
      ids: of the examples, the first pick first.
      arrays: see `storage.arrays`: `ids` of all that was scored, their `scores`, the
        method's explanation, and the predictions of those chosen.
      method: that chose.
      cycle: of the run; None: chosen once, outside a run.
    """

    ids: np.ndarray
    arrays: Mapping[str, np.ndarray]
    method: str
    cycle: int | None = None


class Handout:
    """Writes what is to be labelled.

    Args:
      workdir: of the run.
      dataset: the benchmark.
      labels: of the task.
      exchange: of the task.
      data_dir: that files of the dataset are relative to.
      copy: see `oracle.copy`.
    """

    def __init__(
        self,
        workdir,
        dataset: Dataset,
        labels: Labels,
        exchange: Exchange,
        data_dir: str,
        copy: str,
    ):
        self._workdir, self._dataset = Path(workdir), dataset
        self._labels, self._exchange = labels, exchange
        self._data_dir, self._copy = Path(os.path.expanduser(data_dir)), copy

    def folder(self, cycle: int) -> Path:
        """Where the choice of a cycle is handed out."""
        return self._workdir / FOLDER / f"cycle_{cycle:02d}"

    def write(self, cycle: int, ids: np.ndarray) -> None:
        """Write the folder of a cycle; where it is there already, do nothing.

        Raises:
          WorkdirError: other examples are handed out there, or it holds other files.
          ConfigError: images are neither files nor copied; or two examples of one file
            could not be told apart.
        """
        folder = self.folder(cycle)
        if (folder / INDEX).is_file():
            there = [one.id for one in read_index(folder)]
            if there != ids.tolist():
                raise records.WorkdirError(
                    f"{folder} hands out other examples than were chosen: move it "
                    "away, and start the same command again"
                )
            return
        if folder.is_dir() and any(folder.iterdir()):
            raise records.WorkdirError(
                f"{folder} is there without its {INDEX}: what else is in it is not "
                "written over. Move it away, and start the same command again"
            )
        arrays = records.read_arrays(self._workdir, cycle)
        method = records.read_cycles(self._workdir)[cycle]["acquisition"]["method"]
        with atomic_folder(folder) as temporary:
            self.fill(temporary, Choice(ids, arrays, method, cycle))

    def fill(self, folder: Path, choice: Choice) -> None:
        """Write what was chosen into a folder that is empty.

        Raises:
          ConfigError: see `write`.
        """
        arrays, method = choice.arrays, choice.method
        within = "" if self._copy == "none" else IMAGES
        if within:
            (folder / IMAGES).mkdir()
        requests: list[Request] = []
        tiles: list[list[str]] = []
        pictures = folder / contact_sheet.TILES
        pictures.mkdir()
        for rank, example in enumerate(choice.ids.tolist(), start=1):
            image = self._dataset.image(example)
            row = int(np.searchsorted(arrays[IDS], example))
            score = float(arrays[SCORES][row])
            windows, box = self._dataset.windows, self._exchange.box_of(example)
            window = None if windows is None else windows[example]
            size = image.shape[1], image.shape[0]
            recorded = (*self._labels.recorded, PEAKS)
            one = Request(
                rank=rank,
                id=example,
                name=self._hand_out(example, image, folder),
                key=self._dataset.keys[example],
                file=self._dataset.files[example],
                size=size,
                window=window,
                box=box_within(size, window, box),
                score=score if np.isfinite(score) else None,
                why=reasons.why(
                    arrays, row, method, self._exchange.sites, self._dataset.keys
                ),
                predicted={
                    name: np.asarray(arrays[name][row])
                    for name in recorded
                    if name in arrays
                },
            )
            tiles.append([])
            shown = image if box is None else _with_box(image, one)
            for number, part in enumerate((window, self._exchange.close_up(one))):
                if number == 0 or part is not None:
                    tile = self._labels.draw(shown, part, None, one.predicted, "")
                    tiles[-1].append(f"{rank:04d}{'_close' if number else ''}.png")
                    (pictures / tiles[-1][-1]).write_bytes(_png(tile))
            requests.append(one)
        self._refuse_same_names(requests)
        legend = self._labels.legend(contact_sheet.NARROW, labelled=False)
        (pictures / contact_sheet.LEGEND).write_bytes(_png(legend))
        _write_index(folder, choice.cycle, requests)
        _write_selection(folder, requests)
        self._exchange.write(folder, requests, within)
        tools = {
            tool: [name for name in files if (folder / name).is_file()]
            for tool, files in self._exchange.tools.items()
        }
        page = contact_sheet.page(choice.cycle, method, requests, tiles, tools, within)
        (folder / contact_sheet.PAGE).write_text(page, encoding="utf-8", newline="")

    def _hand_out(self, example: int, image: np.ndarray, folder: Path) -> str:
        """Put an image into the folder; the name it goes by.

        The file as it is, where every tool shows its pixels as they are stored; else
        the pixels the model saw, as PNG.
        """
        file = self._dataset.files[example]
        path = self._data_dir / file
        if self._copy == "none":
            if not path.is_file():
                raise ConfigError(
                    f"oracle.copy=none leaves images where they are, and {file!r} is "
                    f"no file of {str(self._data_dir)!r}: set oracle.copy=copy"
                )
            return file
        stem = f"{example:06d}_{_slug(self._dataset.keys[example])}"
        suffix = path.suffix.lower()
        if suffix in _SHOWN and self._shown_as_stored(example, path):
            target = folder / IMAGES / f"{stem}{suffix}"
            if self._copy == "link":
                os.symlink(path.resolve(), target)
            else:
                shutil.copyfile(path, target)
            return target.name
        (folder / IMAGES / f"{stem}.png").write_bytes(_png(image))
        return f"{stem}.png"

    def _shown_as_stored(self, example: int, path: Path) -> bool:
        """Is it the file of the example, and not turned by its EXIF orientation?"""
        try:
            encoded = path.read_bytes()
            rotated = images.facts(encoded, what=str(path), advice="").rotated
        except (OSError, DataError):
            return False
        known = self._digests[example]
        return not rotated and known in ("", digest_of(encoded).hex())

    @functools.cached_property
    def _digests(self) -> tuple[str, ...]:
        return self._dataset.digests

    def _refuse_same_names(self, requests: Sequence[Request]) -> None:
        first: dict[str, Request] = {}
        for one in requests:
            other = first.setdefault(one.name, one)
            if other is not one:
                raise ConfigError(
                    f"{other.key} and {one.key} are in one image, {one.file!r}, and "
                    "with oracle.copy=none their labels could not be told apart: set "
                    "oracle.copy=copy or link"
                )


def read_index(folder: Path) -> list[Request]:
    """The requests of a folder, without their predictions.

    Raises:
      WorkdirError: its index is damaged.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_bytes())
        return [
            Request(
                **{
                    **one,
                    "size": tuple(one["size"]),
                    "box": tuple(one["box"]),
                    "window": None
                    if one["window"] is None
                    else np.array(one["window"], np.float32),
                },
                predicted={},
            )
            for one in content["requests"]
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise records.WorkdirError(
            f"{path} is damaged: {error}. Move {folder} away: it is written again if "
            "it is of the cycle that waits"
        ) from error


def box_within(
    size: tuple[int, int], window: np.ndarray | None, box: np.ndarray | None
) -> tuple[float, float, float, float]:
    """The part of an image that a box, or else a crop window, covers: see `Request`."""
    whole = np.array([-0.5, -0.5, size[0] - 0.5, size[1] - 0.5])
    if box is None:
        if window is None:
            box = whole
        else:
            x, y, side = window.astype(np.float64)
            box = np.array([x, y, x, y]) + side / 2 * np.array([-1, -1, 1, 1])
    found = np.clip(box, np.tile(whole[:2], 2), np.tile(whole[2:], 2))
    return tuple(round(value, 2) for value in found.tolist())


def _write_index(folder: Path, cycle: int | None, requests: Sequence[Request]) -> None:
    entries = []
    for one in requests:
        entry = one._asdict()
        del entry["predicted"]
        entry["window"] = None if one.window is None else one.window.tolist()
        entries.append(entry)
    text = json.dumps({"cycle": cycle, "requests": entries}, indent=1)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8", newline="")


def _write_selection(folder: Path, requests: Sequence[Request]) -> None:
    rows = [
        (
            one.rank,
            one.id,
            one.name,
            one.key,
            one.file,
            " ".join(f"{value:.1f}" for value in one.box),
            "" if one.score is None else f"{one.score:.6g}",
            one.why,
        )
        for one in requests
    ]
    columns = ("rank", "id", "name", "key", "file", "box", "score", "why")
    write_table(folder / SELECTION, columns, rows)


def _slug(key: str) -> str:
    """The end of a key in letters and digits alone, without what files end with."""
    end = _ENDING.sub(r"\1", key.rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9]+", "-", end).strip("-")[-40:] or "example"


def _with_box(image: np.ndarray, one: Request) -> np.ndarray:
    """The image with the box that says who is meant, for where he is drawn large."""
    side = max(image.shape[:2]) if one.window is None else float(one.window[2])
    width = max(1, round(min(side, max(image.shape[:2])) / 100))
    drawn = Image.fromarray(image)
    pen, box = ImageDraw.Draw(drawn), [round(value) for value in one.box]
    for inset, colour in ((0, CASING), (width, PAPER)):
        corners = [v + inset if n < 2 else v - inset for n, v in enumerate(box)]
        if corners[0] < corners[2] and corners[1] < corners[3]:
            pen.rectangle(corners, outline=colour, width=width)
    return np.asarray(drawn)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
