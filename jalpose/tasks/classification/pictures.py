"""Classes drawn for reports; see `jalpose.tasks.pictures` for the contract.

Images and labels are read as shipped, or drawn again (shapes): the prepared records
that a run trains from may be on another machine. Keys are checked against the records
of the run.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping

import numpy as np
from ml_collections import ConfigDict

from jalpose.data import images
from jalpose.data.crops import crop_image
from jalpose.data.source import DataError
from jalpose.tasks import sheets
from jalpose.tasks.classification import drawings, shapes
from jalpose.tasks.classification.annotations import Annotations, Shipped
from jalpose.tasks.classification.shipped import SHIPPED, middle_windows
from jalpose.tasks.pictures import (
    Arrays,
    Heat,
    HeatGallery,
    Key,
    Prediction,
    Ranking,
    Terms,
)

TITLE = "image classification"
PROBABILITIES = "probabilities"  # [M, C], of the arrays of a cycle
_PASSED_ON = (
    "Whoever passes this page on passes photographs on: --no-images makes one without."
)
TERMS = {
    "cifar10": Terms(
        "CIFAR-10",
        "Photographs: CIFAR-10, A. Krizhevsky, V. Nair and G. Hinton; no terms stated.",
        "CIFAR-10 (A. Krizhevsky, 2009) is a labelled part of 80 Million Tiny Images, "
        "which were gathered from the web; no terms are stated and the photographers "
        f"keep their rights. {_PASSED_ON}",
    ),
    "cifar100": Terms(
        "CIFAR-100",
        "Photographs: CIFAR-100, A. Krizhevsky, V. Nair and G. Hinton; no terms "
        "stated.",
        "CIFAR-100 (A. Krizhevsky, 2009) is a labelled part of 80 Million Tiny Images, "
        "which were gathered from the web; no terms are stated and the photographers "
        f"keep their rights. {_PASSED_ON}",
    ),
    "svhn": Terms(
        "SVHN",
        "Photographs: Street View House Numbers, Y. Netzer et al.; for non-commercial "
        "use.",
        "Street View House Numbers (Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu "
        "and A. Ng, 2011) are cut out of Google Street View images, for "
        f"non-commercial use. {_PASSED_ON}",
    ),
    "caltech101": Terms(
        "Caltech-101",
        "Photographs: Caltech-101, L. Fei-Fei, R. Fergus and P. Perona; no terms "
        "stated.",
        "Caltech-101 (L. Fei-Fei, R. Fergus and P. Perona, 2004) was gathered from the "
        "web; no terms are stated and the photographers keep their rights. "
        f"{_PASSED_ON}",
    ),
    "imagenet": Terms(
        "ImageNet",
        "Photographs: ImageNet, J. Deng et al.; non-commercial research alone.",
        "ImageNet (J. Deng et al., 2009) is given out for non-commercial research and "
        "education to those who have agreed to its terms; the photographers keep their "
        f"rights. {_PASSED_ON}",
    ),
    "shapes": Terms(
        "drawn shapes",
        "Drawn shapes.",
        "The shapes are drawn by jalpose: no terms.",
    ),
}
_Read = Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassLibrary:
    """Labels and images of a benchmark by example id.

    Attributes:
      name: of the benchmark, `data.name`.
      classes: their names.
      keys: of the examples.
      labels: int32 [N].
      window: side of the crop, in shorter sides of the image; None: images are taken
        whole.
      image_of: of an example id the image, uint8 [H, W, 3]; raises DataError.
    """

    name: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: np.ndarray
    window: float | None
    image_of: _Read

    def crop(self, example: int, size: int) -> np.ndarray:
        """The image as it is learnt: uint8 [size, size, 3]."""
        image = self.image_of(example)
        if self.window is None:
            return drawings.fitted(image, size)
        (window,) = middle_windows(np.array([image.shape[1::-1]]), self.window)
        return crop_image(image, window, size)


def drawn_seed(config: Mapping) -> int | None:
    """What the shapes of a run are drawn from; None where photographs are its data."""
    if config.get("data", {}).get("name") != "shapes":
        return None
    own = config.get("seeds", {}).get("initial", -1)
    return config["seed"] if own < 0 else own


def open_library(config: Mapping, data_dir: str | None = None) -> ClassLibrary:
    """Open the data of a run's config; `data_dir` stands in for its `data.dir`.

    Raises:
      DataError: it cannot be read.
    """
    data, seed = config["data"], drawn_seed(config)
    if seed is not None:
        (source,), _ = shapes.benchmark(data, seed)
        return _library(data["name"], source.annotations, None, source.image)
    if data["name"] not in SHIPPED:
        raise DataError(f"no images of data.name={data['name']!r}: not known here")
    choices = [data_dir or data["dir"], os.environ.get("JALPOSE_DATA", "")]
    folder, shipped = _find(data, [choice for choice in choices if choice])
    annotations = shipped.annotations
    if data.get("damaged") == "leave_out":
        annotations = _whole(folder, shipped)
    read = _reader(folder, shipped, annotations)
    window = None if shipped.side else data["window"]
    return _library(data["name"], annotations, window, read)


def _find(data: Mapping, folders: list[str]) -> tuple[str, Shipped]:
    """The set in the first of the folders that has it."""
    refused = None
    for folder in folders:
        section = ConfigDict({**data, "dir": folder})
        try:
            shipped = SHIPPED[data["name"]](section)
            return os.path.abspath(os.path.expanduser(folder)), shipped
        except DataError as error:
            refused = refused or error
    raise refused or DataError(f"no data folder of data.name={data['name']!r}")


def _whole(folder: str, shipped: Shipped) -> Annotations:
    """Those of the examples whose images are whole, as preparation leaves them."""
    annotations = shipped.annotations
    read, rows = _reader(folder, shipped, annotations), []
    for row in range(len(annotations)):
        try:
            read(row)
            rows.append(row)
        except DataError:
            continue
    return annotations.at(rows)


def _reader(folder: str, shipped: Shipped, annotations: Annotations) -> _Read:
    def read(position: int) -> np.ndarray:
        file = annotations.files[position]
        encoded = shipped.read(folder, file, position)
        return images.decode_rgb(encoded, what=file, advice="Copy it again.")

    return read


def _library(
    name: str, annotations: Annotations, window: float | None, read: _Read
) -> ClassLibrary:
    return ClassLibrary(
        name=name,
        classes=annotations.classes,
        keys=annotations.keys,
        labels=annotations.labels,
        window=window,
        image_of=read,
    )


# Drawing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassPictures:
    """Images above the probabilities of their likeliest classes, and the true one."""

    noun = "classes"
    one = "a class"
    prediction = (PROBABILITIES,)
    legend: tuple[Key, ...] = drawings.KEYS
    heats: HeatGallery | None = None
    overview_text = ""

    @property
    def ranking(self) -> Ranking:
        """Examples by the probability of their likeliest class."""
        return Ranking(
            anchor="confidence",
            title="Most and least confident",
            text="the pool examples whose likeliest class has the highest and the "
            "lowest probability.",
            what="confidence",
            unit="probability",
            needs=frozenset({PROBABILITIES}),
            values=lambda arrays: np.asarray(arrays[PROBABILITIES], np.float64).max(
                axis=1
            ),
        )

    def draw(
        self,
        library: ClassLibrary | None,
        example: int,
        image: np.ndarray | None,
        predicted: Prediction | None,
        *,
        labelled: bool,
        size: int,
    ) -> np.ndarray | None:
        """Draw an example with its class and what was said of it."""
        probabilities = None if predicted is None else predicted[PROBABILITIES]
        true = None
        if library is not None:
            classes = library.classes
            true = int(library.labels[example]) if labelled else None
        elif probabilities is not None:  # nobody knows their names
            classes = tuple(f"class {number}" for number in range(len(probabilities)))
        else:
            return None
        ground = sheets.ground(size) if image is None else image
        return drawings.draw(ground, drawings.bars(classes, true, probabilities), size)

    def overview(self, arrays: Arrays, example: int) -> Heat | None:
        """No maps are kept."""
        del arrays, example
        return None


def make_pictures(config: Mapping) -> ClassPictures:
    """Pictures of a run's examples."""
    del config
    return ClassPictures()
