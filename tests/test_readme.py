"""What the README shows works as it stands there."""

import re
import textwrap
from pathlib import Path

import jax
import numpy as np

from jalpose.acquisition.registry import METHODS
from jalpose.loop import run
from jalpose.settings.protocols import BENCHMARKS
from tests.support import small

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_after(marker):
    """The indented block behind an HTML comment."""
    found = re.search(rf"<!-- {marker} -->\n((?:    .*\n|\n)+)", README)
    assert found, f"README.md has no block {marker}"
    return textwrap.dedent(found.group(1))


def test_the_method_it_shows_chooses_by_the_lowest_peak(monkeypatch):
    module: dict = {}
    exec(compile(code_after("method"), "least_peak.py", "exec"), module)
    monkeypatch.setitem(METHODS, "least_peak", module["METHOD"])
    problem = small.problem({"acquisition.method": "least_peak"})
    probe = small.probe(small.flat_passes(), small.flat_variables())
    ids = small.dataset().pool[:12]
    found = problem.method.acquire(
        jax.random.key(0), probe, small.labelled_set(), ids, 4
    )
    images = small.crops(ids)["image"].astype(np.float32) / 255
    maps = small.flat_apply(small.flat_variables(), images).heatmaps[:, -1]
    lowest = np.asarray(maps).max(axis=(1, 2)).min(axis=1)
    np.testing.assert_allclose(found.scores, -lowest, rtol=1e-4)
    np.testing.assert_array_equal(found.indices, ids[np.argsort(lowest)[:4]])


def test_it_lists_every_method_and_each_has_a_config_on_each_benchmark():
    table = README[README.index("## Methods") :]
    for name in run.KNOWN["method"]:
        assert f"\n| `{name}` |" in table
        for benchmark in BENCHMARKS:
            assert (ROOT / "configs" / f"{benchmark}_{name}.py").is_file()
