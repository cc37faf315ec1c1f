import time

import numpy as np
import pytest

from jalpose.tasks.pose import figure_drawing, figure_poses, figures, skeletons
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE

SIZE = 96


@pytest.fixture(scope="module")
def source():
    return figures.FigureSource(300, 7, 0.5, image_size=SIZE)


def _normalised(source):
    """Joints relative to their box: [N, J, 2], NaN where absent."""
    low, high = np.split(source.annotations.boxes[:, None], 2, axis=-1)
    return (source.annotations.joints - low) / (high - low)


def test_same_seed_gives_the_same_bytes(source):
    again = figures.FigureSource(300, 7, 0.5, image_size=SIZE)
    for name in ("joints", "status", "boxes"):
        ours, theirs = (getattr(s.annotations, name) for s in (source, again))
        assert ours.tobytes() == theirs.tobytes()
    assert source.image(3).tobytes() == again.image(3).tobytes()
    assert source.image(3).tobytes() == source.image(3).tobytes()


def test_images_and_labels_differ_between_examples_and_seeds(source):
    other = figures.FigureSource(2, 8, 0.5, image_size=SIZE)
    images = [source.image(0), source.image(1), other.image(0), other.image(1)]
    assert len({image.tobytes() for image in images}) == 4
    assert len({row.tobytes() for row in source.annotations.joints}) == 300
    assert images[0].shape == (SIZE, SIZE, 3) and images[0].dtype == np.uint8


def test_start_shifts_into_the_same_sequence(source):
    part = figures.FigureSource(5, 7, 0.5, image_size=SIZE, start=20)
    whole = source.annotations
    assert part.annotations.keys == whole.keys[20:25]
    assert part.annotations.files == part.annotations.keys
    assert part.annotations.keys[0] == "figures/000020"
    np.testing.assert_array_equal(part.annotations.joints, whole.joints[20:25])
    np.testing.assert_array_equal(part.annotations.status, whole.status[20:25])
    np.testing.assert_array_equal(part.annotations.boxes, whole.boxes[20:25])
    np.testing.assert_array_equal(part.image(2), source.image(22))


def test_shapes_and_types(source):
    labels = source.annotations
    assert source.skeleton is skeletons.LSP and len(labels) == 300
    assert labels.joints.shape == (300, 14, 2) and labels.joints.dtype == np.float32
    assert labels.status.shape == (300, 14) and labels.status.dtype == np.int8
    assert labels.boxes.shape == (300, 4) and labels.boxes.dtype == np.float32
    assert source.rare.shape == (300,) and source.rare.dtype == bool


def test_present_joints_are_in_the_image_and_the_box(source):
    labels = source.annotations
    absent = labels.status == ABSENT
    np.testing.assert_array_equal(np.isnan(labels.joints).any(-1), absent)
    joints = labels.joints[~absent]
    assert joints.min() >= 0 and joints.max() <= SIZE - 1
    boxes = np.repeat(labels.boxes, (~absent).sum(1), axis=0)
    assert (joints >= boxes[:, :2]).all() and (joints <= boxes[:, 2:]).all()
    assert (labels.boxes[:, 2:] > labels.boxes[:, :2]).all()
    assert labels.boxes.min() >= 0 and labels.boxes.max() <= SIZE - 1


def test_few_figures_are_cut_and_torsos_stay_measurable():
    status = figures.FigureSource(2000, 1, 0.5).annotations.status
    cut = (status == ABSENT).any(1)
    assert 0.05 < cut.mean() < 0.11
    torso = [(status[:, list(pair)] != ABSENT).all(1) for pair in skeletons.LSP.torso]
    assert np.any(torso, axis=0).mean() > 0.98
    assert 0.05 < (status == OCCLUDED).mean() < 0.25


