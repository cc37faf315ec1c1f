"""JPEG files that end too early or go on too long inside: what libjpeg keeps to itself.

A decoder that runs out of data fills the rest with grey and one that has data left
drops them; both only warn, and Pillow does not pass the warnings on. A file that was
cut and closed with an end marker, or has a hole of zero bytes, so decodes without an
error. Its entropy-coded data do not end where the picture ends, though. That is seen
without a decoder of our own:

    bytes added behind the data change nothing, unless some were missing
    bytes taken from the end of the data change something, unless some were left over

Bytes are added behind every restart interval of every scan at once, and taken from the
last. Pictures are compared at an eighth of their size, which takes the decoding of the
data alone; those of progressive files at full size.

After some holes a decoder ends at the right place by chance. A long run of zero bytes
is seen by itself: zero bits are the first code of the tables, which in photographs is
no end of a block but a small coefficient, the same in all places of block after block.
That says nothing in scans where it is the end of a block in all tables, and in those of
a progressive file that have no more than the blocks' means: there an even picture has
such runs. Bytes that were replaced by others than zeros are seen only if the decoder
then ends elsewhere.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

# No 0xFF among them, which would begin a marker, and no long run of equal bits.
_MORE = bytes((n * 89 + 37) % 251 for n in range(64))
_LESS = 16  # bytes taken away
_GREY = 128  # what is filled in
_HOLE = bytes(64)  # a block or more of one coefficient; real files have 5 in a row


def fault(encoded: bytes) -> str:
    """What is wrong inside a JPEG that can be decoded; "" where nothing is.

    Args:
      encoded: a whole file, which Pillow has decoded without an error.

    Returns:
      A few words for a message.
    """
    found = _find_data(encoded)
    if found is None:
        return "its segments are damaged, or it has no end marker"
    if any(encoded.find(_HOLE, start, end) >= 0 for start, end in found.dense):
        return f"its data have a run of {len(_HOLE)} zero bytes or more"
    scale = 1 if found.progressive else 8
    picture = _decoded(encoded, scale)
    if not _gives(_added(encoded, found), picture, scale):
        return "its data end before the picture does"
    if len(found.ends) == 1 and _ends_grey(picture):
        return ""  # as what is filled in: taking data away would change nothing
    less = _taken(encoded, found)
    # An eighth may look the same where a few pixels at the rim do not.
    if (
        less
        and _gives(less, picture, scale)
        and (scale == 1 or _gives(less, _decoded(encoded, 1), 1))
    ):
        return "its data go on after the picture has ended"
    return ""


class _Data(NamedTuple):
    """Where entropy-coded data stand.

    Attributes:
      starts: of their intervals.
      ends: of their intervals.
      dense: starts and ends of the scans in which no picture has a long run of zeros.
      progressive: the file is.
    """

    starts: list[int]
    ends: list[int]
    dense: list[tuple[int, int]]
    progressive: bool


def _find_data(encoded: bytes) -> _Data | None:
    """The data of a file, of all scans; None: it is not built as a JPEG is."""
    at, starts, ends, dense, progressive = 2, [], [], [], False
    first: dict[int, int] = {}  # symbol of the code of zeros, by table
    while at + 4 <= len(encoded):
        if encoded[at] != 0xFF:
            return None
        marker = encoded[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xD9:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        progressive |= marker == 0xC2
        segment = encoded[at + 4 : at + 2 + int.from_bytes(encoded[at + 2 : at + 4])]
        at += 4 + len(segment)
        if marker == 0xC4:
            first |= _first_symbols(segment)
        if marker != 0xDA:
            continue
        starts.append(at)
        begun = at
        while True:
            at = encoded.find(b"\xff", at)
            if at < 0 or at + 1 >= len(encoded):
                return None
            following = encoded[at + 1]
            if following == 0:  # an escaped 0xFF
                at += 2
            elif 0xD0 <= following <= 0xD7:  # a restart
                ends.append(at)
                at += 2
                starts.append(at)
            elif following == 0xFF:
                at += 1
            else:
                break
        ends.append(at)
        if _is_dense(segment, first, progressive):
            dense.append((begun, at))
    return _Data(starts, ends, dense, progressive) if ends else None


def _first_symbols(segment: bytes) -> dict[int, int]:
    """Of each Huffman table in a segment DHT the symbol whose code is all zeros."""
    found, at = {}, 0
    while at + 17 < len(segment):
        found[segment[at]] = segment[at + 17]
        at += 17 + sum(segment[at + 1 : at + 17])
    return found


def _is_dense(segment: bytes, first: dict[int, int], progressive: bool) -> bool:
    """Are zero bits coefficients in a scan whose header is `segment`?"""
    count = segment[0] if segment else 0
    if len(segment) != 4 + 2 * count or (progressive and segment[-3] == 0):
        return False
    tables = {0x10 | selected & 0x0F for selected in segment[2 : 1 + 2 * count : 2]}
    # Symbols without a size are ends of blocks, or runs of zero coefficients.
    return any(first.get(table, 0) & 0x0F for table in tables)


def _added(encoded: bytes, data: _Data) -> bytes:
    """The file with more data at the end of each interval."""
    parts, before = [], 0
    for end in data.ends:
        parts += [encoded[before:end], _MORE]
        before = end
    return b"".join([*parts, encoded[before:]])


def _taken(encoded: bytes, data: _Data) -> bytes | None:
    """The file with less data in its last interval; None where it has next to none."""
    first, last = data.starts[-1], data.ends[-1]
    cut = last - _LESS
    while cut > first and encoded[cut - 1] == 0xFF:  # it may begin an escape
        cut -= 1
    return encoded[:cut] + encoded[last:] if cut > first else None


def _decoded(encoded: bytes, scale: int) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        if scale > 1:
            width, height = image.size
            image.draft(None, (max(1, width // scale), max(1, height // scale)))
        return np.asarray(image)


def _gives(encoded: bytes, picture: np.ndarray, scale: int) -> bool:
    """Is `picture` what a file decodes to?"""
    try:
        return np.array_equal(picture, _decoded(encoded, scale))
    except (OSError, SyntaxError, ValueError):
        return False


def _ends_grey(picture: np.ndarray) -> bool:
    """Is the last pixel the grey that is filled in? Its colour mode does not matter."""
    last = picture[-1, -1].astype(int)
    return bool((abs(last - _GREY) <= 1).all() or (abs(last - 127) <= 1).all())
