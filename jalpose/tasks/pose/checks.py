"""Labels against the images they are of: what cannot be, and what is unlikely.

What follows, see `jalpose.tasks.findings`. The limits are set where none of LSP's 2,000
images comes near, nor of those that were at hand of LSPET (5,000), MPII (5) and COCO
(79): `scripts/RESULTS.md`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jalpose.data.crops import meets
from jalpose.data.dataset import Dataset
from jalpose.tasks.findings import (
    Finding,
    listed,
    names,
    of_parts,
    rows,
    sample,
    some,
)
from jalpose.tasks.pose.annotations import Annotations, sources_of
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED

_OUTSIDE_PERSON = 1 / 2  # of a person's joints; at most 13 % in LSPET
_OUTSIDE_SET = 1 / 100  # of all joints; 0.007 % in LSP, 0.003 % in LSPET
_OCCLUDED = 1 / 2  # of all joints; 7 % in LSP, 14 % in COCO
_TINY = 1 / 50  # longer side of the joints' box, of the image's; 1/12 in LSPET
_CORNER = 0.55  # of the image's sides that joints reach; 1.0 in both
_PERCENT = (90, 100.5)  # where the largest x and y lie, in images a quarter larger
_FEW = 3  # joints that say whether all are shares, in images of as many pixels a side
_SHARED = 8
_MANY = 20  # people of whom a set's shape says something

# By name, what is held against the images: a `Finding` has the name of its rule.
RULES = {
    "sizes": "an image has the size that its annotation says",
    "windows": "a crop window meets its image",
    "boxes": "a person's box meets its image",
    "box shares": "boxes are pixels, not shares of the image",
    "joint shares": "joints are pixels, not shares of the image",
    "copies": "nobody is there twice in an image, with the same joints",
    "person outside": "at most half of a person's joints are outside the image",
    "set outside": "at most 1 % of a set's joints are outside their images",
    "tiny": "the joints of a person take a fiftieth of the image or more",
    "corner": "the joints of a set reach its images' right and lower half",
    "percent": "the largest x and y of a set are not both just below 100",
    "occluded": "at most half of a set's joints are occluded",
    "files": "no image of the pool is there twice, under two names",
    "parts": "no image file is in two of labelled, pool and test",
}
REFUSED = (
    "sizes",
    "windows",
    "boxes",
    "box shares",
    "joint shares",
    "copies",
)  # where they are not kept


def of_dataset(dataset: Dataset) -> list[Finding]:
    """What is wrong or unlikely where images' sizes are known, of example ids."""
    found: list[Finding] = []
    start = 0
    for source in sources_of(dataset):
        annotations, sizes = source.annotations, getattr(source, "sizes", None)
        own = slice(start, start + len(annotations))
        start = own.stop
        if sizes is None or dataset.windows is None:
            continue
        name = getattr(source, "name", "the set").upper()
        windows = dataset.windows[own]
        told = getattr(source, "told", np.zeros_like(sizes))
        for finding in (
            *of_set(name, annotations, sizes),
            *of_windows(name, annotations.keys, windows, sizes),
            *of_sizes(name, annotations.keys, np.where(told > 0, told, sizes), sizes),
            *of_boxes(name, annotations, sizes),
        ):
            ids = tuple(row + own.start for row in finding.examples)
            found.append(finding._replace(examples=ids))
    parts = {"labelled": dataset.initial, "pool": dataset.pool, "test": dataset.test}
    found += of_parts(parts, dataset.keys, dataset.files, dataset.digests)
    if any(getattr(source, "said", None) for source in dataset.sources):
        found += of_pool(dataset.pool, dataset.files, dataset.digests)
    return found


def of_set(name: str, annotations: Annotations, sizes: np.ndarray) -> list[Finding]:
    """Findings in the labels of one set.

    Args:
      name: of the set, for people.
      annotations: of N examples.
      sizes: int [N, 2], width and height of their images, pixels.
    """
    there = annotations.status != ABSENT
    if not there.any():
        return []
    shares = _shares(name, annotations, sizes, there)
    if shares:
        return [shares]
    found = (
        _equal(name, annotations),
        *_outside(name, annotations, sizes, there),
        _tiny(name, annotations, sizes),
        _cornered(name, annotations, sizes) or _percent(name, annotations, sizes),
        _occluded(name, annotations, there),
    )
    return [finding for finding in found if finding is not None]


