import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from jalpose.data.source import DataError
from jalpose.report import album
from jalpose.tasks.pose import pictures
from jalpose.tasks.pose.sources import load_dataset
from tests.support import fake_runs, miniature, mpii_miniature, recorded_runs

# Heatmaps


def test_the_most_uncertain_joints_come_with_their_peaks():
    places = np.full((1, 3, 2, 2), -1)
    places[0, 1] = [[4, 5], [6, 7]]
    places[0, 2, 0] = 1, 2
    arrays = {"peak_positions": places}
    shares = np.array([[[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]]])
    for more in (
        {"peak_probabilities": shares},
        {"joint_entropy": [[0.0, np.log(2), 0.0]]},
    ):
        first, second = pictures.most_uncertain_joints({**arrays, **more}, 0, 2)
        assert (first.joint, second.joint) == (1, 0)
        assert first.entropy == pytest.approx(np.log(2)) and second.entropy == 0
        assert first.places.tolist() == [[4, 5], [6, 7]] and len(second.places) == 0


def test_heatmaps_are_found_by_their_example():
    arrays = {"heatmap_ids": np.array([4, 9]), "heatmaps": np.arange(2)[:, None, None]}
    assert pictures.heatmaps_of(arrays, 9) == 1
    assert pictures.heatmaps_of(arrays, 5) is None
    assert pictures.heatmaps_of({}, 9) is None


# Images and labels


def test_figures_are_drawn_from_the_seed_of_the_initial_set():
    config = recorded_runs.config()
    assert pictures.drawn_seed(config) is None  # photographs
    config["data"]["name"], config["seed"] = "figures", 3
    assert pictures.drawn_seed(config) == 3
    config["seeds"]["initial"] = 0
    assert pictures.drawn_seed(config) == 0
    config["data"] |= {"initial": 4, "pool": 3, "test": 2}
    library = pictures.open_library(config)
    config["seed"] = 5
    again = pictures.open_library(config)
    np.testing.assert_array_equal(library.joints, again.joints)


def test_figures_are_those_of_the_run():
    config = ConfigDict(recorded_runs.config())
    config.data.name, config.seed = "figures", 3
    config.data.initial, config.data.pool, config.data.test = 20, 6, 4
    dataset = load_dataset(config.data, config.seed)
    library = pictures.open_library(json.loads(config.to_json()))
    assert library.keys == dataset.keys and library.files == dataset.files
    np.testing.assert_array_equal(library.joints, dataset.truth["joints"])
    np.testing.assert_array_equal(library.windows, dataset.windows)
    for example in (0, 19, 20, 29):
        np.testing.assert_array_equal(library.image_of(example), dataset.image(example))
    with pytest.raises(DataError, match="no example 30"):
        library.image_of(30)


@pytest.mark.parametrize("name", ["lsp", "mpii"])
def test_files_are_read_as_a_run_reads_them(name, tmp_path):
    if name == "lsp":
        miniature.write_miniature(tmp_path, 24, 6)
    else:
        mpii_miniature.write_benchmark(tmp_path)
    config = ConfigDict(recorded_runs.config())
    config.data.name, config.data.dir = name, str(tmp_path)
    config.data.cache_dir, config.data.initial = str(tmp_path / "cache"), 12
    dataset = load_dataset(config.data, config.seed)
    library = pictures.open_library(json.loads(config.to_json()))
    assert library.keys == dataset.keys and library.files == dataset.files
    assert library.skeleton == dataset.sources[0].skeleton
    np.testing.assert_array_equal(library.joints, dataset.truth["joints"])
    np.testing.assert_array_equal(library.status, dataset.truth["status"])
    np.testing.assert_array_equal(library.windows, dataset.windows)
    last = len(library.keys) - 1
    np.testing.assert_array_equal(library.image_of(last), dataset.image(last))
    (tmp_path / library.files[last]).unlink()
    with pytest.raises(DataError, match="cannot read"):
        library.image_of(last)


def test_images_that_a_run_left_out_are_left_out(tmp_path):
    miniature.write_miniature(tmp_path, 24, 6)
    for file in ("lsp/images/im0005.jpg", "lspet/images/im00002.jpg"):
        with open(tmp_path / file, "r+b") as stream:
            stream.truncate(200)
    config = ConfigDict(recorded_runs.config())
    config.data.name, config.data.dir = "lsp", str(tmp_path)
    config.data.cache_dir, config.data.initial = str(tmp_path / "cache"), 11
    config.data.pool, config.data.damaged = 0, "leave_out"
    dataset = load_dataset(config.data, config.seed)
    library = pictures.open_library(json.loads(config.to_json()))
    assert len(library.keys) == 28
    assert library.keys == dataset.keys
    np.testing.assert_array_equal(library.image_of(20), dataset.image(20))


def test_other_data_than_the_runs_are_refused():
    config = fake_runs.config("egl", 0)
    library = pictures.open_library(config)
    album.check_keys(library, [{"id": 3, "key": library.keys[3]}])
    with pytest.raises(DataError, match="not the same data"):
        album.check_keys(library, [{"id": 3, "key": "lsp/im0001"}])


def test_a_lost_image_leaves_the_poses(tmp_path):
    library = pictures.open_library(fake_runs.config("egl", 0))

    def lost(example):
        raise DataError("gone")

    broken = dataclasses.replace(library, image_of=lost)
    drawer = album.Drawer(pictures.make_pictures({}), broken)
    tile = drawer.tile(0)
    assert tile.mime == "image/png" and not tile.photograph
    assert drawer.unreadable == {0: "gone"}
    bare = album.Drawer(pictures.make_pictures({}), None)
    assert bare.tile(0) is None
    assert bare.tile(0, {"joints": library.joints[0]}).mime == "image/png"
