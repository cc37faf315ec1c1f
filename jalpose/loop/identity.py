"""What a run's data were when it began: `<workdir>/examples.npz`.

Examples are known by their place in the dataset, so a run that goes on with other data
would buy what it has bought, and learn labels of other images. It is refused instead.

    keys      bytes [N]    names of the examples
    sums      uint32 [N]   of name, file, label and crop window
    images    uint64 [N]   digests of the image files, 0 where they are not known
    parts     int8 [N]     1 labelled at the start, 2 in the pool, 3 tested on, else 0
"""

import zipfile
from pathlib import Path

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.storage import records

FILE = "examples.npz"
_WORDS = {
    "sums": "its label, file or crop window is another",
    "images": "its image is another",
    "parts": "it is labelled, in the pool or tested on otherwise",
}


def describe(dataset: Dataset) -> dict[str, np.ndarray]:
    """Arrays of the file for a dataset."""
    parts = np.zeros(len(dataset.keys), np.int8)
    for part, ids in enumerate((dataset.initial, dataset.pool, dataset.test), 1):
        parts[ids] = part
    images = [int(digest[:16] or "0", 16) for digest in dataset.digests]
    return {
        "keys": np.array([key.encode() for key in dataset.keys], np.bytes_),
        "sums": dataset.checksums(),
        "images": np.array(images, np.uint64),
        "parts": parts,
    }


def write(workdir, dataset: Dataset) -> None:
    """Write down what the data of the run in `workdir` are."""
    records.write_npz(Path(workdir) / FILE, describe(dataset))


def written(workdir) -> bool:
    """Does a workdir say what its data were? One begun before this was written not."""
    return (Path(workdir) / FILE).is_file()


def difference(workdir, dataset: Dataset) -> str:
    """How a dataset differs from that of the run in `workdir`; "" where it does not.

    Names the first example and gives the count. Nothing is known of a workdir that does
    not say what its data were.

    Raises:
      WorkdirError: the file is damaged.
    """
    if not written(workdir):
        return ""
    path = Path(workdir) / FILE
    try:
        with np.load(path, allow_pickle=False) as archive:
            then = {name: archive[name] for name in ("keys", "sums", "images", "parts")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise records.WorkdirError(
            f"{path} is damaged: {error}. Remove it to go on without knowing whether "
            "the data are those the run began with"
        ) from error
    now = describe(dataset)
    shared = min(len(then["keys"]), len(now["keys"]))
    before, after = (
        {name: values[:shared] for name, values in side.items()} for side in (then, now)
    )
    known = (before["images"] != 0) & (after["images"] != 0)
    differs = {
        "keys": before["keys"] != after["keys"],
        "sums": before["sums"] != after["sums"],
        "images": known & (before["images"] != after["images"]),
        "parts": before["parts"] != after["parts"],
    }
    other = np.any(list(differs.values()), axis=0)
    longer = abs(len(then["keys"]) - len(now["keys"]))
    if not other.any() and not longer:
        return ""
    counts = f"{len(then['keys'])} examples then, {len(now['keys'])} now"
    if not other.any():
        side = then if len(then["keys"]) > shared else now
        return f"{counts}; the first that is not in both is {_text(side, shared)}"
    row = int(np.argmax(other))
    if differs["keys"][row]:
        what = f"there was {_text(then, row)}, now there is {_text(now, row)}"
    else:
        reason = next(words for name, words in _WORDS.items() if differs[name][row])
        what = f"of {_text(now, row)} {reason}"
    return (
        f"{int(other.sum()) + longer} examples differ ({counts}); the first is number "
        f"{row}: {what}"
    )


def _text(side: dict[str, np.ndarray], row: int) -> str:
    return side["keys"][row].decode()