def of_windows(
    name: str, keys: Sequence[str], windows: np.ndarray, sizes: np.ndarray
) -> list[Finding]:
    """Findings in the crop windows [N, 3] of one set: all are to meet their images."""
    bare = ~meets(windows, sizes[:, 0], sizes[:, 1])
    if not bare.any():
        return []
    row = int(np.argmax(bare))
    width, height = sizes[row].tolist()
    x, y, side = windows[row].tolist()
    words = (
        f"The crop windows of {int(bare.sum())} people of {name} do not meet their "
        f"images, and would be black: {names(keys, bare)} (of the first the image has "
        f"{width} x {height} pixels, the window is {side:.0f} pixels round ({x:.0f}, "
        f"{y:.0f})). Correct the joints or centres that place them."
    )
    return [Finding(words, True, rows(bare), "windows")]


def of_boxes(name: str, annotations: Annotations, sizes: np.ndarray) -> list[Finding]:
    """Findings in the boxes of one set: all are to meet their images.

    Args:
      name: of the set, for people.
      annotations: of N examples.
      sizes: int [N, 2], width and height of their images, pixels.
    """
    boxes = annotations.boxes
    if boxes is None or annotations.people is not None:  # squares, of MPII
        return []
    there = ~np.isnan(boxes).any(axis=1)
    with np.errstate(invalid="ignore"):
        out = there & ((boxes[:, 2:] <= -0.5) | (boxes[:, :2] >= sizes - 0.5)).any(
            axis=1
        )
        small = there & (boxes[:, 2:] <= 1).all(axis=1)
    found = []
    if small.any() and small.sum() == there.sum():
        words = (
            f"The boxes of all {int(small.sum())} people of {name} end within a pixel "
            f"of the image's corner: {names(annotations.keys, small)}. They are to be "
            "pixels, not shares of the image."
        )
        return [Finding(words, True, rows(small), "box shares")]
    if out.any():
        row = int(np.argmax(out))
        words = (
            f"The boxes of {int(out.sum())} people of {name} lie outside their images: "
            f"{names(annotations.keys, out)} (of the first the image has "
            f"{sizes[row, 0]} x {sizes[row, 1]} pixels, the box is "
            f"{np.round(boxes[row], 1).tolist()}). Do boxes and images belong together?"
        )
        found.append(Finding(words, True, rows(out), "boxes"))
    if there.sum() >= _MANY and (sizes[there] > 1.25 * _PERCENT[1]).all():
        top = boxes[there, 2:].max(axis=0) + 0.5
        if ((top >= _PERCENT[0]) & (top <= _PERCENT[1])).all():
            words = (
                f"The boxes of the {int(there.sum())} people of {name} end at "
                f"{top[0]:.0f} and {top[1]:.0f}, in images of more than 125 pixels "
                "both ways: are they percent of the image?"
            )
            found.append(Finding(words, examples=sample(there), rule="percent"))
    return found


def of_sizes(
    name: str, keys: Sequence[str], told: np.ndarray, sizes: np.ndarray
) -> list[Finding]:
    """Findings in the sizes of images [N, 2] that an annotation file tells."""
    wrong = (told != sizes).any(axis=1)
    if not wrong.any():
        return []
    row = int(np.argmax(wrong))
    (width, height), (now, tall) = told[row].tolist(), sizes[row].tolist()
    words = (
        f"The images of {int(wrong.sum())} people of {name} have other sizes than "
        f"their annotations say: {names(keys, wrong)} (the first {now} x {tall} "
        f"pixels, not {width} x {height}). Labels are of the pixels of the images as "
        "they were: restore those."
    )
    return [Finding(words, True, rows(wrong), "sizes")]


def _outside(
    name: str, annotations: Annotations, sizes: np.ndarray, there: np.ndarray
) -> Iterator[Finding | None]:
    joints, counts = annotations.joints, there.sum(axis=1)
    with np.errstate(invalid="ignore"):  # a pixel more: labels are rounded
        out = ((joints < -1.5) | (joints > sizes[:, None] + 0.5)).any(axis=-1) & there
    ask = "Do labels and images belong together (size, order, x and y, rotation)?"
    yield some(
        annotations.keys,
        out.sum(axis=1) > _OUTSIDE_PERSON * counts,
        lambda count, first: (
            f"{count} people of {name} have more than half of their joints outside "
            f"their images: {first}. {ask}"
        ),
        "person outside",
    )
    share = out.sum() / there.sum()
    if share > _OUTSIDE_SET:
        named = names(annotations.keys, np.any(out, axis=1))
        yield Finding(
            f"{share:.1%} of the joints of {name} lie outside their images, those of "
            f"{named}. {ask}",
            examples=rows(np.any(out, axis=1)),
            rule="set outside",
        )


def _occluded(name: str, annotations: Annotations, there: np.ndarray) -> Finding | None:
    share = (annotations.status == OCCLUDED).sum() / there.sum()
    if share <= _OCCLUDED:
        return None
    return Finding(
        f"{share:.0%} of the joints of {name} are occluded: are its flags inverted?",
        examples=sample((annotations.status == OCCLUDED).any(axis=1)),
        rule="occluded",
    )


