"""Classes: predicted, chosen once and exported from the workdir of a run alone."""

import csv
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.deployment import export as exporting
from jalpose.deployment.options import Export, Model, Prediction, Selection
from jalpose.deployment.predict import predict
from jalpose.deployment.select import select
from jalpose.loop import configs, saved_models
from jalpose.models.registry import MODELS
from jalpose.models.resnet import ResNetOptions
from jalpose.runtime import provenance
from jalpose.runtime.screen import Screen
from jalpose.settings.differences import plain
from jalpose.storage import records
from jalpose.tasks.classification.shapes import CLASSES
from jalpose.tasks.inference import Place
from tests.support import classes, own_photos, small


class Options(ResNetOptions):
    """A network that compiles in no time, under the keys of another."""

    def build(self, num_outputs, *, traced=False):
        return classes.Pixels(num_outputs=num_outputs)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run on drawn shapes with weights nobody trained, and four images."""
    folder = tmp_path_factory.mktemp("shapes")
    delta = {
        "data.size": 16,
        "data.threads": 1,
        "evaluation.block": 4,
        "acquisition.method": "least_margin",
    }
    make = configs.benchmark("shapes", task="classification", delta=delta)
    config = make("method=least_margin,scale=tiny")
    with config.unlocked():
        config.data.size = 16
    records.write_config(folder / "run", provenance.describe(plain(config)))
    network = classes.Pixels(num_outputs=len(CLASSES))
    blank = jnp.zeros((1, 16, 16, 3))
    weights = jax.jit(network.init)(jax.random.key(1), blank)
    saved_models.save_model(folder / "run", 0, jax.tree.map(np.asarray, weights))
    own_photos.write_images(folder / "new", ["a.png", "b/c.png", "d.png", "e.png"])
    (folder / "new" / "empty.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet", Options)
        yield folder


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_are_a_table(root):
    stream, out = io.StringIO(), root / "predictions"
    predict(
        Model(str(root / "run")),
        Prediction(Place(str(root / "new")), str(out)),
        Screen(stream),
        small.programs(),
    )
    assert "1 of 5 images are damaged" in stream.getvalue()
    rows = rows_of(out / "predictions.csv")
    assert sorted(row["file"] for row in rows) == ["a.png", "b/c.png", "d.png", "e.png"]
    for row in rows:
        shares = [float(row[f"p({name})"]) for name in CLASSES]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert row["class"] == CLASSES[int(np.argmax(shares))]
        assert float(row["probability"]) == max(shares)
    assert len(list((out / "pictures").iterdir())) == 4
    with pytest.raises(DataError, match="neither a folder nor an image"):
        predict(
            Model(str(root / "run")),
            Prediction(Place(str(root / "run" / "config.json")), str(root / "x")),
        )


def test_one_choice_hands_a_table_out(root):
    out = root / "to_label"
    select(
        Model(str(root / "run")),
        Selection(Place(str(root / "new")), str(out), budget=2),
        Screen(io.StringIO()),
        small.programs(),
    )
    rows = rows_of(out / "classes.csv")
    assert len(rows) == 2 and {row["class"] for row in rows} == {""}
    assert {row["guess"] for row in rows} <= set(CLASSES)


def test_exported_it_says_classes(root):
    pytest.importorskip("flatbuffers")
    out = root / "exported"
    exporting.export(
        Model(str(root / "run")), Export(str(out), ("cpu",)), Screen(io.StringIO())
    )
    about = json.loads((out / "model.json").read_bytes())
    assert about["classes"] == list(CLASSES)
    found = exporting.load(out).predict(np.zeros((3, 16, 16, 3), np.uint8))
    assert found["probabilities"].shape == (3, len(CLASSES))
