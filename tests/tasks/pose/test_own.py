"""Own images: which files, who plays which part, groups, and what is refused."""

import json
import logging
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from jalpose.data.source import DataError
from jalpose.tasks.pose.skeletons import ABSENT
from jalpose.tasks.pose.sources import load_dataset
from tests.support import coco_miniature as mini
from tests.support import miniature, own_photos

POOL = ("pool/a.png", "pool/b c.png", "pool/below/ö.png")


@pytest.fixture
def root(tmp_path):
    own_photos.write_labelled(tmp_path)
    return tmp_path


def load(root, **changes):
    return load_dataset(own_photos.data_of(root, **changes), 0)


def with_pool(root, **changes):
    own_photos.write_images(root, POOL, seed=1)
    return load(root, pool="pool", **changes)


def test_a_simulation_where_no_pool_is_named(root):
    found = load(root)
    assert (len(found.initial), len(found.pool), len(found.test)) == (4, 4, 2)
    assert found.pool_labelled
    parts = np.concatenate([found.initial, found.pool, found.test])
    assert len(np.unique(parts)) == 10
    assert found.keys[0] == "images/day 1/ä00.png#1"
    assert (found.truth["status"] != ABSENT).all()
    # Its box is 24 x 10 pixels, from the corner (8, 15).
    np.testing.assert_allclose(found.windows[0], [19.5, 19.5, 1.25 * 24])
    assert found.crop(0, 8).shape == (8, 8, 3)


def test_who_is_tested_on_is_the_same_for_every_seed(root):
    data = own_photos.data_of(root)
    one, other = load_dataset(data, 0), load_dataset(data, 1)
    np.testing.assert_array_equal(one.test, other.test)
    assert one.initial.tolist() != other.initial.tolist()


def test_a_bare_folder_is_a_pool_of_whole_images_without_labels(root, caplog):
    found = with_pool(root)
    assert [found.keys[i] for i in found.pool] == [
        "pool/a.png",
        "pool/b c.png",
        "pool/below/ö.png",
    ]
    assert len(found.initial) == 8 and not found.pool_labelled
    assert (found.truth["status"][found.pool] == ABSENT).all()
    assert np.isnan(found.truth["joints"][found.pool]).all()
    np.testing.assert_allclose(found.windows[found.pool[0]], [29.5, 19.5, 60])
    assert "the images of 3 of 3 pool examples are taken whole" in caplog.text


@pytest.mark.parametrize("inside", [True, False])
def test_folders_may_be_named_from_the_root_of_the_disk(root, inside):
    (root / "data").mkdir()
    for name in ("images", "labels.json"):
        (root / name).rename(root / "data" / name)
    own_photos.write_images(root / "data" if inside else root, POOL, seed=1)
    pool = root / "data" / "pool" if inside else root / "pool"
    images = str(root / "data" / "images")
    found = load(root / "data", pool=str(pool), images=images)
    start = "pool" if inside else "../pool"
    assert found.keys[found.pool[0]] == f"{start}/a.png"
    assert len(found.pool) == 3 and found.keys[0] == "images/day 1/ä00.png#1"


def test_labels_of_a_pool_are_not_read(root):
    images = [mini.image(1, file_name=POOL[0]), mini.image(2, file_name=POOL[1])]
    mice = [own_photos.mouse(n, 1 + n % 2) for n in (1, 2, 3)]
    mini.write(root / "boxes.json", images=images, annotations=mice)
    own_photos.write_images(root, POOL, seed=1)
    with pytest.raises(DataError, match=r"2 annotation files in .*boxes\.json, labels"):
        load(root)
    found = load(root, pool="boxes.json", labelled="labels.json", images="")
    assert [found.keys[i] for i in found.pool] == [
        "pool/b c.png#1",
        "pool/a.png#2",
        "pool/b c.png#3",
    ]
    assert (found.truth["status"][found.pool] == ABSENT).all()


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_csv_of_boxes(root, mark):
    own_photos.write_images(root, POOL, seed=1)
    text = "file,x,y,w,h\npool/a.png,10,10,20,8\npool/a.png,30,10,8,20\n"
    (root / "boxes.csv").write_text(text.replace(",", mark))
    found = load(root, pool="boxes.csv")
    assert [found.keys[i] for i in found.pool] == ["pool/a.png#1", "pool/a.png#2"]
    np.testing.assert_allclose(found.windows[found.pool[0]], [19.5, 13.5, 25])


