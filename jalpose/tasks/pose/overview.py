"""Poses of a data set looked through: joints, their boxes, what looks wrong.

See `jalpose.tasks.overviews` for the contract.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jalpose.data import inventory
from jalpose.data.dataset import Dataset
from jalpose.data.inventory import Group
from jalpose.data.source import DataError
from jalpose.tasks import sheets
from jalpose.tasks.findings import Finding
from jalpose.tasks.labels import Truth
from jalpose.tasks.overviews import Heading, Overview, Summary
from jalpose.tasks.pictures import Key
from jalpose.tasks.pose import checks, drawings, mpii
from jalpose.tasks.pose.annotations import skeleton_of
from jalpose.tasks.pose.prepared import PreparedPoses
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, Skeleton

SIZE = 320  # pixels of a picture
_FAR = 1 / 2  # of an image's longer side, outside: a joint there is a slip
_NAMED = 3  # examples in a finding
_QUANTILES = {"least": 0, "5 %": 5, "median": 50, "95 %": 95, "most": 100}
_WINDOW = (255, 80, 200)  # colour of the crop window
_BOX = (255, 210, 60)  # colour of the person's box
_GROUND = 96  # grey round the image


def overview(config: ConfigDict, dataset: Dataset) -> Overview:
    """Tables, findings and pictures of the poses of a data set."""
    skeleton = skeleton_of(dataset)
    sizes = inventory.sizes(dataset)
    groups = inventory.groups(dataset)
    found = checks.of_dataset(dataset)
    found += _validation_list(config, dataset) + _far_out(dataset, skeleton, sizes)
    left, right, middle = drawings.PREDICTED.colours
    return Overview(
        tables=(
            _joints(dataset, groups, skeleton),
            _boxes(dataset, groups, sizes),
        ),
        findings=tuple(found),
        labelled=(dataset.truth["status"] != ABSENT).any(axis=1),
        draw=functools.partial(draw, skeleton),
        legend=(
            Key("left", left, 6),
            Key("right", right, 6),
            Key("middle", middle, 6),
            Key("hidden in the image", middle, 2, hollow=True),
            Key("crop window", _WINDOW, 2),
            *((Key("box", _BOX, 2),) if "box" in dataset.truth else ()),
        ),
    )


def draw(skeleton: Skeleton, image, window, truth: Truth) -> np.ndarray:
    """The whole image, with what lies outside near it, label, box and crop window."""
    joints, status = truth["joints"].astype(np.float64), truth["status"]
    extent = np.array(image.shape[1::-1])
    there = joints[np.isfinite(joints).all(axis=1)]
    # As far as an image's side round it: beyond, lines lead out of the picture.
    reach = np.concatenate([there, [(0, 0), extent]])
    margin = max(4, int(extent.max() // 25))
    low = np.maximum(reach.min(axis=0).round() - margin, -extent)
    high = np.minimum(reach.max(axis=0).round() + margin, 2 * extent)
    low = np.where(reach.min(axis=0) < 0, low, 0).astype(int)
    high = np.where(reach.max(axis=0) > extent, high, extent).astype(int)
    ground = np.full((*(high - low)[::-1], 3), _GROUND, np.uint8)
    x, y = -low
    ground[y : y + extent[1], x : x + extent[0]] = image
    picture, scale, corner = sheets.fitted(ground, SIZE)

    def moved(places):
        return (np.asarray(places, np.float64) - low + 0.5) * scale - 0.5 + corner

    framed: list[tuple[Any, tuple[int, int, int]]] = []
    if window is not None:
        centre, half = np.asarray(window[:2], np.float64), float(window[2]) / 2
        framed.append(([centre - half, centre + half], _WINDOW))
    box = np.asarray(truth.get("box", np.nan), np.float64)
    if np.isfinite(box).all():
        framed.append((box.reshape(2, 2), _BOX))
    for corners, colour in framed:
        ends = np.clip(moved(corners), -SIZE, 2 * SIZE)
        canvas = Image.fromarray(picture)
        ImageDraw.Draw(canvas).rectangle([*ends[0], *ends[1]], outline=colour, width=2)
        picture = np.asarray(canvas)
    return drawings.draw_pose(picture, moved(joints), status, skeleton)


def _joints(dataset: Dataset, groups: Sequence[Group], skeleton: Skeleton) -> Summary:
    """Share of each joint that is there, and hidden."""
    headings = [Heading("joint")]
    columns: list[list[Any]] = [[*skeleton.joints, "all"]]
    for group in groups:
        status = dataset.truth["status"][group.ids]
        for words, which in (
            ("there", status != ABSENT),
            ("hidden", status == OCCLUDED),
        ):
            headings.append(Heading(words, ".1f", group.title))
            shares = [*which.mean(axis=0), which.mean()]
            columns.append([100 * float(share) for share in shares])
    return Summary(
        name="joints",
        caption="Joints: percent of the examples where each is annotated (there), and "
        "where it is marked as occluded (hidden)",
        headings=tuple(headings),
        rows=tuple(zip(*columns, strict=True)),
    )


def _boxes(dataset: Dataset, groups: Sequence[Group], sizes: np.ndarray) -> Summary:
    """Quantiles of the longer side of the joints' boxes."""
    joints, longer = dataset.truth["joints"], sizes.max(axis=1)
    extent = _extent(joints)
    out = _outside(joints, sizes) > 0
    rows = []
    for group in groups:
        row = [group.set, group.part]
        for values in (extent, 100 * extent / longer):
            known = values[group.ids][np.isfinite(values[group.ids])]
            row += _quantiles(known)
        rows.append((*row, int(out[group.ids].sum())))
    return Summary(
        name="boxes",
        caption="Longer side of the box round an example's joints, in pixels and in "
        "percent of the longer side of its image: quantiles over the examples; and how "
        "many joints lie outside their images",
        headings=(
            Heading("set"),
            Heading("part"),
            *(Heading(words, ".0f", "pixels,") for words in _QUANTILES),
            *(Heading(words, ".0f", "% of image,") for words in _QUANTILES),
            Heading("joints outside", "d"),
        ),
        rows=tuple(rows),
    )


