"""Labels against the images they are of: what cannot be, and what is unlikely.

`data.check` says what follows: "warn" refuses what cannot be and warns of what is
unlikely, "strict" refuses both, "off" looks at nothing. The limits are set where none
of LSP's 2,000 and LSPET's first 5,000 images comes near (`scripts/RESULTS.md`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data.crops import meets
from jalpose.data.dataset import Dataset
from jalpose.data.source import DataError
from jalpose.tasks.pose.annotations import Annotations, sources_of
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED

CHECKS = ("warn", "strict", "off")  # values of `data.check`

_OUTSIDE_PERSON = 1 / 2  # of a person's joints; at most 14 % in LSPET
_OUTSIDE_SET = 1 / 100  # of all joints; 0.007 % in LSP, 0.003 % in LSPET
_OCCLUDED = 1 / 2  # of all joints; 7 % in LSP
_TINY = 1 / 50  # longer side of the joints' box, of the image's; 1/12 in LSPET
_CORNER = 0.55  # of the image's sides that joints reach; 1.0 in both
_MANY = 20  # people of whom a set's shape says something
_NAMED = 3  # examples in a message
_OFF = "data.check=off goes on as it is"
_logger = logging.getLogger(__name__)


class Finding(NamedTuple):
    """Something that is wrong, or may be.

    Attributes:
      words: what, with examples and what to do.
      impossible: it cannot be right.
      examples: whom it is of: rows of the set, across parts ids; () where it is of all.
    """

    words: str
    impossible: bool = False
    examples: tuple[int, ...] = ()


def act_on(findings: Iterable[Finding], check: str) -> None:
    """Refuse or warn of what was found, as `data.check` says.

    Raises:
      DataError: something cannot be, or is unlikely under "strict".
    """
    found = list(findings)
    refused = [f.words for f in found if f.impossible or check == "strict"]
    if refused:
        raise DataError(f"{' '.join(refused)} {_OFF}.")
    for finding in found:
        _logger.warning("%s", finding.words)


def of_dataset(dataset: Dataset) -> list[Finding]:
    """What is wrong or unlikely where images' sizes are known, of example ids."""
    found: list[Finding] = []
    start = 0
    for source in sources_of(dataset):
        annotations, sizes = source.annotations, getattr(source, "sizes", None)
        rows = slice(start, start + len(annotations))
        start = rows.stop
        if sizes is None or dataset.windows is None:
            continue
        name = getattr(source, "name", "the set").upper()
        windows = dataset.windows[rows]
        for finding in (
            *of_set(name, annotations, sizes),
            *of_windows(name, annotations.keys, windows, sizes),
        ):
            ids = tuple(row + rows.start for row in finding.examples)
            found.append(finding._replace(examples=ids))
    parts = {"labelled": dataset.initial, "pool": dataset.pool, "test": dataset.test}
    return found + of_parts(parts, dataset.keys, dataset.files, dataset.digests)


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
    found = (
        _equal(name, annotations),
        *_outside(name, annotations, sizes, there),
        _tiny(name, annotations, sizes),
        _cornered(name, annotations, sizes),
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
        f"images, and would be black: {_names(keys, bare)} (of the first the image has "
        f"{width} x {height} pixels, the window is {side:.0f} pixels round ({x:.0f}, "
        f"{y:.0f})). Correct the joints or centres that place them."
    )
    return [Finding(words, impossible=True, examples=_rows(bare))]


def of_parts(
    parts: Mapping[str, np.ndarray],
    keys: Sequence[str],
    files: Sequence[str],
    digests: Sequence[str],
) -> list[Finding]:
    """Findings across the parts of a benchmark: no image is to be in two of them.

    Args:
      parts: name -> ids: of who is labelled, pool and test.
      keys: names of the examples.
      files: their images; of one image there may be several people.
      digests: of the images' bytes, "" where they are not known.
    """
    first: dict[str, tuple[str, int]] = {}
    twice: dict[tuple[str, str], list[str]] = {}
    ids_of: dict[tuple[str, str], list[int]] = {}
    for part, ids in parts.items():
        for example in ids:
            digest = digests[example]
            where, other = first.setdefault(digest, (part, int(example)))
            if digest and where != part and files[other] != files[example]:
                pair = f"{keys[other]} and {keys[example]}"
                twice.setdefault((where, part), []).append(pair)
                ids_of.setdefault((where, part), []).extend([other, int(example)])
    return [
        Finding(
            f"{len(pairs)} images are the same file in the {one} and the {two} part: "
            f"{_list(pairs)}. What is trained on is not to be tested on.",
            examples=tuple(ids_of[one, two]),
        )
        for (one, two), pairs in twice.items()
    ]


