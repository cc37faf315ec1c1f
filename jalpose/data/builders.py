"""LSP and LSPET prepared once as ArrayRecord with TFDS, then read at random.

`open_source` prepares a set on first use into

    <cache_dir>/<set>-<builder version>-<fingerprint of joints.mat>

and opens it. A prepared folder is complete or does not exist: it is written under
a temporary name `*.tmp-*` beside it, which nobody reads, and renamed. Of the raw
data, later calls read only `joints.mat`. The records hold the encoded images as
shipped; they are decoded here with Pillow, so neither step needs TensorFlow, and a
damaged image is named.
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
from collections.abc import Iterator
from typing import Any

import numpy as np
import tqdm

from jalpose.data import lsp, skeletons
from jalpose.data.source import Annotations, DataError

BUILDER_VERSION = "1.0.0"  # part of the folder name: raise it if records change
SPLIT = "full"
_LOG_EVERY_SECONDS = 10
_TFDS_LOCK = threading.Lock()
_logger = logging.getLogger(__name__)


class LspSource:
    """Images and labels of LSP or LSPET; see `source.Source`.

    Safe to share between threads, and picklable: a copy opens its own reader.
    """

    skeleton = skeletons.LSP

    def __init__(self, *, name: str, annotations: Annotations, prepared_dir: str):
        self.name = name
        self.annotations = annotations
        self.prepared_dir = prepared_dir
        self._lock = threading.Lock()
        self._records = _open_records(name, prepared_dir)
        if len(self._records) != len(annotations):
            raise DataError(
                f"{prepared_dir!r} holds {len(self._records)} images, joints.mat "
                f"describes {len(annotations)}. {_delete_advice(prepared_dir)}"
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
        what = f"image {file!r} (index {index}) in {self.prepared_dir!r}"
        advice = _delete_advice(self.prepared_dir)
        try:
            record = self._reader()[index]
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise DataError(f"Cannot read {what}: {error}. {advice}") from error
        if record["index"] != index:
            raise DataError(f"Found record {record['index']} for {what}. {advice}")
        return lsp.decode_rgb(record["image"], what=what, advice=advice)

    def _reader(self) -> Any:
        """The open records; opened anew in a process that got a pickled copy."""
        with self._lock:
            if self._records is None:
                self._records = _open_records(self.name, self.prepared_dir)
            return self._records

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def open_source(name: str, data_dir: str, cache_dir: str) -> LspSource:
    """Opens `name` ("lsp" or "lspet") in `data_dir`, preparing it on first use.

    Raises:
      DataError: if the data set or the cache folder is not usable; the message
        names the file or folder and what to do.
    """
    if name not in lsp.LAYOUTS:
        raise DataError(f"Unknown {name=}. Known: {', '.join(lsp.LAYOUTS)}.")
    data_dir = os.path.abspath(os.path.expanduser(data_dir))
    annotations = lsp.read_annotations(name, data_dir)
    with open(lsp.find_joints_file(name, data_dir), "rb") as file:
        fingerprint = hashlib.sha256(file.read()).hexdigest()[:12]
    cache_dir = os.path.abspath(os.path.expanduser(cache_dir))
    prepared_dir = os.path.join(cache_dir, f"{name}-{BUILDER_VERSION}-{fingerprint}")
    if not os.path.isdir(prepared_dir):
        _prepare(name, data_dir=data_dir, prepared_dir=prepared_dir)
    return LspSource(name=name, annotations=annotations, prepared_dir=prepared_dir)


def _prepare(name: str, *, data_dir: str, prepared_dir: str) -> None:
    """Writes the records of a set; `prepared_dir` appears whole or not at all."""
    cache_dir = os.path.dirname(prepared_dir)
    temporary = f"{prepared_dir}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        os.makedirs(cache_dir, exist_ok=True)
        os.mkdir(temporary)
        _logger.info("preparing %s in %s (once)", name, prepared_dir)
        _write_records(name, data_dir=data_dir, folder=temporary)
        _logger.info("prepared %s", name)
        try:
            os.rename(temporary, prepared_dir)
        except OSError:
            if not os.path.isdir(prepared_dir):  # else another process was first
                raise
    except OSError as error:
        raise DataError(
            f"Cannot write the prepared images of {name.upper()} to {cache_dir!r}: "
            f"{error}. Set data.cache_dir to a folder that can be written and has "
            "room for a copy of the images."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_records(name: str, *, data_dir: str, folder: str) -> None:
    """Runs the TFDS builder into `folder`."""
    import tensorflow_datasets as tfds

    downloads = os.path.join(folder, "downloads")  # stays empty, but is created
    with _quiet_tfds():
        _builder_class()(data_dir=folder, config=name).download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=data_dir),
            file_format="array_record",
        )
    shutil.rmtree(downloads, ignore_errors=True)


def _open_records(name: str, prepared_dir: str) -> Any:
    """Random access to the records of a prepared folder; images stay encoded."""
    import tensorflow_datasets as tfds

    try:
        with _quiet_tfds():
            builder = _builder_class()(data_dir=prepared_dir, config=name)
            skip = {"image": tfds.decode.SkipDecoding()}
            return builder.as_data_source(SPLIT, decoders=skip)
    except Exception as error:  # TFDS raises many kinds for a damaged folder
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(
            f"Cannot open the prepared folder {prepared_dir!r}: {reason}. "
            f"{_delete_advice(prepared_dir)}"
        ) from error


def _generate_examples(name: str, raw_dir: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields every example of a set, in order, after decoding its image once."""
    labels = lsp.read_annotations(name, raw_dir)
    bar = sys.stderr.isatty()
    logged = time.monotonic()
    for index, file in enumerate(tqdm.tqdm(labels.files, name, disable=not bar)):
        if not bar and time.monotonic() - logged > _LOG_EVERY_SECONDS:
            logged = time.monotonic()
            _logger.info("preparing %s: %d of %d images", name, index, len(labels))
        record = {
            "image": lsp.read_image_file(raw_dir, file, index),
            "joints": labels.joints[index],
            "status": labels.status[index],
            "index": index,
            "key": labels.keys[index],
            "file": file,
        }
        yield index, record


@functools.cache
def _builder_class() -> Any:
    """The TFDS builder of both sets; TFDS is imported on use, as that is slow."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class LeedsSportsPose(tfds.core.GeneratorBasedBuilder):
        """LSP and LSPET, in the joint order and with the status of `skeletons`."""

        VERSION = tfds.core.Version(BUILDER_VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in lsp.LAYOUTS]  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = lsp.WHERE_TO_GET
        # Else TFDS looks for checksums of downloads beside this module, and needs
        # importlib_resources for that, which it does not install.
        code_path = None

        def _info(self):
            shape = (skeletons.LSP.num_joints,)
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "joints": tfds.features.Tensor(shape=(*shape, 2), dtype=np.float32),
                "status": tfds.features.Tensor(shape=shape, dtype=np.int8),
                "index": tfds.features.Scalar(dtype=np.int64),
                "key": tfds.features.Text(),
                "file": tfds.features.Text(),
            }
            features = tfds.features.FeaturesDict(features)
            # Without shuffling, record i is example i.
            return tfds.core.DatasetInfo(
                builder=self, features=features, disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {SPLIT: self._generate_examples(str(dl_manager.manual_dir))}

        def _generate_examples(self, raw_dir):
            return _generate_examples(self.builder_config.name, raw_dir)

    return LeedsSportsPose


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
