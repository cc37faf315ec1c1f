"""The loop as data: one piece of work after the other, and from any state again.

On the network `small.Flat`: what is shown does not depend on it, and `test_run` has
whole runs of an hourglass.
"""

import dataclasses
import functools
import itertools
import re
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from jalpose.loop import advance, saved_states
from jalpose.loop.context import RunContext
from jalpose.loop.events import (
    Finished,
    LabelsCame,
    Measured,
    Passed,
    Selected,
    StepsTaken,
    Trained,
    Waiting,
)
from jalpose.loop.state import AwaitingLabels, CycleState, Done, Training
from jalpose.oracles.simulated import SimulatedOracle
from jalpose.runtime import sharding
from jalpose.runtime.throughput import Flow
from jalpose.storage.journal import Journal
from jalpose.training.plan import NETWORK, Stage
from tests.support import small
from tests.support.states import (
    CLOCK,
    assert_same,
    assert_same_events,
    facts,
    flat,
    leaves,
)

JOURNALS = "checkpoints/journal"


@dataclasses.dataclass
class Trace:
    """A run to its end: every state before its advance, and every event."""

    context: RunContext
    folder: Path
    states: list
    events: list

    def restore(self, number, context):
        """The state, and a context with a journal as it was, in its own folder."""
        workdir = self.folder / str(number)
        again = Path(tempfile.mkdtemp(dir=self.folder))
        if (workdir / JOURNALS).exists():
            shutil.copytree(workdir / JOURNALS, again / JOURNALS)
        context = context.with_journals(
            functools.partial(saved_states.open_journal, again)
        )
        store = saved_states.StateStore(workdir)
        restored, state, clock = store.restore(context)
        store.close()
        assert restored == number and clock == CLOCK
        return state, context

    def of(self, kind, number=None):
        """The events of a kind, of one cycle or of all."""
        found = [e for e in self.events if isinstance(e, kind)]
        return [e for e in found if number in (None, e.cycle)]

    def event(self, kind, number):
        """The one event of a kind in a cycle."""
        (found,) = self.of(kind, number)
        return found

    def first(self, kind):
        """Number of the state that the first event of a kind came from."""
        return next(n for n, e in enumerate(self.events) if isinstance(e, kind))


@pytest.fixture(scope="module")
def quick_restore():
    with pytest.MonkeyPatch.context() as patch:
        small.remember_templates(patch)
        yield


@pytest.fixture(scope="module")
def trace(tmp_path_factory, quick_restore):
    workdir = tmp_path_factory.mktemp("run")
    context = small.flat_context(
        journals=functools.partial(saved_states.open_journal, workdir)
    )
    found = Trace(context, tmp_path_factory.mktemp("states"), [], [])
    state = advance.start(context)
    while not found.of(Finished):
        number = len(found.states)
        found.states.append(flat(state))
        store = saved_states.StateStore(found.folder / str(number))
        store.save(number, state, CLOCK)
        store.close()
        if (workdir / JOURNALS).exists():
            shutil.copytree(workdir / JOURNALS, found.folder / str(number) / JOURNALS)
        state, event = advance.advance(state, context)
        found.events.append(event)
    return found


LETTERS = {
    StepsTaken: "s",
    Trained: "t",
    Passed: "p",
    Selected: "c",
    Measured: "d",
    LabelsCame: "l",
    Finished: ".",
}


def test_a_run_goes_from_start_to_done(trace):
    told = "".join(LETTERS[type(event)] for event in trace.events)
    assert re.fullmatch(r"(s+tp+cp*dl){2}s+t\.", told), told
    assert [e.cycle for e in trace.of(Trained)] == [0, 1, 2]
    for number in (0, 1):
        chosen = trace.events.index(trace.event(Selected, number))
        for passed in trace.of(Passed, number):
            assert passed.measuring == (trace.events.index(passed) > chosen)
    last = trace.states[-1]
    assert "is Done" in last and last["cycle"] == 2


