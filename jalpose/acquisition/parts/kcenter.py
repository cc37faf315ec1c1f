"""k-centre greedy: cover a pool of points with a budget of new centres.

Each step takes the point farthest from all centres so far and makes it one (Gonzalez
1985; Algorithm 1 of Sener & Savarese, ICLR 2018). The radius that is left is at most
twice the smallest possible.

Both loops, over the centres there are and over the choices, are compiled programs, the
pool split over the devices. Distances are
Euclidean and always of differences, one centre against the pool at a time: the product
form a^2 - 2ab + b^2 would be faster for the centres there are at the start, but it
cancels where points lie close together, and equal distances would no longer tie. What
is held is the pool and a distance for each of its rows, never a matrix of distances;
and of the centres a block on each device.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jalpose.runtime import sharding

CENTRES_AT_ONCE = 2**14  # on each device
_CHECKED_ROWS = 4096  # at a time


class Cover(NamedTuple):
    """A choice of new centres.

    Attributes:
      order: int64 [budget], rows of the pool in the order they were chosen.
      distances: float32 [budget], from each to the nearest centre before it; never
        rising but for rounding.
      nearest: float32 [M], from each row to the nearest centre before the choice.
      radius: the largest distance from a row to its nearest centre after it.
    """

    order: np.ndarray
    distances: np.ndarray
    nearest: np.ndarray
    radius: float


def greedy(
    embeddings: np.ndarray,
    centres: np.ndarray,
    budget: int,
    *,
    ids: np.ndarray,
    centre_ids: np.ndarray | None = None,
    mesh=None,
    chunk: int = 1024,
) -> Cover:
    """Choose `budget` rows of the pool, each the farthest from all centres before it.

    Ties go to the lowest id. A row is chosen once, even where no row is away from the
    centres any more: then the rest is chosen by id. Neither the order of the rows nor
    the number of devices changes a choice, the latter but for distances that differ by
    less than float32 rounds (about 1e-6 of them).

    Args:
      embeddings: [M, C], the pool; used as float32.
      centres: [L, C], where centres are already; at least one, since the first choice
        would otherwise be arbitrary.
      budget: from 1 to M.
      ids: int [M], distinct; of the rows of the pool, for ties and messages.
      centre_ids: int [L], for messages.
      mesh: the pool is split over its devices; None: all there are.
      chunk: rows in a block, whose distances to a centre are computed together: small
        enough for a cache, and padding is up to one block a device.

    Raises:
      ValueError: shapes that do not fit, no centres, ids twice, a budget beyond M.
      FloatingPointError: an embedding is NaN or infinite; names the ids.
    """
    pool, centres = np.asarray(embeddings, np.float32), np.asarray(centres, np.float32)
    ids = np.asarray(ids)
    _check(pool, centres, budget, ids, chunk)
    centre_ids = np.arange(len(centres)) if centre_ids is None else centre_ids
    largest = max(
        check_finite(pool, ids, "pool"), check_finite(centres, centre_ids, "centres")
    )
    # A power of two that brings all numbers to at most 1, so that no square overflows:
    # it rounds nothing, and equal distances stay equal.
    exponent = int(np.frexp(largest)[1])
    mesh = sharding.make_mesh() if mesh is None else mesh
    by_id = np.argsort(ids)
    part, nearest = _blocks(mesh, pool, by_id, exponent, chunk)
    for start in range(0, len(centres), CENTRES_AT_ONCE):
        some = centres[start : start + CENTRES_AT_ONCE]
        if start:  # one shape for one compilation; a centre twice changes nothing
            some = np.pad(some, ((0, CENTRES_AT_ONCE - len(some)), (0, 0)), "edge")
        some = sharding.replicate(mesh, np.ldexp(some, -exponent))
        nearest = approach(mesh)(some, part[0], nearest)
    found = choice(mesh, budget)(part, nearest)
    order, sq_distances, sq_nearest, sq_radius = sharding.to_host(found)
    nearest = np.empty(len(pool), np.float32)
    nearest[by_id] = _unscaled(sq_nearest.reshape(-1)[: len(pool)], exponent)
    return Cover(
        order=by_id[order],
        distances=_unscaled(sq_distances, exponent),
        nearest=nearest,
        radius=float(_unscaled(sq_radius, exponent)),
    )


def _nearer(nearest, blocks, centre):
    """Squared distances [T, chunk], where `centre` [C] is another to be near to."""
    steps = blocks - centre[None, :, None]
    return jnp.minimum(nearest, jnp.sum(jnp.square(steps), axis=1))


@functools.cache
def approach(mesh):
    """The compiled loop over centres: jitted, of (centres, blocks, nearest).

    Takes centres [L, C], whole on each device, and what is split over the devices:
    blocks of the pool [T, C, chunk] and squared distances [T, chunk] to the nearest
    centre before, which it returns with these centres too.
    """

    def nearest_of(centres, blocks, nearest):
        return jax.lax.fori_loop(
            0, len(centres), lambda i, near: _nearer(near, blocks, centres[i]), nearest
        )

    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names[0])
    return jax.jit(
        jax.shard_map(
            nearest_of, mesh=mesh, in_specs=(whole, split, split), out_specs=split
        )
    )


@functools.cache
def choice(mesh, budget: int):
    """The compiled loop over choices: jitted, of ((blocks, padding), nearest).

    All split over the devices: blocks of the pool [T, C, chunk], ordered by id; bool
    [T, chunk], which of their columns are padding; squared distances [T, chunk] to the
    nearest centre. Returns positions int32 [budget] among T * chunk, the squared
    distances [budget] and [T, chunk] and the squared radius, whole on each.
    """
    axis = mesh.axis_names[0]

    def choose_all(part, before):
        blocks, padding = part
        chunk, num_rows = padding.shape[1], padding.size

        def choose(i, state):
            nearest, taken, order, sq_distances = state
            # Less than any distance, so that nothing is chosen a second time.
            left = jnp.where(taken, -1, nearest).reshape(-1)
            here = jnp.argmax(left)  # the first of equals, which is the lowest id
            tops = jax.lax.all_gather(left[here], axis)
            device = jnp.argmax(tops)
            mine = jax.lax.axis_index(axis) == device
            block, row = here // chunk, here % chunk
            # From the device that has it to all; adding zeros changes nothing.
            centre = jax.lax.psum(jnp.where(mine, blocks[block, :, row], 0), axis)
            position = jax.lax.psum(jnp.where(mine, here, 0), axis)
            taken = taken.at[block, row].set(taken[block, row] | mine)
            order = order.at[i].set((device * num_rows + position).astype(jnp.int32))
            sq_distances = sq_distances.at[i].set(tops[device])
            return _nearer(nearest, blocks, centre), taken, order, sq_distances

        empty = jnp.zeros(budget, jnp.int32), jnp.zeros(budget, jnp.float32)
        after, _, order, sq_distances = jax.lax.fori_loop(
            0, budget, choose, (before, padding, *empty)
        )
        radius = jax.lax.pmax(jnp.max(jnp.where(padding, 0, after)), axis)
        before = jax.lax.all_gather(before, axis, tiled=True)
        return order, sq_distances, before, radius

    split = PartitionSpec(axis)
    return jax.jit(
        jax.shard_map(
            choose_all,
            mesh=mesh,
            in_specs=split,
            out_specs=PartitionSpec(),
            check_vma=False,
        )
    )


def _blocks(mesh, pool, by_id, exponent, chunk):
    """The pool in blocks [T, C, chunk], scaled, ordered by id, and what is padding;
    and the squared distances where there are no centres.

    All split over the devices, and made one device's part after the other: beside
    them the host holds no more than that of what may be mapped from a disk.

    Features come before rows, so that sums over features run along whole vectors: on
    a CPU several times faster than along each row.
    """
    num_blocks = -(-len(pool) // (chunk * mesh.size)) * mesh.size

    def blocks(numbers):
        part = np.zeros((len(numbers), pool.shape[1], chunk), np.float32)
        for block, number in zip(part, numbers, strict=True):
            rows = pool[by_id[number * chunk : (number + 1) * chunk]]
            np.ldexp(rows.T, -exponent, out=block[:, : len(rows)])
        return part

    def padding(numbers):
        return numbers[:, None] * chunk + np.arange(chunk)[None] >= len(pool)

    def far(numbers):
        return np.full((len(numbers), chunk), np.inf, np.float32)

    split = functools.partial(sharding.split_by_part, mesh, num_blocks)
    return (split(blocks), split(padding)), split(far)


def _unscaled(sq_distances, exponent):
    return np.ldexp(np.sqrt(sq_distances), exponent)


def _check(pool, centres, budget, ids, chunk) -> None:
    if pool.ndim != 2 or centres.ndim != 2 or pool.shape[1] != centres.shape[1]:
        raise ValueError(
            f"embeddings and centres must be [M, C] and [L, C], got {pool.shape} and "
            f"{centres.shape}"
        )
    if not len(centres):
        raise ValueError(
            "there are no centres to be far from: k-centre greedy starts from labelled "
            "examples. Label some at random first"
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
