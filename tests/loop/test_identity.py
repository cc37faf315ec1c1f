"""Runs go on with the data they began with, and models are taken on them alone."""

import dataclasses
import io
import os

import jax
import numpy as np
import pytest

from jalpose.engine_comparison import session
from jalpose.engine_comparison.options import Options
from jalpose.loop import identity, run
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.tasks.pose.sources import load_dataset
from tests.support import miniature, small


def moved(data, example, by=7):
    """The dataset with the joints of an example moved."""
    truth = {name: values.copy() for name, values in data.truth.items()}
    truth["joints"][example] += by
    return dataclasses.replace(data, truth=truth)


class TestDifference:
    @pytest.fixture
    def workdir(self, tmp_path, figures):
        identity.write(tmp_path, figures)
        return tmp_path

    def test_the_same_data_differ_in_nothing(self, workdir, figures):
        assert identity.difference(workdir, figures) == ""

    def test_a_label_that_moved_is_named(self, workdir, figures):
        other = moved(moved(figures, 50), 77)
        assert identity.difference(workdir, other) == (
            "2 examples differ (124 examples then, 124 now); the first is number 50: "
            f"of {figures.keys[50]} its label, file or crop window is another"
        )

    def test_a_part_that_changed_is_named(self, workdir, figures):
        pool = figures.pool[figures.pool != 60]
        found = identity.difference(workdir, dataclasses.replace(figures, pool=pool))
        assert "1 examples differ" in found
        assert "number 60" in found and "in the pool" in found

    def test_other_data_from_some_example_on(self, workdir, figures):
        keys = (*figures.keys[:60], *figures.keys[62:], "new/a", "new/b")
        found = identity.difference(workdir, dataclasses.replace(figures, keys=keys))
        assert "64 examples differ" in found
        assert (
            f"number 60: there was {figures.keys[60]}, now there is {figures.keys[62]}"
        ) in found

    def test_a_damaged_file_is_said_to_be(self, workdir, figures):
        path = workdir / identity.FILE
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(records.WorkdirError, match=r"examples\.npz is damaged"):
            identity.difference(workdir, figures)

    def test_nothing_is_known_of_an_older_workdir(self, tmp_path, figures):
        assert not identity.written(tmp_path)
        assert identity.difference(tmp_path, figures) == ""


class TestFiles:
    """LSP in miniature: what is behind the numbers."""

    @pytest.fixture
    def data(self, tmp_path):
        from jalpose.loop.configs import default

        miniature.write_miniature(tmp_path / "raw", 24, 9)
        data = default().data
        data.dir, data.cache_dir = str(tmp_path / "raw"), str(tmp_path / "cache")
        data.initial, data.size = 12, 32
        return data

    def test_a_cut_annotation_file(self, data, tmp_path):
        import scipy.io

        identity.write(tmp_path, load_dataset(data, 0))
        path = os.path.join(data.dir, "lsp", "joints.mat")
        joints = scipy.io.loadmat(path)["joints"].transpose(2, 1, 0)
        miniature.save_joints(data.dir, "lsp", joints[:22])
        data.initial = 11
        found = identity.difference(tmp_path, load_dataset(data, 0))
        assert "(33 examples then, 31 now)" in found
        assert "number 11: of lsp/im0012 it is labelled" in found

    def test_an_image_that_was_replaced(self, data, tmp_path):
        identity.write(tmp_path, load_dataset(data, 0))
        folder = os.path.join(data.dir, "lsp", "images")
        os.replace(
            os.path.join(folder, "im0009.jpg"), os.path.join(folder, "im0003.jpg")
        )
        miniature.write_miniature(data.dir, 24, 0)  # im0009 anew, and all others
        assert identity.difference(tmp_path, load_dataset(data, 0)) == ""
        with open(os.path.join(folder, "im0009.jpg"), "rb") as file:
            image = file.read()
        with open(os.path.join(folder, "im0003.jpg"), "wb") as file:
            file.write(image)
        found = identity.difference(tmp_path, load_dataset(data, 0))
        assert found.startswith("1 examples differ")
        assert "number 2: of lsp/im0003 its image is another" in found

    def test_crops_of_a_replaced_image_are_cut_anew(self, data, tmp_path):
        before = load_dataset(data, 0)
        old = before.crop(2, 32)
        folder = os.path.join(data.dir, "lsp", "images")
        with open(os.path.join(folder, "im0009.jpg"), "rb") as file:
            image = file.read()
        with open(os.path.join(folder, "im0003.jpg"), "wb") as file:
            file.write(image)
        after = load_dataset(data, 0)
        assert not np.array_equal(after.crop(2, 32), old)
        assert np.array_equal(after.image(2), after.image(8))
        assert np.array_equal(load_dataset(data, 0).crop(2, 32), after.crop(2, 32))


# Runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a run of one cycle, and a way to start others."""
    make_mesh = sharding.make_mesh

    def one_device(devices=None):
        return make_mesh(jax.devices()[:1] if devices is None else devices)

    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", one_device)
        for module in (run, session):
            patch.setattr(module, "Programs", lambda mesh: small.programs(mesh.size))
        patch.setattr(run, "load_dataset", small.drawn_dataset)
        small.remember_templates(patch)
        perform(workdir)
        yield workdir


CHANGES = {"acquisition.method": "random", "loop.cycles": 1, "training.base_steps": 2}


def perform(workdir, changes=None):
    config = small.configure({**CHANGES, **(changes or {})})
    run.run(config, os.fspath(workdir), Screen(io.StringIO()))


@pytest.fixture
def spoilt(finished, monkeypatch):
    """The same run with all labels of the pool moved by 7 pixels."""

    def load(config, screen=None):
        data = small.drawn_dataset(config, screen)
        return moved(data, data.pool)

    monkeypatch.setattr(run, "load_dataset", load)
    return finished


MESSAGE = r"60 examples differ .*the first is number 40: of figures/000040 its label"


def test_a_run_is_resumed_on_its_data(finished):
    assert identity.written(finished)
    perform(finished)


def test_a_run_is_not_resumed_on_other_data(spoilt):
    with pytest.raises(records.WorkdirError, match=f"a run of other data: {MESSAGE}"):
        perform(spoilt)


def test_a_base_of_other_data_is_refused(spoilt, tmp_path):
    message = rf"config\.base='.*': its models were trained on other data: {MESSAGE}"
    with pytest.raises(ConfigError, match=message):
        perform(tmp_path, {"base": os.fspath(spoilt)})


def test_engines_are_not_compared_on_other_data(spoilt):
    with pytest.raises(ConfigError, match=rf"--workdir='.*{MESSAGE}"):
        session.compare(small.configure(CHANGES), os.fspath(spoilt), Options(images=8))


def test_a_workdir_begun_before_is_resumed_and_written_down(finished):
    (finished / identity.FILE).unlink()
    perform(finished)
    assert identity.written(finished)
