"""Which joints of a label count: one rule, for NumPy and for JAX."""

from typing import Any

from jaxtyping import Bool, Float, Int

from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE


def annotated(status: Int[Any, "*n j"], occluded: bool) -> Bool[Any, "*n j"]:
    """Joints that a label is taken to have: bool, of the shape of `status`.

    Args:
      status: int8, VISIBLE, OCCLUDED or ABSENT.
      occluded: occluded joints count too (`training.occluded`).
    """
    return status != ABSENT if occluded else status == VISIBLE


def inside(joints: Float[Any, "*n j 2"], size: int) -> Bool[Any, "*n j"]:
    """Joints that lie on a pixel of the crop: bool [..., J].

    Args:
      joints: [..., J, 2], crop pixels, centres at whole numbers.
      size: of the crop.
    """
    return ((joints >= -0.5) & (joints <= size - 0.5)).all(axis=-1)


def counted(
    joints: Float[Any, "*n j 2"],
    status: Int[Any, "*n j"],
    *,
    occluded: bool,
    size: int,
) -> Bool[Any, "*n j"]:
    """Joints that are drawn, trained on and compared with: bool [..., J].

    They are annotated and in the crop: what was moved or cut out of it cannot be seen.
    """
    return annotated(status, occluded) & inside(joints, size)
