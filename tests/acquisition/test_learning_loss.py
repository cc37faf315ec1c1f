"""Methods with a head: what they choose, require and refuse."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from jalpose.acquisition import learning_loss
from jalpose.acquisition.pose import aleatoric, vl4pose
from jalpose.models.heads import AverageHead, LevelsHead, StackHead
from jalpose.models.hourglass import PoseOutput
from jalpose.tasks.pose.skeletons import LSP, Skeleton
from jalpose.training import objectives

SHARED = {"head": "average", "weight": 1.0, "detach_after": 0.0, "steps": 10}
OPTIONS = {
    learning_loss: {**SHARED, "objective": "kl", "margin": 1.0, "sub_pool": 0},
    aleatoric: {**SHARED, "published": False},
    vl4pose: {**SHARED, "peaks": 1, "min_distance": 8.0, "positions": "best"},
}
MODULES = pytest.mark.parametrize(
    "module", OPTIONS, ids=lambda module: module.__name__.rpartition(".")[2]
)
MPII = dataclasses.replace(LSP, name="mpii16", joints=(*LSP.joints, "pelvis", "thorax"))
FIRST = 100  # the id of the first example
KEY = jax.random.key(0)


@functools.cache
def of_each(fn):
    return jax.jit(jax.vmap(fn))


class FakeProbe:
    """Gives a method the outputs of examples FIRST, FIRST + 1, ... as they are."""

    def __init__(self, head, heatmaps=None, skeleton=LSP):
        head = np.asarray(head, np.float32)
        if heatmaps is None:
            heatmaps = np.zeros((len(head), 1, 4, 4, skeleton.num_joints), np.float32)
        self._outputs = PoseOutput(heatmaps, np.zeros((len(head), 2)), head=head)
        self.skeleton = skeleton
        self.asked = []

    def reduce(self, fn, ids, key=KEY):
        self.asked.append(ids)
        rows = jax.tree.map(lambda x: x[ids - FIRST], self._outputs)
        keys = jax.random.split(key, len(ids))
        return jax.tree.map(np.asarray, of_each(fn)(rows, keys))


def acquire(module, probe, ids, budget, key=KEY, **changes):
    options = {**OPTIONS[module], **changes}
    return module.METHOD.acquire(key, probe, None, np.asarray(ids), budget, **options)


def requires(module, skeleton=LSP, **changes):
    return module.METHOD.requires(skeleton, **{**OPTIONS[module], **changes}).head


def check(module, **changes):
    module.METHOD.check(30, **{**OPTIONS[module], **changes})


# Learning Loss.


def test_the_largest_predicted_losses_are_chosen_ties_by_id():
    probe = FakeProbe([[0.5], [2.0], [-1.0], [2.0], [0.7]])
    found = acquire(learning_loss, probe, [104, 103, 102, 101, 100], 3)
    assert found.indices.tolist() == [101, 103, 104]
    np.testing.assert_allclose(found.scores, [0.7, 2.0, -1.0, 2.0, 0.5], rtol=1e-6)
    assert found.summary == {"scored": 5}


def draw_sub_pool(ids, key=KEY, budget=10, sub_pool=40):
    """Which of `ids` are scored, and the selection."""
    probe = FakeProbe(np.arange(200.0)[:, None])
    found = acquire(learning_loss, probe, ids, budget, key, sub_pool=sub_pool)
    (asked,) = probe.asked
    return asked, found


def test_only_the_sub_pool_is_scored():
    ids = np.random.default_rng(0).permutation(200) + FIRST
    asked, found = draw_sub_pool(ids)
    assert len(set(asked.tolist())) == 40 and np.isin(asked, ids).all()
    # The losses go up with the ids.
    assert found.indices.tolist() == sorted(asked.tolist())[:-11:-1]
    inside = np.isin(ids, asked)
    np.testing.assert_array_equal(found.scores[inside], ids[inside] - FIRST)
    assert found.scores.shape == (200,) and np.isnan(found.scores[~inside]).all()
    assert found.summary == {"scored": 40}


def test_the_sub_pool_goes_by_key_and_id_alone():
    ids = np.arange(200) + FIRST
    asked, _ = draw_sub_pool(ids)
    shuffled, _ = draw_sub_pool(np.random.default_rng(1).permutation(ids))
    assert sorted(asked.tolist()) == sorted(shuffled.tolist())
    other, _ = draw_sub_pool(ids, jax.random.key(1))
    assert sorted(asked.tolist()) != sorted(other.tolist())
    # Without an example outside it, the same are drawn.
    outside = np.setdiff1d(ids, asked)
    fewer, _ = draw_sub_pool(np.setdiff1d(ids, outside[:5]))
    assert sorted(asked.tolist()) == sorted(fewer.tolist())


@pytest.mark.parametrize("sub_pool", [0, 200, 500])
def test_a_sub_pool_of_all_is_all(sub_pool):
    asked, found = draw_sub_pool(np.arange(200) + FIRST, sub_pool=sub_pool)
    assert len(asked) == 200 and not np.isnan(found.scores).any()


def test_a_sub_pool_smaller_than_the_budget_is_refused_before_any_pass():
    probe = FakeProbe(np.arange(50.0)[:, None])
    with pytest.raises(ValueError, match="sub_pool=9 is smaller than the budget, 10"):
        acquire(learning_loss, probe, np.arange(50) + FIRST, 10, sub_pool=9)
    assert not probe.asked


def test_learning_loss_requires_what_its_options_name():
    ranked = requires(learning_loss, objective="margin", head="stacks", margin=0.5)
    assert ranked.module == StackHead(1)
    assert ranked.objective.func is objectives.margin_ranking
    assert ranked.objective.keywords == {"margin": 0.5}
    ranked = requires(learning_loss, objective="kl", head="conv", weight=2.0)
    assert ranked.module == LevelsHead(1) and ranked.weight == 2.0
    assert ranked.objective is objectives.pair_kl


# All three.


@MODULES
@pytest.mark.parametrize("skeleton", [LSP, MPII], ids=lambda s: s.name)
def test_equal_options_require_equal_heads(module, skeleton):
    first, second = requires(module, skeleton), requires(module, skeleton)
    assert first == second and hash(first) == hash(second)
    assert (first.weight, first.detach_after, first.steps) == (1.0, 0.0, 10)
    assert requires(module, skeleton, detach_after=3.0) != first
    joints = skeleton.num_joints
    outputs = {learning_loss: 1, aleatoric: joints, vl4pose: 2 * (joints - 1)}
    assert first.module == AverageHead(outputs[module])


@MODULES
def test_objectives_take_the_outputs_of_their_heads(module):
    head = requires(module)
    ones = np.ones((4, 14, 2), np.float32)
    truth = objectives.Truth(np.ones(4, np.float32), ones, ones, ones[..., 0] > 0)
    outputs = jnp.zeros((4, head.module.outputs))
    assert jax.eval_shape(head.objective, outputs, truth).shape == ()


@MODULES
def test_scores_that_are_not_finite_are_refused_by_id(module):
    head = np.zeros((3, 26), np.float32)
    head[1] = np.nan
    with pytest.raises(FloatingPointError, match="id 101"):
        acquire(module, FakeProbe(head), [100, 101, 102], 1)


@MODULES
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "averge"}, r"Unknown acquisition\.\w+\.head='averge'. Known: stacks"),
        ({"weight": 0.0}, r"weight=0.0 must be above 0"),
        ({"detach_after": -1.0}, r"detach_after=-1.0 must not be negative"),
        ({"steps": 0}, r"steps=0 must be at least 1"),
    ],
)
def test_check_names_a_shared_option_that_cannot_work(module, changes, message):
    check(module)
    with pytest.raises(ValueError, match=message):
        check(module, **changes)


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (learning_loss, {"objective": "mse"}, "objective='mse'. Known: margin, kl"),
        (learning_loss, {"margin": 0.0}, "margin=0.0 must be above 0"),
        (learning_loss, {"sub_pool": -1}, "sub_pool=-1 must not be negative"),
        (vl4pose, {"positions": "sum"}, "positions='sum'. Known: best, expected"),
        (vl4pose, {"peaks": 0}, "peaks=0 must be at least 1"),
        (vl4pose, {"min_distance": 0.5}, "min_distance=0.5 must be at least 1"),
    ],
)
def test_check_names_an_option_that_cannot_work(module, changes, message):
    with pytest.raises(ValueError, match=message):
        check(module, **changes)


# Aleatoric uncertainty.


def test_aleatoric_chooses_the_largest_mean_log_variance():
    variances = np.random.default_rng(0).normal(size=(6, 14)).astype(np.float32)
    ids = np.arange(6) + FIRST
    found = acquire(aleatoric, FakeProbe(variances), ids, 2)
    means = variances.mean(axis=1)
    np.testing.assert_allclose(found.scores, means, rtol=1e-5, atol=1e-7)
    assert found.indices.tolist() == ids[np.argsort(-means)[:2]].tolist()
    np.testing.assert_array_equal(found.explanation["log_variances"], variances)


@pytest.mark.parametrize("published", [True, False])
def test_aleatoric_learns_by_the_likelihood_asked_for(published):
    objective = requires(aleatoric, published=published).objective
    assert objective.func is objectives.aleatoric
    assert objective.keywords == {"published": published}


# VL4Pose.

TREE = ((0, 1), (1, 2), (1, 3), (3, 4))  # of five joints


@pytest.mark.parametrize(("skeleton", "count"), [(LSP, 13), (MPII, 15)])
def test_links_are_a_tree_from_the_head_outwards(skeleton, count):
    links = vl4pose.links_of(skeleton)
    assert len(links) == count
    reached = {skeleton.joints.index("head")}
    for parent, child in links:
        assert parent in reached and child not in reached
        reached.add(child)
    assert reached == set(range(skeleton.num_joints))
    # A mirrored pose has the same links.
    mirror = skeleton.mirror
    assert {(mirror[a], mirror[b]) for a, b in links} == set(links)


def test_links_go_by_the_joints_names_not_their_order():
    order = np.random.default_rng(0).permutation(14)
    names = tuple(LSP.joints[i] for i in order)
    links = vl4pose.links_of(dataclasses.replace(LSP, joints=names))
    expected = [(LSP.joints[a], LSP.joints[b]) for a, b in vl4pose.links_of(LSP)]
    assert [(names[a], names[b]) for a, b in links] == expected


def test_a_skeleton_without_links_is_refused():
    hand = Skeleton(
        name="hand", joints=("wrist", "thumb"), flip_pairs=(), limbs=(), torso=()
    )
    with pytest.raises(ValueError, match=r"skeleton hand, .* wrist, thumb\. It knows"):
        requires(vl4pose, hand)


def places(seed, peaks, joints=5):
    """Random candidate positions; some joints have fewer."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 15, (joints, peaks, 2)).astype(np.float32)
    heights = rng.normal(size=(joints, peaks)).astype(np.float32)
    heights[1, 1:] = heights[3, 2:] = -np.inf
    mean = rng.uniform(2, 9, len(TREE)).astype(np.float32)
    log_variance = rng.normal(size=len(TREE)).astype(np.float32)
    return positions, softmax(heights, axis=1), mean, log_variance


