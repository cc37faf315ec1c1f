"""Norms on several devices, compiled once, and within the memory there is."""

import functools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jalpose.pergrad import api, memory
from jalpose.pergrad.api import Engine
from jalpose.pergrad.memory import largest_fitting, limit_bytes
from jalpose.runtime import sharding
from jalpose.runtime.throughput import Meter
from jalpose.scoring.passes import Passes
from jalpose.scoring.probe import Probe
from jalpose.storage.journal import Journal
from tests.support import small
from tests.support.networks import (
    Net,
    oracle_norms,
    random,
    square_loss,
    targets_for,
    variables_of,
)

# Not of groups: JAX has no gradient of theirs by `vmap` inside `shard_map`.
NET = Net(lambda m, x: nn.Dense(3)(jnp.tanh(nn.Conv(4, (3, 3), 2)(x))))
INPUTS = random(0, 8, 6, 6, 4)
VARIABLES = variables_of(NET, INPUTS)
TARGETS = targets_for(NET.apply, VARIABLES, INPUTS, 3)
WEIGHTS = np.random.default_rng(3).random((8, 3)).astype(np.float32)


# Eight devices.


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        Engine("ghost"),
        Engine("ghost", microbatch=1),
        Engine("exact"),
        Engine("sketch", passes=2, remainder=1),
    ],
    ids=["ghost", "one by one", "exact", "sketch"],
)
def test_eight_devices_have_the_norms_of_one(engine):
    # Compiled apart: what is split without a mesh XLA would partition by itself, and
    # its gradients by kernels, example by example, are then wrong.
    @functools.partial(jax.jit, static_argnums=0)
    def norms(devices, variables, inputs, targets, keys):
        return api.expected_squared_norm(
            engine,
            NET.apply,
            square_loss,
            variables,
            inputs,
            targets,
            WEIGHTS,
            keys=keys,
            by_tensor=True,
            mesh=small.mesh(devices) if devices else None,
        )

    arguments = VARIABLES, INPUTS, TARGETS, jax.random.split(jax.random.key(5), 8)
    one, eight = (norms(devices, *arguments) for devices in (0, 8))
    assert len(eight.total.sharding.device_set) == 8
    np.testing.assert_allclose(eight.total, one.total, rtol=1e-5)
    jax.tree.map(
        lambda ours, wanted: np.testing.assert_allclose(ours, wanted, rtol=1e-4),
        eight.by_tensor,
        one.by_tensor,
    )


def at_once(engine, mesh=None):
    """Norms under `jit`, all arrays arguments, the loss linear."""

    def inner(output, cotangent):
        return jnp.sum(output * cotangent)

    def norms(variables, inputs, cotangents):
        arguments = engine, NET.apply, inner, variables, inputs, cotangents
        return api.squared_norms(*arguments, mesh=mesh).total

    return norms


def meshes(*kinds):
    return [
        jax.make_mesh((8,), ("data",), axis_types=(kind,))
        for kind in kinds or AxisType
        if kind != AxisType.Manual
    ]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact", "ghost"])
