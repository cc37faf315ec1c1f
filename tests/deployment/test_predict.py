"""Predictions of a trained network on new images: files, pictures, what is refused."""

import csv
import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from jalpose.data.source import DataError
from jalpose.deployment.options import Model, Prediction
from jalpose.deployment.predict import predict
from jalpose.loop import saved_models
from jalpose.loop.saved_models import CheckpointError
from jalpose.models.registry import MODELS
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.tasks.inference import Place
from tests.support import coco_miniature as mini
from tests.support import own_photos, small, trained


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hourglass", trained.FlatOptions)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("mice")
    trained.lay_mice(found)
    trained.write_new(found)
    return found


def perform(root, out, images, folder="", workdir=None, **options):
    stream = io.StringIO()
    predict(
        Model(str(workdir or root / "run")),
        Prediction(Place(str(images), str(folder)), str(out), **options),
        Screen(stream),
        small.programs(),
    )
    return stream.getvalue()


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def of_folder(root):
    out = root / "from folder"
    return out, perform(root, out, root / "nëw images", pictures=2)


def test_a_folder_gives_a_line_an_image_and_damaged_ones_are_named(of_folder):
    out, printed = of_folder
    assert "2 of 7 images are damaged or missing, and left out:" in printed
    assert "'cut.png'" in printed and "'empty.jpg'" in printed
    assert printed.splitlines()[-1].startswith("5 predictions on 5 images, 2 left out")
    rows = rows_of(out / "predictions.csv")
    assert sorted(row["file"] for row in rows) == sorted(trained.NEW)
    assert {row["id"] for row in rows} == {""} and rows[0]["x1"] == "59.5"
    for joint in mini.JOINTS:
        assert 0 <= float(rows[0][f"{joint} confidence"]) <= 1
        assert np.isfinite(float(rows[0][f"{joint} x"]))
    assert json.loads((out / "prediction.json").read_bytes())["num_images"] == 5


