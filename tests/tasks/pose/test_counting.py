"""Which joints count: one rule, in everything that learns, measures and chooses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.acquisition.method import Pool
from jalpose.runtime.throughput import Meter
from jalpose.scoring.passes import Examples
from jalpose.scoring.probe import Probe
from jalpose.storage.journal import Journal
from jalpose.tasks.pose import counting
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE
from jalpose.training.trainer import scale_images
from tests.support import small

SIZE = 32
WAYS = pytest.mark.parametrize("occluded", [True, False])


def counts(label, occluded):
    """The rule, written out: bool [..., J]."""
    x, y = np.moveaxis(label["joints"], -1, 0)
    there = (x >= -0.5) & (x <= 31.5) & (y >= -0.5) & (y <= 31.5)
    allowed = (VISIBLE, OCCLUDED) if occluded else (VISIBLE,)
    return there & np.isin(label["status"], allowed)


@WAYS
def test_numpy_and_jax_agree(occluded):
    rng = np.random.default_rng(0)
    label = {
        "joints": rng.uniform(-12, 44, (200, 14, 2)).astype(np.float32),
        "status": rng.choice([VISIBLE, OCCLUDED, ABSENT], (200, 14)).astype(np.int8),
    }
    # On the rim of the outermost pixels, and just beyond.
    label["joints"][0, :4] = [(-0.5, 0), (31.5, 31.5), (31.6, 3), (3, -0.6)]
    wanted = counts(label, occluded)
    assert 0.1 < wanted.mean() < 0.5
    rule = functools.partial(counting.counted, occluded=occluded, size=SIZE)
    found = rule(label["joints"], label["status"])
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, wanted)
    found = jax.jit(rule)(label["joints"], label["status"])
    np.testing.assert_array_equal(found, wanted)
    task = dataclasses.replace(small.TASK, occluded=occluded)
    np.testing.assert_array_equal(jax.vmap(task.present)(label), wanted)


@functools.cache
def context(occluded):
    return small.flat_context({"training.occluded": occluded})


def slow_losses(ids, occluded):
    """Loss of each example, and which of its joints count, one by one."""
    rows = small.crops(ids)
    apply, render = small.flat_apply, jax.jit(small.SPEC.render)
    maps = apply(small.flat_variables(), scale_images(rows["image"])).prediction
    maps, label = np.asarray(maps, np.float64), rows["label"]
    present = counts(label, occluded)
    found = np.zeros(len(ids))
    for n in range(len(ids)):
        target = np.asarray(render(label["joints"][n], present[n]))
        each = np.square(maps[n] - target).mean(axis=(0, 1, 2))
        found[n] = each[present[n]].mean() if present[n].any() else 0
    return found, present


@WAYS
def test_losses_held_out_tested_and_true_are_of_what_counts(occluded):
    found, data = context(occluded), small.dataset()
    variables = small.flat_variables()
    labelled = found.true_labels(data.initial)
    held_out = data.initial[data.held_out(data.initial)]
    loss = found.plan.heldout_loss(variables, labelled)
    assert loss == pytest.approx(slow_losses(held_out, occluded)[0].mean(), rel=1e-4)

    metrics, arrays = found.evaluator.evaluate(found.passes, variables, Meter())
    losses, present = slow_losses(data.test, occluded)
    np.testing.assert_allclose(arrays["test_losses"], losses, rtol=1e-4)
    assert metrics["test_loss"] == pytest.approx(losses.mean(), rel=1e-4)
    status = small.labels_of(data, data.test)["status"]
    assert (present != (status != ABSENT)).any() != occluded

    probe = found.probe(variables, Journal())
    ids = data.pool[:8]
    true = probe.describe(ids)["loss"]
    np.testing.assert_allclose(true, slow_losses(ids, occluded)[0], rtol=1e-4)


@WAYS
@pytest.mark.parametrize("labels", ["annotated", "predicted"])
def test_labels_of_neighbours_have_the_joints_that_count(occluded, labels):
    found, data = context(occluded), small.dataset()
    labelled = found.true_labels(data.initial)
    probe = Probe(
        found.passes,
        small.flat_variables(),
        Examples(data),
        journal=Journal(),
        pieces=10**9,
        forward_block=8,
        gradient_block=8,
        engine=found.engine,
    )
    method = EglPlusPlus(perplexity=2.0, neighbours=4, labels=labels)
    near = method.candidates(probe, Pool(data.pool[:6], labelled))
    wanted = counts(small.labels_of(data, data.initial), occluded)
    for m in range(6):
        row = {name: values[0] for name, values in near.context(np.array([m])).items()}
        _, present = near.targets_fn(row)
        np.testing.assert_array_equal(present, wanted[near.rows[m]])


@WAYS
def test_a_label_in_which_nothing_counts_is_not_known_to_either_half(occluded):
    found, data = context(occluded), small.dataset()
    label = small.labels_of(data, data.pool[:8])
    status = label["status"].copy()
    status[0], status[1] = OCCLUDED, ABSENT
    status[2] = OCCLUDED
    status[2, 5] = VISIBLE
    joints = label["joints"].copy()
    joints[3] += 2 * SIZE
    joints[0] = 9.0
    label = {"joints": joints, "status": status}
    known = found.labels.known(label)
    assert known[:4].tolist() == [occluded, False, True, False]
    targets = jax.vmap(found.task.target)(label)
    np.testing.assert_array_equal(jax.vmap(found.task.known)(targets), known)


def test_joints_moved_out_of_the_crop_count_nowhere():
    data, task = small.dataset(), small.TASK
    label = small.labels_of(data, data.pool[:4])
    inside = counts(label, True)
    away, absent = label["joints"].copy(), label["status"].copy()
    away[:, ::2] += (SIZE, 0)
    absent[:, ::2] = ABSENT
    moved = {"joints": away, "status": label["status"]}
    gone = {"joints": label["joints"], "status": absent}
    np.testing.assert_array_equal(counts(gone, True), inside & (np.arange(14) % 2 == 1))
    maps = np.random.default_rng(0).normal(size=(4, 2, 8, 8, 14)).astype(np.float32)

    @jax.jit
    def seen(label):
        targets = jax.vmap(task.target)(label)
        said = jax.vmap(task.predicted_target)(maps, label)
        losses = jax.vmap(task.loss)(maps, targets)
        return targets, losses, said[1], jax.vmap(task.errors)(maps, label)[2]

    found, wanted = seen(moved), seen(gone)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert not jnp.any(found[0][1][:, ::2])
    known = context(True).labels.known
    nothing = {"joints": away + SIZE, "status": label["status"]}
    assert not known(nothing).any() and known(moved).all()
