"""Label Studio's tasks: percent of the image, persons by rectangle, what is refused."""

import json

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import label_studio, reading
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, skeleton_named
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE

SKELETON = skeleton_named("person", ("nose", "left ear", "tail"))


def point(joint, x, y, name, **changes):
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [joint]}
    value |= changes.pop("value", {})
    about = {"id": name, "type": "keypointlabels", "value": value}
    return {**about, "original_width": 200, "original_height": 100, **changes}


def rectangle(name, **changes):
    value = {"x": 10, "y": 10, "width": 50, "height": 80, **changes}
    about = {"id": name, "type": "rectanglelabels", "value": value}
    return {**about, "original_width": 200, "original_height": 100}


def task(regions, url="/data/local-files/?d=day%201/%C3%A4.png", **changes):
    done = {"id": 1, "was_cancelled": False, "result": regions}
    return {"id": 7, "data": {"image": url}, "annotations": [done], **changes}


def read(tmp_path, *tasks, skeleton=SKELETON):
    path = tmp_path / "export"
    path.write_text(json.dumps(tasks))
    return reading.read(path, skeleton=skeleton)


def test_points_of_one_person(tmp_path):
    regions = [
        point("nose", 50, 50, "a"),
        point("tail", 0.25, 0.5, "b", value={"hidden": True}),
    ]
    found = read(tmp_path, task(regions))
    (one,) = found.instances
    assert one.file == "day 1/ä.png" and one.id == ""
    assert one.status.tolist() == [VISIBLE, ABSENT, OCCLUDED]
    # Half of 200 pixels is between two of them.
    np.testing.assert_allclose(one.joints[[0, 2]], [[99.5, 49.5], [0, 0]])
    assert found.images[0].size == (200, 100)
    alone = read(tmp_path, task(regions), skeleton=None)
    assert alone.skeleton.joints == ("nose", "tail")


def test_people_by_their_rectangles(tmp_path):
    regions = [
        rectangle("r1"),
        rectangle("r2"),
        point("nose", 1, 1, "a", parentID="r2"),
        point("nose", 2, 2, "b"),
        {"type": "relation", "from_id": "b", "to_id": "r1"},
    ]
    one, two = read(tmp_path, task(regions)).instances
    assert (one.id, two.id) == ("r1", "r2")
    np.testing.assert_allclose(one.joints[0], [3.5, 1.5])
    np.testing.assert_allclose(one.box, [19.5, 9.5, 119.5, 89.5])
    with pytest.raises(
        DataError, match=r"2 rectangles, and the point .*nose.* to none"
    ):
        read(tmp_path, task(regions[:-1]))


def test_a_rectangle_that_was_turned_is_the_box_round_it(tmp_path):
    # 100 x 80 pixels from (20, 10) on, turned about that corner.
    (one,) = read(tmp_path, task([rectangle("a", rotation=90)])).instances
    np.testing.assert_allclose(one.box, [-60.5, 9.5, 19.5, 109.5])
    (one,) = read(tmp_path, task([rectangle("a", rotation=0)])).instances
    np.testing.assert_allclose(one.box, [19.5, 9.5, 119.5, 89.5])


def test_tasks_that_were_skipped_or_are_not_done(tmp_path):
    skipped = task([point("nose", 1, 1, "a")], url="a.png")
    skipped["annotations"][0]["was_cancelled"] = True
    open_one = task([], url="http://host/files/b%20c.png", annotations=[])
    found = read(tmp_path, skipped, open_one)
    assert [image.file for image in found.images] == ["a.png", "files/b c.png"]
    assert not any(one.labelled for one in found.instances)


def test_uploads_have_their_own_names_again():
    url = "/data/upload/3/0a1b2c3d-b%20c.png"
    assert label_studio.file_of(url) == "b c.png"


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([point("snout", 1, 1, "a")], "no joint 'snout' among nose"),
        ([point("nose", 1, 1, "a"), point("nose", 2, 2, "b")], "need a rectangle each"),
        ([rectangle("a", width=-5)], "its bbox is"),
        (
            [point("nose", 1, 1, "a", value={"keypointlabels": ["nose", "tail"]})],
            "'a' has the labels .*and is to have one",
        ),
        ([point("nose", 1, 1, "a", type="keypoint")], "mark them by KeyPointLabels"),
        ([point("nose", 640, 1, "a")], "not percent of the image"),
        ([point("nose", 1, 1, "a", image_rotation=90)], "rotated by 90"),
        ([point("nose", 1, 1, "a", original_width=None)], "is not as Label Studio"),
    ],
)
def test_what_is_refused(tmp_path, regions, message):
    with pytest.raises(DataError, match=rf"Task 0 of .*id 7.*{message}"):
        read(tmp_path, task(regions))


def test_two_annotations_and_other_exports(tmp_path):
    double = task([])
    double["annotations"] *= 2
    with pytest.raises(DataError, match="it has 2 annotations"):
        read(tmp_path, double)
    with pytest.raises(DataError, match="none of the formats"):
        read(tmp_path, {"image": "a.png", "kp": []})
    with pytest.raises(DataError, match="another task of the same image"):
        read(tmp_path, task([]), task([]))


def test_what_is_written_is_read_back(tmp_path):
    draws = np.random.default_rng(0)
    instances = []
    for number in range(4):
        joints = draws.uniform(0, 90, (3, 2))
        status = np.array([VISIBLE, OCCLUDED, ABSENT], np.int8)
        joints[2] = np.nan
        instances.append(
            Instance(
                file=f"{number // 2}.png",
                id=f"p{number}",
                joints=joints,
                status=status,
                box=np.array([1.5, 2.5, 80.5, 70.5]),
                confidence=np.array([0.5, 0.25, np.nan]),
                score=0.5,
            )
        )
    images = tuple(Image(file=f"{n}.png", size=(200, 100)) for n in range(3))
    found = Poses(skeleton=SKELETON, images=images, instances=tuple(instances))
    tasks = label_studio.content_of(found, lambda file: f"/data/local-files/?d={file}")
    assert [len(one.get("predictions", [])) for one in tasks] == [1, 1, 0]
    names = [r["id"] for r in tasks[0]["predictions"][0]["result"]]
    assert len(set(names)) == len(names) == 6
    # An annotator who accepts all of it.
    for one in tasks:
        one["annotations"] = one.pop("predictions", [{"result": []}])
    again = read(tmp_path, *tasks)
    for one, two in zip(found.instances, again.instances, strict=True):
        assert (one.file, one.id) == (two.file, two.id)
        np.testing.assert_allclose(one.joints, two.joints, atol=1e-9)
        np.testing.assert_array_equal(one.status, two.status)
        np.testing.assert_allclose(one.box, two.box, atol=1e-9)
    assert 'value="left ear"' in label_studio.labelling_config(SKELETON)
