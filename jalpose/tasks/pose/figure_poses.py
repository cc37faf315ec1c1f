"""Poses of the drawn figures: joint angles, then forward kinematics in 3-D.

Body axes at rest, which are also the camera's: x to the figure's left (right in
the image: the figure faces the viewer), y down, z away from the viewer. Lengths
are in statures. A body is a set of tapered capsules, grouped into parts.
"""

import dataclasses

import numpy as np

from jalpose.tasks.pose import skeletons

ROOT = ("yaw", "pitch", "roll", "spine", "side", "nod", "turn")
ARM = ("arm_out", "arm_forward", "arm_twist", "elbow")
LEG = ("leg_out", "leg_forward", "knee")
SIDES = ("left", "right")
ANGLES = ROOT + tuple(f"{side} {angle}" for side in SIDES for angle in ARM + LEG)

# Angle: (mean, antisymmetric part, spread), degrees. The antisymmetric part has a
# random sign; of paired angles the right side has the opposite sign to the left.
_Pose = dict[str, tuple[float, float, float]]
# fmt: off
_REST: _Pose = {
    "yaw": (0, 0, 35), "pitch": (6, 0, 6), "roll": (0, 0, 8), "spine": (4, 0, 7),
    "side": (0, 0, 6), "nod": (5, 0, 8), "turn": (0, 0, 15),
    "arm_out": (20, 0, 12), "arm_forward": (0, 0, 18), "arm_twist": (15, 0, 25),
    "elbow": (25, 0, 20),
    "leg_out": (9, 0, 6), "leg_forward": (2, 0, 6), "knee": (6, 0, 8),
}
_COMMON: dict[str, _Pose] = {
    "stand": {},
    "walk": {
        "yaw": (0, 50, 25), "arm_forward": (0, -28, 12), "elbow": (30, 0, 18),
        "leg_forward": (5, 28, 9), "knee": (22, -16, 10),
    },
    "gesture": {"elbow": (65, 40, 20), "arm_forward": (10, 10, 15)},
}
_RARE: dict[str, _Pose] = {
    "handstand": {
        "roll": (180, 0, 14), "arm_out": (162, 0, 10), "elbow": (8, 0, 8),
        "leg_out": (15, 0, 10), "leg_forward": (0, 15, 12), "knee": (15, 10, 15),
    },
    "lie": {
        "roll": (0, 90, 10), "yaw": (0, 0, 60), "arm_out": (45, 25, 25),
        "leg_forward": (10, 12, 12), "knee": (25, 0, 20),
    },
    "bend": {
        "spine": (85, 0, 15), "yaw": (0, 65, 25), "arm_forward": (50, 0, 30),
        "leg_out": (10, 0, 6), "knee": (12, 0, 10),
    },
    "raise": {"arm_out": (148, 0, 18), "elbow": (28, 0, 20)},
    "crouch": {
        "yaw": (0, 45, 25), "spine": (30, 0, 12), "arm_forward": (45, 0, 25),
        "elbow": (50, 0, 25), "leg_out": (20, 0, 8), "leg_forward": (95, 0, 14),
        "knee": (118, 0, 12),
    },
    "spread": {"arm_out": (82, 0, 22), "leg_out": (38, 0, 8)},
    "lean": {
        "roll": (0, 45, 10), "arm_out": (65, 30, 25), "leg_out": (12, 0, 8),
        "leg_forward": (10, 20, 15), "knee": (28, 0, 20),
    },
    "back": {"yaw": (180, 0, 30)},
}
LENGTHS = {  # of a body's parts, in statures
    "trunk": 0.32, "neck": 0.105, "head": 0.08, "shoulder": 0.115, "hip": 0.075,
    "upper arm": 0.175, "forearm": 0.16, "thigh": 0.205, "shin": 0.195, "girth": 1.0,
}
# Shirts hang over trousers, trousers over shoes, arms before a trunk as far away.
_DEPTH_BIAS = {
    "torso": 0.0, "pelvis": 0.03, "head": -0.02, "upper arm": -0.02,
    "forearm": -0.025, "thigh": 0.02, "shin": 0.025, "foot": 0.03,
}
# fmt: on
KINDS = (*_COMMON, *_RARE)
NUM_COMMON = len(_COMMON)
NUM_NORMALS = len(ANGLES) + len(LENGTHS)
NUM_UNIFORMS = 4
_POSES = [_REST | pose for pose in (_COMMON | _RARE).values()]
# Of each kind the (mean, antisymmetric part, spread) of each angle: [K, A, 3].
TABLE = np.array([[p[a.split()[-1]] for a in ANGLES] for p in _POSES], float)

