"""Skeletons drawn on images: what a network saw, said and should have said.

A predicted pose is broad and coloured by the side of the body; a true one is thin
and white. The colours are Okabe and Ito's, told apart by every kind of eye and, on
their dark casing, on every kind of photograph.
"""

import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

from jalpose.tasks import sheets
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED, VISIBLE, Skeleton
from jalpose.tasks.sheets import CASING, GREY, INK, PAPER, SUPERSAMPLE, checked, disc

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """How one pose looks; lengths in pixels of an image 256 pixels long.

    Attributes:
      colours: of the left, the right and the middle of the body.
      joint_radius: of the disc of a visible joint.
      ring_radius: of the ring of an occluded one.
    """

    colours: tuple[Colour, Colour, Colour]
    limb_width: float
    joint_radius: float
    ring_radius: float
    ring_width: float
    casing_width: float
    casing: Colour = CASING


def scaled(style: Style, factor: float) -> Style:
    """The style with all lengths multiplied, for a small person in a large image."""
    lengths = [f.name for f in dataclasses.fields(style) if f.type is float]
    found = {name: factor * getattr(style, name) for name in lengths}
    return dataclasses.replace(style, **found)


PREDICTED = Style(
    colours=((86, 180, 233), (230, 120, 0), (240, 228, 66)),
    limb_width=4.2,
    joint_radius=3.9,
    ring_radius=4.8,
    ring_width=1.9,
    casing_width=1.0,
)
TRUE = Style(
    colours=(PAPER, PAPER, PAPER),
    limb_width=1.3,
    joint_radius=2.3,
    ring_radius=3.6,
    ring_width=1.2,
    casing_width=0.9,
)


def draw_pose(
    image: np.ndarray,
    joints: np.ndarray,
    status: np.ndarray | None,
    skeleton: Skeleton,
    *,
    style: Style = PREDICTED,
) -> np.ndarray:
    """Draw one pose on a copy of `image`: occluded joints hollow, absent ones not.

    Args:
      image: uint8 [H, W, 3].
      joints: [J, 2], (x, y), pixel centres at whole numbers; NaN is never drawn.
      status: [J], VISIBLE, OCCLUDED or ABSENT; None takes all joints as visible.
    """
    size = np.array(checked(image).shape[1::-1])
    points = np.array(joints, np.float64)
    if points.shape != (skeleton.num_joints, 2):
        raise ValueError(f"expected {skeleton.num_joints} joints, got {points.shape=}")
    status = np.full(len(points), VISIBLE) if status is None else np.array(status)
    status[~np.isfinite(points).all(axis=1)] = ABSENT
    # Four images away is far enough outside; the line drawer is not endless.
    points = (np.clip(points, -4 * size, 5 * size) + 0.5) * SUPERSAMPLE - 0.5
    canvas = Image.fromarray(image).resize(
        tuple(size * SUPERSAMPLE), Image.Resampling.NEAREST
    )
    unit = SUPERSAMPLE * size.max() / 256
    draw = ImageDraw.Draw(canvas)
    _draw_limbs(draw, points, status, skeleton, style, unit)
    _draw_joints(draw, points, status, skeleton, style, unit)
    return np.asarray(canvas.reduce(SUPERSAMPLE))


def draw_prediction(
    image: np.ndarray,
    predicted: np.ndarray | None,
    joints: np.ndarray | None,
    status: np.ndarray | None,
    skeleton: Skeleton,
    caption: str = "",
    size: int = 256,
) -> np.ndarray:
    """Draw prediction and truth on the image, `size` pixels square, over a caption.

    The prediction is drawn whole, for joints nobody annotated too; either pose may be
    None. An image that is not square stands in the middle of a dark square. Lines of
    the caption too long for the picture are cut; without a caption there is no strip.
    """
    picture, scale, corner = sheets.fitted(image, size)
    for pose, known, style in ((predicted, None, PREDICTED), (joints, status, TRUE)):
        if pose is not None:
            moved = (np.asarray(pose, np.float64) + 0.5) * scale - 0.5 + corner
            picture = draw_pose(picture, moved, known, skeleton, style=style)
    if not caption:
        return picture
    return np.concatenate([picture, sheets.caption(caption, size)])


