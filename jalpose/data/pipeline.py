"""Batches and blocks of crops by example ids, through Grain."""

import itertools
import math
from collections.abc import Iterator, Mapping

import grain
import numpy as np

from jalpose.data.dataset import Dataset

EPOCHS = 2**31  # more than a training sees


class CropSource:
    """Random access to the crops of chosen examples, as Grain reads them.

    (Grain 0.2.18 slices by ranges only, so chosen ids are a source of their own.)

    Args:
      dataset: of the images.
      ids: int64 [n], example ids.
      size: of the crops, pixels.
      labels: of these crops, by name: arrays [n, ...]; None: images alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        ids: np.ndarray,
        size: int,
        labels: Mapping[str, np.ndarray] | None = None,
    ):
        self._dataset, self._ids, self._size = dataset, np.asarray(ids), size
        self._labels = labels

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        # Grain describes its sources in logs and checkpoints: keep it short.
        return f"CropSource({len(self)} examples, {self._size} px)"

    @property
    def in_memory(self) -> bool:
        """Are all of them rows in memory, so that `take` has them at once?"""
        return self._dataset.in_memory(self._size)

    def take(self, positions: np.ndarray) -> dict:
        """Several examples at once, where all are `in_memory`, as batches have them.

        Args:
          positions: int64 [n].

        Returns:
          image float32 [n, F], id int64 [n], and label where labels were given.
        """
        ids = np.asarray(self._ids[positions], np.int64)
        rows = {"image": self._dataset.rows(ids, self._size), "id": ids}
        if self._labels is None:
            return rows
        label = {name: values[positions] for name, values in self._labels.items()}
        return {**rows, "label": label}

    def at(self, positions: np.ndarray) -> "CropSource":
        """The examples at these positions."""
        rows = np.asarray(positions, np.int64)
        labels = self._labels
        if labels is not None:
            labels = {name: values[rows] for name, values in labels.items()}
        return CropSource(self._dataset, self._ids[rows], self._size, labels)

    def __getitem__(self, position) -> dict:
        """An example: image uint8 [S, S, 3], id int64, and label, a dict of arrays,
        where labels were given.
        """
        example = int(self._ids[position])
        row = {
            "image": self._dataset.crop(example, self._size),
            "id": np.int64(example),
        }
        if self._labels is None:
            return row
        label = {name: values[position] for name, values in self._labels.items()}
        return {**row, "label": label}


class _Rows:
    """Rows `first` to `first + count` of each batch of an order, laid end to end; rows
    beyond the batch are copies of its last.
    """

    def __init__(self, order, batch: int, first: int, count: int):
        self._order, self._batch, self._first, self._count = order, batch, first, count

    def __len__(self) -> int:
        return len(self._order) // self._batch * self._count

    def __repr__(self) -> str:
        return f"_Rows({self._first}, {self._count} of {self._batch})"

    def __getitem__(self, position):
        number, row = divmod(int(position), self._count)
        row = min(self._first + row, self._batch - 1)
        return self._order[number * self._batch + row]


def training_batches(
    source: CropSource,
    *,
    batch: int,
    seed: int,
    position: int,
    threads: int,
    rows: tuple[int, int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches in an order shuffled anew each epoch by `seed`.

    Args:
      source: of the examples trained on; any number of them, one suffices.
      batch: examples a batch; a batch may reach over the end of an epoch.
      seed: of the order.
      position: batches already taken: where a resumed run goes on.
      threads: reading ahead.
      rows: first row of each batch to be read here, and how many; those beyond the
        batch are copies of its last. None: all.
    """
    # What is in memory needs no reading ahead: its order alone goes through Grain.
    read = range(len(source)) if source.in_memory else source
    # Grain 0.2.18 cannot batch an endless order by one: `len` overflows.
    order = grain.MapDataset.source(read).seed(seed).shuffle().repeat(EPOCHS)
    if rows not in (None, (0, batch)):
        first, count = rows
        order = grain.MapDataset.source(_Rows(order, batch, first, count))
        batch = count
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    iterator = iter(order.batch(batch).to_iter_dataset(options))
    iterator.set_state({"next_index": position})
    return map(source.take, iterator) if source.in_memory else iterator


def blocks_in_order(
    source: CropSource,
    *,
    block: int,
    threads: int,
    rows: tuple[int, int] | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """All examples once, in order: (number that count, block of fixed size).

    The last block is filled up with copies of its last example.

    Args:
      source: of the examples.
      block: examples at a time, on all hosts together.
      threads: reading ahead.
      rows: first row of each block to be read here, and how many: the blocks hold
        these rows alone. The number that count is of all. None: all rows.
    """
    total, (first, here) = len(source), rows or (0, block)
    starts = range(0, total, block)
    if here < block:
        # Of the last block what there is, and at least something to make copies of.
        places = [
            np.arange(min(start + first, total - 1), min(start + first + here, total))
            for start in starts
        ]
        source = source.at(np.concatenate([*places, []]))
    for start, found in zip(starts, _in_order(source, here, threads), strict=True):
        if (short := here - len(found["id"])) > 0:
            found = _each(
                lambda v: np.concatenate([v, np.repeat(v[-1:], short, axis=0)]), found
            )
        yield min(block, total - start), found


def _in_order(source, here: int, threads: int) -> Iterator[dict[str, np.ndarray]]:
    """All examples once, `here` at a time; at last what there is."""
    if source.in_memory:
        for start in range(0, len(source), here):
            yield source.take(np.arange(start, min(start + here, len(source))))
        return
    # Read a few together: what Grain 0.2.18 spends on an item grows with their number
    # in its buffer, up to a millisecond of each.
    few = math.gcd(here, 16)
    buffer = max(threads, 2 * here // few)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
    read = grain.MapDataset.source(source).batch(few).to_iter_dataset(options)
    yield from _joined(read, here // few)


def _joined(batches, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Each `count` batches laid end to end; of the last what there is."""
    batches = iter(batches)
    while parts := list(itertools.islice(batches, count)):
        yield _each(lambda *values: np.concatenate(values), *parts)


def _each(fn, *rows: dict) -> dict:
    """`fn` of the arrays of the same name, also of those in a dict below."""
    return {
        name: _each(fn, *(row[name] for row in rows))
        if isinstance(value, dict)
        else fn(*(row[name] for row in rows))
        for name, value in rows[0].items()
    }
