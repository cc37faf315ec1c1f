"""Painting one placed figure: ground, body, clothes, what stands before it."""

import colorsys
import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from jalpose.tasks.pose.figure_poses import (
    CAPSULE_ENDS,
    CAPSULE_PART,
    CAPSULES,
    PARTS,
    POINTS,
)

OCCLUDER = 255  # in a part map
_FINE = 2  # canvas pixels to an image pixel
_Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure in pixels of the image; see `figure_poses.Bodies` for the arrays.

    Attributes:
      occluders: [K, 5] turned rectangles (x, y, half width, half height, radians).
    """

    points: np.ndarray
    radii: np.ndarray
    depths: np.ndarray
    occluders: np.ndarray

    def point(self, name: str) -> np.ndarray:
        """Position (x, y, depth) of one of `POINTS`."""
        return self.points[POINTS.index(name)]


class _Pen:
    """Draws in image coordinates (pixel centres at whole numbers) on a canvas."""

    def __init__(self, canvas: Image.Image, fine: int):
        self.canvas = canvas
        self._draw = ImageDraw.Draw(canvas)
        self._fine = fine

    def _fit(self, xy):
        return (np.asarray(xy)[..., :2] + 0.5) * self._fine - 0.5

    def polygon(self, corners, colour) -> None:
        self._draw.polygon(self._fit(corners).ravel().tolist(), fill=colour)

    def disc(self, centre, radius, colour) -> None:
        x, y = self._fit(centre)
        r = radius * self._fine
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def capsule(self, start, end, radii, colour) -> None:
        self.disc(start, radii[0], colour)
        self.disc(end, radii[1], colour)
        along = end[:2] - start[:2]
        length = float(np.hypot(*along))
        if length > 1e-6:
            normal = np.array([-along[1], along[0]]) / length
            a, b = radii[0] * normal, radii[1] * normal
            ends = start[:2], end[:2]
            corners = [ends[0] + a, ends[1] + b, ends[1] - b, ends[0] - a]
            self.polygon(corners, colour)

    def rectangle(self, rect, colour) -> None:
        x, y, w, h, angle = rect
        turn = np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) @ turn.T
        self.polygon(corners + np.array([x, y]), colour)


def _colour(rng, saturation: float = 0.75) -> _Colour:
    hue, s, v = rng.random(3)
    return _rgb(colorsys.hsv_to_rgb(hue, saturation * s, 0.15 + 0.8 * v))


def _rgb(unit) -> _Colour:
    r, g, b = (int(255 * min(max(c, 0.0), 1.0)) for c in unit)
    return r, g, b


def _shade(colour: _Colour, factor: float) -> _Colour:
    return _rgb(c * factor / 255 for c in colour)


def _ground(rng, size: int) -> np.ndarray:
    """Textured ground, float [size, size, 3] in 0..255."""
    one, two = (np.array(_colour(rng, 0.5), float) for _ in range(2))
    y, x = np.mgrid[:size, :size] / size
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(2, 9)
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    kind = rng.integers(4)
    if kind == 0:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * pitch * u)
    elif kind == 1:
        mix = (np.floor(pitch * u) + np.floor(pitch * v)) % 2
    elif kind == 2:
        mix = (u - u.min()) / np.ptp(u)
    else:
        mix = (y > rng.uniform(0.4, 0.9)).astype(float)
    mix = rng.uniform(0.2, 0.7) * mix
    cells = int(rng.integers(4, 20))
    # One light-and-dark pattern with a little colour of its own in each channel.
    grid = rng.uniform(-24, 24, (cells, cells, 1)) + rng.uniform(
        -8, 8, (cells, cells, 3)
    )
    noise = [
        np.asarray(
            Image.fromarray(channel.astype(np.float32)).resize(
                (size, size), Image.Resampling.BICUBIC
            )
        )
        for channel in np.moveaxis(grid, -1, 0)
    ]
    return one + mix[..., None] * (two - one) + np.stack(noise, axis=-1)


def _clutter(pen: _Pen, size: int, rng) -> None:
    """Shapes behind the figure, some of them with the make of a limb."""
    for _ in range(rng.integers(0, 5)):
        x, y, u, v = rng.uniform(0, size, 4)
        colour = _colour(rng)
        kind = rng.integers(3)
        if kind == 0:
            w, h = rng.uniform(0.03, 0.18, 2) * size
            pen.rectangle((x, y, w, h, rng.uniform(0, np.pi)), colour)
        elif kind == 1:
            pen.disc((x, y), rng.uniform(0.02, 0.12) * size, colour)
        else:
            radii = rng.uniform(0.01, 0.04, 2) * size
            end = np.array([x, y]) + 0.4 * (np.array([u, v]) - size / 2)
            pen.capsule(np.array([x, y]), end, radii, colour)


def _clothes(rng) -> dict[str, _Colour]:
    """Colours of skin, hair and clothes, and what of the limbs they cover."""
    light = rng.uniform(0.35, 1.0)
    skin = _rgb(light * np.array([0.96, 0.76 + 0.06 * rng.random(), 0.62]))
    shirt, trousers, shoes = (_colour(rng, 0.9) for _ in range(3))
    long_sleeves, long_trousers = rng.random(2) < (0.5, 0.7)
    front = _shade(shirt, 0.45) if sum(shirt) > 380 else (235, 235, 225)
    return {
        "skin": skin,
        "hair": _shade(_colour(rng, 0.6), 0.6),
        "front": front,
        "torso": shirt,
        "pelvis": trousers,
        "head": skin,
        "upper arm": shirt,
        "forearm": shirt if long_sleeves else skin,
        "thigh": trousers,
        "shin": trousers if long_trousers else skin,
        "foot": shoes,
        "hand": skin,
    }


def _part_capsules(figure: Figure):
    """Yield (part, capsules of it), the farthest part first."""
    for part in np.argsort(-figure.depths, kind="stable"):
        yield int(part), np.flatnonzero(part == CAPSULE_PART)


def draw_body(pen: _Pen, figure: Figure, rng) -> None:
    """Paint the parts of a figure, clothed, the farthest first."""
    clothes = _clothes(rng)
    dark = rng.uniform(0.45, 0.75)
    for part, capsules in _part_capsules(figure):
        kind = PARTS[part].removeprefix("left ").removeprefix("right ")
        for edge in (True, False):
            for s in capsules:
                start, end = figure.points[CAPSULE_ENDS[s]]
                is_hand = CAPSULES[s][2].endswith("hand")
                colour = clothes["hand" if is_hand else kind]
                if edge:
                    radii, colour = figure.radii[s], _shade(colour, dark)
                else:
                    radii = figure.radii[s] - 0.6
                pen.capsule(start, end, np.maximum(radii, 0.5), colour)
        if kind == "torso":
            _draw_front(pen, figure, clothes["front"])
        elif kind == "head":
            _draw_head(pen, figure, clothes)


def _draw_front(pen: _Pen, figure: Figure, colour: _Colour) -> None:
    """Open front of the shirt, seen unless the back is turned to the viewer."""
    names = ("left collar", "right collar", "right hem", "left hem")
    quad = np.stack([figure.point(name) for name in names])
    spine = (figure.point("neck")[2] + figure.point("pelvis")[2]) / 2
    if quad[:, 2].mean() < spine:
        pen.polygon(quad, colour)


def _draw_head(pen: _Pen, figure: Figure, clothes) -> None:
    """Hair at the back of the skull, face and eyes at its front."""
    radius = figure.radii[PARTS.index("head") == CAPSULE_PART].max()
    face, hair = figure.point("face"), figure.point("hair")
    discs = [(face, 0.86 * radius, clothes["skin"]), (hair, radius, clothes["hair"])]
    for centre, r, colour in sorted(discs, key=lambda d: -d[0][2]):
        pen.disc(centre, r, colour)
    for eye in (figure.point("left eye"), figure.point("right eye")):
        if eye[2] < figure.point("skull")[2]:
            pen.disc(eye, 0.16 * radius, (20, 20, 20))


def _draw_occluders(pen: _Pen, figure: Figure, rng) -> None:
    colour = _colour(rng)
    for x, y, w, h, angle in figure.occluders:
        if w > 0:
            pen.rectangle((x, y, w, h, angle), _shade(colour, 0.6))
            inner = (max(w - 0.8, 0.4), max(h - 0.8, 0.4))
            pen.rectangle((x, y, *inner, angle), colour)


def draw(figure: Figure, size: int, rng: np.random.Generator) -> np.ndarray:
    """Paint a figure and its surroundings: uint8 [size, size, 3], RGB."""
    ground = np.clip(_ground(rng, size), 0, 255).astype(np.uint8)
    canvas = Image.fromarray(ground).resize((size * _FINE, size * _FINE))
    pen = _Pen(canvas, _FINE)
    _clutter(pen, size, rng)
    draw_body(pen, figure, rng)
    _draw_occluders(pen, figure, rng)
    image = np.asarray(canvas.reduce(_FINE), np.float32)
    grain = rng.standard_normal(image.shape, np.float32)
    image = image + rng.uniform(1, 4) * grain
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def draw_parts(figure: Figure, size: int) -> np.ndarray:
    """Number of the part seen at each pixel, uint8 [size, size].

    0 is the ground, p + 1 part p of `PARTS`, `OCCLUDER` what stands before it.
    """
    pen = _Pen(Image.new("L", (size, size)), 1)
    for part, capsules in _part_capsules(figure):
        for s in capsules:
            start, end = figure.points[CAPSULE_ENDS[s]]
            pen.capsule(start, end, figure.radii[s], part + 1)
    for rect in figure.occluders:
        if rect[2] > 0:
            pen.rectangle(rect, OCCLUDER)
    return np.asarray(pen.canvas)
