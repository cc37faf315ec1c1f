"""Passes over examples: blocks, order, what is compiled, and what is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.data.crops import from_crop
from jalpose.pergrad.memory import compiled_bytes
from jalpose.scoring.passes import Passes, collect, example_keys, num_blocks
from jalpose.tasks.pose import losses
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED
from jalpose.training.trainer import scale_images
from tests.support import small

IDS = np.array([3, 41, 7, 0, 99, 12, 55, 13, 90, 2, 60])  # two blocks of 8, 5 padding


@pytest.fixture
def walker():
    """Fresh passes over eight devices, nothing compiled yet."""
    return Passes(
        small.FLAT,
        small.dataset(),
        small.SPEC,
        refine="parabola",
        mesh=small.mesh(8),
        threads=2,
    )


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


def walk(walker, fn, ids=IDS, block=8, **options):
    return list(walker.walk(fn, {}, ids, block=block, **options))


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
    assert walker.peak_bytes == 0
    walk(walker, Counted())
    peak = walker.peak_bytes
    # At least the images of one device's part of a block.
    assert peak >= 32 * 32 * 3
    walk(walker, Counted(), block=64)
    assert walker.peak_bytes > peak
    peak = walker.peak_bytes
    walk(walker, Counted(), block=8)
    assert walker.peak_bytes == peak


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
    found = collect(walker.walk(walker.describe, variables, IDS, block=8))
    rows = small.crops(IDS)
    output = small.flat_apply(variables, scale_images(rows["image"]))
    decode, render = jax.jit(walker.decode), jax.jit(small.SPEC.render)
    loss_of = jax.jit(losses.heatmap_loss)
    np.testing.assert_allclose(found["embedding"], output.embedding, rtol=1e-4)
    for i in range(len(IDS)):
        present = rows["status"][i] != ABSENT
        joints, peaks = decode(output.heatmaps[i, -1])  # the last stack's
        np.testing.assert_allclose(found["joints"][i], joints, atol=1e-2)
        np.testing.assert_allclose(found["peaks"][i], peaks, rtol=1e-4, atol=1e-5)
        target = render(rows["joints"][i], present)
        loss = loss_of(output.heatmaps[i], target, present)
        np.testing.assert_allclose(found["loss"][i], loss, rtol=1e-4)


def slow_pck(problem, predicted, occluded, threshold):
    """PCK of predictions in image pixels, one joint after the other."""
    data = problem.dataset
    diagonals = data.skeleton.torso
    hits = {joint: [] for joint in data.skeleton.joints}
    images = 0
    for row, example in enumerate(data.test):
        joints, status = data.joints[example], data.status[example]
        lengths = [
            float(np.hypot(*(joints[a].astype(float) - joints[b].astype(float))))
            for a, b in diagonals
            if ABSENT not in (status[a], status[b])
        ]
        if not lengths:
            continue
        images += 1
        for j, name in enumerate(data.skeleton.joints):
            if status[j] == ABSENT or (status[j] == OCCLUDED and not occluded):
                continue
            away = np.hypot(*(predicted[row, j].astype(float) - joints[j]))
            hits[name].append(away < threshold * max(lengths))
    per_joint = {name: float(np.mean(found)) for name, found in hits.items()}
    return per_joint, images


@pytest.mark.parametrize("occluded", [True, False])
def test_evaluate_equals_a_slow_computation(occluded):
    threshold = 0.5  # so that an untrained network has hits
    changes = {"evaluation.threshold": threshold, "evaluation.occluded": occluded}
    problem = small.problem(changes)
    problem.passes = small.flat_passes()
    metrics, arrays = problem.evaluate(small.flat_variables())

    ids = problem.dataset.test
    rows = small.crops(ids)
    output = small.flat_apply(small.flat_variables(), scale_images(rows["image"]))
    decode = jax.jit(problem.passes.decode)
    joints = np.stack([decode(maps)[0] for maps in output.heatmaps[:, -1]])
    predicted = from_crop(joints, problem.dataset.windows[ids], 32)
    per_joint, images = slow_pck(problem, arrays["test_joints"], occluded, threshold)

    np.testing.assert_array_equal(arrays["test_ids"], ids)
    np.testing.assert_allclose(arrays["test_joints"], predicted, atol=0.05)
    assert metrics["pck_per_joint"] == pytest.approx(per_joint)
    assert metrics["pck"] == pytest.approx(np.mean(list(per_joint.values())))
    assert 0 < metrics["pck"] < 1
    assert metrics["num_images"] == images
    assert metrics["num_images"] + metrics["num_left_out"] == len(ids)
    assert metrics["pck_threshold"] == threshold
    assert metrics["test_loss"] == pytest.approx(arrays["test_losses"].mean(), rel=1e-6)
    assert 0 < metrics["mean_pose_pck"] < 1
