"""The network at `small` size learns twenty real images by heart."""

import os

import jax
import numpy as np
import pytest

from configs import lsp_eglpp
from jalpose.data import pipeline
from jalpose.data.crops import from_crop
from jalpose.loop.context import make_context
from jalpose.loop.programs import Programs
from jalpose.runtime import random_streams, sharding
from jalpose.runtime.throughput import Flow, Meter
from jalpose.scoring.passes import Examples, collect
from jalpose.tasks.pose.pck import pck
from jalpose.tasks.pose.sources import load_dataset
from tests.support.miniature import real_data_dir

STEPS = 300
STILL = {"rotate": 0.0, "shift": 0.0, "flip": 0.0, "scale": (1.0, 1.0)}
COLOURS = {"brightness": 0.0, "contrast": 0.0, "colour": 0.0}


@pytest.fixture
def optimised():
    """The suite compiles quickly; here running takes longer than compiling."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.usefixtures("optimised")
def test_twenty_real_images_are_learnt_by_heart(tmp_path):
    folder = real_data_dir()
    if folder is None:
        pytest.skip("no real LSP: set JALPOSE_DATA or provide ../shared/data")
    config = lsp_eglpp.get_config("scale=small")
    config.data.dir, config.data.cache_dir = os.fspath(folder), os.fspath(tmp_path)
    config.augment.update({**STILL, **COLOURS})
    config.training.batch = 8
    config.training.warmup_steps = 20
    config.training.learning_rate = 2e-3
    data = load_dataset(config.data, 0)
    programs = Programs(sharding.make_mesh(jax.devices()[:1]))
    context = make_context(config, data, programs)
    evaluator, size = context.evaluator, config.data.size
    examples = Examples(data, evaluator.labels_of)

    twenty = data.initial[::50]
    assert len(twenty) == 20
    batches = pipeline.training_batches(
        examples.source(twenty, size), batch=8, seed=0, position=0, threads=2
    )
    state, history = context.trainer.run(
        context.plan.begin(0, context.plan.of(0)[0]),
        batches,
        random_streams.stream(0, "augment"),
        STEPS,
        STEPS,
        flow=Flow(),
    )
    losses = history["loss"]
    assert losses[-20:].mean() < 0.05 * losses[:5].mean()

    passes = context.passes
    walk = passes.walk(
        passes.describe, state.variables, examples, twenty, block=8, meter=Meter()
    )
    predicted = from_crop(collect(walk)["joints"], data.windows_of(twenty), size)
    truth = data.truth_of(twenty)
    skeleton = context.task.skeleton
    result = pck(predicted, truth["joints"], truth["status"], skeleton)
    assert result.num_left_out == 0
    assert result.mean > 0.99, np.round(result.per_joint, 3)
