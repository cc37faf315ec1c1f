"""Pretrained networks as eyes: images are looked at once and learnt from as rows."""

import importlib.util
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.data.packed import PackedCrops, Rows
from jalpose.data.source import DataError
from jalpose.deployment.options import Model, Prediction
from jalpose.deployment.predict import predict
from jalpose.loop import configs, run
from jalpose.models import efficientnet, encoders
from jalpose.models.encoders import Encoder
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.tasks.inference import Place
from tests.support import classes, own_photos
from tests.support.class_miniature import write_cifar

installed = pytest.mark.skipif(
    importlib.util.find_spec(efficientnet.PACKAGE) is None,
    reason="the package of weights is not installed (extra pretrained)",
)
COLUMNS = 12


def seen_of(crops):
    """Mean colours of quarters: [B, 12]."""
    half = crops.shape[1] // 2
    quarters = crops.reshape(-1, 2, half, 2, half, 3).mean(axis=(2, 4))
    return quarters.reshape(-1, COLUMNS) / 128 - 1


class Eye:
    """Counts the images that are looked at."""

    def __init__(self):
        self.looks = 0

    def __call__(self, crops):
        self.looks += len(crops)
        return seen_of(crops).astype(np.float32)


@pytest.fixture
def eye(monkeypatch):
    found = Eye()

    def make(side):
        return Encoder(found, seen_of, COLUMNS, f"drawn {side}")

    monkeypatch.setattr(encoders, "ENCODERS", {"efficientnet_lite0": make})
    return found


def config_of(arg="method=coreset", **changes):
    delta = {
        "data.threads": 1,
        "data.initial": 20,
        "training.heldout": "none",
        "training.base_steps": 200,
        "training.cycle_steps": 20,
        "training.learning_rate": 0.02,
        "training.warmup_steps": 0,
        "evaluation.block": 10,
        "acquisition.budget": 4,
        "acquisition.pool_subset": 0,
        "loop.cycles": 1,
        "output.images": 4,
        "output.tensorboard": False,
        "output.report": False,
        **changes,
    }
    make = configs.benchmark("cifar10", task="classification", delta=delta)
    return make(f"model=mlp,scale=tiny,{arg}")


def test_rows_are_made_once_and_kept_beside_crops(tmp_path):
    crops = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    eye = Eye()
    expected = eye(crops)
    eye.looks = 0

    def fail():
        raise AssertionError("cut although it is kept")

    for _ in range(2):
        rows = Rows(PackedCrops(tmp_path, "set", 8, COLUMNS), eye, COLUMNS, 5)
        rows.add([0, 1, 2], crops[:3]) if not rows.has(0) else None
        assert not rows.has(4) or eye.looks == 4
        found = [rows.get(example, fail) for example in (0, 1, 2)]
        found.append(rows.get(4, lambda: crops[4]))
        assert np.array_equal(found, expected[[0, 1, 2, 4]])
        assert found[0].dtype == np.float32
    assert eye.looks == 4
    PackedCrops(tmp_path, "set", 8).get(0, lambda: crops[0])  # crops are kept apart
    assert np.array_equal(rows.get(0, fail), expected[0])


def test_examples_are_rows_and_pictures_stay_images(eye):
    dataset = classes.dataset()
    config = config_of(**{"data.size": classes.SIZE})
    lazy = encoders.seen_through(config, dataset)
    assert eye.looks == 0
    eager = encoders.seen_through(config, dataset, Screen(silent=True))
    assert eye.looks == len(dataset.keys)  # no digests: kept in memory
    for example in (0, 41, 55):
        row = eager.crop(example, classes.SIZE)
        assert row.shape == (COLUMNS,) and row.dtype == np.float32
        assert np.array_equal(row, lazy.crop(example, classes.SIZE))
        assert np.array_equal(row, Eye()(dataset.image(example)[None])[0])
        assert np.array_equal(eager.image(example), dataset.image(example))
    assert eager.columns == COLUMNS and dataset.columns == 0
    assert encoders.seen_through(configs.default(), dataset) is dataset


@pytest.mark.slow
def test_a_run_on_what_an_encoder_sees_learns_and_predicts(tmp_path, eye):
    write_cifar(tmp_path / "data", counts=(60,), test=20)
    data, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    folders = {"data.dir": data, "data.cache_dir": cache}
    folders |= {"data.pool": 0, "data.test": 0}
    config = config_of(**folders)
    stream = io.StringIO()
    run.run(config, str(tmp_path / "run"), Screen(stream))
    assert "efficientnet_lite0 looks at images: 80/80" in stream.getvalue()
    assert eye.looks == 80  # 60 and 20 tests, each once
    last = records.read_cycles(tmp_path / "run")[-1]
    assert last["num_labelled"] == 24
    assert last["metrics"]["accuracy"] > 0.3  # by chance 0.1: a class has its colour
    assert list((tmp_path / "run" / "pictures").rglob("*.png"))
    # Another run reads what is kept, and a model knows what it was trained to see.
    again = run.load_dataset(config_of("method=badge", **folders), Screen(silent=True))
    assert again.crop(0, 32).shape == (COLUMNS,) and eye.looks == 80
    own_photos.write_images(tmp_path / "new", ["a.png", "b.png", "c.png"])
    predict(
        Model(str(tmp_path / "run")),
        Prediction(Place(str(tmp_path / "new")), str(tmp_path / "predicted")),
        Screen(silent=True),
    )
    assert eye.looks == 83


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.encoder.name": ""}, "model=mlp"),
        ({"data.encoder.name": "clip"}, "efficientnet_lite0"),
        ({"data.encoder.size": -1}, "data.encoder.size"),
        ({"augment.flip": 0.5}, "augment.flip=0.0"),
        ({"model.predicts": "numbers"}, "predicts numbers"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    config = config_of()
    configs.check(config)
    with config.unlocked():
        for key, value in changes.items():
            section, _, last = key.rpartition(".")
            part = config
            for name in section.split("."):
                part = part[name]
            part[last] = value
    with pytest.raises(ConfigError, match=said):
        configs.check(config)


def test_an_encoder_and_a_network_of_images_are_refused():
    config = configs.benchmark("cifar10", task="classification")("scale=tiny")
    with config.unlocked():
        config.data.encoder.name = "efficientnet_lite0"
        config.augment.pad, config.augment.flip = 0, 0.0
    with pytest.raises(ConfigError, match="model=mlp"):
        configs.check(config)


@pytest.mark.slow
@installed
def test_imagenets_network_sees_what_it_would_embed():
    side = 32
    crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    encoder = encoders.ENCODERS["efficientnet_lite0"](side)
    rows = encoder.see(crops)
    network = efficientnet.EfficientNetLite0Options(decoder=0).build(1)
    weights, source = efficientnet.imagenet_weights()
    assert (rows.shape, encoder.columns, encoder.source) == ((3, 1280), 1280, source)
    head = {"output": {"kernel": np.zeros((1280, 1)), "bias": np.zeros(1)}}
    variables = {**weights, "params": {**weights["params"], **head}}
    large = jax.image.resize(jnp.float32(crops), (3, side, side, 3), "bilinear") / 255
    expected = np.asarray(network.apply(variables, large).embedding, np.float64)
    expected -= expected.mean(axis=1, keepdims=True)
    expected /= expected.std(axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_data_of_another_size_says_so(eye):
    config = config_of(**{"data.size": 32})
    with pytest.raises(DataError, match=r"data\.size=32"):
        encoders.seen_through(config, classes.dataset(), Screen(silent=True))
