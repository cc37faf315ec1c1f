"""Tasks by name: what each room holds, and what it may import."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jalpose.settings.checks import ConfigError
from jalpose.settings.scales import SCALES, Benchmark
from jalpose.tasks import registry

ROOT = Path(__file__).parents[2]
PARTS = (
    registry.settings_of,
    registry.sources_of,
    registry.labels_of,
    registry.task_of,
)


@pytest.mark.parametrize("part", PARTS)
def test_a_name_without_a_line_is_refused_with_those_there_are(part):
    known = ", ".join(registry.TASKS)
    message = f"unknown value of task: 'posse'. Known: {known}. Did you mean 'pose'?"
    with pytest.raises(ConfigError, match=re.escape(message)):
        part("posse")


@pytest.mark.parametrize("name", registry.TASKS)
def test_every_task_has_all_its_parts(name):
    settings = registry.settings_of(name)
    assert callable(settings.add_keys) and callable(settings.check)
    assert settings.SCALES.keys() == SCALES.keys()
    assert isinstance(settings.MODEL, str)
    assert all(isinstance(found, Benchmark) for found in settings.BENCHMARKS.values())
    sources = registry.sources_of(name)
    assert sources.SOURCES and callable(sources.load_dataset)
    for benchmark in settings.BENCHMARKS.values():
        assert benchmark.delta["data.name"] in sources.SOURCES
        assert benchmark.scales.keys() <= SCALES.keys()
    labels = registry.labels_of(name)
    assert labels.KEYS.key and callable(labels.make_labels)
    assert callable(registry.task_of(name).make_task)


def test_the_usual_task_is_one_of_them():
    assert registry.USUAL in registry.TASKS


def fresh(script):
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", registry.TASKS)
def test_the_half_of_a_task_that_reports_need_does_without_jax(name):
    result = fresh(f"""
        import sys
        from jalpose.tasks import registry
        for part in (registry.settings_of, registry.labels_of, registry.sources_of):
            part({name!r})
        heavy = ("jax", "flax", "tensorflow_datasets", "grain")
        found = [module for module in heavy if module in sys.modules]
        assert not found, found
    """)
    assert result.returncode == 0, result.stderr


def test_asking_for_one_task_imports_no_other():
    result = fresh("""
        import sys
        from jalpose.tasks import registry
        assert not any(f"{m}." in f"{n}." for m in registry.TASKS.values()
                       for n in sys.modules)
        registry.TASKS["other"] = "jalpose.tasks.other"
        registry.settings_of("pose")
        assert "jalpose.tasks.pose.task" not in sys.modules
    """)
    assert result.returncode == 0, result.stderr
