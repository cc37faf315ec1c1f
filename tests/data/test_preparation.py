"""Preparation: one bounded pass that finds all that is damaged and cleans up."""

import collections
import io
import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from PIL import Image

from jalpose.data import images, leftovers, preparation
from jalpose.data.prepared import INDEX, RECORDS, PreparedSource
from jalpose.data.source import DataError
from tests.data.test_dataset import Names
from tests.support.mpii_miniature import entry, save_json

Usage = collections.namedtuple("Usage", ("total", "used", "free"))


def jpeg(shade, size=(48, 32), **options):
    """A noisy JPEG: its data are long enough to be cut."""
    rng = np.random.default_rng(shade)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


class Folder:
    """A set of photographs in a folder of its own, and where it is prepared."""

    def __init__(self, path, count):
        self.raw, self.cache = path / "raw", path / "cache"
        self.raw.mkdir()
        self.labels = self.raw / "labels"
        self.labels.write_text("labels")
        self.files = tuple(f"{n:03d}.jpg" for n in range(count))
        for number, file in enumerate(self.files):
            (self.raw / file).write_bytes(jpeg(number))

    def damage(self, *numbers):
        for number in numbers:
            path = self.raw / self.files[number]
            path.write_bytes(path.read_bytes()[:300])

    def prepare(self, damaged="refuse", read=None, raw=None):
        def usual(folder, file, number):
            return images.read_image_file(
                os.path.join(folder, file),
                what=f"image {file!r} (index {number})",
                described_by="labels",
                advice="Restore it.",
            )

        recipe = preparation.Recipe("photos", self.files, read or usual)
        data_dir = str(raw or self.raw)
        return preparation.prepare(
            recipe, str(self.labels), data_dir, str(self.cache), damaged
        )

    def source(self, **options):
        prepared = self.prepare(**options)
        names = JpegNames(tuple(file.removesuffix(".jpg") for file in prepared.files))
        return PreparedSource(name="photos", annotations=names, prepared=prepared)


class JpegNames(Names):
    """Names of JPEG files."""

    @property
    def files(self):
        return tuple(f"{key}.jpg" for key in self.keys)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path, 15)


# All that is damaged, at once.


def test_all_damaged_images_are_found_in_one_pass_and_ten_are_named(folder):
    folder.damage(*range(1, 14))
    with pytest.raises(DataError) as error:
        folder.prepare()
    message = str(error.value)
    assert "13 of 15 images of PHOTOS are missing or damaged" in message
    assert "Cannot decode image '001.jpg' (index 1)" in message
    named, _, first = message.partition("Of the first")
    assert re.findall(r"\d{3}\.jpg", named) == [f"{n:03d}.jpg" for n in range(1, 11)]
    assert re.findall(r"\d{3}\.jpg", first) == ["001.jpg"]
    assert "and 3 more" in named
    assert "data.damaged=leave_out" in message
    assert list(folder.cache.iterdir()) == []


def test_one_damaged_image_is_told_with_the_way_out(folder):
    folder.damage(4)
    message = r"'004\.jpg' \(index 4\).*Restore it.*data\.damaged=leave_out"
    with pytest.raises(DataError, match=message):
        folder.prepare()


def test_damaged_images_are_left_out_and_said_so(folder, caplog):
    folder.damage(4, 7)
    (folder.raw / "009.jpg").unlink()
    for _ in range(2):  # prepared, then found prepared
        caplog.clear()
        source = folder.source(damaged="leave_out")
        assert "3 of 15 images of PHOTOS are left out" in caplog.text
        assert "004.jpg, 007.jpg, 009.jpg" in caplog.text
        assert len(source.annotations) == 12
        expected = np.asarray(Image.open(folder.raw / "005.jpg"))
        assert np.array_equal(source.image(4), expected)


def test_what_was_left_out_is_refused_where_it_may_not_be(folder):
    folder.damage(4, 7)
    folder.prepare("leave_out")
    with pytest.raises(DataError, match="2 of 15 images of PHOTOS are missing"):
        folder.prepare()