def slow_log_likelihoods(positions, weights, mean, log_variance):
    """(probability, log-likelihood) of every placement of the joints."""
    joints, peaks, _ = positions.shape
    for placement in itertools.product(range(peaks), repeat=joints):
        chosen = weights[np.arange(joints), list(placement)].astype(np.float64)
        if not chosen.all():
            continue
        where = positions[np.arange(joints), list(placement)]
        total = np.log(chosen).sum()
        for i, (parent, child) in enumerate(TREE):
            length = np.linalg.norm(where[parent] - where[child])
            total += stats.norm.logpdf(length, mean[i], math.exp(log_variance[i] / 2))
        yield chosen.prod(), total


@functools.cache
def compiled(name):
    return jax.jit(getattr(vl4pose, f"{name}_log_likelihood"), static_argnums=4)


@pytest.mark.parametrize("seed", range(4))
def test_likelihoods_equal_those_of_all_placements(seed):
    case = places(seed, 3)
    mass, each = np.array(list(slow_log_likelihoods(*case))).T
    assert len(each) == 3 * 1 * 3 * 2 * 3 and mass.sum() == pytest.approx(1, rel=1e-5)
    assert compiled("best")(*case, TREE) == pytest.approx(each.max(), rel=1e-4)
    expected = (mass * each).sum()
    assert compiled("expected")(*case, TREE) == pytest.approx(expected, rel=1e-4)


