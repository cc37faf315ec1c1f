"""Poses handed out and read back: what tools are set up with, what is refused."""

import json
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
import pytest

from jalpose.tasks.exchange import Request, UnreadableError
from jalpose.tasks.pose import tool_setups
from jalpose.tasks.pose.exchange import PoseExchange
from jalpose.tasks.pose.formats import reading
from jalpose.tasks.pose.formats.poses import skeleton_named
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE

SKELETON = skeleton_named("mouse", ("nose", "left ear", "right ear"), ((0, 1), (0, 2)))
BOXES = np.array([[10, 10, 50, 50], [np.nan] * 4], np.float32)
EXCHANGE = PoseExchange(SKELETON, BOXES, peak=30.0)
PLACES = np.array([[300, 200], [320, 180], [340, 190.5]], np.float32)


def request(rank=1, name="000005_a.png", window=(320, 200, 200), size=(640, 480)):
    return Request(
        rank=rank,
        id=4 + rank,
        name=name,
        key="cage/a",
        file="cage/a.jpg",
        size=size,
        window=None if window is None else np.array(window, np.float32),
        box=(219.5, 99.5, 419.5, 299.5),
        score=1.5,
        why="score 1.5 <of> egl & more",
        predicted={"joints": PLACES, "peaks": np.array([15, 45, -1], np.float32)},
    )


def label(joints=PLACES, status=(VISIBLE,) * 3):
    status = np.array(status, np.int8)
    joints = np.where(status[:, None] == ABSENT, np.nan, joints)
    return {"joints": joints.astype(np.float32), "status": status}


@pytest.fixture
def folder(tmp_path):
    requests = [request(), request(2, "000006_b.png", window=None)]
    place = tmp_path / ".cycle_03.0123.tmp" / "cycle_03"
    place.mkdir(parents=True)
    EXCHANGE.write(place, requests, "images")
    return place


def read(path):
    return EXCHANGE.read(Path(path), PurePosixPath(path.name))


@pytest.mark.parametrize(
    "name", ["coco.json", "cvat.xml", "machinelabels.csv", "label_studio.json"]
)
def test_every_file_has_the_guesses_in_its_format(folder, name):
    if name == "label_studio.json":  # predictions are no labels: make them some
        tasks = json.loads((folder / name).read_bytes())
        for task in tasks:
            task["annotations"] = task.pop("predictions")
        (folder / name).write_text(json.dumps(tasks))
    one, other = read(folder / name)
    assert [Path(found.name).name for found in (one, other)] == [
        "000005_a.png",
        "000006_b.png",
    ]
    for found in (one, other):
        np.testing.assert_allclose(found.label["joints"], PLACES, atol=1e-3)
        assert not found.rejected and found.size in (None, (640, 480))


def test_guesses_outside_the_image_are_moved_to_its_edge(tmp_path):
    far = np.array([[-30, 10], [700, 479.4], [5, 6]], np.float32)
    one = request()._replace(predicted={"joints": far})
    EXCHANGE.write(tmp_path, [one], "images")
    (found,) = read(tmp_path / "coco.json")
    wanted = [[0, 10], [639, 479], [5, 6]]
    np.testing.assert_array_equal(found.label["joints"], wanted)


def test_confidences_are_shares_of_a_sure_peak(folder):
    content = json.loads((folder / "coco.json").read_bytes())
    assert content["annotations"][0]["confidence"] == [0.5, 1.0, 0.0]
    (task, _) = json.loads((folder / "label_studio.json").read_bytes())
    points = [
        region["score"]
        for region in task["predictions"][0]["result"]
        if region["type"] == "keypointlabels"
    ]
    assert points == [0.5, 1.0, 0.0]


def test_tasks_say_why_and_where_the_image_is(folder):
    (task, _) = json.loads((folder / "label_studio.json").read_bytes())
    assert task["data"] == {
        "image": "/data/local-files/?d=images/000005_a.png",
        "id": 5,
        "key": "cage/a",
        "rank": 1,
        "why": "score 1.5 <of> egl & more",
    }