def _quantiles(values: np.ndarray) -> list:
    if not len(values):
        return [None] * len(_QUANTILES)
    return np.percentile(values, list(_QUANTILES.values())).tolist()


def _extent(joints: np.ndarray) -> np.ndarray:
    low = np.where(np.isnan(joints), np.inf, joints).min(axis=1)
    high = np.where(np.isnan(joints), -np.inf, joints).max(axis=1)
    extent = (high - low).max(axis=1).astype(np.float64)
    return np.where(np.isfinite(extent), extent, np.nan)


def _outside(joints: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many pixels each joint is outside its image: [N, J], 0 inside."""
    far = np.maximum(-0.5 - joints, joints - (sizes[:, None] - 0.5)) - 1
    return np.nan_to_num(np.maximum(far, 0).max(axis=-1))


def _far_out(dataset: Dataset, skeleton: Skeleton, sizes: np.ndarray) -> list[Finding]:
    """Joints far outside their images: each enlarges the crop window too."""
    outside = _outside(dataset.truth["joints"], sizes)
    far = outside > _FAR * np.nan_to_num(sizes.max(axis=1), nan=np.inf)[:, None]
    ids = np.flatnonzero(far.any(axis=1)).tolist()
    if not ids:
        return []
    named = [
        f"{skeleton.joints[joint]} of {dataset.keys[example]} "
        f"({outside[example, joint]:.0f} pixels)"
        for example, joint in np.argwhere(far)[:_NAMED].tolist()
    ]
    more = int(far.sum()) - len(named)
    words = (
        f"{int(far.sum())} joints of {len(ids)} examples lie far outside their images: "
        f"{', '.join(named)}{f' and {more} more' if more else ''}. Is a digit too "
        "much, or are they to be marked as not annotated?"
    )
    return [Finding(words, examples=tuple(ids))]


def _validation_list(config: ConfigDict, dataset: Dataset) -> list[Finding]:
    """What a run would say of MPII's list of validation images."""
    if config.data.name != "mpii":
        return []
    (source,) = dataset.sources
    if not isinstance(source, PreparedPoses):
        return []
    try:
        mpii.find_validation(source.annotations, config.data.dir, source.images)
    except DataError as error:
        return [Finding(str(error), impossible=True)]
    return []
