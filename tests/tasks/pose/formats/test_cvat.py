"""CVAT's XML: skeletons, single points, groups, and what is refused."""

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import cvat, reading
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE

META = (
    "<meta><task><labels><label><name>nose</name><parent>mouse</parent></label><label>"
    "<name>tail</name><parent>mouse</parent></label><label><name>mouse</name></label>"
    "</labels></task></meta>"
)
TAIL = '<points label="tail" outside="0" occluded="1" points="30.25,22.00"/>'
NOSE = '<points label="nose" outside="0" occluded="0" points="10.00,20.50"/>'
GONE = '<points label="nose" outside="1" occluded="0" points="0.00,0.00"/>'


def document(*inside, meta=META, name="day 1/ä.png"):
    image = (
        f'<image id="0" name="{name}" width="60" height="40">{"".join(inside)}</image>'
    )
    return f'<?xml version="1.0"?><annotations>{meta}{image}</annotations>'


def skeleton(*points):
    return f'<skeleton label="mouse" z_order="0">{"".join(points)}</skeleton>'


def read(tmp_path, text):
    path = tmp_path / "annotations"
    path.write_text(text, encoding="utf-8")
    return reading.read(path)


def test_skeletons(tmp_path):
    found = read(tmp_path, document(skeleton(TAIL, NOSE), skeleton(GONE, TAIL)))
    assert found.skeleton.joints == ("nose", "tail")
    assert found.skeleton.name == "mouse2" and found.images[0].size == (60, 40)
    one, two = found.instances
    assert (one.file, one.id, two.id) == ("day 1/ä.png", "1", "2")
    assert one.joints.tolist() == [[10, 20.5], [30.25, 22]]
    assert one.status.tolist() == [VISIBLE, OCCLUDED]
    assert two.status.tolist() == [ABSENT, OCCLUDED] and np.isnan(two.joints[0]).all()


def test_single_points_and_groups(tmp_path):
    found = read(tmp_path, document(NOSE, TAIL, meta=""))
    (one,) = found.instances
    assert one.id == "" and one.labelled and found.skeleton.joints == ("nose", "tail")
    first, second = (
        NOSE.replace("<points", f'<points group_id="{group}"') for group in (1, 2)
    )
    box = '<box label="mouse" group_id="2" xtl="1" ytl="2" xbr="11" ybr="22"/>'
    one, two = read(tmp_path, document(first, second, box)).instances
    assert one.box is None and two.box.tolist() == [0.5, 1.5, 10.5, 21.5]


def box(x, y, far, low, **more):
    more = "".join(f' {name}="{value}"' for name, value in more.items())
    return f'<box label="b"{more} xtl="{x}" ytl="{y}" xbr="{far}" ybr="{low}"/>'


def test_a_box_that_was_turned_is_the_box_round_it(tmp_path):
    # 40 x 10 pixels round (30, 20), turned about that.
    (one,) = read(tmp_path, document(NOSE, box(10, 15, 50, 25, rotation=90))).instances
    np.testing.assert_allclose(one.box, [24.5, -0.5, 34.5, 39.5])


def grouped(number, *points):
    return skeleton(*points).replace("<skeleton", f'<skeleton group_id="{number}"')


def test_a_box_beside_a_skeleton_is_the_persons(tmp_path, caplog):
    person = skeleton(NOSE, TAIL)
    (one,) = read(tmp_path, document(person, box(9, 19, 31, 24))).instances
    assert one.box.tolist() == [8.5, 18.5, 30.5, 23.5] and one.id == ""
    assert one.status.tolist() == [VISIBLE, OCCLUDED]
    # Of two people each has its own, in whatever order.
    other = person.replace("22.00", "35.00").replace("20.50", "33.00")
    boxes = box(9, 32, 31, 36), box(9, 19, 31, 24)
    one, two = read(tmp_path, document(person, other, *boxes)).instances
    assert (one.box[1], two.box[1]) == (18.5, 31.5)
    # A group says it, wherever the box is.
    groups = grouped(1, NOSE, TAIL), grouped(2, NOSE, TAIL)
    boxes = box(9, 19, 31, 24, group_id=2), box(1, 1, 2, 2, group_id=1)
    one, two = read(tmp_path, document(*groups, *boxes)).instances
    assert one.box.tolist() == [0.5, 0.5, 1.5, 1.5] and two.box[1] == 18.5
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    "boxes",
    [
        (box(40, 1, 59, 9),),  # of something else
        (box(9, 19, 31, 24), box(5, 5, 50, 39)),  # which of them?
        (box(9, 19, 31, 24, group_id=3),),  # of another group
    ],
)
def test_boxes_that_are_nobodys_are_left_out_and_told(tmp_path, caplog, boxes):
    found = read(tmp_path, document(skeleton(NOSE, TAIL), *boxes))
    (one,) = found.instances
    assert one.box is None and one.labelled
    assert f"{len(boxes)} boxes are left out" in caplog.text


def test_a_box_round_two_people_is_neithers(tmp_path, caplog):
    people = skeleton(NOSE, TAIL), skeleton(NOSE, TAIL)
    one, two = read(tmp_path, document(*people, box(1, 1, 59, 39))).instances
    assert one.box is None and two.box is None
    assert "1 boxes are left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (document(NOSE, NOSE), "nose is there twice: two people"),
        (document(skeleton(NOSE.replace("nose", "eye"))), "no joint 'eye'"),
        (document(NOSE.replace("10.00,20.50", "1,2;3,4")), "nose has 2 places"),
        (document(NOSE.replace("10.00", "99999")), "beyond 32,768"),
        (document(NOSE.replace("10.00,", "")), "not enough values to unpack"),
        (document(NOSE.replace("10.00", "x")), "could not convert"),
        (document(NOSE, name="../a.png"), "leads out of the images"),
        ("<annotations><track/></annotations>", "CVAT for video"),
        ("<annotations><image", "Cannot read .* as XML"),
        ("<annotations></annotations>", "marks no skeleton"),
        ("<other/>", "none of the formats"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_what_is_written_is_read_back(tmp_path):
    found = read(tmp_path, document(skeleton(NOSE, TAIL), skeleton(GONE, TAIL)))
    text = cvat.xml_of(found)
    assert text.count("<points") == 4 and 'outside="1"' in text
    again = read(tmp_path, text)
    assert again.images == found.images
    for one, two in zip(found.instances, again.instances, strict=True):
        np.testing.assert_array_equal(one.joints, two.joints)
        np.testing.assert_array_equal(one.status, two.status)
        assert one.id == two.id


def test_boxes_are_written_in_a_group_with_their_skeletons(tmp_path):
    """Also of two people on one another, whose boxes hold both of their joints."""
    groups = grouped(1, NOSE, TAIL), grouped(2, GONE, TAIL)
    boxes = box(9, 19, 31.25, 24, group_id=1), box(8, 18, 32, 25.5, group_id=2)
    found = read(tmp_path, document(*groups, *boxes))
    text = cvat.xml_of(found)
    assert text.count('label="mouse_bbox"') == 2 and text.count('group_id="2"') == 2
    again = read(tmp_path, text)
    assert [one.id for one in again.instances] == ["1", "2"]
    for one, two in zip(found.instances, again.instances, strict=True):
        np.testing.assert_array_equal(one.box, two.box)
        np.testing.assert_array_equal(one.joints, two.joints)