def test_frames_of_deeplabcut_are_in_the_folder_of_their_cycle(folder):
    rows = (folder / "machinelabels.csv").read_text().splitlines()
    assert rows[3].startswith("labeled-data,cycle_03,000005_a.png,")


def test_the_interface_names_every_joint_and_a_way_to_reject(folder):
    root = ElementTree.parse(folder / "label_studio_config.xml").getroot()
    labels = root.find("KeyPointLabels").findall("Label")
    assert [one.get("value") for one in labels] == list(SKELETON.joints)
    assert [c.get("value") for c in root.iter("Choice")] == ["rejected"]


def test_labels_of_cvat_have_every_joint_and_a_picture_of_them(folder):
    skeleton, box, tag = json.loads((folder / "cvat_labels.json").read_bytes())
    assert tag == {"name": "rejected", "type": "tag", "attributes": []}
    written = ElementTree.parse(folder / "cvat.xml").getroot()
    assert written.find("image/skeleton").get("label") == skeleton["name"] == "mouse"
    assert written.find("image/box").get("label") == box["name"] == "mouse_bbox"
    assert box["type"] == "rectangle"
    assert [s["name"] for s in skeleton["sublabels"]] == list(SKELETON.joints)
    drawn = ElementTree.fromstring(f"<svg>{skeleton['svg']}</svg>")
    nodes = [c.get("data-label-name") for c in drawn.iter("circle")]
    assert nodes == list(SKELETON.joints)
    edges = [
        (e.get("data-node-from"), e.get("data-node-to")) for e in drawn.iter("line")
    ]
    assert edges == [("1", "2"), ("1", "3")]
    for circle in drawn.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= 100


def test_joints_that_lie_close_together_are_to_be_seen_from_near():
    def close_up(joints, window=(320, 240, 640)):
        joints = np.array(joints, np.float32)
        return EXCHANGE.close_up(
            request(window=window)._replace(predicted={"joints": joints})
        )

    spread = [[100, 100], [300, 100], [np.nan, 0]]
    assert close_up(spread) is None
    small = [[100, 100], [180, 140], [np.nan, 0]]
    np.testing.assert_allclose(close_up(small), [140, 120, 160])
    np.testing.assert_allclose(close_up(small, None), [140, 120, 160])
    # On one spot: not closer than a tenth. Of a small window a fourth is less.
    np.testing.assert_allclose(close_up([[9, 9]] * 3), [9, 9, 64])
    assert close_up(small, (140, 120, 200)) is None
    assert close_up(np.full((3, 2), np.nan)) is None


def test_the_box_that_says_who_is_meant_is_drawn_in_every_tool(folder):
    (entry, _) = json.loads((folder / "coco.json").read_bytes())["annotations"]
    assert entry["bbox"] == [220, 100, 200, 200]
    (task, _) = json.loads((folder / "label_studio.json").read_bytes())
    (box,) = [
        region["value"]
        for region in task["predictions"][0]["result"]
        if region["type"] == "rectanglelabels"
    ]
    sides = [box[name] / 100 for name in ("x", "y", "width", "height")]
    np.testing.assert_allclose(np.array(sides) * [640, 480, 640, 480], entry["bbox"])
    image = ElementTree.parse(folder / "cvat.xml").getroot().find("image")
    (box,) = image.findall("box")
    sides = [float(box.get(name)) for name in ("xtl", "ytl", "xbr", "ybr")]
    assert sides == [220, 100, 420, 300]
    assert box.get("group_id") == image.find("skeleton").get("group_id") == "1"


