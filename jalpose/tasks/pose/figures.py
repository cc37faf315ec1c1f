"""Drawn figures: a data set of any size from a seed, without a single file.

Articulated, clothed figures on textured grounds, partly hidden by themselves and
by furniture, a few of them cut by the frame. Everyday poses (standing, walking,
gesturing) are mixed with rare ones (upside-down, lying, bent, crouching, seen
from behind, ...). What tells left from right is what does so for real people,
the face and the front of the clothes, so that a mirrored image with its labels
exchanged is again a valid example.

Example i of a source depends on (seed, start + i) alone. With `frames` above 1 examples
come in sequences as of a video, each frame the same figure in the same place and light,
moved a little: a pool that is as redundant as people's are. With `spread` too it is as
unbalanced: few long sequences hold most of the frames, many short ones the others.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jalpose.tasks.pose import figure_drawing, figure_poses, skeletons
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.figure_poses import ATTACHED, CAPSULE_ENDS, CAPSULE_PART

# Random streams of an example, and of the lengths of a source's sequences.
_POSE, _CAMERA, _LOOK, _FRAME, _LENGTH = range(5)
_FRAME_POSE, _FRAME_CAMERA = 0.15, 0.01  # deviations within a sequence
_NUM_CAMERA = 16
_CUT_PROBABILITY = 0.08
_OCCLUDER_PROBABILITY = 0.3
_NUM_JOINTS = skeletons.LSP.num_joints
_TORSO = sorted({joint for diagonal in skeletons.LSP.torso for joint in diagonal})


class FigureSource:
    """`num_examples` drawn figures with their labels; images are drawn on demand.

    Attributes:
      skeleton: LSP's 14 joints.
      annotations: labels; boxes hold the visible extent of the limbs, in pixels.
      rare: bool [N], which examples are in a rare pose.
      first_frames: int [N], index of the first example of each example's sequence.
    """

    def __init__(
        self,
        num_examples: int,
        seed: int,
        rare_fraction: float,
        name: str = "figures",
        image_size: int = 128,
        start: int = 0,
        frames: int = 1,
        spread: float = 0.0,
    ):
        """Pose and label the figures.

        Args:
          seed: sources of one seed share examples where their indices
            `start .. start + num_examples - 1` overlap, and only there.
          rare_fraction: probability that an example is in a rare pose.
          image_size: height and width of the images, pixels.
          frames: of a sequence; the first is the example there is without them.
          spread: of the logarithm of the sequences' lengths, whose mean is `frames`: a
            log-normal distribution's standard deviation; 0: all are as long.

        Raises:
          ValueError: an argument is out of range.
        """
        for key, value, least in (
            ("num_examples", num_examples, 1),
            ("seed", seed, 0),
            ("image_size", image_size, 32),
            ("start", start, 0),
            ("frames", frames, 1),
        ):
            if value < least:
                raise ValueError(f"{key}={value} must be at least {least}")
        if spread < 0:
            raise ValueError(f"spread={spread} must be at least 0")
        if not 0.0 <= rare_fraction <= 1.0:
            raise ValueError(f"rare_fraction={rare_fraction} must be in [0, 1]")
        self.skeleton = skeletons.LSP
        self._seed, self._start, self._size = seed, start, image_size
        self.first_frames = _first_frames(num_examples, seed, start, frames, spread)
        numbers = range(start, start + num_examples)
        normals, uniforms, camera = self._draw_numbers(numbers)
        bodies = figure_poses.pose_bodies(normals, uniforms, rare_fraction)
        self._bodies = _place(bodies, camera, image_size)
        self._occluders = _occluders(self._bodies.points, camera, image_size)
        self.rare = bodies.rare
        keys = tuple(f"{name}/{number:06d}" for number in numbers)
        labels = _label(self._bodies, self._occluders, keys, image_size)
        if frames > 1:
            videos = tuple(f"{name}/{start + i:06d}" for i in self.first_frames)
            labels = dataclasses.replace(labels, videos=videos)
        self.annotations = labels

    def _draw_numbers(self, numbers):
        normals, uniforms, camera = [], [], []
        for number in numbers:
            first = self._first(number)
            rng = np.random.default_rng([self._seed, first, _POSE])
            normals.append(rng.standard_normal(figure_poses.NUM_NORMALS))
            uniforms.append(rng.random(figure_poses.NUM_UNIFORMS))
            rng = np.random.default_rng([self._seed, first, _CAMERA])
            camera.append(rng.random(_NUM_CAMERA))
            if number > first:
                rng = np.random.default_rng([self._seed, number, _FRAME])
                moved = rng.standard_normal(figure_poses.NUM_NORMALS)
                normals[-1] = normals[-1] + _FRAME_POSE * moved
                place = camera[-1][1:3] + _FRAME_CAMERA * rng.standard_normal(2)
                camera[-1][1:3] = np.clip(place, 0, 1)
        return np.stack(normals), np.stack(uniforms), np.stack(camera)

    def _first(self, number: int) -> int:
        """Number of the first frame of an example's sequence."""
        return self._start + int(self.first_frames[number - self._start])

    def image(self, index: int) -> np.ndarray:
        """Draw image `index`: uint8 [H, W, 3], RGB.

        Raises:
          IndexError: there is no such example.
        """
        figure, rng = self._figure(index)
        return figure_drawing.draw(figure, self._size, rng)

    def part_map(self, index: int) -> np.ndarray:
        """Part seen at each pixel, int [H, W]: see `figure_drawing.draw_parts`."""
        figure, _ = self._figure(index)
        return figure_drawing.draw_parts(figure, self._size)

    def _figure(self, index):
        if not 0 <= index < len(self.annotations):
            raise IndexError(f"index={index} of {len(self.annotations)} figures")
        bodies = self._bodies
        figure = figure_drawing.Figure(
            points=bodies.points[index],
            radii=bodies.radii[index],
            depths=bodies.depths[index],
            occluders=self._occluders[index],
        )
        first = self._first(self._start + index)
        return figure, np.random.default_rng([self._seed, first, _LOOK])


