"""Where annotation files lie, and the images that they name.

Files are told by their content. Whatever is not named is looked for: the labels in
`data.dir`, images near the file that names them.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jalpose.data import images
from jalpose.data.files import is_file, is_folder
from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import boxes, reading
from jalpose.tasks.pose.formats.poses import Poses

_PROJECT = "labeled-data"  # of DeepLabCut
_TABLES = ("CollectedData_*.h5", "CollectedData_*.csv")  # the latter is taken first
_COCO = (  # of the benchmark, relative to `data.dir`: training, validation
    "coco/annotations/person_keypoints_train2017.json",
    "coco/annotations/person_keypoints_val2017.json",
)
_ENDINGS = (".json", ".csv", ".xml", ".h5", ".slp")
_LOOKED_AT = 20  # images of a file, to find the folder they are in


def annotation_files(root: str, name: str, photos) -> tuple[list[str], list[str]]:
    """Annotation files of the labelled and of the test part, absolute.

    Args:
      root: the data folder.
      name: of the data set.
      photos: the config's section `data.photos`.

    Raises:
      DataError: one is not there, or it is not clear which is meant.
    """
    labelled, test = photos["labelled"], photos["test"]
    if name == "coco" and not labelled:
        there = [file for file in _COCO if is_file(os.path.join(root, file))]
        if not there:
            raise DataError(
                f"No annotations of COCO in {root!r}: looked for {' and '.join(_COCO)}."
                " Get annotations_trainval2017.zip and the images at cocodataset.org, "
                "or name files of your own in config.data.photos.labelled"
            )
        labelled, test = there[0], test or (there[1] if len(there) > 1 else "")
    tested = _named(root, test, "test") if test else []
    if labelled:
        return _named(root, labelled, "labelled"), tested
    pool = os.path.join(root, photos["pool"]) if photos["pool"] else ""
    return _looked_for(root, [*tested, pool]), tested


def images_of(
    root: str,
    path: str,
    found: Poses,
    given: str = "",
    key: str = "config.data.photos.images",
) -> tuple[str, Poses]:
    """The folder of a file's images, relative to `root`, and what it says of them.

    It is the given one, else the one near the file where its images are; of images
    that are nowhere by their paths, where they are by their names.

    Args:
      root: the data folder.
      path: of the annotation file, absolute.
      found: in it.
      given: folder relative to `root`; "": looked for.
      key: what names that folder, for errors.

    Raises:
      DataError: none of them is anywhere, or they are in several folders.
    """
    above = [os.path.dirname(path)]
    for _ in range(2):
        above.append(os.path.dirname(above[-1]))
    last = os.path.splitext(os.path.basename(path))[0].rpartition("_")[2]
    folders = [os.path.join(root, given)] if given else [*above, root]
    for below in () if given else ("images", last, os.path.join("images", last)):
        folders += [os.path.join(folder, below) for folder in (*above, root)]
    start = root.rstrip(os.sep) + os.sep
    inside = [one for one in folders if given or one == root or one.startswith(start)]
    files = [image.file for image in found.images]
    if not files:
        raise DataError(f"{path!r} names no image")
    rows = np.linspace(0, len(files) - 1, min(len(files), _LOOKED_AT)).round()
    some = [files[row] for row in rows.astype(int).tolist()]
    for shorter in (False, True):
        names = [os.path.basename(file) if shorter else file for file in some]
        there = [
            os.path.relpath(folder, root).replace(os.sep, "/")
            for folder in dict.fromkeys(inside)
            if any(os.path.isfile(os.path.join(folder, name)) for name in names)
        ]
        if len(there) > 1:
            raise DataError(
                f"Images that {path!r} names, {names[0]!r} for one, are in "
                f"{' and in '.join(there)} of {root!r}: name the folder in "
                f"{key}, or in the file itself"
            )
        if there:
            found = _by_name(found, path) if shorter else found
            return ("" if there[0] == "." else there[0]), found
    looked = ", ".join(dict.fromkeys(os.path.relpath(f, root) for f in inside))
    raise DataError(
        f"None of the images that {path!r} names is there, {some[0]!r} for one: is it "
        f"the label file of another folder? Looked in {looked} of {root!r}; "
        f"{key} names the folder they are in"
    )


def read_image_file(data_dir: str, file: str, index: int) -> bytes:
    """Bytes of an image that exists and can be decoded to its end.

    Raises:
      DataError: it is missing or damaged.
    """
    path = os.path.join(data_dir, file)
    return images.read_image_file(
        path,
        what=f"image {path!r} (record {index})",
        described_by="an annotation file or the list of the folder",
        advice="Bring it back, or take it out of the annotation file.",
    )


def _named(root: str, given: str, key: str) -> list[str]:
    """The annotation files that a key names: one, or those of a folder."""
    path = os.path.join(root, given)
    if is_file(path):
        return [path]
    tables = _tables(path) if is_folder(path) else []
    if not tables:
        what = "holds no tables of DeepLabCut" if is_folder(path) else "is not there"
        raise DataError(
            f"data.photos.{key}={given!r}: {path!r} {what}. It is to be an annotation "
            "file, or the folder of a DeepLabCut project, relative to data.dir"
        )
    return tables


def _tables(folder: str) -> list[str]:
    """DeepLabCut's tables in a project or its folders: of the same name, the CSV."""
    found: dict[Path, str] = {}
    for pattern in _TABLES:
        for below in ("", "*/", "*/*/"):
            for path in Path(folder).glob(below + pattern):
                found[path.with_suffix("")] = str(path)
    return [found[stem] for stem in sorted(found)]


def _looked_for(root: str, others: Sequence[str]) -> list[str]:
    """The labelled part where no key names it: there is to be one."""
    if is_folder(os.path.join(root, _PROJECT)):
        tables = _tables(os.path.join(root, _PROJECT))
        if tables:
            return tables
    found = []
    for folder in (root, os.path.join(root, "annotations")):
        names = sorted(os.listdir(folder)) if is_folder(folder) else []
        for name in names:
            path = os.path.join(folder, name)
            ending = os.path.splitext(name)[1].lower()
            if ending not in _ENDINGS:
                continue
            if path not in others and reading.format_of(path) not in ("", boxes.NAME):
                found.append(path)
    if len(found) != 1:
        told = ", ".join(os.path.relpath(path, root) for path in found) or "none"
        raise DataError(
            f"data.photos.labelled: {len(found)} annotation files in {root!r} "
            f"({told}), not one. Name the one whose labels are to be learnt, relative "
            f"to data.dir; read are {reading.FORMATS}"
        )
    return found


def _by_name(found: Poses, path: str) -> Poses:
    names = {image.file: os.path.basename(image.file) for image in found.images}
    if len(set(names.values())) < len(names):
        raise DataError(
            f"{path!r} names images by paths that are not there, and several have the "
            "same name: bring them into the folders that it names"
        )
    return Poses(
        skeleton=found.skeleton,
        images=tuple(
            dataclasses.replace(one, file=names[one.file]) for one in found.images
        ),
        instances=tuple(
            dataclasses.replace(one, file=names[one.file]) for one in found.instances
        ),
    )
