"""What is handed out: images copied or linked as they are, names, reasons, the page."""

import dataclasses
import html.parser
import io
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jalpose.oracles import handout, reasons
from jalpose.oracles.handout import Handout, box_within, read_index
from jalpose.oracles.returns import Names
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.storage.folders import atomic_folder
from jalpose.tasks.pose import exchange
from tests.support import small

DATA = small.dataset()
IDS = DATA.pool[[5, 2]]


def encoded(kind, orientation=1):
    """An image file of the figures' size."""
    picture = Image.fromarray(DATA.image(int(IDS[0])))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def hand_out(tmp_path, files=None, copy="copy"):
    """The folder and requests of two examples, their files as given, by name."""
    data_dir, workdir = tmp_path / "my data", tmp_path / "run"
    names = list(DATA.files)
    for example, (name, content) in zip(IDS, (files or {}).items(), strict=False):
        names[example] = name
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_bytes(content)
    data = dataclasses.replace(DATA, files=tuple(names))
    config = small.configure()
    labels = small.context().labels
    ids = np.sort(DATA.pool)
    records.write_arrays(
        workdir,
        0,
        ids=ids,
        scores=np.linspace(0, 1, len(ids), dtype=np.float32),
        joints=DATA.truth["joints"][ids],
        peaks=np.full((len(ids), 14), 15, np.float32),
        selected=IDS,
    )
    line = {"cycle": 0, "acquisition": {"method": "egl"}}
    records.write_cycle(workdir, line)
    made = exchange.make_exchange(config, data)
    given = Handout(workdir, data, labels, made, str(data_dir), copy)
    given.write(0, IDS)
    return given.folder(0), read_index(given.folder(0))


def test_files_are_copied_as_they_are_under_names_that_carry_the_id(tmp_path):
    files = {"Ünter wegs/a b.JPG": encoded("JPEG"), "c.png": encoded("PNG")}
    folder, (one, other) = hand_out(tmp_path, files)
    assert re.fullmatch(rf"{IDS[0]:06d}_[A-Za-z0-9-]+\.jpg", one.name)
    assert (folder / "images" / one.name).read_bytes() == files["Ünter wegs/a b.JPG"]
    assert (folder / "images" / other.name).read_bytes() == files["c.png"]
    assert [one.id, other.id] == IDS.tolist() and one.file == "Ünter wegs/a b.JPG"


def test_files_are_linked_where_that_is_asked_for(tmp_path):
    folder, (one, _) = hand_out(tmp_path, {"a.jpg": encoded("JPEG")}, copy="link")
    link = folder / "images" / one.name
    assert link.is_symlink() and os.path.samefile(link, tmp_path / "my data/a.jpg")


@pytest.mark.parametrize("copy", ["copy", "link"])
def test_what_tools_would_turn_or_not_show_is_written_as_pixels(tmp_path, copy):
    files = {"turned.jpg": encoded("JPEG", 6), "a.tiff": encoded("TIFF")}
    folder, requests = hand_out(tmp_path, files, copy)
    for one in requests:
        path = folder / "images" / one.name
        assert one.name.endswith(".png") and not path.is_symlink()
        np.testing.assert_array_equal(np.asarray(Image.open(path)), DATA.image(one.id))


def test_images_may_stay_where_they_are_if_their_names_tell_them_apart(tmp_path):
    files = {"a/x.jpg": encoded("JPEG"), "b/x.jpg": encoded("JPEG")}
    folder, (one, other) = hand_out(tmp_path, files, copy="none")
    assert (one.name, other.name) == ("a/x.jpg", "b/x.jpg")
    assert not (folder / "images").exists()
    names = Names([one, other])
    assert names.find("b/x.jpg") == other.id and names.find("x.jpg") is None
    with pytest.raises(ConfigError, match=r"is no file of .*set oracle.copy=copy"):
        hand_out(tmp_path / "drawn", copy="none")