def _first_frames(num_examples, seed, start, frames, spread):
    """Index of the first example of each example's sequence: int [N]."""
    if not spread:
        return np.arange(num_examples) // frames * frames
    rng = np.random.default_rng([seed, start, _LENGTH])
    # No sequence is shorter than a frame, so there are at most as many as examples.
    normals = rng.standard_normal(num_examples)
    lengths = frames * np.exp(spread * normals - spread**2 / 2)
    lengths = np.maximum(1, np.rint(lengths)).astype(int)
    begins = np.concatenate([[0], np.cumsum(lengths)])
    numbers = np.arange(num_examples)
    return begins[np.searchsorted(begins, numbers, side="right") - 1]


def benchmark(
    data: Mapping[str, Any], seed: int
) -> tuple[tuple[FigureSource, ...], list[np.ndarray]]:
    """The drawn benchmark: its sources, to be laid end to end, and its parts.

    The labelled figures are in common poses; pool and test hold rare ones as well.

    Args:
      data: the config's section, with initial, pool, test (0: 1000 and 300), rare,
        rare_test, frames and frames_spread.
      seed: of the figures.

    Returns:
      The sources, and the ids of the examples labelled at the start, of the pool and
      of the test set.
    """
    initial, pool, test = data["initial"], data["pool"] or 1000, data["test"] or 300
    labelled = FigureSource(initial, seed, 0.0, name="labelled")
    ids = np.arange(initial + pool + test)
    parts = np.split(ids, [initial, initial + pool])
    # Configs that were recorded before these keys came do as they say by default.
    frames, rare_test = data.get("frames", 1), data.get("rare_test", -1.0)
    if frames == 1 and rare_test < 0:
        other = FigureSource(pool + test, seed, data["rare"], start=initial)
        return (labelled, other), parts
    chosen_from = FigureSource(
        pool,
        seed,
        data["rare"],
        start=initial,
        frames=frames,
        spread=data.get("frames_spread", 0.0),
    )
    share = data["rare"] if rare_test < 0 else rare_test
    tested = FigureSource(test, seed, share, start=initial + pool)
    return (labelled, chosen_from, tested), parts


def _extent(points, radii):
    """Lowest and highest (x, y) that the capsules reach, each [N, 2]."""
    ends = points[:, CAPSULE_ENDS, :2]  # [N, S, 2, 2]
    low = (ends - radii[..., None]).min(axis=(1, 2))
    high = (ends + radii[..., None]).max(axis=(1, 2))
    return low, high


def _place(bodies, camera, size):
    """Scale and move bodies to pixels; a few of them partly out of the frame."""
    low, high = _extent(bodies.points, bodies.radii)
    stature = size * (0.62 + 0.24 * camera[:, 0])
    scale = np.minimum(stature, 0.92 * size / (high - low).max(-1))[:, None]
    room = size - 1 - scale * (high - low)
    corner = -scale * low + (0.1 + 0.8 * camera[:, 1:3]) * room
    points = bodies.points * scale[..., None]
    points[..., :2] += corner[:, None]
    # Outward direction of the side that cuts, and how far out the joints reach.
    side = (4 * camera[:, 3]).astype(int)
    axis, sign = side // 2, np.where(side % 2, 1.0, -1.0)
    rows = np.arange(len(points))
    reach = sign[:, None] * points[rows, :_NUM_JOINTS, axis]
    outer, torso = reach.max(1), reach[:, _TORSO].max(1)
    level = outer + (0.1 + 0.8 * camera[:, 4]) * (torso - outer)
    edge = np.where(side % 2, size - 1.0, 0.0)
    cut = camera[:, 5] < _CUT_PROBABILITY
    points[rows, :, axis] += (cut * sign * (edge - level))[:, None]
    return figure_poses.Bodies(
        points=points,
        radii=bodies.radii * scale[..., None],
        depths=bodies.depths,
        rare=bodies.rare,
    )


