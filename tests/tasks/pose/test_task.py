"""The pose task against the functions it is made of, and slow computations."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.tasks.pose import heatmaps, losses
from jalpose.tasks.pose.augment import Ranges
from jalpose.tasks.pose.heatmaps import HeatmapSpec
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED, VISIBLE
from jalpose.tasks.pose.task import PoseTask, make_task
from jalpose.tasks.task import CAPABILITIES, CandidateOptions, lacking
from tests.support import small

SIZE, JOINTS, STACKS = 32, 14, 2
SPEC = HeatmapSpec(SIZE, SIZE // 4, 8.0, 30.0)  # sigma: one heatmap pixel
TASK = PoseTask(skeleton=LSP, spec=SPEC)


def prediction(seed=0, *lead):
    draws = np.random.default_rng(seed).normal(size=(*lead, STACKS, 8, 8, JOINTS))
    return (4 * draws).astype(np.float32)


def label(seed=0):
    rng = np.random.default_rng(seed)
    status = rng.choice([VISIBLE, OCCLUDED, ABSENT], JOINTS).astype(np.int8)
    joints = rng.uniform(1, SIZE - 2, (JOINTS, 2)).astype(np.float32)
    joints[status == ABSENT] = 0
    return {"joints": joints, "status": status}


# What everything asks of it.


def test_equal_tasks_are_one_task():
    again = PoseTask(skeleton=LSP, spec=HeatmapSpec(*SPEC))
    assert again == TASK and hash(again) == hash(TASK)
    for change in (
        {"ranges": Ranges(flip=0.5)},
        {"occluded": False},
        {"refine": "mass"},
        {"spec": SPEC._replace(peak=1.0)},
    ):
        assert dataclasses.replace(TASK, **change) != TASK


def test_a_pose_has_every_capability_but_that_of_numbers():
    assert lacking(TASK, CAPABILITIES) == ("moments",)


def test_the_task_of_a_config_is_what_it_says():
    changes = {
        "training.occluded": False,
        "evaluation.refine": "none",
        "heatmap.peak": 5.0,
        "heatmap.sigma": 2.0,
        "augment.scale": (0.9, 1.1),
        "augment.flip": 0.25,
    }
    config = small.configure(changes)
    task = make_task(config, small.dataset())
    ranges = {**config.augment, "scale": (0.9, 1.1)}
    assert task == PoseTask(
        skeleton=LSP,
        spec=HeatmapSpec(SIZE, SIZE // 4, 2.0, 5.0),
        ranges=Ranges(**ranges),
        occluded=False,
        refine="none",
    )
    assert (task.size, task.num_outputs) == (SIZE, JOINTS)
    assert hash(make_task(config, small.dataset())) == hash(task)


def test_label_shapes_are_those_of_labels():
    ids = small.dataset().initial[:3]
    found = small.labels_of(small.dataset(), ids)
    shapes = {k: (v.shape[1:], v.dtype) for k, v in found.items()}
    assert {k: (v.shape, v.dtype) for k, v in TASK.label_shapes.items()} == shapes


def test_targets_are_the_drawn_maps_of_what_counts():
    given = label()
    maps, present = jax.jit(TASK.target)(given)
    np.testing.assert_array_equal(present, given["status"] != ABSENT)
    wanted = heatmaps.render_heatmaps(given["joints"], present, **SPEC._asdict())
    np.testing.assert_allclose(maps, wanted, rtol=1e-6)
    assert TASK.known((maps, present))
    assert not TASK.known((maps, jnp.zeros(JOINTS, bool)))


def test_the_loss_is_that_of_heatmaps():
    maps, target = prediction(), jax.jit(TASK.target)(label())
    np.testing.assert_allclose(
        TASK.loss(maps, target), losses.heatmap_loss(maps, *target), rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("refine", heatmaps.REFINEMENTS)
def test_joints_are_read_off_the_last_stack(refine):
    task = dataclasses.replace(TASK, refine=refine)
    maps = prediction()
    found = jax.jit(task.decode)(maps)
    joints, values = heatmaps.decode_heatmaps(
        maps[-1], crop_size=SIZE, sigma=SPEC.sigma, refine=refine
    )
    assert found.keys() == {"joints", "peaks"}
    np.testing.assert_allclose(found["joints"], joints, rtol=1e-6)
    np.testing.assert_array_equal(found["peaks"], values)


def test_pictures_get_the_last_stack_in_half_the_bytes():
    maps = prediction()
    (kept,) = TASK.illustrate(jnp.asarray(maps)).values()
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, maps[-1], rtol=1e-3, atol=1e-3)


def test_augmentation_takes_and_gives_a_label():
    task = dataclasses.replace(TASK, ranges=Ranges(flip=1.0))
    given, image = label(), np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
    flipped, moved = jax.jit(task.augment)(jax.random.key(0), image, given)
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=1e-6)
    mirror = np.array(LSP.mirror)
    np.testing.assert_array_equal(moved["status"], given["status"][mirror])
    x = SIZE - 1 - given["joints"][mirror, 0]
    np.testing.assert_allclose(moved["joints"][:, 0], x, atol=1e-4)


# Capabilities.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "temperature"), [("window", 1), ("normalised", 1), ("softmax", 3.0)]
)
def test_a_posterior_is_a_distribution_over_each_joints_pixels(kind, temperature):
    maps = prediction()
    found = jax.jit(TASK.posterior, static_argnums=(1, 2))(maps, kind, temperature)
    assert found.shape == (JOINTS, 64)
    wanted = heatmaps.posterior(maps[-1], kind, temperature, SPEC.sigma)
    by_joint = np.moveaxis(np.asarray(wanted), -1, 0).reshape(JOINTS, 64)
    np.testing.assert_allclose(found, by_joint, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    logs = TASK.posterior(maps, kind, temperature, log=True)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(logs, np.log(by_joint), rtol=1e-4, atol=1e-4)


def test_the_log_of_a_softmax_is_exact_where_it_is_nearly_nothing():
    maps = np.zeros((1, 8, 8, JOINTS), np.float32)
    maps[0, 3, 4] = 200.0
    found = TASK.posterior(maps, "softmax", 1.0, log=True)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.min(axis=1), -200.0, rtol=1e-6)


def test_disagreement_as_predicted_is_the_variance_of_the_maps():
    maps = prediction(1, 5)
    found = jax.jit(TASK.disagreement, static_argnums=1)(maps, "prediction")
    wanted = maps[:, -1].astype(np.float64).var(axis=0).mean(axis=(0, 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert found.shape == (JOINTS,)


def test_disagreement_as_decoded_is_the_variance_of_the_highest_pixels():
    maps = prediction(2, 5)
    found = np.asarray(jax.jit(TASK.disagreement, static_argnums=1)(maps, "decoded"))
    for joint in range(JOINTS):
        flat = maps[:, -1, :, :, joint].reshape(5, -1).argmax(axis=1)
        wanted = np.var(flat % 8) + np.var(flat // 8)
        np.testing.assert_allclose(found[joint], wanted, rtol=1e-4)
    maps[3, -1, 0, 0, 6] = np.nan
    found = np.asarray(TASK.disagreement(maps, "decoded"))
    assert np.flatnonzero(np.isnan(found)).tolist() == [6]


def test_a_predicted_point_is_the_pose_and_that_of_a_map_with_a_nan_is_none():
    maps = prediction()
    joints = np.asarray(TASK.decode(maps)["joints"])
    wanted = (joints - joints.mean(axis=0)).ravel() / SIZE
    np.testing.assert_allclose(TASK.predicted_point(maps), wanted, rtol=1e-5, atol=1e-6)
    for value in (np.nan, np.inf):
        maps[-1, 2, 3, 5] = value
        assert np.isnan(TASK.predicted_point(maps)).all()


def test_a_predicted_target_is_what_the_network_says_of_the_joints_that_count():
    maps, given = prediction(), label()
    target, present = TASK.predicted_target(maps, given)
    np.testing.assert_array_equal(target, maps)
    np.testing.assert_array_equal(present, given["status"] != ABSENT)
    # Where the network says it itself there is nothing to learn.
    assert TASK.loss(maps, (target, present)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("posterior", TASK.candidate_posteriors)
def test_the_expectation_over_candidates_is_the_sum_over_all_combinations(posterior):
    skeleton = dataclasses.replace(LSP, joints=LSP.joints[:3], flip_pairs=(), limbs=())
    task = PoseTask(skeleton=skeleton, spec=SPEC)
    options = CandidateOptions(
        peaks=2, min_distance=1.0, posterior=posterior, temperature=5.0
    )
    candidates = task.candidates(options)
    assert task.candidates(options) is candidates
    maps = prediction(3)[..., :3]
    found = {k: np.asarray(v)[None] for k, v in candidates.find(maps).items()}
    assert (found["shares"] > 0).all()
    row = {k: v[0] for k, v in found.items() if k != "positions"}

    def squared_norm(loss, target):
        gradient = jax.grad(loss)(jnp.asarray(maps), target)
        return jnp.square(gradient).sum()

    squared = jax.jit(jax.vmap(lambda t: squared_norm(candidates.loss, t)))
    norms = squared(candidates.targets(row))
    (weights,) = candidates.weights(found)
    expected = float(np.sum(weights * np.asarray(norms)))

    @jax.jit
    def of_label(joints):
        present = jnp.ones(3, bool)
        return squared_norm(task.loss, (SPEC.render(joints, present), present))

    total = chance = 0.0
    for which in itertools.product(range(2), repeat=3):
        share = np.prod([row["shares"][j, p] for j, p in enumerate(which)])
        joints = np.stack([row["points"][j, p] for j, p in enumerate(which)])
        total += share * float(of_label(joints))
        chance += share
    assert chance == pytest.approx(1, abs=1e-5)
    assert expected == pytest.approx(total, rel=1e-4)
    arrays, numbers = candidates.explain(found)
    assert arrays["peak_positions"].shape == (1, 3, 2, 2)
    assert numbers == {"mean_peaks": 2.0}
