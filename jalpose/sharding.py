"""One mesh over all devices; batches split along it, everything else replicated."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh(devices=None) -> Mesh:
    """A one-dimensional mesh over `devices`, or over all there are."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


def split(mesh: Mesh, tree):
    """Put host arrays on the devices, first axis split over the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def replicate(mesh: Mesh, tree):
    """Put a tree on every device whole."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


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
    """Copy a tree of device arrays into numpy arrays."""
    return jax.tree.map(np.asarray, tree)
