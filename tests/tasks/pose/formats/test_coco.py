"""COCO's keypoint format: any skeleton, statuses, boxes, and what is refused."""

import json
import logging
import os

import numpy as np
import pytest
from PIL import Image

from jalpose.data.source import DataError
from jalpose.tasks.pose import drawings, pck
from jalpose.tasks.pose.examples import in_order_of, labelled_examples
from jalpose.tasks.pose.formats import coco
from jalpose.tasks.pose.formats.poses import mirror_pairs
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE
from tests.support import coco_miniature as mini
from tests.support import miniature

FILE = "annotations/person_keypoints_val2017.json"


def read(path, **options):
    """Skeleton, labels and sizes of the images of everybody with a joint."""
    found = coco.read(path, **options)
    labels, sizes = labelled_examples(found, "mice/images", name="mice", path=str(path))
    return found.skeleton, labels, sizes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mice.json"


def test_labels_as_they_are_shipped(path):
    skeleton, labels, sizes = read(mini.write(path))
    assert skeleton.name == "mouse4" and skeleton.joints == mini.JOINTS
    assert skeleton.limbs == ((0, 1), (0, 2), (0, 3))
    assert skeleton.flip_pairs == ((1, 2),) and skeleton.torso == ()
    assert labels.keys == ("mice/images/001.jpg#1",)
    assert labels.files == ("mice/images/001.jpg",)
    assert labels.status.tolist() == [[VISIBLE, OCCLUDED, ABSENT, VISIBLE]]
    nan = np.nan
    expected = [[(10, 20), (12, 18), (nan, nan), (30, 22)]]
    np.testing.assert_array_equal(labels.joints, np.array(expected, np.float32))
    # From the corner of the image: half a pixel before the first one's centre.
    np.testing.assert_array_equal(labels.boxes, [(7.5, 14.5, 31.5, 24.5)])
    assert sizes.tolist() == [[60, 40]]


def test_several_animals_in_an_image_and_images_of_nobody(path, caplog):
    mice = [
        mini.annotation(1, image_id=2),
        mini.annotation(2, image_id=2, keypoints=[0] * 12),
        mini.annotation(3, image_id=2, iscrowd=1),
        mini.annotation(4, image_id=3, bbox=[0, 0, 0, 0]),
        mini.annotation(5, image_id=3, category_id=8, keypoints=[]),
    ]
    without = mini.annotation(6, image_id=1)
    del without["bbox"], without["num_keypoints"], without["iscrowd"]
    images = [mini.image(n, file_name=f"day/{n}.png") for n in (1, 2, 3, 4)]
    path = mini.write(
        path,
        images=images,
        annotations=[*mice, without],
        categories=[mini.category(), {"id": 8, "name": "cage"}],
    )
    with caplog.at_level(logging.INFO):
        _, labels, _ = read(path)
    assert labels.keys == (
        "mice/images/day/2.png#1",
        "mice/images/day/3.png#4",
        "mice/images/day/1.png#6",
    )
    assert np.isnan(labels.boxes).all(axis=1).tolist() == [False, True, True]
    assert "mice: left out 2 of 5 annotations" in caplog.text


def test_no_boxes_at_all(path):
    _, labels, _ = read(mini.write(path, annotations=[mini.annotation(bbox=[])]))
    assert labels.boxes is None


def test_one_category_of_several(path):
    other = mini.category(id=8, name="rat", keypoints=["nose"], skeleton=[])
    rat = mini.annotation(2, image_id=1, category_id=8, keypoints=[3, 4, 2])
    mini.write(
        path,
        categories=[mini.category(), other],
        annotations=[mini.annotation(), rat],
    )
    skeleton, labels, _ = read(path, category="rat")
    assert skeleton.joints == ("nose",) and labels.keys == ("mice/images/001.jpg#2",)
    with pytest.raises(DataError, match="of 2 categories these have: mouse, rat"):
        read(path)
    with pytest.raises(DataError, match="no category 'cat' with keypoints"):
        read(path, category="cat")


def test_a_byte_order_mark(path):
    path.write_text("\ufeff" + mini.write(path).read_text(), encoding="utf-8")
    assert len(read(path)[1]) == 1


