"""A workdir has one process, survives Ctrl-C, is given more cycles, may be deleted."""

import io
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from jalpose.loop import advance, run, saved_states
from jalpose.loop.events import Finished, StageBegun, Trained
from jalpose.loop.state import Done, Scoring, Training
from jalpose.runtime import hosts, sharding
from jalpose.runtime.screen import Screen
from jalpose.storage import locks, records
from tests.support import small

QUICK = {"acquisition.method": "random", "model.channels": 4, "model.stacks": 1}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One device, and what was compiled for one run serves the others."""
    make_mesh = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda *_: make_mesh(jax.devices()[:1]))
        patch.setattr(run, "Programs", lambda mesh: small.programs(mesh.size))
        patch.setattr(run, "load_dataset", small.drawn_dataset)
        small.remember_templates(patch)
        yield


def perform(workdir, cycles, changes=None):
    """Run in `workdir`: what was printed."""
    stream = io.StringIO()
    config = small.configure({**QUICK, "loop.cycles": cycles, **(changes or {})})
    run.run(config, os.fspath(workdir), Screen(stream))
    return stream.getvalue()


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A finished run of one cycle."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    perform(workdir, 1)
    return workdir


@pytest.fixture
def mine(once, tmp_path):
    """A copy of it."""
    return shutil.copytree(once, tmp_path / "run")


def arrays_of(workdir, cycles):
    return [records.read_arrays(workdir, cycle) for cycle in range(cycles + 1)]


# One process at a time.


@pytest.mark.slow
def test_a_second_process_is_refused_and_told_of_the_first(mine):
    before = (mine / "cycles.jsonl").read_bytes()
    told = rf"{mine} is in use by process {os.getpid()} on \S+: let it finish"
    with locks.hold(mine), pytest.raises(records.WorkdirError, match=told):
        perform(mine, 2)
    assert (mine / "cycles.jsonl").read_bytes() == before
    perform(mine, 1)  # given back: it is free


def test_a_compared_methods_folder_is_refused_alike(mine):
    other = mine / "compare" / "coreset"
    with locks.hold(other), pytest.raises(records.WorkdirError, match=r"in use by"):
        perform(mine, 1, {"loop.compare": ("coreset",)})


def test_all_hosts_end_where_the_first_is_refused(mine, monkeypatch):
    monkeypatch.setattr(hosts, "lead", lambda: False)
    monkeypatch.setattr(hosts, "any_host", lambda refused: True)
    with pytest.raises(records.WorkdirError, match="host 0 cannot have the workdir"):
        perform(mine, 1)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["StepsTaken", "Trained", "Selected"])
def test_a_workdir_that_is_deleted_ends_the_run_with_one_line(
    tmp_path, monkeypatch, when
):
    step, workdir = advance.advance, tmp_path / "run"

    def deleting(*arguments):
        state, event = step(*arguments)
        if type(event).__name__ == when:
            shutil.rmtree(workdir, ignore_errors=True)
        return state, event

    monkeypatch.setattr(advance, "advance", deleting)
    with pytest.raises(records.WorkdirError, match=r"run was removed, or") as caught:
        perform(workdir, 1)
    assert "\n" not in str(caught.value)
    assert not workdir.exists()


def test_an_error_that_comes_of_the_deletion_says_so(tmp_path, monkeypatch):
    workdir = tmp_path / "run"

    def save(*_):
        shutil.rmtree(workdir)
        raise ValueError("pages of a store's trace")

    monkeypatch.setattr(saved_states.StateStore, "save", save)
    with pytest.raises(records.WorkdirError, match="run was removed, or taken over"):
        perform(workdir, 1)


# Asked to end.


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_asked_to_end_saves_first(tmp_path, monkeypatch, number, once):
    step, left = advance.advance, [3]
    before = signal.getsignal(number)

    def asked(*arguments):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), number)
        return step(*arguments)

    monkeypatch.setattr(advance, "advance", asked)
    workdir = tmp_path / "run"
    with pytest.raises(hosts.Preempted, match="the same command goes on"):
        perform(workdir, 1)
    assert signal.getsignal(number) == before
    assert "resuming" in perform(workdir, 1)
    for ours, theirs in zip(arrays_of(workdir, 1), arrays_of(once, 1), strict=True):
        np.testing.assert_array_equal(ours["test_losses"], theirs["test_losses"])


def test_a_second_interrupt_does_not_wait(capfd):
    # What a shell starts in the background is born deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), hosts.Notice() as notice:
        os.kill(os.getpid(), signal.SIGINT)
        assert notice.asked()
        assert "Ctrl-C again" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# More cycles.


@pytest.mark.slow
def test_a_finished_run_says_so(mine):
    printed = perform(mine, 1)
    assert f"{mine}: already finished, in cycle 1" in printed
    assert "resuming" not in printed and "training" not in printed


@pytest.mark.slow
def test_a_finished_run_given_more_cycles_goes_on_as_if_it_had_had_them(mine, tmp_path):
    perform(tmp_path / "whole", 2)
    printed = perform(mine, 2)
    assert f"resuming {mine} in cycle 1" in printed
    assert records.read_config(mine)["config"]["loop"]["cycles"] == 2
    pairs = zip(arrays_of(mine, 2), arrays_of(tmp_path / "whole", 2), strict=True)
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    ours, theirs = (records.read_cycles(w) for w in (mine, tmp_path / "whole"))
    assert [r["metrics"] for r in ours] == [r["metrics"] for r in theirs]


def test_fewer_cycles_are_refused(mine):
    told = r"a run of loop\.cycles=1: it can be given more, not fewer \(0\)"
    with pytest.raises(records.WorkdirError, match=told):
        perform(mine, 0)


def test_what_is_trained_for_choosing_alone_is_made_up_for():
    changes = {
        "acquisition.method": "ensemble",
        "acquisition.ensemble.members": 2,
        "acquisition.ensemble.steps": 2,
    }
    shorter, longer = (
        small.flat_context({**changes, "loop.cycles": cycles}) for cycles in (0, 1)
    )
    done, _ = small.advance_until(advance.start(shorter), shorter, Finished)
    assert isinstance(done.phase, Done)
    assert advance.reopened(done, shorter).phase == done.phase
    state = advance.reopened(done, longer)
    assert isinstance(state.phase, Training)
    state, events = small.advance_until(state, longer, Trained)
    assert any(isinstance(e, StageBegun) and e.stage == "member 2" for e in events)
    whole, _ = small.advance_until(advance.start(longer), longer, Trained)
    assert isinstance(state.phase, Scoring)
    pairs = zip(
        jax.tree.leaves(state.phase.variables),
        jax.tree.leaves(whole.phase.variables),
        strict=True,
    )
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
