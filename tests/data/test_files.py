"""What is not there, and what may not be looked at."""

import os

import pytest

from jalpose.data import files
from jalpose.data.source import DataError
from jalpose.tasks.pose import lsp, mpii
from tests.support import miniature

REFUSED = r"may not be read by this user: have the permissions"


def refuse(monkeypatch, name, where):
    """Let `os.<name>` refuse a path, as it would to anybody but root."""
    usual = getattr(os, name)

    def refusing(path, *arguments, **options):
        if os.fspath(path) == os.fspath(where):
            raise PermissionError(13, "Permission denied")
        return usual(path, *arguments, **options)

    monkeypatch.setattr(os, name, refusing)


def test_what_is_there_and_what_is_not(tmp_path):
    (tmp_path / "file").touch()
    assert files.is_file(tmp_path / "file") and not files.is_folder(tmp_path / "file")
    assert files.is_folder(tmp_path) and not files.is_file(tmp_path)
    for name in ("none", "file/in/a/file"):
        assert not files.is_file(tmp_path / name)
        assert not files.is_folder(tmp_path / name)


@pytest.mark.parametrize("name", ["stat", "scandir"])
def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch, name):
    refuse(monkeypatch, name, tmp_path)
    with pytest.raises(DataError, match=REFUSED):
        files.is_folder(tmp_path)


def test_an_annotation_file_that_may_not_be_read(tmp_path, monkeypatch):
    miniature.write_miniature(tmp_path, 3, 0)
    refuse(monkeypatch, "stat", tmp_path / "lsp" / "joints.mat")
    with pytest.raises(DataError, match=rf"lsp/joints\.mat' {REFUSED}"):
        lsp.read_lsp_annotations(str(tmp_path))


def test_a_data_folder_that_may_not_be_read(tmp_path, monkeypatch):
    refuse(monkeypatch, "scandir", tmp_path)
    for find in (lambda f: lsp.find_joints_file("lsp", f), mpii.find_annotation):
        with pytest.raises(DataError, match=REFUSED):
            find(str(tmp_path))
