"""New centres one after the other: largest clusters, or draws by squared distance.

Every point belongs to its nearest centre. Two rules say which point is the next centre:

- `lcmd`, largest cluster, maximum distance (Holzmueller, Zaverkin, Kaestner, Steinwart,
  "A Framework and Benchmark for Deep Batch Active Learning for Regression", JMLR 24,
  2023, section 4): of the cluster whose squared distances sum to the most, the farthest
  point.
- `kmeanspp`, k-means++ (Arthur & Vassilvitskii, SODA 2007): a point drawn with
  probability proportional to its squared distance to its nearest centre.

Labelled examples are centres from the beginning, as that paper's mode TP has it;
without any, its mode P, the first is the point farthest from the origin. As k-centre
greedy (`kcenter`) they are compiled loops, the pool split over the devices, and what is
held is the pool, a distance and a cluster for each of its rows.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jalpose.acquisition.parts import kcenter, points
from jalpose.runtime import sharding

RULES = ("lcmd", "kmeanspp")
_LAST = -1e30  # of what is no longer away from a centre: after all that is


class Spread(NamedTuple):
    """A choice of new centres.

    Attributes:
      order: int64 [budget], rows of the pool in the order they were chosen.
      distances: float32 [budget], from each to the nearest centre before it; infinite
        of the first where there were none.
      nearest: float32 [M], from each row to the nearest centre before the choice.
      clusters: int64 [M], the centre each row is nearest to after it: the labelled are
        0 to L - 1, the chosen L to L + budget - 1.
      spread_before: mean squared distance to the nearest centre before the choice.
      spread: the same after it.
    """

    order: np.ndarray
    distances: np.ndarray
    nearest: np.ndarray
    clusters: np.ndarray
    spread_before: float
    spread: float


def spread(
    rule: str,
    embeddings: np.ndarray,
    centres: np.ndarray,
    budget: int,
    *,
    ids: np.ndarray,
    key: jax.Array | None = None,
    centre_ids: np.ndarray | None = None,
    mesh=None,
    chunk: int = points.CHUNK,
) -> Spread:
    """Choose `budget` rows of the pool by one of `RULES`.

    Ties go to the lowest id, and between clusters equally large to the farthest point
    of them all. A row is chosen once; where no row is away from its centre any more the
    rest is chosen by id. A draw depends on the key, the ids and the distances alone:
    neither the order of the rows nor the number of devices changes it, the latter but
    for distances and sums that differ by less than float32 rounds.

    Args:
      rule: of `RULES`.
      embeddings: [M, C], the pool; used as float32.
      centres: [L, C], where centres are already; L may be 0.
      budget: from 1 to M.
      ids: int [M], distinct; of the rows of the pool, for ties, draws and messages.
      key: of the draws of kmeanspp.
      centre_ids: int [L], for messages.
      mesh: the pool is split over its devices; None: all there are.
      chunk: rows in a block.

    Raises:
      ValueError: an unknown rule, shapes that do not fit, ids twice, a budget beyond M,
        draws without a key.
      FloatingPointError: an embedding is NaN or infinite; names the ids.
    """
    pool, centres = np.asarray(embeddings, np.float32), np.asarray(centres, np.float32)
    ids = np.asarray(ids)
    if rule not in RULES:
        raise ValueError(f"{rule=} must be one of {', '.join(RULES)}")
    if rule == "kmeanspp" and key is None:
        raise ValueError("the draws of kmeanspp need a key")
    points.check_points(pool, centres, budget, ids, chunk)
    centre_ids = np.arange(len(centres)) if centre_ids is None else centre_ids
    largest = max(
        points.check_finite(pool, ids, "pool"),
        points.check_finite(centres, centre_ids, "centres"),
    )
    laid = points.lay_out(pool, ids, largest=largest, mesh=mesh, chunk=chunk)
    mesh = laid.mesh
    nearest, owner = laid.filled(np.inf, np.float32), laid.filled(0, np.int32)
    step = kcenter.CENTRES_AT_ONCE
    for start in range(0, len(centres), step):
        some = centres[start : start + step]
        if start:  # one shape for one compilation; the last again changes nothing
            some = np.pad(some, ((0, step - len(some)), (0, 0)), "edge")
        some = sharding.replicate(mesh, laid.scaled(some))
        first = np.int32(start)
        nearest, owner = approach(mesh)(some, first, laid.blocks, nearest, owner)
    draws = _draws(laid, ids, key if rule == "kmeanspp" else jax.random.key(0))
    found = choice(mesh, rule, budget, len(centres))(
        (laid.blocks, laid.padding, draws), nearest, owner
    )
    order, sq_distances, before, after, clusters = sharding.to_host(found)
    before, after = laid.of_rows(before), laid.distances(laid.of_rows(after))
    return Spread(
        order=laid.by_id[order],
        distances=laid.distances(sq_distances),
        nearest=laid.distances(before),
        # Padding of blocks of centres repeats the last of them, under later numbers.
        clusters=laid.of_rows(clusters).astype(np.int64),
        spread_before=float(np.mean(np.square(laid.distances(before), dtype=float))),
        spread=float(np.mean(np.square(after, dtype=float))),
    )


def _draws(laid: points.Points, ids, key):
    """Random numbers of the rows, uint32 [T, chunk, 2]: key data folded with the id."""
    chunk = laid.padding.shape[1]
    by_id = np.asarray(ids)[laid.by_id]

    def part(numbers):
        rows = (numbers[:, None] * chunk + np.arange(chunk)).reshape(-1)
        own = by_id[np.minimum(rows, len(by_id) - 1)]
        data = np.asarray(_key_data(key, own.astype(np.uint32)))
        return data.reshape(len(numbers), chunk, 2)

    return sharding.split_by_part(laid.mesh, laid.num_blocks, part)


@jax.jit
def _key_data(key, ids):
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.random.key_data(fold(key, ids))


@functools.cache
def approach(mesh):
    """The compiled loop over centres there are: jitted.

    Takes centres [L, C] and the number of the first, whole on each device, and what is
    split over the devices: blocks [T, C, chunk], squared distances [T, chunk] to the
    nearest centre before, and which it was; returns the latter two with these too.
    """

    def nearest_of(centres, first, blocks, nearest, owner):
        def one(i, state):
            near, own = state
            return _nearer(near, own, blocks, centres[i], first + i)

        return jax.lax.fori_loop(0, len(centres), one, (nearest, owner))

    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names[0])
    return jax.jit(
        jax.shard_map(
            nearest_of,
            mesh=mesh,
            in_specs=(whole, whole, split, split, split),
            out_specs=(split, split),
        )
    )


def _nearer(nearest, owner, blocks, centre, number):
    """Squared distances and clusters, where `centre` [C] is another to be near to."""
    squared = points.squared_distances(blocks, centre)
    # An equally near centre that came before keeps its points.
    return jnp.minimum(nearest, squared), jnp.where(squared < nearest, number, owner)


@functools.cache
def choice(mesh, rule: str, budget: int, num_centres: int):
    """The compiled loop over choices: jitted, of ((blocks, padding, draws), ...).

    All split over the devices: blocks [T, C, chunk] by id; bool [T, chunk], which of
    their columns are padding; draws [T, chunk, 2]; squared distances and clusters
    [T, chunk] before. Returns positions int32 [budget] among T * chunk, their squared
    distances [budget], and [T, chunk] squared distances before and after and clusters
    after, whole on each.
    """
    axis = mesh.axis_names[0]

    def choose_all(part, before, owner):
        blocks, padding, draws = part
        chunk, num_rows = padding.shape[1], padding.size

        def size(nearest):  # of the vector, where there is no centre to be far from
            none = jnp.sum(jnp.square(blocks), axis=1)
            return jnp.where(jnp.isinf(nearest), none, nearest)

        def rank_lcmd(i, nearest, owner):
            del i
            own = jnp.where(padding, 0, size(nearest))
            sums = jax.ops.segment_sum(
                own.reshape(-1), owner.reshape(-1), num_centres + budget
            )
            sums = jax.lax.psum(sums, axis)
            # Sums that tie are one cluster: the number of a centre decides nothing.
            return jnp.where(sums[owner] >= jnp.max(sums), own, _LAST)

        def rank_draws(i, nearest, owner):
            del owner
            keys = jax.random.wrap_key_data(draws)
            fold = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))
            bumps = jax.vmap(jax.vmap(jax.random.gumbel))(fold(keys, i))
            # The largest of logarithms with Gumbel noise is a draw by the weights.
            drawn = jnp.where(nearest > 0, jnp.log(nearest) + bumps, _LAST)
            return jnp.where(jnp.isinf(nearest), size(nearest), drawn)

        rank = {"lcmd": rank_lcmd, "kmeanspp": rank_draws}[rule]

        def choose(i, state):
            nearest, owner, taken, order, sq_distances = state
            ranks = jnp.where(taken, -jnp.inf, rank(i, nearest, owner)).reshape(-1)
            here = jnp.argmax(ranks)  # the first of equals, which is the lowest id
            tops = jax.lax.all_gather(ranks[here], axis)
            device = jnp.argmax(tops)
            mine = jax.lax.axis_index(axis) == device
            block, row = here // chunk, here % chunk
            # From the device that has it to all; adding zeros changes nothing.
            centre = jax.lax.psum(jnp.where(mine, blocks[block, :, row], 0), axis)
            position = jax.lax.psum(jnp.where(mine, here, 0), axis)
            distance = jax.lax.psum(jnp.where(mine, nearest[block, row], 0), axis)
            taken = taken.at[block, row].set(taken[block, row] | mine)
            order = order.at[i].set((device * num_rows + position).astype(jnp.int32))
            sq_distances = sq_distances.at[i].set(distance)
            number = (num_centres + i).astype(jnp.int32)
            nearest, owner = _nearer(nearest, owner, blocks, centre, number)
            # A chosen point is its own centre, also where another lies in its place.
            own = owner[block, row]
            owner = owner.at[block, row].set(jnp.where(mine, number, own))
            return nearest, owner, taken, order, sq_distances

        empty = jnp.zeros(budget, jnp.int32), jnp.zeros(budget, jnp.float32)
        after, owner, _, order, sq_distances = jax.lax.fori_loop(
            0, budget, choose, (before, owner, padding, *empty)
        )
        whole = functools.partial(jax.lax.all_gather, axis_name=axis, tiled=True)
        return order, sq_distances, whole(before), whole(after), whole(owner)

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
