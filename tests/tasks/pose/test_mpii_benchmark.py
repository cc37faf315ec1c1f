"""MPII: the images, the benchmark, and both with the real images at hand."""

import json
import os
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from jalpose.data import pipeline
from jalpose.data.source import DataError
from jalpose.loop.context import make_context
from jalpose.runtime.throughput import Meter
from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose import mpii, pck, prepared
from jalpose.tasks.pose.skeletons import ABSENT, MPII
from jalpose.tasks.pose.sources import load_dataset
from tests.support import small
from tests.support.mpii_miniature import (
    NUM_IMAGES,
    entry,
    image,
    person,
    points,
    read,
    save_json,
    save_release,
    write_benchmark,
)

HEAD, NECK, RIGHT_ANKLE, PELVIS, THORAX = 0, 1, 13, 14, 15


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_benchmark(folder)
    return folder


def mpii_config(raw, **changes):
    delta = {
        "data.name": "mpii",
        "data.dir": str(raw),
        "data.cache_dir": str(raw / "cache"),
        "data.initial": 12,
        "data.pool": 0,
        "data.test": 0,
        "data.crop": "official",
        "data.window": 1.25,
        "evaluation.reference": "head",
        "evaluation.joints": "official",
        "evaluation.threshold": 0.5,
        "acquisition.budget": 4,
        "acquisition.pool_subset": 8,
        "loop.cycles": 1,
        **changes,
    }
    return small.configure(delta)


def load(raw, seed=0, **changes):
    return load_dataset(mpii_config(raw, **changes).data, seed)


def evaluated(config, data):
    """(context, metrics, arrays) of new weights on the test set."""
    context = make_context(config, data, small.programs())
    variables = context.trainer.init(jax.random.key(0)).variables
    return context, *context.evaluator.evaluate(context.passes, variables, Meter())


class TestSource:
    def test_images_are_stored_once_and_found_by_everybody(
        self, raw, tmp_path, monkeypatch
    ):
        reading, stored = mpii.read_image_file, []

        def read(data_dir, file, index):
            stored.append(file)
            return reading(data_dir, file, index)

        monkeypatch.setattr(mpii, "read_image_file", read)
        source = prepared.open_source("mpii", str(raw), str(tmp_path))
        assert source.skeleton is MPII
        assert len(source.annotations) == NUM_IMAGES + 10
        assert len(set(stored)) == len(stored) == NUM_IMAGES
        for index, file in enumerate(source.annotations.files):
            expected = np.asarray(Image.open(raw / file))
            np.testing.assert_array_equal(source.image(index), expected)

    def test_options_share_the_prepared_images(self, raw, tmp_path):
        ids = set(range(16))
        people = [person(annopoints=points(ids - {j})) for j in (0, 16, 17)]
        for name in ("a", "b"):
            file = tmp_path / "mpii" / "images" / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 9), (200, 0, ord(name))).save(file)
        images = [image("a.jpg", people[0]), image("b.jpg", *people[1:])]
        save_release(tmp_path, images)
        cache = tmp_path / "cache"
        folders = set()
        for options in (mpii.Options(), mpii.Options(all_joints=True, head_shift=0.2)):
            source = prepared.open_source("mpii", str(tmp_path), str(cache), options)
            folders.add(source.prepared_dir)
        (folder,) = folders
        assert re.fullmatch(r"mpii-2\.0\.0(-[0-9a-f]{12}){2}", os.path.basename(folder))
        assert source.annotations.keys == ("mpii/b_1", "mpii/b_2")
        expected = np.asarray(Image.open(tmp_path / "mpii" / "images" / "b.jpg"))
        np.testing.assert_array_equal(source.image(0), expected)

    def test_missing_and_damaged_images(self, tmp_path):
        save_release(tmp_path, [image("a.jpg", person())])
        cache = str(tmp_path / "cache")
        message = r"Cannot read image '.*a\.jpg' \(record 0\), which the annotation"
        with pytest.raises(DataError, match=message):
            prepared.open_source("mpii", str(tmp_path), cache)
        (tmp_path / "mpii" / "images").mkdir()
        (tmp_path / "mpii" / "images" / "a.jpg").write_bytes(b"no image")
        message = (
            r"Cannot decode image '.*a\.jpg' \(record 0\).*mpii_human_pose_v1\.tar"
        )
        with pytest.raises(DataError, match=message):
            prepared.open_source("mpii", str(tmp_path), cache)