@pytest.mark.parametrize(
    ("joints", "pairs"),
    [
        (("left_eye", "nose", "right_eye"), ((0, 2),)),
        (("right eye", "left eye"), ((1, 0),)),
        (("EyeLeft", "EyeRight"), ((0, 1),)),
        (("leftear", "rightear"), ((0, 1),)),
        (("l_eye", "r_eye"), ((0, 1),)),
        (("eye.L", "eye.R", "tail"), ((0, 1),)),
        (("LEye", "REye"), ((0, 1),)),
        (("l_paw_1", "l_paw_2", "r_paw_1", "r_paw_2"), ((0, 2), (1, 3))),
        (("left_eye", "nose"), ()),
        (("tail", "tair"), ()),
    ],
)
def test_mirror_pairs_by_name(joints, pairs):
    assert mirror_pairs(joints) == pairs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no list of images, categories, annotations"),
        ({"images": [], "annotations": []}, "no list of categories"),
    ],
)
def test_another_format(path, content, message):
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read(path)


def test_no_file_and_no_json(path):
    with pytest.raises(DataError, match=r"Cannot read '.*mice\.json' as JSON"):
        read(path)
    path.write_text('{"images": [')
    with pytest.raises(DataError, match=r"Cannot read '.*mice\.json' as JSON"):
        read(path)


def test_a_file_of_boxes_alone(path):
    mini.write(path, categories=[{"id": 1, "name": "person"}])
    with pytest.raises(DataError, match="Is there a person_keypoints file beside it"):
        read(path)


NAN, FAR = float("nan"), 65535


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": [1, 2, 2]}, "3 numbers in keypoints, not 3 of each of the 4"),
        ({"keypoints": [1, 2, 3] * 4}, "a v of 3, which is not 0, 1 or 2"),
        ({"keypoints": [1, NAN, 2] * 4}, "snout has the place.*not finite"),
        ({"keypoints": [1, 2, 1] * 3 + [FAR, 2, 2]}, "tail .*beyond 32,768 pixels"),
        ({"keypoints": [1, 2, 2] * 3 + [0, 0, 2]}, "tail .*is a placeholder"),
        ({"image_id": 9}, "no image of that id"),
        ({"category_id": "7"}, "its category_id is '7', and the categories have 7"),
        ({"bbox": [0, 0, -3, 5]}, "its bbox is"),
        ({"bbox": [0, 0, 1e6, 5]}, "its bbox .*beyond 32,768 pixels"),
        ({"bbox": [0, 0, 5]}, "its bbox has 3 numbers, not 4"),
    ],
)
def test_what_a_joint_or_box_cannot_be(path, changes, message):
    mini.write(path, annotations=[mini.annotation(4, **{"image_id": 1, **changes})])
    with pytest.raises(DataError, match=rf"Annotation 0 of .*id 4.*{message}"):
        read(path)


def test_an_id_that_is_there_twice(path):
    mini.write(path, annotations=[mini.annotation(), mini.annotation()])
    with pytest.raises(DataError, match=r"Annotation 1 of .*another of the id 1"):
        read(path)
    mini.write(path, images=[mini.image(), mini.image()])
    with pytest.raises(DataError, match=r"Image 1 of .*another of the id 1"):
        read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_name": None}, "its file_name is None"),
        ({"file_name": "../secret.jpg"}, "leads out of the images"),
        ({"file_name": "/secret.jpg"}, "leads out of the images"),
        ({"width": 0}, "0 x 40 pixels"),
        ({"width": float("inf")}, "cannot convert float infinity"),
        ({"height": None}, "Image 0 of"),
    ],
)
def test_what_an_image_cannot_be(path, changes, message):
    mini.write(path, images=[mini.image(**changes)])
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skeleton": [[0, 1]]}, r"link \[0, 1\].*counted from 1"),
        ({"skeleton": [[1, 5]]}, r"link \[1, 5\].*counted from 1"),
        ({"keypoints": ["snout"] * 4}, "two of its keypoints have the same name"),
        ({"keypoints": [1, 2, 3, 4]}, "its keypoints are not names"),
    ],
)
def test_what_a_category_cannot_be(path, changes, message):
    mini.write(path, categories=[mini.category(**changes)])
    with pytest.raises(DataError, match=f"category 'mouse' of .*{message}"):
        read(path)


def test_nobody(path):
    mini.write(path, annotations=[mini.annotation(keypoints=[0] * 12)])
    with pytest.raises(DataError, match="None of the 1 annotations of 'mouse4'"):
        read(path)


def test_a_skeleton_without_a_torso_is_drawn_and_not_measured_in_torsos(path):
    skeleton, labels, _ = read(mini.write(path))
    image = np.full((40, 60, 3), 90, np.uint8)
    drawn = drawings.draw_pose(image, labels.joints[0], labels.status[0], skeleton)
    assert (drawn != image).any()
    lengths = pck.torso_lengths(labels.joints, labels.status, skeleton)
    assert np.isnan(lengths).all()


