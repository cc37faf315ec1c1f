"""Settings of the whole suite, made before any backend starts, and a tiny problem."""

import hypothesis
import jax
import pytest

from jalpose import run
from jalpose.config import assemble
from jalpose.data.registry import load_dataset

NUM_DEVICES = 8

# Eight devices on any machine, so that sharding is tested everywhere.
jax.config.update("jax_num_cpu_devices", NUM_DEVICES)
# An array that meets one of another rank by accident is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Networks are tiny here: compiling them takes longer than running them.
jax.config.update("jax_disable_most_optimizations", True)

# Property tests draw the same examples every time and leave no files behind.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=20, database=None
)
hypothesis.settings.load_profile("suite")


def make_tiny_config(changes=None):
    """The scale `tiny` on drawn figures; `changes` by dotted key."""
    delta = {
        "data.name": "figures",
        "data.threads": 2,
        "output.tensorboard": False,
        **(changes or {}),
    }
    return assemble("scale=tiny", name="tiny", delta={}, scales={"tiny": delta})


@pytest.fixture(scope="session")
def tiny_config():
    """`make_tiny_config`, as a fixture."""
    return make_tiny_config


@pytest.fixture(scope="session")
def figures():
    """40 labelled, 60 pool and 24 test figures."""
    config = make_tiny_config()
    return load_dataset(config.data, config.seed)


@pytest.fixture(scope="session")
def tiny_problem(figures):
    """The tiny problem on eight devices: 32 px, 1 stack, 16 channels, depth 2."""
    return run.make_problem(make_tiny_config(), figures)
