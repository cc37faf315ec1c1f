"""Labels of pose data sets as plain arrays, whatever a set ships."""

import dataclasses
from typing import Protocol, cast, runtime_checkable

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.tasks.pose.skeletons import ABSENT, Skeleton

# Pixels from the image's corner, either way: no image that is read is so large, and a
# coordinate beyond is a mistake (65,535 is a common one).
WILD = 2**15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotations:
    """Labels of N examples as plain arrays.

    Attributes:
      keys: stable, unique names, e.g. `lsp/im0001`; hashes are taken of these.
      files: image paths relative to the data folder; `keys` for drawn examples.
      joints: float32 [N, J, 2], (x, y) in pixels of the original image, pixel
        centres at whole numbers; NaN where the joint is absent.
      status: int8 [N, J], VISIBLE, OCCLUDED or ABSENT.
      boxes: float32 [N, 4] person boxes (x0, y0, x1, y1) in the same pixels where
        the data set ships them, else None.
      people: float32 [N, 3], (centre x, centre y, height of the person) in the same
        pixels as MPII ships them, NaN for a person without; None for other sets.
      head_sizes: float32 [N], diagonal of the head box in pixels, NaN for a person
        without one; None where the data set has no head boxes.
      areas: float32 [N], of the person's segment, pixels squared, NaN of one without;
        None where the data set has none.
      videos: N names of the video or sequence each example is a frame of, "" of one
        that is of none; None where the data set does not say.
    """

    keys: tuple[str, ...]
    files: tuple[str, ...]
    joints: np.ndarray
    status: np.ndarray
    boxes: np.ndarray | None = None
    people: np.ndarray | None = None
    head_sizes: np.ndarray | None = None
    areas: np.ndarray | None = None
    videos: tuple[str, ...] | None = None

    def __post_init__(self):
        if not np.isnan(self.joints[self.status == ABSENT]).all():
            raise ValueError("an absent joint must have no coordinate (NaN)")
        if np.isnan(self.joints[self.status != ABSENT]).any():
            raise ValueError("an annotated joint must have a coordinate")
        for name, shape in (
            ("boxes", (4,)),
            ("people", (3,)),
            ("head_sizes", ()),
            ("areas", ()),
        ):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self.keys), *shape):
                raise ValueError(
                    f"{name} of {len(self.keys)} examples must have the shape "
                    f"{(len(self.keys), *shape)}, not {values.shape}"
                )

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, rows) -> "Annotations":
        """The examples at these rows."""
        return Annotations(
            keys=tuple(self.keys[row] for row in rows),
            files=tuple(self.files[row] for row in rows),
            joints=self.joints[rows],
            status=self.status[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            people=None if self.people is None else self.people[rows],
            head_sizes=None if self.head_sizes is None else self.head_sizes[rows],
            areas=None if self.areas is None else self.areas[rows],
            videos=None
            if self.videos is None
            else tuple(self.videos[row] for row in rows),
        )


@runtime_checkable
class PoseSource(Protocol):
    """Labels of one data set of poses, beside its images.

    Attributes:
      skeleton: of its joints.
      annotations: of its examples.
    """

    skeleton: Skeleton
    annotations: Annotations


def sources_of(dataset: Dataset) -> tuple[PoseSource, ...]:
    """The sources of a data set of poses."""
    return cast(tuple[PoseSource, ...], dataset.sources)


def skeleton_of(dataset: Dataset) -> Skeleton:
    """The skeleton that all sources of a data set of poses share."""
    return sources_of(dataset)[0].skeleton