def test_with_one_peak_a_joint_best_and_expected_are_the_same():
    case = places(0, 1)
    [(_, only)] = slow_log_likelihoods(*case)
    for name in vl4pose.POSITIONS:
        assert compiled(name)(*case, TREE) == pytest.approx(only, rel=1e-5)


def bells(peaks, side=64, sigma=2.0):
    """Maps [side, side, J] with Gaussians (x, y, height) for each joint."""
    rows, columns = np.mgrid[:side, :side]
    maps = np.zeros((side, side, len(peaks)), np.float32)
    for joint, found in enumerate(peaks):
        for x, y, height in found:
            squared = (columns - x) ** 2 + (rows - y) ** 2
            maps[..., joint] += height * np.exp(-squared / (2 * sigma**2))
    return maps


candidates = jax.jit(vl4pose.candidates, static_argnames=("peaks", "min_distance"))


def test_candidates_are_peaks_weighed_by_their_heights():
    maps = bells([[(5, 50, 2.0), (40, 9, 3.0)], [(0, 63, 1.0)]])
    positions, weights = candidates(maps, peaks=3, min_distance=8)
    assert positions[0, :2].tolist() == [[40, 9], [5, 50]]
    np.testing.assert_allclose(weights[0], [*softmax([3.0, 2.0]), 0], rtol=1e-4)
    # In the corner, where the published code sees none.
    assert positions[1, 0].tolist() == [0, 63]
    assert weights[1].tolist() == [1, 0, 0] and np.isfinite(positions).all()


