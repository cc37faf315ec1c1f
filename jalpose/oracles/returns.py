"""What lies in a run's folder of labels: files told by content, statements by name."""

import contextlib
import hashlib
import re
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jalpose.data.files import files_below
from jalpose.data.source import DataError
from jalpose.oracles.oracle import LabelsError
from jalpose.tasks.exchange import (
    Exchange,
    Request,
    Returned,
    UnreadableError,
    is_image,
)
from jalpose.tasks.labels import Truth

# Label Studio puts eight digits and a hyphen before the names of uploaded files.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


class Statement(NamedTuple):
    """What a file in the folder says of one picture.

    Attributes:
      file: path relative to the folder of labels.
      where: in the file.
      name: of the picture, as the file has it.
      label: arrays of one example; None: not labelled.
      rejected: nobody can label it.
      size: of the picture as the file has it; None: it does not tell.
    """

    file: str
    where: str
    name: str
    label: Truth | None
    rejected: bool
    size: tuple[int, int] | None

    def __str__(self) -> str:
        return f"{self.file}, {self.where}"


class Names:
    """Examples by the names of the pictures that were ever handed out.

    Args:
      requests: of all cycles; of an example asked for twice, the later.
      files: of all examples, whether handed out or not: with `oracle.copy=none` those
        are their names.
    """

    def __init__(self, requests: Sequence[Request], files: Collection[str] = ()):
        self.requests = {one.id: one for one in requests}
        self._whole = {one.name: one.id for one in requests}
        self._ends: dict[str, list[str]] = {}
        for name in self._whole:
            self._ends.setdefault(PurePosixPath(name).name, []).append(name)
        self._files = frozenset(files) - self._whole.keys()

    def find(self, name: str) -> int | None:
        """The example of a picture, whatever folder a tool puts before its name.

        None where there is none, or several.
        """
        found = self.alike(name)
        if len(found) == 1:
            return self._whole[found[0]]
        if name.isascii() and name.isdigit() and int(name) in self.requests:
            return int(name)
        return None

    def alike(self, name: str) -> list[str]:
        """Names that a tool may have put folders before, or taken them from.

        Of `a/1.jpg` that is `photos/a/1.jpg` and `1.jpg`, and never `b/1.jpg`.
        """
        path = PurePosixPath(name.replace("\\", "/").rpartition("?d=")[2])
        for start in range(len(path.parts)):
            one = str(PurePosixPath(*path.parts[start:]))
            if one in self._whole:
                return [one]
            if one in self._files:
                return []  # of an image that was not handed out
        if path.name in self._ends:
            return [one for one in self._ends[path.name] if _agree(one, path)]
        return self._ends.get(_UPLOADED.sub("", path.name), [])


def _agree(name: str, path: PurePosixPath) -> bool:
    """Are two paths the same from their ends on, as far as both go?"""
    ours, theirs = PurePosixPath(name).parts, path.parts
    least = min(len(ours), len(theirs))
    return ours[-least:] == theirs[-least:]


def read_folder(
    folder: Path, exchange: Exchange, handed_out: Path
) -> tuple[list[Statement], list[Path]]:
    """All statements of the files below a folder, in the order of their paths.

    Args:
      folder: of labels; it may not be there.
      exchange: of the task.
      handed_out: folder of what was handed out; a file that is one of it, byte for
        byte, is no answer.

    Returns:
      The statements, and the files that make any.

    Raises:
      LabelsError: a file is in no known format, or not as its format has it.
    """
    own = _digests(handed_out)
    statements: list[Statement] = []
    files: list[Path] = []
    problems: list[str] = []
    for name in map(PurePosixPath, _below(folder)):
        path = folder / name
        if _hidden(name):
            continue
        if not path.is_file():
            problems.append(f"{name}: it is a link that leads nowhere, or no file")
            continue
        found: list[Statement] = []
        with contextlib.ExitStack() as stack:
            for member, place in _members(path, name, stack, problems):
                try:
                    found += _statements(exchange, place, member, own)
                except UnreadableError as error:
                    problems.append(f"{member}: {error}")
                except OSError as error:
                    problems.append(f"{member}: cannot be read: {error.strerror}")
        statements += found
        if found:
            files.append(path)
    if problems:
        raise LabelsError(
            f"{folder} holds what cannot be read:\n  " + "\n  ".join(problems[:10])
        )
    return statements, files


def _below(folder: Path) -> list[str]:
    """Files of a folder, by their paths; it may not be there."""
    if not folder.is_dir():
        return []
    try:
        return sorted(files_below(folder), key=lambda name: PurePosixPath(name).parts)
    except DataError as error:
        raise LabelsError(str(error)) from error


def _statements(
    exchange: Exchange, path: Path, name: PurePosixPath, own: dict[str, str]
) -> list[Statement]:
    other = None if is_image(path) else own.get(_digest(path))
    if other is not None:
        raise UnreadableError(
            f"it is {other} as it was handed out: what the model says, and no label of "
            "anybody. Take it out, and put there what the annotation tool exports"
        )
    returned: list[Returned] | None = exchange.read(path, name)
    if returned is None:
        raise UnreadableError(
            f"it is in none of the formats that are read ({'; '.join(exchange.formats)}"
            "). Take it out, or export it anew"
        )
    return [
        Statement(str(name), one.where, one.name, one.label, one.rejected, one.size)
        for one in returned
    ]


def _members(
    path: Path, name: PurePosixPath, stack: contextlib.ExitStack, problems: list[str]
) -> Iterator[tuple[PurePosixPath, Path]]:
    """The file, or what an archive holds: names and where they can be read."""
    if not zipfile.is_zipfile(path):
        yield name, path
        return
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)  # it leads nowhere out of the folder
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        problems.append(f"{name}: the archive is damaged, or locked: {error}")
        return
    for member in sorted(folder.rglob("*")):
        inside = PurePosixPath(member.relative_to(folder).as_posix())
        if member.is_file() and not _hidden(inside):
            yield name / inside, member


def _hidden(name: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.parts)


def _digests(handed_out: Path) -> dict[str, str]:
    """Digests of all that was handed out but for pictures -> path."""
    return {
        _digest(path): path.relative_to(handed_out.parent).as_posix()
        for path in sorted(handed_out.glob("*/**/*"))
        if path.is_file() and not is_image(path)
    }


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