_LIMBS = ("upper arm", "forearm", "thigh", "shin", "foot")
PARTS = ("torso", "pelvis", "head", *(f"{s} {limb}" for s in SIDES for limb in _LIMBS))
POINTS = (
    *skeletons.LSP.joints,
    *("pelvis", "skull", "crown", "face", "hair", "left eye", "right eye"),
    *("left collar", "right collar", "left hem", "right hem"),
    *("left hand", "right hand", "left toe", "right toe"),
)


def _capsules() -> list[tuple[str, str, str, float, float]]:
    """List (part, from, to, radius at either end in statures) of a whole body."""
    body = [
        ("torso", "left shoulder", "right shoulder", 0.042, 0.042),
        ("torso", "left shoulder", "left hip", 0.042, 0.052),
        ("torso", "right shoulder", "right hip", 0.042, 0.052),
        ("torso", "neck", "pelvis", 0.075, 0.075),
        ("pelvis", "left hip", "right hip", 0.062, 0.062),
        ("head", "neck", "skull", 0.035, 0.035),
        ("head", "skull", "crown", 0.072, 0.074),
    ]
    for s in SIDES:
        body += [
            (f"{s} upper arm", f"{s} shoulder", f"{s} elbow", 0.042, 0.036),
            (f"{s} forearm", f"{s} elbow", f"{s} wrist", 0.035, 0.028),
            (f"{s} forearm", f"{s} wrist", f"{s} hand", 0.032, 0.03),
            (f"{s} thigh", f"{s} hip", f"{s} knee", 0.06, 0.047),
            (f"{s} shin", f"{s} knee", f"{s} ankle", 0.045, 0.034),
            (f"{s} foot", f"{s} ankle", f"{s} toe", 0.036, 0.028),
        ]
    return body


CAPSULES = _capsules()
CAPSULE_PART = np.array([PARTS.index(c[0]) for c in CAPSULES])  # [S]
CAPSULE_ENDS = np.array([[POINTS.index(p) for p in c[1:3]] for c in CAPSULES])
_RADII = np.array([c[3:] for c in CAPSULES])
_IS_SKULL = np.array([c[1] == "skull" for c in CAPSULES])
_BIAS = np.array([_DEPTH_BIAS[p.split(" ", p[:4] in "left right")[-1]] for p in PARTS])


def _attached() -> np.ndarray:
    """Parts a joint belongs to, bool [J, P]: under one of these it is in sight."""
    joints = skeletons.LSP.joints
    table = np.array(
        [
            [any(j in c[1:3] for c in CAPSULES if c[0] == p) for p in PARTS]
            for j in joints
        ]
    )
    table[joints.index("head"), PARTS.index("head")] = True
    return table


ATTACHED = _attached()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bodies:
    """N posed bodies; lengths in statures, or in pixels once placed.

    Attributes:
      points: [N, Q, 3], `POINTS` (the joints come first) in camera axes.
      radii: [N, S, 2], radius of each of `CAPSULES` at its two ends.
      depths: [N, P], distance of `PARTS` from the viewer, for painting them.
      rare: bool [N], whether the pose is one of the rare ones.
    """

    points: np.ndarray
    radii: np.ndarray
    depths: np.ndarray
    rare: np.ndarray