def test_the_training_is_as_long_as_the_config_says(trace):
    for number, total in ((0, 8), (1, 4), (2, 4)):
        steps = trace.of(StepsTaken, number)
        assert [e.total for e in steps] == [total] * len(steps)
        assert steps[-1].step == total and steps[-1].heldout_loss is not None
        assert all(b.step > a.step for a, b in itertools.pairwise(steps))


def test_the_labelled_set_grows_by_the_budget_and_holds_no_test_example(trace):
    data = trace.context.dataset
    labelled = trace.states[-1]["labelled"]
    assert [e.num_labelled for e in trace.of(Trained)] == [40, 48, 56]
    assert len(set(labelled.tolist())) == len(labelled) == 56
    np.testing.assert_array_equal(labelled[:40], data.initial)
    assert np.isin(labelled[40:], data.pool).all()
    assert not np.isin(labelled, data.test).any()
    for number in (0, 1):
        arrays = trace.event(Selected, number).arrays
        begin = 40 + 8 * number
        np.testing.assert_array_equal(labelled[begin : begin + 8], arrays["selected"])
        assert np.isin(arrays["selected"], arrays["ids"]).all()
        assert not np.isin(arrays["ids"], labelled[:begin]).any()
        assert len(arrays["scores"]) == len(arrays["ids"]) == 16


def test_the_selection_is_of_the_highest_scores(trace):
    for number in (0, 1):
        arrays = trace.event(Selected, number).arrays
        order = np.argsort(-arrays["scores"], kind="stable")[:8]
        np.testing.assert_array_equal(arrays["selected"], arrays["ids"][order])


def test_from_every_saved_state_the_next_one_is_the_same_to_the_bit(trace):
    # A fresh context each time, as in a process begun anew; so by induction a run
    # restarted from any state ends where the uninterrupted one did.
    phases = set()
    for number, wanted in enumerate(trace.states):
        state, context = trace.restore(number, small.flat_context())
        found = flat(state)
        assert_same(found, wanted)
        phases |= {name for name in found if name.startswith("is ")}
        if number + 1 == len(trace.states):
            break
        state, event = advance.advance(state, context)
        assert_same(flat(state), trace.states[number + 1])
        assert_same_events(event, trace.events[number])
    wanted = {"Training", "Scoring", "Measuring", "AwaitingLabels", "Done"}
    assert phases == {f"is {name}" for name in wanted}


def slow(kind):
    # By induction the test above shows it of every state; this one goes all the way.
    return pytest.param(kind, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "kind", [slow(StepsTaken), slow(Trained), Passed, slow(Selected)]
)
def test_a_restart_ends_with_the_same_labels_metrics_and_variables(trace, kind):
    number = 1 + trace.first(kind)
    state, context = trace.restore(number, small.flat_context())
    state, events = small.advance_until(state, context, Finished)
    assert_same(flat(state), trace.states[-1])
    for event in events:
        if isinstance(event, Trained):
            assert facts(event) == facts(trace.event(Trained, event.cycle))
    assert isinstance(state.phase, Done)


def test_advance_leaves_scoring_states_as_they_were(trace):
    number = trace.first(Passed)
    state, context = trace.restore(number, small.flat_context())
    in_memory = dataclasses.replace(state.phase, journal=Journal())
    state = dataclasses.replace(state, phase=in_memory)
    first, _ = advance.advance(state, context)
    assert_same(flat(state), trace.states[number])
    assert_same(flat(first), trace.states[number + 1])
    second, _ = advance.advance(state, context)
    assert_same(flat(second), flat(first))


def test_done_stays_done(trace):
    state, context = trace.restore(len(trace.states) - 1, small.flat_context())
    after, event = advance.advance(state, context)
    assert after is state and isinstance(event, Finished)


def test_methods_see_the_same_subset_of_the_pool():
    labelled = small.dataset().initial
    subsets = [
        small.flat_context({"acquisition.method": method}).unlabelled(labelled, 0)
        for method in ("eglpp", "random", "control")
    ]
    for ids in subsets[1:]:
        np.testing.assert_array_equal(ids, subsets[0])
    assert len(subsets[0]) == 16 and (np.diff(subsets[0]) > 0).all()


