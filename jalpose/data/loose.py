"""Images of no data set, read where they lie: nothing is prepared, nothing is kept.

They are looked through once, as strictly as a set is when it is prepared: what is
damaged is named and left out.
"""

import concurrent.futures
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data import images
from jalpose.data.prepared import digest_of
from jalpose.data.source import Annotations, DataError

THREADS = 4
_ADVICE = "Copy it again, or take it out."


class Looked(NamedTuple):
    """What was found of image files.

    Attributes:
      folder: that they are relative to.
      files: of those that are whole, in the order they were given in.
      sizes: int32 [n, 2], their widths and heights, pixels as stored.
      digests: of their bytes, 32 hexadecimal digits each.
      damaged: file -> why it is left out.
      notes: what is not as a user may think, see `images.notes`.
    """

    folder: str
    files: tuple[str, ...]
    sizes: np.ndarray
    digests: tuple[str, ...]
    damaged: dict[str, str]
    notes: tuple[str, ...] = ()


def look_through(
    folder: str,
    files: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Looked:
    """Decode every image once, to its end.

    Args:
      folder: of the images.
      files: relative to it, each once.
      progress: (done, total) -> nothing; called after each.
    """

    def look(file: str):
        path, what = os.path.join(folder, file), f"image {file!r}"
        try:
            encoded = images.read_image_file(
                path, what=what, described_by="its list", advice=_ADVICE
            )
            return images.facts(encoded, what=what, advice=_ADVICE), digest_of(encoded)
        except DataError as error:
            return str(error)

    found, damaged = [], {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        for number, (file, about) in enumerate(
            zip(files, threads.map(look, files), strict=True), start=1
        ):
            if isinstance(about, str):
                damaged[file] = about
            else:
                found.append((file, *about))
            progress(number, len(files))
    return Looked(
        folder=folder,
        files=tuple(file for file, _, _ in found),
        sizes=np.array([(a.width, a.height) for _, a, _ in found], np.int32).reshape(
            -1, 2
        ),
        digests=tuple(digest.hex() for _, _, digest in found),
        damaged=damaged,
        notes=images.notes(
            {
                name: [file for file, about, _ in found if getattr(about, name)]
                for name in images.TOLD
            },
            len(found),
        ),
    )


class LooseImages:
    """Examples whose images are read from their files; see `source.Source`.

    Args:
      name: of the source, for people.
      annotations: of the examples, whose images are all among those looked through.
      looked: what was found of the images.

    Attributes:
      sizes: int32 [N, 2], width and height of each example's image, pixels.
      digests: of each one's file.
    """

    def __init__(self, name: str, annotations: Annotations, looked: Looked):
        self.name, self.annotations = name, annotations
        self._folder = looked.folder
        rows = {file: row for row, file in enumerate(looked.files)}
        own = [rows[file] for file in annotations.files]
        self.sizes = looked.sizes[own].reshape(-1, 2)
        self.digests = tuple(looked.digests[row] for row in own)

    def image(self, index: int) -> np.ndarray:
        """Image `index` of `annotations`: uint8 [H, W, 3], RGB, pixels as stored.

        Raises:
          DataError: it has changed since it was looked through.
        """
        file = self.annotations.files[index]
        path, what = os.path.join(self._folder, file), f"image {file!r}"
        try:
            with open(path, "rb") as stream:
                encoded = stream.read()
        except OSError as error:
            raise DataError(f"Cannot read {what}: {error.strerror}") from error
        if digest_of(encoded).hex() != self.digests[index]:
            raise DataError(f"{what} has changed while it was being used")
        return images.decode_rgb(encoded, what=what, advice=_ADVICE)