def test_a_joint_without_a_peak_is_at_its_maps_highest_pixel():
    maps = np.zeros((16, 16, 3), np.float32)
    maps[..., 1] = -1.0  # below zero throughout, and highest at (x, y) = (7, 2)
    maps[2, 7, 1] = -0.5
    maps[..., 2] = np.nan
    positions, weights = candidates(maps, peaks=2, min_distance=8)
    assert positions[0, 0].tolist() == [0, 0] and positions[1, 0].tolist() == [7, 2]
    assert weights[:2].tolist() == [[1, 0], [1, 0]]
    assert np.isnan(weights[2]).all()


@pytest.mark.parametrize(
    ("side", "apart", "count"), [(64, 6, 1), (64, 10, 2), (32, 3, 1), (32, 6, 2)]
)
def test_the_distance_of_peaks_goes_with_the_size_of_the_map(side, apart, count):
    # 8 pixels of a map of 64 are 4 of one of 32.
    maps = bells([[(10, 10, 3.0), (10 + apart, 10, 2.0)]], side, sigma=0.7)
    _, weights = candidates(maps, peaks=2, min_distance=8)
    assert (np.asarray(weights) > 0).sum() == count


def standing():
    """(x, y) of LSP's joints, somebody standing on a map of 64 pixels."""
    half = [(38, 16), (42, 26), (44, 35)], [(36, 35), (36, 46), (36, 57)]
    left, right = [
        [[(2 * 32 - x, y) for x, y in part] if mirrored else part for part in half]
        for mirrored in (False, True)
    ]
    return np.array([(32, 4), (32, 13), *left[0], *right[0], *left[1], *right[1]])


def probe_of(poses, log_variance=0.5):
    """A probe whose maps show the poses, and whose links are those of the first."""
    maps = np.stack([bells([[(*xy, 30.0)] for xy in pose]) for pose in poses])[:, None]
    links = vl4pose.links_of(LSP)
    lengths = [np.linalg.norm(poses[0][a] - poses[0][b]) for a, b in links]
    head = [*lengths, *[log_variance] * len(links)]
    return FakeProbe([head] * len(poses), maps)


@pytest.mark.parametrize("positions", vl4pose.POSITIONS)
def test_broken_poses_are_chosen_first(positions):
    whole, arm, legs = standing(), standing(), standing()
    arm[4] += (4, 4)  # the left wrist
    legs[[9, 10, 12, 13]] -= (0, 30)
    probe = probe_of([whole, arm, legs])
    found = acquire(vl4pose, probe, [100, 101, 102], 3, positions=positions)
    assert found.indices.tolist() == [102, 101, 100]
    # All lengths as predicted: 13 Gaussians of that variance, at their means.
    least = 13 * 0.5 * (math.log(2 * math.pi) + 0.5)
    assert found.scores[0] == pytest.approx(least, rel=1e-5)
    assert found.explanation["link_lengths"].shape == (3, 13)
    assert found.explanation["link_log_variances"].shape == (3, 13)


def test_a_second_peak_mends_a_pose_or_makes_it_unsure():
    whole = standing()
    probe = probe_of([whole, whole])
    outputs = probe._outputs
    # The right wrist is as likely on the left one, far from its elbow.
    outputs.heatmaps[1, 0, :, :, 7] += outputs.heatmaps[0, 0, :, :, 4]
    ids = [100, 101]
    one = acquire(vl4pose, probe, ids, 1, peaks=1).scores
    best = acquire(vl4pose, probe, ids, 1, peaks=2).scores
    expected = acquire(vl4pose, probe, ids, 1, peaks=2, positions="expected").scores
    assert best[0] == pytest.approx(one[0]) == pytest.approx(expected[0])
    # In its place with probability 1/2, and nothing else is wrong.
    assert best[1] - best[0] == pytest.approx(math.log(2), abs=1e-3)
    assert expected[1] > best[1] + 10


def test_one_object_for_equal_options_so_that_a_pass_is_compiled_once():
    links = vl4pose.links_of(LSP)
    assert vl4pose._scores(links, 1, 8.0, "best") is vl4pose._scores(
        vl4pose.links_of(LSP), 1, 8.0, "best"
    )
