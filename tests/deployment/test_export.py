"""A network taken elsewhere: read back, it says the same, and says how it is used."""

import io
import json
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

pytest.importorskip("flatbuffers")

from jalpose.deployment import export as exporting
from jalpose.deployment.options import Export, Model
from jalpose.models.registry import MODELS
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from tests.support import coco_miniature as mini
from tests.support import small, trained


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("mice")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hourglass", trained.FlatOptions)
        trained.lay_mice(root)
        stream = io.StringIO()
        out = exporting.export(
            Model(str(root / "run")), Export(str(root / "exported")), Screen(stream)
        )
    return out, stream.getvalue()


@pytest.mark.slow
def test_read_back_it_says_the_same_of_a_batch_of_any_size(exported):
    out, printed = exported
    assert "it differs by at most 0 on the example" in printed
    loaded = exporting.load(out)
    apply, draws = (
        jax.jit(small.Flat(num_outputs=4).apply),
        np.random.default_rng(4),
    )
    for count in (1, 3):
        images = draws.integers(0, 256, (count, 32, 32, 3), np.uint8)
        found = loaded.predict(images)
        maps = apply(trained.variables(), images / np.float32(255)).prediction
        np.testing.assert_allclose(found["prediction"], maps, rtol=1e-4, atol=1e-4)
        assert found["joints"].shape == (count, 4, 2)
        highest = np.asarray(maps)[:, -1].max(axis=(1, 2))
        np.testing.assert_allclose(found["peaks"], highest, rtol=1e-4)


def test_what_is_beside_it_says_how_it_is_used(exported):
    out, _ = exported
    about = json.loads((out / "model.json").read_bytes())
    assert about["joints"] == list(mini.JOINTS)
    assert about["input"]["shape"] == ["batch", 32, 32, 3]
    assert about["outputs"]["joints"] == {
        "shape": ["batch", 4, 2],
        "dtype": "float32",
    }
    assert about["decoding"]["peak"] == 30.0 and about["platforms"][0] == "cpu"
    assert (out / "model.stablehlo").stat().st_size > 1000


@pytest.mark.slow
def test_jax_alone_reads_it(exported):
    out, _ = exported
    script = f"""
    import sys
    sys.modules["jalpose"] = None
    import numpy as np
    from jax import export
    with open({str(out / "model.jaxexport")!r}, "rb") as file:
        model = export.deserialize(bytearray(file.read()))
    example = np.load({str(out / "example.npz")!r})
    said = model.call(example["images"])
    print(float(abs(said["joints"] - example["joints"]).max()))
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(found.stdout) < 1e-3


def test_what_cannot_be_is_refused(exported, tmp_path):
    out, _ = exported
    model = Model(str(out.parent / "run"))
    with pytest.raises(ConfigError, match="nothing is written over"):
        exporting.export(model, Export(str(out)))
    with pytest.raises(ConfigError, match="--platforms"):
        exporting.export(model, Export(str(tmp_path / "x"), ("abacus",)))
    with pytest.raises(ConfigError, match="no such folder"):
        exporting.export(Model(str(tmp_path / "no")), Export(str(tmp_path / "x")))


def test_the_folder_it_runs_in_is_no_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (".", str(tmp_path)):
        with pytest.raises(ConfigError, match="is the folder that this command runs"):
            Export(out).check()