def test_a_picture_that_annotators_rejected_is_no_label(tmp_path):
    names = [f"{n}.png" for n in range(6)]
    own_photos.write_images(tmp_path, names)
    point = '<points label="snout" occluded="0" outside="0" points="{0},{0}"/>'
    text = "".join(
        f'<image id="{n}" name="{name}" width="60" height="40">'
        + point.format(10 + n)
        + ('<tag label="rejected"/>' if n == 2 else "")
        + "</image>"
        for n, name in enumerate(names)
    )
    (tmp_path / "labels.xml").write_text(f"<annotations>{text}</annotations>")
    found = load(tmp_path)
    assert sorted(found.keys) == [name for name in names if name != "2.png"]


def test_who_is_labelled_is_not_in_the_pool(root, caplog):
    shutil.copytree(root / "images", root / "every")
    own_photos.write_images(root, ["images/new.png"], seed=2)
    with caplog.at_level(logging.INFO):
        found = load(root, pool="images")
    assert [found.keys[i] for i in found.pool] == ["images/new.png"]
    assert "10 of 11 are labelled or tested on already" in caplog.text


def test_a_test_set_of_its_own(root):
    own_photos.write_labelled(root, 3, file="test.json", folder="other")
    found = load(root, labelled="labels.json", test="test.json")
    assert {found.keys[i].split("/")[0] for i in found.test} == {"other"}
    assert len(found.initial) + len(found.pool) == 10 and len(found.test) == 3


@pytest.mark.parametrize("groups", ["folder", r"day \d"])
def test_groups_are_tested_on_and_held_out_together(tmp_path, groups):
    names = [f"images/day {n // 4}/{n:02d}.png" for n in range(24)]
    own_photos.write_images(tmp_path, names)
    images = [mini.image(n + 1, file_name=name) for n, name in enumerate(names)]
    mice = [own_photos.mouse(n + 1, n + 1) for n in range(24)]
    mini.write(tmp_path / "labels.json", images=images, annotations=mice)
    found = load(tmp_path, groups=groups)
    days = np.array([key.split("/")[1] for key in found.keys])
    rest = np.concatenate([found.initial, found.pool])
    assert len(found.test) == 8  # two days are the first to have a fifth
    assert not set(days[found.test]) & set(days[rest])
    held = found.held_out(rest)
    assert held.any() and not set(days[rest][held]) & set(days[rest][~held])
    assert found.held_out(found.initial).sum() < len(found.initial)


def test_people_of_an_image_are_on_one_side(tmp_path):
    own_photos.write_labelled(tmp_path, 8, per_image=2)
    found = load(tmp_path)
    files = np.array(found.files)
    rest = np.concatenate([found.initial, found.pool])
    assert not set(files[found.test]) & set(files[rest])
    held = found.held_out(rest)
    assert not set(files[rest][held]) & set(files[rest][~held])


def test_a_group_that_is_not_found_and_only_one(root):
    with pytest.raises(DataError, match=r"data.groups='video.*is found nowhere in"):
        load(root, groups=r"video\d")
    with pytest.raises(DataError, match=r"8 labelled.*1 group|10 labelled.*1 group"):
        load(root, groups="day")


def test_a_name_that_is_written_in_another_way_is_the_same_image(root):
    labels = json.loads((root / "labels.json").read_text())
    for one in labels["images"]:
        one["file_name"] = f"./images//{one['file_name']}"
    (root / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match="nobody in it is left to label"):
        load(root, pool="images")


def test_accents_that_are_written_in_another_way_are_told(root):
    labels = json.loads((root / "labels.json").read_text())
    for one in labels["images"][:1]:
        one["file_name"] = unicodedata.normalize("NFD", one["file_name"])
    (root / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match=r"there is 'ä00.png', with its accents"):
        load(root, damaged="refuse")


def test_skeletons_from_a_config(root):
    found = load(root, mirror=(("snout", "tail"),), links=(("tail", "left_ear"),))
    skeleton = found.sources[0].skeleton
    assert skeleton.flip_pairs == ((0, 3),) and skeleton.limbs == ((3, 1),)
    assert "snout and tail" in " ".join(found.sources[0].notes)
    assert "wrong side" not in " ".join(load(root).sources[0].notes)
    assert "; left_ear, right_ear would be of the wrong side there" in (
        " ".join(found.sources[0].notes)
    )
    assert "left_ear and right_ear" in " ".join(load(root).sources[0].notes)
    with pytest.raises(DataError, match=r"data.photos.links: there is no joint 'nose'"):
        load(root, links=(("nose", "tail"),))


