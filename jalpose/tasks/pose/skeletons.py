"""Joints, their left/right pairs, limbs and torso: one place for every skeleton.

Joint status is one of three values everywhere in the package, whatever flags a
data set ships: `VISIBLE`, `OCCLUDED` (annotated, but hidden in the image) and
`ABSENT` (not annotated: it has no coordinate, is never drawn, trained on,
evaluated or used to place a crop).
"""

import dataclasses

VISIBLE = 1
OCCLUDED = 0
ABSENT = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A set of named joints and what is known of their geometry.

    Attributes:
      joints: joint names, in the order of every `[J, ...]` array.
      flip_pairs: (left, right) joint indices that change places in a mirror.
      limbs: (parent, child) joint indices; what is drawn as a line.
      torso: the two diagonals (joint, joint) whose longer one is the length that
        PCK is measured in; () where it has none.
      left_out: joints that the official evaluation of the data set does not count.
    """

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    torso: tuple[tuple[int, int], ...]
    left_out: tuple[int, ...] = ()

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.joints)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Permutation of the joints under a left/right flip: `joints[:, mirror]`."""
        order = list(range(self.num_joints))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)


# fmt: off
LSP = Skeleton(
    name="lsp14",
    joints=(
        "head", "neck",
        "left shoulder", "left elbow", "left wrist",
        "right shoulder", "right elbow", "right wrist",
        "left hip", "left knee", "left ankle",
        "right hip", "right knee", "right ankle",
    ),
    flip_pairs=((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13)),
    limbs=(
        (1, 0),
        (1, 2), (2, 3), (3, 4),
        (1, 5), (5, 6), (6, 7),
        (2, 8), (8, 9), (9, 10),
        (5, 11), (11, 12), (12, 13),
        (8, 11),
    ),
    torso=((2, 11), (5, 8)),
)

# The 14 joints of LSP in the same places, then MPII's own two.
MPII = Skeleton(
    name="mpii16",
    joints=(*LSP.joints, "pelvis", "thorax"),
    flip_pairs=LSP.flip_pairs,
    limbs=(
        (1, 0), (15, 1),
        (15, 2), (2, 3), (3, 4),
        (15, 5), (5, 6), (6, 7),
        (15, 14),
        (14, 8), (8, 9), (9, 10),
        (14, 11), (11, 12), (12, 13),
    ),
    torso=LSP.torso,
    left_out=(14, 15),
)
# fmt: on
