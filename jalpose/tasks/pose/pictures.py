"""Poses drawn for reports; see `jalpose.tasks.pictures` for the contract.

Images and labels are read as shipped (LSP, LSPET, MPII, own images) or drawn again
(figures): the
prepared records that a run trains from may be on another machine. Keys are checked
against the records of the run.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping

import numpy as np

from jalpose.data import images
from jalpose.data.crops import crop_image, to_crop
from jalpose.data.source import DataError
from jalpose.storage.arrays import (
    HEATMAP_IDS,
    HEATMAPS,
    IDS,
    JOINT_ENTROPY,
    JOINTS,
    PEAK_POSITIONS,
    PEAK_PROBABILITIES,
    PEAKS,
    SCORES,
)
from jalpose.tasks import sheets
from jalpose.tasks.pictures import (
    Arrays,
    Heat,
    HeatGallery,
    Key,
    Prediction,
    Ranking,
)
from jalpose.tasks.pose import drawings, figures, lsp, mpii, own, own_library, skeletons
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.terms import TERMS as TERMS
from jalpose.tasks.pose.windows import crop_windows

TITLE = "human pose estimation"
MOST_JOINTS = 4  # of an example, with their heatmaps
_FOLDERS = {"lsp": ("lsp", "lspet"), "mpii": ("mpii",)}
_Read = Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseLibrary:
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
    image_of: _Read

    def crop(self, example: int, size: int) -> np.ndarray:
        """The image round the person: uint8 [size, size, 3]."""
        return crop_image(self.image_of(example), self.windows[example], size)


def drawn_seed(config: Mapping) -> int | None:
    """What the figures of a run are drawn from; None where photographs are its data."""
    if config.get("data", {}).get("name") != "figures":
        return None
    own = config.get("seeds", {}).get("initial", -1)
    return config["seed"] if own < 0 else own


def open_library(config: Mapping, data_dir: str | None = None) -> PoseLibrary:
    """Open the data of a run's config; `data_dir` stands in for its `data.dir`.

    Raises:
      DataError: it cannot be read.
    """
    data, seed = config["data"], drawn_seed(config)
    reads: list[_Read]
    windows: list[np.ndarray] = []
    skeleton = None
    if seed is not None:
        sources, _ = figures.benchmark(data, seed)
        annotations = [source.annotations for source in sources]
        reads = [source.image for source in sources]
    elif data["name"] in _FOLDERS:
        folder = _find_folder(data["name"], data_dir or data["dir"])
        annotations = _shipped(data, folder)
        if data.get("damaged") == "leave_out":
            annotations = [_whole(folder, labels) for labels in annotations]
        reads = [_reader(folder, labels.files) for labels in annotations]
    elif data["name"] in own.NAMES:
        opened = own_library.open_own(data, data_dir)
        annotations = [opened.annotations]
        reads = [_reader(opened.folder, opened.annotations.files)]
        windows, skeleton = [opened.windows], opened.skeleton
    else:
        raise DataError(f"no images of data.name={data['name']!r}: not known here")
    lengths = [len(labels) for labels in annotations]
    if not windows:
        windows = [
            crop_windows(labels, data["crop"], data["window"]) for labels in annotations
        ]
    return PoseLibrary(
        name=data["name"],
        skeleton=skeleton or _skeleton(config),
        keys=tuple(key for labels in annotations for key in labels.keys),
        files=tuple(file for labels in annotations for file in labels.files),
        joints=np.concatenate([labels.joints for labels in annotations]),
        status=np.concatenate([labels.status for labels in annotations]),
        windows=np.concatenate(windows),
        image_of=functools.partial(_image, reads, lengths),
    )


def _shipped(data: Mapping, folder: str):
    """Annotations of the sets of a benchmark, as they are laid end to end."""
    if data["name"] == "lsp":
        return [lsp.read_annotations(name, folder) for name in _FOLDERS["lsp"]]
    options = mpii.Options(
        **{key: data["mpii"][key] for key in mpii.Options._fields[:3]},
        placed=data["crop"] != "joints",
    )
    return [mpii.choose(mpii.read_annotations(folder, options.annotation), options)]


def _whole(folder: str, labels: Annotations) -> Annotations:
    """Those of the examples whose images are whole, as preparation leaves them."""
    whole = {}
    for file in dict.fromkeys(labels.files):
        path = os.path.join(folder, file)
        try:
            images.read_image_file(path, what=path, described_by="it", advice="")
            whole[file] = True
        except DataError:
            whole[file] = False
    rows = [row for row, file in enumerate(labels.files) if whole[file]]
    return labels.at(rows)


def _find_folder(name: str, recorded: str) -> str:
    """The data folder: as recorded, or where that is not here, $JALPOSE_DATA."""
    choices = [recorded, os.environ.get("JALPOSE_DATA", "")]
    for choice in choices:
        folder = os.path.abspath(os.path.expanduser(choice))
        parts = [os.path.join(folder, part) for part in _FOLDERS[name]]
        if choice and all(map(os.path.isdir, parts)):
            return folder
    return os.path.abspath(os.path.expanduser(recorded))


def _reader(folder: str, files: tuple[str, ...]) -> _Read:
    def read(position: int) -> np.ndarray:
        path = os.path.join(folder, files[position])
        try:
            with open(path, "rb") as stream:
                encoded = stream.read()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        return images.decode_rgb(encoded, what=path, advice="Copy it again.")

    return read


def _image(reads: list[_Read], lengths: list[int], example: int) -> np.ndarray:
    position = int(example)
    for read, length in zip(reads, lengths, strict=True):
        if position < length:
            return read(position)
        position -= length
    raise DataError(f"no example {example}: there are {sum(lengths)}")


def _skeleton(config: Mapping) -> skeletons.Skeleton:
    data = config.get("data") or {}
    if data.get("name") in own.NAMES:
        return own_library.skeleton_of(data) or own_library.unnamed(0)
    is_mpii = data.get("name") == "mpii"
    return skeletons.MPII if is_mpii else skeletons.LSP


# Drawing


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosePictures:
    """Predicted and labelled poses on crops; where there is no image, on grey.

    Attributes:
      skeleton: of the predictions.
      peak: height of a perfect heatmap's peak, as words.
    """

    skeleton: skeletons.Skeleton
    peak: str
    noun = "poses"
    one = "a pose"
    prediction = (JOINTS,)
    overview_text = (
        "Below the pictures of methods that score: all heatmaps of the example in "
        "one, at each place the highest, from 0 to the maximum."
    )

    @property
    def legend(self) -> tuple[Key, ...]:
        """Sides of the body, prediction and label."""
        left, right, middle = drawings.PREDICTED.colours
        white = drawings.TRUE.colours[0]
        return (
            Key("predicted: left", left, 6),
            Key("right", right, 6),
            Key("middle", middle, 6),
            Key("label", white, 2),
            Key("label, hidden in the image", white, 2, hollow=True),
        )

    @property
    def heats(self) -> HeatGallery:
        """Heatmaps of the joints whose peaks have the greatest entropy."""
        return HeatGallery(
            anchor="peaks",
            title="Heatmaps and their peaks",
            text="The pool examples of the highest and the lowest scores, and of each "
            "the heatmaps of the joints whose peaks have the greatest entropy: the "
            "brighter the higher, each from 0 to its own maximum, with a ring round "
            "each peak that was counted, the highest one's thick. Numbers are the "
            "heights of the peaks; a perfect heatmap has one, of height "
            f"{self.peak}.",
            needs=frozenset({PEAK_POSITIONS, SCORES}),
            heats=self._heats,
        )

    @property
    def ranking(self) -> Ranking:
        """Examples by the mean height of their heatmaps' peaks."""
        return Ranking(
            anchor="confidence",
            title="Most and least confident",
            text="the pool examples whose heatmaps have the highest and the lowest "
            f"peaks, mean over the joints; a perfect heatmap has {self.peak}.",
            what="peaks",
            unit="mean peak",
            needs=frozenset({PEAKS}),
            values=lambda arrays: np.asarray(arrays[PEAKS], np.float64).mean(axis=1),
        )

    def draw(
        self,
        library: PoseLibrary | None,
        example: int,
        image: np.ndarray | None,
        predicted: Prediction | None,
        *,
        labelled: bool,
        size: int,
    ) -> np.ndarray | None:
        """Draw the poses of an example as the network sees it."""
        pose = None if predicted is None else predicted[JOINTS]
        window, joints, status = None, None, None
        if library is not None:
            window = library.windows[example]
            joints, status = library.joints[example], library.status[example]
        elif pose is not None and np.isfinite(pose).all(axis=1).any():
            window = _window_round(pose)
        if window is None:
            return None
        skeleton = self.skeleton
        shown = pose if pose is not None else joints
        if shown is not None and len(shown) != skeleton.num_joints:
            skeleton = own_library.unnamed(len(shown))  # the data are not here
        return drawings.draw_prediction(
            sheets.ground(size) if image is None else image,
            None if pose is None else to_crop(pose, window, size),
            to_crop(joints, window, size) if labelled and joints is not None else None,
            status,
            skeleton,
            size=size,
        )

    def overview(self, arrays: Arrays, example: int) -> Heat | None:
        """The highest of an example's heatmaps at each place."""
        maps = heatmaps_of(arrays, example)
        if maps is None:
            return None
        line = f"highest peak {float(maps.max()):#.3g}".rstrip(".")
        return Heat(maps.max(axis=2), np.zeros((0, 2)), lines=(line,))

    def _heats(self, arrays: Arrays, row: int) -> list[Heat]:
        maps = heatmaps_of(arrays, int(arrays[IDS][row]))
        found = []
        for peaks in most_uncertain_joints(arrays, row, MOST_JOINTS):
            count, places = len(peaks.places), peaks.places
            said, values = f"{count} peak{'s' * (count != 1)}", None
            if maps is not None:
                values = maps[..., peaks.joint]
                heights = [f"{values[y, x]:.3g}" for x, y in places.tolist()]
                said = f"{said}: {', '.join(heights)}" if heights else said
            known = peaks.joint < self.skeleton.num_joints
            name = (
                self.skeleton.joints[peaks.joint]
                if known
                else f"joint {peaks.joint + 1}"
            )
            lines = said, f"entropy {peaks.entropy:.2f}"
            found.append(Heat(values, places, name, lines))
        return found


