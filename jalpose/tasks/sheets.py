"""Drawing that knows no task: squares, captions, contact sheets, maps of numbers."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SUPERSAMPLE = 4
PAPER, INK, GREY = (255, 255, 255), (34, 34, 34), (128, 128, 128)
CASING = (20, 20, 20)  # round lines, so that they are seen on every photograph


def checked(image: np.ndarray) -> np.ndarray:
    """The image; ValueError unless it is uint8 [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
    return image


def ground(size: int) -> np.ndarray:
    """Grey to draw on where there is no image: uint8 [size, size, 3]."""
    return np.full((size, size, 3), 96, np.uint8)


def fitted(image: np.ndarray, size: int) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Put an image into the middle of a dark square of `size` pixels.

    Returns:
      uint8 [size, size, 3], the scale, and the corner (x, y) of the image in it.
    """
    height, width = checked(image).shape[:2]
    scale = size / max(height, width)
    extent = max(1, round(width * scale)), max(1, round(height * scale))
    corner = (size - extent[0]) // 2, (size - extent[1]) // 2
    square = Image.new("RGB", (size, size), INK)
    square.paste(Image.fromarray(image).resize(extent), corner)
    return np.asarray(square), scale, corner


def caption(text: str, size: int) -> np.ndarray:
    """A white strip `size` wide with the lines of `text`, each cut to its width."""
    face, margin, step = font(size), size // 40, round(max(9.0, size * 0.052) * 1.3)
    lines = text.split("\n")
    strip = Image.new("RGB", (size, step * len(lines) + 2 * margin), PAPER)
    for row, line in enumerate(lines):
        line = line.encode("ascii", "replace").decode()  # the font has no more
        if face.getlength(line) > size - 2 * margin:
            while line and face.getlength(line + "...") > size - 2 * margin:
                line = line[:-1]
            line = line.rstrip() + "..."
        place = margin, margin + step * (row + 0.5)
        ImageDraw.Draw(strip).text(place, line, fill=INK, font=face, anchor="lm")
    return np.asarray(strip)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters of a picture of `size` pixels."""
    return ImageFont.load_default(max(9.0, size * 0.052))


def contact_sheet(
    images: Sequence[np.ndarray], columns: int = 6, pad: int = 8
) -> np.ndarray:
    """Put images of any sizes into rows of `columns`, `pad` pixels apart, on white."""
    if not images or columns < 1:
        raise ValueError(f"need images and columns, got {len(images)=}, {columns=}")
    columns = min(columns, len(images))
    height, width = (
        max(image.shape[axis] for image in images) + pad for axis in (0, 1)
    )
    shape = -(-len(images) // columns) * height + pad, columns * width + pad, 3
    sheet = np.full(shape, PAPER, np.uint8)
    for position, image in enumerate(images):
        y, x = pad + position // columns * height, pad + position % columns * width
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = checked(image)
    return sheet


def wrap(entries: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Put strips of one height beside each other, in lines `width` pixels wide."""
    blank = np.full((entries[0].shape[0], width, 3), PAPER, np.uint8)
    lines, x = [blank.copy()], 0
    for entry in entries:
        if x and x + entry.shape[1] > width:
            lines, x = [*lines, blank.copy()], 0
        lines[-1][:, x : x + entry.shape[1]] = entry[:, : width - x]
        x += entry.shape[1]
    return np.concatenate(lines)


def disc(draw: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, **look) -> None:
    """A disc or, with an outline alone, a ring round `centre`, (x, y)."""
    draw.ellipse([*(centre - radius), *(centre + radius)], **look)


# Of a map, from nothing to its maximum; ever lighter, so it reads in grey as well.
_RAMP = np.array([(20, 10, 60), (150, 30, 110), (235, 95, 60), (255, 240, 140)], float)


def heatmap(image: np.ndarray, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Draw a map over a darkened grey copy of a square image, and its peaks.

    Args:
      image: uint8 [S, S, 3].
      values: [h, w]; drawn from 0 to their maximum, what is not finite as 0.
      places: [P, 2], (x, y) in pixels of `values`: a ring round each, the first thick.

    Returns:
      uint8 [S, S, 3].
    """
    size, values = len(checked(image)), np.nan_to_num(values.astype(np.float32))
    shares = np.clip(values / max(float(values.max()), 1e-9), 0, 1)
    smooth = Image.fromarray(shares).resize((size, size), Image.Resampling.BILINEAR)
    share = np.asarray(smooth, np.float64)
    stops = np.linspace(0, 1, len(_RAMP))
    colour = np.stack([np.interp(share, stops, c) for c in _RAMP.T], axis=-1)
    grey = 0.55 * image.mean(axis=2, keepdims=True)
    weight = np.sqrt(share)[..., None]  # faint flanks are seen too
    mixed = np.round(weight * colour + (1 - weight) * grey).astype(np.uint8)
    canvas = Image.fromarray(mixed).resize((size * SUPERSAMPLE,) * 2)
    draw, unit = ImageDraw.Draw(canvas), SUPERSAMPLE * size / 256
    stride = size * SUPERSAMPLE / len(values)
    for rank, place in enumerate(np.asarray(places, np.float64)):
        at, radius = (place + 0.5) * stride - 0.5, (9 if rank == 0 else 7) * unit
        width = (3.0 if rank == 0 else 1.8) * unit
        disc(draw, at, radius + unit, outline=CASING, width=round(2 * width))
        disc(draw, at, radius, outline=PAPER, width=round(width))
    return np.asarray(canvas.reduce(SUPERSAMPLE))
