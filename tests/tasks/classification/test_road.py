"""Classes go the whole way: trained, chosen for, recorded, resumed, reported."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from jalpose.acquisition.registry import METHODS
from jalpose.loop import advance, configs, data_check, run, saved_states
from jalpose.loop.context import make_context
from jalpose.loop.events import LabelsCame, StepsTaken
from jalpose.loop.programs import Programs
from jalpose.models.registry import MODELS
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.tasks.classification.shapes import CLASSES
from jalpose.tasks.classification.task import ClassTask
from jalpose.tasks.task import lacking
from tests.support import small
from tests.support.brightness.network import OneLayerOptions
from tests.support.class_miniature import write_cifar

TASK = ClassTask(size=16, num_classes=8)
WORKING = sorted(n for n, m in METHODS.items() if not lacking(TASK, m.capabilities))
NOT_OF_CLASSES = sorted(METHODS.keys() - set(WORKING))
DELTA = {
    "data.name": "shapes",
    "data.size": 16,
    "augment.pad": 2,
    "training.learning_rate": 1e-2,
    "training.base_steps": 12,
    "training.cycle_steps": 6,
    "model.dropout": 0.05,
    "acquisition.learning_loss.head": "average",
    "output.tensorboard": False,
    "output.report": True,
}


@pytest.fixture
def shapes(monkeypatch):
    """The config of a method on drawn shapes, with a network of one layer."""
    monkeypatch.setitem(MODELS, "one_layer", OneLayerOptions)
    monkeypatch.setattr(run, "Programs", programs)
    load_dataset = run.load_dataset

    def drawn(config, screen=None):
        name = repr((config.data, config.seed))
        return small.drawn_once(load_dataset(config, screen), name)

    monkeypatch.setattr(run, "load_dataset", drawn)

    def make(method="random", model="one_layer", **changes):
        config = configs.assemble(
            f"scale=tiny,method={method}",
            name="shapes",
            task="classification",
            model=model,
            delta={**DELTA, **{k.replace("__", "."): v for k, v in changes.items()}},
            method="random",
        )
        configs.check(config)
        return config

    return make


@functools.cache
def programs(mesh):
    """What one test has compiled serves the others."""
    return Programs(mesh)


def context_of(config, **options):
    compiled = programs(sharding.make_mesh(jax.devices()[:1]))
    return make_context(config, run.load_dataset(config), compiled, **options)


def test_methods_that_ask_for_no_skeleton_work():
    assert {"random", "coreset", "softmax_entropy", "learning_loss", "egl"} <= {
        *WORKING
    }
    assert {"entropy_gradnorm", "expected_gradnorm", "eglpp", "ensemble"} <= {*WORKING}
    assert {"vl4pose", "aleatoric", "multipeak_entropy"} <= {*NOT_OF_CLASSES}


def test_methods_run_from_one_base_model_to_a_report(shapes, tmp_path):
    others = ("entropy_gradnorm",)
    config = shapes(loop__compare=others)
    run.run(config, str(tmp_path), Screen(silent=True))
    for name in ("random", *others):
        workdir = tmp_path if name == "random" else tmp_path / "compare" / name
        cycles = records.read_cycles(workdir)
        assert [r["num_labelled"] for r in cycles] == [40, 48, 56]
        for record in cycles:
            metrics = record["metrics"]
            assert 0 <= metrics["accuracy"] <= 1
            assert metrics["accuracy_name"] == "accuracy"
            assert tuple(metrics["accuracy_per_class"]) == CLASSES
            assert metrics["negative_log_likelihood"] > 0
            assert 0 <= metrics["expected_calibration_error"] <= 1
            # Of one label without smoothing the two are the same.
            assert metrics["test_loss"] == pytest.approx(
                metrics["negative_log_likelihood"], rel=1e-4
            )
        measures = cycles[0]["measures"]
        assert 0 <= measures["selected_accuracy"] <= 1
        assert 0 <= measures["sq_norm_overlap"] <= 1
        arrays = records.read_arrays(workdir, 0)
        assert arrays["probabilities"].shape == (24, 8)
        assert arrays["class"].dtype == np.int32
        np.testing.assert_array_equal(
            arrays["class"], arrays["probabilities"].argmax(axis=1)
        )
        assert arrays["test_probabilities"].shape == (24, 8)
        assert (workdir / "pictures" / "cycle_00_test.png").is_file()
        assert len(records.read_selection(workdir, 0)) == 8
    page = (tmp_path / "report" / "index.html").read_text()
    page = re.sub(r"data:image[^\"]*", "", page)
    assert "PCK" not in page and "joint" not in page.replace("joint_", "")
    assert "Active learning for image classification" in page
    assert "Most and least confident" in page and "half disc" in page


@pytest.mark.slow
def test_files_are_learnt(shapes, tmp_path):
    write_cifar(tmp_path / "data", counts=(100, 60), test=50)
    config = shapes(
        data__name="cifar10",
        data__size=32,
        data__dir=str(tmp_path / "data"),
        data__cache_dir=str(tmp_path / "cache"),
        augment__pad=0,
        data__initial=140,
        data__pool=20,
        data__test=50,
        model__dropout=0.0,
        loop__cycles=0,
        training__batch=16,
        training__base_steps=150,
        output__report=False,
    )
    run.run(config, str(tmp_path / "run"), Screen(silent=True))
    (record,) = records.read_cycles(tmp_path / "run")
    assert record["metrics"]["accuracy"] > 0.5
    assert record["metrics"]["commonest_class_accuracy"] < 0.2


@pytest.mark.slow
def test_it_resumes_to_the_bit_from_every_saved_state(shapes, tmp_path):
    config = shapes("egl")
    context = context_of(config)
    state, events, whole = advance.start(context), [], []
    while not events or events[-1].cycle < 2 or not isinstance(events[-1], StepsTaken):
        state, event = advance.advance(state, context)
        events.append(event)
        if isinstance(event, LabelsCame):  # in scoring the journal goes with it
            store = saved_states.StateStore(tmp_path / f"{len(events)}")
            store.save(len(events), state, {})
            store.close()
            whole.append(len(events))
    for number in whole:
        store = saved_states.StateStore(tmp_path / f"{number}")
        found, again, _ = store.restore(context_of(config))
        store.close()
        assert found == number
        for expected in events[number:]:
            again, event = advance.advance(again, context)
            assert type(event) is type(expected)
        assert event.means == expected.means
        assert again.answers.keys() == {"class"}
        for one, other in zip(
            jax.tree.leaves(again.phase.train.params),
            jax.tree.leaves(state.phase.train.params),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NOT_OF_CLASSES)
def test_a_method_of_poses_is_refused_before_anything_compiles(shapes, name):
    with pytest.raises(ConfigError) as refused:
        context_of(shapes(name))
    message = str(refused.value)
    assert f"{name} does not work on the task classification" in message
    assert "entropy_gradnorm" in message


def test_its_config_is_written_whole(shapes, tmp_path):
    run.run(shapes(loop__cycles=0), str(tmp_path), Screen(silent=True))
    written = json.loads((tmp_path / "config.json").read_text())["config"]
    assert written["task"] == "classification" and "heatmap" not in written
    other = shapes(loop__cycles=0, training__label_smoothing=0.1)
    difference = r"training\.label_smoothing: 0\.0 -> 0\.1"
    with pytest.raises(records.WorkdirError, match=difference):
        run.run(other, str(tmp_path), Screen(silent=True))


def test_the_check_of_its_data(shapes, tmp_path, capsys):
    found = data_check.check(shapes(), str(tmp_path))
    assert found == [] and not data_check.impossible(found)
    said = capsys.readouterr().out
    assert "Classes: examples, and percent of those of a known class" in said
    assert "findings: 0 impossible, 0 unlikely" in said
    page = (tmp_path / data_check.PAGE).read_text()
    assert page.count("data:image") >= 12 and "half disc" in page
