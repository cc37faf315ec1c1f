"""Is a file or folder there, and what is in it?

Not being allowed to look is another answer than that nothing is there.
"""

import collections
import logging
import os
import stat
from collections.abc import Collection, Iterator

from jalpose.data.source import DataError

# fmt: off
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm",
)
_NOT_READ = (  # pictures too
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw",
    ".orf", ".rw2", ".raf",
)
# fmt: on
# Files by which folders are known that runs and commands have written: pictures in
# them are of images that lie elsewhere.
_WRITTEN = ("cycles.jsonl", "requests.json", "prediction.json")
_logger = logging.getLogger(__name__)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Is there a file that may be read?

    Raises:
      DataError: it, or a folder above it, may not be read by this user.
    """
    found = _mode(path)
    if found is None or not stat.S_ISREG(found):
        return False
    try:
        with open(path, "rb"):
            return True
    except PermissionError as error:
        raise _refused(path) from error


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Is there a folder that may be looked into?

    Raises:
      DataError: it, or a folder above it, may not be read by this user.
    """
    found = _mode(path)
    if found is None or not stat.S_ISDIR(found):
        return False
    try:
        os.scandir(os.fspath(path)).close()
        return True
    except PermissionError as error:
        raise _refused(path) from error


def images_below(path: str | os.PathLike[str]) -> list[str]:
    """Image files in a folder and below it, by name, relative to it; see `files_below`.

    Pictures of kinds that are not read are warned of. Folders below that a run,
    `jalpose.select` or `jalpose.predict` has written are not looked into.

    Raises:
      DataError: there is none.
    """
    found, others = [], collections.Counter[str]()
    for file in files_below(path, without=_WRITTEN):
        ending = os.path.splitext(file)[1].lower()
        if ending in ENDINGS:
            found.append(file)
        elif ending in _NOT_READ:
            others[ending] += 1
    named = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
    if not found:
        raise DataError(
            f"No image in {os.fspath(path)!r}: looked for files ending in "
            f"{', '.join(ENDINGS)}"
            + (f"; there are {named}: save them as JPEG or PNG" if named else "")
        )
    if named:
        _logger.warning(
            "%s: %d images are taken, and other pictures are not read (%s): save those "
            "as JPEG or PNG",
            os.fspath(path),
            len(found),
            named,
        )
    return found


def files_below(
    path: str | os.PathLike[str], without: Collection[str] = ()
) -> Iterator[str]:
    """Files in a folder and below it, by name, relative to it, with forward slashes.

    Hidden files and folders are not looked at. Links to folders are followed, but not
    into what is walked through already.

    Args:
      path: of the folder.
      without: folders below it that have a file of one of these names are not looked
        into, which is told.

    Raises:
      DataError: a folder may not be read, or a name is no text.
    """

    def refuse(error: OSError):
        if isinstance(error, PermissionError):
            raise _refused(error.filename) from error
        raise DataError(
            f"{error.filename!r} cannot be looked into: {error.strerror}"
        ) from error

    path = os.fspath(path)
    walked = [os.path.realpath(path)]
    for above, folders, names in os.walk(path, onerror=refuse, followlinks=True):
        if above != path and not {*names}.isdisjoint(without):
            _logger.warning(
                "%s is written by jalpose: its pictures are not new images", above
            )
            folders.clear()
            continue
        kept = []
        for name in sorted(folders):
            if name.startswith("."):
                continue
            if os.path.islink(os.path.join(above, name)):
                target = os.path.realpath(os.path.join(above, name))
                if any(_meet(target, other) for other in walked):
                    continue
                walked.append(target)
            kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            if name.startswith("."):
                continue
            file = os.path.relpath(os.path.join(above, name), path)
            try:
                file.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"{file!a} in {path!r} has a name that is not UTF-8: rename it"
                ) from error
            yield file.replace(os.sep, "/")


def _meet(one: str, other: str) -> bool:
    """Is one of two folders the other, or in it?"""
    return os.path.commonpath([one, other]) in (one, other)


def _mode(path) -> int | None:
    try:
        return os.stat(path).st_mode
    except PermissionError as error:
        raise _refused(path) from error
    except OSError:
        return None


def _refused(path) -> DataError:
    return DataError(
        f"{os.fspath(path)!r} may not be read by this user: have the permissions of it "
        "and of the folders above it changed, or set config.data.dir to a copy"
    )
