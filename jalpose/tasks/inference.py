"""The contract of a task's inference: a trained network's use on new images.

New images are a data set whose examples are all in its pool, and of which no label is
known. NumPy alone. The module `inference` of a task has

    outputs_of(dataset) -> Outputs           names of what a network says, by its data
    find_outputs(config) -> Outputs          the same, by the files that describe them
    named(outputs) -> Dataset                no example, but the names: for `make_task`
    open_images(config, outputs, place, look) -> Opened
    make_labels(config, outputs) -> Labels   to place and draw predictions; no scores
    write(folder, config, opened, predicted)      files of predictions
    draw(config, opened, predicted, most) -> pictures, (name, uint8 [H, W, 3])
    decoding(config) -> dict                 how a prediction is read off, for people

`Outputs` are plain, as JSON has them: a run writes them into its `config.json`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jalpose.data.dataset import Dataset, join_sources
from jalpose.data.files import is_file, is_folder
from jalpose.data.loose import Looked
from jalpose.data.source import DataError

Outputs = dict[str, Any]
Look = Callable[[str, Sequence[str]], Looked]  # folder, files -> what was found

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


class Place(NamedTuple):
    """Where new images are.

    Attributes:
      images: a folder of images, an image, or a file that names images.
      folder: of the images that a file names; "": looked for near the file.
    """

    images: str
    folder: str = ""


class Opened(NamedTuple):
    """New images, opened.

    Attributes:
      dataset: of them.
      folder: that its files are relative to.
      whole: bool [N], of which examples the whole image is taken.
      damaged: file -> why it was left out.
      notes: what is not as a user may think.
      about: what the task needs to write predictions beside.
    """

    dataset: Dataset
    folder: str
    whole: np.ndarray
    damaged: Mapping[str, str]
    notes: tuple[str, ...] = ()
    about: Any = None


def check_there(place: Place) -> str:
    """The absolute path of new images; DataError where they cannot be any."""
    path = os.path.abspath(os.path.expanduser(place.images))
    if path.lower().endswith(VIDEOS):
        raise DataError(
            f"--images={place.images} is a video, and its frames are not read from it: "
            "make pictures of them first, e.g. by `mkdir frames && ffmpeg -i "
            f"{place.images} -vf fps=5 frames/%06d.png` (5 a second), and name that "
            "folder"
        )
    if not is_folder(path) and not is_file(path):
        raise DataError(
            f"--images={place.images}: there is no such folder or file ({path})"
        )
    return path


def as_dataset(source, truth: Mapping[str, np.ndarray], windows: np.ndarray) -> Dataset:
    """A data set of new images: all in the pool, without labels."""
    count = len(source.annotations)
    nobody = np.zeros(0, np.int64)
    found = join_sources(
        [source],
        initial=nobody,
        pool=np.arange(count),
        test=nobody,
        truth=truth,
        windows=windows,
    )
    return dataclasses.replace(found, pool_labelled=False, holds_out=False)
