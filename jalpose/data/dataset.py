"""One index over the labelled, unlabelled and test examples of a benchmark."""

import collections
import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data.crops import crop_image
from jalpose.data.packed import CropsInMemory, Kept, PackedCrops, Rows
from jalpose.data.source import DataError, Source, SourceOfRows


class Labelled(NamedTuple):
    """Labelled examples as trainings and methods see them.

    Attributes:
      ids: int64 [L], example ids.
      labels: of the crops, by name: arrays [L, ...].
      known: bool [L], whether anything in the label counts.
      held_out: bool [L]; a held-out example is labelled but never trained on.
    """

    ids: np.ndarray
    labels: dict[str, np.ndarray]
    known: np.ndarray
    held_out: np.ndarray

    def at(self, rows) -> "Labelled":
        """These rows of it."""
        found = {name: values[rows] for name, values in self.labels.items()}
        return Labelled(self.ids[rows], found, self.known[rows], self.held_out[rows])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Sources laid end to end; an example id is its position in that row.

    Attributes:
      sources: in the order of the ids.
      initial: int64, ids labelled at the start.
      pool: int64, ids not labelled at the start.
      test: int64, ids never trained on nor chosen.
      truth: what is known of the examples, by name: arrays [N, ...], in pixels of the
        image; labels, and what predictions are scored with beside them.
      windows: float32 [N, 3], crop windows (see `data.crops`); None: images are taken
        whole, and have the size of the crop.
      keys: N stable names.
      files: N image files, relative to the data folder.
      packed: keeps the crops of one size, or rows made of them; None: each is cut
        whenever it is asked for.
      holds_out: whether a tenth of all examples is never trained on, see `held_out`.
      groups: N names; examples of one group (frames of a video, people in an image) are
        held out together. None: each by itself.
      videos: N names of the video or sequence each example is a frame of, "" of none,
        for records of what was chosen of which; what is held out goes by `groups`.
        None: the set does not say.
      pool_labelled: the truth of the pool is known, and handed out when it is bought;
        else all that `truth` says of its labels is that there are none.
    """

    sources: tuple[Source, ...]
    initial: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    truth: dict[str, np.ndarray]
    windows: np.ndarray | None
    keys: tuple[str, ...]
    files: tuple[str, ...]
    packed: Kept | None = None
    holds_out: bool = True
    groups: tuple[str, ...] | None = None
    videos: tuple[str, ...] | None = None
    pool_labelled: bool = True

    def image(self, example: int) -> np.ndarray:
        """Original image of an example id, uint8 [H, W, 3], or row, float32 [F]."""
        position = int(example)
        for source in self.sources:
            if position < len(source.annotations):
                return source.image(position)
            position -= len(source.annotations)
        raise IndexError(f"no example {example}: there are {len(self.keys)}")

    def truth_of(self, ids) -> dict[str, np.ndarray]:
        """What is known of these examples: arrays [len(ids), ...] by name."""
        return {name: values[ids] for name, values in self.truth.items()}

    def windows_of(self, ids) -> np.ndarray | None:
        """Crop windows of these examples: float32 [len(ids), 3], or None."""
        return None if self.windows is None else self.windows[ids]

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the image files' bytes, "" where they are not known."""
        return tuple(
            digest
            for source in self.sources
            for digest in getattr(source, "digests", ("",) * len(source.annotations))
        )

    @property
    def columns(self) -> int:
        """Numbers of the rows that crops are seen as; 0: they are seen as they are."""
        return self.packed.columns if isinstance(self.packed, Rows) else 0

    def checksums(self) -> np.ndarray:
        """Checksums of each example's name, truth and crop window: uint32 [N]."""
        arrays = [self.truth[name] for name in sorted(self.truth)]
        if self.windows is not None:
            arrays.append(self.windows)
        sums = np.empty(len(self.keys), np.uint32)
        for example, (key, file) in enumerate(zip(self.keys, self.files, strict=True)):
            found = zlib.crc32(f"{key} {file}".encode())
            for values in arrays:
                found = zlib.crc32(values[example].tobytes(), found)
            sums[example] = found
        return sums

    def image_checksums(self, examples: np.ndarray) -> np.ndarray:
        """Checksums of the images of example ids, as decoded: uint32 [n]."""
        sums = [zlib.crc32(self.image(i).tobytes()) for i in examples]
        return np.array(sums, np.uint32)

    def crop(self, example: int, size: int) -> np.ndarray:
        """Crop of an example id, uint8 [size, size, 3], or the row it is kept as.

        Of examples that are rows themselves, float32 [F], the row.
        """

        def cut():
            image = self.image(example)
            if self.windows is not None:
                return crop_image(image, self.windows[example], size)
            if image.ndim > 1 and image.shape[:2] != (size, size):
                raise DataError(
                    f"{self.files[example]} has {image.shape[1]} x {image.shape[0]} "
                    f"pixels, but images of this set are taken whole: data.size={size}"
                )
            return image

        if self.packed is None or self.packed.size != size:
            return cut()
        return self.packed.get(example, cut)

    def in_memory(self, size: int) -> bool:
        """Has memory room for all examples as rows, so that `rows` has many at once?

        Args:
          size: of the crops that rows are made of, pixels.
        """
        if self.packed is None:
            return all(isinstance(source, SourceOfRows) for source in self.sources)
        packed = self.packed
        return isinstance(packed, Rows) and packed.in_memory and packed.size == size

    def rows(self, ids: np.ndarray, size: int) -> np.ndarray:
        """Rows of examples, as `crop` has each, where all are `in_memory`.

        Args:
          ids: int64 [n].
          size: of the crops that rows are made of, pixels.

        Returns:
          float32 [n, F].
        """
        if isinstance(self.packed, Rows):
            return self.packed.take(ids, lambda example: self.crop(example, size))
        source = self.sources[0]
        if len(self.sources) == 1 and isinstance(source, SourceOfRows):
            return source.rows[ids]
        return np.stack([self.image(example) for example in ids])

    def held_out(self, ids: np.ndarray) -> np.ndarray:
        """Which of `ids` are in the held-out tenth: bool [len(ids)].

        Decided by a hash of the example's key alone, so it never changes between
        runs, seeds or cycles. Nobody is, unless the dataset `holds_out`.

        Of examples in `groups` it is a hash of the group's name. There may be few of
        them, so of the groups labelled at the start those of the lowest hashes are
        taken, until they have a tenth of the examples; one is left to train on.
        """
        if not self.holds_out:
            return np.zeros(len(ids), bool)
        if self.groups is not None:
            return np.array(
                [self.groups[i] in self._held_out_groups for i in ids], bool
            )
        return np.array([_bucket(self.keys[i]) == 0 for i in ids], bool)

    @functools.cached_property
    def _held_out_groups(self) -> frozenset[str]:
        assert self.groups is not None
        counts = collections.Counter(self.groups[i] for i in self.initial)
        order = sorted(counts, key=lambda name: (_hash(name), name))
        found, count = set(), 0
        for name in order[:-1]:
            if 10 * count >= len(self.initial):
                break
            found.add(name)
            count += counts[name]
        others = set(self.groups) - counts.keys()
        return frozenset(found | {name for name in others if _bucket(name) == 0})

    def holding_out(self, tenth: bool) -> "Dataset":
        """The dataset with a tenth held out, or with all that are labelled trained on.

        Raises:
          DataError: those labelled at the start hold out nothing or everything.
        """
        found = dataclasses.replace(self, holds_out=tenth)
        count = int(found.held_out(self.initial).sum())
        if tenth and not 0 < count < len(self.initial):
            raise DataError(
                f"of the {len(self.initial)} examples labelled at the start {count} "
                "fall into the held-out tenth: choose a larger data.initial, or "
                "training.heldout=none"
                + ("" if self.groups is None else "; or other data.groups")
            )
        return found


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest())