def test_a_box_round_the_whole_image_is_in_nobodys_way(tmp_path):
    EXCHANGE.write(tmp_path, [request()._replace(box=(-0.5, -0.5, 639.5, 479.5))], "i")
    assert "<box" not in (tmp_path / "cvat.xml").read_text()
    assert "rectanglelabels" not in (tmp_path / "label_studio.json").read_text()
    (entry,) = json.loads((tmp_path / "coco.json").read_bytes())["annotations"]
    assert entry["bbox"] == [0, 0, 640, 480]


def test_without_a_folder_of_images_deeplabcut_is_left_out(tmp_path):
    EXCHANGE.write(tmp_path, [request()], "")
    assert not (tmp_path / "machinelabels.csv").exists()
    (task,) = json.loads((tmp_path / "label_studio.json").read_bytes())
    assert task["data"]["image"] == "/data/local-files/?d=000005_a.png"


# What comes back.


def test_pictures_without_a_pose_are_there_and_not_labelled(folder):
    path = folder / "coco.json"
    content = json.loads(path.read_bytes())
    content["annotations"][1]["keypoints"] = [0] * 9
    path.write_text(json.dumps(content))
    one, other = read(path)
    assert one.label is not None
    assert other.name == "000006_b.png" and other.label is None and not other.rejected


def test_a_picture_is_rejected_in_label_studio_by_a_choice(folder):
    path = folder / "label_studio.json"
    tasks = json.loads(path.read_bytes())
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    choice = {"id": "c", "type": "choices", "value": {"choices": ["rejected"]}}
    tasks[1]["annotations"][0]["result"].append(choice)
    path.write_text(json.dumps(tasks))
    one, other = read(path)
    assert one.label is not None and not one.rejected
    assert other.rejected and other.label is None and "000006_b.png" in other.name


def test_a_picture_is_rejected_in_cvat_by_a_tag(folder):
    path = folder / "cvat.xml"
    root = ElementTree.parse(path).getroot()
    ElementTree.SubElement(root.findall("image")[1], "tag", {"label": "rejected"})
    ElementTree.ElementTree(root).write(path)
    assert tool_setups.rejected(path, reading.format_of(path)) == ("000006_b.png",)
    assert [found.rejected for found in read(path)] == [False, True]


def without(tag, image):
    for one in image.findall(tag):
        image.remove(one)


# What annotators do with a box, who care for the joints alone.
BOXES = {
    "left as it is": lambda image: None,
    "deleted": lambda image: without("box", image),
    "moved": lambda image: image.find("box").attrib.update(xtl="1", ytl="1"),
    "taken out of its group": lambda image: image.find("box").attrib.pop("group_id"),
    "drawn once more": lambda image: image.append(
        ElementTree.fromstring(ElementTree.tostring(image.find("box")))
    ),
}


@pytest.mark.parametrize("deed", BOXES)
def test_boxes_of_cvat_are_nobody_more(folder, deed):
    path = folder / "cvat.xml"
    root = ElementTree.parse(path).getroot()
    for image in root.findall("image"):
        BOXES[deed](image)
    ElementTree.ElementTree(root).write(path)
    found = read(path)
    assert [one.name for one in found] == ["000005_a.png", "000006_b.png"]
    for one in found:
        np.testing.assert_allclose(one.label["joints"], PLACES, atol=0.006)


def test_a_box_of_cvat_without_joints_is_no_pose(folder):
    path = folder / "cvat.xml"
    root = ElementTree.parse(path).getroot()
    without("skeleton", root.find("image"))
    ElementTree.ElementTree(root).write(path)
    other, one = read(path)
    assert (one.name, one.label, one.where) == ("000005_a.png", None, "no pose")
    assert other.name == "000006_b.png" and other.label is not None