def legend(width: int = 800, size: int = 256, *, labelled: bool = True) -> np.ndarray:
    """A strip `width` pixels wide that says what lines and joints mean.

    As many lines as it takes; `size` is that of the pictures it explains, which have
    labels too where `labelled`.
    """
    entries = [
        _legend_entry("predicted: left", PREDICTED, (2, 3), VISIBLE, size),
        _legend_entry("right", PREDICTED, (5, 6), VISIBLE, size),
        _legend_entry("middle", PREDICTED, (0, 1), VISIBLE, size),
    ]
    if labelled:
        entries += [
            _legend_entry("label", TRUE, (0, 1), VISIBLE, size),
            _legend_entry("label, hidden in the image", TRUE, (0, 1), OCCLUDED, size),
        ]
    return sheets.wrap(entries, width)


def _legend_entry(
    text: str, style: Style, limb: tuple[int, int], status: int, size: int
) -> np.ndarray:
    """One limb of LSP on grey, as on a photograph, and what it stands for."""
    font, width, height, gap = sheets.font(size), size // 6, size // 10, size // 32
    joints = np.full((LSP.num_joints, 2), np.nan)
    joints[limb, :] = (width * 0.22, height / 2 - 0.5), (width * 0.78, height / 2 - 0.5)
    square = np.full((size, size, 3), GREY, np.uint8)
    drawn = draw_pose(square, joints, np.full(len(joints), status), LSP, style=style)
    across = width + math.ceil(font.getlength(text)) + 5 * gap
    entry = Image.new("RGB", (across, height + 2 * gap), PAPER)
    entry.paste(Image.fromarray(drawn[:height, :width]), (gap, gap))
    place = width + 2 * gap, gap + height / 2
    ImageDraw.Draw(entry).text(place, text, fill=INK, font=font, anchor="lm")
    return np.asarray(entry)


def _colour(joints: tuple[int, ...], skeleton: Skeleton, style: Style) -> Colour:
    """Colour of the one side of the body that `joints` touch, else the middle's."""
    pairs = skeleton.flip_pairs
    sides = {side for side in (0, 1) for pair in pairs if pair[side] in joints}
    return style.colours[sides.pop() if len(sides) == 1 else 2]


def _draw_limbs(draw, points, status, skeleton, style, unit):
    """Draw all casings, then all limbs, each stopping short of a hollow joint."""
    lines = []
    for limb in skeleton.limbs:
        a, b = points[list(limb)]
        length = max(float(np.hypot(*(b - a))), 1e-9)
        cuts = [style.ring_radius * unit * (status[end] == OCCLUDED) for end in limb]
        if ABSENT not in status[list(limb)] and length > sum(cuts):
            along = (b - a) / length
            ends = a + cuts[0] * along, b - cuts[1] * along
            lines.append((ends, _colour(limb, skeleton, style)))
    for extra, casing in ((2 * style.casing_width, style.casing), (0.0, None)):
        width = (style.limb_width + extra) * unit
        for ends, colour in lines:
            fill = casing or colour
            draw.line([*ends[0], *ends[1]], fill=fill, width=max(1, round(width)))
            for end in ends:
                disc(draw, end, width / 2, fill=fill)


def _draw_joints(draw, points, status, skeleton, style, unit):
    """Draw discs for visible joints, rings for occluded ones."""
    casing, radius, ring = style.casing_width, style.ring_radius, style.ring_width
    for joint in np.flatnonzero(status != ABSENT).tolist():
        at, colour = points[joint], _colour((joint,), skeleton, style)
        if status[joint] == OCCLUDED:
            inner, outer = (max(1, round((ring + c) * unit)) for c in (0, 2 * casing))
            disc(draw, at, (radius + casing) * unit, outline=style.casing, width=outer)
            disc(draw, at, radius * unit, outline=colour, width=inner)
        else:
            disc(draw, at, (style.joint_radius + casing) * unit, fill=style.casing)
            disc(draw, at, style.joint_radius * unit, fill=colour)
