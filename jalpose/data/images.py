"""Image files: read, decoded by stated rules, and named where they are damaged.

8 bits a channel, any colour mode   to RGB
16 bits, grey                       value * 255 / 65535, rounded
16 bits, colour                     the upper 8 bits (as Pillow reads them)
transparent                         laid on white
32 bits (Pillow's modes I and F)    refused: how bright its numbers are is not known
several pictures (TIFF, GIF, ...)   the first
EXIF orientation                    ignored: labels are of the pixels as stored
"""

import io
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from jalpose.data import jpeg
from jalpose.data.source import DataError

_WORDS = {"I": "32-bit whole numbers", "F": "32-bit floating-point numbers"}
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    Image.DecompressionBombError,
)
_ORIENTATION = 0x0112  # EXIF tag
# What Pillow does to a TIFF of an orientation while it decodes it, undone.
_UNDONE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_TIFF_SIDES = 256, 257  # tags: width and height
# What is told of a set, by the name in `Facts`; the first image is put in.
_TOLD = {
    "rotated": "have an EXIF orientation, e.g. {}: it is ignored, labels are of the "
    "pixels as stored",
    "deep": "are grey of 16 bits, e.g. {}: 65,535 is taken as white, and one whose "
    "values end at 4,095 is nearly black",
    "several": "hold several pictures, e.g. {}: the first of each is taken, the others "
    "are not looked at",
}
TOLD = tuple(_TOLD)


class Facts(NamedTuple):
    """What a file says of its image.

    Attributes:
      width: pixels as stored.
      height: pixels as stored.
      rotated: an EXIF orientation asks to turn or mirror it, which is ignored.
      deep: grey of 16 bits, of which 8 are left.
      several: it holds other pictures of that size, which are ignored.
    """

    width: int
    height: int
    rotated: bool
    deep: bool = False
    several: bool = False


def notes(told: Mapping[str, Sequence[str]], total: int) -> tuple[str, ...]:
    """What is not as a user may think, in sentences that go on from a set.

    Args:
      told: files by the name in `Facts` of what they are.
      total: images in the set.
    """
    return tuple(
        f"{len(told[name])} of {total} images {words.format(told[name][0])}"
        for name, words in _TOLD.items()
        if told.get(name)
    )


def read_image_file(
    path: str | os.PathLike, *, what: str, described_by: str, advice: str
) -> bytes:
    """Bytes of an image file that exists and is whole.

    Args:
      path: of the file.
      what: it is, for the error.
      described_by: what says that it should be there, for the error.
      advice: what to do where it is not, for the error.

    Raises:
      DataError: it is not there, is no whole image, or is of a kind that is refused.
    """
    try:
        with open(path, "rb") as stream:
            encoded = stream.read()
    except OSError as error:
        raise DataError(
            f"Cannot read {what}, which {described_by} describes: {error.strerror}"
            f"{_near(path)}. {advice}"
        ) from error
    check(encoded, what=what, advice=advice)
    return encoded


def check(encoded: bytes, *, what: str, advice: str) -> Facts:
    """Decode an image to its end, strictly, for what its file says of it.

    Args:
      encoded: the file's bytes.
      what: it is, for the error.
      advice: what to do where it is damaged, for the error.

    Raises:
      DataError: it is no whole image, or of a kind that is refused. Of a JPEG that is
        also one whose data end too early or go on too long inside; see `jpeg`.
    """
    found = facts(encoded, what=what, advice=advice)
    decode_rgb(encoded, what=what, advice=advice)
    if encoded.startswith(b"\xff\xd8"):
        inside = jpeg.fault(encoded)
        if inside:
            raise _damaged(what, inside, advice)
    return found


def facts(encoded: bytes, *, what: str, advice: str) -> Facts:
    """What the head of an image file says; nothing is decoded.

    Raises:
      DataError: `what` is no image; `advice` says what to do.
    """
    with _opened(encoded, what, advice) as image:
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            width, height = (int(image.tag_v2[tag]) for tag in _TIFF_SIDES)
        return Facts(
            width,
            height,
            rotated=_orientation(image) in _UNDONE,
            deep=_is_deep(image),
            several=_has_others(image),
        )


def decode_rgb(encoded: bytes, *, what: str, advice: str) -> np.ndarray:
    """Decode an image by the rules of this module: uint8 [H, W, 3], RGB.

    Raises:
      DataError: `what` is not a whole image, has more pixels than are read, or is of a
        kind that is refused; `advice` says what to do.
    """
    with _opened(encoded, what, advice) as image:
        if image.mode in _WORDS and not _is_deep(image):
            raise DataError(
                f"Cannot use {what}: it holds {_WORDS[image.mode]} (Pillow's mode "
                f"{image.mode}), of which nobody says what is white; save it with 8 or "
                "16 bits a channel"
            )
        turned = None
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            turned = _UNDONE.get(_orientation(image))  # decoded it has none any more
        try:
            pixels = _as_rgb(image)
        except _PILLOW_ERRORS as error:
            raise _damaged(what, error, advice) from error
    if turned is not None:
        return np.array(Image.fromarray(pixels).transpose(turned))
    return pixels


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Is it grey of 16 bits? A PGM has mode I then, and its white is 65,535."""
    return image.mode.startswith("I;16") or (
        image.mode == "I" and image.format == "PPM"
    )


def _as_rgb(image: ImageFile.ImageFile) -> np.ndarray:
    if _is_deep(image):
        values = np.asarray(image).astype(np.uint32)
        grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        ground = Image.new("RGBA", coloured.size, "white")
        return np.array(Image.alpha_composite(ground, coloured).convert("RGB"))
    return np.array(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that a file has; 1: upright."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds for damaged EXIF data
        return 1


def _has_others(image: ImageFile.ImageFile) -> bool:
    """Are there other pictures of the same size? A photograph's (MPO) are views."""
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return False
    size = image.size
    try:
        image.seek(1)
        return image.size == size
    except _PILLOW_ERRORS:  # told where the first cannot be decoded
        return False


def _opened(encoded: bytes, what: str, advice: str) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError as error:
        counts = re.findall(r"\d+", str(error))
        pixels, most = (f"{int(n) / 1e6:.0f} million" for n in (*counts, 0, 0)[:2])
        raise DataError(
            f"Cannot use {what}: it has {pixels} pixels, and at most {most} are read; "
            "make it smaller, and its labels with it"
        ) from error
    except _PILLOW_ERRORS as error:
        raise _damaged(what, error, advice) from error


def _damaged(what: str, why, advice: str) -> DataError:
    return DataError(
        f"Cannot decode {what}, it is truncated or damaged: {why}. {advice}"
    )


def _near(path: str | os.PathLike) -> str:
    """Words on a file beside `path` whose name differs in case or ending alone.

    Or in how its letters are written: accents may be signs of their own.
    """
    if os.path.islink(path):
        return f" (it is a link to {os.readlink(os.fspath(path))!r})"
    folder, name = os.path.split(os.fspath(path))
    try:
        there = sorted({*os.listdir(folder or ".")} - {name})
    except OSError:
        return ""
    own, stem = name, _plain(os.path.splitext(name)[0])
    close = [other for other in there if _plain(other) == _plain(own)]
    close += [other for other in there if _plain(os.path.splitext(other)[0]) == stem]
    if not close:
        return ""
    alike = unicodedata.normalize("NFC", close[0]) == unicodedata.normalize("NFC", own)
    letters = ", with its accents as signs of their own, or not" if alike else ""
    return f" (there is {close[0]!r}{letters}: rename it)"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()
