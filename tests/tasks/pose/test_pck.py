"""PCK: cases worked by hand, properties, and a known value on real poses."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from jalpose.tasks.pose import baseline, pck
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED, VISIBLE, Skeleton
from jalpose.tasks.pose.windows import crop_windows

quick = settings(derandomize=True, deadline=None, max_examples=25)

# 0 left shoulder, 1 right shoulder, 2 left hip, 3 right hip.
BOX = Skeleton(
    name="box",
    joints=("lsho", "rsho", "lhip", "rhip"),
    flip_pairs=((0, 1), (2, 3)),
    limbs=((0, 1), (2, 3)),
    torso=((0, 3), (1, 2)),
)
# Diagonals: lsho (40, 0) to rhip (10, 40): (30, 40) = 50;
#            rsho (0, 0) to lhip (24, 32): (24, 32) = 40. The torso is 50.
POSE = np.array([[40, 0], [0, 0], [24, 32], [10, 40]], np.float32)


def example(absent=(), occluded=()):
    joints, status = POSE.copy(), np.full(4, VISIBLE, np.int8)
    status[list(occluded)] = OCCLUDED
    status[list(absent)] = ABSENT
    joints[list(absent)] = np.nan
    return joints, status


def batch(*examples):
    joints, status = zip(*examples, strict=True)
    return np.stack(joints), np.stack(status)


def random_batch(seed, num=12):
    rng = np.random.default_rng(seed)
    joints = rng.uniform(0, 200, (num, 4, 2)).astype(np.float32)
    status = rng.choice([VISIBLE, OCCLUDED, ABSENT], (num, 4), p=[0.7, 0.1, 0.2])
    status[0] = VISIBLE
    joints[status == ABSENT] = np.nan
    predicted = np.nan_to_num(joints) + rng.normal(0, 30, joints.shape)
    return predicted, joints, status.astype(np.int8)


def test_torso_is_the_longer_diagonal_that_is_there():
    joints, status = batch(
        example(),
        example(absent=[3]),  # only the diagonal of 40
        example(absent=[1], occluded=[0, 3]),  # occluded ends serve: 50
        example(absent=[0, 1]),  # none
        example(absent=[0, 2]),  # one end of each
    )
    lengths = pck.torso_lengths(joints, status, BOX)
    np.testing.assert_allclose(lengths, [50, 40, 50, np.nan, np.nan])


def test_golden():
    # Threshold 0.2 of 50: less than 10 px.
    # Image 0: errors 9, 11, 0, 6-8-10 triangle = 10 -> right, wrong, right, wrong.
    # Image 1 (joint 2 absent, torso 50): errors 0, 0, -, NaN -> right, right, -, wrong.
    # Image 2 has no torso: left out.
    joints, status = batch(example(), example(absent=[2]), example(absent=[0, 1]))
    predicted = np.stack([POSE] * 3)
    predicted[0] += [[9, 0], [0, -11], [0, 0], [6, 8]]
    predicted[1, 3] = np.nan
    result = pck.pck(predicted, joints, status, BOX)
    np.testing.assert_array_equal(result.per_joint, [2 / 2, 1 / 2, 1 / 1, 0 / 2])
    np.testing.assert_array_equal(result.counts, [2, 2, 1, 2])
    assert result.mean == (1 + 0.5 + 1 + 0) / 4  # over joints, not over examples: 4/7
    assert (result.num_images, result.num_left_out) == (2, 1)


def test_threshold_itself_is_a_miss():
    joints, status = batch(example())
    predicted = joints + np.float32([10, 0])  # exactly 0.2 torso lengths
    assert pck.pck(predicted, joints, status, BOX, threshold=0.2).mean == 0
    assert pck.pck(predicted, joints, status, BOX, threshold=0.2001).mean == 1


def test_occluded_joints_by_option():
    joints, status = batch(example(occluded=[0]), example(occluded=[0, 1]))
    predicted = joints.copy()
    predicted[:, 0] += 100
    counted = pck.pck(predicted, joints, status, BOX)
    np.testing.assert_array_equal(counted.counts, [2, 2, 2, 2])
    assert counted.mean == 3 / 4
    visible = pck.pck(predicted, joints, status, BOX, count_occluded=False)
    np.testing.assert_array_equal(visible.counts, [0, 1, 2, 2])
    np.testing.assert_array_equal(visible.per_joint, [np.nan, 1, 1, 1])
    assert visible.mean == 1  # of the joints counted


HEADS = np.float32([50, 50, np.nan, 0])  # 0.5 * 0.6 * 50 px = 15 px, 0.5 * 50 = 25


def four_examples():
    return batch(example(), example(absent=[0, 1]), example(), example())


@pytest.mark.parametrize(
    ("reference", "offset", "right"),
    [
        ("head", 14.9, 1),
        ("head", 15, 1),  # the official rule: at the threshold is correct
        ("head", 15.1, 0),
        ("head_full", 24.9, 1),
        ("head_full", 25, 0),  # the published code's: it is not
        ("torso", 24.9, 1),  # half of a torso of 50
        ("torso", 25, 0),
    ],
)
def test_reference_golden(reference, offset, right):
    joints, status = batch(example())
    heads = np.float32([50])
    if reference == "torso":
        heads = None
    predicted = joints + np.float32([0, offset])
    result = pck.pck(
        predicted,
        joints,
        status,
        BOX,
        threshold=0.5,
        reference=reference,
        head_sizes=heads,
    )
    assert result.mean == right


def test_people_without_a_head_box_are_left_out_and_those_without_a_torso_not():
    joints, status = four_examples()
    options = {"reference": "head", "head_sizes": HEADS, "threshold": 0.5}
    result = pck.pck(np.nan_to_num(joints), joints, status, BOX, **options)
    assert (result.num_images, result.num_left_out) == (2, 2)
    np.testing.assert_array_equal(result.counts, [1, 1, 2, 2])


def test_official_mean_leaves_joints_out_and_weighs_annotations():
    # Joint 3 is left out. Right are, of joint 0: 1 of 1, 1: 0 of 1, 2: 2 of 2: 3 of 4.
    skeleton = dataclasses.replace(BOX, left_out=(3,))
    joints, status = four_examples()
    predicted = joints.copy()
    predicted[:, [1, 3]] += 1000
    options = {"reference": "head", "head_sizes": HEADS, "threshold": 0.5}
    official = pck.pck(
        predicted, joints, status, skeleton, average="official", **options
    )
    assert official.mean == 3 / 4
    np.testing.assert_array_equal(official.per_joint, [1, 0, 1, 0])  # all are told
    unweighted = pck.pck(predicted, joints, status, skeleton, **options)
    assert unweighted.mean == 2 / 4


def test_coincident_torso_is_left_out():
    joints, status = batch(example(), example())
    joints[1] = 7
    result = pck.pck(joints, joints, status, BOX)
    assert (result.num_images, result.num_left_out) == (1, 1)


@pytest.mark.slow
@quick
@given(seed=st.integers(0, 1000), threshold=st.floats(0.01, 2))
def test_bounded_monotone_and_blind_to_order(seed, threshold):
    predicted, joints, status = random_batch(seed)
    low = pck.pck(predicted, joints, status, BOX, threshold=threshold)
    high = pck.pck(predicted, joints, status, BOX, threshold=threshold * 1.5)
    assert 0 <= low.mean <= high.mean <= 1
    assert low.num_images + low.num_left_out == len(joints)
    order = np.random.default_rng(seed).permutation(len(joints))
    again = pck.pck(
        predicted[order], joints[order], status[order], BOX, threshold=threshold
    )
    assert again.mean == low.mean
    np.testing.assert_array_equal(again.per_joint, low.per_joint)
    np.testing.assert_array_equal(again.counts, low.counts)


@quick
@given(seed=st.integers(0, 1000))
def test_absent_joints_never_count(seed):
    predicted, joints, status = random_batch(seed)
    result = pck.pck(predicted, joints, status, BOX)
    predicted[status == ABSENT] = np.nan
    again = pck.pck(predicted, joints, status, BOX)
    np.testing.assert_array_equal(again.per_joint, result.per_joint)
    measured = ~np.isnan(pck.torso_lengths(joints, status, BOX))
    np.testing.assert_array_equal(
        result.counts, (status[measured] != ABSENT).sum(axis=0)
    )


def test_errors():
    joints, status = batch(example())
    with pytest.raises(ValueError, match=r"predicted \(1, 3, 2\).*'box'"):
        pck.pck(joints[:, :3], joints, status, BOX)
    with pytest.raises(ValueError, match=r"status \(1, 3\)"):
        pck.pck(joints, joints, status[:, :3], BOX)
    with pytest.raises(ValueError, match=r"threshold=0 must be positive"):
        pck.pck(joints, joints, status, BOX, threshold=0)
    with pytest.raises(ValueError, match=r"threshold=nan must be positive"):
        pck.pck(joints, joints, status, BOX, threshold=float("nan"))
    with pytest.raises(ValueError, match=r"Image 0: the lhip is annotated but"):
        bare = np.where(np.arange(4)[:, None] == 2, np.nan, joints)
        pck.pck(joints, bare, status, BOX)
    with pytest.raises(ValueError, match=r"None of the 1 images.*annotate a shoulder"):
        pck.pck(joints, *batch(example(absent=[0, 1])), BOX)
    with pytest.raises(ValueError, match=r"unknown reference='haed'; known: torso, h"):
        pck.pck(joints, joints, status, BOX, reference="haed")
    with pytest.raises(ValueError, match=r"unknown average='mean'; known: all, offic"):
        pck.pck(joints, joints, status, BOX, average="mean")
    with pytest.raises(ValueError, match=r"of the 1 images, got None; without head"):
        pck.pck(joints, joints, status, BOX, reference="head")
    with pytest.raises(ValueError, match=r"got \(2,\)"):
        pck.pck(joints, joints, status, BOX, reference="head", head_sizes=np.ones(2))
    with pytest.raises(ValueError, match=r"None of the 1 images has a head box"):
        none = np.full(1, np.nan)
        pck.pck(joints, joints, status, BOX, reference="head", head_sizes=none)
    with pytest.raises(ValueError, match=r"officially left out \(lsho\): set eval"):
        skeleton = dataclasses.replace(BOX, left_out=(0,))
        alone = batch(example(absent=[1, 2, 3]))
        head = {"reference": "head", "head_sizes": np.ones(1), "average": "official"}
        pck.pck(joints, *alone, skeleton, **head)
    with pytest.raises(ValueError, match=r"set count_occluded=True"):
        hidden = batch(example(occluded=[0, 1, 2, 3]))
        pck.pck(joints, *hidden, BOX, count_occluded=False)


def crops(joints, status, window=1.75):
    names = tuple(map(str, range(len(joints))))
    labels = Annotations(keys=names, files=names, joints=joints, status=status)
    return crop_windows(labels, "joints", window)


def test_baseline_golden():
    # Box of POSE: x 0..40, y 0..40: centre (20, 20), side 2 * 40 = 80 with window 2.
    # Joint 0 at (40, 0) is at (20, -20) / 80 = (0.25, -0.25). Without joint 0 the box
    # is x 0..24, y 0..40: centre (12, 20), side 80; joint 2 at (24, 32) is (12, 12)/80
    # there and (4, 12) / 80 in the whole pose: the mean is (0.1, 0.15).
    joints, status = batch(example(), example(absent=[0]))
    windows = crops(joints, status, window=2)
    mean = baseline.mean_crop_pose(joints, status, windows)
    np.testing.assert_allclose(mean[0], [0.25, -0.25])
    np.testing.assert_allclose(mean[2], [0.1, 0.15])
    predicted = baseline.predict_mean_pose(mean, windows)
    np.testing.assert_allclose(predicted[1, 0], [12 + 20, 20 - 20])
    np.testing.assert_allclose(predicted[:, 2], [[20 + 8, 20 + 12], [12 + 8, 20 + 12]])


def test_baseline_goes_by_the_windows_not_by_the_joints():
    # The same pose in a window at its joint 2, (24, 32), and in one twice the size.
    joints, status = batch(example(), example())
    windows = np.float32([[24, 32, 100], [24, 32, 200]])
    mean = baseline.mean_crop_pose(joints, status, windows)
    np.testing.assert_allclose(mean[2], [0, 0])
    # Joint 0 is (16, -32) away: (0.16, -0.32) and (0.08, -0.16).
    np.testing.assert_allclose(mean[0], [0.12, -0.24])
    predicted = baseline.predict_mean_pose(mean, np.float32([[0, 5, 10]]))
    np.testing.assert_allclose(predicted[0, 0], [1.2, 2.6])


def test_baseline_without_joints():
    joints, status = batch(example(absent=[0]), example(absent=range(4)))
    windows = np.float32([[20, 20, 80], [50, 50, 10]])
    mean = baseline.mean_crop_pose(joints, status, windows)
    first = baseline.mean_crop_pose(joints[:1], status[:1], windows[:1])
    np.testing.assert_array_equal(mean, first)
    assert np.isnan(mean[0]).all()  # absent everywhere
    assert np.isfinite(mean[1:]).all()
    predicted = baseline.predict_mean_pose(mean, windows)
    assert np.isnan(predicted[:, 0]).all()
    assert np.isfinite(predicted[1, 1:]).all()  # a window is all that is needed


@quick
@given(seed=st.integers(0, 1000), zoom=st.floats(0.2, 5), shift=st.floats(-99, 99))
def test_baseline_does_not_see_scale_or_place(seed, zoom, shift):
    _, joints, status = random_batch(seed)
    there = (status != ABSENT).sum(axis=1) > 1  # one joint alone has no scale
    joints, status = joints[there], status[there]
    windows = crops(joints, status)
    mean = baseline.mean_crop_pose(joints, status, windows)
    windows = windows.astype(float) * zoom
    windows[:, :2] += shift
    moved = baseline.mean_crop_pose(
        joints.astype(float) * zoom + shift, status, windows
    )
    np.testing.assert_allclose(moved, mean, atol=1e-6)


@pytest.mark.data
def test_mean_pose_on_lsp():
    """The mean crop pose of the first 1,000 LSP images has PCK@0.2 22.1 %."""
    root = pathlib.Path(__file__).parents[3]
    folder = pathlib.Path(os.environ.get("JALPOSE_DATA") or root / "../shared/data")
    path = folder / "lsp" / "joints.mat"
    if not path.exists():
        pytest.skip("no lsp/joints.mat in $JALPOSE_DATA or ../shared/data")
    source = scipy.io.loadmat(path)["joints"]  # [x|y|occluded, joint, image]
    # Ours: head, neck, left shoulder, elbow, wrist, right ..., left hip, knee, ankle.
    order = [13, 12, 9, 10, 11, 8, 7, 6, 3, 4, 5, 2, 1, 0]
    source = source[:, order].transpose(2, 1, 0)
    joints = source[..., :2].astype(np.float32)
    status = np.where(source[..., 2] == 1, OCCLUDED, VISIBLE)
    windows = crops(joints, status)
    mean = baseline.mean_crop_pose(joints[:1000], status[:1000], windows[:1000])
    test = joints[1000:], status[1000:]
    result = pck.pck(baseline.predict_mean_pose(mean, windows[1000:]), *test, LSP)
    assert abs(result.mean - 0.2212) < 0.0001
    assert (result.num_images, result.num_left_out) == (1000, 0)
    # Facts about the torso, known from the annotations.
    torso = pck.torso_lengths(joints, status, LSP)
    np.testing.assert_allclose(
        [np.median(torso), torso.min(), torso.max()], [50.1, 23.9, 105.6], atol=0.06
    )