def make_pictures(config: Mapping) -> PosePictures:
    """Pictures of a run's examples."""
    peak = (config.get("heatmap") or {}).get("peak")
    return PosePictures(
        skeleton=_skeleton(config), peak="-" if peak is None else f"{peak:g}"
    )


def _window_round(pose: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(pose, axis=0), np.nanmax(pose, axis=0)
    side = max(1.4 * float((high - low).max()), 8.0)
    return np.array([*((low + high) / 2), side], np.float32)


# Heatmaps


@dataclasses.dataclass(frozen=True)
class JointPeaks:
    """The peaks of one joint's heatmap.

    Attributes:
      joint: its number.
      entropy: in nats.
      places: int [P, 2], (x, y) in heatmap pixels, the highest peak first.
    """

    joint: int
    entropy: float
    places: np.ndarray


def most_uncertain_joints(arrays: Arrays, row: int, count: int) -> list[JointPeaks]:
    """The joints of a pool row whose peaks have the greatest entropies."""
    entropies = _joint_entropies(arrays)[row]
    order = np.argsort(-entropies, kind="stable")  # NaN last
    found = []
    for joint in order[:count].tolist():
        places = np.asarray(arrays[PEAK_POSITIONS][row][joint])
        there = places[(places >= 0).all(axis=1)]
        found.append(JointPeaks(joint, float(entropies[joint]), there))
    return found


def _joint_entropies(arrays: Arrays) -> np.ndarray:
    """Entropy of each joint's peaks, in nats: float64 [M, J].

    As the method recorded it, else of the probabilities it gave the peaks.
    """
    if JOINT_ENTROPY in arrays:
        return np.asarray(arrays[JOINT_ENTROPY], np.float64)
    shares = np.asarray(arrays[PEAK_PROBABILITIES], np.float64)  # [M, J, P]
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return 0.0 - (shares * logs).sum(axis=2)


def heatmaps_of(arrays: Arrays, example: int) -> np.ndarray | None:
    """The heatmaps of an example, float16 [h, w, J]; None where none are kept."""
    if HEATMAP_IDS not in arrays:
        return None
    found = np.flatnonzero(arrays[HEATMAP_IDS] == example)
    return arrays[HEATMAPS][found[0]] if len(found) else None
