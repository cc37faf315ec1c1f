"""Classes of a data set looked through: how common each is, what looks wrong.

See `jalpose.tasks.overviews` for the contract.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jalpose.data import inventory
from jalpose.data.dataset import Dataset
from jalpose.data.inventory import Group
from jalpose.tasks.classification import checks, drawings
from jalpose.tasks.classification.annotations import classes_of
from jalpose.tasks.overviews import Heading, Overview, Summary
from jalpose.tasks.pictures import Key

SIZE = 320  # pixels of a picture
MOST_CLASSES = 40  # of which every one has a row
_ENDS = 12  # rows of each end, of more classes
_QUANTILES = {"least": 0, "5 %": 5, "median": 50, "95 %": 95, "most": 100}
_WINDOW = (255, 80, 200)  # colour of the crop window


def overview(config: ConfigDict, dataset: Dataset) -> Overview:
    """Tables, findings and pictures of the classes of a data set."""
    del config
    classes = classes_of(dataset)
    groups = inventory.groups(dataset)
    legend = [Key("class", drawings.TRUE, 8)]
    if dataset.windows is not None:
        legend.append(Key("crop window", _WINDOW, 2))
    return Overview(
        tables=(_classes(dataset, groups, classes), _balance(dataset, groups, classes)),
        findings=tuple(checks.of_dataset(dataset)),
        labelled=dataset.truth["class"] >= 0,
        draw=functools.partial(draw, classes),
        legend=tuple(legend),
    )


def draw(
    classes: tuple[str, ...],
    image: np.ndarray,
    window: np.ndarray | None,
    truth: Mapping[str, Any],
) -> np.ndarray:
    """The whole image above its class, with its crop window."""
    if window is not None:
        canvas = Image.fromarray(image)
        x, y, side = (float(value) for value in window)
        low_x, low_y = x + 0.5 - side / 2, y + 0.5 - side / 2
        width = max(1, round(max(image.shape[:2]) / 150))
        ends = [low_x, low_y, low_x + side - 1, low_y + side - 1]
        ImageDraw.Draw(canvas).rectangle(ends, outline=_WINDOW, width=width)
        image = np.asarray(canvas)
    label = drawings.bars(classes, int(truth["class"]), None)
    return drawings.draw(image, label, SIZE, room_for=1)


def _counts(dataset: Dataset, group: Group, classes: Sequence[str]) -> np.ndarray:
    labels = dataset.truth["class"][group.ids]
    return np.bincount(labels[labels >= 0], minlength=len(classes))


def _classes(
    dataset: Dataset, groups: Sequence[Group], classes: tuple[str, ...]
) -> Summary:
    """How many examples of each class there are."""
    counts = [_counts(dataset, group, classes) for group in groups]
    order, notes = np.arange(len(classes)), []
    if len(classes) > MOST_CLASSES:
        commonest = np.argsort(-sum(counts), kind="stable")
        order = np.concatenate([commonest[:_ENDS], commonest[-_ENDS:]])
        notes = [
            f"The {_ENDS} commonest and the {_ENDS} rarest of {len(classes)} classes."
        ]
    headings = [Heading("class")]
    columns: list[list[Any]] = [[classes[number] for number in order]]
    for group, found in zip(groups, counts, strict=True):
        headings += [
            Heading("examples", "d", group.title),
            Heading("%", ".1f", group.title),
        ]
        chosen = found[order]
        columns.append(chosen.tolist())
        columns.append((100 * chosen / max(1, found.sum())).tolist())
    return Summary(
        name="classes",
        caption="Classes: examples, and percent of those of a known class",
        headings=tuple(headings),
        rows=tuple(zip(*columns, strict=True)),
        notes=tuple(notes),
    )


def _balance(
    dataset: Dataset, groups: Sequence[Group], classes: tuple[str, ...]
) -> Summary:
    """Quantiles of the number of examples a class."""
    rows = []
    for group in groups:
        found = _counts(dataset, group, classes)
        unknown = len(group.ids) - int(found.sum())
        quantiles = np.percentile(found, list(_QUANTILES.values())).tolist()
        rows.append(
            (group.set, group.part, int((found > 0).sum()), *quantiles, unknown)
        )
    return Summary(
        name="balance",
        caption=f"Examples a class, of {len(classes)} classes: quantiles over them",
        headings=(
            Heading("set"),
            Heading("part"),
            Heading("classes there", "d"),
            *(Heading(words, ".0f", "examples,") for words in _QUANTILES),
            Heading("of no known class", "d"),
        ),
        rows=tuple(rows),
    )