def _bucket(key: str) -> int:
    return _hash(key) % 10


def join_sources(
    sources: Sequence[Source],
    *,
    initial,
    pool,
    test,
    truth: Mapping[str, np.ndarray],
    windows: np.ndarray | None,
) -> Dataset:
    """Lay sources end to end; `initial`, `pool` and `test` are ids in that row.

    Args:
      sources: of the examples.
      initial: ids labelled at the start.
      pool: ids not labelled at the start.
      test: ids never trained on nor chosen.
      truth: see `Dataset`, of all sources together.
      windows: see `Dataset`, of all sources together.
    """
    annotations = [source.annotations for source in sources]
    return Dataset(
        sources=tuple(sources),
        initial=np.asarray(initial, np.int64),
        pool=np.asarray(pool, np.int64),
        test=np.asarray(test, np.int64),
        truth=dict(truth),
        windows=windows,
        keys=tuple(key for a in annotations for key in a.keys),
        files=tuple(file for a in annotations for file in a.files),
        videos=_videos(annotations),
    )


def _videos(annotations) -> tuple[str, ...] | None:
    """Videos of examples laid end to end; None where no source says."""
    said = [getattr(a, "videos", None) for a in annotations]
    if all(videos is None for videos in said):
        return None
    return tuple(
        name
        for a, videos in zip(annotations, said, strict=True)
        for name in (("",) * len(a) if videos is None else videos)
    )


# Of how images are decoded (`images`) and cut (`crops`): where that changes, this does.
PACKED_VERSION = 3


def keep_crops(dataset: Dataset, images: Sequence[str], cache_dir, size: int):
    """The dataset with its crops kept on disk once they are cut.

    Args:
      dataset: of files.
      images: a fingerprint of all images of each source: of their bytes.
      cache_dir: for the crops.
      size: of the crops, pixels.
    """
    name = _name_of(dataset, images)
    return dataclasses.replace(dataset, packed=PackedCrops(cache_dir, name, size))


def rows_of(
    dataset: Dataset,
    make: Callable[[np.ndarray], np.ndarray],
    columns: int,
    name: str,
    cache_dir,
    size: int,
) -> Rows:
    """Rows to be made of the crops of a dataset, as its `packed`.

    Args:
      dataset: of images.
      make: crops uint8 [B, size, size, 3] -> float32 [B, columns].
      columns: numbers of a row.
      name: of all that `make` depends on.
      cache_dir: for the rows; None: they are kept in memory, as many as there is room
        for. Those of images that no digest is known of are, too.
      size: of the crops, pixels.
    """
    digests = dataset.digests
    kept: Kept
    if cache_dir is None or not all(digests):
        kept = CropsInMemory(size, columns=columns)
    else:
        named = _name_of(dataset, [name, *digests])
        kept = PackedCrops(cache_dir, named, size, columns)
    return Rows(kept, make, columns, len(dataset.keys))


def _name_of(dataset: Dataset, images: Iterable[str]) -> str:
    sums = hashlib.blake2b(dataset.checksums().tobytes()).hexdigest()
    return " ".join([str(PACKED_VERSION), *images, sums])