@pytest.mark.parametrize("mesh", meshes(), ids=str)
def test_split_inputs_under_jit_are_found_without_the_mesh(engine, mesh):
    # XLA splits the gradients of convolutions by itself wrongly: 88 % off.
    def put(tree, *spec):
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))

    wanted = oracle_norms(NET.apply, VARIABLES, INPUTS, TARGETS)
    norms = jax.jit(at_once(engine))
    for arguments in (
        (VARIABLES, put(INPUTS, "data"), TARGETS),
        (put(VARIABLES), put(INPUTS, "data"), put(TARGETS, "data")),
        (put(VARIABLES), put(INPUTS), TARGETS),
    ):
        np.testing.assert_allclose(norms(*arguments), wanted, rtol=1e-4)
    # Three do not split over eight: each device does all of them.
    few = norms(put(VARIABLES), put(INPUTS[:3]), TARGETS[:3])
    np.testing.assert_allclose(few, wanted[:3], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact", "ghost"])
@pytest.mark.parametrize("mesh", meshes(), ids=str)
def test_axes_of_either_type_make_a_mesh(engine, mesh):
    wanted = oracle_norms(NET.apply, VARIABLES, INPUTS, TARGETS)
    split = jax.device_put(INPUTS, NamedSharding(mesh, PartitionSpec("data")))
    norms = jax.jit(at_once(engine, mesh))
    for inputs in (INPUTS, split):
        found = norms(VARIABLES, inputs, TARGETS)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", meshes(), ids=str)
def test_arrays_in_hand_over_axes_of_either_type(mesh):
    def apply_fn(variables, x):
        return x @ variables["params"]["w"]

    x, g = random(0, 8, 5), random(1, 8, 2, 3)
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    arguments = "ghost", apply_fn, {"params": {"w": random(2, 5, 3)}}
    found = api.cotangent_squared_norms(*arguments, split, g, mesh=mesh)
    wanted = np.sum(x**2, axis=1)[:, None] * np.sum(g**2, axis=2)
    np.testing.assert_allclose(found.total, wanted, rtol=1e-5)


def test_routes_of_inputs_split_over_explicit_axes():
    (mesh,) = meshes(AxisType.Explicit)
    split = jax.device_put(INPUTS, NamedSharding(mesh, PartitionSpec("data")))
    assert api.routes(NET.apply, VARIABLES, split) == api.routes(
        NET.apply, VARIABLES, INPUTS
    )


@pytest.mark.parametrize("engine", ["exact", "ghost"])
@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_a_shard_map_of_the_users_own(engine, check_vma):
    # Parameters are the same everywhere, and JAX would add up their gradients.
    def apply_fn(variables, x):
        p = variables["params"]
        return x @ p["w"] + p["b"][None]

    def norms(variables, x, cotangents):
        return api.cotangent_squared_norms(
            engine, apply_fn, variables, x, cotangents
        ).total

    (mesh,) = meshes(AxisType.Auto)
    part, whole = PartitionSpec("data"), PartitionSpec()
    split = jax.shard_map(
        norms,
        mesh=mesh,
        in_specs=(whole, part, part),
        out_specs=part,
        check_vma=check_vma,
    )
    x = np.sqrt(np.array([0, 1, 0, 3] * 2, np.float32))[:, None]
    variables = {"params": {"w": np.ones((1, 1), np.float32), "b": np.ones(1, "f")}}
    found = jax.jit(split)(variables, x, np.ones((8, 1, 1), np.float32))
    np.testing.assert_allclose(found[:, 0], [1, 2, 1, 4] * 2, rtol=1e-6)


@pytest.mark.parametrize("engine", ["exact", "ghost"])
def test_convolutions_inside_a_shard_map_of_the_users_own(engine):
    (mesh,) = meshes(AxisType.Auto)
    part, whole = PartitionSpec("data"), PartitionSpec()
    split = jax.shard_map(
        at_once(engine), mesh=mesh, in_specs=(whole, part, part), out_specs=part
    )
    wanted = oracle_norms(NET.apply, VARIABLES, INPUTS, TARGETS)
    found = jax.jit(split)(VARIABLES, INPUTS, TARGETS)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_network_that_splits_its_arrays_itself_is_refused_with_a_mesh():
    (mesh,) = meshes(AxisType.Auto)

    def apply_fn(variables, x):
        y = NET.apply(variables, x)
        return lax.with_sharding_constraint(y, NamedSharding(mesh, PartitionSpec()))

    with pytest.raises(ValueError, match=r"with_sharding_constraint.*leave it out"):
        api.squared_norms(
            "ghost", apply_fn, square_loss, VARIABLES, INPUTS, TARGETS, mesh=mesh
        )


# Traces.


def test_a_shape_is_traced_once():
    traces = []

    def apply_fn(variables, x):
        traces.append(x.shape)
        return NET.apply(variables, x)

    @jax.jit
    def norms(variables, inputs, targets):
        return api.squared_norms(
            "ghost", apply_fn, square_loss, variables, inputs, targets
        ).total

    first = norms(VARIABLES, INPUTS, TARGETS)
    assert traces and set(traces) == {(1, 6, 6, 4)}  # an example at a time
    count = len(traces)
    for step in range(3):
        moved = jax.tree.map(lambda leaf, step=step: leaf + step, VARIABLES)
        found = norms(moved, INPUTS[::-1], TARGETS[::-1])
    assert not np.allclose(found[::-1], first)
    assert len(traces) == count
    norms(VARIABLES, INPUTS[:4], TARGETS[:4])
    assert len(traces) > count


# Through the passes of a pool.

TRACES = []


def targets_of(row):
    TRACES.append(1)
    maps = row["number"] * jnp.linspace(0, 1, 6)[:, None, None, None]
    return maps * jnp.ones((6, 8, 8, 14)), jnp.ones((6, 14), bool)


def fresh_passes():
    """Passes with nothing compiled, over one device."""
    return Passes(small.FLAT, small.TASK, mesh=small.mesh(), threads=1)


IDS = np.arange(40, 57)


def probed(walker, engine, ids=IDS, memory=0.0, meter=None):
    probe = Probe(
        walker,
        small.flat_variables(),
        small.examples(labels=False),
        journal=Journal(),
        pieces=10**9,
        forward_block=8,
        gradient_block=8,
        engine=engine,
        memory=memory,
        meter=meter,
    )
    weights = np.full((len(ids), 6), 1 / 6, np.float32)

    def context(positions):
        return {"number": ids[positions].astype(np.float32)}

    return probe.squared_norms(targets_of, ids, weights, context)["norms"]


def test_pools_of_any_length_compile_once():
    walker, engine = fresh_passes(), Engine("ghost", microbatch=3)
    before = len(TRACES)
    block = probed(walker, engine, IDS[:8])
    traces = len(TRACES)
    assert traces > before
    for ids in (IDS[:3], IDS, np.concatenate([IDS, IDS[::-1]])):
        found = probed(walker, engine, ids)
        np.testing.assert_allclose(found[:3], block[:3], rtol=1e-5)
    assert len(TRACES) == traces


@pytest.mark.slow
def test_the_microbatch_fits_the_memory_and_changes_no_norm(monkeypatch):
    monkeypatch.setattr(memory, "CPU_MICROBATCH", 6)
    monkeypatch.setattr(memory, "_CACHED_BYTES", 0)
    single, largest, fitted = Meter(), Meter(), Meter()
    wanted = probed(fresh_passes(), Engine(microbatch=1), meter=single)
    assert single.microbatch == 0  # it was given, not found

    # With all the memory there is.
    found = probed(fresh_passes(), Engine(), meter=largest)
    assert largest.microbatch == 6 and largest.peak_bytes > single.peak_bytes
    np.testing.assert_allclose(found, wanted, rtol=1e-5)

    limit = (single.peak_bytes + largest.peak_bytes) // 2
    found = probed(fresh_passes(), Engine(), memory=limit / 2**30, meter=fitted)
    assert 1 <= fitted.microbatch < 6 and fitted.peak_bytes <= limit
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# The largest microbatch.


class Program:
    """A compiled program of so many bytes, half of them temporary."""

    def __init__(self, size):
        self.size = size

    def memory_analysis(self):
        class Analysis:
            argument_size_in_bytes = self.size - self.size // 2
            output_size_in_bytes = 7
            temp_size_in_bytes = self.size // 2
            alias_size_in_bytes = 7

        return Analysis


def fitting(bytes_at, most, limit):
    """(microbatch, all that were compiled)."""
    tried = []

    def compile_at(size):
        tried.append(size)
        return Program(bytes_at(size))

    compiled, size = largest_fitting(compile_at, most, limit)
    assert compiled.size == bytes_at(size) <= limit
    return size, tried


def line(size):
    return 100 + 10 * size


@pytest.mark.parametrize(
    ("most", "limit", "size", "tried"),
    [
        (30, 400, 30, [30]),  # just fits
        (30, 399, 29, [30, 1, 2, 29]),
        (30, 145, 4, [30, 1, 2, 4]),
        (30, 125, 2, [30, 1, 2, 2]),
        (30, 119, 1, [30, 1, 2]),
        (2, 115, 1, [2, 1]),
        (1, 110, 1, [1]),
    ],
)
def test_what_a_line_allows_is_compiled(most, limit, size, tried):
    assert fitting(line, most, limit) == (size, tried)


def test_where_the_line_promises_too_much_less_is_taken():
    # 101, 104, ..., by the line 31 would fit in 200, but 10 does.
    size, tried = fitting(lambda size: 100 + size**2, 100, 200)
    assert tried[:4] == [100, 1, 2, 34] and 6 < size <= 10
    # Nothing beyond one fits at all.
    size, tried = fitting(lambda size: 100 + (size > 2) * 900, 64, 200)
    assert size == 1 or size == 2


def test_where_memory_does_not_grow_most_is_cut_down_until_it_fits():
    size, tried = fitting(lambda size: 100 if size < 20 else 300, 64, 200)
    assert tried[:4] == [64, 1, 2, 63] and 14 < size < 20


@pytest.mark.parametrize("most", [1, 2, 30])
def test_what_does_not_fit_at_all_is_an_error(most):
    with pytest.raises(
        MemoryError,
        match=r"one gradient at a time needs 110 MiB .* the limit is 100 MiB",
    ):
        fitting(lambda size: line(size) * 2**20, most, 100 * 2**20)


def test_a_backend_that_does_not_say_is_taken_at_its_word():
    class Silent:
        def memory_analysis(self):
            return None

    assert largest_fitting(lambda size: Silent(), 12, 1)[1] == 12


def test_the_limit_is_what_a_device_reports_or_half_of_what_is_free():
    class Device:
        platform = "cpu"

        def __init__(self, stats):
            self.stats = stats

        def memory_stats(self):
            return self.stats

    assert limit_bytes(Device({"bytes_limit": 10_000})) == 9_000
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for device in (None, Device(None), Device({})):
        assert 0 < limit_bytes(device) <= pages / 2 / len(jax.devices())


@pytest.mark.slow
def test_inputs_split_over_devices_need_the_mesh():
    dense, inputs = nn.Dense(3), random(0, 8, 5)
    variables = variables_of(dense, inputs)
    targets = targets_for(dense.apply, variables, inputs, 2)
    arguments = dense.apply, square_loss, variables
    parts = sharding.split(small.mesh(8), inputs)
    with pytest.raises(ValueError, match="split over 8 devices: give the mesh"):
        api.squared_norms("exact", *arguments, parts, targets)
    whole = sharding.replicate(small.mesh(8), inputs[:1])
    assert api.squared_norms("exact", *arguments, whole, targets[:1]).total.all()


@pytest.mark.parametrize("engine", ["ghost", "exact"])
def test_what_in_shardings_split_is_right_or_refused(engine):
    mesh = small.mesh(8)
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))

    def norms(variables, inputs, targets):
        arguments = engine, NET.apply, square_loss, variables, inputs, targets
        return api.squared_norms(*arguments).total

    given = VARIABLES, INPUTS, TARGETS
    told = jax.jit(norms, in_shardings=(whole, split, split))
    if engine == "exact":
        with pytest.raises(ValueError, match="a jit for 8 devices, whose"):
            told(*given)
    else:
        np.testing.assert_allclose(told(*given), jax.jit(norms)(*given), rtol=1e-5)


def twice(module, x):
    layer = nn.Conv(4, (3, 3))
    return layer(layer(x))


def bent(module, x):
    """A kernel that goes by autodiff."""
    kernel = module.param("kernel", nn.initializers.normal(), (3, 3, x.shape[-1], 4))
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, jnp.sin(kernel), (1, 1), "SAME", dimension_numbers=numbers
    )


@pytest.mark.parametrize("body", [twice, bent])
def test_in_shardings_are_right_or_refused_where_kernels_have_no_plain_way(body):
    net, mesh = Net(body), small.mesh(8)
    variables = variables_of(net, INPUTS)
    targets = targets_for(net.apply, variables, INPUTS, 1)
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))

    def norms(inputs, targets):
        arguments = net.apply, square_loss, variables, inputs, targets
        return api.squared_norms("ghost", *arguments).total

    told = jax.jit(norms, in_shardings=(split, split))
    if body is twice:
        found, wanted = told(INPUTS, targets), jax.jit(norms)(INPUTS, targets)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        return
    with pytest.raises(ValueError, match="give the mesh"):
        told(INPUTS, targets)
