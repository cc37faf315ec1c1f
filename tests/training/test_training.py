"""Loss, schedules, the training step, and what is kept of a training."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.data import pipeline
from jalpose.loop.configs import default
from jalpose.models.hourglass import HourglassOptions
from jalpose.models.output import Output
from jalpose.runtime import sharding
from jalpose.runtime.throughput import Flow
from jalpose.tasks.pose import losses
from jalpose.tasks.pose.augment import NO_AUGMENTATION, Ranges
from jalpose.tasks.pose.heatmaps import HeatmapSpec
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED, VISIBLE
from jalpose.tasks.pose.task import PoseTask
from jalpose.training.optimisation import Optimisation
from jalpose.training.trainer import Trainer
from tests.support import small
from tests.support.small import FLAT

SIZE, BATCH = 32, 8
SPEC = HeatmapSpec(SIZE, SIZE // 4, 8.0, 30.0)  # sigma: one heatmap pixel
RANGES = Ranges((0.9, 1.1), 20.0, 0.05, 0.5, 0.1, 0.1, 0.1)
KEY = jax.random.key(5)


# The loss of one example.


def loss_data(stacks=2, joints=5, seed=0):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(stacks, 3, 4, joints)).astype(np.float32)
    target = rng.normal(size=(3, 4, joints)).astype(np.float32)
    present = np.arange(joints) % 2 == 0
    return maps, target, present


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        # Squared errors: joint 0 is 2 off everywhere, joint 1 is 4 off in one of
        # four pixels and exact in the others: 4 and 16 / 4 = 4 for stack one; stack
        # two is exact for joint 0 and the same for joint 1: means 2 and 4.
        ((True, True), 3.0),
        ((True, False), 2.0),
        ((False, True), 4.0),
        ((False, False), 0.0),
    ],
)
def test_loss_golden(present, expected):
    target = np.full((2, 2, 2), 7.0, np.float32)
    maps = np.stack([target, target])
    maps[0, :, :, 0] += 2
    maps[:, 1, 0, 1] -= 4
    loss = losses.heatmap_loss(maps, target, np.array(present))
    assert loss == expected
    assert loss.dtype == np.float32


def test_maps_of_absent_joints_change_nothing():
    maps, target, present = loss_data()
    loss = losses.heatmap_loss(maps, target, present)
    maps[..., ~present] = 1e3
    target[..., ~present] = -50
    assert losses.heatmap_loss(maps, target, present) == loss
    gradient = np.asarray(jax.grad(losses.heatmap_loss)(maps, target, present))
    assert (gradient[..., ~present] == 0).all()
    assert (gradient[..., present] != 0).all()


def test_joints_are_averaged_so_that_their_number_does_not_matter():
    maps, target, present = loss_data()
    loss = losses.heatmap_loss(maps, target, present)
    slow = [np.square(maps[..., j] - target[..., j]).mean() for j in (0, 2, 4)]
    assert loss == pytest.approx(np.mean(slow), rel=1e-5)
    # The same joints twice over, and some absent ones: the same loss and gradients
    # of the same length together.
    twice = [np.concatenate([a, a], axis=-1) for a in (maps, target, present)]
    assert losses.heatmap_loss(*twice) == pytest.approx(float(loss), rel=1e-5)
    gradient = jax.grad(losses.heatmap_loss)(*twice)
    single = jax.grad(losses.heatmap_loss)(maps, target, present)
    np.testing.assert_allclose(gradient[..., :5] + gradient[..., 5:], single, rtol=1e-5)


def test_no_joint_is_no_loss_and_no_gradient():
    maps, target, present = loss_data()
    none = np.zeros_like(present)
    assert losses.heatmap_loss(maps, target, none) == 0
    assert not np.asarray(jax.grad(losses.heatmap_loss)(maps, target, none)).any()


def test_stacks_may_have_targets_of_their_own():
    maps, target, present = loss_data()
    both = np.stack([target, target])
    assert losses.heatmap_loss(maps, both, present) == losses.heatmap_loss(
        maps, target, present
    )
    assert losses.heatmap_loss(maps, maps, present) == 0


def test_the_loss_of_bfloat16_maps_is_taken_in_float32():
    _, target, present = loss_data()
    maps = jnp.asarray(loss_data()[0], jnp.bfloat16)
    loss = losses.heatmap_loss(maps, target, present)
    assert loss.dtype == jnp.float32
    assert loss == losses.heatmap_loss(maps.astype(jnp.float32), target, present)


# Trainers.


def hourglass(dtype):
    options = HourglassOptions(
        stacks=1,
        channels=8,
        depth=1,
        dtype=dtype,
        convolution="native",  # compiled the fastest
    )
    return options.build(14)


def make_trainer(
    changes=None, *, model=FLAT, devices=None, ranges=RANGES, occluded=True
):
    """Of a network that compiles in no time: what is tested is the training."""
    config = default().training
    config.update({"batch": BATCH, "learning_rate": 0.01, **(changes or {})})
    mesh = sharding.make_mesh(jax.devices()[:devices])
    task = PoseTask(skeleton=LSP, spec=SPEC, ranges=ranges, occluded=occluded)
    return Trainer(model, task, Optimisation.of(config), mesh)


@pytest.fixture(scope="module")
def trainer():
    """On eight devices, constant learning rate, with augmentation."""
    return make_trainer({"schedule": "constant"})


@pytest.fixture(scope="module")
def variables(trainer):
    """New weights, as numpy: whoever trains them gets copies."""
    return sharding.to_host(trainer.init(jax.random.key(0)).variables)


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    status = rng.choice([VISIBLE, OCCLUDED, ABSENT], (BATCH, 14)).astype(np.int8)
    joints = rng.uniform(4, SIZE - 5, (BATCH, 14, 2)).astype(np.float32)
    joints[status == ABSENT] = 0
    return {
        "image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
        "label": {"joints": joints, "status": status},
        "id": np.arange(BATCH),
    }


def with_joints(batch, which, value):
    """A copy of a batch whose joints of that status are somewhere else."""
    label = batch["label"]
    joints = label["joints"].copy()
    joints[label["status"] == which] = value
    return {**batch, "label": {**label, "joints": joints}}


def run(trainer, state, batches, steps, total=100, key=KEY):
    """The state after `steps`, and the loss of each."""
    state, history = trainer.run(state, iter(batches), key, steps, total, flow=Flow())
    assert list(history) == ["loss"]
    return state, history["loss"]


def train(trainer, variables, batches, steps, total=100):
    return run(trainer, trainer.restart(variables), batches, steps, total)


def assert_trees_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


# Steps.


@pytest.mark.slow
def test_training_lowers_the_loss_and_changes_everything(trainer, variables):
    batch = make_batch()
    state, history = train(trainer, variables, itertools.repeat(batch), 20)
    assert history.shape == (20,)
    assert np.isfinite(history).all()
    assert history[-5:].mean() < 0.9 * history[:5].mean()
    assert int(state.step) == 20
    changed = jax.tree.map(
        lambda new, old: not np.array_equal(new, old), state.variables, variables
    )
    # All but the biases that a batch norm takes out again are certain to move.
    assert np.mean(jax.tree.leaves(changed)) > 0.9
    # Nothing was evaluated, so there is no best, and the last is what is left.
    assert np.isinf(state.best_loss)
    assert_trees_equal(trainer.chosen(state), state.variables)


def test_pieces_of_a_training_are_the_whole(trainer, variables):
    batches = [make_batch(seed) for seed in range(4)]
    whole, history = train(trainer, variables, batches, 4)
    state, first = train(trainer, variables, batches[:1], 1)
    state, rest = run(trainer, state, batches[1:], 3)
    assert np.array_equal(np.concatenate([first, rest]), history)
    assert_trees_equal(state, whole)


def test_the_key_decides_the_augmentation(trainer, variables):
    batch = make_batch()
    _, (loss,) = train(trainer, variables, [batch], 1)
    state = trainer.restart(variables)
    _, (other,) = run(trainer, state, [batch], 1, key=jax.random.key(6))
    assert loss != other


def test_absent_joints_have_no_part_in_training(trainer, variables):
    batch = make_batch()
    moved = with_joints(batch, ABSENT, 20.0)
    state, (loss,) = train(trainer, variables, [batch], 1)
    other, (same,) = train(trainer, variables, [moved], 1)
    assert loss == same
    assert_trees_equal(other.params, state.params)
    # A joint that is there has.
    moved = with_joints(batch, VISIBLE, 20.0)
    _, (different,) = train(trainer, variables, [moved], 1)
    assert loss != different


def test_the_reduction_on_a_plateau_scales_the_update(trainer, variables):
    batch = make_batch()
    full, _ = train(trainer, variables, [batch], 1)
    state = trainer.restart(variables)
    scale = sharding.replicate(trainer.mesh, np.float32(0.25))
    state = state.replace(plateau=state.plateau._replace(scale=scale))
    reduced, _ = trainer.run(state, iter([batch]), KEY, 1, 100, flow=Flow())

    def compare(a, b, old):
        a, b = np.asarray(a), np.asarray(b)
        # Of float32 differences of weights up to about 1.
        np.testing.assert_allclose(0.25 * (a - old), b - old, atol=5e-7)

    jax.tree.map(compare, full.params, reduced.params, variables["params"])


def test_a_state_is_spent_when_it_is_trained_on(trainer, variables):
    state = trainer.restart(variables)
    new, _ = trainer.run(state, iter([make_batch()]), KEY, 1, 100, flow=Flow())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_the_variables_a_training_starts_from_are_not_spent(trainer, variables):
    on_device = sharding.replicate(trainer.mesh, variables)
    train(trainer, on_device, [make_batch()], 1)
    assert_trees_equal(on_device, variables)


def test_new_weights_are_those_of_the_key(trainer, variables):
    other = trainer.init(jax.random.key(1)).params
    kernels = [p["stem"]["kernel"] for p in (other, variables["params"])]
    assert not np.array_equal(*kernels)
    assert np.std(kernels[0]) == pytest.approx(np.std(kernels[1]), rel=0.2)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(FLAT, id="flat"),
        pytest.param(hourglass("float32"), id="hourglass", marks=pytest.mark.slow),
    ],
)
def test_one_device_and_eight_take_the_same_first_steps(model):
    batches = [make_batch(seed) for seed in range(3)]
    changes = {"schedule": "constant"}
    together, alone = (make_trainer(changes, model=model, devices=d) for d in (8, 1))
    variables = sharding.to_host(together.init(jax.random.key(0)).variables)
    state, expected = train(together, variables, batches, 3)
    assert len(state.step.sharding.device_set) == 8
    state, history = train(alone, variables, batches, 3)
    assert len(state.step.sharding.device_set) == 1
    np.testing.assert_allclose(history, expected, rtol=1e-4)


class Half(nn.Module):
    """A layer of each kind, computed in bfloat16."""

    @nn.compact
    def __call__(self, images, train: bool = False) -> Output:
        x = nn.Conv(6, (4, 4), (4, 4), dtype=jnp.bfloat16)(images)
        x = nn.BatchNorm(not train, momentum=0.9, dtype=jnp.bfloat16)(x)
        maps = nn.Conv(14, (3, 3), dtype=jnp.bfloat16)(jnp.tanh(x))
        assert maps.dtype == jnp.bfloat16
        return Output(10 * maps[:, None], jnp.mean(x, axis=(1, 2)))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Half(), id="flat"),
        pytest.param(hourglass("bfloat16"), id="hourglass", marks=pytest.mark.slow),
    ],
)
def test_bfloat16_trains_float32_weights(model):
    options = {"model": model, "ranges": NO_AUGMENTATION, "devices": 1}
    half = make_trainer({"schedule": "constant"}, **options)
    variables = sharding.to_host(half.init(jax.random.key(0)).variables)
    state, history = train(half, variables, itertools.repeat(make_batch()), 15)
    assert np.isfinite(history).all()
    assert history[-1] < 0.95 * history[0]
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(state.variables))


def test_a_step_can_be_lowered_from_shapes(trainer):
    text = trainer.lower_step(16).as_text()
    assert f"tensor<16x{SIZE}x{SIZE}x3xui8>" in text


# The held-out loss.


def heldout_blocks(figures, ids):
    return pipeline.blocks_in_order(labelled_source(figures, ids), block=8, threads=2)


def labelled_source(figures, ids):
    labels = small.labels_of(figures, ids, SIZE)
    return pipeline.CropSource(figures, ids, SIZE, labels)


def test_heldout_loss_is_the_slow_loop(trainer, variables, figures):
    # 11 examples in blocks of 8: five rows of padding do not count.
    ids = figures.test[:11]
    source = labelled_source(figures, ids)
    apply, render = jax.jit(trainer.model.apply), jax.jit(SPEC.render)
    for occluded, counted in ((True, [VISIBLE, OCCLUDED]), (False, [VISIBLE])):
        values = []
        for n in range(len(source)):
            row = source[n]
            image = np.float32(row["image"][None]) / 255
            maps = np.asarray(apply(variables, image).prediction)[0]  # [S, h, w, J]
            label = row["label"]
            present = np.isin(label["status"], counted)
            target = np.asarray(render(label["joints"], present))
            each = np.square(maps - target).mean(axis=(0, 1, 2))
            values.append(each[present].mean())
        other = trainer if occluded else make_trainer(occluded=False)
        loss = other.heldout_loss(variables, heldout_blocks(figures, ids))
        assert loss == pytest.approx(np.mean(values), rel=1e-5)


# What is kept of a training.


def observe_all(trainer, state, values):
    """Observe losses one after another, with weights that count up from 0."""
    scales = []
    for number, loss in enumerate(values):
        params = jax.tree.map(
            lambda p, n=number: np.full(p.shape, n, np.float32), state.params
        )
        params = sharding.replicate(trainer.mesh, params)
        state = trainer.observe(state.replace(params=params), loss)
        scales.append(float(state.plateau.scale))
    return state, scales


def weight(tree):
    return float(jax.tree.leaves(tree)[0].ravel()[0])


@pytest.fixture(scope="module")
def plateau_trainer():
    changes = {
        "schedule": "plateau",
        "plateau_factor": 0.5,
        "plateau_patience": 2,
        "plateau_cooldown": 1,
        "plateau_min": 0.2,
    }
    return make_trainer(changes)


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([3.0, 2.0, 4.0], 1),
        ([3.0], 0),
        ([2.0, 2.0, 2.0], 0),  # only a lower loss is better
        ([3.0, 2.0, 1.0], 2),
        ([float("nan"), 2.0, 3.0], 1),
        ([2.0, float("nan"), 1.5, 3.0], 2),
    ],
)
def test_the_best_weights_are_kept(plateau_trainer, variables, values, best):
    state = plateau_trainer.restart(variables)
    state, _ = observe_all(plateau_trainer, state, values)
    assert state.best_loss == values[best]
    assert weight(state.best["params"]) == best
    assert weight(state.params) == len(values) - 1
    # Kept with the running statistics of the same time.
    assert_trees_equal(state.best["batch_stats"], variables["batch_stats"])
    assert weight(plateau_trainer.chosen(state)["params"]) == best


def test_the_last_weights_on_request_and_no_plateau_in_other_schedules(variables):
    changes = {"keep": "last", "schedule": "cosine", "plateau_patience": 1}
    trainer = make_trainer(changes)
    state = trainer.restart(variables)
    state, scales = observe_all(trainer, state, [3.0, 2.0, 4.0, 4.0])
    assert weight(trainer.chosen(state)["params"]) == 3
    assert scales == [1, 1, 1, 1]


def test_the_plateau_reduces_after_its_patience(plateau_trainer, variables):
    # The first of the equal losses is better than none. Three without a better one,
    # beyond a patience of two: halved; the next is cooldown and does not count; the
    # least is 0.2.
    state = plateau_trainer.restart(variables)
    _, scales = observe_all(plateau_trainer, state, [5.0] * 13)
    assert scales == pytest.approx(
        [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2, 0.2]
    )


def test_a_better_loss_ends_the_patience(plateau_trainer, variables):
    state = plateau_trainer.restart(variables)
    values = [5.0, 5.1, 5.2, 4.0, 4.1, 4.2, 3.0, 3.1, 3.2, 3.3]
    _, scales = observe_all(plateau_trainer, state, values)
    assert scales == [1] * 9 + [0.5]


def test_a_new_training_begins_without_memory(plateau_trainer, variables):
    state = plateau_trainer.restart(variables)
    state, _ = observe_all(plateau_trainer, state, [5.0] * 6)
    new = plateau_trainer.restart(plateau_trainer.chosen(state))
    assert float(new.plateau.scale) == 1
    assert np.isinf(new.best_loss)
    assert int(new.step) == 0
    adam = new.opt_state[-1]
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(adam))
    assert_trees_equal(new.best, new.variables)