def _rotation(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Right-handed rotations about axis x, y or z (0, 1, 2): [N] -> [N, 3, 3]."""
    turn = np.zeros((len(degrees), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn[:, axis, axis] = 1.0
    turn[:, i, i] = turn[:, j, j] = np.cos(np.radians(degrees))
    turn[:, j, i] = np.sin(np.radians(degrees))
    turn[:, i, j] = -turn[:, j, i]
    return turn


def _sample(normals, uniforms, rare_fraction):
    """Angles and lengths by name, each [N], and which examples are rare."""
    normals = np.clip(normals, -2.0, 2.0)
    rare = uniforms[:, 0] < rare_fraction
    num_rare = len(KINDS) - NUM_COMMON
    kind = np.where(rare, NUM_COMMON + uniforms[:, 1] * num_rare, 0)
    kind = np.where(rare, kind, uniforms[:, 1] * NUM_COMMON).astype(int)
    sign = np.where(uniforms[:, 2:4] < 0.5, -1.0, 1.0)  # root, limbs
    half = len(ARM + LEG)
    signs = np.repeat(np.c_[sign, -sign[:, 1]], (len(ROOT), half, half), axis=1)
    mean, anti, spread = np.moveaxis(TABLE[kind], -1, 0)
    values = mean + signs * anti + spread * normals[:, : len(ANGLES)]
    angles = dict(zip(ANGLES, values.T, strict=True))
    for name in angles:
        if "elbow" in name or "knee" in name:
            angles[name] = np.abs(angles[name])
    scale = 1.0 + 0.08 * normals[:, len(ANGLES) :]
    means = np.array(list(LENGTHS.values()))
    lengths = dict(zip(LENGTHS, (means * scale).T[..., None], strict=True))
    return angles, lengths, rare


def _trunk_points(angles, lengths):
    """Pelvis, spine and head; returns points and the frames of pelvis and chest."""
    rot = _rotation
    root = rot(2, angles["roll"]) @ rot(0, -angles["pitch"]) @ rot(1, angles["yaw"])
    chest = root @ rot(0, angles["spine"]) @ rot(2, angles["side"])
    head = chest @ rot(1, angles["turn"]) @ rot(0, angles["nod"])
    left, down, back = np.moveaxis(chest, -1, 0)
    head_left, head_down, head_back = np.moveaxis(head, -1, 0)
    pelvis = np.zeros_like(left)
    neck = pelvis - lengths["trunk"] * down
    skull = neck - lengths["neck"] * head_down
    size = lengths["head"]
    crown = skull - 0.3 * size * head_down
    points = {
        "pelvis": pelvis,
        "neck": neck,
        "skull": skull,
        "crown": crown,
        "head": skull - size * head_down,
        "face": skull + size * (0.11 * head_down - 0.24 * head_back),
        "hair": crown + size * (0.21 * head_back - 0.09 * head_down),
    }
    for sign, side in zip((1, -1), SIDES, strict=True):
        shoulder = neck + 0.02 * down + sign * lengths["shoulder"] * left
        points[f"{side} shoulder"] = shoulder
        points[f"{side} hip"] = sign * lengths["hip"] * root[..., 0]
        points[f"{side} eye"] = skull + size * (
            0.35 * sign * head_left - 0.84 * head_back
        )
        front = 0.035 * sign * left - 0.06 * back
        points[f"{side} collar"] = neck + front + 0.01 * down
        points[f"{side} hem"] = 0.9 * pelvis + front - 0.02 * down
    return points, root, chest


def _limb_points(angles, lengths, points, root, chest):
    """Arms and legs, hung on the shoulders and hips that `points` already holds."""
    rot = _rotation
    limbs: dict[str, np.ndarray] = {}
    for sign, side in zip((1, -1), SIDES, strict=True):
        get = {a: angles[f"{side} {a}"] for a in ARM + LEG}
        upper = chest @ rot(2, -sign * get["arm_out"]) @ rot(0, -get["arm_forward"])
        fore = upper @ rot(1, sign * get["arm_twist"]) @ rot(0, -get["elbow"])
        thigh = root @ rot(2, -sign * get["leg_out"]) @ rot(0, -get["leg_forward"])
        shin = thigh @ rot(0, get["knee"])
        elbow = points[f"{side} shoulder"] + lengths["upper arm"] * upper[..., 1]
        wrist = elbow + lengths["forearm"] * fore[..., 1]
        knee = points[f"{side} hip"] + lengths["thigh"] * thigh[..., 1]
        ankle = knee + lengths["shin"] * shin[..., 1]
        toe = ankle + 0.03 * shin[..., 1] - 0.08 * shin[..., 2]
        limbs |= {f"{side} elbow": elbow, f"{side} wrist": wrist}
        limbs |= {f"{side} hand": wrist + 0.04 * fore[..., 1], f"{side} knee": knee}
        limbs |= {f"{side} ankle": ankle, f"{side} toe": toe}
    return limbs


def pose_bodies(
    normals: np.ndarray, uniforms: np.ndarray, rare_fraction: float
) -> Bodies:
    """Pose N bodies from N rows of random numbers.

    Args:
      normals: [N, NUM_NORMALS] standard normal numbers.
      uniforms: [N, NUM_UNIFORMS] numbers in [0, 1).
      rare_fraction: probability of a rare pose.
    """
    angles, lengths, rare = _sample(normals, uniforms, rare_fraction)
    trunk, root, chest = _trunk_points(angles, lengths)
    named = trunk | _limb_points(angles, lengths, trunk, root, chest)
    points = np.stack([named[name] for name in POINTS], axis=1)
    along = points[:, CAPSULE_ENDS, 2].mean(-1)  # [N, S]
    member = CAPSULE_PART[:, None] == np.arange(len(PARTS))
    depths = along @ (member / member.sum(0)) + _BIAS
    girth = np.where(
        _IS_SKULL, lengths["head"] / LENGTHS["head"], lengths["girth"] ** 2
    )
    radii = _RADII * girth[..., None]
    return Bodies(points=points, radii=radii, depths=depths, rare=rare)