def test_a_deeplabcut_project_and_frames_without_a_label(tmp_path):
    for day in ("m1", "m2"):
        names = [f"labeled-data/{day}/{n}.png" for n in range(4)]
        own_photos.write_images(tmp_path, [*names, f"labeled-data/{day}/x.png"])
        rows = ["scorer,,,a,a,a,a", "bodyparts,,,s,s,t,t", "coords,,,x,y,x,y"]
        rows += [f"labeled-data,{day},{n}.png,{n + 9},20,{n + 30},21" for n in range(4)]
        table = "\n".join([*rows, f"labeled-data,{day},x.png,,,,"])
        (tmp_path / f"labeled-data/{day}/CollectedData_a.csv").write_text(table)
    found = load(tmp_path)
    assert len(found.initial) + len(found.pool) + len(found.test) == 8
    assert found.keys[4] == "labeled-data/m2/0.png"
    found = load(tmp_path, pool="labeled-data")
    assert [found.keys[i] for i in found.pool] == [
        "labeled-data/m1/x.png",
        "labeled-data/m2/x.png",
    ]


def test_damaged_and_missing_images_are_named_and_left_out(root, caplog):
    own_photos.write_images(root, POOL, seed=1)
    (root / "pool/empty.jpg").write_bytes(b"")
    (root / "pool/half.png").write_bytes((root / "pool/a.png").read_bytes()[:900])
    (root / "images/day 1/ä00.png").unlink()
    found = load(root, pool="pool")
    assert len(found.pool) == 3 and len(found.keys) == 12
    assert "3 of 15 images of PHOTOS are left out" in caplog.text
    for name in ("empty.jpg", "half.png", "ä00.png"):
        assert name in caplog.text
    with pytest.raises(DataError, match="3 of 15 images of PHOTOS are missing or dam"):
        load(root, pool="pool", damaged="refuse", cache_dir=str(root / "other"))


def test_an_image_that_a_camera_turned_is_taken_as_it_is_stored(root, caplog):
    own_photos.write_images(root, ["pool/a.png"], seed=1)
    plain = np.asarray(Image.open(root / "pool/a.png"))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown by viewers a quarter turned: 40 x 60
    Image.fromarray(plain).save(root / "pool/a.png", exif=exif)
    (root / "pool.csv").write_text("file,x,y,w,h\na.png,40,30,19,9\n")
    found = load(root, pool="pool.csv", images="")
    (one,) = found.pool.tolist()
    np.testing.assert_array_equal(found.image(one), plain)
    # A box at the right edge, which is nowhere in the turned image.
    np.testing.assert_allclose(found.windows[one], [49, 34, 1.25 * 19])
    assert "1 of 11 images have an EXIF orientation, e.g. pool/a.png" in caplog.text


def test_the_same_image_twice(root, caplog):
    own_photos.write_images(root, POOL, seed=1)
    shutil.copy(root / "pool/a.png", root / "pool/copy.png")
    shutil.copy(root / "images/day 1/ä00.png", root / "pool/labelled.png")
    load(root, pool="pool")
    assert "1 images of the pool are there twice: pool/a.png and pool/copy" in (
        caplog.text
    )
    assert "the same file in the labelled and the pool part" in caplog.text or (
        "the same file in the pool and the test part" in caplog.text
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,x,y,w,h\na.png,100,10,20,8\n", "lie outside their images"),
        ("file,x,y,w,h\na.png,.1,.1,.5,.5\n", "not shares of the image"),
        ("file,x,y,w,h\na.png,1,1,0,5\n", "Line 2 of .*its box is empty"),
        ("file,x,y,w,h\na.png,1,1,-4,5\n", "Line 2 of .*its bbox is"),
        ("file,x,y,w,h\na.png,1,1\n", "Line 2 of .*it has 3 cells, not 5"),
        ("file,x,y,w,h\na.png,1,1,2,2,5\n", "Line 2 of .*it has 6 cells, not 5"),
        ("file;x;y;w;h\na.png;1,5;1;2;2\n", "Line 2 of .*could not convert .*1,5"),
        ("file,x,y,w,h\n../a.png,1,1,2,2\n", "Line 2 .*leads out of the images"),
        ("file,x,y,w,h\nz.png,1,1,2,2\n", "None of the images that .* names is there"),
        ("name,left\n", "is in none of the formats that are read: COCO"),
    ],
)
def test_boxes_that_cannot_be(root, text, message):
    own_photos.write_images(root, ["a.png"], seed=1)
    (root / "pool.csv").write_text(text)
    if "outside" in message or "shares" in message:
        # Alone in the file: everybody else has pixels.
        labels = json.loads((root / "labels.json").read_text())
        for one in labels["annotations"]:
            one["bbox"] = [0, 0, 0.9, 0.9] if "shares" in message else one["bbox"]
        (root / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match=message):
        load(root, pool="pool.csv")


