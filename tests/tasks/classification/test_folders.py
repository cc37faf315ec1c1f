"""A folder a class: what is found, how it is split and cropped, and faults."""

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jalpose.data.crops import crop_image
from jalpose.data.files import ENDINGS
from jalpose.data.source import DataError
from jalpose.tasks.classification import folders
from jalpose.tasks.classification.annotations import classes_of
from jalpose.tasks.classification.sources import load_dataset
from tests.support.class_miniature import (
    data_section,
    real_data_dir,
    write_classes,
    write_image,
)

COUNTS = {"ant": 22, "bee": 20, "cat": 26}


@pytest.fixture
def home(tmp_path):
    """A folder a class, in one part."""
    return write_classes(tmp_path / "home", COUNTS)


def load(home, name="folders", seed=0, **changes):
    changes = {"initial": 45, "cache_dir": str(home.parent / "cache"), **changes}
    return load_dataset(data_section(home, name, **changes), seed)


def find(home, **options):
    return folders.find("folders", str(home), **options).annotations


def refused(home, **options):
    with pytest.raises(DataError) as error:
        find(home, **options)
    return str(error.value)


# What is found.


def test_classes_are_folders_and_images_their_files(home):
    found = find(home)
    assert found.classes == ("ant", "bee", "cat")
    assert np.bincount(found.labels).tolist() == list(COUNTS.values())
    assert found.files[22] == os.path.join("bee", "image_0001.jpg")
    assert found.keys[22] == "folders/bee/image_0001.jpg"


def test_images_are_those_of_the_files(home):
    dataset = load(home)
    for example, file in enumerate(dataset.files):
        expected = np.asarray(Image.open(home / file))
        np.testing.assert_array_equal(dataset.image(example), expected)


@pytest.mark.parametrize("ending", [*ENDINGS, ".JPEG", ".PNG"])
def test_endings_of_images(home, ending):
    write_image(home / "ant" / f"other{ending}", 5)
    assert len(find(home)) == sum(COUNTS.values()) + 1
    assert len(load(home).keys) == sum(COUNTS.values()) + 1


def test_hidden_files_and_leftovers_are_no_images(home):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (home / "ant" / name).write_text("x")
    (home / ".git").mkdir()
    (home / "README.txt").write_text("about")
    assert len(find(home)) == sum(COUNTS.values())


# One part: a share of each class.


def test_a_share_of_each_class_is_for_tests(home):
    found = find(home, test_share=0.25)
    counts = np.bincount(found.labels[found.test])
    assert counts.tolist() == [6, 5, 6]  # of 5.5, 5 and 6.5, halves to even
    again, other = find(home, test_share=0.25), find(home, test_share=0.25, seed=1)
    np.testing.assert_array_equal(found.test, again.test)
    assert (found.test != other.test).any()


def test_the_test_set_is_the_same_for_every_seed_and_nobody_changes_sides(home):
    one, two = load(home, seed=0), load(home, seed=1)
    np.testing.assert_array_equal(one.test, two.test)
    assert (one.initial != two.initial).any()
    gone = one.files[int(one.test[0])]
    (home / gone).write_bytes(b"damaged")
    left = load(home, damaged="leave_out")
    expected = {one.keys[i] for i in one.test if one.files[i] != gone}
    assert {left.keys[i] for i in left.test} == expected


@pytest.mark.parametrize(("count", "tests"), [(1, 0), (2, 1), (3, 1), (40, 1)])
def test_a_class_keeps_an_image_on_each_side_where_it_can(tmp_path, count, tests):
    for row in range(count):
        write_image(tmp_path / "one" / f"{row}.png", row)
        write_image(tmp_path / "two" / f"{row}.png", row)
    found = find(tmp_path, test_share=0.01)
    assert np.bincount(found.labels[found.test], minlength=2).tolist() == [tests] * 2


def test_another_class_changes_the_split_of_no_other(home):
    before = find(home)
    write_classes(home, {"aardvark": 8})
    after = find(home)
    tested = {k for k, t in zip(after.keys, after.test, strict=True) if t}
    assert {k for k in tested if "aardvark" not in k} == {
        k for k, t in zip(before.keys, before.test, strict=True) if t
    }


# Two parts.


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Test")])
def test_two_parts(tmp_path, names):
    train, test = names
    write_classes(tmp_path / train, COUNTS)
    write_classes(tmp_path / test, {name: 2 for name in COUNTS})
    found = find(tmp_path)
    assert found.classes == tuple(COUNTS)
    assert np.bincount(found.labels[~found.test]).tolist() == list(COUNTS.values())
    assert np.bincount(found.labels[found.test]).tolist() == [2, 2, 2]
    assert found.keys[0] == f"folders/{train}/ant/image_0001.jpg"


