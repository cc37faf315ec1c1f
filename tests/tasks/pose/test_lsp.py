"""LSP and LSPET: labels as shipped, preparation, and access to the images."""

import concurrent.futures
import logging
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import scipy.io
from PIL import Image

from jalpose.data import preparation
from jalpose.data.prepared import HEAD as RECORD_HEAD
from jalpose.data.prepared import INDEX, RECORDS
from jalpose.data.source import DataError
from jalpose.tasks.pose import lsp, prepared
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED, VISIBLE
from tests.support import miniature

HEAD, LEFT_SHOULDER, RIGHT_WRIST = 0, 2, 7
LEFT_KNEE, RIGHT_ANKLE = 9, 13


@pytest.fixture
def raw(tmp_path):
    """A data folder with 5 LSP and 4 LSPET images."""
    folder = tmp_path / "raw"
    miniature.write_miniature(folder, 5, 4, image_size=(48, 64))
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def numbered_joints(num_images):
    """x = 100 n + shipped joint number, y = x + 0.5: tells every joint apart."""
    joints = np.zeros((num_images, 14, 3))
    joints[..., 0] = 100 * np.arange(num_images)[:, None] + np.arange(14)
    joints[..., 1] = joints[..., 0] + 0.5
    return joints


def open_lsp(raw, cache):
    return prepared.open_source("lsp", str(raw), str(cache))


def shipped_records(folder):
    """The records of a prepared folder as ArrayRecord has them: bytes."""
    from array_record.python import array_record_module

    path = pathlib.Path(folder) / RECORDS
    return array_record_module.ArrayRecordReader(str(path)).read_all()


def rewrite_records(folder, change):
    """Put other records, as bytes, into the file of a prepared folder."""
    from array_record.python import array_record_module

    path = pathlib.Path(folder) / RECORDS
    found = shipped_records(folder)
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in change(found):
        writer.write(record)
    writer.close()


def prepared_folders(cache):
    return sorted(path for path in cache.iterdir() if ".tmp-" not in path.name)