def test_cvats_coco_with_a_category_of_boxes_is_read(folder):
    """It lists that category without keypoints, and has a box for each skeleton."""
    path = folder / "coco.json"
    content = json.loads(path.read_bytes())
    boxes = {"id": 1, "name": "mouse_bbox", "keypoints": [], "skeleton": []}
    content["categories"][0]["id"] = 2
    content["categories"].insert(0, boxes)
    for one in content["annotations"]:
        one["category_id"] = 2
    alone = {"id": 9, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    content["annotations"].append(alone)
    path.write_text(json.dumps(content))
    assert [one.name for one in read(path)] == ["000005_a.png", "000006_b.png"]
    assert all(one.label is not None for one in read(path))


def test_a_list_of_rejected_pictures(tmp_path):
    path = tmp_path / "no.txt"
    path.write_text("Rejected\n000005_a.png\n\n000006_b.png\n")
    found = read(path)
    assert [one.name for one in found] == ["000005_a.png", "000006_b.png"]
    assert all(one.rejected for one in found) and found[1].where == "line 4"


def test_joints_in_another_order_are_put_in_ours(folder):
    path = folder / "coco.json"
    content = json.loads(path.read_bytes())
    content["categories"][0]["keypoints"] = list(SKELETON.joints[::-1])
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(read(path)[0].label["joints"], PLACES[::-1], atol=1e-3)


def test_images_say_nothing_and_what_is_unknown_is_none(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert read(tmp_path / "a.jpg") == []
    for name, text in (("a.json", '{"a": 1}'), ("a.csv", "name,x\n"), ("a.txt", "")):
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name) is None


def test_a_damaged_file_is_named(folder):
    (folder / "coco.json").write_text('{"images": [')
    with pytest.raises(UnreadableError):
        read(folder / "coco.json")


# What cannot be.


def test_joints_outside_the_image_or_the_crop_are_objected_to():
    assert EXCHANGE.objection(request(), label()) == ""
    far = PLACES.copy()
    far[1] = 700, 100
    words = EXCHANGE.objection(request(), label(far))
    assert "left ear is at [700.0, 100.0], outside the image of 640 x 480" in words
    # Percentages: two of three joints outside the crop.
    percent = PLACES * 100 / np.array([640, 480], np.float32)
    words = EXCHANGE.objection(request(), label(percent))
    assert "3 of 3 joints lie outside the crop round (320, 200)" in words
    # Of the whole image nothing can be said.
    assert EXCHANGE.objection(request(window=None), label(percent)) == ""
    # An absent joint is nowhere.
    known = label(far, (VISIBLE, ABSENT, OCCLUDED))
    assert EXCHANGE.objection(request(), known) == ""


def test_percentages_and_fractions_are_doubted_where_images_are_large():
    whole = request(window=None)
    size = np.array([640, 480], np.float32)
    percent, share = label(PLACES * 100 / size), label(PLACES / size)
    assert "look like percentages" in EXCHANGE.doubt([(whole, percent)] * 3)
    assert "look like fractions" in EXCHANGE.doubt([(whole, share)])
    assert EXCHANGE.doubt([(whole, percent)] * 2) == ""  # a corner of two images
    assert EXCHANGE.doubt([(whole, label()), (whole, percent), (whole, percent)]) == ""
    small = request(window=None, size=(90, 640))
    assert EXCHANGE.doubt([(small, percent)] * 3) == ""


def test_differences_are_told_and_rounding_is_none():
    before = label()
    assert EXCHANGE.difference(before, label(PLACES + np.float32(0.03))) == ""
    assert EXCHANGE.difference(
        before, label(PLACES + np.array([[0, 0], [3, 4], [0, 1]]))
    ) == ("left ear moved by 5.0 pixels, and 1 more joints")
    hidden = label(status=(VISIBLE, VISIBLE, OCCLUDED))
    assert EXCHANGE.difference(before, hidden) == "right ear has another status"
    absent = label(status=(VISIBLE, VISIBLE, ABSENT))
    assert EXCHANGE.difference(absent, absent) == ""
    assert EXCHANGE.difference(before, absent) == "right ear has another status"


def test_boxes_are_those_of_people():
    np.testing.assert_array_equal(EXCHANGE.box_of(0), [10, 10, 50, 50])
    assert EXCHANGE.box_of(1) is None
