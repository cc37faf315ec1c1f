"""Sets shipped as files prepared once as ArrayRecord with TFDS, then read at random.

`open_source` prepares a set on first use into

    <cache_dir>/<set>-<builder version>-<fingerprint of the annotation file>

and opens it. A prepared folder is complete or does not exist: it is written under
a temporary name `*.tmp-*` beside it, which nobody reads, and renamed. Of the raw
data, later calls read only the annotation file (`joints.mat` of LSP and LSPET). The
records hold the encoded images as shipped; they are decoded here with Pillow, so
neither step needs TensorFlow, and a damaged image is named. Each image is stored once:
people of MPII who share an image share its record, and no option of who is an example
changes the records.
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
from typing import Any, NamedTuple

import numpy as np
import tqdm

from jalpose.data.source import Annotations, DataError
from jalpose.tasks.pose import lsp, mpii, skeletons

BUILDER_VERSION = "1.0.0"  # part of the folder name: raise it if records change
SPLIT = "full"
_LOG_EVERY_SECONDS = 10
_TFDS_LOCK = threading.Lock()
_logger = logging.getLogger(__name__)


class PreparedSource:
    """Images and labels of a prepared set; see `source.Source`.

    Safe to share between threads, and picklable: a copy opens its own reader.

    Args:
      name: of the set.
      annotations: of its examples.
      prepared_dir: holds its records.
      files: the image file of each record; None: each example has a record, in order.
    """

    skeleton: skeletons.Skeleton
    described_by: str  # the annotation file, in messages

    def __init__(
        self,
        *,
        name: str,
        annotations: Annotations,
        prepared_dir: str,
        files: tuple[str, ...] | None = None,
    ):
        self.name = name
        self.annotations = annotations
        self.prepared_dir = prepared_dir
        files = annotations.files if files is None else files
        self._rows = {file: row for row, file in enumerate(files)}
        self._lock = threading.Lock()
        self._records = _open_records(name, prepared_dir)
        if len(self._records) != len(files):
            raise DataError(
                f"{prepared_dir!r} holds {len(self._records)} images, "
                f"{self.described_by} describes {len(files)}. "
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


class LspSource(PreparedSource):
    """Images and labels of LSP or LSPET."""

    skeleton = skeletons.LSP
    described_by = "joints.mat"


class MpiiSource(PreparedSource):
    """Images and labels of MPII; several people may share an image."""

    skeleton = skeletons.MPII
    described_by = "the annotation file"


class _Recipe(NamedTuple):
    """What the records of a set hold: `records` beside the image, in order."""

    name: str
    records: list[dict[str, Any]]


def open_source(
    name: str, data_dir: str, cache_dir: str, options: mpii.Options | None = None
) -> PreparedSource:
    """Opens `name` ("lsp", "lspet" or "mpii") in `data_dir`, prepared on first use.

    Args:
      name: of the set.
      data_dir: holds the sets as shipped.
      cache_dir: for the prepared ones.
      options: of MPII; they choose among the examples and change no record.

    Raises:
      DataError: if the data set or the cache folder is not usable; the message
        names the file or folder and what to do.
    """
    known = (*lsp.LAYOUTS, "mpii")
    if name not in known:
        raise DataError(f"Unknown {name=}. Known: {', '.join(known)}.")
    data_dir = os.path.abspath(os.path.expanduser(data_dir))
    if name == "mpii":
        options = options or mpii.Options()
        path = mpii.find_annotation(data_dir, options.annotation)
        everybody = mpii.read_annotations(data_dir, options.annotation)
        files = tuple(dict.fromkeys(everybody.files))
        recipe = _Recipe(name, [{"index": n, "file": f} for n, f in enumerate(files)])
        return MpiiSource(
            name=name,
            annotations=mpii.choose(everybody, options),
            prepared_dir=_prepared(recipe, path, data_dir, cache_dir),
            files=files,
        )
    path = lsp.find_joints_file(name, data_dir)
    annotations = lsp.read_annotations(name, data_dir)
    recipe = _Recipe(name, _lsp_records(annotations))
    return LspSource(
        name=name,
        annotations=annotations,
        prepared_dir=_prepared(recipe, path, data_dir, cache_dir),
    )


def _lsp_records(labels: Annotations) -> list[dict[str, Any]]:
    return [
        {
            "joints": labels.joints[index],
            "status": labels.status[index],
            "index": index,
            "key": labels.keys[index],
            "file": file,
        }
        for index, file in enumerate(labels.files)
    ]


def _prepared(recipe: _Recipe, path: str, data_dir: str, cache_dir: str) -> str:
    """The prepared folder of the set whose annotation file is `path`."""
    with open(path, "rb") as file:
        fingerprint = hashlib.sha256(file.read()).hexdigest()[:12]
    folder = f"{recipe.name}-{BUILDER_VERSION}-{fingerprint}"
    cache_dir = os.path.abspath(os.path.expanduser(cache_dir))
    prepared_dir = os.path.join(cache_dir, folder)
    if not os.path.isdir(prepared_dir):
        _prepare(recipe, data_dir=data_dir, prepared_dir=prepared_dir)
    return prepared_dir


def _prepare(recipe: _Recipe, *, data_dir: str, prepared_dir: str) -> None:
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


def _write_records(recipe: _Recipe, *, data_dir: str, folder: str) -> None:
    """Runs the TFDS builder into `folder`."""
    import tensorflow_datasets as tfds

    downloads = os.path.join(folder, "downloads")  # stays empty, but is created
    with _quiet_tfds():
        builder = _builder_class(recipe.name)(data_dir=folder, config=recipe.name)
        builder.recipe = recipe
        builder.download_and_prepare(
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
            builder = _builder_class(name)(data_dir=prepared_dir, config=name)
            skip = {"image": tfds.decode.SkipDecoding()}
            return builder.as_data_source(SPLIT, decoders=skip)
    except Exception as error:  # TFDS raises many kinds for a damaged folder
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(
            f"Cannot open the prepared folder {prepared_dir!r}: {reason}. "
            f"{_delete_advice(prepared_dir)}"
        ) from error


def _generate_examples(
    recipe: _Recipe, raw_dir: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields every record of a set, in order, after decoding its image once."""
    read_image_file = (mpii if recipe.name == "mpii" else lsp).read_image_file
    total, bar = len(recipe.records), sys.stderr.isatty()
    logged = time.monotonic()
    for record in tqdm.tqdm(recipe.records, recipe.name, disable=not bar):
        index = record["index"]
        if not bar and time.monotonic() - logged > _LOG_EVERY_SECONDS:
            logged = time.monotonic()
            _logger.info("preparing %s: %d of %d images", recipe.name, index, total)
        yield (
            index,
            {**record, "image": read_image_file(raw_dir, record["file"], index)},
        )


