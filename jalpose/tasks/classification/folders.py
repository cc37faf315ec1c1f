"""A folder with a folder a class: Caltech-101, ImageNet, or one's own images.

    <folder>/train/<class>/<image>     two parts: `train` beside one of `val`, `valid`,
            /val/<class>/<image>       `validation` and `test`
    <folder>/<class>/<image>           one part, of which a share becomes the test set

Images are of any size; what counts as one is told by its name's ending, and by its
content when it is prepared. Hidden files and folders and what systems leave behind are
not looked at. Where the folders are WordNet ids and a list of their words lies beside
them, classes are called by their first word.
"""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data import images
from jalpose.data.files import ENDINGS, is_file, is_folder
from jalpose.data.source import DataError
from jalpose.runtime.seeds import stream_seed
from jalpose.tasks.classification.annotations import Annotations, Shipped

TRAIN, TESTS = "train", ("val", "valid", "validation", "test")
WORDS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
# The last is in Caltech-101's BACKGROUND_Google.
_LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx", "tmp"}
_WNID = re.compile(r"n\d{8}")
_NAMED, _FAULTS = 3, 10  # names in a fault; faults in a message


class Layout(NamedTuple):
    """Where a set lies, and what of it is taken.

    Attributes:
      name: of the set.
      folder: below the data folder; "": that itself.
      left_out: folders that are no class.
      where_to_get: a sentence for messages.
    """

    name: str
    folder: str
    left_out: tuple[str, ...] = ()
    where_to_get: str = ""


BACKGROUND = "BACKGROUND_Google"  # of Caltech-101: pictures of anything
LAYOUTS = {
    "caltech101": Layout(
        "caltech101",
        os.path.join("caltech101", "101_ObjectCategories"),
        (BACKGROUND,),
        "Caltech-101 is to be had at data.caltech.edu/records/mzrjq-6wc02: unpack "
        "101_ObjectCategories.tar.gz in <config.data.dir>/caltech101.",
    ),
    "imagenet": Layout(
        "imagenet",
        "imagenet",
        (),
        "ImageNet (ILSVRC2012) is to be had at image-net.org/download.php, after "
        "registration: unpack each class's archive in <config.data.dir>/imagenet/train/"
        "<WordNet id>, and sort the validation images into imagenet/val/<WordNet id>.",
    ),
    "folders": Layout("folders", ""),
}


class _Part(NamedTuple):
    """A folder of class folders: what is in each, sorted, relative to it."""

    path: str
    classes: dict[str, tuple[str, ...]]


