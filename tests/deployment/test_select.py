"""One choice with a trained run: as its loop would choose, and among new images."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from jalpose.acquisition import registry as methods
from jalpose.deployment.options import Model, Selection
from jalpose.deployment.select import select
from jalpose.loop import saved_models
from jalpose.loop.run import load_dataset, run_one
from jalpose.models.registry import MODELS
from jalpose.oracles.handout import read_index
from jalpose.runtime import provenance
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import plain
from jalpose.storage import records
from jalpose.tasks.inference import Place
from tests.support import own_photos, small, trained


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hourglass", trained.FlatOptions)
        small.remember_templates(patch)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("mice")
    trained.lay_mice(found)
    trained.write_new(found)
    return found


def perform(root, out, images=None, workdir=None, **options):
    stream = io.StringIO()
    place = None if images is None else Place(str(images))
    select(
        Model(str(workdir or root / "run")),
        Selection(place, str(out), **options),
        Screen(stream),
        small.programs(),
    )
    return stream.getvalue()


def rows_of(out):
    with open(out / "selection.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_of_the_runs_own_pool_it_chooses_what_the_loop_does(tmp_path):
    """The choice of every cycle's model is that of the run, also the first pick."""
    changes = {
        "acquisition.method": "softmax_entropy",
        "training.base_steps": 2,
        "training.cycle_steps": 2,
        "loop.cycles": 2,
        "acquisition.pool_subset": 0,
    }
    workdir = tmp_path / "run"
    context = small.flat_context(changes, base=small.flat_variables())
    run_one(context, workdir, Screen(io.StringIO()))
    config = context.config
    records.write_config(workdir, provenance.describe(plain(config)))
    for cycle in (0, 1):
        wanted = records.read_arrays(workdir, cycle)
        out = tmp_path / f"chosen {cycle}"
        select(
            Model(str(workdir), cycle),
            Selection(None, str(out)),
            Screen(io.StringIO()),
            small.programs(),
        )
        found = read_index(out)
        assert [one.id for one in found] == wanted["selected"].tolist()
        scores = dict(zip(wanted["ids"], wanted["scores"], strict=True))
        for one in found:
            assert one.score == pytest.approx(scores[one.id])
    record = json.loads((out / "selection.json").read_bytes())
    assert record["num_scored"] == 60 - 8 and record["method"] == "softmax_entropy"


@pytest.fixture(scope="module")
def chosen(root):
    out = root / "to label"
    method = {"method": "coreset", "budget": 3}
    return out, perform(root, out, root / "nëw images", **method)


def test_what_is_written_is_what_the_oracle_of_folders_writes(chosen, root):
    out, printed = chosen
    assert "2 of 7 images are damaged or missing" in printed
    assert f"3 of 5 chosen by coreset: open {out / 'index.html'}" in printed
    names = {path.name for path in out.iterdir()}
    assert names == {
        "cvat.xml",
        "cvat_labels.json",
        "coco.json",
        "images",
        "index.html",
        "label_studio.json",
        "label_studio_config.xml",
        "machinelabels.csv",
        "requests.json",
        "selection.csv",
        "selection.json",
        "tiles",
    }
    for row in rows_of(out):
        name, file = out / "images" / row["name"], root / "nëw images" / row["file"]
        assert name.read_bytes() == file.read_bytes()
        assert row["why"] and float(row["box"].split()[2]) == 59.5
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Run the same command again" not in page and "selection.csv" in page
    assert "labeled-data,to label,0" in (out / "machinelabels.csv").read_text()
    for entry in json.loads((out / "coco.json").read_bytes())["annotations"]:
        assert np.isfinite(entry["keypoints"]).all()


def test_the_same_again_is_refused_and_elsewhere_the_same(chosen, root, tmp_path):
    out, _ = chosen
    before = (out / "selection.csv").read_bytes()
    with pytest.raises(ConfigError, match="nothing is written over"):
        perform(root, out, root / "nëw images", budget=1)
    again = tmp_path / "to label"
    perform(root, again, root / "nëw images", method="coreset", budget=3)
    assert (again / "selection.csv").read_bytes() == before


def test_what_is_labelled_or_there_twice_is_not_chosen(root, tmp_path):
    folder = tmp_path / "new"
    own_photos.write_images(folder, ["a.png", "b.png"], seed=7)
    shutil.copy(folder / "a.png", folder / "z copy.png")
    shutil.copytree(root / "images", folder / "old")
    printed = perform(root, tmp_path / "out", folder, budget=2)
    # 4 and 2; the other 4 are the pool of a simulation, their labels not bought.
    assert "6 of 13 are labelled or tested on already, and not chosen from" in printed
    assert "1 of 13 are copies of others, and not chosen from: z copy.png" in printed
    assert len({row["file"] for row in rows_of(tmp_path / "out")}) == 2


def test_another_person_of_a_labelled_image_may_be_chosen(root, tmp_path):
    data = load_dataset(trained.config_of(root))
    first = data.files[data.initial[0]]  # its mouse is at (8, 15), 24 x 10 pixels
    text = f"file,x,y,w,h\n{first},8,15,24,10\n{first},40,5,15,30\n"
    (root / "again.csv").write_text(text, encoding="utf-8")
    printed = perform(root, tmp_path / "out", root / "again.csv", budget=1)
    assert "1 of 2 are labelled" in printed
    (row,) = rows_of(tmp_path / "out")
    assert row["key"].endswith(".png#2")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"budget": 6}, "--budget=6, but there are 5 to choose from"),
        ({"budget": -1}, "budget"),
        ({"method": "coresett"}, "Did you mean 'coreset'"),
        ({"method": "learning_loss"}, "needs a head"),
        ({"method": "ensemble"}, "needs a (members|committee)"),
        ({"options": ("training.batch=3",)}, "acquisition.key=value"),
        ({"options": ("acquisition.nothing=3",)}, "unknown config key"),
    ],
)
def test_what_cannot_be_is_refused(root, tmp_path, options, match):
    options = {"budget": 2, **options}
    with pytest.raises(ConfigError, match=match):
        perform(root, tmp_path / "out", root / "nëw images", **options)
    assert not (tmp_path / "out").exists()


def test_options_of_a_method_are_taken(root, tmp_path):
    options = ("acquisition.diverse=lcmd", "acquisition.diverse_share=1.0")
    found = {"method": "softmax_entropy", "options": options, "budget": 3}
    perform(root, tmp_path / "out", root / "nëw images", **found)
    record = json.loads((tmp_path / "out" / "selection.json").read_bytes())
    assert record["summary"]["diverse_among"] == 5
    assert record["config"]["acquisition"]["diverse"] == "lcmd"


def test_weights_that_another_method_needs_do_no_harm(root, tmp_path):
    """A run with a head chooses by a method without one."""
    shutil.copytree(root / "run", tmp_path / "run")
    weights = {**trained.variables(), "head": {"w": np.zeros(3, np.float32)}}
    saved_models.save_model(tmp_path / "run", 0, weights)
    found = {"method": "coreset", "budget": 3, "workdir": tmp_path / "run"}
    perform(root, tmp_path / "out", root / "nëw images", **found)
    assert len(rows_of(tmp_path / "out")) == 3
    assert "coreset" in methods.methods()


def test_tiles_show_predictions(chosen):
    out, _ = chosen
    tile = np.asarray(Image.open(out / "tiles" / "0001.png"))
    assert tile.shape[0] >= 128