def test_two_people_of_one_image_have_a_picture_each(tmp_path):
    files = {"a.jpg": encoded("JPEG")}
    # The same file for both examples.
    shared = dataclasses.replace(DATA, files=("a.jpg",) * len(DATA.files))
    for copy in ("copy", "none"):
        place = tmp_path / copy
        hand_out(place, files)
        given = Handout(
            place / "run",
            shared,
            small.context().labels,
            exchange.make_exchange(small.configure(), shared),
            str(place / "my data"),
            copy,
        )
        shutil.rmtree(given.folder(0))
        if copy == "none":
            with pytest.raises(ConfigError, match="could not be told apart"):
                given.write(0, IDS)
            assert not list((place / "run" / "to_label").iterdir())
            continue
        given.write(0, IDS)
        names = [one.name for one in read_index(given.folder(0))]
        assert len(set(names)) == 2


def test_another_choice_is_never_written_over_one_that_is_handed_out(tmp_path):
    folder, _ = hand_out(tmp_path)
    made = exchange.make_exchange(small.configure(), DATA)
    labels = small.context().labels
    given = Handout(tmp_path / "run", DATA, labels, made, "", "copy")
    with pytest.raises(records.WorkdirError, match="hands out other examples"):
        given.write(0, IDS[::-1])
    assert [one.id for one in read_index(folder)] == IDS.tolist()
    # Nor are files of somebody's where nothing is handed out any more.
    (folder / "requests.json").unlink()
    (folder / "mine.json").touch()
    with pytest.raises(records.WorkdirError, match=r"there without its requests.json"):
        given.write(0, IDS)
    assert (folder / "mine.json").is_file()


class Page(html.parser.HTMLParser):
    """Which files a page names, and its words."""

    def __init__(self, text):
        super().__init__()
        self.named, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.named += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_names_files_beside_it_and_says_why(tmp_path):
    folder, requests = hand_out(tmp_path, {"a.jpg": encoded("JPEG")})
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert len(page.named) == 2 * len(requests) + 1
    for name in page.named:
        assert (folder / name).is_file()
    words = " ".join(page.words)
    for one in requests:
        assert one.why in words and one.name in words
    # Of the files for tools all are named, each with its tool; none that is not there.
    assert "CVAT:" in words and "close together" not in words
    named = set(re.findall(r"\w+\.(?:json|xml|csv)", words)) - {"selection.csv"}
    others = {"index.html", "requests.json", "selection.csv"}
    assert named == {p.name for p in folder.iterdir() if p.is_file()} - others
    tile = Image.open(folder / "tiles/0001.png")
    assert min(tile.size) >= 128


def test_small_poses_are_shown_once_more_from_near(tmp_path, monkeypatch):
    made = exchange.PoseExchange
    monkeypatch.setattr(made, "close_up", lambda *_: np.array([60, 60, 40], np.float32))
    folder, requests = hand_out(tmp_path)
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert [name for name in page.named if name.startswith("tiles/0001")] == [
        "tiles/0001.png",
        "tiles/0001_close.png",
    ]
    assert len(page.named) == 3 * len(requests) + 1
    assert "Where joints lie close together" in " ".join(page.words)
    whole, close = (
        np.asarray(Image.open(folder / f"tiles/{name}"))
        for name in ("0001.png", "0001_close.png")
    )
    assert whole.shape == close.shape and (whole != close).any()


def test_the_box_is_drawn_where_the_data_set_has_one(tmp_path, monkeypatch):
    """What is handed out as a picture stays without: it would be in the way."""
    plain, _ = hand_out(tmp_path / "plain")
    box = np.array([30.0, 20.0, 90.0, 100.0])
    monkeypatch.setattr(exchange.PoseExchange, "box_of", lambda *_: box)
    boxed, (one, _) = hand_out(tmp_path / "boxed")
    tiles = [np.asarray(Image.open(f / "tiles/0001.png")) for f in (plain, boxed)]
    assert (tiles[0] != tiles[1]).any()
    image = np.full((128, 128, 3), 90, np.uint8)
    rows, columns = np.nonzero((handout._with_box(image, one) != 90).any(axis=2))
    found = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert found == box.tolist() and 90 < len(rows) < 128 * 128 / 8
    pictures = [(f / "images" / one.name).read_bytes() for f in (plain, boxed)]
    assert pictures[0] == pictures[1]


def test_names_of_pictures_have_one_ending(tmp_path):
    for key, slug in (
        ("labeled-data/m4s1/img0044.png", "img0044"),
        ("images/day 1/007.JPG#12", "007-12"),
        ("a/v1.2 left.jpeg", "v1-2-left"),
        ("drawn/000012", "000012"),
        (".png", "example"),
    ):
        assert handout._slug(key) == slug