def find(
    name: str,
    data_dir: str,
    *,
    folder: str = "",
    left_out: Collection[str] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> Shipped:
    """Classes of a set of folders, and how its images are read.

    Args:
      name: of the set, in `LAYOUTS`.
      data_dir: holds it.
      folder: where it lies, relative to `data_dir`; "": as `LAYOUTS` says.
      left_out: folders that are no class; None: as `LAYOUTS` says.
      test_share: of each class of one part that is for tests.
      seed: of the choice of those.

    Raises:
      DataError: folders are missing or not what they should be: all that is wrong, at
        once.
    """
    layout, root = LAYOUTS[name], os.path.abspath(os.path.expanduser(data_dir))
    home = os.path.normpath(os.path.join(root, folder or layout.folder))
    skipped = layout.left_out if left_out is None else tuple(left_out)
    _check_there(layout, root, home)
    paths = _parts(home)
    faults: list[str] = []
    parts = [_scan(path, skipped, faults) for path in paths]
    faults += _different(parts)
    if faults:
        more = len(faults) - _FAULTS
        told = " ".join(faults[:_FAULTS]) + (f" And {more} more." if more > 0 else "")
        raise DataError(f"{told} {layout.where_to_get}".rstrip())
    folders = tuple(parts[0].classes)
    files, labels, test = [], [], []
    for number, part in enumerate(parts):
        for label, (one, names) in enumerate(part.classes.items()):
            start = os.path.relpath(os.path.join(part.path, one), root)
            files += [os.path.join(start, file) for file in names]
            labels += [label] * len(names)
            if len(parts) == 2:
                test.append(np.full(len(names), number == 1))
            else:
                test.append(_for_tests(one, len(names), test_share, seed))
    return Shipped(
        annotations=Annotations(
            keys=tuple(
                f"{name}/{os.path.relpath(os.path.join(root, file), home)}"
                for file in files
            ),
            files=tuple(files),
            labels=np.array(labels, np.int32),
            test=np.concatenate(test),
            classes=_names(home, folders),
        ),
        read=_read,
    )


def _read(data_dir: str, file: str, number: int) -> bytes:
    """Bytes of an image that exists and can be decoded to its end."""
    path = os.path.join(data_dir, file)
    ending = os.path.splitext(file)[1].lower()
    if ending not in ENDINGS:
        raise DataError(
            f"{path!r} lies in the folder of a class, and {ending or 'no ending'!r} is "
            f"not that of an image (known: {', '.join(ENDINGS)}). Move it elsewhere."
        )
    return images.read_image_file(
        path,
        what=f"image {path!r} (index {number})",
        described_by="its folder",
        advice="Restore it, or move it elsewhere.",
    )


def _check_there(layout: Layout, root: str, home: str) -> None:
    if is_folder(home):
        return
    problem = (
        f"No data folder {root!r}"
        if not is_folder(root)
        else (f"No {layout.name.upper()} in the data folder: {home!r} does not exist")
    )
    beside = os.path.join(root, os.path.basename(home))
    if beside != home and is_folder(beside):
        problem += f" (but there is {beside!r}: move it)"
    raise DataError(
        f"{problem}. Looked for {home!r}; set config.data.dir or the environment "
        "variable JALPOSE_DATA to the folder that holds it, or config.data.folder to "
        f"where it lies in that. {layout.where_to_get}".rstrip()
    )


def _parts(home: str) -> list[str]:
    """Training and test folder, or the one folder that is split."""
    there = [entry.name for entry in _entries(home) if entry.is_dir()]
    train = [name for name in there if name.lower() == TRAIN]
    tests = [name for name in there if name.lower() in TESTS]
    if not train or not tests:
        alone = os.path.join(home, train[0]) if there and train == there else ""
        if alone and any(entry.is_dir() for entry in _entries(alone)):
            raise DataError(
                f"{home!r} has {train[0]!r} and none of {', '.join(TESTS)} beside it: "
                "add one, or set config.data.folder to the former, of which "
                "data.test_share then becomes the test set."
            )
        return [home]
    if len(train) + len(tests) > 2:
        raise DataError(
            f"{home!r} has {' and '.join(map(repr, [*train, *tests]))}: which is "
            "trained and which is tested on? Move the others elsewhere."
        )
    return [os.path.join(home, train[0]), os.path.join(home, tests[0])]


def _entries(path: str) -> Iterator[os.DirEntry]:
    """What is in a folder and not hidden, sorted by name."""
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if not entry.name.startswith(".") and entry.name.lower() not in _LEFT_BEHIND:
            yield entry


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a name of bytes that are no text
        return False
    return True


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS


def _scan(path: str, skipped: Collection[str], faults: list[str]) -> _Part:
    """The class folders of a part; what is wrong with them is added to `faults`."""
    classes, loose = {}, []
    for entry in _entries(path):
        if not entry.is_dir():
            loose += [entry.name] if _is_image(entry.name) else []
        elif entry.name not in skipped:
            if not is_folder(entry.path):  # raises where it may not be looked into
                continue
            classes[entry.name] = _scan_class(entry.path, faults)
    if loose and not classes:
        faults.append(
            f"{path!r} has {len(loose):,} images ({_some(loose)}) and no folder: sort "
            "them into a folder a class."
        )
    elif loose:
        faults.append(
            f"{len(loose):,} images lie beside the class folders of {path!r}: "
            f"{_some(loose)}. Of which class are they?"
        )
    elif len(classes) < 2:
        faults.append(
            f"{path!r} has {len(classes)} class folders"
            f"{f' ({_some(list(classes))})' if classes else ''}, and at least two are "
            "needed."
        )
    spelled: dict[str, str] = {}
    for one in classes:
        other = spelled.setdefault(one.casefold(), one)
        if other != one:
            faults.append(
                f"{path!r} has the class folders {other!r} and {one!r}, which differ "
                "in case alone: put them together, or name them apart."
            )
    return _Part(path, classes)


def _scan_class(path: str, faults: list[str]) -> tuple[str, ...]:
    """Files of a class."""
    files: list[str] = []
    nested: list[str] = []
    for entry in _entries(path):
        (nested if entry.is_dir() else files).append(entry.name)
    strange = [name for name in files if not _is_text(name)]
    if strange:
        faults.append(
            f"Files of the class folder {path!r} have names that are not UTF-8: "
            f"{_some([ascii(name) for name in strange])}. Rename them."
        )
    if nested:
        faults.append(
            f"The class folder {path!r} has folders in it: {_some(nested)}. Move their "
            "images up, or set config.data.folder to the folder that holds the class "
            "folders."
        )
    elif not any(map(_is_image, files)):
        holds = f"holds {_some(files)}" if files else "is empty"
        faults.append(
            f"The class folder {path!r} has no images, it {holds}: add some, or "
            "remove it."
        )
    return tuple(files)


def _different(parts: Sequence[_Part]) -> list[str]:
    """Words on classes that only one of two parts has."""
    if len(parts) < 2:
        return []
    return [
        f"{here.path!r} has {len(alone):,} classes that {there.path!r} has not: "
        f"{_some(sorted(alone))}."
        for here, there in (parts, parts[::-1])
        if (alone := here.classes.keys() - there.classes.keys())
    ]


def _for_tests(one: str, count: int, share: float, seed: int) -> np.ndarray:
    """Which images of a class are for tests: bool [count].

    A class keeps at least one image for training and, of two or more, has one for
    tests. Its name and number of images alone decide beside the seed.
    """
    wanted = int(np.clip(round(share * count), 1, count - 1)) if count > 1 else 0
    draws = np.random.default_rng(stream_seed(seed, "test", one))
    chosen = np.zeros(count, bool)
    chosen[draws.permutation(count)[:wanted]] = True
    return chosen


def _names(home: str, folders: tuple[str, ...]) -> tuple[str, ...]:
    """What classes are called: their folders' names, or the words of WordNet ids."""
    if not all(_WNID.fullmatch(folder) for folder in folders):
        return folders
    for file in WORDS:
        path = os.path.join(home, file)
        if is_file(path):
            words = _words(path)
            break
    else:
        return folders
    first = [words.get(folder, folder) for folder in folders]
    # Two kinds of crane are told apart by their ids.
    return tuple(
        f"{word} ({folder})" if first.count(word) > 1 else word
        for word, folder in zip(first, folders, strict=True)
    )


def _words(path: str) -> dict[str, str]:
    """First word of each WordNet id in lines `id words, words`."""
    found = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            wnid, _, words = line.strip().replace("\t", " ").partition(" ")
            if _WNID.fullmatch(wnid) and words:
                found[wnid] = words.split(",")[0].strip()
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
