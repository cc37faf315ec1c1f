"""CVAT's XML: skeletons with absent and hidden joints, and the labels to paste."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import cvat
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, skeleton_named
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE

SKELETON = skeleton_named("mouse", ("nose", "left ear", "tail & end"), ((0, 1), (0, 2)))


def poses():
    return Poses(
        skeleton=SKELETON,
        images=(
            Image(file="cage 1/ä & b.png", size=(200, 100)),
            Image(file="empty.png", size=(20, 10)),
        ),
        instances=(
            Instance(
                file="cage 1/ä & b.png",
                joints=np.array([[10.25, 20], [199, 99], [np.nan, np.nan]]),
                status=np.array([VISIBLE, OCCLUDED, ABSENT], np.int8),
            ),
        ),
    )


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "annotations.xml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_all_joints_are_there_and_absent_ones_outside():
    root = ElementTree.fromstring(cvat.text_of(poses()).encode())
    (skeleton,) = root.iter("skeleton")
    assert skeleton.attrib == {"label": "mouse", "source": "auto", "z_order": "0"}
    points = [
        tuple(p.get(k) for k in ("label", "outside", "occluded", "points"))
        for p in skeleton.iter("points")
    ]
    # Half a pixel: places are measured from the corner of the image.
    assert points == [
        ("nose", "0", "0", "10.75,20.50"),
        ("left ear", "0", "1", "199.50,99.50"),
        ("tail & end", "1", "0", "0.00,0.00"),
    ]
    (first, _) = root.iter("image")
    assert first.attrib == {
        "id": "0",
        "name": "cage 1/ä & b.png",
        "width": "200",
        "height": "100",
    }


@pytest.mark.parametrize("skeleton", [SKELETON, None])
def test_what_is_written_is_read_back(write, skeleton):
    found = cvat.read(write(cvat.text_of(poses())), skeleton=skeleton)
    (one,), (wanted,) = found.instances, poses().instances
    np.testing.assert_allclose(one.joints, wanted.joints, atol=1e-9)
    np.testing.assert_array_equal(one.status, wanted.status)
    assert found.images == poses().images
    assert found.skeleton.joints == SKELETON.joints


def test_a_skeleton_that_is_all_outside_is_nobody(write):
    text = cvat.text_of(poses()).replace('outside="0"', 'outside="1"')
    assert cvat.read(write(text), skeleton=SKELETON).instances == ()


def test_a_picture_is_rejected_by_its_tag(write):
    tag = '<tag label="rejected" source="manual"></tag></image>\n</annotations>'
    text = cvat.text_of(poses()).replace("</image>\n</annotations>", tag)
    assert cvat.rejected(write(text)) == ("empty.png",)
    assert cvat.rejected(write(cvat.text_of(poses()))) == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('label="nose"', 'label="snout"', "the joint snout, which is not one of nose"),
        ('label="nose"', 'label="left ear"', "left ear is there twice"),
        ("10.75,20.50", "10.75", "nose has the place '10.75'"),
        ("10.75,20.50", "nan,20.5", "is not finite"),
        ('name="cage 1', 'name="../cage 1', "leads out of the images"),
    ],
)
def test_what_cannot_be_is_named_with_its_image(write, old, new, words):
    path = write(cvat.text_of(poses()).replace(old, new))
    with pytest.raises(DataError, match=words) as error:
        cvat.read(path, skeleton=SKELETON)
    assert "Image 0 of" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotations><track/></annotations>", "export it for images"),
        ("<annotations><image>", "Cannot read"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "document type or entities"),
    ],
)
def test_other_files_are_refused(write, text, words):
    with pytest.raises(DataError, match=words):
        cvat.read(write(text))


def test_labels_to_paste_have_every_joint_and_a_picture():
    places = np.array([[0, 0], [1, 2], [np.nan, np.nan]])
    skeleton, tag = json.loads(cvat.labels_of(SKELETON, places))
    assert tag == {"name": "rejected", "type": "tag", "attributes": []}
    assert [s["name"] for s in skeleton["sublabels"]] == list(SKELETON.joints)
    drawn = ElementTree.fromstring(f"<svg>{skeleton['svg']}</svg>")
    nodes = [c.get("data-label-name") for c in drawn.iter("circle")]
    assert nodes == list(SKELETON.joints)
    edges = [(e.get("data-node-from"), e.get("data-node-to")) for e in drawn.iter("line")]
    assert edges == [("1", "2"), ("1", "3")]
    for circle in drawn.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= 100