class TestAnnotations:
    def test_shipped_joints_end_in_their_slots(self, tmp_path):
        miniature.save_joints(tmp_path, "lsp", numbered_joints(2))
        joints = lsp.read_lsp_annotations(str(tmp_path)).joints
        # README of LSP: 0 right ankle, 4 left knee, 6 right wrist, 9 left shoulder,
        # 13 head top; image 1 adds 100.
        assert joints[0, RIGHT_ANKLE].tolist() == [0.0, 0.5]
        assert joints[0, LEFT_KNEE].tolist() == [4.0, 4.5]
        assert joints[1, RIGHT_WRIST].tolist() == [106.0, 106.5]
        assert joints[1, LEFT_SHOULDER].tolist() == [109.0, 109.5]
        assert joints[1, HEAD].tolist() == [113.0, 113.5]
        # All 14, slot by slot.
        expected = [13, 12, 9, 10, 11, 8, 7, 6, 3, 4, 5, 2, 1, 0]
        assert joints[0, :, 0].tolist() == expected

    def test_both_sets_have_the_same_joint_order(self, tmp_path):
        joints = numbered_joints(3)
        miniature.save_joints(tmp_path, "lsp", joints)
        joints[..., 2] = 1
        miniature.save_joints(tmp_path, "lspet", joints)
        np.testing.assert_array_equal(
            lsp.read_lsp_annotations(str(tmp_path)).joints,
            lsp.read_lspet_annotations(str(tmp_path)).joints,
        )

    def test_lsp_flag_is_occlusion(self, tmp_path):
        joints = numbered_joints(2)
        joints[1, 13, 2] = 1  # head top of the second image
        miniature.save_joints(tmp_path, "lsp", joints)
        labels = lsp.read_lsp_annotations(str(tmp_path))
        assert labels.status[1, HEAD] == OCCLUDED
        assert (labels.status == VISIBLE).sum() == 2 * 14 - 1
        assert labels.joints[1, HEAD].tolist() == [113.0, 113.5]

    @staticmethod
    def shipped_as_lspet():
        """Joints of LSPET: every fourth is not annotated, at its placeholder."""
        joints = numbered_joints(6) + np.array((1, 1, 1))
        joints[:, ::4] = (-3.0, -5.0, 0)
        return joints

    def test_the_file_of_lspet_in_the_axes_of_lsp(self, tmp_path):
        miniature.save_joints(tmp_path, "lsp", self.shipped_as_lspet())
        message = (
            r"24 of 24 joints with flag 0 \(visible\) at a placeholder of 0 or less: "
            r"the first is \[-3\.0, -5\.0\], '.*' of image im0001 \(index 0\)\. Is "
            r"it the file of LSPET, where flag 0 means not annotated\?"
        )
        with pytest.raises(DataError, match=message):
            lsp.read_lsp_annotations(str(tmp_path))

    def test_the_file_of_lsp_in_the_axes_of_lspet(self, tmp_path):
        joints = numbered_joints(6) + np.array((1, 1, 0))
        joints[:, 3, 2] = 1  # occluded
        miniature.save_joints(tmp_path, "lspet", joints)
        message = (
            r"78 of 78 joints with flag 0 \(not annotated\) at a place in the image.*"
            r"is it the file of LSP, where flag 1 means occluded\?"
        )
        with pytest.raises(DataError, match=message):
            lsp.read_lspet_annotations(str(tmp_path))

    def test_lspet_with_its_flags_inverted(self, tmp_path):
        joints = self.shipped_as_lspet()
        joints[..., 2] = 1 - joints[..., 2]
        miniature.save_joints(tmp_path, "lspet", joints)
        with pytest.raises(DataError, match="less: are the flags inverted"):
            lsp.read_lspet_annotations(str(tmp_path))

    def test_a_joint_of_lsp_at_the_corner_is_a_joint(self, tmp_path):
        joints = numbered_joints(3) + np.array((1, 1, 0))
        joints[1, 4, :2] = 0, 0
        miniature.save_joints(tmp_path, "lsp", joints)
        labels = lsp.read_lsp_annotations(str(tmp_path))
        assert labels.joints[1, LEFT_KNEE].tolist() == [0, 0]

    def test_lspet_flag_is_presence(self, tmp_path):
        joints = numbered_joints(2)
        joints[..., 2] = 1
        joints[0, 4] = (-7.0, -9.0, 0)  # left knee of the first image
        miniature.save_joints(tmp_path, "lspet", joints)
        labels = lsp.read_lspet_annotations(str(tmp_path))
        assert labels.status[0, LEFT_KNEE] == ABSENT
        assert np.isnan(labels.joints[0, LEFT_KNEE]).all()
        assert (labels.status == VISIBLE).sum() == 2 * 14 - 1
        assert np.isfinite(labels.joints).sum() == 2 * (2 * 14 - 1)

    def test_lspet_keeps_an_annotated_joint_outside_the_image(self, tmp_path):
        joints = numbered_joints(1)
        joints[..., 2] = 1
        joints[0, 0, :2] = (-3.0, 5.0)
        miniature.save_joints(tmp_path, "lspet", joints)
        labels = lsp.read_lspet_annotations(str(tmp_path))
        assert labels.joints[0, RIGHT_ANKLE].tolist() == [-3.0, 5.0]

    def test_names_types_and_count_follow_joints_mat(self, raw):
        labels = lsp.read_lsp_annotations(str(raw))
        assert len(labels) == 5
        assert labels.keys[0] == "lsp/im0001"
        assert labels.files[4] == "lsp/images/im0005.jpg"
        assert labels.joints.shape == (5, 14, 2)
        assert labels.joints.dtype == np.float32
        assert labels.status.dtype == np.int8
        assert labels.boxes is None
        labels = lsp.read_lspet_annotations(str(raw))
        assert labels.keys == tuple(f"lspet/im0000{n}" for n in (1, 2, 3, 4))
        assert labels.files[3] == "lspet/images/im00004.jpg"

    def test_cut_joints_mat_selects_the_first_images(self, raw, cache):
        miniature.save_joints(raw, "lsp", numbered_joints(3))
        assert len(open_lsp(raw, cache).annotations) == 3

    def test_miniature_poses_lie_in_the_image(self, raw):
        labels = lsp.read_lspet_annotations(str(raw))
        present = labels.joints[labels.status == VISIBLE]
        assert present.min() >= 1
        assert (present <= (46, 62)).all()


