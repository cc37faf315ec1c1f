"""Images of classes drawn for people: above what was said of them, as bars.

Bars are the probabilities of the likeliest classes and of the true one. The colours
are Okabe and Ito's, told apart by every kind of eye.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jalpose.tasks import sheets
from jalpose.tasks.pictures import Key
from jalpose.tasks.sheets import INK, PAPER

TRUE, WRONG, OTHER = (0, 114, 178), (213, 94, 0), (110, 110, 110)
KEYS = (
    Key("the label's class", TRUE, 8),
    Key("predicted, and wrong", WRONG, 8),
    Key("another class", OTHER, 8),
)
ROWS = 3  # bars below an image
_ROW = 0.1  # height of a bar, of the picture's side
_TROUGH = (60, 60, 60)  # behind a bar


class Bar(NamedTuple):
    """A class below an image.

    Attributes:
      name: of the class.
      share: its probability; None where nothing was predicted.
      colour: of the bar.
    """

    name: str
    share: float | None
    colour: tuple[int, int, int]


def bars(
    classes: tuple[str, ...], true: int | None, probabilities: np.ndarray | None
) -> list[Bar]:
    """The likeliest classes, likeliest first, the true one in the place of the last.

    Args:
      classes: names of all C.
      true: number of the true class; None or -1: not known, or not to be shown.
      probabilities: [C]; None: the true class alone.
    """
    known = true is not None and true >= 0
    if probabilities is None:
        return [Bar(classes[true], None, TRUE)] if known and true is not None else []
    order = np.argsort(-probabilities, kind="stable")[:ROWS].tolist()
    if known and true not in order:
        order[-1] = true
    found = []
    for rank, number in enumerate(order):
        colour = WRONG if rank == 0 and known else OTHER
        if known and number == true:
            colour = TRUE
        found.append(Bar(classes[number], float(probabilities[number]), colour))
    return found


def draw(
    image: np.ndarray, rows: list[Bar], size: int, room_for: int = ROWS
) -> np.ndarray:
    """The image above bars: uint8 [size, size, 3].

    Args:
      image: uint8 [H, W, 3]; one of fewer pixels is enlarged in blocks.
      rows: at most `room_for`.
      size: of the picture, pixels.
      room_for: bars; the image has the same room however many there are.
    """
    step = max(1, round(_ROW * size))
    room = size - room_for * step
    canvas = Image.new("RGB", (size, size), INK)
    canvas.paste(Image.fromarray(fitted(image, room)), ((size - room) // 2, 0))
    pen, face = ImageDraw.Draw(canvas), _font(step)
    for number, row in enumerate(rows):
        top, gap = room + number * step, max(1, step // 12)
        low, high = top + gap, top + step - gap
        pen.rectangle([0, low, size, high], fill=_TROUGH)
        length = size if row.share is None else round(size * row.share)
        if length > 0:
            pen.rectangle([0, low, length - 1, high], fill=row.colour)
        # A class of a short bar has its colour all the same.
        pen.rectangle([0, low, step // 4, high], fill=row.colour)
        said = "" if row.share is None else f"{row.share:.0%}"
        middle, edge = top + step / 2, size - step // 4
        pen.text((edge, middle), said, fill=PAPER, font=face, anchor="rm")
        width = edge - face.getlength(said) - step
        place = step // 2, middle
        pen.text(place, _cut(row.name, face, width), fill=PAPER, font=face, anchor="lm")
    return np.asarray(canvas)


def tile(
    image: np.ndarray,
    classes: tuple[str, ...],
    true: int | None,
    probabilities: np.ndarray | None,
    *,
    caption: str = "",
    size: int = 256,
) -> np.ndarray:
    """An image with its classes over a caption; without one there is no strip."""
    picture = draw(image, bars(classes, true, probabilities), size)
    if not caption:
        return picture
    return np.concatenate([picture, sheets.caption(caption, size)])


def fitted(image: np.ndarray, size: int) -> np.ndarray:
    """The image in the middle of a dark square: uint8 [size, size, 3].

    What is smaller than the square is enlarged without smoothing, so that its pixels
    are seen as they are.
    """
    height, width = sheets.checked(image).shape[:2]
    longer = max(height, width)
    if longer >= size:
        return sheets.fitted(image, size)[0]
    times = -(-size // longer)
    blocks = image.repeat(times, axis=0).repeat(times, axis=1)
    return sheets.fitted(blocks, size)[0]


def legend(width: int, size: int = 256, *, labelled: bool = True) -> np.ndarray:
    """A strip `width` pixels wide that says what the colours of bars mean.

    Where nobody has `labelled` what is drawn, they are of the likeliest classes alone.
    """
    step, gap = round(_ROW * size), size // 32
    face = _font(step)
    entries = []
    for key in KEYS if labelled else (Key("likeliest classes", OTHER, 8),):
        across = 2 * step + math.ceil(face.getlength(key.words)) + 4 * gap
        entry = Image.new("RGB", (across, step + 2 * gap), PAPER)
        pen = ImageDraw.Draw(entry)
        pen.rectangle([gap, gap, gap + 2 * step, gap + step], fill=key.colour)
        place = 2 * gap + 2 * step, gap + step / 2
        pen.text(place, key.words, fill=INK, font=face, anchor="lm")
        entries.append(np.asarray(entry))
    return sheets.wrap(entries, width)


def _font(step: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8.0, 0.68 * step))


def _cut(text: str, face, width: float) -> str:
    """The text, cut to a width in pixels."""
    text = text.encode("ascii", "replace").decode()  # the font has no more
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
