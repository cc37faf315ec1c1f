"""VL4Pose: links, likelihoods by all placements, and broken poses."""

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from jalpose.acquisition.pose import vl4pose
from jalpose.acquisition.pose.vl4pose import Vl4Pose
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose.skeletons import LSP, Skeleton
from jalpose.tasks.pose.task import PoseTask
from tests.support import small
from tests.support.probes import GivenOutputs

MPII = dataclasses.replace(LSP, name="mpii16", joints=(*LSP.joints, "pelvis", "thorax"))
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
        name="hand",
        joints=("wrist", "thumb"),
        flip_pairs=(),
        limbs=(),
        torso=((0, 1), (0, 1)),
    )
    task = PoseTask(skeleton=hand, spec=small.SPEC)
    message = r"skeleton hand, .* wrist, thumb\. It knows"
    with pytest.raises(ConfigError, match=message):
        Vl4Pose().check(task, num_trained=30, budget=3)
    with pytest.raises(ConfigError, match=message):
        Vl4Pose().needs(task)


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
    ids = [100 + row for row in range(len(poses))]
    return GivenOutputs(ids, maps, np.float32([head] * len(poses)))


def acquire(probe, ids, budget, **options):
    method = Vl4Pose(**{"peaks": 1, **options})
    return method.acquire(jax.random.key(0), probe, small.pool(ids), budget)


@pytest.mark.slow
@pytest.mark.parametrize("positions", vl4pose.POSITIONS)
def test_broken_poses_are_chosen_first(positions):
    whole, arm, legs = standing(), standing(), standing()
    arm[4] += (4, 4)  # the left wrist
    legs[[9, 10, 12, 13]] -= (0, 30)
    probe = probe_of([whole, arm, legs])
    found = acquire(probe, [100, 101, 102], 3, positions=positions)
    assert found.indices.tolist() == [102, 101, 100]
    # All lengths as predicted: 13 Gaussians of that variance, at their means.
    least = 13 * 0.5 * (math.log(2 * math.pi) + 0.5)
    assert found.scores[0] == pytest.approx(least, rel=1e-5)
    assert found.explanation["link_lengths"].shape == (3, 13)
    assert found.explanation["link_log_variances"].shape == (3, 13)


@pytest.mark.slow
def test_a_second_peak_mends_a_pose_or_makes_it_unsure():
    whole = standing()
    probe = probe_of([whole, whole])
    maps = probe.outputs.prediction
    # The right wrist is as likely on the left one, far from its elbow.
    maps[1, 0, :, :, 7] += maps[0, 0, :, :, 4]
    ids = [100, 101]
    one = acquire(probe, ids, 1, peaks=1).scores
    best = acquire(probe, ids, 1, peaks=2).scores
    expected = acquire(probe, ids, 1, peaks=2, positions="expected").scores
    assert best[0] == pytest.approx(one[0]) == pytest.approx(expected[0])
    # In its place with probability 1/2, and nothing else is wrong.
    assert best[1] - best[0] == pytest.approx(math.log(2), abs=1e-3)
    assert expected[1] > best[1] + 10


def test_one_object_for_equal_options_so_that_a_pass_is_compiled_once():
    probe = probe_of([standing()])
    for positions in ("best", "expected", "best"):
        acquire(probe, [100], 1, positions=positions)
    best, expected, again = probe.functions
    assert best is again and best is not expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "sum"}, "positions: 'sum'. Known: best, expected"),
        ({"peaks": 0}, "peaks=0 must be at least 1"),
        ({"min_distance": 0.5}, "min_distance=0.5 must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.vl4pose\.{message}"):
        Vl4Pose(**changes)