class TestAnnotationErrors:
    def test_no_data_folder(self, tmp_path):
        message = (
            r"No data folder '.*nowhere'.*Looked for '.*nowhere/lsp/joints.mat'.*"
            r"config\.data\.dir.*JALPOSE_DATA.*Leeds_Sports_Pose.*axelcarlier/lsp"
        )
        with pytest.raises(DataError, match=message):
            lsp.read_lsp_annotations(str(tmp_path / "nowhere"))

    def test_no_set_in_the_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"No LSPET .*lspet' does not exist"):
            lsp.read_lspet_annotations(str(tmp_path))

    def test_no_joints_mat(self, raw):
        (raw / "lsp" / "joints.mat").unlink()
        with pytest.raises(DataError, match=r"LSP has no annotations: .*joints\.mat"):
            lsp.read_lsp_annotations(str(raw))

    def test_folder_of_the_set_instead_of_its_parent(self, raw):
        with pytest.raises(DataError, match="name its parent folder"):
            lsp.read_lsp_annotations(str(raw / "lsp"))

    @pytest.mark.parametrize("content", [b"", b"not a MATLAB file" * 50])
    def test_unreadable_joints_mat(self, raw, content):
        (raw / "lsp" / "joints.mat").write_bytes(content)
        with pytest.raises(DataError, match=r"Cannot read '.*joints\.mat' as a MATLAB"):
            lsp.read_lsp_annotations(str(raw))

    def test_truncated_joints_mat(self, raw):
        path = raw / "lsp" / "joints.mat"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(DataError, match=r"joints\.mat"):
            lsp.read_lsp_annotations(str(raw))

    def test_no_variable_joints(self, raw):
        scipy.io.savemat(raw / "lsp" / "joints.mat", {"poses": np.zeros(3)})
        with pytest.raises(DataError, match=r"no variable 'joints' \(found: poses\)"):
            lsp.read_lsp_annotations(str(raw))

    @pytest.mark.parametrize("name", ["lsp", "lspet"])
    @pytest.mark.parametrize(
        "shape", [(3, 16, 5), (5, 14, 3), (14, 3), (2, 14, 5)], ids=str
    )
    def test_wrong_shape(self, tmp_path, name, shape):
        (tmp_path / name).mkdir()
        scipy.io.savemat(tmp_path / name / "joints.mat", {"joints": np.ones(shape)})
        expected = {"lsp": "(3, 14, N)", "lspet": "(14, 3, N)"}[name]
        message = f"has shape {re.escape(str(shape))}.*{re.escape(expected)}"
        with pytest.raises(DataError, match=message):
            lsp.read_annotations(name, str(tmp_path))

    @pytest.mark.parametrize(("name", "other"), [("lsp", "lspet"), ("lspet", "lsp")])
    def test_file_of_the_other_set(self, raw, name, other):
        shutil.copy(raw / other / "joints.mat", raw / name / "joints.mat")
        with pytest.raises(DataError, match=f"axis order of {other.upper()} "):
            lsp.read_annotations(name, str(raw))

    def test_text_instead_of_numbers(self, raw):
        scipy.io.savemat(raw / "lsp" / "joints.mat", {"joints": "abc"})
        with pytest.raises(DataError, match=r"type <U3; LSP has numbers of shape"):
            lsp.read_lsp_annotations(str(raw))

    def test_no_image_at_all(self, raw):
        path = raw / "lsp" / "joints.mat"
        scipy.io.savemat(path, {"joints": np.zeros((3, 14, 0))})
        with pytest.raises(DataError, match="describes no image at all"):
            lsp.read_lsp_annotations(str(raw))

    @pytest.mark.parametrize("flag", [2.0, -1.0, 0.5, np.nan])
    def test_flag_that_is_no_flag(self, tmp_path, flag):
        joints = numbered_joints(3)
        joints[1, 4, 2] = joints[2, 4, 2] = flag
        miniature.save_joints(tmp_path, "lspet", joints)
        message = (
            f"neither 0 nor 1: {flag} for joint 'left knee' of image im00002 "
            r"\(index 1\), and 1 more"
        )
        with pytest.raises(DataError, match=message):
            lsp.read_lspet_annotations(str(tmp_path))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_coordinate_that_is_not_finite(self, tmp_path, value):
        joints = numbered_joints(2)
        joints[1, 13, 0] = value
        miniature.save_joints(tmp_path, "lsp", joints)
        message = r"not finite: .* for joint 'head' of image im0002 \(index 1\)"
        with pytest.raises(DataError, match=message):
            lsp.read_lsp_annotations(str(tmp_path))

    def test_placeholder_of_an_absent_joint_may_be_anything(self, tmp_path):
        joints = numbered_joints(1)
        joints[..., 2] = 1
        joints[0, 13] = (np.nan, np.inf, 0)
        miniature.save_joints(tmp_path, "lspet", joints)
        labels = lsp.read_lspet_annotations(str(tmp_path))
        assert labels.status[0, HEAD] == ABSENT

    def test_unknown_set(self, raw, cache):
        with pytest.raises(DataError, match=r"name='lps'\. Known: lsp, lspet"):
            prepared.open_source("lps", str(raw), str(cache))


