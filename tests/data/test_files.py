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
            raise PermissionError(13, "Permission denied", os.fspath(path))
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


def test_links_to_folders_are_followed_and_no_circle_is_walked(tmp_path):
    photos, disk = tmp_path / "photos", tmp_path / "disk"
    for path in (photos / "b/1.jpg", photos / ".no/1.jpg", disk / "2.JPG"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, target in (("a", disk), ("c", disk), ("d", photos / "b"), ("e", ".")):
        (photos / name).symlink_to(target)
    (disk / "up").symlink_to(tmp_path)
    assert files.images_below(photos) == ["a/2.JPG", "b/1.jpg"]


def test_pictures_that_commands_have_written_are_no_new_images(tmp_path, caplog):
    names = ("a.jpg", "out/prediction.json", "out/pictures/00001_a.jpg")
    for name in (*names, "ours/cycles.jsonl", "ours/to_label/cycle_00/images/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files.images_below(tmp_path) == ["a.jpg"]
    assert f"{tmp_path / 'out'} is written by jalpose" in caplog.text
    # Whoever names such a folder means it.
    assert files.images_below(tmp_path / "out") == ["pictures/00001_a.jpg"]


def test_a_folder_below_that_may_not_be_read_is_no_empty_one(tmp_path, monkeypatch):
    (tmp_path / "1.jpg").touch()
    (tmp_path / "below").mkdir()
    refuse(monkeypatch, "scandir", tmp_path / "below")
    with pytest.raises(DataError, match=rf"below' {REFUSED}"):
        files.images_below(tmp_path)


def test_a_name_that_is_no_text_is_named(tmp_path):
    open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"), "wb").close()
    with pytest.raises(DataError, match=r"'caf.udce9.jpg' .*not UTF-8: rename it"):
        files.images_below(tmp_path)


def test_pictures_of_other_kinds_are_told(tmp_path, caplog):
    (tmp_path / "1.HEIC").touch()
    with pytest.raises(DataError, match=r"there are 1 .heic: save them as JPEG"):
        files.images_below(tmp_path)
    (tmp_path / "2.jpg").touch()
    assert files.images_below(tmp_path) == ["2.jpg"]
    assert "1 images are taken, and other pictures are not read (1 .heic)" in (
        caplog.text
    )