def test_subsets_differ_but_for_what_is_labelled_only_by_cycle_and_seed():
    data = small.dataset()
    context = small.flat_context()
    first = context.unlabelled(data.initial, 1)
    assert not np.array_equal(first, context.unlabelled(data.initial, 2))
    other = small.flat_context()
    other.config.seed = 1
    assert not np.array_equal(first, other.unlabelled(data.initial, 1))
    # Some of the subset get labelled: the others stay, the next in line move up.
    labelled = np.concatenate([data.initial, first[:3]])
    after = context.unlabelled(labelled, 1)
    assert len(after) == 16 and np.isin(first[3:], after).all()
    assert not np.isin(after, labelled).any()


def test_without_a_subset_all_that_is_left_is_scored():
    data = small.dataset()
    context = small.flat_context({"acquisition.pool_subset": 0})
    labelled = np.concatenate([data.initial, data.pool[5:9]])
    np.testing.assert_array_equal(
        context.unlabelled(labelled, 3), np.delete(data.pool, np.arange(5, 9))
    )


def scored(context):
    """The state in which `context`, given a base model, has its base metrics."""
    return small.advance_until(advance.start(context), context, Trained)


def test_a_run_from_another_runs_base_has_its_base_metrics(trace):
    wanted = trace.event(Trained, 0)
    variables = small.copied(wanted.variables)
    context = small.flat_context({"acquisition.method": "random"}, base=variables)
    state, events = scored(context)
    assert len(events) == 1  # nothing is trained
    assert_same_events(events[0], wanted)
    assert_same(leaves(state.phase.variables, ""), leaves(variables, ""))


def test_control_buys_no_labels_but_trains_as_long(trace):
    context = small.flat_context(
        {"acquisition.method": "control"}, base=small.flat_variables()
    )
    state, events = small.advance_until(advance.start(context), context, Finished)
    np.testing.assert_array_equal(state.labelled, context.dataset.initial)
    chosen = [e.arrays["selected"] for e in events if isinstance(e, Selected)]
    assert {len(ids) for ids in chosen} == {0}
    for number in (1, 2):
        steps = [e for e in events if isinstance(e, StepsTaken) and e.cycle == number]
        assert steps[-1].step == trace.of(StepsTaken, number)[-1].step == 4
    trained = [e.num_labelled for e in events if isinstance(e, Trained)]
    assert trained == [40, 40, 40]


def test_lengths_in_epochs_are_of_the_labels_planned():
    changes = {
        "training.cycle_steps": 0,
        "training.cycle_epochs": 2,
        "acquisition.method": "control",
    }
    context = small.flat_context(changes)
    # Nine tenths of 40, 48 and 56 labels in batches of 8: 4.5, 5.4 and 6.3.
    assert [context.plan.steps_per_epoch(n) for n in range(3)] == [4, 5, 6]
    assert [context.plan.total_steps(n) for n in range(3)] == [8, 10, 12]


@pytest.fixture
def awaiting():
    context = small.flat_context()
    variables = sharding.replicate(context.passes.mesh, small.flat_variables())
    state = CycleState(
        cycle=0,
        labelled=context.dataset.initial,
        phase=AwaitingLabels(variables=variables, chosen=context.dataset.pool[3:11]),
    )
    return context, state


class Late(SimulatedOracle):
    """Answers when it is told to."""

    there = False

    def answers(self, ids):
        return super().answers(ids) if self.there else None


def test_labels_are_waited_for(awaiting, monkeypatch):
    _, state = awaiting
    oracle = Late(small.dataset())
    context = small.flat_context(oracle=oracle)
    for _ in range(2):
        same, event = advance.advance(state, context)
        assert same is state
        assert isinstance(event, Waiting) and event.count == 8
    monkeypatch.setattr(Late, "there", True)
    after, event = advance.advance(state, context)
    assert isinstance(event, LabelsCame) and event.count == 8
    assert after.cycle == 1 and isinstance(after.phase, Training)
    np.testing.assert_array_equal(after.labelled[40:], context.dataset.pool[3:11])