class TestImages:
    @pytest.mark.parametrize("name", ["lsp", "lspet"])
    def test_images_are_those_of_the_raw_folder(self, raw, cache, name):
        source = prepared.open_source(name, str(raw), str(cache))
        assert source.skeleton is LSP
        for index, file in enumerate(source.annotations.files):
            image = source.image(index)
            np.testing.assert_array_equal(image, np.asarray(Image.open(raw / file)))
            assert image.dtype == np.uint8
            assert image.shape == (64, 48, 3)

    @pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA"])
    def test_every_colour_mode_becomes_rgb(self, raw, cache, mode):
        path = raw / "lsp" / "images" / "im0002.jpg"
        colour = (204, 51, 102)  # one of the web palette that "P" is given
        kind = "JPEG" if mode in ("L", "CMYK") else "PNG"
        Image.new("RGB", (48, 64), colour).convert(mode).save(path, kind)
        image = open_lsp(raw, cache).image(1)
        assert image.shape == (64, 48, 3)
        # ITU-R 601: 0.299 * 204 + 0.587 * 51 + 0.114 * 102 = 102.6
        expected = {"L": (103, 103, 103), "LA": (103, 103, 103)}.get(mode, colour)
        assert np.abs(image.astype(int) - expected).max() <= 3

    def test_index_outside(self, raw, cache):
        source = open_lsp(raw, cache)
        for index in (-1, 5):
            with pytest.raises(IndexError, match=rf"index={index} is not in \[0, 5\)"):
                source.image(index)
        assert source.image(np.int64(4)).shape == (64, 48, 3)

    def test_many_threads_read_the_right_images(self, tmp_path, cache):
        miniature.write_miniature(tmp_path, 40, 0, image_size=(32, 40))
        source = pickle.loads(pickle.dumps(open_lsp(tmp_path, cache)))
        indices = np.random.default_rng(0).integers(0, 40, 800).tolist()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            images = list(pool.map(source.image, indices))
        alone = [source.image(index) for index in range(40)]
        for index, image in zip(indices, images, strict=True):
            np.testing.assert_array_equal(image, alone[index])
        file = source.annotations.files[17]
        np.testing.assert_array_equal(
            alone[17], np.asarray(Image.open(tmp_path / file))
        )

    def test_pickled_source_reads_the_same(self, raw, cache):
        source = open_lsp(raw, cache)
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy.image(3), source.image(3))
        assert copy.annotations.keys == source.annotations.keys


