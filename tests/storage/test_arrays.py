import ast
import importlib
import pathlib

import numpy as np
import pytest

from jalpose.storage import arrays, records
from jalpose.storage.arrays import DECLARED
from tests.support import fake_runs

REPORT = pathlib.Path(importlib.import_module("jalpose.report").__file__).parent
# Modules that read arrays of cycles.
READERS = [
    *sorted(path for path in REPORT.glob("*.py")),
    REPORT.parent / "tasks" / "pose" / "pictures.py",
]


def test_a_name_is_a_string_that_knows_more():
    heatmaps = arrays.HEATMAPS
    assert heatmaps == "heatmaps" and {"heatmaps": 1}[heatmaps] == 1
    assert heatmaps.shape == ("n", "h", "w", "J") and heatmaps.dtype == np.float16
    assert heatmaps.producer == "measured"
    assert all(name == declared for name, declared in DECLARED.items())
    assert arrays.of_test_set(arrays.JOINTS) == arrays.TEST_JOINTS
    producers = {"trained", "selected", "measured"}
    assert all(
        d.producer in producers or d.producer.startswith("explanation of ")
        for d in DECLARED.values()
    )


@pytest.mark.parametrize("method", ["random", "eglpp", "multipeak_entropy"])
def test_arrays_of_runs_are_as_declared(tmp_path, method):
    fake_runs.write_run(tmp_path, method, 0)
    found = records.read_arrays(tmp_path, 0)
    assert found.keys() <= DECLARED.keys()
    assert arrays.mismatches(found) == []


def test_what_is_not_as_declared_is_named():
    found = {
        "ids": np.zeros(3, np.int64),
        "scores": np.zeros(4, np.float32),
        "selected": np.zeros(2, np.int32),
        "joints": np.zeros((3, 5, 3), np.float32),
        "peaks": np.zeros(3, np.float32),
        "explanation of another package": np.zeros((1, 2, 3)),
    }
    assert arrays.mismatches(found) == [
        "scores is [4], not [M] with M = 3",
        "selected is int32, not int64",
        "joints is [3, 5, 3], not [M J 2] with 2 = 2",
        "peaks is [3], not [M J]",
    ]


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_no_reader_spells_the_name_of_an_array(path):
    # `arrays[...]`, `... in arrays` and `arrays.get(...)` take declared names alone.
    tree = ast.parse(path.read_text("utf-8"))

    def of_arrays(node):
        return isinstance(node, ast.Name) and node.id == "arrays"

    spelled = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and of_arrays(node.value):
            spelled += ast.walk(node.slice)
        if isinstance(node, ast.Compare) and any(
            any(map(of_arrays, ast.walk(part))) for part in node.comparators
        ):
            spelled += ast.walk(node.left)
        if isinstance(node, ast.Call) and of_arrays(getattr(node.func, "value", None)):
            spelled += [each for a in node.args for each in ast.walk(a)]
    strings = [n.value for n in spelled if isinstance(n, ast.Constant)]
    assert [value for value in strings if isinstance(value, str)] == []
