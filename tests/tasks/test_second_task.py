"""A task of the tests' own goes the whole way: nothing but two registry lines more."""

import dataclasses
import functools
import json
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jalpose.acquisition.registry import METHODS, method_of
from jalpose.loop import advance, configs, run, saved_states
from jalpose.loop.context import make_context
from jalpose.loop.events import LabelsCame, StepsTaken
from jalpose.loop.programs import Programs
from jalpose.models.registry import MODELS
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.storage.journal import Journal
from jalpose.tasks import registry
from jalpose.tasks.task import lacking
from tests.support.brightness.network import OneLayerOptions
from tests.support.brightness.task import Brightness

LACKING = {
    "softmax_entropy": "posterior",
    "least_confidence": "posterior",
    "least_margin": "posterior",
    "expected_gradnorm": "posterior",
    "entropy_gradnorm": "posterior",
    "sraal": "posterior",
    "egl": "candidates",
    "badge": "predicted_label",
    "vl4pose": "skeleton",
    "aleatoric": "skeleton",
    "multipeak_entropy": "skeleton",
    "egl_ensemble": "skeleton",
    "egl_regression": "moments",
    "predictive_variance": "moments",
}
WORKING = sorted(METHODS.keys() - LACKING)
DELTA = {
    "training.learning_rate": 3e-2,
    "training.base_steps": 60,
    "training.cycle_steps": 20,
    "model.dropout": 0.05,
    "acquisition.learning_loss.head": "average",
    "output.tensorboard": False,
    "output.report": True,
}


@pytest.fixture
def squares(monkeypatch):
    """The config of a method on the squares, the task's two registry lines added."""
    monkeypatch.setitem(registry.TASKS, "brightness", "tests.support.brightness")
    monkeypatch.setitem(MODELS, "one_layer", OneLayerOptions)
    monkeypatch.setattr(run, "Programs", lambda mesh: programs())

    def make(method="random", **changes):
        config = configs.assemble(
            f"scale=tiny,method={method}",
            name="squares",
            task="brightness",
            delta={**DELTA, **{k.replace("__", "."): v for k, v in changes.items()}},
            method="random",
        )
        configs.check(config)
        return config

    return make


@functools.cache
def programs():
    """Of one device; what one test has compiled serves the others."""
    return Programs(sharding.make_mesh(jax.devices()[:1]))


def context_of(config, **options):
    return make_context(config, run.load_dataset(config), programs(), **options)


def _whole(config):
    """The config of a method that is never paused."""
    whole = ConfigDict(config)
    whole.acquisition.pieces = 10**9
    return whole


def test_it_has_the_capabilities_it_says():
    asked = {name: METHODS[name].capabilities for name in METHODS}
    for name, capabilities in asked.items():
        missing = lacking(Brightness(16), capabilities)
        assert missing[:1] == ((LACKING[name],) if name in LACKING else ())


@pytest.mark.slow
def test_every_method_it_allows_runs_from_one_base_model_to_a_report(squares, tmp_path):
    others = tuple(name for name in WORKING if name != "random")
    config = squares(loop__compare=others)
    run.run(config, str(tmp_path), Screen(silent=True))
    for name in WORKING:
        workdir = tmp_path if name == "random" else tmp_path / "compare" / name
        cycles = records.read_cycles(workdir)
        assert [r["cycle"] for r in cycles] == [0, 1, 2]
        bought = 0 if name == "control" else 8
        assert [r["num_labelled"] for r in cycles] == [
            40 + bought * c for c in range(3)
        ]
        for record in cycles:
            metrics = record["metrics"]
            error = metrics["brightness_error"]
            assert 0 < error < metrics["mean_brightness_error"]
            assert set(metrics["error_per_class"]) == {"dark", "bright"}
        measures = cycles[0]["measures"]
        assert "selected_brightness_error" in measures
        assert measures["pool_brightness_error"] > 0
        arrays = records.read_arrays(workdir, 0)
        assert arrays["brightness"].shape == arrays["scores"].shape == (24,)
        assert arrays["test_brightness"].shape == (24,)
        assert len(records.read_selection(workdir, 0)) == bought
        assert (workdir / "pictures" / "cycle_00_test.png").is_file()
    page = (tmp_path / "report" / "index.html").read_text()
    page = re.sub(r"data:image[^\"]*", "", page)
    assert "PCK" not in page and "joint" not in page
    for name in WORKING:
        assert name in page


