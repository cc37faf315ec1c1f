"""Sets shipped as files prepared once as ArrayRecord with TFDS, then read at random.

`prepare` writes a set on first use into

    <cache_dir>/<set>-<builder version>-<fingerprint of the annotation file>

A prepared folder is complete or does not exist: it is written under a temporary name
`*.tmp-*` beside it, which nobody reads, and renamed. Of the raw data, later calls read
only the annotation file. The records hold the encoded images as shipped; they are
decoded here with Pillow, so neither step needs TensorFlow, and a damaged image is
named. Each image is stored once, whatever number of examples it has.
"""

import contextlib
import functools
import hashlib
import io
import logging
import operator
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tqdm

from jalpose.data import images
from jalpose.data.source import Annotations, DataError

BUILDER_VERSION = "1.0.0"  # part of the folder name: raise it if records change
SPLIT = "full"
LOG_EVERY_SECONDS = 10
_TFDS_LOCK = threading.Lock()
_logger = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """How the records of a set are made.

    Attributes:
      name: of the set: a folder's name begins with it.
      builder: name of the class that TFDS knows it by; sets of one builder are its
        configs.
      features: of a record beside its image, index and file: name -> (shape, dtype),
        None for a text.
      where_to_get: the set, for people.
      read: (data folder, file, record) -> bytes of the image, which is whole.
      records: what each holds beside the image, in order: index, file and `features`.
    """

    name: str
    builder: str
    features: Mapping[str, tuple[tuple[int, ...], type] | None]
    where_to_get: str
    read: Callable[[str, str, int], bytes]
    records: list[dict[str, Any]]


class PreparedSource:
    """Images and labels of a prepared set; see `source.Source`.

    Safe to share between threads, and picklable: a copy opens its own reader.

    Args:
      recipe: of its records.
      annotations: of its examples.
      prepared_dir: holds its records.
      described_by: what the examples are read from, in messages.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        annotations: Annotations,
        prepared_dir: str,
        described_by: str,
    ):
        # The records themselves are on disk: a copy need not carry them.
        self._recipe = recipe._replace(records=[])
        self.name = recipe.name
        self.annotations = annotations
        self.prepared_dir = prepared_dir
        self._rows = {record["file"]: record["index"] for record in recipe.records}
        self._lock = threading.Lock()
        self._records = _open_records(self._recipe, prepared_dir)
        if len(self._records) != len(self._rows):
            raise DataError(
                f"{prepared_dir!r} holds {len(self._records)} images, "
                f"{described_by} describes {len(self._rows)}. "
                f"{_delete_advice(prepared_dir)}"
            )

    def image(self, index: int) -> np.ndarray:
        """Image `index` of `annotations`: uint8 [H, W, 3], RGB, pixels as stored.

        Raises:
          DataError: if the prepared records are damaged.
        """
        index = operator.index(index)
        if not 0 <= index < len(self.annotations):
            raise IndexError(f"{index=} is not in [0, {len(self.annotations)})")
        file = self.annotations.files[index]
        row = self._rows[file]
        what = f"image {file!r} (index {row}) in {self.prepared_dir!r}"
        advice = _delete_advice(self.prepared_dir)
        try:
            record = self._reader()[row]
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise DataError(f"Cannot read {what}: {error}. {advice}") from error
        if record["index"] != row:
            raise DataError(f"Found record {record['index']} for {what}. {advice}")
        return images.decode_rgb(record["image"], what=what, advice=advice)

    def _reader(self) -> Any:
        """The open records; opened anew in a process that got a pickled copy."""
        with self._lock:
            if self._records is None:
                self._records = _open_records(self._recipe, self.prepared_dir)
            return self._records

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def prepare(recipe: Recipe, path: str, data_dir: str, cache_dir: str) -> str:
    """The prepared folder of a set, made on first use.

    Args:
      recipe: of the set.
      path: of its annotation file, whose bytes are in the folder's name.
      data_dir: holds the sets as shipped.
      cache_dir: for the prepared ones.

    Raises:
      DataError: an image is missing or damaged, or the folder cannot be written.
    """
    with open(path, "rb") as file:
        fingerprint = hashlib.sha256(file.read()).hexdigest()[:12]
    folder = f"{recipe.name}-{BUILDER_VERSION}-{fingerprint}"
    cache_dir = os.path.abspath(os.path.expanduser(cache_dir))
    prepared_dir = os.path.join(cache_dir, folder)
    if not os.path.isdir(prepared_dir):
        _prepare(recipe, data_dir=data_dir, prepared_dir=prepared_dir)
    return prepared_dir


def _prepare(recipe: Recipe, *, data_dir: str, prepared_dir: str) -> None:
    """Writes the records of a set; `prepared_dir` appears whole or not at all."""
    cache_dir = os.path.dirname(prepared_dir)
    temporary = f"{prepared_dir}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        os.makedirs(cache_dir, exist_ok=True)
        os.mkdir(temporary)
        _logger.info("preparing %s in %s (once)", recipe.name, prepared_dir)
        _write_records(recipe, data_dir=data_dir, folder=temporary)
        _logger.info("prepared %s", recipe.name)
        try:
            os.rename(temporary, prepared_dir)
        except OSError:
            if not os.path.isdir(prepared_dir):  # else another process was first
                raise
    except OSError as error:
        raise DataError(
            f"Cannot write the prepared images of {recipe.name.upper()} to "
            f"{cache_dir!r}: {error}. Set data.cache_dir to a folder that can be "
            "written and has room for a copy of the images."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_records(recipe: Recipe, *, data_dir: str, folder: str) -> None:
    """Runs the TFDS builder into `folder`."""
    import tensorflow_datasets as tfds

    downloads = os.path.join(folder, "downloads")  # stays empty, but is created
    with _quiet_tfds():
        builder = _builder_class(recipe)(data_dir=folder, config=recipe.name)
        builder.records = recipe.records
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=data_dir),
            file_format="array_record",
        )
    shutil.rmtree(downloads, ignore_errors=True)


def _open_records(recipe: Recipe, prepared_dir: str) -> Any:
    """Random access to the records of a prepared folder; images stay encoded."""
    import tensorflow_datasets as tfds

    try:
        with _quiet_tfds():
            builder = _builder_class(recipe)(data_dir=prepared_dir, config=recipe.name)
            skip = {"image": tfds.decode.SkipDecoding()}
            return builder.as_data_source(SPLIT, decoders=skip)
    except Exception as error:  # TFDS raises many kinds for a damaged folder
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(
            f"Cannot open the prepared folder {prepared_dir!r}: {reason}. "
            f"{_delete_advice(prepared_dir)}"
        ) from error


def _generate_examples(
    recipe: Recipe, records: list[dict[str, Any]], raw_dir: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields every record of a set, in order, after decoding its image once."""
    total, bar = len(records), sys.stderr.isatty()
    logged = time.monotonic()
    for record in tqdm.tqdm(records, recipe.name, disable=not bar):
        index = record["index"]
        if not bar and time.monotonic() - logged > LOG_EVERY_SECONDS:
            logged = time.monotonic()
            _logger.info("preparing %s: %d of %d images", recipe.name, index, total)
        image = recipe.read(raw_dir, record["file"], index)
        yield index, {**record, "image": image}


