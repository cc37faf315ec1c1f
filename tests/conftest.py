"""Settings of the whole suite, made before any backend starts, and drawn figures."""

import hypothesis
import jax
import pytest

from jalpose.config import assemble
from jalpose.data.registry import load_dataset

# Eight devices on any machine, so that sharding is tested everywhere.
jax.config.update("jax_num_cpu_devices", 8)
# An array that meets one of another rank by accident is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Networks are tiny here: compiling them takes longer than running them.
jax.config.update("jax_disable_most_optimizations", True)

# Property tests draw the same examples every time and leave no files behind.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=20, database=None
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def figures():
    """The dataset of the scale `tiny`: 40 labelled, 60 pool and 24 test figures."""
    delta = {"data.name": "figures"}
    config = assemble("scale=tiny", name="figures", delta=delta, scales={})
    return load_dataset(config.data, config.seed)
