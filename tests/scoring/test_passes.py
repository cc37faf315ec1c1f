"""Passes over examples: blocks, order, what is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.pergrad.memory import compiled_bytes
from jalpose.runtime.throughput import Meter
from jalpose.scoring.passes import Passes, collect, example_keys, num_blocks
from jalpose.tasks.pose import losses
from jalpose.tasks.pose.skeletons import ABSENT
from jalpose.training.trainer import scale_images
from tests.support import small

IDS = np.array([3, 41, 7, 0, 99, 12, 55, 13, 90, 2, 60])  # two blocks of 8, 5 padding


@pytest.fixture
def walker():
    """Fresh passes over eight devices, nothing compiled yet."""
    return Passes(small.FLAT, small.TASK, mesh=small.mesh(8), threads=2)


class Counted:
    """A pass that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, variables, rows):
        self.traces += 1
        found = {"id": rows["id"], "mean": rows["image"].astype(jnp.float32).mean((1,))}
        if "context" in rows:
            found["context"] = rows["context"]["number"]
        return found


def walk(walker, fn, ids=IDS, block=8, meter=None, **options):
    meter, examples = meter or Meter(), small.examples()
    found = walker.walk(fn, {}, examples, ids, block=block, meter=meter, **options)
    return list(found)


def test_a_walk_keeps_order_and_removes_padding(walker):
    blocks = walk(walker, Counted())
    assert [len(block["id"]) for block in blocks] == [8, 3]
    found = collect(blocks)
    np.testing.assert_array_equal(found["id"], IDS)
    images = small.crops(IDS)["image"].astype(np.float32)
    np.testing.assert_allclose(found["mean"], images.mean(axis=1), rtol=1e-5)
    assert all(isinstance(value, np.ndarray) for value in found.values())


@pytest.mark.parametrize("start", [0, 1, 8, 10])
def test_a_walk_begins_where_it_is_told(walker, start):
    def context(positions):
        return {"number": 10 * positions}

    found = collect(walk(walker, Counted(), start=start, context=context))
    np.testing.assert_array_equal(found["id"], IDS[start:])
    np.testing.assert_array_equal(found["context"], 10 * np.arange(start, len(IDS)))


def test_context_is_asked_for_positions_that_exist(walker):
    asked = []

    def context(positions):
        asked.append(positions)
        return {"number": IDS[positions]}

    found = collect(walk(walker, Counted(), context=context))
    np.testing.assert_array_equal(found["context"], found["id"])
    assert [len(positions) for positions in asked] == [8, 8]  # padded to the block
    assert asked[1].tolist() == [8, 9, 10, 10, 10, 10, 10, 10]


def test_a_pass_is_compiled_once_for_several_walks(walker):
    fn = Counted()
    walk(walker, fn)
    first = fn.traces
    walk(walker, fn)
    walk(walker, fn, ids=IDS[:3])
    walk(walker, fn, start=9)
    assert first >= 1 and fn.traces == first
    walk(walker, fn, block=16)  # another shape is another program
    assert fn.traces > first


def test_another_function_is_another_program(walker):
    first, second = Counted(), Counted()
    walk(walker, first)
    walk(walker, second)
    assert second.traces >= 1


def test_compiled_bytes_are_counted_and_the_peak_kept(walker):
    meter = Meter()
    assert meter.peak_bytes == 0
    walk(walker, Counted(), meter=meter)
    peak = meter.peak_bytes
    # At least the images of one device's part of a block.
    assert peak >= 32 * 32 * 3
    walk(walker, Counted(), block=64, meter=meter)
    assert meter.peak_bytes > peak
    peak = meter.peak_bytes
    walk(walker, Counted(), block=8, meter=meter)
    assert meter.peak_bytes == peak


def test_what_goes_through_is_counted_by_whoever_asks(walker):
    fn, first, second = Counted(), Meter(), Meter()
    walk(walker, fn, meter=first)
    walk(walker, fn, ids=IDS[:3], meter=second)
    assert first.scoring.take()["images"] == len(IDS)
    assert second.scoring.take()["images"] == 3
    assert not first.training.take()["images"]


