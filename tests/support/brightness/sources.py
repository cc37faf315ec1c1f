"""Squares of one brightness on a noisy ground, drawn from a seed."""

import dataclasses

import numpy as np

from jalpose.data.dataset import join_sources


@dataclasses.dataclass(frozen=True)
class Names:
    keys: tuple
    files: tuple

    def __len__(self):
        return len(self.keys)


class Squares:
    def __init__(self, count, seed, size):
        names = tuple(f"square/{i:04d}" for i in range(count))
        self.annotations, self._seed, self._size = Names(names, names), seed, size
        draws = np.random.default_rng([seed, 0])
        self.brightness = draws.random(count).astype(np.float32)

    def image(self, index):
        draws, size = np.random.default_rng([self._seed, 1, index]), self._size
        image = draws.integers(0, 60, (size, size, 3)).astype(np.uint8)
        row, column = draws.integers(0, size // 2, 2)
        image[row : row + size // 2, column : column + size // 2] = round(
            255 * float(self.brightness[index])
        )
        return image


def _squares(data, seed):
    total = data.initial + data.pool + data.test
    ids = np.arange(total)
    source = Squares(total, seed, data.size)
    return source, *np.split(ids, [data.initial, data.initial + data.pool])


SOURCES = {"squares": _squares}


def load_dataset(data, seed):
    source, initial, pool, test = SOURCES[data.name](data, seed)
    if data.labelled == "all":
        initial, pool = np.concatenate([initial, pool]), pool[:0]
    unknown = np.random.default_rng([seed, 2]).random(len(source.brightness))
    brightness = np.where(unknown < data.unlabelled, np.nan, source.brightness)
    return join_sources(
        [source],
        initial=initial,
        pool=pool,
        test=test,
        truth={"brightness": brightness.astype(np.float32)},
        windows=None,
    )
