"""One mesh over all devices; batches split along it, everything else replicated.

Of several hosts each puts its own rows of a batch on its own devices; `part_of` says
which those are.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


class Part(NamedTuple):
    """The rows of every batch that this host holds.

    Attributes:
      rows: of a batch, padding included, a multiple of the number of devices.
      first: of this host's rows.
      here: how many they are.
    """

    rows: int
    first: int
    here: int


def make_mesh(devices=None) -> Mesh:
    """A one-dimensional mesh over `devices`, or over all there are, host by host."""
    devices = jax.devices() if devices is None else devices
    ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(ordered), (AXIS,))


def part_of(mesh: Mesh, batch: int) -> Part:
    """What this host holds of a batch of `batch` rows, filled up for the devices."""
    rows = -(-batch // mesh.size) * mesh.size
    here = [d.process_index == jax.process_index() for d in mesh.devices.flat]
    each = rows // mesh.size
    return Part(rows, here.index(True) * each, sum(here) * each)


def split(mesh: Mesh, tree):
    """Put host arrays on the devices, first axis split over the mesh.

    The arrays hold the rows of this host, see `part_of`: of one host, all.
    """
    placement = NamedSharding(mesh, PartitionSpec(AXIS))
    if jax.process_count() == 1:
        return jax.device_put(tree, placement)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(placement, np.asarray(x)), tree
    )


def split_by_part(mesh: Mesh, length: int, make):
    """An array split over the mesh, each device's part made just before it gets it.

    Args:
      mesh: its devices; this process makes the parts of its own alone.
      length: of the first axis, a multiple of their number.
      make: rows int64 [n] -> numpy [n, ...], those rows of the array.
    """
    parts, count = [], length // mesh.size
    for number, device in enumerate(mesh.devices.flat):
        if device.process_index == jax.process_index():
            rows = np.arange(number * count, (number + 1) * count)
            # No name, and waited for: no two parts are on the host at once.
            part = jax.device_put(make(rows), device)
            parts.append(jax.block_until_ready(part))
    return jax.make_array_from_single_device_arrays(
        (length, *parts[0].shape[1:]), NamedSharding(mesh, PartitionSpec(AXIS)), parts
    )


def replicate(mesh: Mesh, tree):
    """Put a tree on every device whole; every host gives the same."""
    placement = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, placement)

    def put(leaf):
        if isinstance(leaf, jax.core.Tracer):  # only its shape is asked for
            return leaf
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, placement)
        return jax.make_array_from_process_local_data(placement, np.asarray(leaf))

    return jax.tree.map(put, tree)


def per_device(mesh: Mesh, fn):
    """Run `fn(whole, part)` on each device's part of the batch alone.

    `whole` is replicated; `part` and what `fn` returns are split along their first
    axis. Written per device (`shard_map`) since the gradients of convolutions taken
    example by example do not partition well by themselves.
    """
    whole, part = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
        fn, mesh=mesh, in_specs=(whole, part), out_specs=part, check_vma=False
    )


def to_host(tree):
    """Copy a tree of arrays that are whole on every device into numpy arrays."""
    return jax.tree.map(np.asarray, tree)
