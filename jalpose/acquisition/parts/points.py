"""Points of a pool laid out over the devices, for choices by their distances.

The pool is split over the devices in blocks small enough for a cache, ordered by id, so
that neither the order of its rows nor the number of devices changes a choice. Features
come before rows, so that sums over features run along whole vectors: on a CPU several
times faster than along each row. Distances are Euclidean and always of differences, one
centre against the pool at a time: the product form a^2 - 2ab + b^2 would be faster, but
it cancels where points lie close together, and equal distances would no longer tie.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jalpose.runtime import sharding

CHUNK = 1024  # rows in a block
_CHECKED_ROWS = 4096  # at a time


class Points(NamedTuple):
    """A pool on the devices.

    Attributes:
      blocks: float32 [T, C, chunk], rows by id, split over the devices, scaled by a
        power of two, as large as lets no sum of squares overflow: nothing is rounded,
        equal distances stay equal, and beside one huge number small ones are not lost.
      padding: bool [T, chunk], which of their columns are no rows; split too.
      by_id: int64 [M], rows of the pool by id.
      exponent: of that power of two.
      mesh: of the devices.
    """

    blocks: Any
    padding: Any
    by_id: np.ndarray
    exponent: int
    mesh: Any

    @property
    def num_blocks(self) -> int:
        """How many blocks there are, on all devices."""
        return self.padding.shape[0]

    def scaled(self, rows: np.ndarray) -> np.ndarray:
        """Other points in the pool's scale."""
        return np.ldexp(rows, -self.exponent)

    def distances(self, squared) -> np.ndarray:
        """Distances, of squared ones in the pool's scale."""
        return np.ldexp(np.sqrt(squared), self.exponent)

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        """Values [M] by row of the pool, of those [T, chunk] by block."""
        flat = values.reshape(-1)[: len(self.by_id)]
        found = np.empty(len(self.by_id), flat.dtype)
        found[self.by_id] = flat
        return found

    def filled(self, value, dtype) -> Any:
        """An array [T, chunk] of one value, split over the devices."""
        chunk = self.padding.shape[1]
        return sharding.split_by_part(
            self.mesh,
            self.num_blocks,
            lambda numbers: np.full((len(numbers), chunk), value, dtype),
        )


def lay_out(pool, ids, *, largest: float, mesh=None, chunk: int = CHUNK) -> Points:
    """Put a pool on the devices.

    One device's part is made after the other: beside them the host holds no more than
    that of what may be mapped from a disk.

    Args:
      pool: float32 [M, C].
      ids: int [M], distinct.
      largest: absolute value in the pool or whatever is to be measured against it.
      mesh: None: all devices.
      chunk: rows in a block; padding is up to one block a device.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    # Of differences twice as large, of all features and rows, the squares' sum is below
    # 2^127; those of what is 2^80 times smaller still have their digits.
    room = (124 - pool.size.bit_length()) // 2
    exponent, by_id = int(np.frexp(largest)[1]) - room, np.argsort(ids)
    num_blocks = -(-len(pool) // (chunk * mesh.size)) * mesh.size

    def blocks(numbers):
        part = np.zeros((len(numbers), pool.shape[1], chunk), np.float32)
        for block, number in zip(part, numbers, strict=True):
            rows = pool[by_id[number * chunk : (number + 1) * chunk]]
            np.ldexp(rows.T, -exponent, out=block[:, : len(rows)])
        return part

    def padding(numbers):
        return numbers[:, None] * chunk + np.arange(chunk)[None] >= len(pool)

    split = functools.partial(sharding.split_by_part, mesh, num_blocks)
    return Points(split(blocks), split(padding), by_id, exponent, mesh)


def squared_distances(blocks, centre):
    """Squared distances [T, chunk] of blocks [T, C, chunk] from a centre [C]."""
    steps = blocks - centre[None, :, None]
    return jnp.sum(jnp.square(steps), axis=1)


def check_points(pool, centres, budget, ids, chunk) -> None:
    """Raise ValueError for shapes that do not fit, ids twice, a budget beyond M."""
    if pool.ndim != 2 or centres.ndim != 2 or pool.shape[1] != centres.shape[1]:
        raise ValueError(
            f"embeddings and centres must be [M, C] and [L, C], got {pool.shape} and "
            f"{centres.shape}"
        )
    if ids.shape != pool.shape[:1] or len(np.unique(ids)) != len(ids):
        raise ValueError(
            f"ids must be {len(pool)} distinct numbers, got {len(np.unique(ids))} "
            f"distinct in an array of shape {ids.shape}"
        )
    if not 1 <= budget <= len(pool):
        raise ValueError(f"{budget=} must be from 1 to the pool's {len(pool)} rows")
    if chunk < 1:
        raise ValueError(f"{chunk=} must be at least 1")


def check_finite(embeddings, ids, name) -> float:
    """The largest absolute value of embeddings [M, C], in pieces; 0 of none.

    Raises:
      FloatingPointError: some are NaN or infinite; names their ids.
    """
    bad, largest = [], 0.0
    for start in range(0, len(embeddings), _CHECKED_ROWS):
        rows = np.abs(embeddings[start : start + _CHECKED_ROWS])
        top = float(rows.max(initial=0))  # NaN where any is
        if np.isfinite(top):
            largest = max(largest, top)
        else:
            bad += (start + np.flatnonzero(~np.isfinite(rows).all(axis=1))).tolist()
    if bad:
        listed = ", ".join(f"id {ids[i]}" for i in bad[:10])
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise FloatingPointError(
            f"the embedding of {len(bad)} of {len(ids)} examples ({name}) is NaN or "
            f"infinite: {listed}{more}. Weights that diverged, or an image with NaN"
        )
    return largest
