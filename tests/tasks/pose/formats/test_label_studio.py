"""Label Studio's tasks and exports: percentages, hidden joints, skipped annotations."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import label_studio
from jalpose.tasks.pose.formats.poses import Image, Instance, Poses, skeleton_named
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE

SKELETON = skeleton_named("mouse", ("nose", "left ear", "right ear"), ((0, 1), (0, 2)))


def poses(confidence=None):
    return Poses(
        skeleton=SKELETON,
        images=(Image(file="cage 1/ä.png", size=(200, 100)),),
        instances=(
            Instance(
                file="cage 1/ä.png",
                joints=np.array([[0, 0], [199, 99], [np.nan, np.nan]]),
                status=np.array([VISIBLE, OCCLUDED, ABSENT], np.int8),
                box=np.array([-0.5, -0.5, 99.5, 49.5]),
                confidence=confidence,
                score=None if confidence is None else 0.5,
            ),
        ),
    )


def exported(found=None, **changes):
    """The tasks as an annotator hands them back."""
    (task,) = label_studio.tasks_of(found or poses())
    result = task.pop("predictions")[0]["result"]
    return {
        **task,
        "id": 7,
        "annotations": [{"id": 31, "was_cancelled": False, "result": result}],
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    def write(*tasks):
        path = tmp_path / "export.json"
        path.write_text(json.dumps(tasks), encoding="utf-8")
        return path

    return write


def test_places_are_percentages_from_the_edge_of_the_image():
    (task,) = label_studio.tasks_of(poses(), folder="images", data={})
    assert task["data"]["image"] == "/data/local-files/?d=images/cage 1/ä.png"
    box, nose, ear, hidden = task["predictions"][0]["result"]
    # Centres of the first and the last pixel of 200 x 100.
    assert (nose["value"]["x"], nose["value"]["y"]) == (0.25, 0.5)
    assert (ear["value"]["x"], ear["value"]["y"]) == (99.75, 99.5)
    assert [box["value"][k] for k in ("x", "y", "width", "height")] == [0, 0, 50, 50]
    assert nose["parentID"] == box["id"]
    assert nose["value"]["keypointlabels"] == ["nose"]
    assert hidden["id"] == ear["id"] and hidden["value"]["choices"] == ["hidden"]


def test_what_is_predicted_has_scores():
    (task,) = label_studio.tasks_of(poses(np.array([0.25, 0.75, 0.0])))
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.5
    points = [r for r in prediction["result"] if r["type"] == "keypointlabels"]
    assert [r["score"] for r in points] == [0.25, 0.75]


def test_what_is_written_is_read_back(write):
    found = label_studio.read(write(exported()), skeleton=SKELETON)
    (one,), (wanted,) = found.instances, poses().instances
    np.testing.assert_allclose(one.joints, wanted.joints, atol=1e-9)
    np.testing.assert_array_equal(one.status, wanted.status)
    np.testing.assert_allclose(one.box, wanted.box, atol=1e-9)
    assert found.images == poses().images and one.file == "cage 1/ä.png"


def test_without_a_skeleton_the_joints_are_those_there_are(write):
    found = label_studio.read(write(exported()))
    assert found.skeleton.joints == ("nose", "left ear")


def test_predictions_drafts_and_skipped_ones_are_no_labels(write):
    task = exported()
    skipped = [{**task["annotations"][0], "was_cancelled": True}]
    for one in (
        {**task, "annotations": []},
        {**task, "annotations": skipped},
        label_studio.tasks_of(poses())[0],
    ):
        found = label_studio.read(write(one), skeleton=SKELETON)
        assert found.instances == () and len(found.images) == 1


def test_a_picture_is_rejected_by_its_choice(write):
    choice = {"type": "choices", "value": {"choices": ["rejected"]}, "id": "x"}
    path = write(exported(annotations=[{"id": 1, "result": [choice]}]))
    assert label_studio.rejected(path) == ("cage 1/ä.png",)
    assert label_studio.read(path, skeleton=SKELETON).instances == ()
    assert label_studio.rejected(write(exported())) == ()


def test_without_a_name_a_picture_is_known_by_its_url(write):
    task = exported()
    for url, name in (
        ("/data/local-files/?d=images/a%20b.png", "images/a b.png"),
        ("/data/upload/3/0123abcd-a.png", "data/upload/3/0123abcd-a.png"),
        ("s3://bucket/a.png", "bucket/a.png"),
    ):
        found = label_studio.read(write({**task, "data": {"image": url}}))
        assert found.images[0].file == name


def changed(value=None, **region):
    task = exported()
    nose = task["annotations"][0]["result"][1]
    nose.update(region)
    nose["value"].update(value or {})
    return task


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (changed({"x": 150.0}), "are these pixels"),
        (changed({"keypointlabels": ["snout"]}), "the joint snout, which is not one"),
        (changed({"keypointlabels": ["left ear"]}), "left ear is there twice"),
        (changed(image_rotation=90), "turned in Label Studio"),
        (changed(original_width=100), "are of images of"),
        ({**exported(), "data": {}}, "its data have no image"),
    ],
)
def test_what_cannot_be_is_named_with_its_task(write, task, words):
    with pytest.raises(DataError, match=words) as error:
        label_studio.read(write(task), skeleton=SKELETON)
    assert "Task 0 of" in str(error.value) and "id 7" in str(error.value)


def test_other_json_is_refused(write, tmp_path):
    path = write({"image": "a.png", "kp": []})
    with pytest.raises(DataError, match="not as JSON-MIN"):
        label_studio.read(path)
    path.write_text("[")
    with pytest.raises(DataError, match="Cannot read"):
        label_studio.read(path)


def test_the_interface_names_every_joint():
    root = ElementTree.fromstring(label_studio.config_of(SKELETON))
    labels = root.find("KeyPointLabels").findall("Label")
    assert [one.get("value") for one in labels] == list(SKELETON.joints)
    assert root.find("RectangleLabels/Label").get("value") == "mouse"
    assert {c.get("value") for c in root.iter("Choice")} == {"rejected", "hidden"}


def test_its_own_package_takes_what_is_written():
    sdk = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed"
    )
    interface = sdk.LabelInterface(label_studio.config_of(SKELETON))
    (task,) = label_studio.tasks_of(poses(np.array([0.25, 0.75, 0.0])))
    errors = interface.validate_prediction(task["predictions"][0], return_errors=True)
    assert not errors
