"""Settings of the whole suite, made before any backend starts, and drawn figures.

Nothing of jalpose is imported up here: modules imported before the hook is in place
would go unchecked.
"""

import collections
import os
import shutil
import tempfile

import hypothesis
import jax
import jaxlib
import jaxtyping
import pytest

from tests.support import annotations

# Packages whose annotations are checked at every call, shapes and all.
CHECKED = [
    "jalpose.pergrad",
    "jalpose.tasks",
    "jalpose.models",
    "jalpose.scoring",
]
jaxtyping.install_import_hook(CHECKED, f"{annotations.__name__}.checked")

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

# No test cuts the power: a file that is there for the next process is safe enough.
os.fsync = lambda descriptor: None

# Property tests draw the same examples every time and leave no files behind.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=20, database=None
)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items):
    """Whole runs first, files of few tests: what is done last is then short."""
    tests = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):  # the workers have ended
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


@pytest.fixture(scope="session")
def figures():
    """The dataset of the scale `tiny`: 40 labelled, 60 pool and 24 test figures."""
    from jalpose.loop.configs import assemble
    from jalpose.tasks.pose.sources import load_dataset

    delta = {"data.name": "figures"}
    config = assemble("scale=tiny", name="figures", delta=delta)
    return load_dataset(config.data, config.seed)


@pytest.fixture(scope="session")
def miniature_data(tmp_path_factory):
    """The data section of a config for LSP and LSPET in miniature."""
    from jalpose.loop.configs import default
    from tests.support.miniature import NUM_LSP, NUM_LSPET, write_miniature

    folder = tmp_path_factory.mktemp("miniature")
    write_miniature(folder, NUM_LSP, NUM_LSPET)
    data = default().data
    data.dir, data.cache_dir = str(folder), str(folder / "cache")
    data.initial = NUM_LSP // 2
    return data


@pytest.fixture(scope="session")
def people(miniature_data):
    """LSP and LSPET in miniature."""
    from jalpose.tasks.pose.sources import load_dataset

    return load_dataset(miniature_data, 0)