def _extent(annotations: Annotations) -> np.ndarray:
    """Longer side of the box of each person's joints, NaN of one without: [N]."""
    joints = annotations.joints
    low = np.where(np.isnan(joints), np.inf, joints).min(axis=1)
    high = np.where(np.isnan(joints), -np.inf, joints).max(axis=1)
    extent = (high - low).max(axis=1)
    return np.where(np.isfinite(extent), extent, np.nan)


def _shares(
    name: str, annotations: Annotations, sizes: np.ndarray, there: np.ndarray
) -> Finding | None:
    places = annotations.joints[there]
    if places.size < 2 * _FEW or places.min() < 0 or places.max() > 1:
        return None
    if sizes.min() < _SHARED:
        return None
    people = np.any(there, axis=1)
    named = names(annotations.keys, people)
    return Finding(
        f"No joint of the {len(annotations)} people of {name} is more than a pixel "
        f"from its image's corner: {named}. They are to be pixels, not shares of the "
        "image.",
        impossible=True,
        examples=sample(people),
        rule="joint shares",
    )


def _tiny(name: str, annotations: Annotations, sizes: np.ndarray) -> Finding | None:
    whole = (annotations.status != ABSENT).sum(axis=1) >= 5
    return some(
        annotations.keys,
        whole & (_extent(annotations) < _TINY * sizes.max(axis=1)),
        lambda count, first: (
            f"The joints of {count} people of {name} take less than a fiftieth of the "
            f"image: {first}. Are they pixels, or shares of the image?"
        ),
        "tiny",
    )


def _cornered(name: str, annotations: Annotations, sizes: np.ndarray) -> Finding | None:
    if len(annotations) < _MANY:
        return None
    reached = np.nanmax(annotations.joints / sizes[:, None], axis=(0, 1))
    if (reached > _CORNER).any():
        return None
    return Finding(
        f"No joint of the {len(annotations)} people of {name} lies in the right or the "
        f"lower part of its image (x up to {reached[0]:.0%} of the width, y up to "
        f"{reached[1]:.0%} of the height): are the labels of smaller images?",
        examples=sample((annotations.status != ABSENT).any(axis=1)),
        rule="corner",
    )


def _percent(name: str, annotations: Annotations, sizes: np.ndarray) -> Finding | None:
    large = (sizes > 1.25 * _PERCENT[1]).all(axis=1)
    large &= (annotations.status != ABSENT).any(axis=1)
    if large.sum() < _MANY:
        return None
    top = np.nanmax(annotations.joints[large], axis=(0, 1))
    if not ((top >= _PERCENT[0]) & (top <= _PERCENT[1])).all():
        return None
    return Finding(
        f"The coordinates of the {int(large.sum())} people of {name} whose images have "
        f"more than 125 pixels both ways end at {top[0]:.0f} and {top[1]:.0f}: are "
        "they percent of the image?",
        examples=sample(large),
        rule="percent",
    )


def of_pool(
    pool: np.ndarray, files: Sequence[str], digests: Sequence[str]
) -> list[Finding]:
    """Image files of the pool that are the same, byte for byte.

    Args:
      pool: ids of its examples.
      files: images of all examples.
      digests: of the images' bytes, "" where they are not known.
    """
    first: dict[str, int] = {}
    pairs, where = [], []
    for example in pool.tolist():
        digest = digests[example]
        other = first.setdefault(digest, example)
        if digest and files[other] != files[example]:
            pairs.append(f"{files[other]} and {files[example]}")
            where += [other, example]
    if not pairs:
        return []
    words = (
        f"{len(pairs)} images of the pool are there twice: {listed(pairs)}. Both may "
        "be chosen, and labelled twice."
    )
    return [Finding(words, examples=tuple(dict.fromkeys(where)), rule="files")]


def _equal(name: str, annotations: Annotations) -> Finding | None:
    first: dict[tuple, int] = {}
    equal, where = [], []
    for row, (file, joints, status) in enumerate(
        zip(annotations.files, annotations.joints, annotations.status, strict=True)
    ):
        if (status == ABSENT).all():
            continue  # somebody who is not labelled
        pose = (file, joints.tobytes(), status.tobytes())
        other = first.setdefault(pose, row)
        if other != row:
            equal.append(f"{annotations.keys[other]} and {annotations.keys[row]}")
            where += [other, row]
    if not equal:
        return None
    return Finding(
        f"{len(equal)} people of {name} are there twice, with the same joints in the "
        f"same image: {listed(equal)}. Remove the copies from the annotation file.",
        impossible=True,
        examples=tuple(where),
        rule="copies",
    )
