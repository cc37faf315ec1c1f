"""What the checks of images and labels say of the real sets, and of spoilt copies.

    python scripts/check_data.py --data=DATA

DATA holds lsp/, lspet/ and, if there, mpii/ with five images and test_mpii.json, and
coco/ with val2017/ and annotations/person_keypoints_val2017.json. No image of theirs
should be refused and nothing said of their labels; of images cut and closed with an end
marker, or with 512 other bytes, and of labels spoilt in known ways as much as can be
seen. Needs a minute a core for 7,000 images.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np

from jalpose.data import images, jpeg
from jalpose.data.source import DataError
from jalpose.tasks.findings import Finding
from jalpose.tasks.pose import checks, lsp, mpii
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.examples import labelled_examples
from jalpose.tasks.pose.formats import coco
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE
from jalpose.tasks.pose.windows import crop_windows

EVERY = 20  # of the images that are spoilt


def main() -> None:
    """Check every set and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, type=Path)
    data = parser.parse_args().data
    digests: dict[str, dict[bytes, str]] = {}
    for name in ("lsp", "lspet"):
        labels = lsp.read_annotations(name, str(data))
        contents = [(data / file).read_bytes() for file in labels.files]
        digests[name] = dict(zip(contents, labels.keys, strict=True))
        sizes = check_images(name, contents)
        check_labels(name, labels, sizes)
        spoil_images(name, contents[::EVERY])
        spoil_labels(labels, sizes)
    shared = digests["lsp"].keys() & digests["lspet"].keys()
    print(f"images of both sets: {len(shared)}")
    if (data / "mpii" / "test_mpii.json").exists():
        labels = mpii.read_annotations(str(data), "test_mpii.json")
        paths = [data / "mpii" / Path(file).name for file in labels.files]
        check_people("mpii", labels, paths)
    people = data / "coco" / "annotations" / "person_keypoints_val2017.json"
    if people.exists():
        labels = labelled_examples(
            coco.read(people), "coco/val2017", name="coco", path=str(people)
        ).annotations
        check_people("coco", labels, [data / file for file in labels.files])


def check_people(name: str, labels: Annotations, paths: list[Path]) -> None:
    """Print what is said of a set with several people in an image."""
    found = list(dict.fromkeys(paths))
    contents = [path.read_bytes() for path in found]
    sizes = check_images(name, contents)
    spoil_images(name, contents)
    check_labels(name, labels, sizes[[found.index(path) for path in paths]])


def check_images(name: str, contents: list[bytes]) -> np.ndarray:
    """Print refusals and times of the images of a set: their sizes, int [N, 2]."""
    sizes, refused, seconds = [], 0, {"decoding": 0.0, "checking": 0.0}
    for content in contents:
        begun = time.process_time()
        found = images.facts(content, what=name, advice="")
        images.decode_rgb(content, what=name, advice="")
        seconds["decoding"] += time.process_time() - begun
        begun = time.process_time()
        refused += bool(jpeg.fault(content))
        seconds["checking"] += time.process_time() - begun
        sizes.append((found.width, found.height))
    each = ", ".join(
        f"{what} {1e3 * spent / len(contents):.2f} ms an image"
        for what, spent in seconds.items()
    )
    print(f"{name}: {refused} of {len(contents)} images refused; {each}")
    return np.array(sizes)


def check_labels(name: str, labels: Annotations, sizes: np.ndarray) -> None:
    """Print what is said of the labels of a set."""
    windows = crop_windows(labels, "joints", 1.75)
    found = checks.of_set(name, labels, sizes)
    found += checks.of_windows(name, labels.keys, windows, sizes)
    print(f"{name}: {len(found)} findings in the labels of {len(labels)}")
    joints, there = labels.joints, labels.status != ABSENT
    with np.errstate(invalid="ignore"):
        outside = ((joints < -0.5) | (joints > sizes[:, None] - 0.5)).any(axis=-1)
    worst = ((outside & there).sum(axis=1) / there.sum(axis=1)).max()
    box = (np.nanmax(joints, axis=1) - np.nanmin(joints, axis=1)).max(axis=1)
    least = (box / sizes.max(axis=1)).min()
    print(
        f"{name}: joints outside {(outside & there).sum() / there.sum():.4%}, of one "
        f"person at most {worst:.1%}; box at least {least:.3f}"
        f" of the image; occluded {(labels.status == OCCLUDED).sum() / there.sum():.1%}"
    )
    for finding in found:
        print(f"  {finding.words}")


def spoil_images(name: str, contents: list[bytes]) -> None:
    """Print how many images with holes, or cut and closed, are seen to be so.

    The data that are spoilt are those of all scans of a file.
    """
    draw = random.Random(0)
    counts: dict[str, list[int]] = {}
    for content in contents:
        start = content.index(b"\xff\xda")
        start += 2 + int.from_bytes(content[start + 2 : start + 4])
        end = len(content) - 2
        at = start + int((end - start) * draw.uniform(0.1, 0.9))
        spoilt = {"cut and closed": content[:at].rstrip(b"\xff") + b"\xff\xd9"}
        if end - start > 1200:
            room = end - start - 600
            at, other = (
                start + int(room * draw.uniform(*reach))
                for reach in ((0.1, 0.9), (0, 1))
            )
            for how, hole in (
                ("512 zero bytes", bytes(512)),
                ("512 bytes at random", draw.randbytes(512)),
                ("512 bytes from elsewhere in it", content[other : other + 512]),
            ):
                spoilt[how] = content[:at] + hole + content[at + 512 :]
        for how, bad in spoilt.items():
            count = counts.setdefault(how, [0, 0])
            count[1] += 1
            try:
                images.check(bad, what=name, advice="")
            except DataError:
                count[0] += 1
    for how, (seen, tried) in counts.items():
        print(f"{name}: {how}: {seen} of {tried} seen")


def spoil_labels(labels: Annotations, sizes: np.ndarray) -> None:
    """Print what is said of labels that are spoilt."""
    name, joints = labels.keys[0].partition("/")[0], labels.joints
    whole = joints.astype(np.float64)
    spoilt = {
        "doubled": whole * 2,
        "halved": whole / 2,
        "in shares of 1": whole / sizes[:, None],
        "in percent": 100 * whole / sizes[:, None],
        "x and y exchanged": whole[..., ::-1],
        "shifted by one image": np.roll(whole, 1, axis=0),
        "5,000 pixels out": whole + 5000,
    }
    for what, changed in spoilt.items():
        status = np.where(np.isnan(changed).any(axis=-1), ABSENT, labels.status)
        status = np.where((status == ABSENT) & ~np.isnan(changed[..., 0]), 1, status)
        bad = Annotations(
            keys=labels.keys,
            files=labels.files,
            joints=changed.astype(np.float32),
            status=status.astype(np.int8),
        )
        said = checks.of_set(name, bad, sizes)
        print(f"{name}: joints {what}: {in_short(said)}")
    if (labels.status == OCCLUDED).any():
        status = labels.status.copy()
        status[labels.status == VISIBLE] = OCCLUDED
        status[labels.status == OCCLUDED] = VISIBLE
        bad = Annotations(
            keys=labels.keys, files=labels.files, joints=joints, status=status
        )
        said = checks.of_set(name, bad, sizes)
        print(f"{name}: flags inverted: {in_short(said)}")


def in_short(said: list[Finding]) -> str:
    """By which rules something was found, and of how many examples."""
    each = [f"{finding.rule} ({len(finding.examples)})" for finding in said]
    return ", ".join(each) or "nothing"


if __name__ == "__main__":
    main()
