"""Sets of their authors' size, of drawn pixels: seconds and memory of preparation.

python -m pytest -n 0 -m slow -s tests/tasks/classification/test_whole_sizes.py
"""

import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from jalpose.tasks.classification.cifar import LAYOUTS
from tests.support.class_miniature import save_svhn, write_cifar

ROOT = pathlib.Path(__file__).parents[3]
MIB = 2**20


def prepare(folder, name):
    """Seconds and MiB of a fresh process that prepares, and that opens again."""
    script = f"""
        import re, time
        from jalpose.tasks.classification.sources import load_dataset
        from tests.support.class_miniature import data_section
        data = data_section({str(folder)!r}, {name!r}, initial=1000)
        took = []
        for _ in range(2):
            start = time.monotonic()
            dataset = load_dataset(data, 0)
            took.append(time.monotonic() - start)
        status = open("/proc/self/status").read()
        peak = int(re.search(r"VmHWM:\\s+([0-9]+) kB", status)[1]) / 1024
        print(len(dataset.keys), *took, peak)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    count, first, again, peak = process.stdout.split()
    print(
        f"{name}: {int(count):,} records prepared in {float(first):.1f} s, opened "
        f"again in {float(again):.1f} s, {float(peak):.0f} MiB"
    )
    return int(count), float(peak)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar(tmp_path, name, version):
    layout = LAYOUTS[name]
    each = layout.total // len(layout.train)
    counts = (each,) * len(layout.train)
    write_cifar(tmp_path, name, version, counts, test=10_000)
    count, peak = prepare(tmp_path, name)
    assert count == 60_000
    # One file of the Python version at a time, nothing of the binary one.
    file = 3072 * each / MIB if version == "python" else 0
    assert peak < 250 + 2.2 * file


@pytest.mark.slow
def test_svhn(tmp_path):
    folder = tmp_path / "svhn"
    folder.mkdir()
    for part, count in (("train", 73_257), ("test", 26_032)):
        digits = np.arange(count) % 10
        images = np.random.default_rng(count).integers(
            0, 256, (count, 32, 32, 3), np.uint8
        )
        save_svhn(folder / f"{part}_32x32.mat", digits, images)
    count, peak = prepare(tmp_path, "svhn")
    assert count == 99_289
    assert peak < 250 + 2.2 * 3072 * 73_257 / MIB