def test_status_is_what_the_drawing_shows(source):
    labels = source.annotations
    right: dict[int, list] = {VISIBLE: [], OCCLUDED: []}
    near = []
    for i in range(100):
        parts = source.part_map(i)
        for joint in np.flatnonzero(labels.status[i] != ABSENT):
            x, y = np.rint(labels.joints[i, joint]).astype(int)
            own = [p + 1 for p in np.flatnonzero(figure_poses.ATTACHED[joint])]
            status = labels.status[i, joint]
            right[status].append((parts[y, x] in own) == (status == VISIBLE))
            if status == VISIBLE:
                around = parts[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                near.append(np.isin(around, own).any())
    # Rounding to a pixel may cross the outline of a part.
    assert np.mean(right[VISIBLE]) > 0.96
    assert np.mean(right[OCCLUDED]) > 0.93
    assert np.mean(near) > 0.995
    assert len(right[OCCLUDED]) > 50


def test_visible_joints_lie_on_drawn_pixels(source, monkeypatch):
    before = [source.image(i).astype(int) for i in range(40)]
    monkeypatch.setattr(figure_drawing, "draw_body", lambda *_: None)
    changed, elsewhere = [], []
    for i, image in enumerate(before):
        # Clothes have drawn no random numbers here: the grain differs, a little.
        differs = np.abs(image - source.image(i)).max(-1) > 25
        seen = source.annotations.status[i] == VISIBLE
        x, y = np.rint(source.annotations.joints[i, seen]).astype(int).T
        changed.extend(differs[y, x])
        elsewhere.append(differs[source.part_map(i) == 0].mean())
    assert np.mean(changed) > 0.85
    assert np.mean(elsewhere) < 0.1


def test_tables_and_poles_hide_what_lies_under_them():
    rects = np.zeros((1, 2, 5))
    rects[0, 0] = (10, 10, 4, 1, np.pi / 2)  # upright: reaches y 6..14, x 9..11
    joints = np.array([[[10, 13], [13, 10], [0, 0]]], float)
    np.testing.assert_array_equal(
        figures.covered(joints, rects), [[True, False, False]]
    )


def test_frames_of_a_sequence_are_near_copies():
    one = figures.FigureSource(12, 3, 0.5, image_size=SIZE, start=4)
    four = figures.FigureSource(12, 3, 0.5, image_size=SIZE, start=4, frames=4)
    joints = four.annotations.joints
    for first in (0, 4, 8):
        # The first frame is the example there is without sequences.
        np.testing.assert_array_equal(four.image(first), one.image(first))
        np.testing.assert_array_equal(joints[first], one.annotations.joints[first])
        assert len(set(four.rare[first : first + 4].tolist())) == 1
        for other in range(first + 1, first + 4):
            moved = np.nanmax(np.abs(joints[other] - joints[first]))
            assert 0 < moved < SIZE / 4
            apart = np.nanmean(np.abs(joints[other] - joints[first]))
            far = np.nanmean(np.abs(joints[(first + 4) % 12] - joints[first]))
            assert apart < far / 2
    assert len({four.image(i).tobytes() for i in range(12)}) == 12


def test_sequences_of_unequal_lengths_hold_near_copies():
    source = figures.FigureSource(
        3000, 3, 0.5, image_size=SIZE, start=4, frames=15, spread=1.5
    )
    equal = figures.FigureSource(12, 3, 0.5, image_size=SIZE, start=4)
    joints = source.annotations.joints
    apart = np.nanmean(np.abs(np.diff(joints, axis=0)), axis=(1, 2))
    first = source.first_frames
    same = first[1:] == first[:-1]
    assert np.median(apart[~same]) > 5 * np.median(apart[same])
    begins, lengths = np.unique(first, return_counts=True)
    assert (first[begins] == begins).all()
    assert lengths.sum() == 3000 and lengths.min() == 1
    assert 8 < lengths.mean() < 30
    longest = np.sort(lengths)[::-1][: len(lengths) // 10]
    assert longest.sum() > 0.4 * 3000
    np.testing.assert_array_equal(joints[0], equal.annotations.joints[0])
    logs = np.log(lengths[lengths > 1])
    assert 0.8 < logs.std() < 1.6


def test_a_pool_of_sequences_leaves_the_labelled_and_the_test_set_as_they_are():
    data = {"initial": 3, "pool": 6, "test": 4, "rare": 0.5}
    (labelled, other), parts = figures.benchmark(data, 1)
    data |= {"frames": 3, "rare_test": 1.0}
    (same, pool, test), again = figures.benchmark(data, 1)
    assert [p.tolist() for p in parts] == [p.tolist() for p in again]
    keys = labelled.annotations.keys + other.annotations.keys
    found = [key for s in (same, pool, test) for key in s.annotations.keys]
    assert tuple(found) == keys
    assert len(set(pool.rare[:3].tolist())) == 1 and test.rare.all()
    np.testing.assert_array_equal(same.image(0), labelled.image(0))


def test_rare_fraction_is_the_share_of_rare_poses():
    def share(fraction):
        return figures.FigureSource(1000, 3, fraction).rare.mean()

    assert share(0.0) == 0.0 and share(1.0) == 1.0
    assert abs(share(0.3) - 0.3) < 0.06


def test_common_examples_do_not_depend_on_the_rare_fraction():
    few, many = (figures.FigureSource(50, 3, f) for f in (0.1, 0.6))
    both = few.rare == many.rare
    assert both.any() and not both.all()
    np.testing.assert_array_equal(
        few.annotations.joints[both], many.annotations.joints[both]
    )


def test_rare_poses_are_far_from_the_mean_common_pose():
    source = figures.FigureSource(1500, 5, 0.5)
    joints = _normalised(source)
    mean = np.nanmean(joints[~source.rare], axis=0)
    distance = np.nanmean(np.linalg.norm(joints - mean, axis=-1), axis=-1)
    rare, common = distance[source.rare], distance[~source.rare]
    assert rare.mean() > 1.5 * common.mean()
    assert (rare[:, None] > common).mean() > 0.8  # area under the ROC curve


def test_left_is_on_the_right_of_a_figure_facing_the_viewer():
    def left_minus_right(yaw):
        normals = np.zeros((1, figure_poses.NUM_NORMALS))
        spread = figure_poses.TABLE[0, 0, 2]
        normals[0, 0] = yaw / spread
        uniforms = np.full((1, figure_poses.NUM_UNIFORMS), 0.0)
        points = figure_poses.pose_bodies(normals, uniforms, 0.0).points[0]
        left, right = (
            skeletons.LSP.joints.index(f"{s} hip") for s in figure_poses.SIDES
        )
        return points[left] - points[right]

    assert left_minus_right(0.0)[0] > 0
    assert abs(left_minus_right(0.0)[2]) < 1e-9
    assert left_minus_right(60.0)[2] < -0.1  # a turn to the right: left side nearer
    assert left_minus_right(-60.0)[2] > 0.1


def test_limbs_keep_their_length_in_every_pose():
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((64, figure_poses.NUM_NORMALS))
    normals[:, len(figure_poses.ANGLES) :] = 0.0
    uniforms = rng.random((64, figure_poses.NUM_UNIFORMS))
    points = figure_poses.pose_bodies(normals, uniforms, 0.8).points
    index = skeletons.LSP.joints.index
    for a, b, name in (
        ("left shoulder", "left elbow", "upper arm"),
        ("right elbow", "right wrist", "forearm"),
        ("right hip", "right knee", "thigh"),
        ("left knee", "left ankle", "shin"),
    ):
        length = np.linalg.norm(points[:, index(a)] - points[:, index(b)], axis=-1)
        np.testing.assert_allclose(length, figure_poses.LENGTHS[name], rtol=1e-9)


def test_labels_are_quick():
    start = time.perf_counter()
    figures.FigureSource(3000, 2, 0.5)
    assert time.perf_counter() - start < 5.0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_examples": 0}, "num_examples=0"),
        ({"rare_fraction": 1.5}, r"rare_fraction=1\.5"),
        ({"rare_fraction": -0.1}, r"rare_fraction=-0\.1"),
        ({"image_size": 31}, "image_size=31"),
        ({"seed": -1}, "seed=-1"),
        ({"start": -2}, "start=-2"),
        ({"spread": -1.0}, r"spread=-1\.0"),
    ],
)
def test_bad_arguments_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        figures.FigureSource(
            **{"num_examples": 2, "seed": 0, "rare_fraction": 0.5} | change
        )


@pytest.mark.parametrize("index", [-1, 300])
def test_there_is_no_example_beyond_the_last(source, index):
    with pytest.raises(IndexError, match=f"index={index} of 300"):
        source.image(index)