@pytest.mark.slow
def test_it_resumes_to_the_bit_from_every_saved_state(squares, tmp_path):
    config = squares("eglpp")
    context = context_of(config)
    state, events, store = advance.start(context), [], None
    whole = []
    while not events or events[-1].cycle < 2 or not isinstance(events[-1], StepsTaken):
        state, event = advance.advance(state, context)
        events.append(event)
        if isinstance(event, LabelsCame):  # in scoring the journal goes with it
            folder = tmp_path / f"{len(events)}"
            store = saved_states.StateStore(folder)
            store.save(len(events), state, {})
            store.close()
            whole.append((folder, len(events)))
    for folder, number in whole:
        store = saved_states.StateStore(folder)
        found, again, _ = store.restore(context_of(config))
        store.close()
        assert found == number
        for expected in events[number:]:
            again, event = advance.advance(again, context)
            assert type(event) is type(expected)
        assert event.means == expected.means
        assert again.answers.keys() == {"brightness"}


@pytest.mark.parametrize("name", LACKING)
def test_a_method_it_lacks_a_capability_for_is_refused_before_anything_compiles(
    squares, name
):
    config = squares(name)
    with pytest.raises(ConfigError) as refused:
        context_of(config)
    message = str(refused.value)
    assert f"{name} does not work on the task brightness" in message
    assert f"lacks {LACKING[name]}" in message
    assert all(other in message for other in WORKING)


def test_a_head_that_reads_what_the_network_has_not_is_refused(squares):
    config = squares("learning_loss", acquisition__learning_loss__head="conv")
    with pytest.raises(ConfigError, match="choose the head average"):
        context_of(config)


@pytest.mark.slow
def test_examples_without_a_label_are_neither_learnt_nor_neighbours(squares):
    context = context_of(squares("eglpp", data__unlabelled=0.5))
    labelled = context.labelled_set(advance.start(context))
    assert 0 < labelled.known.sum() < len(labelled.known)
    task = context.task
    target = task.target({"brightness": np.float32(np.nan)})
    assert not task.known(target)
    assert task.loss(np.ones(1, np.float32), target) == 0
    options = {"perplexity": 3.0, "neighbours": 4}
    method = method_of("eglpp", options)
    variables = context.trainer.init(jax.random.key(0)).variables
    probe = dataclasses.replace(context, config=_whole(context.config)).probe(
        variables, Journal()
    )
    pool = context.pool(advance.start(context))
    found = method.acquire(jax.random.key(0), probe, pool, 4)
    chosen = set(found.explanation["neighbour_ids"].ravel().tolist())
    assert chosen <= set(labelled.ids[labelled.known & ~labelled.held_out].tolist())


def test_a_task_without_a_registry_line_is_refused_by_name():
    with pytest.raises(ConfigError, match="unknown value of task: 'brightness'"):
        configs.assemble("", name="squares", task="brightness")


def test_its_config_is_written_whole(squares, tmp_path):
    config = squares(loop__cycles=0)
    run.run(config, str(tmp_path), Screen(silent=True))
    written = json.loads((tmp_path / "config.json").read_text())["config"]
    assert written["task"] == "brightness" and "heatmap" not in written
    with pytest.raises(records.WorkdirError, match=r"data\.unlabelled: 0\.0 -> 0\.1"):
        run.run(
            squares(loop__cycles=0, data__unlabelled=0.1),
            str(tmp_path),
            Screen(silent=True),
        )
