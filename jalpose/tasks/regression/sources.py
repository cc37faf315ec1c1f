"""Sets of rows by name, and which of their rows play which part."""

import dataclasses
import os

import numpy as np

from jalpose.data.dataset import Dataset, join_sources
from jalpose.data.source import DataError
from jalpose.runtime.seeds import stream_seed
from jalpose.tasks.regression import rows
from jalpose.tasks.regression.rows import Rows


def _csv(data) -> Rows:
    path = os.path.join(os.path.expanduser(data.dir), data.file)
    return rows.read_csv(path, data.target, tuple(data.inputs))


SOURCES = {
    "csv": _csv,
    "diabetes": lambda data: rows.diabetes(),
    "curve": lambda data: rows.curve(),
    "arm": lambda data: rows.arm(),
}


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of N rows.

    Attributes:
      keys: of the rows, `housing/000017`.
      files: the file of all.
    """

    keys: tuple[str, ...]
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


class RowSource:
    """Random access to rows, each input standardised.

    Args:
      found: the rows.
      inputs: float32 [N, F], standardised.

    Attributes:
      rows: the inputs; see `Dataset.rows`.
    """

    def __init__(self, found: Rows, inputs: np.ndarray):
        count = len(found.targets)
        keys = tuple(f"{found.name}/{number:06d}" for number in range(count))
        self.name, self.headings = found.name, found.headings
        self.annotations = Names(keys, (found.file,) * count)
        self.sizes = np.tile((inputs.shape[1], 1), (count, 1))
        self.rows = inputs

    def image(self, index: int) -> np.ndarray:
        """Row `index`: float32 [F]."""
        return self.rows[index]


def load_dataset(data, seed: int) -> Dataset:
    """Open the set `data.name`; `data` is the config section of that name.

    The test rows are the set's own, or drawn by `data.test_seed`, of the others those
    labelled at the start by the seed; what is left is the pool. Inputs are standardised
    by all rows but the test's.

    Raises:
      DataError: see `rows`; an input, or the target of what is labelled at the start,
        is constant; too few rows for the config.
    """
    found = SOURCES[data.name](data)
    count = len(found.targets)
    order = np.random.default_rng(data.test_seed).permutation(count)
    if found.test is None:
        split = max(1, round(data.test_share * count))
        test, others = np.sort(order[:split]), np.sort(order[split:])
    else:
        test, others = np.flatnonzero(found.test), np.flatnonzero(~found.test)
        split = len(test)
    test = test[: data.test or len(test)]
    draws = np.random.default_rng(stream_seed(seed, "initial"))
    others = draws.permutation(others)
    name = found.name.upper()
    _at_most("data.test", data.test, split, f"the test part of {name}")
    _at_most("data.initial", data.initial, len(others), f"what is left of {name}")
    initial, pool = np.sort(others[: data.initial]), np.sort(others[data.initial :])
    _at_most("data.pool", data.pool, len(pool), f"the pool of {name}")
    pool = pool[: data.pool or len(pool)]
    source = RowSource(found, _standardised(found, others))
    if not np.ptp(found.targets[initial]) > 0:
        raise DataError(
            f"the target of the {len(initial)} rows of {name} labelled at the start is "
            f"constant, {found.targets[initial[0]]:g}: there is nothing to learn. Name "
            "another column in data.target, or choose a larger data.initial"
        )
    if data.labelled == "all":
        initial, pool = np.concatenate([initial, pool]), pool[:0]
    return join_sources(
        [source],
        initial=initial,
        pool=pool,
        test=test,
        truth={"value": found.targets.astype(np.float32)},
        windows=None,
    )


def _standardised(found: Rows, others: np.ndarray) -> np.ndarray:
    """Inputs of mean 0 and deviation 1 over the rows that are not the test's."""
    seen = found.inputs[others]
    constant = np.ptp(seen, axis=0) == 0
    if constant.any():
        names = ", ".join(np.array(found.headings)[constant])
        raise DataError(
            f"{found.file}: the same number stands in every row as {names}, which says "
            "nothing and makes linear models singular: leave it out, by data.inputs"
        )
    return ((found.inputs - seen.mean(axis=0)) / seen.std(axis=0)).astype(np.float32)


def _at_most(key: str, value: int, limit: int, what: str) -> None:
    if value > limit:
        raise DataError(f"{key}={value}, but {what} has {limit} rows")