def _outside(
    name: str, annotations: Annotations, sizes: np.ndarray, there: np.ndarray
) -> Iterator[Finding | None]:
    joints, counts = annotations.joints, there.sum(axis=1)
    with np.errstate(invalid="ignore"):  # a pixel more: labels are rounded
        out = ((joints < -1.5) | (joints > sizes[:, None] + 0.5)).any(axis=-1) & there
    ask = "Do labels and images belong together (size, order, x and y, rotation)?"
    yield _some(
        annotations.keys,
        out.sum(axis=1) > _OUTSIDE_PERSON * counts,
        lambda count, first: (
            f"{count} people of {name} have more than half of their joints outside "
            f"their images: {first}. {ask}"
        ),
    )
    share = out.sum() / there.sum()
    if share > _OUTSIDE_SET:
        named = _names(annotations.keys, np.any(out, axis=1))
        yield Finding(
            f"{share:.1%} of the joints of {name} lie outside their images, those of "
            f"{named}. {ask}",
            examples=_rows(np.any(out, axis=1)),
        )


def _occluded(name: str, annotations: Annotations, there: np.ndarray) -> Finding | None:
    share = (annotations.status == OCCLUDED).sum() / there.sum()
    if share <= _OCCLUDED:
        return None
    return Finding(
        f"{share:.0%} of the joints of {name} are occluded: are its flags inverted?"
    )


def _extent(annotations: Annotations) -> np.ndarray:
    """Longer side of the box of each person's joints, NaN of one without: [N]."""
    joints = annotations.joints
    low = np.where(np.isnan(joints), np.inf, joints).min(axis=1)
    high = np.where(np.isnan(joints), -np.inf, joints).max(axis=1)
    extent = (high - low).max(axis=1)
    return np.where(np.isfinite(extent), extent, np.nan)


def _tiny(name: str, annotations: Annotations, sizes: np.ndarray) -> Finding | None:
    whole = (annotations.status != ABSENT).sum(axis=1) >= 5
    return _some(
        annotations.keys,
        whole & (_extent(annotations) < _TINY * sizes.max(axis=1)),
        lambda count, first: (
            f"The joints of {count} people of {name} take less than a fiftieth of the "
            f"image: {first}. Are they pixels, or shares of the image?"
        ),
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
        f"{reached[1]:.0%} of the height): are the labels of smaller images?"
    )


def _equal(name: str, annotations: Annotations) -> Finding | None:
    first: dict[tuple, int] = {}
    equal, rows = [], []
    for row, (file, joints, status) in enumerate(
        zip(annotations.files, annotations.joints, annotations.status, strict=True)
    ):
        pose = (file, joints.tobytes(), status.tobytes())
        other = first.setdefault(pose, row)
        if other != row:
            equal.append(f"{annotations.keys[other]} and {annotations.keys[row]}")
            rows += [other, row]
    if not equal:
        return None
    return Finding(
        f"{len(equal)} people of {name} are there twice, with the same joints in the "
        f"same image: {_list(equal)}. Remove the copies from the annotation file.",
        impossible=True,
        examples=tuple(rows),
    )


def _some(
    keys: Sequence[str], which: np.ndarray, words: Callable[[int, str], str]
) -> Finding | None:
    """A finding of the examples `which`, if any: words of (how many, who)."""
    if not which.any():
        return None
    said = words(int(which.sum()), _names(keys, which))
    return Finding(said, examples=_rows(which))


def _rows(which: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(which).tolist())


def _names(keys: Sequence[str], which: np.ndarray) -> str:
    return _list([keys[row] for row in np.flatnonzero(which).tolist()])


def _list(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