def test_nothing_but_damaged_images_is_no_set(folder):
    folder.damage(*range(15))
    with pytest.raises(DataError, match="15 of 15 images of PHOTOS"):
        folder.prepare("leave_out")


# What is prepared is what the images are now.


def test_a_replaced_image_is_prepared_anew(folder):
    before = folder.source()
    (folder.raw / "003.jpg").write_bytes(jpeg(77))
    after = folder.source()
    assert before.prepared_dir != after.prepared_dir
    assert before.fingerprint != after.fingerprint
    expected = np.asarray(Image.open(folder.raw / "003.jpg"))
    assert np.array_equal(after.image(3), expected)


def test_another_folder_with_the_same_labels_has_its_own_images(folder, tmp_path):
    folder.prepare()
    other = tmp_path / "other"
    shutil.copytree(folder.raw, other)
    (other / "003.jpg").write_bytes(jpeg(77))
    found = folder.source(raw=other)
    assert np.array_equal(found.image(3), np.asarray(Image.open(other / "003.jpg")))


def test_the_same_images_elsewhere_have_the_same_fingerprint(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder.raw, other, copy_function=shutil.copyfile)
    assert folder.prepare().fingerprint == folder.prepare(raw=other).fingerprint


def test_what_is_prepared_is_used_without_the_images(folder):
    folder.prepare()
    for file in folder.files:
        (folder.raw / file).unlink()
    assert folder.source().image(2).shape == (32, 48, 3)


def test_images_that_are_gone_are_not_taken_from_another_folder(folder, tmp_path):
    folder.prepare()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="15 of 15 images of PHOTOS are missing"):
        folder.prepare(raw=tmp_path / "empty")


# Room, and what others leave.


def test_too_little_room_is_told_before_anything_is_read(folder, monkeypatch):
    def never(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**7, 10**7, 1000))
    message = (
        r"Cannot write the prepared images of PHOTOS to '.*cache': they take .* MB "
        r"and 0\.0 MB are free\. Set data\.cache_dir"
    )
    with pytest.raises(DataError, match=message):
        folder.prepare(read=never)
    assert list(folder.cache.iterdir()) == []


def test_a_disk_that_fills_up_while_writing_is_told_in_words(folder, monkeypatch):
    from array_record.python import array_record_module

    class Full:
        def __init__(self, *_):
            pass

        def write(self, _):
            raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")

        def close(self):
            raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Full)
    message = r"Cannot write the prepared images.*No space left.*data\.cache_dir"
    with pytest.raises(DataError, match=message):
        folder.prepare()
    assert list(folder.cache.iterdir()) == []


