"""Pictures of single examples, from the data set a run names in its config.

Images and labels are read as shipped (LSP, LSPET, MPII) or drawn again (figures): the
prepared records that a run trains from need a reader this package does not have. Where
the data cannot be read, or photographs are not wanted, poses stand on an empty ground.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from PIL import Image

from jalpose.data.crops import crop_image, crop_windows, to_crop
from jalpose.data.source import DataError
from jalpose.tasks.pose import drawings, lsp, mpii, skeletons
from jalpose.tasks.pose.figures import FigureSource

GROUND = 96  # grey level under poses without an image
_Read = Callable[[int], np.ndarray]
_SETS = {"lsp": ("lsp", "lspet"), "mpii": ("mpii",), "figures": ("figures",)}

# Whose pictures they are, for the line under a gallery, and the rest of it.
TERMS = {
    "lsp": (
        "Photographs: Leeds Sports Pose and its extension, S. Johnson and "
        "M. Everingham; research use, no terms stated.",
        "Leeds Sports Pose (BMVC 2010) and Leeds Sports Pose Extended (CVPR 2011) "
        "were gathered and annotated by S. Johnson and M. Everingham from Flickr, "
        "whose photographers and sitters keep their rights. The authors state no "
        "terms; they are shown here for research. Whoever passes this page on passes "
        "photographs of people on: --no-images makes one without.",
    ),
    "mpii": (
        "Photographs: MPII Human Pose, M. Andriluka, L. Pishchulin, P. Gehler and "
        "B. Schiele; research use.",
        "MPII Human Pose (CVPR 2014) was gathered by M. Andriluka, L. Pishchulin, "
        "P. Gehler and B. Schiele from YouTube videos and is given out for research; "
        "its annotations are under the Simplified BSD licence. Whoever passes this "
        "page on passes photographs of people on: --no-images makes one without.",
    ),
    "figures": (
        "Drawn figures: nobody is shown.",
        "The figures are drawn by jalpose: nobody is shown, no terms.",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Library:
    """Labels and images of a benchmark by example id.

    Attributes:
      name: of the benchmark, `data.name`.
      image_of: of an example id the image, uint8 [H, W, 3]; raises DataError.
    """

    name: str
    skeleton: skeletons.Skeleton
    keys: tuple[str, ...]
    files: tuple[str, ...]
    joints: np.ndarray
    status: np.ndarray
    windows: np.ndarray
    image_of: Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """One encoded picture; `photograph`: an image is in it, not a pose alone."""

    data: bytes
    mime: str
    photograph: bool


def drawn_seed(config: Mapping) -> int | None:
    """What the figures of a run are drawn from; None where photographs are its data.

    Figures of two seeds have the same keys and are not the same.
    """
    if config.get("data", {}).get("name") != "figures":
        return None
    own = config.get("seeds", {}).get("initial", -1)
    return config["seed"] if own < 0 else own


def open_library(config: Mapping, data_dir: str | None = None) -> Library:
    """Open the data of a run's config; `data_dir` stands in for its `data.dir`.

    Raises:
      DataError: it cannot be read.
    """
    data, seed = config["data"], drawn_seed(config)
    if data["name"] not in _SETS:
        raise DataError(f"no images of data.name={data['name']!r}: not known here")
    if seed is not None:
        # The same two sources as `data.registry` lays end to end; that module reaches
        # TFDS, which the report does without. Keys are checked against the records.
        pool, test = data["pool"] or 1000, data["test"] or 300
        sources = [
            FigureSource(data["initial"], seed, 0.0, name="labelled"),
            FigureSource(
                pool + test,
                seed,
                data["rare"],
                name="figures",
                start=data["initial"],
            ),
        ]
        annotations = [source.annotations for source in sources]
        images: list[_Read] = [source.image for source in sources]
    else:
        folder = find_folder(data["name"], data_dir or data["dir"])
        if data["name"] == "mpii":
            options = mpii.Options(
                **{key: data["mpii"][key] for key in mpii.Options._fields[:3]},
                placed=data["crop"] != "joints",
            )
            labels = mpii.read_annotations(folder, options.annotation)
            annotations = [mpii.choose(labels, options)]
        else:
            annotations = [lsp.read_annotations(n, folder) for n in _SETS["lsp"]]
        images = [_reader(folder, labels.files) for labels in annotations]
    skeleton = skeletons.MPII if data["name"] == "mpii" else skeletons.LSP
    lengths = [len(labels) for labels in annotations]
    windows = [
        crop_windows(labels, data["crop"], data["window"]) for labels in annotations
    ]
    return Library(
        name=data["name"],
        skeleton=skeleton,
        keys=tuple(key for labels in annotations for key in labels.keys),
        files=tuple(file for labels in annotations for file in labels.files),
        joints=np.concatenate([labels.joints for labels in annotations]),
        status=np.concatenate([labels.status for labels in annotations]),
        windows=np.concatenate(windows),
        image_of=lambda example: _image(images, lengths, example),
    )


def find_folder(name: str, recorded: str) -> str:
    """The data folder: as recorded, or where that is not here, $JALPOSE_DATA."""
    choices = [recorded, os.environ.get("JALPOSE_DATA", "")]
    for choice in choices:
        folder = os.path.abspath(os.path.expanduser(choice))
        if choice and all(os.path.isdir(os.path.join(folder, s)) for s in _SETS[name]):
            return folder
    return os.path.abspath(os.path.expanduser(recorded))


def check_keys(library: Library, rows: Iterable[Mapping]) -> None:
    """Raise DataError where rows of a selection name other examples than these."""
    for row in rows:
        known = library.keys[row["id"]] if row["id"] < len(library.keys) else "nothing"
        if row["key"] != known:
            raise DataError(
                f"example {row['id']} of the run is {row['key']}, but {known} in the "
                "data at hand: not the same data"
            )


class Pictures:
    """Draws examples of one run's data, and remembers what it could not read.

    Args:
      library: None where the data cannot be read.
      skeleton: of the predictions.
      photographs: False draws every pose on an empty ground.
    """

    def __init__(
        self,
        library: Library | None,
        skeleton: skeletons.Skeleton,
        photographs: bool = True,
    ):
        self.library, self.skeleton = library, skeleton
        self.photographs = photographs
        self.unreadable: dict[int, str] = {}
        self._crops: dict[tuple[int, int], np.ndarray | None] = {}

    def key(self, example: int) -> str:
        """Name of an example: its key, or its id where keys cannot be read."""
        return self.library.keys[example] if self.library else f"example {example}"

    def tile(
        self,
        example: int,
        predicted: np.ndarray | None = None,
        *,
        labelled: bool = True,
        size: int = 208,
    ) -> Tile | None:
        """Draw an example as the network sees it, `size` pixels square.

        Args:
          example: its id.
          predicted: [J, 2], image pixels.
          labelled: draw the label too, where it can be read.
          size: of the picture.

        Returns:
          None where there is nothing to draw: no image, no label, no prediction.
        """
        library = self.library
        window, joints, status = None, None, None
        if library is not None:
            window = library.windows[example]
            joints, status = library.joints[example], library.status[example]
        elif predicted is not None and np.isfinite(predicted).all(axis=1).any():
            window = _window_round(predicted)
        if window is None or (joints is None and predicted is None):
            return None
        image = self._crop(example, window, size)
        photograph = image is not None
        if image is None:
            image = np.full((size, size, 3), GROUND, np.uint8)
        picture = drawings.draw_prediction(
            image,
            None if predicted is None else to_crop(predicted, window, size),
            to_crop(joints, window, size) if labelled and joints is not None else None,
            status,
            self.skeleton,
            size=size,
        )
        return encode(picture, photograph)

    def heat(
        self,
        example: int,
        values: np.ndarray,
        places: np.ndarray,
        *,
        size: int = 176,
    ) -> Tile:
        """Draw a heatmap [h, w] over an example, with its peaks; see `drawings`."""
        image = None
        if self.library is not None:
            image = self._crop(example, self.library.windows[example], size)
        photograph = image is not None
        if image is None:
            image = np.full((size, size, 3), GROUND, np.uint8)
        return encode(drawings.draw_heatmap(image, values, places), photograph)

    def _crop(self, example, window, size):
        if not self.photographs or self.library is None:
            return None
        if (example, size) not in self._crops:
            crop = None
            try:
                crop = crop_image(self.library.image_of(example), window, size)
            except DataError as error:
                self.unreadable[example] = str(error)
            self._crops[example, size] = crop
        return self._crops[example, size]


def encode(picture: np.ndarray, photograph: bool) -> Tile:
    """JPEG of what holds a photograph, PNG of what is drawn."""
    buffer = io.BytesIO()
    if photograph:
        Image.fromarray(picture).save(buffer, "JPEG", quality=80, optimize=True)
    else:
        Image.fromarray(picture).quantize(64).save(buffer, "PNG", optimize=True)
    mime = "image/jpeg" if photograph else "image/png"
    return Tile(data=buffer.getvalue(), mime=mime, photograph=photograph)


def _window_round(predicted: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(predicted, axis=0), np.nanmax(predicted, axis=0)
    side = max(1.4 * float((high - low).max()), 8.0)
    return np.array([*((low + high) / 2), side], np.float32)


def _reader(folder: str, files: tuple[str, ...]) -> _Read:
    def read(position: int) -> np.ndarray:
        path = os.path.join(folder, files[position])
        try:
            with open(path, "rb") as stream:
                encoded = stream.read()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        return lsp.decode_rgb(encoded, what=path, advice="Copy it again.")

    return read


def _image(images, lengths, example: int) -> np.ndarray:
    position = int(example)
    for image, length in zip(images, lengths, strict=True):
        if position < length:
            return image(position)
        position -= length
    raise DataError(f"no example {example}: there are {sum(lengths)}")
