"""Annotations of LSP and LSPET as shipped: two files that do not agree.

Both sets come as `<data_dir>/<set>/images/*.jpg` and `<data_dir>/<set>/joints.mat`
with one variable `joints` that holds x, y and a flag for 14 joints per image, but

    set    shape        flag 1      flag 0
    LSP    (3, 14, N)   occluded    visible
    LSPET  (14, 3, N)   annotated   not annotated; x, y are a placeholder <= 0

A flag of 0 in LSPET is no location and becomes ABSENT with NaN coordinates.
Coordinates are otherwise kept as shipped. A set has as many images as its
`joints.mat` describes, so a cut copy of the file selects the first images.
"""

import dataclasses
import os

import numpy as np
import scipy.io

from jalpose.data import images
from jalpose.data.files import is_file, is_folder
from jalpose.data.source import DataError
from jalpose.tasks.pose import skeletons
from jalpose.tasks.pose.annotations import WILD, Annotations

# fmt: off
SHIPPED_ORDER = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle",
    "right wrist", "right elbow", "right shoulder",
    "left shoulder", "left elbow", "left wrist",
    "neck", "head",
)
# fmt: on
_FROM_SHIPPED = [SHIPPED_ORDER.index(joint) for joint in skeletons.LSP.joints]

# Of the joints that are not annotated: none in the images at hand is placed.
_MOST_PLACED = 0.01