def test_a_class_of_trains_is_a_class(home):
    write_classes(home, {"train": 4})
    assert find(home).classes == ("ant", "bee", "cat", "train")


def test_parts_with_different_classes(tmp_path):
    write_classes(tmp_path / "train", {"ant": 2, "bee": 2, "cat": 2})
    write_classes(tmp_path / "val", {"ant": 2, "bees": 2, "Cat": 2})
    message = refused(tmp_path)
    assert re.search(r"train' has 2 classes that '.*val' has not: bee, cat", message)
    assert re.search(r"val' has 2 classes that '.*train' has not: Cat, bees", message)


def test_parts_without_a_counterpart(tmp_path):
    write_classes(tmp_path / "train", COUNTS)
    message = refused(tmp_path)
    assert "none of val, valid, validation, test beside it" in message
    assert len(find(tmp_path, folder="train")) == sum(COUNTS.values())
    for name in ("val", "test"):
        write_classes(tmp_path / name, COUNTS)
    assert "which is trained and which is tested on?" in refused(tmp_path)


def test_imagenet_goes_by_words(tmp_path):
    ids = ("n01440764", "n02012849", "n03126707")
    for part in ("train", "val"):
        write_classes(
            tmp_path / "imagenet" / part, dict.fromkeys(ids, 25), ending=".JPEG"
        )
    shipped = folders.find("imagenet", str(tmp_path))
    assert shipped.annotations.classes == ids
    words = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\n"
    (tmp_path / "imagenet" / "LOC_synset_mapping.txt").write_text(words)
    dataset = load(tmp_path, "imagenet", initial=45)
    assert classes_of(dataset) == (
        "tench",
        "crane (n02012849)",
        "crane (n03126707)",
    )
    assert dataset.keys[0] == "imagenet/train/n01440764/image_0001.JPEG"
    assert len(dataset.test) == 75


# Caltech-101.


def test_background_is_left_out_of_caltech101_but_by_option(tmp_path):
    home = tmp_path / "caltech101" / "101_ObjectCategories"
    write_classes(home, {**COUNTS, "BACKGROUND_Google": 10})
    (home / "BACKGROUND_Google" / "tmp").write_text("in the archive too")
    dataset = load(tmp_path, "caltech101")
    assert classes_of(dataset) == tuple(COUNTS)
    section = data_section(tmp_path, "caltech101", initial=45)
    section.caltech101.background = True
    dataset = load_dataset(section, 0)
    assert classes_of(dataset) == ("BACKGROUND_Google", *COUNTS)


# Crops.


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (33, 33)])
def test_the_crop_is_the_middle_of_the_shorter_side(tmp_path, size):
    for name in ("one", "two"):
        for row in range(25):
            write_image(tmp_path / name / f"{row}.png", row, size)
    dataset = load(tmp_path, size=16, window=0.5, initial=35)
    side = min(size) / 2
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    image = Image.fromarray(dataset.image(0))
    box = (left, top, left + side, top + side)
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box=box))
    apart = dataset.crop(0, 16).astype(int) - expected
    assert abs(apart).max() <= 1  # the window is float32
    np.testing.assert_array_equal(
        dataset.crop(0, 16), crop_image(dataset.image(0), dataset.windows[0], 16)
    )


def test_images_of_the_crops_size_are_not_resampled(tmp_path):
    for name in ("one", "two"):
        for row in range(25):
            write_image(tmp_path / name / f"{row}.png", row, (24, 24))
    dataset = load(tmp_path, size=24, window=1.0, initial=35)
    for example in range(50):
        np.testing.assert_array_equal(dataset.crop(example, 24), dataset.image(example))
    # A longer image loses its ends alone.
    for name in ("one", "two"):
        for row in range(25):
            write_image(tmp_path / name / f"{row}.png", row, (30, 24))
    dataset = load(tmp_path, size=24, window=1.0, initial=35)
    np.testing.assert_array_equal(dataset.crop(0, 24), dataset.image(0)[:, 3:27])