def test_what_is_written_is_read_back(path, tmp_path):
    mice = [mini.annotation(1), mini.annotation(2, image_id=1, bbox=[1.25, 0, 3.5, 9])]
    nobody = mini.image(2, file_name="nöbody in it/2 b.jpg")
    found = coco.read(mini.write(path, images=[mini.image(), nobody], annotations=mice))
    other = tmp_path / "written.json"
    other.write_text(json.dumps(coco.content_of(found)))
    again = coco.read(other)
    assert again.skeleton == found.skeleton and again.images == found.images
    for one, two in zip(found.instances, again.instances, strict=True):
        np.testing.assert_array_equal(one.joints, two.joints)
        np.testing.assert_array_equal(one.status, two.status)
        np.testing.assert_array_equal(one.box, two.box)
        assert (one.file, one.id) == (two.file, two.id)
    entry = json.loads(other.read_text())["annotations"][0]
    assert entry["keypoints"][6:9] == [0, 0, 0] and entry["num_keypoints"] == 3
    assert entry["segmentation"] == [] and entry["area"] == 240


def test_a_file_of_boxes_alone_for_who_has_a_skeleton(path):
    skeleton = coco.read(mini.write(path)).skeleton
    box = mini.annotation(category_id=1)
    del box["keypoints"]
    mini.write(path, categories=[{"id": 1, "name": "mouse"}], annotations=[box])
    (found,) = coco.read(path, skeleton=skeleton).instances
    assert not found.labelled and found.box.tolist() == [7.5, 14.5, 31.5, 24.5]
    many = [{"id": 1, "name": "mouse"}, {"id": 2, "name": "cage"}]
    mini.write(path, categories=many, annotations=[box])
    with pytest.raises(DataError, match="these are there: mouse, cage"):
        coco.read(path, skeleton=skeleton)


def test_joints_are_put_in_the_order_of_the_others(path):
    first = coco.read(mini.write(path))
    names = [mini.JOINTS[i] for i in (3, 1, 0, 2)]
    turned = mini.annotation(keypoints=[30, 22, 2, 12, 18, 1, 10, 20, 2, 0, 0, 0])
    other = coco.read(
        mini.write(
            path, categories=[mini.category(keypoints=names)], annotations=[turned]
        )
    )
    again = in_order_of(other, first.skeleton, "turned.json")
    np.testing.assert_array_equal(again.instances[0].joints, first.instances[0].joints)
    assert again.skeleton is first.skeleton
    fewer = mini.category(keypoints=["nose", *mini.JOINTS[1:]])
    other = coco.read(mini.write(path, categories=[fewer]))
    with pytest.raises(DataError, match=r"it lacks snout; only it has nose"):
        in_order_of(other, first.skeleton, "other.json")


@pytest.mark.data
def test_the_real_file():
    root = miniature.real_data_dir("coco", FILE)
    if root is None:
        pytest.skip("no real data")
    folder = os.path.join(root, "coco")
    path = os.path.join(folder, FILE)
    poses = coco.read(path)
    skeleton = poses.skeleton
    found = labelled_examples(poses, "coco/val2017", name="coco", path=path)
    labels, sizes = found
    assert skeleton.num_joints == 17 and len(skeleton.flip_pairs) == 8
    names = [{skeleton.joints[j] for j in diagonal} for diagonal in skeleton.torso]
    assert names == [{"left_shoulder", "right_hip"}, {"right_shoulder", "left_hip"}]
    assert (np.sort(skeleton.mirror) == np.arange(17)).all()
    for file, size in zip(labels.files, sizes, strict=True):
        with Image.open(os.path.join(root, file)) as image:
            assert image.size == tuple(size)
    # The file's own count of annotated joints.
    with open(os.path.join(folder, FILE)) as file:
        entries = {one["id"]: one for one in json.load(file)["annotations"]}
    counts = [entries[int(key.split("#")[-1])]["num_keypoints"] for key in labels.keys]
    assert (labels.status != ABSENT).sum(axis=1).tolist() == counts
    assert len(labels) == sum(one["num_keypoints"] > 0 for one in entries.values())


def test_what_is_written_is_loaded_by_pycocotools(path):
    tools = pytest.importorskip(
        "pycocotools.coco", reason="pycocotools is not installed"
    )
    found = coco.read(mini.write(path))
    path.write_text(json.dumps(coco.content_of(found)))
    loaded = tools.COCO(str(path))
    (entry,) = loaded.loadAnns(loaded.getAnnIds(iscrowd=0))
    assert entry["keypoints"][:3] == [10, 20, 2] and entry["bbox"] == [8, 15, 24, 10]
    assert loaded.loadCats([1])[0]["keypoints"] == list(mini.JOINTS)