def test_what_is_predicted_is_what_the_network_says_of_the_crop(of_folder, root):
    out, _ = of_folder
    image = np.asarray(Image.open(root / "nëw images" / "c.png"))
    # The whole image in a square of its longer side.
    square = np.zeros((60, 60, 3), np.uint8)
    square[10:50] = image
    crop = np.asarray(Image.fromarray(square).resize((32, 32), 2))
    network = small.Flat(num_outputs=4)
    apply = jax.jit(network.apply)
    maps = apply(trained.variables(), crop[None] / np.float32(255)).prediction
    places = np.asarray(maps)[0, -1].reshape(64, 4).argmax(axis=0)
    cells = np.stack([places % 8, places // 8], axis=1)
    (row,) = [r for r in rows_of(out / "predictions.csv") if r["file"] == "c.png"]
    found = np.array([[float(row[f"{j} {k}"]) for k in "xy"] for j in mini.JOINTS])
    # Heatmap pixels to those of the image; a parabola moves a joint by half of one.
    wanted = ((cells + 0.5) * 4) * 60 / 32 - 0.5 - [0, 10]
    assert np.abs(found - wanted).max() <= 0.5 * 4 * 60 / 32 + 0.1


def test_pictures_are_drawn_of_the_first(of_folder):
    out, _ = of_folder
    names = sorted(path.name for path in (out / "pictures").iterdir())
    assert names == ["00001_a b.jpg", "00002_c.jpg"]
    assert Image.open(out / "pictures" / names[0]).size == (60, 40)


def test_results_are_of_the_images_beside_them(of_folder):
    out, _ = of_folder
    content = json.loads((out / "coco.json").read_bytes())
    results = json.loads((out / "results.json").read_bytes())
    assert {r["image_id"] for r in results} == {i["id"] for i in content["images"]}
    assert content["categories"][0]["keypoints"] == list(mini.JOINTS)
    assert content["annotations"][0]["confidence"]


def coco_file(root, path, **changes):
    names = ("nëw images/a b.png", "nëw images/d.png", "nëw images/c.png")
    images = [
        mini.image(40 + n, file_name=name, width=60, height=40)
        for n, name in enumerate(names)
    ]
    mice = [own_photos.mouse(n, image) for n, image in ((1, 40), (2, 40), (3, 42))]
    return mini.write(path, images=images, annotations=mice, **changes)


def test_pycocotools_scores_the_results_of_a_coco_file(root, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    path = coco_file(root, root / "pool.json")
    out = tmp_path / "out"
    printed = perform(root, out, path, pictures=0)
    assert "1 images have nobody in them" in printed
    assert "3 predictions on 2 images" in printed and not (out / "pictures").exists()
    truth = coco.COCO(str(path))
    found = truth.loadRes(str(out / "results.json"))
    assert sorted(found.getImgIds()) == [40, 41, 42]
    assert [a["category_id"] for a in found.loadAnns(found.getAnnIds())] == [7, 7, 7]
    assert [row["id"] for row in rows_of(out / "predictions.csv")] == ["1", "2", "3"]
    # By COCO's own file, its images elsewhere and named.
    moved = tmp_path / "moved"
    shutil.copytree(root / "nëw images", moved / "nëw images")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(path, other / "x.json")
    perform(root, tmp_path / "out2", other / "x.json", moved, pictures=0)
    one, two = (tmp_path / n / "results.json" for n in ("out", "out2"))
    assert one.read_bytes() == two.read_bytes()


def test_boxes_of_a_csv(root, tmp_path):
    text = "file,x,y,w,h\nnëw images/c.png,5,5,20,20\nnëw images/c.png,30,5,20,20\n"
    (root / "boxes.csv").write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    perform(root, out, root / "boxes.csv")
    rows = rows_of(out / "predictions.csv")
    assert [(row["file"], row["id"]) for row in rows] == [
        ("nëw images/c.png", "1"),
        ("nëw images/c.png", "2"),
    ]
    assert len(list((out / "pictures").iterdir())) == 1  # both on one


def test_names_are_found_in_the_data_where_they_are_not_recorded(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_bytes())
    del record["outputs"]
    path.write_text(json.dumps(record))
    # Of as long a name as there may be.
    image = tmp_path / f"{'ä' * 125}.png"
    shutil.copy(root / "nëw images" / "c.png", image)
    perform(root, tmp_path / "a", image, workdir=tmp_path / "run")
    perform(root, tmp_path / "b", image)
    one, two = (tmp_path / n / "predictions.csv" for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def refused(root, tmp_path, kind, match, images=None, **options):
    with pytest.raises(kind, match=match) as caught:
        perform(root, tmp_path / "out", images or root / "nëw images", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_input_is_refused_in_a_line(root, tmp_path):
    nowhere = tmp_path / "nowhere"
    refused(root, tmp_path, ConfigError, "no such folder", workdir=nowhere)
    (tmp_path / "bare").mkdir()
    bare = tmp_path / "bare"
    refused(root, tmp_path, ConfigError, "holds no config.json", workdir=bare)
    shutil.copy(root / "run" / "config.json", bare)
    refused(root, tmp_path, CheckpointError, "no model is saved", workdir=bare)
    refused(root, tmp_path, DataError, "no such folder or file", nowhere)
    (tmp_path / "none").mkdir()
    refused(root, tmp_path, DataError, "No image in", tmp_path / "none")
    refused(root, tmp_path, DataError, "ffmpeg -i clip.mp4 ", "clip.mp4")
    (tmp_path / "none" / "a.png").write_bytes(b"")
    refused(root, tmp_path, DataError, "nobody is left", tmp_path / "none")
    refused(root, tmp_path, ConfigError, "pictures", pictures=-1)


def test_another_skeleton_and_images_of_other_sizes_are_refused(root, tmp_path):
    category = mini.category(keypoints=["snout", "left_ear", "right_ear", "paw"])
    path = coco_file(root, root / "other.json", categories=[category])
    refused(root, tmp_path, DataError, "another skeleton", path)
    path = coco_file(root, root / "sizes.json")
    content = json.loads(path.read_text())
    content["images"][0]["width"] = 61
    path.write_text(json.dumps(content))
    refused(root, tmp_path, DataError, r"has 60 x 40 pixels.*61 x 40", path)


@pytest.mark.parametrize(
    "place, words",
    [
        ("100,1,20,20", "The boxes of 1 people of --images lie outside their images"),
        ("0.1,0.1,0.5,0.5", "pixels, not shares of the image"),
    ],
)
def test_boxes_that_cannot_be_are_refused(root, tmp_path, place, words):
    (tmp_path / "boxes.csv").write_text(f"file,x,y,w,h\na.png,{place}\n")
    shutil.copy(root / "images" / "day 1" / "ä00.png", tmp_path / "a.png")
    refused(root, tmp_path, DataError, words, tmp_path / "boxes.csv")


def test_nothing_is_written_over(root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="nothing is written over"):
        perform(root, tmp_path / "out", root / "nëw images")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_network_that_has_diverged_is_told(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")

    weights = trained.variables()
    weights["params"]["maps1"]["bias"] = np.full(4, np.nan, np.float32)
    saved_models.save_model(tmp_path / "run", 0, weights)
    refused(root, tmp_path, FloatingPointError, "not finite", workdir=tmp_path / "run")
