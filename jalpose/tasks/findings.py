"""What looks wrong in the data of a task, and what follows of it.

`data.check` says what follows: "warn" refuses what cannot be and warns of what is
unlikely, "strict" refuses both, "off" looks at nothing.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data.inventory import spaced
from jalpose.data.source import DataError

CHECKS = ("warn", "strict", "off")  # values of `data.check`

_NAMED = 3  # examples in a message
_SAMPLE = 6  # examples of what is of a whole set
_OFF = "data.check=off goes on as it is"
_logger = logging.getLogger(__name__)


class Finding(NamedTuple):
    """Something that is wrong, or may be.

    Attributes:
      words: what, with examples and what to do.
      impossible: it cannot be right; a run is refused.
      examples: whom it is of: rows of the set, across parts ids; a sample where it is
        of a whole set, () where it is of no example.
      rule: the name of what is not as it should be; "" of what has no rule.
    """

    words: str
    impossible: bool = False
    examples: tuple[int, ...] = ()
    rule: str = ""


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
      files: their images; of one image there may be several examples.
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
            f"{listed(pairs)}. "
            + (
                "What is trained on is not to be tested on."
                if "test" in (one, two)
                else "Its label would be bought though it is there."
            ),
            examples=tuple(ids_of[one, two]),
            rule="parts",
        )
        for (one, two), pairs in twice.items()
    ]


def some(
    keys: Sequence[str],
    which: np.ndarray,
    words: Callable[[int, str], str],
    rule: str = "",
) -> Finding | None:
    """A finding of the examples `which`, if any: words of (how many, who)."""
    if not which.any():
        return None
    said = words(int(which.sum()), names(keys, which))
    return Finding(said, examples=rows(which), rule=rule)


def sample(which: np.ndarray) -> tuple[int, ...]:
    """Some of where a mask is true, evenly spaced: of what is of a whole set."""
    return tuple(spaced(np.flatnonzero(which), _SAMPLE).tolist())


def rows(which: np.ndarray) -> tuple[int, ...]:
    """Where a mask is true."""
    return tuple(np.flatnonzero(which).tolist())


def names(keys: Sequence[str], which: np.ndarray) -> str:
    """The first names under a mask, and how many more there are."""
    return listed([keys[row] for row in np.flatnonzero(which).tolist()])


def listed(found: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(found) - _NAMED
    return ", ".join(found[:_NAMED]) + (f" and {more} more" if more > 0 else "")
