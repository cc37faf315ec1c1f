"""The two shipped layouts in miniature, and where the real data are, for tests."""

import os
import pathlib

import numpy as np
import scipy.io
from PIL import Image, ImageDraw

from jalpose.tasks.pose import skeletons
from jalpose.tasks.pose.lsp import SHIPPED_ORDER

NUM_LSP, NUM_LSPET = 24, 9  # of the sets of the whole suite

# Standing figure in units of its height, origin at the hips, y downwards.
# fmt: off
_STANDING = np.array([
    (0.00, -0.52), (0.00, -0.36),
    (0.09, -0.33), (0.13, -0.17), (0.14, -0.02),
    (-0.09, -0.33), (-0.13, -0.17), (-0.14, -0.02),
    (0.06, 0.00), (0.07, 0.22), (0.07, 0.44),
    (-0.06, 0.00), (-0.07, 0.22), (-0.07, 0.44),
])  # [J, 2] in the order of skeletons.LSP
# fmt: on
_TO_SHIPPED = [skeletons.LSP.joints.index(joint) for joint in SHIPPED_ORDER]


def real_data_dir(name: str = "lsp", file: str = "joints.mat") -> str | None:
    """Folder that holds the real set `name` with a file, or None: a reason to skip."""
    default = pathlib.Path(__file__).parents[3] / "shared" / "data"
    root = os.environ.get("JALPOSE_DATA") or str(default)
    return root if os.path.isfile(os.path.join(root, name, file)) else None


def stick_pose(rng: np.random.Generator, image_size: tuple[int, int]) -> np.ndarray:
    """A standing figure with jitter, inside an image: float64 [J, 2] (x, y)."""
    width, height = image_size
    size = rng.uniform(0.6, 0.8) * min(height, 2.5 * width)
    centre = np.array((0.5 * width, 0.53 * height)) + rng.uniform(-0.03, 0.03, 2) * size
    pose = centre + size * (_STANDING + rng.normal(0.0, 0.01, _STANDING.shape))
    return np.clip(pose, 1.0, np.array(image_size) - 2.0)


def draw(pose: np.ndarray, image_size: tuple[int, int], shade: int) -> Image.Image:
    """The figure as lines over a plain background."""
    image = Image.new("RGB", image_size, (shade, 90, 160))
    canvas = ImageDraw.Draw(image)
    for colour, (parent, child) in enumerate(skeletons.LSP.limbs):
        ends = [tuple(pose[parent]), tuple(pose[child])]
        canvas.line(ends, fill=(250, 17 * colour, 40), width=3)
    return image


def write_miniature(
    data_dir: str | os.PathLike,
    num_lsp: int,
    num_lspet: int,
    image_size: tuple[int, int] = (96, 128),
) -> None:
    """Writes LSP and LSPET as shipped: `images/`, `joints.mat`; 0 leaves a set out.

    About one joint in ten is occluded (LSP) or not annotated (LSPET), with the
    placeholder coordinate that LSPET gives all such joints of an image.

    Args:
      image_size: (width, height) in pixels.
    """
    rng = np.random.default_rng(0)
    for name, digits, count in (("lsp", 4, num_lsp), ("lspet", 5, num_lspet)):
        if not count:
            continue
        folder = pathlib.Path(data_dir) / name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        joints = np.zeros((count, len(SHIPPED_ORDER), 3))
        for n in range(count):
            pose = stick_pose(rng, image_size)
            image = draw(pose, image_size, shade=n * 7 % 256)
            image.save(folder / "images" / f"im{n + 1:0{digits}d}.jpg", quality=95)
            special = rng.random(len(SHIPPED_ORDER)) < 0.1
            joints[n, :, :2] = pose[_TO_SHIPPED]
            joints[n, :, 2] = special if name == "lsp" else ~special
            if name == "lspet":
                joints[n, special, :2] = -rng.uniform(1, 50, 2)
        save_joints(data_dir, name, joints)


def save_joints(data_dir: str | os.PathLike, name: str, joints: np.ndarray) -> None:
    """Writes `joints` [N, 14 (shipped order), 3] with the axis order of the set."""
    order = (2, 1, 0) if name == "lsp" else (1, 2, 0)
    path = pathlib.Path(data_dir) / name / "joints.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"joints": joints.transpose(order)})