class TestBenchmark:
    def test_split(self, raw):
        data = load(raw)
        numbers = np.array([int(pathlib.Path(file).stem) for file in data.files])
        assert (numbers[data.test] >= 20).all()
        assert len(data.test) == (numbers >= 20).sum()
        train = np.concatenate([data.initial, data.pool])
        assert sorted(train) == np.flatnonzero(numbers < 20).tolist()
        assert len(data.initial) == 12
        assert (np.diff(data.initial) > 0).all()
        assert (data.truth["head_size"] == 50).all()

    def test_the_first_labelled_are_drawn_by_the_seed(self, raw):
        first, again, other = load(raw), load(raw), load(raw, seed=1)
        np.testing.assert_array_equal(first.initial, again.initial)
        assert first.initial.tolist() != other.initial.tolist()
        assert first.initial.tolist() != list(range(12))
        np.testing.assert_array_equal(first.test, other.test)

    def test_limits(self, raw):
        data = load(raw, **{"data.pool": 5, "data.test": 4})
        whole = load(raw)
        assert len(data.pool) == 5
        assert set(data.pool) <= set(whole.pool)
        assert len(set(data.test)) == 4
        assert set(data.test) <= set(whole.test)
        np.testing.assert_array_equal(data.initial, whole.initial)
        np.testing.assert_array_equal(
            data.test, load(raw, seed=3, **{"data.test": 4}).test
        )

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            (
                "data.initial",
                28,
                "data.initial=28, but the part of MPII outside Newell",
            ),
            ("data.pool", 16, "data.pool=16, but what is left of it has 15"),
            ("data.test", 14, "data.test=14, but Newell's validation set has 13"),
        ],
    )
    def test_too_few(self, raw, key, value, message):
        with pytest.raises(DataError, match=message):
            load(raw, **{key: value})

    def test_no_list(self, raw, tmp_path):
        labels = read(raw)
        (tmp_path / "mpii").mkdir()
        message = r"Cannot read the names of .*newell_validation_images\.txt'.*copy it"
        with pytest.raises(DataError, match=message):
            mpii.in_validation(labels, str(tmp_path))
        (tmp_path / "mpii" / mpii.VALIDATION_LIST).write_text("x.jpg\n")
        with pytest.raises(DataError, match=r"None of the 1 names in '.*' is an image"):
            mpii.in_validation(labels, str(tmp_path))

    @pytest.mark.parametrize("crop", ["joints", "box", "official"])
    def test_windows(self, raw, crop):
        data = load(raw, **{"data.crop": crop})
        if crop == "joints":
            joints = data.truth["joints"]
            middle = (joints.min(axis=1) + joints.max(axis=1)) / 2
            np.testing.assert_allclose(data.windows[:, :2], middle, rtol=1e-6)
        else:
            down = 3 if crop == "official" else 0  # 15 * 0.2
            expected = [29, 29 + down, 1.25 * 40]
            np.testing.assert_allclose(data.windows[0], expected)
            assert (data.windows == data.windows[0]).all()

    @pytest.mark.slow
    def test_pckh_goes_through_a_context(self, raw):
        context, metrics, arrays = evaluated(mpii_config(raw), load(raw))
        truth = context.dataset.truth_of(arrays["test_ids"])
        expected = pck.pck(
            arrays["test_joints"],
            truth["joints"],
            truth["status"],
            MPII,
            threshold=0.5,
            reference="head",
            head_sizes=truth["head_size"],
            average="official",
        )
        assert metrics["pck"] == pytest.approx(expected.mean)
        assert metrics["pck_reference"] == "head"
        assert metrics["pck_joints"] == "official"
        assert set(metrics["pck_per_joint"]) == set(MPII.joints)
        assert 0 < metrics["mean_pose_pck"] < 1

    def test_no_head_boxes_to_measure_in(self, tmp_path):
        write_benchmark(tmp_path)
        people = [entry(f"{n:03d}.jpg") for n in range(NUM_IMAGES)]
        save_json(tmp_path, people)
        config = mpii_config(
            tmp_path,
            **{"data.mpii.annotation": "annot/trainval.json", "data.check": "off"},
        )
        data = load_dataset(config.data, 0)
        message = r"evaluation\.reference=head needs head boxes.*reference=torso"
        with pytest.raises(ConfigError, match=message):
            make_context(config, data, small.programs())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images and list of the benchmark, for annotations of one's own."""
    folder = tmp_path_factory.mktemp("json")
    write_benchmark(folder)
    return folder