def test_names_are_found_whatever_tools_put_before_them():
    base = read_request("000012_a-b.png", 12)
    names = Names([base, read_request("000013_c.png", 13)])
    for name in (
        "000012_a-b.png",
        "images/000012_a-b.png",
        "C:\\labels\\images\\000012_a-b.png",
        "labeled-data/cycle_00/000012_a-b.png",
        "0123abcd-000012_a-b.png",
        "/data/local-files/?d=images/000012_a-b.png",
        "12",
        "000012",
    ):
        assert names.find(name) == 12, name
    for name in ("000012_other.png", "000014_a.png", "14", "\N{SUPERSCRIPT TWO}", ""):
        assert names.find(name) is None


def test_an_image_of_the_same_name_in_another_folder_is_not_taken_for_it():
    asked = [read_request("a/1.jpg", 12), read_request("2.jpg", 13)]
    names = Names(asked, ["a/1.jpg", "b/1.jpg", "2.jpg", "b/2.jpg"])
    for name in ("a/1.jpg", "photos/a/1.jpg", "1.jpg", "up/0123abcd-1.jpg"):
        assert names.find(name) == 12, name
    assert names.find("photos/2.jpg") == 13
    for name in ("b/1.jpg", "c/1.jpg", "photos\\b\\1.jpg", "b/2.jpg", "x/b/2.jpg"):
        assert names.find(name) is None and not names.alike(name), name


def read_request(name, example):
    return exchange.Request(
        rank=1,
        id=example,
        name=name,
        key=name,
        file=name,
        size=(10, 10),
        window=None,
        box=(0, 0, 1, 1),
        score=None,
        why="",
        predicted={},
    )


def test_boxes_lie_within_the_image():
    window = np.array([10, 20, 40], np.float32)
    assert box_within((50, 30), window, None) == (-0.5, 0, 30, 29.5)
    assert box_within((50, 30), None, None) == (-0.5, -0.5, 49.5, 29.5)
    box = np.array([1, 2, 99, 9.0])
    assert box_within((50, 30), window, box) == (1, 2, 49.5, 9)


def test_reasons_are_of_the_arrays_there_are():
    arrays = {
        "scores": np.array([1, 2, 3, np.nan], np.float32),
        "joint_entropy": np.array([[0, 1, 2]] * 4, np.float32),
        "neighbour_ids": np.array([[7, 8]] * 4),
        "neighbour_probabilities": np.array([[0.25, 0.75]] * 4),
        "pick_distance": np.array([np.nan, np.nan, 2.5, 1]),
    }
    sites, keys = ("head", "hand", "foot"), [f"k{i}" for i in range(9)]
    assert reasons.why(arrays, 2, "egl", sites, keys) == (
        "score 3 by egl, above 67% of 3 scored; least sure of foot and hand; most like "
        "the labelled k8 (75%); 2.5 away from all that was labelled or picked before"
    )
    bare = {"scores": arrays["scores"]}
    assert reasons.why(bare, 3, "coreset", sites, keys) == (
        "chosen by coreset, which gives no score"
    )
    assert reasons.why(bare, 0, "random", sites, keys) == "drawn at random"
    # Of other sites than the task's nothing is said.
    assert "sure" not in reasons.why(arrays, 0, "egl", ("whole",), keys)


def test_a_folder_takes_the_place_of_another_whole(tmp_path):
    for text in ("one", "two"):
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "x").write_text(text)
            (folder / text).write_text("")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"x", "two"}
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("three")
        raise ZeroDivisionError
    assert (tmp_path / "a" / "x").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "large disk")
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").touch()
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "large disk" / "x").is_file()


def test_what_another_is_writing_is_left_to_it_and_what_a_kill_left_is_removed(
    tmp_path,
):
    left = tmp_path / ".a.0123.tmp"
    (left / "a").mkdir(parents=True)
    with atomic_folder(tmp_path / "a") as first:
        assert not left.exists()
        with atomic_folder(tmp_path / "a") as second:
            (second / "x").write_text("second")
        (first / "x").write_text("first")
    assert (tmp_path / "a" / "x").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
