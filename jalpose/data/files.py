"""Is a file or folder there? Not being allowed to look is another answer."""

import os
import stat

from jalpose.data.source import DataError


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
