"""Runs with a head, with members and with a companion, restarted from every state they
were saved in.
"""

import dataclasses

import pytest

from jalpose.loop import advance, saved_states
from jalpose.loop.events import (
    Finished,
    LabelsCame,
    Measured,
    Passed,
    Selected,
    StageBegun,
    StepsTaken,
)
from tests.support import small
from tests.support.states import CLOCK, assert_same, assert_same_events, flat

# On a given base: its head alone, then both; and others from the beginning.
SHORT = {
    "loop.cycles": 1,
    "training.base_steps": 2,
    "training.cycle_steps": 3,
    "training.report_steps": 2,
    "acquisition.pieces": 1,
}
RUNS = {
    "learning_loss": {
        **SHORT,
        "acquisition.method": "learning_loss",
        "acquisition.learning_loss.head": "average",
        "acquisition.learning_loss.detach_after": 1.0,
        "acquisition.learning_loss.steps": 3,
    },
    "ensemble": {
        **SHORT,
        "acquisition.method": "ensemble",
        "acquisition.ensemble.steps": 3,
    },
    "sraal": {
        **SHORT,
        "acquisition.method": "sraal",
        "acquisition.sraal.steps": 3,
    },
}


def make(name):
    base = small.flat_variables() if name == "learning_loss" else None
    return small.flat_context(RUNS[name], base=base)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_from_every_saved_state_the_next_one_is_the_same_to_the_bit(
    name, tmp_path, monkeypatch
):
    # So by induction a run restarted from any state ends as the uninterrupted one.
    small.remember_templates(monkeypatch)
    context = make(name)
    state, event, told, stages = advance.start(context), None, [], set()
    while not isinstance(event, Finished):
        store = saved_states.StateStore(tmp_path / str(len(told)))
        store.save(len(told), state, CLOCK)
        before, kept = flat(state), getattr(state.phase, "journal", None)
        state, event = advance.advance(state, context)
        # A fresh context, as in a process begun anew.
        restarted = make(name)
        number, again, clock = store.restore(restarted)
        store.close()
        assert number == len(told) and clock == CLOCK
        if kept is not None:  # of a run it is in a folder: see test_journal_runs
            phase = dataclasses.replace(again.phase, journal=kept)
            again = dataclasses.replace(again, phase=phase)
        assert_same(flat(again), before)
        again, same = advance.advance(again, restarted)
        assert_same(flat(again), flat(state))
        assert_same_events(same, event)
        told.append(type(event))
        if isinstance(event, StepsTaken | StageBegun):
            stages.add(event.stage)
    assert (
        stages
        == {
            "learning_loss": {"head", "network"},
            "ensemble": {"network", "member 1", "member 2"},
            "sraal": {"network", "companion"},
        }[name]
    )
    assert {Selected, Measured, Passed, LabelsCame} <= set(told)
