"""k-centre greedy: cover a pool of points with a budget of new centres.

Each step takes the point farthest from all centres so far and makes it one (Gonzalez
1985; Algorithm 1 of Sener & Savarese, ICLR 2018). The radius that is left is at most
twice the smallest possible.

Both loops, over the centres there are and over the choices, are compiled, the
pool split over the devices (see `points`). What is held is the pool and a distance for
each of its rows, never a matrix of distances; and a block of centres on each device.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jalpose.acquisition.parts import points
from jalpose.runtime import sharding

CENTRES_AT_ONCE = 2**14  # on each device


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
    chunk: int = points.CHUNK,
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
    points.check_points(pool, centres, budget, ids, chunk)
    if not len(centres):
        raise ValueError(
            "there are no centres to be far from: k-centre greedy starts from labelled "
            "examples. Label some at random first"
        )
    centre_ids = np.arange(len(centres)) if centre_ids is None else centre_ids
    largest = max(
        points.check_finite(pool, ids, "pool"),
        points.check_finite(centres, centre_ids, "centres"),
    )
    laid = points.lay_out(pool, ids, largest=largest, mesh=mesh, chunk=chunk)
    nearest = laid.filled(np.inf, np.float32)
    for start in range(0, len(centres), CENTRES_AT_ONCE):
        some = centres[start : start + CENTRES_AT_ONCE]
        if start:  # one shape for one compilation; a centre twice changes nothing
            some = np.pad(some, ((0, CENTRES_AT_ONCE - len(some)), (0, 0)), "edge")
        some = sharding.replicate(laid.mesh, laid.scaled(some))
        nearest = approach(laid.mesh)(some, laid.blocks, nearest)
    found = choice(laid.mesh, budget)((laid.blocks, laid.padding), nearest)
    order, sq_distances, sq_nearest, sq_radius = sharding.to_host(found)
    return Cover(
        order=laid.by_id[order],
        distances=laid.distances(sq_distances),
        nearest=laid.distances(laid.of_rows(sq_nearest)),
        radius=float(laid.distances(sq_radius)),
    )


def _nearer(nearest, blocks, centre):
    """Squared distances [T, chunk], where `centre` [C] is another to be near to."""
    return jnp.minimum(nearest, points.squared_distances(blocks, centre))


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
