"""One index over the labelled, unlabelled and test examples of a benchmark."""

import dataclasses
import hashlib
import zlib

import numpy as np

from jalpose.data.crops import crop_image, crop_windows
from jalpose.data.packed import PackedCrops
from jalpose.data.source import DataError, Source
from jalpose.tasks.pose import skeletons


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseDataset:
    """Sources laid end to end; an example id is its position in that row.

    Attributes:
      sources: in the order of the ids.
      initial: int64, ids labelled at the start.
      pool: int64, ids not labelled at the start.
      test: int64, ids never trained on nor chosen.
      joints: float32 [N, J, 2], image pixels, NaN where absent.
      status: int8 [N, J].
      windows: float32 [N, 3], crop windows.
      keys: N stable names.
      files: N image files, relative to the data folder.
      head_sizes: float32 [N], diagonals of the head boxes in image pixels, NaN where
        a person has none; None where no source has head boxes.
      packed: keeps the crops of one size; None: each is cut whenever it is asked for.
    """

    sources: tuple[Source, ...]
    initial: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    joints: np.ndarray
    status: np.ndarray
    windows: np.ndarray
    keys: tuple[str, ...]
    files: tuple[str, ...]
    head_sizes: np.ndarray | None = None
    packed: PackedCrops | None = None

    @property
    def skeleton(self) -> skeletons.Skeleton:
        """The skeleton all sources share."""
        return self.sources[0].skeleton

    def image(self, example: int) -> np.ndarray:
        """Original image of an example id: uint8 [H, W, 3]."""
        position = int(example)
        for source in self.sources:
            if position < len(source.annotations):
                return source.image(position)
            position -= len(source.annotations)
        raise IndexError(f"no example {example}: there are {len(self.keys)}")

    def checksums(self) -> np.ndarray:
        """Of each example's name, label and crop window: uint32 [N]."""
        arrays = (self.joints, self.status, self.windows)
        sums = np.empty(len(self.keys), np.uint32)
        for example, (key, file) in enumerate(zip(self.keys, self.files, strict=True)):
            found = zlib.crc32(f"{key} {file}".encode())
            for values in arrays:
                found = zlib.crc32(values[example].tobytes(), found)
            sums[example] = found
        return sums

    def image_checksums(self, examples: np.ndarray) -> np.ndarray:
        """Of the images of example ids, as decoded: uint32 [len(examples)]."""
        sums = [zlib.crc32(self.image(i).tobytes()) for i in examples]
        return np.array(sums, np.uint32)

    def crop(self, example: int, size: int) -> np.ndarray:
        """Crop of an example id: uint8 [size, size, 3]."""

        def cut():
            return crop_image(self.image(example), self.windows[example], size)

        if self.packed is None or self.packed.size != size:
            return cut()
        return self.packed.get(example, cut)

    def held_out(self, ids: np.ndarray) -> np.ndarray:
        """Which of `ids` are in the held-out tenth: bool [len(ids)].

        Decided by a hash of the example's key alone, so it never changes between
        runs, seeds or cycles.
        """
        return np.array([_bucket(self.keys[i]) == 0 for i in ids], bool)


def _bucket(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) % 10


def _join_head_sizes(annotations) -> np.ndarray | None:
    sizes = [a.head_sizes for a in annotations if a.head_sizes is not None]
    if not sizes:
        return None
    if len(sizes) < len(annotations):
        raise DataError(
            f"{len(sizes)} of {len(annotations)} sources have head boxes: take sources "
            "that all have them, or none"
        )
    return np.concatenate(sizes)


def join_sources(
    sources, *, initial, pool, test, crop: str, window: float
) -> PoseDataset:
    """Lay sources end to end; `initial`, `pool` and `test` are ids in that row.

    Raises:
      DataError: no example labelled at the start has an annotated joint, the
        labelled ones hold out nothing or everything, or only some of the sources
        have head boxes.
    """
    annotations = [source.annotations for source in sources]
    dataset = PoseDataset(
        sources=tuple(sources),
        initial=np.asarray(initial, np.int64),
        pool=np.asarray(pool, np.int64),
        test=np.asarray(test, np.int64),
        joints=np.concatenate([a.joints for a in annotations]),
        status=np.concatenate([a.status for a in annotations]),
        windows=np.concatenate([crop_windows(a, crop, window) for a in annotations]),
        keys=tuple(key for a in annotations for key in a.keys),
        files=tuple(file for a in annotations for file in a.files),
        head_sizes=_join_head_sizes(annotations),
    )
    if not (dataset.status[dataset.initial] != skeletons.ABSENT).any():
        raise DataError(
            f"none of the {len(dataset.initial)} examples labelled at the start has "
            "an annotated joint: there is nothing to train on"
        )
    held_out = dataset.held_out(dataset.initial)
    if held_out.all() or not held_out.any():
        raise DataError(
            f"of the {len(dataset.initial)} examples labelled at the start "
            f"{held_out.sum()} fall into the held-out tenth: choose a larger "
            "data.initial"
        )
    return dataset