def test_an_exif_orientation_is_ignored_and_told(home, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(home / "ant" / "image_0001.jpg")
    image.save(home / "ant" / "image_0001.jpg", exif=exif)
    dataset = load(home)
    assert dataset.image(0).shape[:2] == image.size[::-1]
    assert "have an EXIF orientation, e.g. ant/image_0001.jpg" in caplog.text


# Faults.


def test_missing_folders_are_named_with_where_the_set_is_had(tmp_path):
    for name, url in (("caltech101", r"data\.caltech\.edu"), ("imagenet", "image-net")):
        message = f"No data folder .*nowhere.*JALPOSE_DATA.*{url}"
        with pytest.raises(DataError, match=message):
            folders.find(name, str(tmp_path / "nowhere"))
        message = (
            f"No {name.upper()} in the data folder: .*config\\.data\\.folder.*{url}"
        )
        with pytest.raises(DataError, match=message):
            folders.find(name, str(tmp_path))
    (tmp_path / "101_ObjectCategories").mkdir()
    with pytest.raises(
        DataError, match=r"but there is .*101_ObjectCategories': move it"
    ):
        folders.find("caltech101", str(tmp_path))


def test_faults_of_class_folders_are_all_told_at_once(home):
    (home / "dog").mkdir()
    (home / "eel").mkdir()
    (home / "eel" / "notes.txt").write_text("x")
    shutil.move(home / "bee", home / "cat" / "bee")
    write_classes(home, {"Ant": 2})
    write_image(home / "loose.png", 1)
    message = refused(home)
    for said in (
        r"class folder '.*dog' has no images, it is empty",
        r"class folder '.*eel' has no images, it holds notes\.txt",
        r"class folder '.*cat' has folders in it: bee\. Move their images up",
        r"has the class folders 'Ant' and 'ant', which differ in case alone",
        r"1 images lie beside the class folders of '.*home': loose\.png\. Of which",
    ):
        assert re.search(said, message), said


def test_no_more_faults_than_can_be_read(tmp_path):
    for number in range(25):
        (tmp_path / f"class{number}").mkdir()
    assert refused(tmp_path).count("has no images") == 10
    assert "And 15 more." in refused(tmp_path)


def test_images_without_class_folders(tmp_path):
    write_image(tmp_path / "a.jpg", 0)
    assert "has 1 images (a.jpg) and no folder: sort" in refused(tmp_path)
    (tmp_path / "a.jpg").unlink()
    assert "has 0 class folders, and at least two are needed" in refused(tmp_path)


def test_a_name_that_is_no_text(home):
    name = os.fsdecode(b"caf\xe9.jpg")
    (home / "ant" / "image_0001.jpg").rename(home / "ant" / name)
    assert r"names that are not UTF-8: 'caf\udce9.jpg'. Rename them" in refused(home)


def test_files_that_are_no_images_are_collected_with_those_that_are_damaged(home):
    (home / "ant" / "notes.txt").write_text("not an image")
    (home / "bee" / "page.jpg").write_text("<html>not found</html>")
    cut = home / "cat" / "image_0003.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    with pytest.raises(DataError) as error:
        load(home)
    message = str(error.value)
    assert "3 of 70 images of FOLDERS are missing or damaged" in message
    assert re.search(r"notes\.txt' lies in the folder of a class, and '\.txt'", message)
    assert "damaged: ant/notes.txt, bee/page.jpg, cat/image_0003.jpg." in message
    dataset = load(home, damaged="leave_out")
    assert len(dataset.keys) == 67
    labels = dataset.truth["class"]
    assert np.bincount(labels).tolist() == [22, 20, 25]


def test_a_class_whose_images_are_all_left_out_is_still_one(home):
    for path in (home / "bee").iterdir():
        path.write_bytes(b"damaged")
    dataset = load(home, damaged="leave_out", initial=35)
    assert classes_of(dataset) == tuple(COUNTS)
    assert np.bincount(dataset.truth["class"]).tolist() == [22, 0, 26]


# The real part.


@pytest.mark.slow
@pytest.mark.data
def test_real_caltech101(tmp_path):
    folder = real_data_dir("caltech101")
    if folder is None:
        pytest.skip("no caltech101/ in JALPOSE_DATA or ../shared/data")
    changes = {"cache_dir": str(tmp_path), "size": 64, "initial": 450}
    dataset = load_dataset(data_section(folder, "caltech101", **changes), 0)
    classes = classes_of(dataset)
    assert len(classes) == 101 and folders.BACKGROUND not in classes
    assert classes[:2] == ("Faces", "Faces_easy") and classes[-1] == "yin_yang"
    labels = dataset.truth["class"]
    counts = np.bincount(labels, minlength=101)
    per_class = [
        len(os.listdir(f"{folder}/caltech101/101_ObjectCategories/{name}"))
        for name in classes
    ]
    assert counts.tolist() == per_class
    tests = np.bincount(labels[dataset.test], minlength=101)
    assert tests.tolist() == [round(0.2 * count) for count in per_class]
    for example in (0, 500, len(labels) - 1):
        path = f"{folder}/{dataset.files[example]}"
        expected = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(dataset.image(example), expected)