class TestSpoiltJson:
    """People of HRNet's JSON inside their images, and what is wrong with them then."""

    def people(self, **changes):
        rng = np.random.default_rng(0)
        fields = {"center": [30.0, 30.0], "scale": 0.2, **changes}
        return [
            entry(
                f"{n:03d}.jpg", joints=rng.uniform(10, 50, (16, 2)).tolist(), **fields
            )
            for n in range(NUM_IMAGES)
        ]

    def load(self, folder, people):
        save_json(folder, people)
        options = {"data.mpii.annotation": "annot/trainval.json"}
        return load(folder, **options, **{"evaluation.reference": "torso"})

    def test_what_is_right_is_taken(self, images):
        data = self.load(images, self.people())
        assert (len(data.initial), len(data.pool), len(data.test)) == (12, 8, 10)

    @pytest.mark.parametrize("centre", [[-30.0, -30.0], [5000.0, 30.0]])
    def test_centres_whose_crops_would_be_black(self, images, centre):
        message = r"The crop windows of 30 people of MPII do not meet their images.*000"
        with pytest.raises(DataError, match=message):
            self.load(images, self.people(center=centre))

    def test_every_entry_twice(self, images):
        message = r"30 people of MPII are there twice.*mpii/000_1 and mpii/000_2"
        with pytest.raises(DataError, match=message):
            self.load(images, self.people() * 2)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.crop", "offical", "Did you mean 'official'"),
        ("evaluation.reference", "heads", "Known: torso, head, head_full"),
        ("evaluation.joints", "some", "Known: all, official"),
        ("data.mpii.head_shift", 1.5, "head_shift=1.5 must lie between 0 and 1"),
    ],
)
def test_config_values(key, value, message):
    with pytest.raises(ConfigError, match=message):
        mpii_config(pathlib.Path("/"), **{key: value})


# The real images at hand.

COPIES = 6
NUM_REAL = 5


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real images, six times under names of their own, two of five to test.

    (Of five people alone none would be in the held-out tenth.)
    """
    default = pathlib.Path(__file__).parents[4] / "shared" / "data"
    source = pathlib.Path(os.environ.get("JALPOSE_DATA") or default) / "mpii"
    if not (source / "test_mpii.json").is_file():
        pytest.skip("no mpii/test_mpii.json in JALPOSE_DATA or ../shared/data")
    shipped = json.loads((source / "test_mpii.json").read_text())
    assert len(shipped) == NUM_REAL
    folder = tmp_path_factory.mktemp("real")
    (folder / "mpii" / "images").mkdir(parents=True)
    people, names = [], []
    for copy in range(COPIES):
        for one in shipped:
            name = f"{copy}_{one['image']}"
            shutil.copy(source / one["image"], folder / "mpii" / "images" / name)
            people.append({**one, "image": name})
            if one["image"] in ("004645041.jpg", "052475643.jpg"):
                names.append(name)
    save_json(folder, people, "trainval.json")
    (folder / "mpii" / mpii.VALIDATION_LIST).write_text("\n".join(names))
    return folder


@pytest.mark.data
class TestRealImages:
    def test_joints_lie_in_their_image(self, real):
        source = prepared.open_source("mpii", str(real), str(real / "cache"))
        labels = source.annotations
        for index in range(NUM_REAL):
            height, width, _ = source.image(index).shape
            there = labels.joints[index, labels.status[index] != ABSENT]
            assert (there >= 0).all()
            assert (there < (width, height)).all()
        pose = labels.joints[labels.keys.index("mpii/0_052475643_1")]  # stands upright
        assert pose[HEAD, 1] < pose[NECK, 1] < pose[PELVIS, 1] < pose[RIGHT_ANKLE, 1]

    def test_pelvis_and_thorax_lie_in_the_torso(self, real):
        # Annotated near the middle of the hips, and of the shoulders: a check of the
        # joint order by what nobody here wrote.
        labels = read(real)
        joints, torso = (
            labels.joints,
            pck.torso_lengths(labels.joints, labels.status, MPII),
        )
        for joint, pair in ((PELVIS, (8, 11)), (THORAX, (2, 5))):
            away = joints[:, joint] - joints[:, pair].mean(axis=1)
            assert (np.linalg.norm(away, axis=1) < 0.3 * torso).all()

    @pytest.mark.parametrize(("crop", "window"), [("official", 1.25), ("joints", 1.75)])
    def test_crops_hold_the_whole_person(self, real, crop, window):
        data = load(real, **{"data.crop": crop, "data.window": window})
        ids = np.arange(NUM_REAL)
        labels = small.labels_of(data, ids, 64)
        rows = pipeline.CropSource(data, ids, 64, labels)
        for index in range(NUM_REAL):
            row = rows[index]
            there = row["label"]["status"] != ABSENT
            joints = row["label"]["joints"][there]
            assert ((joints > 0) & (joints < 63)).all()
            # The person fills a good part of the crop.
            assert (joints.max(axis=0) - joints.min(axis=0)).max() > 0.4 * 64
            assert row["image"].std() > 20

    @pytest.mark.slow
    def test_through_the_network(self, real):
        changes = {"evaluation.reference": "torso", "acquisition.pool_subset": 0}
        data = load(real)
        assert (len(data.initial), len(data.pool), len(data.test)) == (12, 6, 12)
        assert "head_size" not in data.truth
        _, metrics, arrays = evaluated(mpii_config(real, **changes), data)
        assert arrays["test_joints"].shape == (12, 16, 2)
        assert (metrics["num_images"], metrics["num_left_out"]) == (12, 0)
        assert 0 < metrics["mean_pose_pck"] < 1
