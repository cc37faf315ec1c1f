"""Where people are cut out: windows worked by hand, and what cannot be placed."""

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.tasks.pose import lsp
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE
from jalpose.tasks.pose.windows import crop_windows
from tests.support import miniature


def annotate(joints, status, boxes=None, people=None):
    joints, status = np.array(joints, np.float32), np.array(status, np.int8)
    joints[status == ABSENT] = np.nan
    names = tuple(f"im{n}" for n in range(len(joints)))
    if boxes is not None:
        boxes = np.array(boxes, np.float32)
    if people is not None:
        people = np.array(people, np.float32)
    return Annotations(
        keys=names,
        files=tuple(f"{name}.jpg" for name in names),
        joints=joints,
        status=status,
        boxes=boxes,
        people=people,
    )


def test_window_golden():
    # The box of (10, 20), (30, 60) and (15, 25) is 20 by 40 pixels round (20, 40);
    # 1.75 longer sides are 70 pixels. Occluded joints count.
    annotations = annotate(
        [[(10, 20), (30, 60), (15, 25)]], [[VISIBLE, OCCLUDED, VISIBLE]]
    )
    assert crop_windows(annotations, "joints", 1.75).tolist() == [[20, 40, 70]]


def test_window_of_the_longer_side_may_be_the_width():
    annotations = annotate([[(0, 20), (80, 30)]], [[VISIBLE, VISIBLE]])
    assert crop_windows(annotations, "joints", 1.5).tolist() == [[40, 25, 120]]


def test_one_joint_still_has_a_window():
    annotations = annotate([[(10, 20), (0, 0)]], [[VISIBLE, ABSENT]])
    assert crop_windows(annotations, "joints", 1.75).tolist() == [[10, 20, 8]]


def test_window_of_the_person_box():
    # A box of 40 by 20 pixels round (20, 20). No joint is needed.
    boxes = [(0, 10, 40, 30)] * 2
    joints = [[(5, 5)], [(0, 0)]]
    annotations = annotate(joints, [[VISIBLE], [ABSENT]], boxes)
    assert crop_windows(annotations, "box", 1.75).tolist() == [[20, 20, 70]] * 2


def test_an_absent_joint_cannot_have_a_coordinate():
    with pytest.raises(ValueError, match="an absent joint must have no coordinate"):
        Annotations(
            keys=("a",),
            files=("a",),
            joints=np.array([[(1, 2), (-7, -7)]], np.float32),
            status=np.array([[VISIBLE, ABSENT]], np.int8),
        )


def test_placeholders_of_absent_joints_do_not_move_the_window(tmp_path):
    rng = np.random.default_rng(0)
    count = 6
    joints = np.zeros((count, 14, 3))
    joints[..., :2] = rng.uniform(10, 90, (count, 14, 2))
    joints[..., 2] = rng.random((count, 14)) < 0.7
    windows = []
    for placeholder in (0.0, -3.5, -5000.0):
        joints[joints[..., 2] == 0, :2] = placeholder
        miniature.save_joints(tmp_path, "lspet", joints)
        annotations = lsp.read_lspet_annotations(str(tmp_path))
        windows.append(crop_windows(annotations, "joints", 1.75))
    there = joints[2, joints[2, :, 2] == 1, :2]
    expected = (there.min(axis=0) + there.max(axis=0)) / 2
    assert np.allclose(windows[0][2, :2], expected, atol=1e-4)
    assert np.array_equal(windows[0], windows[1])
    assert np.array_equal(windows[0], windows[2])


def test_no_joint_is_an_error_that_names_the_image():
    annotations = annotate([[(1, 2)], [(3, 4)]], [[VISIBLE], [ABSENT]])
    message = r"im1\.jpg \(index 1\) has no annotated joint: data\.crop=joints cannot"
    with pytest.raises(DataError, match=message):
        crop_windows(annotations, "joints", 1.75)


def test_box_crops_without_boxes_are_an_error():
    annotations = annotate([[(1, 2)]], [[VISIBLE]])
    with pytest.raises(DataError, match=r"data\.crop=box needs person boxes"):
        crop_windows(annotations, "box", 1.75)


def test_official_window_golden():
    # MPII's scale 2 is a person of 400 pixels: the centre goes down by 15 * 2 = 30 and
    # the window is 1.25 * 400 = 500 pixels; the joint says nothing.
    annotations = annotate([[(5, 5)]], [[VISIBLE]], people=[(300, 200, 400)])
    windows = crop_windows(annotations, "official", 1.25)
    assert windows.tolist() == [[300, 230, 500]]
    assert windows.dtype == np.float32


def test_official_crops_need_a_centre_and_a_height_of_everybody():
    annotations = annotate([[(1, 2)]], [[VISIBLE]])
    message = r"data\.crop=official needs centres and heights.*use data\.crop=joints"
    with pytest.raises(DataError, match=message):
        crop_windows(annotations, "official", 1.25)
    people = [(1, 2, 3), (np.nan,) * 3, (np.nan,) * 3]
    annotations = annotate([[(1, 2)]] * 3, [[VISIBLE]] * 3, people=people)
    with pytest.raises(DataError, match=r"im1 \(index 1\), and 1 more, has none of"):
        crop_windows(annotations, "official", 1.25)


def test_unknown_crop():
    annotations = annotate([[(1, 2)]], [[VISIBLE]])
    with pytest.raises(ValueError, match="unknown crop='tight'; known: joints, box"):
        crop_windows(annotations, "tight", 1.0)


@pytest.mark.parametrize("field", ["boxes", "people"])
def test_a_wrong_number_of_boxes_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} of 1 examples must have the shape"):
        annotate([[(1, 2)]], [[VISIBLE]], **{field: [(0, 0, 1), (0, 0, 1)]})
