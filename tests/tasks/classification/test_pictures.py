"""Classes drawn for reports: data found again, pictures, words."""

import json

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.loop import configs
from jalpose.report import album
from jalpose.tasks.classification import drawings, pictures
from jalpose.tasks.classification.sources import load_dataset
from tests.support.class_miniature import write_cifar, write_classes


def recorded(**changes):
    """A config as `config.json` has it, and the data set of its run."""
    delta = {key.replace("__", "."): value for key, value in changes.items()}
    config = configs.assemble(
        "scale=tiny", name="x", task="classification", delta=delta
    )
    return json.loads(config.to_json()), load_dataset(config.data, config.seed)


def assert_same(library, dataset, size):
    assert library.keys == dataset.keys
    np.testing.assert_array_equal(library.labels, dataset.truth["class"])
    for example in (0, len(dataset.keys) - 1):
        np.testing.assert_array_equal(
            library.crop(example, size), dataset.crop(example, size)
        )


def test_shapes_are_drawn_again():
    config, dataset = recorded(data__name="shapes", seeds__initial=4)
    assert pictures.drawn_seed(config) == 4
    _, dataset = recorded(data__name="shapes", seed=4)
    assert_same(pictures.open_library(config), dataset, 32)


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar_is_read_as_shipped(tmp_path, version, monkeypatch):
    monkeypatch.delenv("JALPOSE_DATA", raising=False)
    write_cifar(tmp_path / "data", "cifar10", version)
    config, dataset = recorded(
        data__dir=str(tmp_path / "data"),
        data__cache_dir=str(tmp_path / "cache"),
        data__pool=40,
        data__test=10,
    )
    assert pictures.drawn_seed(config) is None
    assert_same(pictures.open_library(config), dataset, 32)
    # Elsewhere, by another folder or by the environment.
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="No data folder"):
        pictures.open_library(config)
    assert_same(pictures.open_library(config, str(tmp_path / "moved")), dataset, 32)


def test_the_environment_says_where_data_are(tmp_path, monkeypatch):
    write_cifar(tmp_path / "data")
    config, dataset = recorded(
        data__dir=str(tmp_path / "data"),
        data__cache_dir=str(tmp_path / "cache"),
        data__pool=40,
        data__test=10,
    )
    (tmp_path / "data").rename(tmp_path / "moved")
    monkeypatch.setenv("JALPOSE_DATA", str(tmp_path / "moved"))
    assert_same(pictures.open_library(config), dataset, 32)


@pytest.mark.parametrize("damaged", ["refuse", "leave_out"])
def test_folders_are_cropped_as_the_network_sees_them(tmp_path, damaged):
    home = write_classes(tmp_path / "home", {"ant": 30, "bee": 30})
    if damaged == "leave_out":
        bad = next((home / "ant").iterdir())
        bad.write_bytes(bad.read_bytes()[:60])
    config, dataset = recorded(
        data__name="folders",
        data__dir=str(home),
        data__cache_dir=str(tmp_path / "cache"),
        data__initial=25,
        data__pool=16,
        data__test=8,
        data__size=20,
        data__damaged=damaged,
    )
    assert len(dataset.keys) == 60 - (damaged == "leave_out")
    assert_same(pictures.open_library(config), dataset, 20)


def test_a_set_that_is_not_known_here_is_told():
    with pytest.raises(DataError, match=r"data\.name='other': not known here"):
        pictures.open_library({"data": {"name": "other", "dir": ""}})


def test_small_images_are_shown_with_their_pixels():
    config, dataset = recorded(data__name="shapes")
    library = pictures.open_library(config)
    large = library.crop(0, 4 * 32)
    np.testing.assert_array_equal(large[1::4, 1::4], dataset.image(0))


# Drawing.


@pytest.fixture
def drawn():
    config, _ = recorded(data__name="shapes")
    return pictures.make_pictures(config), pictures.open_library(config)


def test_what_is_drawn(drawn):
    maker, library = drawn
    said = {"probabilities": np.eye(8, dtype=np.float32)[0]}
    wrong = int(np.flatnonzero(library.labels != 0)[0])
    image = library.crop(wrong, 96)

    def has(tile, colour):
        return bool((tile.reshape(-1, 3) == colour).all(axis=1).any())

    tile = maker.draw(library, wrong, image, said, labelled=True, size=96)
    assert tile.shape == (96, 96, 3)
    assert has(tile, drawings.TRUE) and has(tile, drawings.WRONG)
    blind = maker.draw(library, wrong, image, said, labelled=False, size=96)
    assert not has(blind, drawings.TRUE) and not has(blind, drawings.WRONG)
    label = maker.draw(library, wrong, image, None, labelled=True, size=96)
    assert has(label, drawings.TRUE) and not has(label, drawings.OTHER)
    # Without data, predictions stand on an empty ground.
    bare = maker.draw(None, wrong, None, said, labelled=True, size=96)
    assert has(bare, drawings.OTHER)
    assert maker.draw(None, wrong, None, None, labelled=True, size=96) is None


def test_examples_are_ranked_by_their_likeliest_class(drawn):
    maker, _ = drawn
    shares = np.array([[0.5, 0.5], [0.9, 0.1], [0.3, 0.7]], np.float32)
    values = maker.ranking.values({"probabilities": shares})
    np.testing.assert_allclose(values, [0.5, 0.9, 0.7], rtol=1e-6)
    assert maker.heats is None and maker.overview({}, 0) is None


def test_keys_of_another_run_are_refused(drawn):
    _, library = drawn
    album.check_keys(library, [{"id": 3, "key": library.keys[3]}])
    with pytest.raises(DataError, match="not the same data"):
        album.check_keys(library, [{"id": 3, "key": library.keys[4]}])


def test_every_shipped_set_has_its_terms():
    from jalpose.tasks.classification.sources import SOURCES

    assert pictures.TERMS.keys() == SOURCES.keys() - {"folders"}
