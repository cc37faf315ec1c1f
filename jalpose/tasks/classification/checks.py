"""Classes and the images they are of: what is unlikely.

What follows, see `jalpose.tasks.findings`. What cannot be, as a label out of range, is
refused where a set is read.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.tasks.classification.annotations import classes_of
from jalpose.tasks.findings import Finding, listed, of_parts


def of_dataset(dataset: Dataset) -> list[Finding]:
    """What is unlikely in a data set, of example ids."""
    parts = {"labelled": dataset.initial, "pool": dataset.pool, "test": dataset.test}
    labels, digests = dataset.truth["class"], dataset.digests
    used = np.concatenate(list(parts.values()))
    return [
        *of_parts(parts, dataset.keys, dataset.files, digests),
        *of_copies(used, labels, dataset.keys, digests),
        *of_classes(parts, labels, classes_of(dataset)),
    ]


def of_copies(
    ids: np.ndarray, labels: np.ndarray, keys: Sequence[str], digests: Sequence[str]
) -> Iterator[Finding]:
    """Findings of images that are there more than once.

    Args:
      ids: of the examples to look at.
      labels: int32 [N], of all ids, -1 where nobody knows.
      keys: names of all.
      digests: of the images' bytes, "" where they are not known.
    """
    first: dict[str, int] = {}
    torn: list[str] = []
    torn_ids: list[int] = []
    for example in ids.tolist():
        digest = digests[example]
        other = first.setdefault(digest, example)
        if not digest or other == example:
            continue
        one, two = int(labels[other]), int(labels[example])
        if one != two and min(one, two) >= 0:
            torn.append(f"{keys[other]} and {keys[example]}")
            torn_ids += [other, example]
    if torn:
        yield Finding(
            f"{len(torn)} images are there twice with different classes: "
            f"{listed(torn)}. One of the two labels is wrong.",
            examples=tuple(torn_ids),
        )


def of_classes(
    parts: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]
) -> Iterator[Finding]:
    """Findings of classes that a part has no example of.

    Args:
      parts: name -> ids: of what is labelled, pool and test.
      labels: int32 [N], of all ids, -1 where nobody knows.
      classes: their names.
    """
    counts = {
        part: np.bincount(labels[ids][labels[ids] >= 0], minlength=len(classes))
        for part, ids in parts.items()
    }
    everywhere = np.sum(list(counts.values()), axis=0)
    for part, words in (
        ("labelled", "is labelled at the start: they are first learnt when chosen"),
        ("test", "is in the test set: how well they are learnt is not measured"),
    ):
        bare = [
            f"{name!r}"
            for name, there, own in zip(classes, everywhere, counts[part], strict=True)
            if there and not own
        ]
        if bare and len(parts[part]):
            yield Finding(
                f"{len(bare)} of {len(classes)} classes have no example that {words} "
                f"({listed(bare)})."
            )
    unknown = parts["test"][labels[parts["test"]] < 0]
    if len(unknown):
        yield Finding(
            f"The class of {len(unknown)} of {len(parts['test'])} test images is not "
            "known: they are not scored.",
            examples=tuple(unknown.tolist()),
        )