def _builder_class(recipe: Recipe) -> Any:
    """The TFDS builder of a set; TFDS is imported on use, as that is slow."""
    features = tuple(recipe.features.items())
    return _builder_classes(
        recipe._replace(features=features, records=())  # type: ignore[arg-type]
    )


@functools.cache
def _builder_classes(recipe: Recipe) -> Any:
    """A class for each recipe but for its records, hashable."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Images(  # type: ignore[call-arg]
        tfds.core.GeneratorBasedBuilder, skip_registration=True
    ):
        """Images as shipped, record i being the i-th of its `records`."""

        VERSION = tfds.core.Version(BUILDER_VERSION)
        # Else TFDS looks for checksums of downloads beside this module, and needs
        # importlib_resources for that, which it does not install.
        code_path = None
        name = tfds.core.naming.camelcase_to_snakecase(recipe.builder)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=recipe.name)]  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = recipe.where_to_get
        records: list[dict[str, Any]]  # given before they are written

        def _info(self):
            found = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "index": tfds.features.Scalar(dtype=np.int64),
                "file": tfds.features.Text(),
            }
            for name, feature in dict(recipe.features).items():
                found[name] = tfds.features.Text()
                if feature is not None:
                    shape, dtype = feature
                    found[name] = tfds.features.Tensor(shape=shape, dtype=dtype)
            # Without shuffling, record i is example i.
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(found),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {SPLIT: self._generate_examples(str(dl_manager.manual_dir))}

        def _generate_examples(self, raw_dir):
            return _generate_examples(recipe, self.records, raw_dir)

    return Images


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Hides what TFDS prints (of a download that is none) and logs as information."""
    logger = logging.getLogger("absl")
    with _TFDS_LOCK, contextlib.redirect_stdout(io.StringIO()):
        level = logger.level
        logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
        try:
            yield
        finally:
            logger.setLevel(level)


def _delete_advice(prepared_dir: str) -> str:
    """What to do about a damaged prepared folder."""
    return f"Delete {prepared_dir!r}: it is prepared anew on the next run."
