"""SLEAP's files through sleap-io, and what is said where it is not installed."""

import sys

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import deeplabcut, poses, reading, sleap
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE
from tests.support import own_photos


def test_without_sleap_io_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    with pytest.raises(DataError, match=r"pip install 'jalpose\[sleap\]'"):
        sleap.read(tmp_path / "labels.slp")


@pytest.fixture
def written(tmp_path):
    """A file of two frames: two labelled mice, one predicted, one joint absent."""
    sleap_io = pytest.importorskip("sleap_io", reason="sleap-io is not installed")
    files = [str(tmp_path / "frames" / f"{n} ä.png") for n in range(2)]
    video = sleap_io.Video.from_filename(files)
    skeleton = sleap_io.Skeleton(
        nodes=["nose", "left ear", "right ear"], edges=[("nose", "left ear")]
    )
    points = np.array([[1.5, 2], [3, 4.25], [np.nan, np.nan]])

    def labelled(moved):
        return sleap_io.Instance.from_numpy(points + moved, skeleton=skeleton)

    predicted = sleap_io.PredictedInstance.from_numpy(
        points + 9, skeleton=skeleton, point_scores=np.ones(3), score=0.5
    )
    frames = [
        sleap_io.LabeledFrame(
            video=video, frame_idx=0, instances=[labelled(0), labelled(5), predicted]
        ),
        sleap_io.LabeledFrame(video=video, frame_idx=1, instances=[labelled(7)]),
    ]
    path = tmp_path / "labels"
    sleap_io.Labels(labeled_frames=frames, videos=[video], skeletons=[skeleton]).save(
        str(path) + ".slp", embed=False
    )
    (tmp_path / "labels.slp").rename(path)
    return path


def test_labelled_instances(written):
    assert reading.format_of(written) == sleap.NAME
    found = sleap.read(written)
    assert found.skeleton.joints == ("nose", "left ear", "right ear")
    assert found.skeleton.limbs == ((0, 1),) and found.skeleton.flip_pairs == ((1, 2),)
    assert [(one.file, one.id) for one in found.instances] == [
        ("0 ä.png", "1"),
        ("0 ä.png", "2"),
        ("1 ä.png", ""),
    ]
    last = found.instances[-1]
    np.testing.assert_allclose(last.joints[:2], [[8.5, 9], [10, 11.25]])
    assert last.status.tolist() == [VISIBLE, VISIBLE, ABSENT]


def test_damaged(tmp_path):
    pytest.importorskip("sleap_io", reason="sleap-io is not installed")
    path = tmp_path / "labels.slp"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match=r"Cannot read .* as SLEAP's"):
        reading.read(path)


def test_a_table_of_deeplabcut_is_loaded_by_sleap_io(tmp_path):
    sleap_io = pytest.importorskip("sleap_io", reason="sleap-io is not installed")
    import csv

    files = [f"labeled-data/m/img{n}.png" for n in range(2)]
    joints = np.array([[1.5, 2], [3, 4]])
    status = np.array([VISIBLE, VISIBLE], np.int8)
    found = poses.Poses(
        skeleton=poses.skeleton_named("mouse", ("nose", "tail")),
        images=tuple(poses.Image(file=file) for file in files),
        instances=tuple(
            poses.Instance(file=file, joints=joints, status=status) for file in files
        ),
    )
    path = tmp_path / "labeled-data" / "m" / "CollectedData_jalpose.csv"
    own_photos.write_images(tmp_path, files)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(deeplabcut.rows_of(found))
    labels = sleap_io.load_dlc(str(path))
    assert len(labels.labeled_frames) == 2
    for frame in labels.labeled_frames:
        np.testing.assert_allclose(frame.instances[0].numpy(), joints)
