"""A data set looked through: what is told of a sound one, and of spoilt copies."""

import io
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
from PIL import Image

from jalpose import check
from jalpose.data import inventory
from jalpose.loop import configs, data_check
from jalpose.models.registry import MODELS
from jalpose.runtime.screen import Screen
from jalpose.storage.records import WorkdirError
from jalpose.tasks import registry
from jalpose.tasks.pose import overview
from tests.support import commands
from tests.support.brightness.network import OneLayerOptions
from tests.support.mpii_miniature import write_benchmark

ROOT = Path(__file__).parents[1]


@pytest.fixture
def spoilt(miniature_data, tmp_path):
    """Makes a copy of the miniature data, the shipped joints of a set changed."""

    def make(name, change):
        for one in ("lsp", "lspet"):
            shutil.copytree(Path(miniature_data.dir) / one, tmp_path / "data" / one)
        path = tmp_path / "data" / name / "joints.mat"
        joints = scipy.io.loadmat(path)["joints"]
        change(joints)
        scipy.io.savemat(path, {"joints": joints})
        return str(tmp_path / "data")

    return make


def config_of(folder, cache, **changes):
    delta = {
        "data.name": "lsp",
        "data.dir": str(folder),
        "data.cache_dir": str(cache),
        "data.initial": 12,
        "data.pool": 0,
        "data.test": 0,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return configs.assemble("scale=tiny", name="mini", delta=delta)


def look(config, out):
    """Findings, what is on the screen, and the page."""
    stream = io.StringIO()
    found = data_check.check(config, str(out), Screen(stream))
    return found, stream.getvalue(), (out / "index.html").read_text()


def pictures(page):
    return page.count('<img src="data:image/jpeg;base64,')


def needs_nothing_else(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    return all(source.startswith(("data:", "#")) for source in sources)


def test_a_sound_set(miniature_data, tmp_path):
    config = config_of(miniature_data.dir, miniature_data.cache_dir)
    found, screen, page = look(config, tmp_path)
    assert found == []
    assert "0 impossible, 0 unlikely" in screen
    rows = [line.split() for line in screen.splitlines()]
    counts = {tuple(row[:2]): row[2:6] for row in rows if row[2:4] == row[3:5]}
    # Examples, images and labels, then the least size.
    assert counts["lsp", "labelled"] == ["12", "12", "12", "96x128"]
    assert counts["lsp", "test"][:3] == ["12"] * 3
    assert counts["lspet", "pool"][:3] == ["9"] * 3
    assert "left wrist" in screen and "left wrist" in page
    assert pictures(page) == 12
    assert "lsp/im0001" in page and "lspet/im00009" in page
    assert 'id="suspicious"' not in page
    assert needs_nothing_else(page)


def test_flags_of_occlusion_inverted(spoilt, tmp_path):
    def invert(joints):
        joints[2] = 1 - joints[2]

    (finding,), _, page = look(
        config_of(spoilt("lsp", invert), tmp_path / "cache"), tmp_path / "out"
    )
    assert "occluded: are its flags inverted?" in finding.words
    assert not finding.impossible
    assert finding.words in page and pictures(page) == 12 + len(finding.examples)
    assert page.count("of finding 1") == len(finding.examples) == 6


def test_labels_of_images_of_half_the_size(spoilt, tmp_path):
    def halve(joints):
        joints[:2] /= 2

    (finding,), screen, _ = look(
        config_of(spoilt("lsp", halve), tmp_path / "cache"), tmp_path / "out"
    )
    assert "are the labels of smaller images?" in finding.words
    assert f"1. unlikely: {finding.words}" in screen


def test_what_is_done_to_images_is_told_on_the_page(spoilt, tmp_path):
    folder = spoilt("lsp", lambda joints: None)
    deep = Image.fromarray(np.full((128, 96), 40_000, np.uint16))
    with (Path(folder) / "lsp" / "images" / "im0007.jpg").open("wb") as file:
        deep.save(file, "PNG")
    found, screen, page = look(config_of(folder, tmp_path / "cache"), tmp_path / "out")
    note = "LSP: 1 of 24 images are grey of 16 bits, e.g. lsp/images/im0007.jpg"
    assert found == [] and note in screen and note in page


def test_a_joint_far_out(spoilt, tmp_path):
    def move(joints):
        joints[0, 13, 3] += 5000  # the head

    found, _, page = look(
        config_of(spoilt("lsp", move), tmp_path / "cache"), tmp_path / "out"
    )
    (far,) = [f for f in found if "far outside" in f.words]
    assert "head of lsp/im0004" in far.words and far.examples == (3,)
    assert pictures(page) == 13
    suspicious = page[page.index('id="suspicious"') : page.index('id="examples"')]
    assert "lsp/im0004" in suspicious and "of finding 1" in suspicious
    assert needs_nothing_else(page)


def test_what_is_refused_is_collected(spoilt, tmp_path):
    def twice(joints):
        joints[..., 2] += 9000  # [14, 3, N]: of image 3

    folder = spoilt("lspet", twice)
    damaged = Path(folder) / "lsp" / "images" / "im0002.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    # The flag is another number too: only the places are to be wrong.
    path = Path(folder) / "lspet" / "joints.mat"
    joints = scipy.io.loadmat(path)["joints"]
    joints[:, 2, 2] = 1
    scipy.io.savemat(path, {"joints": joints})
    found, screen, page = look(
        config_of(folder, tmp_path / "cache", data__initial=11), tmp_path / "out"
    )
    refused = [finding.words for finding in found if finding.impossible]
    assert len(refused) == 2
    assert "im0002.jpg" in refused[0]
    assert "do not meet their images" in refused[1] and "lspet/im00003" in refused[1]
    assert screen.count(" impossible: ") == 2
    assert "lspet/im00003" in page[page.index('id="suspicious"') :]


def test_one_set_of_two_that_cannot_be_read(spoilt, tmp_path):
    folder = spoilt("lsp", lambda joints: None)
    (Path(folder) / "lspet" / "joints.mat").write_bytes(b"no MATLAB file")
    found, screen, page = look(config_of(folder, tmp_path / "cache"), tmp_path / "out")
    (refused,) = found
    assert refused.impossible and "lspet/joints.mat" in refused.words
    rows = [line.split() for line in screen.splitlines()]
    counts = [row for row in rows if row[:4] == ["lsp", "in", "no", "part"]]
    # Examples, images, labels: all that LSP holds.
    assert counts[0][4:7] == ["24", "24", "24"]
    assert "what can be read of it is shown, and is in no part" in screen
    assert "lspet" not in page.partition('id="holds"')[2]
    assert pictures(page) == 12 and "lsp/im0024" in page


def test_both_sets_that_cannot_be_read(spoilt, tmp_path):
    folder = spoilt("lsp", lambda joints: None)
    for name in ("lsp", "lspet"):
        (Path(folder) / name / "joints.mat").write_bytes(b"no MATLAB file")
    found, screen, page = look(config_of(folder, tmp_path / "cache"), tmp_path / "out")
    for name, finding in zip(("lsp", "lspet"), found, strict=True):
        assert finding.impossible and f"{name}/joints.mat" in finding.words
    assert "2 impossible, 0 unlikely; page" in screen
    assert pictures(page) == 0 and 'id="holds"' not in page


def test_too_few_examples_for_the_config(miniature_data, tmp_path):
    config = config_of(miniature_data.dir, miniature_data.cache_dir, data__initial=500)
    found, screen, page = look(config, tmp_path)
    (finding,) = found
    assert finding.impossible and "data.initial=500" in finding.words
    assert "what can be read of it is shown" in screen and pictures(page) == 12


def test_a_list_of_validation_images_that_is_not_newells_is_told_once(tmp_path, caplog):
    write_benchmark(tmp_path)
    delta = {
        "data.name": "mpii",
        "data.dir": str(tmp_path),
        "data.cache_dir": str(tmp_path / "cache"),
        "data.initial": 12,
        "data.pool": 0,
        "data.test": 0,
        "data.crop": "official",
        "evaluation.reference": "head",
    }
    config = configs.assemble("scale=tiny", name="mini", delta=delta)
    look(config, tmp_path / "out")
    assert caplog.text.count("lines, that of Newell et al. has 2958") == 1


def test_a_page_without_pictures(miniature_data, tmp_path):
    config = config_of(miniature_data.dir, miniature_data.cache_dir)
    stream = io.StringIO()
    data_check.check(config, str(tmp_path), Screen(stream), pictures=False)
    page = (tmp_path / "index.html").read_text()
    assert pictures(page) == 0 and "left wrist" in page
    assert "drawing" not in stream.getvalue()


def test_a_page_of_somebody_elses_is_not_written_over(miniature_data, tmp_path):
    config = config_of(miniature_data.dir, miniature_data.cache_dir)
    page = tmp_path / "index.html"
    page.write_text("<!doctype html>\n<title>My holidays</title>\n")
    with pytest.raises(WorkdirError, match=r"index.html is there, and is no page of"):
        data_check.check(config, str(tmp_path), pictures=False)
    assert "holidays" in page.read_text()


def run_main(monkeypatch, config, out):
    given = SimpleNamespace(config=config, out=str(out), images=True)
    monkeypatch.setattr(check, "flags", SimpleNamespace(FLAGS=given))
    return check.main(["check"])


def test_the_exit_code(miniature_data, spoilt, monkeypatch, tmp_path):
    sound = config_of(miniature_data.dir, miniature_data.cache_dir)
    assert run_main(monkeypatch, sound, tmp_path / "sound") == 0

    def invert(joints):  # [14, 3, N]
        joints[:, 2] = 1 - joints[:, 2]

    wrong = config_of(spoilt("lspet", invert), tmp_path / "cache")
    assert run_main(monkeypatch, wrong, tmp_path / "wrong") == 2
    page = (tmp_path / "wrong" / "index.html").read_text()
    assert "are the flags inverted?" in page
    assert pictures(page) == 12  # of LSP, which can be read


def test_the_command(tmp_path):
    config = f"--config={ROOT / 'configs/quickstart.py'}:scale=tiny"
    arguments = (f"--out={tmp_path}", config)
    done = commands.perform("jalpose.check", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"page: {tmp_path}" in done.stdout
    assert pictures((tmp_path / "index.html").read_text()) == 12


def test_a_task_without_an_overview(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.TASKS, "brightness", "tests.support.brightness")
    monkeypatch.setitem(MODELS, "one_layer", OneLayerOptions)
    config = configs.assemble(
        "scale=tiny", name="squares", task="brightness", delta={"data.unlabelled": 0.5}
    )
    found, screen, page = look(config, tmp_path)
    assert found == []
    (row,) = [line.split() for line in screen.splitlines() if " test " in line]
    examples, labelled = int(row[2]), int(row[4])
    assert examples == config.data.test and 0 < labelled < examples
    assert pictures(page) == 12 and "joint" not in screen


def test_groups_hold_each_example_once(people):
    groups = inventory.groups(people)
    ids = np.concatenate([group.ids for group in groups])
    np.testing.assert_array_equal(np.sort(ids), np.arange(len(people.keys)))
    assert [(group.set, group.part) for group in groups] == [
        ("lsp", "labelled"),
        ("lsp", "test"),
        ("lspet", "pool"),
    ]


def test_windows_beyond_their_images():
    sizes = np.array([(100, 80)] * 4 + [(np.nan, np.nan)], float)
    windows = np.array(
        [(49.5, 39.5, 80), (49.5, 39.5, 90), (10, 40, 40), (49.5, 39.5, 20), (0, 0, 9)]
    )
    assert inventory.beyond(windows, sizes).tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_picture_reaches_as_far_as_the_joints_do(people):
    skeleton = people.sources[0].skeleton
    image = np.full((80, 100, 3), 200, np.uint8)
    truth = {name: values[0].copy() for name, values in people.truth.items()}
    truth["joints"] = truth["joints"] * 0 + (50, 40)
    inside = overview.draw(skeleton, image, None, truth)
    truth["joints"][0] = 150, 40
    outside = overview.draw(skeleton, image, None, truth)
    size = overview.SIZE
    assert inside.shape == outside.shape == (size, size, 3)
    # The image fills the picture's width, then two thirds of it, and grey the rest.
    assert (inside[60, [5, -5]] == 200).all()
    assert (outside[size // 2 - 60, 5] == 200).all()
    assert (outside[size // 2 - 60, -5] == 96).all()


def test_a_box_is_drawn_where_there_is_one(people):
    skeleton = people.sources[0].skeleton
    image = np.full((100, 100, 3), 200, np.uint8)
    truth = {name: values[0].copy() for name, values in people.truth.items()}
    truth["joints"] = truth["joints"] * 0 + (50, 50)
    bare = overview.draw(skeleton, image, None, truth)
    nothing = overview.draw(skeleton, image, None, {**truth, "box": np.full(4, np.nan)})
    np.testing.assert_array_equal(bare, nothing)
    drawn = overview.draw(skeleton, image, None, {**truth, "box": [10, 20, 90, 80]})
    changed = np.argwhere((drawn != bare).any(axis=-1)) * 100 / overview.SIZE
    np.testing.assert_allclose(changed.min(axis=0), (20, 10), atol=1)
    np.testing.assert_allclose(changed.max(axis=0), (80, 90), atol=1)
