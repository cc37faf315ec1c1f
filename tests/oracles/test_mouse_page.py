"""The page's example, word by word: raw frames of a mouse, and three cycles of labels.

The commands are those of `jalpose/oracles/README.md`. The quick form leaves out the
training: a step or two, by a network of nearly nothing.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jalpose.command import AWAITING_LABELS
from jalpose.storage import records
from tests.support import miniature

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "jalpose" / "oracles" / "README.md"
TABLE = "labeled-data/m4s1/CollectedData_Pranav.csv"
QUICK = (
    "--config.data.size=32 --config.model.channels=8 --config.model.depth=1 "
    "--config.model.convolution=native --config.training.base_steps=2 "
    "--config.training.cycle_steps=1 --config.training.warmup_steps=0 "
    "--config.output.tensorboard=False"
)


def block(name):
    """The commands behind a comment of the page."""
    found = re.search(rf"<!-- mouse: {name} -->\n((?:    .*\n)+)", PAGE.read_text())
    assert found, f"the page has no block {name!r}"
    return textwrap.dedent(found.group(1))


class Shell:
    """Runs the page's commands where a reader would, in a folder of its own."""

    def __init__(self, folder, data_dir):
        self.folder = folder
        for name in ("configs", "jalpose", "scripts"):
            (folder / name).symlink_to(ROOT / name)
        # Of data that cannot be written, copies could not be either.
        (folder / "data").mkdir()
        copy = folder / "data" / "mouse"
        shutil.copytree(Path(data_dir) / "mouse", copy, copy_function=shutil.copyfile)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._environ = {
            **os.environ,
            "JALPOSE_DATA": str(folder / "data"),
            "HOME": str(folder),  # what is prepared is kept below it
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def perform(self, name, more=""):
        """The exit code of a block, and what it printed."""
        text = block(name)
        if more:
            text = f"{text.rstrip()} {more}\n"
        done = subprocess.run(
            ["bash", "-euc", text],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr


def follow(folder, more="", turns=3):
    """Do all that the page says, or its first turns: records of the run's cycles."""
    root = miniature.real_data_dir("mouse", TABLE)
    if root is None:
        pytest.skip("no real data")
    shell = Shell(folder, root)
    for name in ("raw frames", "check"):
        code, told = shell.perform(name, more if name == "check" else "")
        assert code == 0, told
    assert (folder / "check" / "index.html").is_file()
    code, told = shell.perform("run", more)
    for cycle in range(turns):
        assert code == AWAITING_LABELS, told
        assert (folder / f"runs/mouse/to_label/cycle_{cycle:02d}/index.html").is_file()
        code, told = shell.perform("labels")
        assert code == 0, told
        code, told = shell.perform("run", more)
    assert code == (0 if turns == 3 else AWAITING_LABELS), told
    code, told = shell.perform("report")
    assert code == 0, told
    assert (folder / "report" / "index.html").is_file()
    cycles = records.read_cycles(folder / "runs" / "mouse")
    assert [line["num_labelled"] for line in cycles] == [15, 20, 25, 30][: turns + 1]
    assert all(line["metrics"]["num_images"] == 15 for line in cycles)
    return cycles


def test_every_command_of_the_page_is_followed():
    page = PAGE.read_text()
    names = re.findall(r"<!-- mouse: (.*?) -->", page)
    assert names == ["raw frames", "check", "run", "labels", "report"]
    assert "jalpose.main" in shlex.split(block("run"))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
def test_the_page_is_followed_without_its_training(tmp_path):
    follow(tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(7200)
def test_the_page_is_followed_word_by_word(tmp_path):
    # One answer: what comes after is the same, and minutes more of training.
    cycles = follow(tmp_path, turns=1)
    errors = [line["metrics"]["pixel_error"] for line in cycles]
    # Of who always says the mean pose: 132 pixels.
    assert max(errors) < 66, errors