class TestPreparation:
    def test_second_open_writes_nothing(self, raw, cache):
        open_lsp(raw, cache)
        before = {p: p.stat().st_mtime_ns for p in sorted(cache.rglob("*"))}
        shutil.rmtree(raw / "lsp" / "images")
        source = open_lsp(raw, cache)
        assert source.image(4).shape == (64, 48, 3)
        after = {p: p.stat().st_mtime_ns for p in sorted(cache.rglob("*"))}
        assert before == after

    def test_folder_name_tells_set_version_and_fingerprint(self, raw, cache):
        prepared.open_source("lspet", str(raw), str(cache))
        (folder,) = cache.iterdir()
        assert re.fullmatch(r"lspet-2\.0\.0(-[0-9a-f]{12}){2}", folder.name)

    def test_changed_joints_mat_is_prepared_anew(self, raw, cache):
        open_lsp(raw, cache)
        miniature.save_joints(raw, "lsp", numbered_joints(4))
        source = open_lsp(raw, cache)
        assert len(source.annotations) == 4
        assert source.annotations.joints[0, RIGHT_ANKLE, 0] == 0.0
        assert len(prepared_folders(cache)) == 2

    def test_records_are_numbered_digests_and_images_as_shipped(self, raw, cache):
        source = prepared.open_source("lspet", str(raw), str(cache))
        record = shipped_records(source.prepared_dir)[2]
        number, digest = RECORD_HEAD.unpack_from(record)
        assert number == 2
        assert digest.hex() == source.digests[2]
        image = (raw / source.annotations.files[2]).read_bytes()
        assert record[RECORD_HEAD.size :] == image
        assert source.sizes.tolist() == [[48, 64]] * 4

    def test_missing_image(self, raw, cache):
        (raw / "lsp" / "images" / "im0003.jpg").unlink()
        message = r"Cannot read image '.*im0003\.jpg' \(index 2\).*Restore it"
        with pytest.raises(DataError, match=message):
            open_lsp(raw, cache)
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("keep", [0.0, 0.1, 0.6])
    def test_truncated_image(self, raw, cache, keep):
        path = raw / "lspet" / "images" / "im00002.jpg"
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        message = r"Cannot decode image '.*im00002\.jpg' \(index 1\), it is trunc.*Res"
        with pytest.raises(DataError, match=message):
            prepared.open_source("lspet", str(raw), str(cache))
        assert list(cache.iterdir()) == []

    def test_cache_that_cannot_be_written(self, raw, tmp_path):
        (tmp_path / "file").write_text("in the way")
        message = (
            r"Cannot write the prepared images of LSP to '.*file'.*data\.cache_dir"
        )
        with pytest.raises(DataError, match=message):
            open_lsp(raw, tmp_path / "file")

    def test_crash_in_the_middle_leaves_nothing_that_is_used(
        self, raw, cache, monkeypatch
    ):
        read = lsp.read_image_file

        def interrupted(data_dir, file, index):
            if index == 3:
                raise KeyboardInterrupt
            return read(data_dir, file, index)

        with monkeypatch.context() as patch:
            patch.setattr(lsp, "read_image_file", interrupted)
            with pytest.raises(KeyboardInterrupt):
                open_lsp(raw, cache)
        assert list(cache.iterdir()) == []
        assert open_lsp(raw, cache).image(4).shape == (64, 48, 3)

    def test_killed_process_leaves_nothing_that_is_used(self, raw, cache):
        script = f"""
            import os
            from jalpose.tasks.pose import lsp, prepared
            read = lsp.read_image_file
            def killed(data_dir, file, index):
                if index == 3:
                    os._exit(7)
                return read(data_dir, file, index)
            lsp.read_image_file = killed
            prepared.open_source("lsp", {str(raw)!r}, {str(cache)!r})
        """
        assert run_python(script).returncode == 7
        (left,) = cache.iterdir()
        assert ".tmp-" in left.name
        assert open_lsp(raw, cache).image(4).shape == (64, 48, 3)
        assert len(prepared_folders(cache)) == 1

    def test_first_of_two_processes_wins(self, raw, cache, tmp_path, monkeypatch):
        theirs = pathlib.Path(open_lsp(raw, tmp_path / "theirs").prepared_dir)
        read = lsp.read_image_file

        def overtaken(data_dir, file, index):
            if index == 3:  # the other process is done, and renames its folder
                shutil.copytree(theirs, cache / theirs.name)
                (cache / theirs.name / "theirs").touch()
            return read(data_dir, file, index)

        monkeypatch.setattr(lsp, "read_image_file", overtaken)
        assert open_lsp(raw, cache).image(0).shape == (64, 48, 3)
        (folder,) = cache.iterdir()
        assert (folder / "theirs").exists()

    def test_threads_that_prepare_at_once(self, raw, cache):
        stdout = sys.stdout
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(open_lsp, raw, cache) for _ in range(4)]
            shapes = {future.result().image(2).shape for future in futures}
        assert shapes == {(64, 48, 3)}
        assert len(list(cache.iterdir())) == 1
        assert sys.stdout is stdout

    def test_prepared_folder_that_lost_its_records(self, raw, cache):
        open_lsp(raw, cache)
        (records,) = cache.rglob(RECORDS)
        records.unlink()
        with pytest.raises(DataError, match=r"Delete '.*lsp-2\.0\.0.*prepared anew"):
            open_lsp(raw, cache).image(0)

    @pytest.mark.parametrize("harm", ["lost", "cut"])
    def test_prepared_folder_that_lost_its_index(self, raw, cache, harm):
        index = pathlib.Path(open_lsp(raw, cache).prepared_dir) / INDEX
        text = index.read_text()
        index.unlink()
        if harm == "cut":
            index.write_text(text[: len(text) // 2])
        with pytest.raises(DataError, match=r"Cannot open the prepared folder.*Delete"):
            open_lsp(raw, cache)

    def test_prepared_folder_of_another_count(self, raw, cache):
        folder = open_lsp(raw, cache).prepared_dir
        miniature.save_joints(raw, "lsp", numbered_joints(3))
        other = open_lsp(raw, cache).prepared_dir
        shutil.rmtree(other)
        shutil.copytree(folder, other)
        with pytest.raises(DataError, match="5 images of other names than the 3"):
            open_lsp(raw, cache)

    def test_records_in_another_order(self, raw, cache):
        rewrite_records(
            open_lsp(raw, cache).prepared_dir,
            lambda records: [records[1], records[0], *records[2:]],
        )
        source = open_lsp(raw, cache)
        with pytest.raises(DataError, match=r"Found record 1 for image '.*im0001"):
            source.image(0)
        assert source.image(4).shape == (64, 48, 3)

    def test_a_record_whose_image_is_damaged(self, raw, cache):
        start = (raw / "lsp" / "images" / "im0002.jpg").read_bytes()[:300]
        assert start.startswith(b"\xff\xd8")

        def damaged(records):
            return [record.replace(start, bytes(300)) for record in records]

        rewrite_records(open_lsp(raw, cache).prepared_dir, damaged)
        source = open_lsp(raw, cache)
        with pytest.raises(DataError, match=r"im0002.*its bytes have changed.*Delete"):
            source.image(1)

    def test_records_that_are_damaged(self, raw, cache):
        folder = open_lsp(raw, cache).prepared_dir
        path = pathlib.Path(folder) / RECORDS
        content = bytearray(path.read_bytes())
        image = (raw / "lsp" / "images" / "im0004.jpg").read_bytes()
        middle = content.index(image[100:400])
        content[middle : middle + 99] = bytes(99)
        path.write_bytes(content)
        source = open_lsp(raw, cache)
        with pytest.raises(DataError, match=r"Cannot read image .*im000\d.*Delete"):
            for index in range(5):
                source.image(index)

    def test_quiet_but_for_one_line(self, raw, cache, capfd, caplog):
        level = logging.getLogger("absl").level
        with caplog.at_level(logging.INFO):
            open_lsp(raw, cache)
        assert capfd.readouterr().out == ""
        assert [r.message.split(" in ")[0] for r in caplog.records] == [
            "preparing lsp",
            "prepared lsp",
        ]
        assert logging.getLogger("absl").level == level

    def test_slow_preparation_reports_progress(self, raw, cache, monkeypatch, caplog):
        monkeypatch.setattr(preparation, "LOG_EVERY_SECONDS", -1)
        with caplog.at_level(logging.INFO):
            open_lsp(raw, cache)
        assert "preparing lsp: 3 of 5 images" in caplog.text

    def test_no_network_no_tensorflow_and_late_import(self, raw, cache):
        script = f"""
            import socket, sys
            def refuse(*args, **kwargs):
                raise AssertionError("network access")
            socket.socket.connect = socket.getaddrinfo = refuse
            from jalpose.tasks.pose import prepared
            assert "array_record" not in sys.modules
            source = prepared.open_source("lsp", {str(raw)!r}, {str(cache)!r})
            assert source.image(0).shape == (64, 48, 3)
            assert not {"tensorflow", "tensorflow_datasets"} & sys.modules.keys()
        """
        result = run_python(script)
        assert result.returncode == 0, result.stderr


def run_python(script):
    root = pathlib.Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def real_data(name):
    folder = miniature.real_data_dir(name)
    if folder is None:
        pytest.skip(f"no {name}/joints.mat in JALPOSE_DATA or ../shared/data")
    return folder


@pytest.mark.data
class TestRealData:
    def test_lsp_labels(self):
        labels = lsp.read_lsp_annotations(real_data("lsp"))
        assert len(labels) == 2000
        assert (labels.status == OCCLUDED).sum() == 2044
        assert (labels.status == VISIBLE).sum() == 28000 - 2044
        upright = labels.joints[:, HEAD, 1] < labels.joints[:, RIGHT_ANKLE, 1]
        assert upright.mean() > 0.9

    def test_lspet_labels(self):
        folder = real_data("lspet")
        path = os.path.join(folder, "lspet", "joints.mat")
        labels = lsp.read_lspet_annotations(folder)
        ((_, shape, _),) = scipy.io.whosmat(path)
        assert len(labels) == shape[2]
        absent = labels.status == ABSENT
        assert 0.11 < absent.mean() < 0.13
        assert np.isnan(labels.joints[absent]).all()
        assert not (labels.status == OCCLUDED).any()

    def test_left_and_right_are_not_confused(self):
        """People who face the camera have their left shoulder at the right."""
        labels = lsp.read_lsp_annotations(real_data("lsp"))
        left_of = labels.joints[:, 5, 0] < labels.joints[:, LEFT_SHOULDER, 0]
        assert left_of.mean() > 0.6

    @pytest.mark.slow
    def test_lsp_images(self, tmp_path):
        folder = real_data("lsp")
        source = prepared.open_source("lsp", folder, str(tmp_path))
        for index in (0, 999, 1000, 1999):
            file = os.path.join(folder, source.annotations.files[index])
            image = source.image(index)
            np.testing.assert_array_equal(image, np.asarray(Image.open(file)))
            height, width, _ = image.shape
            assert (source.annotations.joints[index] < (width + 1, height + 1)).all()

    @pytest.mark.slow
    def test_lspet_images(self, tmp_path):
        folder = real_data("lspet")
        source = prepared.open_source("lspet", folder, str(tmp_path))
        for index in (0, len(source.annotations) - 1):
            file = os.path.join(folder, source.annotations.files[index])
            np.testing.assert_array_equal(
                source.image(index), np.asarray(Image.open(file))
            )
