"""Settings of the whole suite, made before any backend starts, and tiny problems."""

import functools

import hypothesis
import jax
import pytest

from jalpose import run
from jalpose.config import assemble
from jalpose.data.registry import load_dataset

NUM_DEVICES = 8

# Eight devices on any machine, so that sharding is tested everywhere; and an array
# that meets one of another rank by accident is an error, as nothing else shows it.
jax.config.update("jax_num_cpu_devices", NUM_DEVICES)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Property tests draw the same examples every time and leave nothing behind.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=20, database=None
)
hypothesis.settings.load_profile("suite")


@functools.cache
def _load(size: int, seed: int):
    config = _configure()
    config.data.size, config.seed = size, seed
    return load_dataset(config.data, seed)


def _configure(**changes):
    delta = {
        "data.name": "figures",
        "data.threads": 2,
        "acquisition.method": "eglpp",
        "output.tensorboard": False,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return assemble("scale=tiny", name="tiny", delta={}, scales={"tiny": delta})


@pytest.fixture(scope="session")
def tiny_config():
    """A function that makes a tiny config: `tiny_config(training__batch=8)`."""
    return _configure


@pytest.fixture(scope="session")
def figures():
    """40 labelled, 60 pool and 24 test figures, cropped to 32 pixels by their box."""
    config = _configure()
    return load_dataset(config.data, config.seed)


@pytest.fixture(scope="session")
def tiny_problem(figures):
    """The tiny problem on eight devices: 1 stack, 16 channels, depth 2."""
    return run.make_problem(_configure(), figures)