def _occluders(points, camera, size):
    """Put a box, a pole or a table before some of the figures.

    Returns:
      [N, 3, 5] turned rectangles (centre x, y, half width, half height, radians);
      those without a size are not there.
    """
    u = camera[:, 6:]
    rects = np.zeros((len(points), 3, 5))
    joint = (u[:, 0] * _NUM_JOINTS).astype(int)
    centre = points[np.arange(len(points)), joint, :2]
    rects[..., :2] = (centre + 0.06 * size * (u[:, 1:3] - 0.5))[:, None]
    tilt = np.radians(30 * (u[:, 3] - 0.5))
    none = np.zeros_like(tilt)
    box = [0.05 + 0.07 * u[:, 4], 0.05 + 0.07 * u[:, 5], tilt]
    pole = [0.018 + 0.02 * u[:, 4], none + 2.0, 0.5 * tilt]
    table = [0.18 + 0.12 * u[:, 4], 0.02 + 0.02 * u[:, 5], none]
    kind = (3 * u[:, 6]).astype(int)
    shapes = np.stack([box, pole, table])  # [kind, 3, N]
    shape = shapes[kind, :, np.arange(len(kind))]  # [N, 3]
    rects[:, 0, 2:] = shape
    is_table = kind == 2
    rects[:, 1:, 0] += np.outer(is_table * 0.85 * size * shape[:, 0], [-1, 1])
    rects[:, 1:, 1] += (is_table * 0.15 * size)[:, None]
    rects[:, 1:, 2:4] = is_table[:, None, None] * np.array([0.012, 0.14])
    rects[..., 2:4] *= size * (u[:, 7] < _OCCLUDER_PROBABILITY)[:, None, None]
    return rects


def _top_parts(bodies):
    """Part painted last over each joint, int [N, J]; -1 where there is none."""
    joints = bodies.points[:, :_NUM_JOINTS, :2]
    best = np.full(joints.shape[:2], np.inf)
    top = np.full(joints.shape[:2], -1)
    for s, (part, ends) in enumerate(zip(CAPSULE_PART, CAPSULE_ENDS, strict=True)):
        start, end = np.moveaxis(bodies.points[:, ends, :2], 1, 0)[:, :, None]
        along = end - start
        t = ((joints - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
        t = np.clip(t, 0.0, 1.0)
        away = np.linalg.norm(joints - start - t[..., None] * along, axis=-1)
        radius = (1 - t) * bodies.radii[:, s, :1] + t * bodies.radii[:, s, 1:]
        depth = bodies.depths[:, part, None]
        over = (away <= radius) & (depth < best)
        best, top = np.where(over, depth, best), np.where(over, part, top)
    return top


def covered(joints, rects):
    """Which joints lie under a rectangle: [N, J, 2], [N, K, 5] -> bool [N, J]."""
    delta = joints[:, :, None] - rects[:, None, :, :2]  # [N, J, K, 2]
    cos, sin = np.cos(rects[:, None, :, 4]), np.sin(rects[:, None, :, 4])
    across = np.abs(cos * delta[..., 0] + sin * delta[..., 1])
    down = np.abs(cos * delta[..., 1] - sin * delta[..., 0])
    half = rects[:, None, :, 2:4]
    there = half[..., 0] > 0
    return (there & (across <= half[..., 0]) & (down <= half[..., 1])).any(-1)


def _label(bodies, occluders, keys, size) -> Annotations:
    """Labels as an annotator would give them who sees the image alone."""
    joints = bodies.points[:, :_NUM_JOINTS, :2]
    top = _top_parts(bodies)
    in_sight = ATTACHED[np.arange(_NUM_JOINTS), top] | (top < 0)
    in_sight &= ~covered(joints, occluders)
    outside = ((joints < 0) | (joints > size - 1)).any(-1)
    status = np.where(in_sight, skeletons.VISIBLE, skeletons.OCCLUDED)
    status = np.where(outside, skeletons.ABSENT, status)
    boxes = np.concatenate(_extent(bodies.points, bodies.radii), axis=-1)
    return Annotations(
        keys=keys,
        files=keys,
        joints=np.where(outside[..., None], np.nan, joints).astype(np.float32),
        status=status.astype(np.int8),
        boxes=np.clip(boxes, 0, size - 1).astype(np.float32),
    )
