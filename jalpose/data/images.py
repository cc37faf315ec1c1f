"""Image files: read, decoded to their end, and named where they are damaged."""

import io
import os

import numpy as np
from PIL import Image

from jalpose.data.source import DataError


def read_image_file(
    path: str | os.PathLike, *, what: str, described_by: str, advice: str
) -> bytes:
    """Bytes of an image file that exists and can be decoded to its end.

    Args:
      path: of the file.
      what: it is, for the error.
      described_by: what says that it should be there, for the error.
      advice: what to do where it is not, for the error.

    Raises:
      DataError: it is not there or is no whole image.
    """
    try:
        with open(path, "rb") as stream:
            encoded = stream.read()
    except OSError as error:
        raise DataError(
            f"Cannot read {what}, which {described_by} describes: {error.strerror}. "
            f"{advice}"
        ) from error
    decode_rgb(encoded, what=what, advice=advice)
    return encoded


def decode_rgb(encoded: bytes, *, what: str, advice: str) -> np.ndarray:
    """Decodes an image of any colour mode to uint8 [H, W, 3], RGB.

    An EXIF orientation is ignored: joints are annotated in the stored pixels.

    Raises:
      DataError: `what` is not a whole image; `advice` says what to do.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"Cannot decode {what}, it is truncated or damaged: {error}. {advice}"
        ) from error
