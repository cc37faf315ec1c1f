"""Drawn shapes: a data set of eight classes from a seed, without a single file.

A shape of any size, place, turn and colour lies on a ground of stripes and noise, and
part of it may be hidden. Mirrored, it is the same class. Example i of a source depends
on (seed, start + i) alone, its class included.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from jalpose.tasks.classification.annotations import Annotations

CLASSES = ("disc", "ring", "half disc", "triangle", "square", "cross", "star", "bars")
_CLASS, _LOOK = range(2)  # random streams of an example
_TIMES = 4  # drawn so many times larger
_HIDDEN = 0.3  # share of the shapes that a bar lies over


class ShapeSource:
    """`num_examples` drawn shapes with their classes; images are drawn on demand.

    Attributes:
      name: of the set.
      annotations: labels.
    """

    def __init__(
        self,
        num_examples: int,
        seed: int,
        size: int,
        name: str = "shapes",
        start: int = 0,
        test: bool = False,
    ):
        """Choose the classes, all alike.

        Args:
          num_examples: how many.
          seed: sources of one seed share examples where their numbers `start ..
            start + num_examples - 1` overlap, and only there.
          size: height and width of the images, pixels.
          name: what keys begin with.
          start: number of the first.
          test: they are for tests alone.
        """
        self.name, self._seed, self._start, self._size = name, seed, start, size
        numbers = range(start, start + num_examples)
        keys = tuple(f"{name}/{number:06d}" for number in numbers)
        labels = [
            np.random.default_rng([seed, number, _CLASS]).integers(len(CLASSES))
            for number in numbers
        ]
        self.annotations = Annotations(
            keys=keys,
            files=keys,
            labels=np.array(labels, np.int32),
            test=np.full(num_examples, test),
            classes=CLASSES,
        )

    def image(self, index: int) -> np.ndarray:
        """Draw image `index`: uint8 [H, W, 3], RGB."""
        if not 0 <= index < len(self.annotations):
            raise IndexError(f"{index=} of {len(self.annotations)} shapes")
        rng = np.random.default_rng([self._seed, self._start + index, _LOOK])
        return draw(int(self.annotations.labels[index]), self._size, rng)


def benchmark(
    data: Mapping[str, Any], seed: int
) -> tuple[tuple[ShapeSource], list[np.ndarray]]:
    """The drawn benchmark: its source, and the ids of its parts.

    Args:
      data: the config's section, with size, initial, pool and test (0: 1000 and 300).
      seed: of the shapes.

    Returns:
      The source, and the ids of the examples labelled at the start, of the pool and of
      the test set.
    """
    initial, pool, test = data["initial"], data["pool"] or 1000, data["test"] or 300
    ids = np.arange(initial + pool + test)
    source = ShapeSource(len(ids), seed, data["size"])
    return (source,), np.split(ids, [initial, initial + pool])


def draw(label: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """An image of a class: uint8 [size, size, 3]."""
    side = size * _TIMES
    ground, ink = rng.integers(30, 226, (2, 3))
    while np.abs(ground - ink).sum() < 120:
        ink = rng.integers(30, 226, 3)
    picture = Image.fromarray(_striped(ground, side, rng))
    radius = side * rng.uniform(0.2, 0.36)
    centre = rng.uniform(radius, side - radius, 2)
    mask = Image.new("L", (side, side))
    _shape(ImageDraw.Draw(mask), CLASSES[label], centre, radius, rng.uniform(0, 360))
    picture.paste(tuple(ink.tolist()), mask=mask)
    if rng.random() < _HIDDEN:
        colour = tuple(rng.integers(30, 226, 3).tolist())
        places = centre + rng.uniform(-0.8, 0.8, (2, 2)) * radius
        width = round(0.22 * radius)
        ImageDraw.Draw(picture).line(places.ravel().tolist(), colour, width)
    small = np.asarray(picture.reduce(_TIMES), np.float64)
    noise = rng.normal(0, 12, small.shape)
    return np.clip(np.round(small + noise), 0, 255).astype(np.uint8)


def _striped(colour: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A ground of faint stripes: uint8 [side, side, 3]."""
    across, down = np.meshgrid(np.arange(side), np.arange(side))
    angle, length = rng.uniform(0, np.pi), side * rng.uniform(0.1, 0.5)
    along = across * np.cos(angle) + down * np.sin(angle)
    wave = np.sin(2 * np.pi * along / length + rng.uniform(0, 2 * np.pi))
    shades = colour + rng.uniform(5, 25) * wave[..., None]
    return np.clip(shades, 0, 255).astype(np.uint8)


def _shape(pen, name: str, centre: np.ndarray, radius: float, turn: float) -> None:
    """Fill a shape in a mask."""

    def corners(count: int, radii=(1.0,)) -> list[tuple[float, float]]:
        angles = np.radians(turn + 360 / count * np.arange(count))
        lengths = radius * np.resize(radii, count)
        places = (
            centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)]).T
        )
        return [(float(x), float(y)) for x, y in places]

    def bar(shift: float, length: float, width: float, more: float = 0) -> None:
        angle = np.radians(turn + more)
        along = np.array([np.cos(angle), np.sin(angle)])
        aside = np.array([-along[1], along[0]])
        ends = [
            centre + radius * (u * length * along + (shift + v * width) * aside)
            for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
        pen.polygon([(float(x), float(y)) for x, y in ends], fill=255)

    box = [*(centre - radius), *(centre + radius)]
    if name == "disc":
        pen.ellipse(box, fill=255)
    elif name == "ring":
        pen.ellipse(box, outline=255, width=round(0.36 * radius))
    elif name == "half disc":
        pen.pieslice(box, turn, turn + 180, fill=255)
    elif name == "triangle":
        pen.polygon(corners(3), fill=255)
    elif name == "square":
        pen.polygon(corners(4), fill=255)
    elif name == "star":
        pen.polygon(corners(10, (1.0, 0.42)), fill=255)
    elif name == "cross":
        bar(0, 1, 0.24)
        bar(0, 1, 0.24, 90)
    else:
        for shift in (-0.66, 0, 0.66):
            bar(shift, 0.9, 0.18)
