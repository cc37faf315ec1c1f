"""New images to a trained network of classes: opened, predicted, written, drawn.

New images are a folder or an image, each cut in its middle as those that were learnt
from. Written is

    predictions.csv    file, class, probability, then the probability of every class
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jalpose.data import files
from jalpose.data.dataset import Dataset
from jalpose.data.loose import Looked, LooseImages
from jalpose.data.source import DataError
from jalpose.tasks.classification.annotations import (
    UNLABELLED,
    Annotations,
    classes_of,
)
from jalpose.tasks.classification.folders import LAYOUTS
from jalpose.tasks.classification.labels import ClassLabels
from jalpose.tasks.classification.shapes import CLASSES as SHAPES
from jalpose.tasks.classification.shipped import SHIPPED, middle_windows
from jalpose.tasks.exchange import write_table
from jalpose.tasks.inference import (
    Look,
    Opened,
    Outputs,
    Place,
    as_dataset,
    check_there,
)
from jalpose.tasks.labels import Predicted


def outputs_of(dataset: Dataset) -> Outputs:
    """The classes of a data set as JSON has them."""
    return {"classes": list(classes_of(dataset))}


def find_outputs(config: ConfigDict) -> Outputs:
    """The classes of a config's data: known, or read from the set as shipped.

    Raises:
      DataError: it is not there.
    """
    data = config.data
    if data.name not in SHIPPED:
        return {"classes": list(SHAPES)}
    return {"classes": list(SHIPPED[data.name](data).annotations.classes)}


def make_labels(config: ConfigDict, outputs: Outputs) -> ClassLabels:
    """Labels that draw predictions."""
    return ClassLabels(classes=tuple(outputs["classes"]), bins=config.evaluation.bins)


def decoding(config: ConfigDict) -> dict[str, Any]:
    """How a class is read off logits."""
    return {
        "output": "logits [batch, classes]",
        "words": "The class is that of the highest logit; its probability is the "
        "softmax.",
        "crop": "square, round the middle of the image, `window` shorter sides of it; "
        "bilinear",
        "window": _window(config),
    }


def open_images(
    config: ConfigDict, outputs: Outputs, place: Place, look: Look
) -> Opened:
    """New images of which nobody knows the class, see `tasks.inference`.

    Raises:
      DataError: there is none.
    """
    path = check_there(place)
    if files.is_folder(path):
        folder, names = path, files.images_below(path)
    elif path.lower().endswith(files.ENDINGS):
        folder, names = os.path.dirname(path), [os.path.basename(path)]
    else:
        raise DataError(
            f"--images={place.images} is neither a folder nor an image: of classes, "
            "name the folder that holds the images"
        )
    looked = look(folder, names)
    if not looked.files:
        raise DataError(
            f"no image is left of --images={place.images}: all {len(names)} are damaged"
        )
    return Opened(
        dataset=_dataset(looked, outputs, _window(config)),
        folder=folder,
        whole=np.ones(len(looked.files), bool),
        damaged=looked.damaged,
        notes=looked.notes,
    )


def named(outputs: Outputs) -> Dataset:
    """A data set of classes and no image."""
    nothing = Looked("", (), np.zeros((0, 2), np.int32), (), {})
    return _dataset(nothing, outputs, 1.0)


def _dataset(looked: Looked, outputs: Outputs, window: float) -> Dataset:
    count = len(looked.files)
    annotations = Annotations(
        keys=looked.files,
        files=looked.files,
        labels=np.full(count, UNLABELLED, np.int32),
        test=np.zeros(count, bool),
        classes=tuple(outputs["classes"]),
    )
    source = LooseImages("new images", annotations, looked)
    windows = middle_windows(source.sizes, window)
    return as_dataset(source, {"class": annotations.labels}, windows)


def _window(config: ConfigDict) -> float:
    """Side of the crop in shorter sides; sets of one size are learnt whole."""
    return config.data.window if config.data.name in LAYOUTS else 1.0


def write(
    folder: Path, config: ConfigDict, opened: Opened, predicted: Predicted
) -> None:
    """Write `predictions.csv`."""
    del config
    classes = classes_of(opened.dataset)
    rows = [
        (file, classes[said], f"{shares[said]:.6f}", *(f"{s:.6f}" for s in shares))
        for file, said, shares in zip(
            opened.dataset.files,
            predicted["class"].tolist(),
            predicted["probabilities"].tolist(),
            strict=True,
        )
    ]
    columns = ("file", "class", "probability", *(f"p({name})" for name in classes))
    write_table(folder / "predictions.csv", columns, rows)


def draw(
    config: ConfigDict, opened: Opened, predicted: Predicted, most: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The first images above their likeliest classes: (file name, picture)."""
    labels = make_labels(config, outputs_of(opened.dataset))
    for row, file in enumerate(opened.dataset.files[:most]):
        own = {name: values[row] for name, values in predicted.items()}
        yield file, labels.draw(opened.dataset.image(row), None, None, own, "")
