"""How often each check of labels against images speaks up on real sets: false alarms.

    python scripts/check_rates.py --data=DATA

DATA holds what is there of lsp/ and lspet/ as shipped, mpii/test_mpii.json with its
five images beside it, and coco/annotations/person_keypoints_val2017.json with
coco/val2017/. Every set is read by its reader, every image decoded strictly, and every
rule of `jalpose.tasks.pose.checks` held against it with each crop that the set allows.
A number above 0 is an alarm on what is right.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jalpose.data import images
from jalpose.data.source import DataError
from jalpose.tasks.pose import checks, lsp, mpii
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.examples import labelled_examples
from jalpose.tasks.pose.formats import coco
from jalpose.tasks.pose.windows import crop_windows

LABELS = "no label is impossible by itself (when it is read)"
IMAGES = "an image can be decoded to its end, strictly"


class Readable(NamedTuple):
    """A set: its labels, where a file is, sizes that it tells, images of nobody."""

    labels: Annotations
    path: Callable[[str], Path]
    told: np.ndarray | None = None
    others: tuple[str, ...] = ()


class Alarms(NamedTuple):
    """What was said of a set.

    Attributes:
      people: examples.
      images: of the set, those of nobody among them.
      spoken: by rule, how many examples its finding is of; of a rule that is of whole
        sets 1. Of `LABELS` 1 where the reader refuses, of `IMAGES` how many.
    """

    people: int
    images: int
    spoken: dict[str, int]


def main() -> None:
    """Print a table of rules and sets."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, type=Path)
    found = dict(measure(parser.parse_args().data))
    print(f"| rule | otherwise | {' | '.join(found)} |")
    print("|---|---|" + "---|" * len(found))
    for words in ("people", "images"):
        counts = [f"{getattr(alarms, words):,}" for alarms in found.values()]
        print(f"| {words} | | {' | '.join(counts)} |")
    for rule in (LABELS, IMAGES, *checks.RULES):
        refused = rule in (LABELS, IMAGES, *checks.REFUSED)
        words = checks.RULES.get(rule, rule)
        spoken = [str(alarms.spoken[rule]) for alarms in found.values()]
        kind = "refused" if refused else "warned of"
        print(f"| {words} | {kind} | {' | '.join(spoken)} |")


def measure(data: Path) -> Iterator[tuple[str, Alarms]]:
    """Name and alarms of every set that is there."""
    for name, read in READERS.items():
        if (data / name).is_dir():
            yield name, alarms_of(name, lambda read=read: read(data))


def alarms_of(name: str, read: Callable[[], Readable]) -> Alarms:
    """Hold every rule against a set."""
    spoken = dict.fromkeys((LABELS, IMAGES, *checks.RULES), 0)
    try:
        labels, path, told, others = read()
    except DataError:
        return Alarms(0, 0, {**spoken, LABELS: 1})
    sizes, digests = {}, {}
    for file in dict.fromkeys((*labels.files, *others)):
        content = path(file).read_bytes()
        digests[file] = content
        try:
            about = images.check(content, what=file, advice="")
        except DataError:
            spoken[IMAGES] += 1
            about = images.facts(content, what=file, advice="")
        sizes[file] = about.width, about.height
    own = np.array([sizes[file] for file in labels.files])
    findings = checks.of_set(name, labels, own)
    for crop, window in (("joints", 1.75), ("box", 1.25), ("official", 1.25)):
        try:
            windows = crop_windows(labels, crop, window)
        except DataError:  # the set has no such boxes
            continue
        findings += checks.of_windows(name, labels.keys, windows, own)
    if told is not None:
        findings += checks.of_sizes(name, labels.keys, told, own)
    # No two images of a set are to be the same: each is a part by itself.
    firsts = {content: file for file, content in reversed(digests.items())}
    spoken["parts"] = len(digests) - len(firsts)
    for finding in findings:
        spoken[finding.rule] += max(len(finding.examples), 1)
    return Alarms(len(labels), len(sizes), spoken)


def _read_lsp(data: Path) -> Readable:
    return Readable(lsp.read_annotations("lsp", str(data)), lambda file: data / file)


def _read_lspet(data: Path) -> Readable:
    return Readable(lsp.read_annotations("lspet", str(data)), lambda file: data / file)


def _read_mpii(data: Path) -> Readable:
    labels = mpii.read_annotations(str(data), "test_mpii.json")
    return Readable(labels, lambda file: data / "mpii" / Path(file).name)


def _read_coco(data: Path) -> Readable:
    path = data / "coco" / "annotations" / "person_keypoints_val2017.json"
    poses = coco.read(path)
    found = labelled_examples(poses, "coco/val2017", name="coco", path=str(path))
    every = tuple(f"coco/val2017/{p.name}" for p in path.parents[1].glob("val2017/*"))
    return Readable(found.annotations, lambda file: data / file, found.sizes, every)


READERS = {
    "lsp": _read_lsp,
    "lspet": _read_lspet,
    "mpii": _read_mpii,
    "coco": _read_coco,
}


if __name__ == "__main__":
    main()