def test_in_simulation_the_pool_has_labels_and_nothing_else():
    data = small.dataset()
    oracle = small.flat_context().oracle
    assert_same(oracle.answers(data.pool).labels, data.truth_of(data.pool))
    nothing = oracle.answers(np.zeros(0, np.int64)).labels
    assert {len(values) for values in nothing.values()} == {0}
    assert oracle.answers(data.test[:1]) is None


def test_warm_starts_go_on_and_fresh_ones_begin_anew(awaiting):
    context, state = awaiting
    warm, _ = advance.advance(state, context)
    before = leaves(state.phase.variables, "")
    assert_same(leaves(warm.phase.train.variables, ""), before)

    context = small.flat_context({"training.start": "fresh"})
    fresh, _ = advance.advance(state, context)
    after = leaves(fresh.phase.train.variables, "")
    kernels = [name for name in before if name.endswith("['kernel']")]
    assert len(kernels) == 3
    assert all(not np.array_equal(after[name], before[name]) for name in kernels)
    # Of its own stream: neither the base model's start nor another cycle's.
    base = leaves(context.plan.begin(0, context.plan.of(0)[0]).variables, "")
    assert all(not np.array_equal(after[name], base[name]) for name in kernels)
    for train in (warm.phase.train, fresh.phase.train):
        assert int(train.step) == 0 and np.isinf(float(train.best_loss))


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_steps():
    context = small.flat_context()
    variables = jax.tree.map(lambda leaf: leaf * np.nan, small.flat_variables())
    state = CycleState(
        cycle=0,
        labelled=context.dataset.initial,
        phase=Training(train=context.trainer.restart(variables)),
    )
    message = (
        "loss of cycle 0, training of network, became nan or infinite within steps 1 "
        "to 4: .*learning_rate"
    )
    with pytest.raises(FloatingPointError, match=message):
        advance.advance(state, context)


def test_training_reaches_the_labels_that_were_bought(awaiting):
    context, state = awaiting
    state, _ = advance.advance(state, context)
    seen = set()
    labelled = context.labelled_set(state)
    batches = context.plan.batches(labelled, 1, Stage(NETWORK, 4), 0)
    for _ in range(12):  # twice round 43 or so in batches of 8
        seen |= set(next(batches)["id"].tolist())
    held_out = context.dataset.held_out(state.labelled)
    assert seen == set(state.labelled[~held_out].tolist())
    assert seen & set(context.dataset.pool[3:11].tolist())


@pytest.mark.slow
def test_first_steps_on_one_and_eight_devices_lose_alike():
    histories = {}
    for devices in (1, 8):
        trainer = small.flat_trainer(devices, learning_rate=1e-3)
        state = trainer.restart(small.flat_variables())
        plan = small.flat_context().plan
        batches = plan.batches(small.labelled_set(), 0, plan.of(0)[0], 0)
        state, history = trainer.run(
            state, batches, jax.random.key(0), 4, 4, flow=Flow()
        )
        histories[devices] = history["loss"]
        assert int(state.step) == 4
    np.testing.assert_allclose(histories[8], histories[1], rtol=1e-4)


def test_scoring_states_hold_finished_blocks_only(trace):
    sizes = []
    for state, event in zip(trace.states, trace.events, strict=True):
        if "is Scoring" in state and state["cycle"] == 0:
            journal = [v for k, v in state.items() if k.startswith("journal ")]
            sizes.append(sum(v.nbytes for v in journal))
            if isinstance(event, Passed):
                assert event.done <= event.total
    assert sizes[0] == 0 and all(b > a for a, b in itertools.pairwise(sizes))
    assert len(sizes) >= 4


def test_start_is_the_base_training_of_the_initial_set(trace):
    first = trace.states[0]
    assert "is Training" in first and first["cycle"] == 0
    assert first["stage"] == 0 and first["train.step"] == 0
    np.testing.assert_array_equal(first["labelled"], small.dataset().initial)