WHERE_TO_GET = (
    "The original site is gone; known public copies: LSP (2,000 images) at "
    "huggingface.co/datasets/LiuRunky/Leeds_Sports_Pose or Kaggle "
    "'dkrivosic/leeds-sports-pose-lsp', LSPET (10,000 images) at "
    "github.com/axelcarlier/lsp. Unpack to <config.data.dir>/lsp and "
    "<config.data.dir>/lspet, each with joints.mat and images/."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How one of the two sets is shipped.

    Attributes:
      axes: the axes of the variable `joints` by letter: v(alue: x, y, flag),
        j(oint) and n (image).
      image_name: format of the file name of image number 1, 2, ...
      status_of_flag: what flag 0 and flag 1 mean.
    """

    name: str
    axes: str
    image_name: str
    status_of_flag: tuple[int, int]

    @property
    def shape(self) -> str:
        """Expected shape of the variable `joints`, in words."""
        sizes = {"v": "3", "j": "14", "n": "N"}
        return "(" + ", ".join(sizes[axis] for axis in self.axes) + ")"


LAYOUTS = {
    "lsp": Layout(
        name="lsp",
        axes="vjn",
        image_name="im{:04d}",
        status_of_flag=(skeletons.VISIBLE, skeletons.OCCLUDED),
    ),
    "lspet": Layout(
        name="lspet",
        axes="jvn",
        image_name="im{:05d}",
        status_of_flag=(skeletons.ABSENT, skeletons.VISIBLE),
    ),
}


def read_lsp_annotations(data_dir: str) -> Annotations:
    """Labels of LSP; every joint is annotated, flag 1 is an occluded one.

    Raises:
      DataError: if `joints.mat` is missing, damaged or not that of LSP.
    """
    return read_annotations("lsp", data_dir)


def read_lspet_annotations(data_dir: str) -> Annotations:
    """Labels of LSPET; joints with flag 0 are absent (NaN), none is occluded.

    Raises:
      DataError: if `joints.mat` is missing, damaged or not that of LSPET.
    """
    return read_annotations("lspet", data_dir)


def read_annotations(name: str, data_dir: str) -> Annotations:
    """Labels of the set `name` of `LAYOUTS`, in the joint order of the package."""
    layout = LAYOUTS[name]
    path = find_joints_file(name, data_dir)
    shipped = _as_image_joint_value(_load_joints(path), layout=layout, path=path)
    shipped = shipped[:, _FROM_SHIPPED]  # [N, J, 3]
    names = [layout.image_name.format(n + 1) for n in range(len(shipped))]
    flags = shipped[..., 2]
    no_flag = ~np.isin(flags, (0, 1))
    _refuse(no_flag, flags, "a flag that is neither 0 nor 1", path, names)
    status = np.array(layout.status_of_flag, np.int8)[flags.astype(np.int64)]
    absent = status == skeletons.ABSENT
    joints = shipped[..., :2].astype(np.float32)
    joints[absent] = np.nan
    not_finite = ~np.isfinite(joints).all(axis=-1) & ~absent
    _refuse(not_finite, joints, "a coordinate that is not finite", path, names)
    wild = np.any(np.abs(np.nan_to_num(joints)) > WILD, axis=-1)
    _refuse(wild, joints, f"a coordinate beyond {WILD:,} pixels", path, names)
    if name == "lspet":
        _refuse_placed(shipped, path, names)
    else:
        _refuse_placeholders(shipped, path, names)
    return Annotations(
        keys=tuple(f"{name}/{image}" for image in names),
        files=tuple(f"{name}/images/{image}.jpg" for image in names),
        joints=joints,
        status=status,
    )


def find_joints_file(name: str, data_dir: str) -> str:
    """Path of `joints.mat` of the set `name`.

    Raises:
      DataError: naming the folder that is missing and where to get the data.
    """
    root = os.path.abspath(os.path.expanduser(data_dir))
    folder = os.path.join(root, name)
    path = os.path.join(folder, "joints.mat")
    if is_file(path):
        return path
    if not is_folder(root):
        problem = f"No data folder {root!r}"
    elif not is_folder(folder):
        problem = f"No {name.upper()} in the data folder: {folder!r} does not exist"
    else:
        problem = f"{name.upper()} has no annotations: {path!r} does not exist"
    if is_file(os.path.join(root, "joints.mat")):
        problem += f" (but {root!r} holds a joints.mat: name its parent folder)"
    raise DataError(
        f"{problem}. Looked for {path!r}; set config.data.dir or the environment "
        f"variable JALPOSE_DATA to the folder that holds {name}/joints.mat and "
        f"{name}/images/. {WHERE_TO_GET}"
    )


def read_image_file(data_dir: str, file: str, index: int) -> bytes:
    """Bytes of a raw image that exists and can be decoded to its end."""
    path = os.path.join(data_dir, file)
    return images.read_image_file(
        path,
        what=f"image {path!r} (index {index})",
        described_by="joints.mat",
        advice=f"Restore it from the archive of the set. {WHERE_TO_GET}",
    )


def _load_joints(path: str) -> np.ndarray:
    """The variable `joints` of a MATLAB file."""
    try:
        variables = scipy.io.loadmat(path)
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DataError(
            f"Cannot read {path!r} as a MATLAB file (up to version 7.2): "
            f"{type(error).__name__}: {error}. Copy it again from the archive of the "
            f"set. {WHERE_TO_GET}"
        ) from error
    if "joints" not in variables:
        found = sorted(key for key in variables if not key.startswith("__"))
        raise DataError(
            f"{path!r} has no variable 'joints' (found: {', '.join(found) or 'none'})."
            f" Copy it again from the archive of the set. {WHERE_TO_GET}"
        )
    return variables["joints"]


def _as_image_joint_value(
    joints: np.ndarray, *, layout: Layout, path: str
) -> np.ndarray:
    """`joints` as float64 [N, 14, 3], whatever order its axes were shipped in."""
    sizes = dict(zip(layout.axes, joints.shape, strict=False))
    fits = joints.ndim == 3 and (sizes["v"], sizes["j"]) == (3, len(SHIPPED_ORDER))
    if not fits or joints.dtype.kind not in "fiu":
        raise DataError(
            f"'joints' in {path!r} has shape {joints.shape} and type {joints.dtype}; "
            f"{layout.name.upper()} has numbers of shape {layout.shape}."
            + _other_layout_hint(joints.shape, layout)
        )
    if sizes["n"] == 0:
        raise DataError(f"'joints' in {path!r} describes no image at all.")
    order = [layout.axes.index(axis) for axis in "njv"]
    return joints.transpose(order).astype(np.float64)


def _other_layout_hint(shape: tuple[int, ...], layout: Layout) -> str:
    """Sentence for an array that has the axis order of the other set."""
    for other in LAYOUTS.values():
        sizes = dict(zip(other.axes, shape, strict=False))
        is_other = len(shape) == 3 and (sizes["v"], sizes["j"]) == (3, 14)
        if other is not layout and is_other:
            return (
                f" This is the axis order of {other.name.upper()} {other.shape}: is "
                f"it the joints.mat of {other.name.upper()} in the wrong folder?"
            )
    return ""


def _refuse_placed(shipped: np.ndarray, path: str, names: list[str]) -> None:
    """Raises a DataError where LSPET's joints of flag 0 have coordinates of joints.

    Args:
      shipped: [N, J, 3], as read.
      path: of the file.
      names: of the images.
    """
    absent = shipped[..., 2] == 0
    placed = absent & (shipped[..., :2] > 0).all(axis=-1)
    if not placed.sum() > _MOST_PLACED * absent.sum():
        return
    guess = (
        "are the flags inverted?"
        if (_placeholders(shipped) & ~absent).any()
        else "is it the file of LSP, where flag 1 means occluded?"
    )
    raise DataError(
        f"{path!r} has {int(placed.sum())} of {int(absent.sum())} joints with flag 0 "
        "(not annotated) at a place in the image: "
        f"{_first(placed, shipped, names)}. In LSPET those have a placeholder of 0 or "
        f"less: {guess} Flag 1 means annotated."
    )


def _refuse_placeholders(shipped: np.ndarray, path: str, names: list[str]) -> None:
    """Raises a DataError where LSP's joints of flag 0 have no coordinates of joints.

    Arguments are those of `_refuse_placed`.
    """
    visible = shipped[..., 2] == 0
    nowhere = visible & _placeholders(shipped)
    if not nowhere.sum() > visible.sum() / 2:
        return
    raise DataError(
        f"{path!r} has {int(nowhere.sum())} of {int(visible.sum())} joints with flag 0 "
        f"(visible) at a placeholder of 0 or less: {_first(nowhere, shipped, names)}. "
        "Is it the file of LSPET, where flag 0 means not annotated? Put that of LSP "
        f"there. {WHERE_TO_GET}"
    )


def _placeholders(shipped: np.ndarray) -> np.ndarray:
    """Which joints are where LSPET has those that are not annotated: bool [N, J]."""
    return np.all(shipped[..., :2] <= 0, axis=-1)


def _first(which: np.ndarray, shipped: np.ndarray, names: list[str]) -> str:
    """The first joint of a mask [N, J] in words."""
    image, joint = np.argwhere(which)[0]
    return (
        f"the first is {shipped[image, joint, :2].round(1).tolist()}, "
        f"{skeletons.LSP.joints[joint]!r} of image {names[image]} (index {image})"
    )


def _refuse(
    bad: np.ndarray, values: np.ndarray, what: str, path: str, names: list[str]
) -> None:
    """Raises a DataError that names the first True of `bad` [N, J]."""
    if not bad.any():
        return
    image, joint = np.argwhere(bad)[0]
    raise DataError(
        f"{path!r} has {what}: {values[image, joint].tolist()} for joint "
        f"{skeletons.LSP.joints[joint]!r} of image {names[image]} (index {image}), "
        f"and {int(bad.sum()) - 1} more like it. Copy joints.mat again from the "
        f"archive of the set. {WHERE_TO_GET}"
    )
