"""Runs that are broken off while they score: damaged journals and full disks."""

import errno
import functools
import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jalpose.loop import run
from jalpose.runtime.screen import Screen
from jalpose.scoring import passes
from jalpose.storage import records
from jalpose.storage.records import WorkdirError
from tests.support import small

CHANGES = {
    "acquisition.method": "eglpp",
    "acquisition.pieces": 1,
    "loop.cycles": 1,
    # No state is saved while it scores: all that is left of a block is the journal.
    "loop.checkpoint_seconds": 1e9,
}


@pytest.fixture(scope="module", autouse=True)
def quick_restore():
    with pytest.MonkeyPatch.context() as patch:
        small.remember_templates(patch)
        yield


def perform(workdir, changes=None, scale=1.0):
    """Run in `workdir` from a base model, by default the same, until it is done."""
    base = small.copied(small.flat_variables())
    base["params"]["stem"]["kernel"] *= scale
    context = small.flat_context({**CHANGES, **(changes or {})}, base=base)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        run.run_one(context, workdir, Screen(io.StringIO()))
    return [str(w.message) for w in told if w.category is UserWarning]


def results(workdir):
    """Selection, arrays, and records but for seconds and what was compiled."""
    files = {
        path.name: path.read_bytes()
        for folder in ("selections", "arrays")
        for path in (Path(workdir) / folder).iterdir()
    }
    assert sorted(files) == ["cycle_00.csv", "cycle_00.npz", "cycle_01.npz"]
    drop = ("seconds", "peak_bytes", "microbatch", "throughput")
    lines = [
        {
            name: {k: v for k, v in value.items() if k not in drop}
            if isinstance(value, dict)
            else value
            for name, value in line.items()
            if name not in drop
        }
        for line in records.read_cycles(workdir)
    ]
    return files, lines


@functools.cache
def whole(folder):
    """Results of a run that is not broken off, and the blocks it computed."""
    with pytest.MonkeyPatch.context() as patch:
        counted = count_blocks(patch)
        assert perform(folder) == []
    assert not (Path(folder) / "checkpoints" / "journal" / "cycle_00").exists()
    return results(folder), counted


@pytest.fixture
def reference(tmp_path_factory):
    return whole(tmp_path_factory.getbasetemp() / "whole")


class Killed(Exception):
    """Stands for SIGKILL inside this process."""


def count_blocks(patch, last=None):
    """Names of the passes whose blocks are computed; `Killed` before the `last`-th."""
    original, counted = passes.execute, []

    def execute(fn, *arguments):
        if len(counted) + 1 == last:
            raise Killed
        counted.append(small.pass_name(fn))
        return original(fn, *arguments)

    patch.setattr(passes, "execute", execute)
    return counted


def broken_off(workdir, last):
    """Run up to the `last`-th block: the journal's folder."""
    with pytest.MonkeyPatch.context() as patch:
        count_blocks(patch, last)
        with pytest.raises(Killed):
            perform(workdir)
    return Path(workdir) / "checkpoints" / "journal" / "cycle_00"


# The test set is 2 blocks, the pool 2, the labelled 5, then come 2 of gradient norms.
@pytest.mark.slow
@pytest.mark.parametrize("last", [3, 4, 8, 11])
def test_scoring_goes_on_at_the_last_finished_block(tmp_path, reference, last):
    wanted, blocks = reference
    assert blocks[:4] == ["describe"] * 4 and blocks[9:11] == ["norms"] * 2
    broken_off(tmp_path, last)
    with pytest.MonkeyPatch.context() as patch:
        counted = count_blocks(patch)
        assert perform(tmp_path) == []
    assert counted == blocks[last - 1 :]
    assert results(tmp_path) == wanted
    assert not (tmp_path / "checkpoints" / "journal" / "cycle_00").exists()


@pytest.mark.slow
def test_a_run_killed_in_its_measures_goes_on_there(tmp_path, reference):
    _, blocks = reference
    changes = {"evaluation.true_norms": True}
    perform(tmp_path / "whole", changes)
    with pytest.MonkeyPatch.context() as patch:
        count_blocks(patch, len(blocks) - 1)
        with pytest.raises(Killed):
            perform(tmp_path / "killed", changes)
    assert perform(tmp_path / "killed", changes) == []
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size - 3)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, cut, os.remove])
@pytest.mark.parametrize("pattern", ["describe-*.embedding.bin", "index.jsonl"])
def test_what_is_damaged_is_computed_again(tmp_path, reference, damage, pattern):
    folder = broken_off(tmp_path, 11)
    damage(sorted(folder.glob(pattern))[0])
    told = perform(tmp_path)
    assert told and all("computed" in text for text in told), told
    assert results(tmp_path) == reference[0]


