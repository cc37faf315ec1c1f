"""Records of raw pixels as image files: Netpbm's P6, which loses nothing.

A head of a few bytes and the pixels as they are: nothing is compressed, so that writing
and reading take next to no time, which for the few pixels of such a record is more than
the room that would be saved.
"""

import numpy as np


def encoded(pixels: np.ndarray) -> bytes:
    """A file of one image: uint8 [H, W, 3]."""
    height, width, channels = pixels.shape
    if channels != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"need uint8 [H, W, 3], got {pixels.dtype} {pixels.shape}")
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()
