"""Sets as shipped: read once, checked, and kept as records in one file.

`prepare` writes a set on first use into

    <cache_dir>/<set>-<version>-<annotations>-<images>

with digests of the annotation file's bytes and of every image's name, size and time of
change, so that a replaced image, or another data folder, is prepared anew. A set
without an annotation file has a digest of its images' names instead, and one whose
images lie in a few large files those files' sizes and times. What the folder
holds is in `prepared`: each image once, as shipped, whatever number of examples it has.
They are written as they are read: memory does not grow with the set.

A prepared folder is complete or does not exist: it is written under a temporary name
`*.tmp-*` beside it, which nobody reads, and renamed. Who writes holds a lock in it;
what a killed process has left has none, and goes at the next preparation.

Every image is decoded, strictly, before any is refused: a set is read once to find all
that is damaged. `data.damaged` says whether the rest may be used.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tqdm

from jalpose.data import images, leftovers
from jalpose.data.prepared import HEAD, INDEX, RECORDS, Prepared, digest_of, read_index
from jalpose.data.source import DataError

BUILDER_VERSION = "2.0.0"  # part of the folder name: raise it if records change
DAMAGED = ("refuse", "leave_out")  # values of `data.damaged`
NAMED = 10  # damaged images a message names
LOG_EVERY_SECONDS = 10
_SPARE = 64 * 2**20  # bytes of room beyond the images
_logger = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """How the records of a set are made.

    Attributes:
      name: of the set: a folder's name begins with it.
      files: of the images in the order of the records, relative to the data folder.
      read: (data folder, file, record) -> bytes of the image, which is whole; raises
        DataError where it is not.
      containers: the files that hold the images, relative to the data folder, where
        `files` are but names of theirs; (): each image is a file of its own.
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[str, str, int], bytes]
    containers: tuple[str, ...] = ()


def prepare(
    recipe: Recipe,
    path: str | None,
    data_dir: str,
    cache_dir: str,
    damaged: str = "refuse",
) -> Prepared:
    """The prepared folder of a set, made on first use.

    Where no image is left in the data folder, the folder last prepared from there is
    taken: what is prepared may be used without the images.

    Args:
      recipe: of the set.
      path: of its annotation file, whose bytes are in the folder's name; None: there
        is none, and the images' names are.
      data_dir: holds the sets as shipped.
      cache_dir: for the prepared ones.
      damaged: see `DAMAGED`; "leave_out" uses the images that are whole.

    Raises:
      DataError: images are missing or damaged, or the folder cannot be written.
    """
    if path is None:
        described = "\n".join(recipe.files).encode()
    else:
        with open(path, "rb") as file:
            described = file.read()
    labels = hashlib.sha256(described).hexdigest()[:12]
    cache_dir = os.path.abspath(os.path.expanduser(cache_dir))
    start = f"{recipe.name}-{BUILDER_VERSION}-{labels}"
    stats, room = _stats_of(recipe, data_dir)
    prepared_dir = os.path.join(cache_dir, f"{start}-{stats}")
    if room == 0 and not os.path.isdir(prepared_dir):
        prepared_dir = _without_images(cache_dir, start, data_dir) or prepared_dir
    if not os.path.isdir(prepared_dir):
        _prepare(recipe, data_dir, prepared_dir, room, damaged)
    found = read_index(prepared_dir)
    if {*found.files, *found.damaged} != set(recipe.files):
        raise DataError(
            f"{prepared_dir!r} holds {len(found.files)} images of other names than the "
            f"{len(recipe.files)} that {path or data_dir!r} describes. Delete it: it "
            "is prepared anew on the next run."
        )
    if found.damaged:
        _tell_damaged(recipe, found.damaged, damaged)
    for note in found.notes:
        _logger.warning("%s: %s", recipe.name.upper(), note)
    return found


def _stats_of(recipe: Recipe, data_dir: str) -> tuple[str, int]:
    """Digest of names, sizes and times of the files, and their bytes in all."""
    digest, room = hashlib.sha256(), 0
    for file in recipe.containers or recipe.files:
        try:
            found = os.stat(os.path.join(data_dir, file))
            about = f"{found.st_size} {found.st_mtime_ns}"
            room += found.st_size
        except OSError:
            about = "missing"
        digest.update(f"{file}\0{about}\n".encode())
    return digest.hexdigest()[:12], room