@pytest.mark.slow
def test_a_journal_of_other_weights_is_not_used(tmp_path, reference):
    ours = broken_off(tmp_path / "ours", 11)
    with pytest.MonkeyPatch.context() as patch:
        count_blocks(patch, 11)
        with pytest.raises(Killed):
            perform(tmp_path / "theirs", scale=1.5)
    theirs = tmp_path / "theirs" / "checkpoints" / "journal" / "cycle_00"
    for path in ours.iterdir():
        path.unlink()
    for path in theirs.iterdir():
        path.rename(ours / path.name)
    (told,) = perform(tmp_path / "ours")
    assert re.search(r"journal/cycle_00 is discarded, it is of other weights", told)
    assert results(tmp_path / "ours") == reference[0]


def test_a_journal_left_behind_is_removed_in_the_next_cycle(tmp_path, reference):
    folder = tmp_path / "checkpoints" / "journal" / "cycle_00"
    remove, left = run.saved_states.remove_journals, []

    def killed(workdir, before):
        if before:
            left.append(folder.exists())
            raise Killed
        remove(workdir, before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.saved_states, "remove_journals", killed)
        with pytest.raises(Killed):
            perform(tmp_path)
    assert left == [True] and folder.exists()
    assert perform(tmp_path) == []
    assert not folder.exists() and results(tmp_path) == reference[0]


class Refusals:
    """Every write of a run finds the disk full once: the first time it is tried."""

    def __init__(self, patch):
        self.tried: dict[tuple, None] = {}
        opened, written, renamed = open, os.pwrite, os.replace
        versions: dict[str, int] = {}

        def refuse(*place):
            if place not in self.tried:
                self.tried[place] = None
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def told(*place):
            try:
                refuse(*place)
            except OSError as error:  # as TensorStore words it
                text = f"RESOURCE_EXHAUSTED: {error.strerror} [os_error_code='28']"
                raise ValueError(text) from None

        class Limited(io.FileIO):
            def write(self, data):
                name = re.sub(r"\.[0-9a-f]{32}\.tmp", "", os.path.basename(self.name))
                refuse(name, versions.get(name, 0))
                return super().write(data)

        def open_limited(file, mode="r", *arguments, **options):
            if mode != "xb":
                return opened(file, mode, *arguments, **options)
            return io.BufferedWriter(Limited(file, "x"))

        def pwrite(descriptor, data, place):
            name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
            refuse(name, place)
            return written(descriptor, data, place)

        def replace(source, target):
            renamed(source, target)
            name = f".{os.path.basename(target)}"
            versions[name] = versions.get(name, 0) + 1

        def around(owner, what):
            save = owner.save

            def limited(saver, number, *arguments, **options):
                told(what, str(number))
                return save(saver, number, *arguments, **options)

            patch.setattr(owner, "save", limited)

        patch.setattr("builtins.open", open_limited)
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(os, "replace", replace)
        around(ocp.CheckpointManager, "state")
        around(ocp.StandardCheckpointer, "model")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_a_disk_that_is_full_at_any_write_is_told_and_the_run_resumes(tmp_path):
    changes = {
        "acquisition.method": "softmax_entropy",
        "evaluation.block": 16,
        "loop.checkpoint_seconds": 0.0,
    }
    perform(tmp_path / "whole", changes)
    workdir, attempts = tmp_path / "full", 0
    with pytest.MonkeyPatch.context() as patch:
        refusals = Refusals(patch)
        while True:
            before = len(refusals.tried)
            try:
                perform(workdir, changes)
            except WorkdirError as error:
                assert re.search("No space left.*Make room.*resumes", str(error))
                assert len(refusals.tried) == before + 1
                attempts += 1
            else:
                break
    kinds = {place[0] for place in refusals.tried}
    for kind in (".config.json", ".cycles.jsonl", ".cycle_00.npz", ".cycle_00.csv"):
        assert kind in kinds
    assert {"state", "model", ".index.jsonl", "index.jsonl"} <= kinds
    # One of the scores; of pool and labelled embeddings, joints, peaks and losses.
    assert len([kind for kind in kinds if kind.endswith(".bin")]) == 9
    assert attempts == len(refusals.tried) > 25
    assert results(workdir) == results(tmp_path / "whole")
    left = [path.name for path in workdir.rglob("*") if path.name.endswith(".tmp")]
    assert left == []
    np.testing.assert_array_equal(
        *(records.read_arrays(w, 0)["scores"] for w in (workdir, tmp_path / "whole"))
    )
