"""Labels against images: what is refused, what is warned of, and what is not."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from jalpose.data.source import DataError
from jalpose.tasks import findings
from jalpose.tasks.pose import checks, lsp
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE
from jalpose.tasks.pose.sources import load_dataset
from tests.support import miniature

WIDTH, HEIGHT, COUNT = 150, 200, 40
SIZES = np.tile([WIDTH, HEIGHT], (COUNT, 1))


def people(**changes):
    """Standing people in the middle of images of 150 x 200 pixels."""
    rng = np.random.default_rng(0)
    fields = {
        "keys": tuple(f"set/{n}" for n in range(COUNT)),
        "files": tuple(f"set/{n}.jpg" for n in range(COUNT)),
        "joints": np.stack(
            [miniature.stick_pose(rng, (WIDTH, HEIGHT)) for _ in range(COUNT)]
        ).astype(np.float32),
        "status": np.full((COUNT, 14), VISIBLE, np.int8),
        **changes,
    }
    return Annotations(**fields)


def moved(change):
    return people(joints=np.asarray(change(people().joints), np.float32))


def words_of(annotations, sizes=SIZES):
    return [finding.words for finding in checks.of_set("SET", annotations, sizes)]


def test_what_is_right_is_not_mentioned():
    assert words_of(people()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda j: j * 2, "more than half of their joints outside"),
        (lambda j: j + 5000, "40 people of SET have more than half of their joints"),
        (lambda j: j[..., ::-1], "% of the joints of SET lie outside their images"),
        (lambda j: j / 2, r"x up to \d+% of the width"),
        (lambda j: j / (WIDTH, HEIGHT), "pixels, not shares of the image"),
        (lambda j: j / 100, "less than a fiftieth of the image"),
        (
            lambda j: (j - j.min((0, 1))) * 99 / np.ptp(j, axis=(0, 1)),
            "the 40 people .* end at 99 and 99: are they percent of the image",
        ),
        (lambda j: 50 * j / (WIDTH, HEIGHT), "labels of smaller images"),
    ],
    ids=[
        "doubled",
        "moved out",
        "x and y",
        "halved",
        "shares",
        "tiny",
        "percent",
        "fifty",
    ],
)
def test_coordinates_of_other_images(change, message):
    found = " ".join(words_of(moved(change)))
    assert re.search(message, found), found


def test_labels_shifted_by_one_image():
    sizes = np.array([(WIDTH, HEIGHT) if n % 2 else (90, 60) for n in range(COUNT)])
    joints = people().joints * (sizes / (WIDTH, HEIGHT))[:, None]
    right = people(joints=joints.astype(np.float32))
    wrong = people(joints=np.roll(right.joints, 1, axis=0))
    assert words_of(right, sizes) == []
    assert "have more than half of their joints outside" in words_of(wrong, sizes)[0]


def test_a_joint_or_two_outside_is_nothing():
    joints = people().joints.copy()
    joints[7, :2] -= 500
    assert words_of(people(joints=joints)) == []
    joints[7, 2:9] -= 500
    (found,) = [w for w in words_of(people(joints=joints)) if "half" in w]
    assert found.startswith("1 people of SET") and "set/7" in found


def test_examples_are_named_and_counted():
    (found, *_) = words_of(moved(lambda j: j + 5000))
    assert "set/0, set/1, set/2 and 37 more" in found


def test_flags_of_occlusion_that_are_inverted():
    status = np.full((COUNT, 14), OCCLUDED, np.int8)
    status[:, :1] = VISIBLE
    assert words_of(people(status=status)) == [
        "93% of the joints of SET are occluded: are its flags inverted?"
    ]


def test_the_same_entry_twice_is_refused():
    annotations = people()
    files, joints = list(annotations.files), annotations.joints.copy()
    files[9], joints[9] = files[4], joints[4]
    (finding,) = checks.of_set("SET", people(files=tuple(files), joints=joints), SIZES)
    assert finding.impossible
    assert "1 people of SET are there twice" in finding.words
    assert "set/4 and set/9" in finding.words
    # Two people of one image are not the same.
    assert words_of(people(files=tuple(files))) == []


def test_absent_joints_are_not_looked_at():
    joints, status = people().joints.copy(), people().status.copy()
    joints[:, 3:], status[:, 3:] = np.nan, ABSENT
    joints[5], status[5] = np.nan, ABSENT
    assert words_of(people(joints=joints, status=status)) == []


def test_windows_that_do_not_meet_their_images():
    windows = np.tile([75.0, 100, 180], (COUNT, 1))
    assert checks.of_windows("SET", people().keys, windows, SIZES) == []
    windows[3, 0] = -200
    (found,) = checks.of_windows("SET", people().keys, windows, SIZES)
    assert found.impossible
    assert "of 1 people of SET do not meet their images" in found.words
    assert "set/3 (of the first the image has 150 x 200 pixels" in found.words


def test_images_in_two_parts():
    parts = {"labelled": np.arange(3), "pool": np.arange(3, 6), "test": np.arange(6, 9)}
    keys = tuple(f"set/{n}" for n in range(9))
    digests = ["a", "b", "c", "d", "a", "", "b", "", "d"]
    found = findings.of_parts(parts, keys, keys, digests)
    assert [f.words.partition(":")[0] for f in found] == [
        "1 images are the same file in the labelled and the pool part",
        "1 images are the same file in the labelled and the test part",
        "1 images are the same file in the pool and the test part",
    ]
    assert "set/1 and set/6" in found[1].words
    assert "Its label would be bought" in found[0].words
    assert all("not to be tested on" in f.words for f in found[1:])
    assert not any(f.impossible for f in found)
    # Twice in one part, and two people of one file, are nothing.
    assert findings.of_parts({"pool": np.arange(9)}, keys, keys, digests) == []
    assert findings.of_parts(parts, keys, ("one",) * 9, ["a"] * 9) == []


@pytest.mark.parametrize("check", ["warn", "strict"])
def test_what_follows(check, caplog):
    unlikely, impossible = findings.Finding("odd."), findings.Finding("wrong.", True)
    if check == "strict":
        with pytest.raises(DataError, match=r"odd\. data\.check=off"):
            findings.act_on([unlikely], check)
    else:
        findings.act_on([unlikely], check)
        assert [r.message for r in caplog.records] == ["odd."]
    with pytest.raises(DataError, match=r"wrong\. data\.check=off"):
        findings.act_on([unlikely, impossible], check)


class TestBenchmark:
    """LSP in miniature, spoilt."""

    @pytest.fixture
    def data(self, tmp_path):
        from jalpose.loop.configs import default

        miniature.write_miniature(tmp_path, 24, 9)
        data = default().data
        data.dir, data.cache_dir = str(tmp_path), str(tmp_path / "cache")
        data.initial = 12
        return data

    def test_nothing_is_said_of_what_is_right(self, data, caplog):
        data.check = "strict"
        load_dataset(data, 0)
        assert caplog.records == []

    def shipped(self, data, name="lsp"):
        import scipy.io

        path = os.path.join(data.dir, name, "joints.mat")
        order = (2, 1, 0) if name == "lsp" else (2, 0, 1)
        return scipy.io.loadmat(path)["joints"].transpose(order).copy()

    def test_one_wild_coordinate_is_refused_when_labels_are_read(self, data):
        joints = self.shipped(data, "lspet")
        joints[4, 13] = (65535, 20, 1)
        miniature.save_joints(data.dir, "lspet", joints)
        message = (
            r"a coordinate beyond 32,768 pixels: .*65535.* for joint 'head' of image "
            r"im00005 \(index 4\)"
        )
        with pytest.raises(DataError, match=message):
            lsp.read_lspet_annotations(data.dir)

    def test_flags_of_lspet_that_are_inverted(self, data):
        joints = self.shipped(data, "lspet")
        joints[..., 2] = 1 - joints[..., 2]
        miniature.save_joints(data.dir, "lspet", joints)
        with pytest.raises(DataError, match="are the flags inverted"):
            load_dataset(data, 0)

    def test_a_person_far_outside_is_refused_or_used_as_asked(self, data, caplog):
        joints = self.shipped(data)
        joints[20, :, :2] += 5000
        miniature.save_joints(data.dir, "lsp", joints)
        with pytest.raises(DataError, match=r"do not meet their images.*lsp/im0021"):
            load_dataset(data, 0)
        data.check = "off"
        caplog.clear()
        dataset = load_dataset(data, 0)
        assert not dataset.crop(20, 32).any()
        assert caplog.records == []

    def test_a_test_image_that_is_a_training_image(self, data, caplog):
        folder = os.path.join(data.dir, "lsp", "images")
        with open(os.path.join(folder, "im0003.jpg"), "rb") as file:
            image = file.read()
        with open(os.path.join(folder, "im0020.jpg"), "wb") as file:
            file.write(image)
        load_dataset(data, 0)
        assert "1 images are the same file in the labelled and the test" in caplog.text
        assert "lsp/im0003 and lsp/im0020" in caplog.text

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda image: image.resize((48, 64)), "half of their joints outside"),
            (lambda image: image.resize((96, 96)), "of the joints of LSP lie outside"),
            (
                lambda image: image.transpose(Image.Transpose.ROTATE_90),
                "of the joints of LSP lie outside",
            ),
        ],
        ids=["shrunk", "squared", "rotated by EXIF"],
    )
    def test_images_that_are_no_longer_those_of_the_labels(
        self, data, caplog, change, words
    ):
        exif = Image.Exif()
        exif[0x0112] = 6
        for number in range(1, 25):
            path = os.path.join(data.dir, "lsp", "images", f"im{number:04d}.jpg")
            with Image.open(path) as image:
                changed = change(image)
            turned = changed.width > changed.height
            changed.save(path, exif=exif if turned else Image.Exif())
        load_dataset(data, 0)
        assert words in caplog.text
        assert ("24 of 24 images have an EXIF orientation" in caplog.text) == turned

    def test_images_left_out_change_nobodys_side(self, data, caplog):
        for name in ("im0002", "im0015"):
            path = os.path.join(data.dir, "lsp", "images", f"{name}.jpg")
            with open(path, "r+b") as file:
                file.truncate(200)
        with pytest.raises(DataError, match="2 of 24 images of LSP"):
            load_dataset(data, 0)
        data.damaged, data.initial = "leave_out", 11
        dataset = load_dataset(data, 0)
        labelled = [dataset.keys[i] for i in dataset.initial]
        assert labelled == [f"lsp/im{n:04d}" for n in range(1, 13) if n != 2]
        tested = [dataset.keys[i] for i in dataset.test]
        assert tested == [f"lsp/im{n:04d}" for n in range(13, 25) if n != 15]
        assert "1 of" not in caplog.text


def test_images_of_other_sizes_than_told():
    keys = people().keys
    assert checks.of_sizes("SET", keys, SIZES, SIZES) == []
    now = SIZES.copy()
    now[[3, 8]] = 75, 100
    (found,) = checks.of_sizes("SET", keys, SIZES, now)
    assert found.impossible and found.rule == "sizes" and found.examples == (3, 8)
    assert "images of 2 people of SET" in found.words
    assert "set/3, set/8 (the first 75 x 100 pixels, not 150 x 200)" in found.words


def test_what_is_of_a_whole_set_has_a_sample():
    halved = moved(lambda joints: joints / 2)
    (found,) = checks.of_set("SET", halved, SIZES)
    assert found.rule == "corner" and not found.impossible
    assert found.examples == (0, 8, 16, 23, 31, 39)
    status = np.full((COUNT, 14), OCCLUDED, np.int8)
    status[::2] = VISIBLE
    status[::2, 0] = OCCLUDED
    (found,) = checks.of_set("SET", people(status=status), SIZES)
    assert found.rule == "occluded" and len(found.examples) == 6


def test_every_rule_is_known_by_its_name():
    twice = people(files=("set/0.jpg",) * COUNT, joints=people().joints[[0] * COUNT])
    windows = np.array([(5000, 5000, 10)] * COUNT, np.float32)
    digests = ("a", "a", *map(str, range(COUNT - 2)))
    boxes = np.tile(np.float32([900, 900, 999, 999]), (COUNT, 1))
    found = [
        *checks.of_set("SET", twice, SIZES),
        *checks.of_set("SET", moved(lambda j: j * 2), SIZES),
        *checks.of_set("SET", moved(lambda j: j / (WIDTH, HEIGHT)), SIZES),
        *checks.of_set("SET", moved(lambda j: j / 100), SIZES),
        *checks.of_set("SET", moved(lambda j: j / 2), SIZES),
        *checks.of_set("SET", moved(lambda j: j * 99 / j.max((0, 1))), SIZES),
        *checks.of_set("SET", people(status=np.zeros((COUNT, 14), np.int8)), SIZES),
        *checks.of_windows("SET", people().keys, windows, SIZES),
        *checks.of_sizes("SET", people().keys, SIZES, SIZES + 1),
        *checks.of_boxes("SET", people(boxes=boxes), SIZES),
        *checks.of_boxes("SET", people(boxes=boxes / 1e4), SIZES),
        *checks.of_pool(np.array([0, 1]), people().files, digests),
        *checks.of_parts(
            {"labelled": np.array([0]), "test": np.array([1])},
            people().keys,
            people().files,
            digests,
        ),
    ]
    assert {finding.rule for finding in found} == set(checks.RULES)
    refused = {finding.rule for finding in found if finding.impossible}
    assert refused == set(checks.REFUSED)


@pytest.mark.data
@pytest.mark.parametrize("name", ["lsp", "lspet"])
def test_nothing_is_said_of_the_real_sets(name):
    folder = miniature.real_data_dir(name)
    if folder is None:
        pytest.skip("no real data")
    labels = lsp.read_annotations(name, folder)
    sizes = []
    for file in labels.files:
        with Image.open(os.path.join(folder, file)) as image:
            sizes.append(image.size)
    assert checks.of_set(name, labels, np.array(sizes)) == []