def _without_images(cache_dir: str, start: str, data_dir: str) -> str:
    """The newest folder prepared of these labels from this data folder, or ""."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(cache_dir):
            if entry.name.startswith(f"{start}-") and leftovers.MARK not in entry.name:
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    with open(os.path.join(entry.path, INDEX), "rb") as file:
                        origin = json.load(file).get("data_dir")
                    if origin == os.path.abspath(data_dir):
                        found.append((entry.stat().st_mtime_ns, entry.path))
    return max(found)[1] if found else ""


def _prepare(
    recipe: Recipe, data_dir: str, prepared_dir: str, room: int, damaged: str
) -> None:
    """Writes the records of a set; `prepared_dir` appears whole or not at all."""
    cache_dir = os.path.dirname(prepared_dir)
    name = recipe.name.upper()
    advice = (
        "Set data.cache_dir to a folder that can be written and has room for a copy of "
        "the images."
    )
    try:
        os.makedirs(cache_dir, exist_ok=True)
        leftovers.remove(cache_dir)
        free = shutil.disk_usage(cache_dir).free
        if free < room + min(_SPARE, room // 50 + 2**16):
            raise DataError(
                f"Cannot write the prepared images of {name} to {cache_dir!r}: they "
                f"take {room / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free. {advice}"
            )
        with leftovers.temporary_folder(prepared_dir) as temporary:
            _logger.info("preparing %s in %s (once)", recipe.name, prepared_dir)
            _write_records(recipe, data_dir, temporary, damaged)
            _logger.info("prepared %s", recipe.name)
            leftovers.finish(temporary, prepared_dir)
    except (OSError, RuntimeError) as error:  # the latter of ArrayRecord
        raise DataError(
            f"Cannot write the prepared images of {name} to {cache_dir!r}: {error}. "
            f"{advice}"
        ) from error


def _write_records(recipe: Recipe, data_dir: str, folder: str, damaged: str) -> None:
    """Streams every whole image into `folder`, and writes the index.

    Raises:
      DataError: some are damaged, and they are not to be left out; or all are.
    """
    from array_record.python import array_record_module

    index: dict[str, Any] = {
        "name": recipe.name,
        "version": BUILDER_VERSION,
        "data_dir": os.path.abspath(data_dir),
        **{key: [] for key in ("files", "sizes", "digests", *images.TOLD)},
        "damaged": {},
    }
    path = os.path.join(folder, RECORDS)
    # Images are compressed already.
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1,uncompressed")
    try:
        for file, number in _with_progress(recipe):
            try:
                encoded = recipe.read(data_dir, file, number)
                about = images.facts(encoded, what=file, advice="")
            except DataError as error:
                index["damaged"][file] = str(error)
                continue
            if index["damaged"] and damaged == "refuse":
                continue  # only looked at
            digest = digest_of(encoded)
            writer.write(HEAD.pack(len(index["files"]), digest) + encoded)
            index["files"].append(file)
            index["sizes"].append([about.width, about.height])
            index["digests"].append(digest.hex())
            for told in images.TOLD:
                if getattr(about, told):
                    index[told].append(file)
    finally:
        writer.close()
    if index["damaged"] and (damaged == "refuse" or not index["files"]):
        _tell_damaged(recipe, index["damaged"], "refuse")
    with open(os.path.join(folder, INDEX), "x", encoding="utf-8") as stream:
        json.dump(index, stream)


def _tell_damaged(recipe: Recipe, found: dict[str, str], damaged: str) -> None:
    """Warn of images that are left out, or raise DataError where they may not be."""
    reasons, total = list(found.values()), len(recipe.files)
    if damaged == "leave_out":
        _logger.warning(
            "%d of %d images of %s are left out (data.damaged=leave_out): %s",
            len(found),
            total,
            recipe.name.upper(),
            _some(list(found)),
        )
        return
    if len(found) == 1:
        raise DataError(
            f"{reasons[0]} All other images are whole: data.damaged=leave_out goes on "
            "without it."
        )
    raise DataError(
        f"{len(found)} of {total} images of {recipe.name.upper()} are missing or "
        f"damaged: {_some(list(found))}. data.damaged=leave_out goes on without them. "
        f"Of the first: {reasons[0]}"
    )


def _some(names: list[str], most: int = NAMED) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _with_progress(recipe: Recipe) -> Iterator[tuple[str, int]]:
    """The files and their numbers; says how far it is, on a terminal or in the log."""
    total, bar = len(recipe.files), sys.stderr.isatty()
    begun = logged = time.monotonic()
    named = tqdm.tqdm(recipe.files, recipe.name, disable=not bar)
    for number, file in enumerate(named):
        now = time.monotonic()
        if not bar and now - logged > LOG_EVERY_SECONDS:
            logged = now
            left = (now - begun) / max(number, 1) * (total - number)
            _logger.info(
                "preparing %s: %d of %d images, %s left",
                recipe.name,
                number,
                total,
                f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s",
            )
        yield file, number
