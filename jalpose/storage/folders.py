"""Folders that come to their place whole, or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from jalpose.storage import locks
from jalpose.storage.records import explain_full_disk, flush_folder


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder to write into that comes to `path` when the block ends.

    It takes the place of one that is there. What kills of earlier ones have left beside
    it is removed, not what another process is writing. Raises WorkdirError where the
    disk is full.
    """
    path = Path(os.path.realpath(path))  # a link to a folder stays one
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if locks.holder(left) is None:
            shutil.rmtree(left, ignore_errors=True)
    # Hidden, so that nobody takes a half for the whole.
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    with explain_full_disk(path), locks.hold(temporary):
        try:
            folder = temporary / path.name
            folder.mkdir()
            yield folder
            _flush(folder)
            if path.exists():
                os.rename(path, temporary / f"{path.name}.old")
            os.rename(folder, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    flush_folder(path.parent)


def _flush(folder: Path) -> None:
    """Bring the files below a folder to the disk before it is renamed."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            flush_folder(path)