def run_python(script, **options):
    root = pathlib.Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_what_a_killed_process_left_goes_at_the_next_preparation(folder):
    folder.cache.mkdir()
    script = f"""
        import os, signal
        from jalpose.data import leftovers
        with leftovers.temporary_folder({str(folder.cache / "photos")!r}) as folder:
            open(os.path.join(folder, "half"), "w").write("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(script).wait() == -9
    assert len(list(folder.cache.iterdir())) == 1
    folder.prepare()
    (left,) = folder.cache.iterdir()
    assert leftovers.MARK not in left.name


def test_what_a_running_process_writes_stays(folder):
    folder.cache.mkdir()
    script = f"""
        import sys
        from jalpose.data import leftovers
        with leftovers.temporary_folder({str(folder.cache / "photos")!r}) as folder:
            print(folder, flush=True)
            sys.stdin.read()
    """
    other = run_python(script, stdin=subprocess.PIPE)
    theirs = pathlib.Path(other.stdout.readline().strip())
    folder.prepare()
    assert theirs.is_dir()
    other.communicate("")
    assert not theirs.exists()


@pytest.mark.parametrize(("age", "stays"), [(0, True), (7200, False)])
def test_folders_without_a_lock_go_when_they_are_old_and_nobodys(folder, age, stays):
    dead = run_python("pass")
    dead.wait()
    folder.cache.mkdir()
    old = folder.cache / f"lsp-1.0.0-0123{leftovers.MARK}{dead.pid}-01234567"
    mine = folder.cache / f"lsp-1.0.0-0123{leftovers.MARK}{os.getpid()}-01234567"
    for path in (old, mine):
        path.mkdir()
        os.utime(path, (time.time() - age,) * 2)
    folder.prepare()
    assert old.exists() == stays
    assert mine.exists()


# Told.


def test_images_with_a_rotation_are_told_once_a_set(folder, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (2, 8):
        path = folder.raw / folder.files[number]
        path.write_bytes(jpeg(number, exif=exif))
    source = folder.source()
    told = [r.message for r in caplog.records if "EXIF" in r.message]
    assert told == [
        "PHOTOS: 2 of 15 images have an EXIF orientation, e.g. 002.jpg: it is ignored, "
        "labels are of the pixels as stored"
    ]
    assert source.image(2).shape == (32, 48, 3)  # not turned
    assert source.notes == tuple(line.removeprefix("PHOTOS: ") for line in told)


def test_images_of_16_bits_are_told_once_a_set(folder, caplog):
    deep = np.arange(48 * 32, dtype=np.uint16).reshape(32, 48) * 40
    path = folder.raw / folder.files[4]
    with path.open("wb") as file:
        Image.fromarray(deep).save(file, "PNG")
    for _ in range(2):  # prepared, then found prepared
        caplog.clear()
        source = folder.source()
        (told,) = [r.message for r in caplog.records if "16 bits" in r.message]
        assert told.startswith("PHOTOS: 1 of 15 images are grey of 16 bits, e.g. 004")
    np.testing.assert_array_equal(source.image(4)[..., 0], np.round(deep / 257))


def test_the_log_tells_how_far_it_is_and_how_long_it_takes(folder, monkeypatch, caplog):
    monkeypatch.setattr(preparation, "LOG_EVERY_SECONDS", -1)
    with caplog.at_level(logging.INFO):
        folder.prepare()
    assert re.search(r"preparing photos: 3 of 15 images, \d+ s left", caplog.text)


def test_another_users_unreadable_folder_is_told_as_that(folder, monkeypatch):
    prepared = folder.prepare().folder
    opened = open

    def refuse(path, *args, **options):
        if os.fspath(path).endswith((INDEX, RECORDS)):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr("builtins.open", refuse)
    message = (
        f"The prepared folder {re.escape(repr(prepared))} may not be read by this user"
        r".*data\.cache_dir"
    )
    with pytest.raises(DataError, match=message):
        folder.prepare()


def test_an_index_that_does_not_fit_its_records(folder):
    path = pathlib.Path(folder.prepare().folder) / INDEX
    index = json.loads(path.read_text())
    for name in ("files", "sizes", "digests"):
        index[name] = index[name][:-1]
    index["damaged"] = {"014.jpg": "cut"}
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"15 images, its index\.json describes 14"):
        folder.source(damaged="leave_out")


# Memory.


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path):
    """MPII of 1.3 GiB in 600 MiB: one photograph under many names."""
    raw = tmp_path / "raw"
    photographs = raw / "mpii" / "images"
    photographs.mkdir(parents=True)
    encoded = jpeg(0, size=(640, 480))
    names = [f"{n}.jpg" for n in range(int(1.3 * 2**30 / len(encoded)))]
    (photographs / names[0]).write_bytes(encoded)
    for name in names[1:]:
        os.link(photographs / names[0], photographs / name)
    save_json(raw, [entry(name) for name in names])
    script = f"""
        import re
        from jalpose.tasks.pose import prepared
        raw, cache = {str(raw)!r}, {str(tmp_path / "cache")!r}
        found = prepared.open_source("mpii", raw, cache)
        assert len(found.annotations) == {len(names)}
        # Not getrusage's, which begins with that of the process it was forked from.
        status = open("/proc/self/status").read()
        print(re.search(r"VmHWM:\\s+([0-9]+) kB", status)[1])
    """
    process = run_python(script)
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0
    (records,) = (tmp_path / "cache").rglob(RECORDS)
    print(f"{records.stat().st_size / 2**20:.0f} MiB with {int(output) // 1024} MiB")
    assert records.stat().st_size > 1.2 * 2**30
    assert int(output) < 600 * 1024  # KiB