def test_percent_for_pixels_is_warned_of():
    from jalpose.tasks.pose import checks
    from jalpose.tasks.pose.annotations import Annotations

    draws, count = np.random.default_rng(0), 40
    low = draws.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + draws.uniform(10, 39.4, (count, 2))], axis=1)
    boxes[0] = 10, 10, 99, 99
    labels = Annotations(
        keys=tuple(map(str, range(count))),
        files=tuple(map(str, range(count))),
        joints=np.full((count, 2, 2), np.nan, np.float32),
        status=np.full((count, 2), ABSENT, np.int8),
        boxes=boxes.astype(np.float32),
    )
    (found,) = checks.of_boxes("MICE", labels, np.full((count, 2), 640))
    assert "are they percent" in found.words and not found.impossible
    assert checks.of_boxes("MICE", labels, np.full((count, 2), 110)) == []


def test_images_that_are_in_two_folders(root):
    shutil.copytree(root / "images/day 1", root / "day 1")
    with pytest.raises(DataError, match=r"are in \. and in images of"):
        load(root)
    assert load(root, images="images").keys[0] == "images/day 1/ä00.png#1"


def test_another_folder_another_skeleton_another_size(root):
    with pytest.raises(DataError, match="is it the label file of another folder"):
        load(root, images="cache")
    own_photos.write_labelled(root, 3, file="test.json", folder="other")
    labels = json.loads((root / "test.json").read_text())
    labels["categories"][0]["keypoints"][0] = "nose"
    (root / "test.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match=r"test\.json' is of another skeleton.*snout"):
        load(root, labelled="labels.json", test="test.json")
    labels = json.loads((root / "labels.json").read_text())
    labels["images"][0]["width"] = 640
    (root / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match="have other sizes than their annotations say"):
        load(root, labelled="labels.json")


def test_two_people_in_an_image_that_is_taken_whole(tmp_path):
    own_photos.write_labelled(tmp_path, 4, per_image=2)
    labels = json.loads((tmp_path / "labels.json").read_text())
    for one in labels["annotations"]:
        del one["bbox"]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match=r"#1 and .*#2 are two in one image"):
        load(tmp_path)


def test_who_is_in_two_parts(root):
    shutil.copy(root / "labels.json", root / "again.json")
    with pytest.raises(DataError, match="is there twice: in the labelled and in the"):
        load(root, labelled="labels.json", test="again.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled": "none.json"}, r"data.photos.labelled='none.json'.*is not there"),
        ({"pool": "none"}, r"data.photos.pool='none'.*is not there"),
        ({"pool": "images"}, "nobody in it is left to label"),
        ({"pool": "pool", "crop": "joints"}, "set data.crop=box"),
        (
            {"pool": "pool", "labelled_": "all"},
            "data.labelled=all, but the pool has no",
        ),
        ({"initial": 99}, "data.initial=99, but the labelled part .* has 8 examples"),
    ],
)
def test_what_is_refused(root, changes, message):
    own_photos.write_images(root, POOL, seed=1)
    data = own_photos.data_of(
        root, **{k: v for k, v in changes.items() if k != "labelled_"}
    )
    if "labelled_" in changes:
        data.labelled = changes["labelled_"]
    with pytest.raises(DataError, match=message):
        load_dataset(data, 0)


@pytest.mark.data
def test_the_real_mouse():
    file = "labeled-data/m4s1/CollectedData_Pranav.csv"
    root = miniature.real_data_dir("mouse", file)
    if root is None:
        pytest.skip("no real data")
    from jalpose.tasks.pose import own

    found = own.describe(own_photos.data_of(miniature_path(root, "mouse")))
    assert found.simulated and found.whole.all()
    assert (found.parts == own.TEST).sum() == 12 and len(found.parts) == 58


@pytest.mark.data
def test_the_real_coco():
    file = "annotations/person_keypoints_val2017.json"
    root = miniature.real_data_dir("coco", file)
    if root is None:
        pytest.skip("no real data")
    from jalpose.tasks.pose import own

    found = own.describe(own_photos.data_of(miniature_path(root, ""), name="coco"))
    assert len(found.annotations) == 68 and not found.whole.any()
    assert found.annotations.files[0].startswith("coco/val2017/")
    assert np.isfinite(found.annotations.areas).all()


def miniature_path(root, name):
    import pathlib

    return pathlib.Path(os.path.join(root, name))