def _builder_class(name: str) -> Any:
    """The TFDS builder of a set."""
    return _builder_classes()["mpii" if name == "mpii" else "lsp"]


@functools.cache
def _builder_classes() -> dict[str, Any]:
    """The TFDS builders; TFDS is imported on use, as that is slow."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Images(  # type: ignore[call-arg]
        tfds.core.GeneratorBasedBuilder, skip_registration=True
    ):
        """Images as shipped, record i being example i of its `recipe`."""

        VERSION = tfds.core.Version(BUILDER_VERSION)
        # Else TFDS looks for checksums of downloads beside this module, and needs
        # importlib_resources for that, which it does not install.
        code_path = None
        recipe: _Recipe  # given before the records are written

        def _labels(self) -> dict[str, Any]:
            """Features of a record beside its image."""
            raise NotImplementedError

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "index": tfds.features.Scalar(dtype=np.int64),
                "file": tfds.features.Text(),
                **self._labels(),
            }
            # Without shuffling, record i is example i.
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {SPLIT: self._generate_examples(str(dl_manager.manual_dir))}

        def _generate_examples(self, raw_dir):
            return _generate_examples(self.recipe, raw_dir)

    class LeedsSportsPose(Images):
        """LSP and LSPET, in the joint order and with the status of `skeletons`."""

        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in lsp.LAYOUTS]  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = lsp.WHERE_TO_GET

        def _labels(self):
            shape = (skeletons.LSP.num_joints,)
            return {
                "joints": tfds.features.Tensor(shape=(*shape, 2), dtype=np.float32),
                "status": tfds.features.Tensor(shape=shape, dtype=np.int8),
                "key": tfds.features.Text(),
            }

    class MpiiHumanPose(Images):
        """The images of MPII; who is in them is read with the annotations."""

        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="mpii")]  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = mpii.WHERE_TO_GET

        def _labels(self):
            return {}

    return {"lsp": LeedsSportsPose, "mpii": MpiiHumanPose}


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
