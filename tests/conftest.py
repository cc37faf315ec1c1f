"""Settings of the whole suite, made before any backend starts, and drawn figures."""

import os
import shutil
import tempfile

import hypothesis
import jax
import jaxlib
import pytest

from jalpose.loop import configs
from jalpose.tasks.pose.sources import load_dataset

# Networks are tiny here: compiling them takes longer than running them. XLA's older
# way to write loops compiles in a third of the time. A jaxlib that does not know a flag
# dies of it; set XLA_FLAGS yourself (to "" say) to have others.
if jaxlib.version.__version_info__ < (0, 11):
    FASTER = (
        "xla_cpu_use_fusion_emitters=false",
        "xla_cpu_parallel_codegen_split_count=1",
    )
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--{flag}" for flag in FASTER))
jax.config.update("jax_disable_most_optimizations", True)
# Eight devices on any machine, so that sharding is tested everywhere.
jax.config.update("jax_num_cpu_devices", 8)
# An array that meets one of another rank by accident is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")

# What takes long to compile is compiled once for all workers of this session; the
# folder's name reaches them through the environment.
CACHE = "JALPOSE_TEST_CACHE"
if CACHE not in os.environ:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="jalpose-tests-")
jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Property tests draw the same examples every time and leave no files behind.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=20, database=None
)
hypothesis.settings.load_profile("suite")


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):  # the workers have ended
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


@pytest.fixture(scope="session")
def figures():
    """The dataset of the scale `tiny`: 40 labelled, 60 pool and 24 test figures."""
    delta = {"data.name": "figures"}
    config = configs.assemble("scale=tiny", name="figures", delta=delta)
    return load_dataset(config.data, config.seed)
