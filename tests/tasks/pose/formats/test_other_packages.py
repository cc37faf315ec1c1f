"""What is handed out is loaded by the formats' own packages, and theirs read back.

They are no dependencies, not of the tests either: each pulls in much. Where one is not
installed its tests are skipped. Run last, all of them, with label-studio-sdk 2.1.2,
datumaro 1.13.12, sleap-io 0.9.5 and pycocotools 2.0.11, 2026-11-29.
"""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from jalpose.tasks.pose.formats import coco, label_studio, reading
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE
from tests.tasks.pose.test_exchange import EXCHANGE, PLACES, SKELETON, request

NAMES = ("000005_a.png", "000006_b.png")
SIZE = (640, 480)


@pytest.fixture
def folder(tmp_path):
    """A folder that is handed out, with its images."""
    requests = [request(), request(2, NAMES[1], window=None)]
    EXCHANGE.write(tmp_path, requests, "images")
    (tmp_path / "images").mkdir()
    for shade, name in enumerate(NAMES):
        Image.new("RGB", SIZE, (shade, 0, 0)).save(tmp_path / "images" / name)
    return tmp_path


def labelled(folder):
    """The same as labels: one joint of the first hidden, one of the second absent."""
    path = folder / "coco.json"
    content = json.loads(path.read_bytes())
    first, second = content["annotations"]
    for one in (first, second):
        del one["score"], one["confidence"]
    first["keypoints"][5] = 1
    second["keypoints"][6:] = [0, 0, 0]
    second["num_keypoints"] = 2
    path.write_text(json.dumps(content))
    return path


def assert_labelled(found, *, hidden=True, names=NAMES):
    """Assert that it is what `labelled` gives, read back."""
    assert set(found.skeleton.joints) == set(SKELETON.joints)
    order = [found.skeleton.joints.index(joint) for joint in SKELETON.joints]
    wanted = [[VISIBLE, OCCLUDED if hidden else VISIBLE, VISIBLE]]
    wanted.append([VISIBLE, VISIBLE, ABSENT])
    assert len(found.instances) == 2
    people = sorted(found.instances, key=lambda one: one.file)
    for one, name, status in zip(people, names, wanted, strict=True):
        assert one.file.rpartition("/")[2] == name
        assert one.status[order].tolist() == status
        there = np.array(status) != ABSENT
        np.testing.assert_allclose(one.joints[order][there], PLACES[there], atol=0.01)


# Label Studio


@pytest.fixture
def interface(folder):
    sdk = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed"
    )
    return sdk.LabelInterface((folder / "label_studio_config.xml").read_text())


def test_label_studio_takes_interface_and_predictions(folder, interface):
    interface.validate()
    for task in json.loads((folder / "label_studio.json").read_bytes()):
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []
        assert len(prediction["result"]) == 1 + len(SKELETON.joints)
        # What it has no word for it refuses: the check does look.
        point = prediction["result"][-1]["value"]
        point["keypointlabels"] = ["tail"]
        assert interface.validate_prediction(prediction, return_errors=True)


def test_an_annotation_of_label_studio_is_read(folder, interface):
    annotation = interface.generate_sample_annotation()
    regions = {"keypointlabels", "rectanglelabels"}
    result = [one for one in annotation["result"] if one["type"] in regions]
    assert {one["type"] for one in result} == regions
    for one in result:  # samples are of no image
        one.setdefault("original_width", SIZE[0])
        one.setdefault("original_height", SIZE[1])
    (task, _) = json.loads((folder / "label_studio.json").read_bytes())
    path = folder / "export.json"
    path.write_text(
        json.dumps([{"data": task["data"], "annotations": [{"result": result}]}])
    )
    (found,) = label_studio.read(path, skeleton=SKELETON).instances
    (point,) = [one["value"] for one in result if one["type"] == "keypointlabels"]
    joint = SKELETON.joints.index(point["keypointlabels"][0])
    share = np.array([point["x"], point["y"]]) / 100
    np.testing.assert_allclose(found.joints[joint], share * SIZE - 0.5)


# Datumaro


def test_datumaro_loads_the_coco_file_and_its_own_is_read(folder):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    given = folder / "given"
    (given / "annotations").mkdir(parents=True)
    shutil.copy(labelled(folder), given / "annotations/person_keypoints_cycle.json")
    shutil.copytree(folder / "images", given / "images" / "cycle")
    loaded = datumaro.Dataset.import_from(str(given), "coco_person_keypoints")
    points = [
        one
        for item in sorted(loaded, key=lambda item: item.id)
        for one in item.annotations
        if one.type == datumaro.AnnotationType.points
    ]
    assert [[v.value for v in one.visibility] for one in points] == [
        [2, 1, 2],
        [2, 2, 0],
    ]
    first = np.array(points[0].points).reshape(-1, 2)
    np.testing.assert_allclose(first, PLACES, atol=0.01)
    loaded.export(str(folder / "theirs"), "coco_person_keypoints", save_media=True)
    (path,) = (folder / "theirs/annotations").glob("person_keypoints_*.json")
    assert_labelled(reading.read(path))


# SLEAP


def test_sleap_io_loads_the_coco_file_and_its_own_is_read(folder):
    sleap_io = pytest.importorskip("sleap_io", reason="sleap-io is not installed")
    loaded = sleap_io.load_coco(
        str(labelled(folder)), dataset_root=str(folder / "images")
    )
    assert loaded.skeletons[0].node_names == list(SKELETON.joints)
    frames = [frame.instances[0].numpy() for frame in loaded.labeled_frames]
    np.testing.assert_allclose(frames[0], PLACES, atol=0.01)
    assert np.isnan(frames[1][2]).all()
    sleap_io.save_coco(loaded, str(folder / "theirs.json"))
    assert_labelled(coco.read(folder / "theirs.json"), hidden=False)
    sleap_io.save_slp(loaded, str(folder / "theirs.slp"), embed=False)
    assert_labelled(reading.read(folder / "theirs.slp"), hidden=False)
