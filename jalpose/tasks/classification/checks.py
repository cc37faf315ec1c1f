"""Classes and the images they are of: what is unlikely.

What follows, see `jalpose.tasks.findings`. What cannot be, as a label out of range, is
refused where a set is read.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.tasks.classification.annotations import classes_of
from jalpose.tasks.findings import Finding, listed, of_parts, rows


def of_dataset(dataset: Dataset) -> list[Finding]:
    """What is unlikely in a data set, of example ids."""
    parts = {"labelled": dataset.initial, "pool": dataset.pool, "test": dataset.test}
    labels, digests = dataset.truth["class"], dataset.digests
    return [
        *of_parts(parts, dataset.keys, dataset.files, digests),
        *of_copies(np.concatenate(list(parts.values())), labels, dataset.keys, digests),
        *of_repeats(parts, dataset.keys, digests),
        *of_classes(parts, labels, classes_of(dataset)),
    ]


def of_copies(
    ids: np.ndarray, labels: np.ndarray, keys: Sequence[str], digests: Sequence[str]
) -> Iterator[Finding]:
    """Findings of images that are there more than once with different classes.

    Args:
      ids: of the examples to look at.
      labels: int32 [N], of all ids, -1 where nobody knows.
      keys: names of all.
      digests: of the images' bytes, "" where they are not known.
    """
    torn = [
        (one, two)
        for one, two in _equal(ids, digests)
        if labels[one] != labels[two] and min(labels[one], labels[two]) >= 0
    ]
    if torn:
        yield Finding(
            f"{len(torn)} images are there twice with different classes: "
            f"{_pairs(keys, torn)}. One of the two labels is wrong.",
            examples=tuple(example for pair in torn for example in pair),
            rule="two classes",
        )


def of_repeats(
    parts: Mapping[str, np.ndarray], keys: Sequence[str], digests: Sequence[str]
) -> Iterator[Finding]:
    """Findings of images that one part has more than once.

    Args:
      parts: name -> ids: of what is labelled, pool and test.
      keys: names of all.
      digests: of the images' bytes, "" where they are not known.
    """
    for part, ids in parts.items():
        pairs = _equal(ids, digests)
        if pairs:
            yield Finding(
                f"{len(pairs)} images are in the {part} part more than once: "
                f"{_pairs(keys, pairs)}. They weigh more than others there.",
                examples=tuple(example for pair in pairs for example in pair),
                rule="repeats",
            )


def _equal(ids: np.ndarray, digests: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of the same bytes: the first of them and each that follows."""
    first: dict[str, int] = {}
    found = []
    for example in ids.tolist():
        digest = digests[example]
        if digest and first.setdefault(digest, example) != example:
            found.append((first[digest], example))
    return found


def of_classes(
    parts: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]
) -> Iterator[Finding]:
    """Findings of classes that a part has no example of.

    Args:
      parts: name -> ids: of what is labelled, pool and test.
      labels: int32 [N], of all ids, -1 where nobody knows.
      classes: their names.
    """
    if not any(map(len, parts.values())):
        return
    there = {
        part: np.bincount(labels[ids][labels[ids] >= 0], minlength=len(classes)) > 0
        for part, ids in parts.items()
    }
    labelled, pool, test = there["labelled"], there["pool"], there["test"]
    for rule, bare, words in (
        (
            "nowhere",
            ~(labelled | pool | test),
            "have no example in any part: nothing is learnt",
        ),
        (
            "not learnt",
            ~labelled & ~pool & test,
            "are tested on, and have no example that is labelled or in the pool: they "
            "cannot be learnt",
        ),
        (
            "not at the start",
            ~labelled & pool,
            "have no example that is labelled at the start: they are first learnt when "
            "chosen (data.balanced=True labels some of each)",
        ),
        (
            "not tested",
            (labelled | pool) & ~test,
            "have no example in the test set: how well they are learnt is not measured",
        ),
    ):
        named = [f"{classes[number]!r}" for number in rows(bare)]
        if named:
            yield Finding(
                f"{len(named)} of {len(classes)} classes {words}: {listed(named)}.",
                rule=rule,
            )
    unknown = parts["test"][labels[parts["test"]] < 0]
    if len(unknown):
        yield Finding(
            f"The class of {len(unknown)} of {len(parts['test'])} test images is not "
            "known: they are not scored.",
            examples=tuple(unknown.tolist()),
            rule="not known",
        )


def _pairs(keys: Sequence[str], pairs: Sequence[tuple[int, int]]) -> str:
    return listed([f"{keys[one]} and {keys[two]}" for one, two in pairs])