def test_passes_of_one_network_serve_every_dataset_of_its_task(walker):
    fn, other = Counted(), small.load_figures(small.configure().data, 5)
    walk(walker, fn)
    before = fn.traces
    examples, options = small.examples(other), {"block": 8, "meter": Meter()}
    found = collect(walker.walk(fn, {}, examples, IDS, **options))
    images = np.stack([other.crop(i, 32) for i in IDS]).astype(np.float32)
    np.testing.assert_allclose(found["mean"], images.mean(axis=1), rtol=1e-5)
    assert fn.traces == before


def test_labels_are_read_only_where_they_may_be_seen(walker):
    def keys(variables, rows):
        seen.append(sorted(rows))
        return {"id": rows["id"]}

    seen = []
    for labels in (True, False):
        examples, options = small.examples(labels=labels), {"block": 8}
        list(walker.walk(keys, {}, examples, IDS, meter=Meter(), **options))
    assert seen[0] == ["id", "image", "label"] and seen[-1] == ["id", "image"]
    variables, examples = small.flat_variables(), small.examples(labels=False)
    blocks = walker.walk(
        walker.describe, variables, examples, IDS[:3], block=8, meter=Meter()
    )
    assert set(collect(blocks)) == {"embedding", "joints", "peaks"}


def test_a_test_may_stand_in_the_way_of_a_block():
    names = []

    def run_block(fn, run, variables, rows):
        names.append(fn)
        return run(variables, rows)

    mesh = small.mesh(8)
    passes = Passes(small.FLAT, small.TASK, mesh=mesh, threads=2, run_block=run_block)
    fn = Counted()
    assert len(collect(walk(passes, fn))["id"]) == len(IDS)
    assert names == [fn, fn]


def test_compiled_bytes_of_a_known_program():
    x = jax.ShapeDtypeStruct((1000,), jnp.float32)
    compiled = jax.jit(lambda x: x + 1).lower(x).compile()
    assert compiled_bytes(compiled) >= 8000  # 4,000 in, 4,000 out


def test_compiled_bytes_are_zero_where_the_backend_does_not_say():
    class Silent:
        def memory_analysis(self):
            return None

    assert compiled_bytes(Silent()) == 0


@pytest.mark.parametrize(
    ("count", "block", "blocks"), [(0, 8, 0), (1, 8, 1), (8, 8, 1), (9, 8, 2)]
)
def test_num_blocks(count, block, blocks):
    assert num_blocks(count, block) == blocks


def test_example_keys_depend_on_key_and_id_alone():
    key = jax.random.key(1)
    draws = jax.jit(jax.vmap(jax.random.uniform))
    found = np.asarray(draws(example_keys(key, IDS)))
    np.testing.assert_array_equal(
        draws(example_keys(key, IDS[::-1].copy())), found[::-1]
    )
    np.testing.assert_array_equal(draws(example_keys(key, IDS[4:5])), found[4:5])
    assert len(set(found.tolist())) == len(IDS)
    other = draws(example_keys(jax.random.key(2), IDS))
    assert not np.any(np.asarray(other) == found)


def test_describe_equals_direct_application(walker):
    variables = small.flat_variables()
    blocks = walker.walk(
        walker.describe, variables, small.examples(), IDS, block=8, meter=Meter()
    )
    found, rows = collect(blocks), small.crops(IDS)
    label = rows["label"]
    output = small.flat_apply(variables, scale_images(rows["image"]))
    decode, render = jax.jit(small.TASK.decode), jax.jit(small.SPEC.render)
    loss_of = jax.jit(losses.heatmap_loss)
    np.testing.assert_allclose(found["embedding"], output.embedding, rtol=1e-4)
    for i in range(len(IDS)):
        present = label["status"][i] != ABSENT
        said = decode(output.prediction[i])
        np.testing.assert_allclose(found["joints"][i], said["joints"], atol=1e-2)
        peaks = found["peaks"][i]
        np.testing.assert_allclose(peaks, said["peaks"], rtol=1e-4, atol=1e-5)
        target = render(label["joints"][i], present)
        loss = loss_of(output.prediction[i], target, present)
        np.testing.assert_allclose(found["loss"][i], loss, rtol=1e-4)
