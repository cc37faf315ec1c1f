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
from jalpose.loop.cycle import AwaitingLabels, Done, Training

from jalpose.loop import checkpoints, cycle
from jalpose.runtime import sharding
from jalpose.storage.journal import Journal
from jalpose.training.plan import Stage
from tests.support import small

JOURNALS = "checkpoints/journal"
CLOCK = {"seconds": 1.5, "acquisition": 0.25}


def leaves(tree, prefix):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): np.array(leaf) for path, leaf in found}


def flat(state):
    """All that a state holds, by name, as numpy copies."""
    phase = state.phase
    found = {
        "cycle": np.array(state.cycle),
        "labelled": np.array(state.labelled),
        f"is {type(phase).__name__}": np.array(True),
    }
    for field in dataclasses.fields(phase):
        value = getattr(phase, field.name)
        if field.name == "journal":
            for name in value.names():
                found.update(leaves(value.read(name), f"journal {name} "))
        else:
            found.update(leaves(value, field.name))
    return found


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name


@dataclasses.dataclass
class Trace:
    """A run to its end: every state before its advance, and every event."""

    problem: object
    folder: Path
    states: list
    events: list

    def restore(self, number, problem):
        """The state, and the journal as it was, in a folder of its own."""
        workdir = self.folder / str(number)
        again = Path(tempfile.mkdtemp(dir=self.folder))
        if (workdir / JOURNALS).exists():
            shutil.copytree(workdir / JOURNALS, again / JOURNALS)
        problem.journals = functools.partial(checkpoints.open_journal, again)
        store = checkpoints.StateStore(workdir)
        restored, state, clock = store.restore(problem)
        store.close()
        assert restored == number and clock == CLOCK
        return state

    def event(self, kind, number):
        """The event of a kind in a cycle."""
        (found,) = [e for e in self.events if (e.kind, e.cycle) == (kind, number)]
        return found


@pytest.fixture(scope="module")
def quick_restore():
    with pytest.MonkeyPatch.context() as patch:
        small.remember_templates(patch)
        yield


@pytest.fixture(scope="module")
def trace(tmp_path_factory, quick_restore):
    problem, workdir = small.flat_problem(), tmp_path_factory.mktemp("run")
    problem.journals = functools.partial(checkpoints.open_journal, workdir)
    found = Trace(problem, tmp_path_factory.mktemp("states"), [], [])
    state = cycle.start(problem)
    while not found.events or found.events[-1].kind != "done":
        number = len(found.states)
        found.states.append(flat(state))
        store = checkpoints.StateStore(found.folder / str(number))
        store.save(number, state, CLOCK)
        store.close()
        if (workdir / JOURNALS).exists():
            shutil.copytree(workdir / JOURNALS, found.folder / str(number) / JOURNALS)
        state, event = cycle.advance(state, problem)
        found.events.append(event)
    return found


def test_a_run_goes_from_start_to_done(trace):
    told = "".join(
        {
            "steps": "s",
            "trained": "t",
            "scoring": "p",
            "selected": "c",
            "measuring": "m",
            "measured": "d",
            "labelled": "l",
            "done": ".",
        }[event.kind]
        for event in trace.events
    )
    assert re.fullmatch(r"(s+tp+cm*dl){2}s+t\.", told), told
    assert [e.cycle for e in trace.events if e.kind == "trained"] == [0, 1, 2]
    last = trace.states[-1]
    assert "is Done" in last and last["cycle"] == 2


def test_the_training_is_as_long_as_the_config_says(trace):
    for number, total in ((0, 8), (1, 4), (2, 4)):
        steps = [
            e.values for e in trace.events if (e.kind, e.cycle) == ("steps", number)
        ]
        assert [v["total"] for v in steps] == [total] * len(steps)
        assert steps[-1]["step"] == total and "heldout_loss" in steps[-1]
        assert all(b["step"] > a["step"] for a, b in itertools.pairwise(steps))


def test_the_labelled_set_grows_by_the_budget_and_holds_no_test_example(trace):
    data = trace.problem.dataset
    labelled = trace.states[-1]["labelled"]
    assert [e.values["num_labelled"] for e in trace.events if e.kind == "trained"] == [
        40,
        48,
        56,
    ]
    assert len(set(labelled.tolist())) == len(labelled) == 56
    np.testing.assert_array_equal(labelled[:40], data.initial)
    assert np.isin(labelled[40:], data.pool).all()
    assert not np.isin(labelled, data.test).any()
    for number in (0, 1):
        arrays = trace.event("selected", number).arrays
        begin = 40 + 8 * number
        np.testing.assert_array_equal(labelled[begin : begin + 8], arrays["selected"])
        assert np.isin(arrays["selected"], arrays["ids"]).all()
        assert not np.isin(arrays["ids"], labelled[:begin]).any()
        assert len(arrays["scores"]) == len(arrays["ids"]) == 16


def test_the_selection_is_of_the_highest_scores(trace):
    for number in (0, 1):
        arrays = trace.event("selected", number).arrays
        order = np.argsort(-arrays["scores"], kind="stable")[:8]
        np.testing.assert_array_equal(arrays["selected"], arrays["ids"][order])


def test_from_every_saved_state_the_next_one_is_the_same_to_the_bit(trace):
    # A fresh problem each time, as in a process begun anew; so by induction a run
    # restarted from any state ends where the uninterrupted one did.
    phases = set()
    for number, wanted in enumerate(trace.states):
        problem = small.flat_problem()
        state = trace.restore(number, problem)
        found = flat(state)
        assert_same(found, wanted)
        phases |= {name for name in found if name.startswith("is ")}
        if number + 1 == len(trace.states):
            break
        state, event = cycle.advance(state, problem)
        assert_same(flat(state), trace.states[number + 1])
        original = trace.events[number]
        assert (event.kind, event.cycle) == (original.kind, original.cycle)
        # What is compiled anew may be less: the peak is of this process.
        values = {k: v for k, v in event.values.items() if k != "peak_bytes"}
        assert values == {k: original.values[k] for k in values}
        assert_same(event.arrays, original.arrays)
    wanted = {"Training", "Scoring", "Measuring", "AwaitingLabels", "Done"}
    assert phases == {f"is {name}" for name in wanted}


def slow(kind):
    # By induction the test above shows it of every state; this one goes all the way.
    return pytest.param(kind, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "kind", [slow("steps"), slow("trained"), "scoring", slow("selected")]
)
def test_a_restart_ends_with_the_same_labels_metrics_and_variables(trace, kind):
    number = 1 + [event.kind for event in trace.events].index(kind)
    problem = small.flat_problem()
    state, events = small.advance_until(trace.restore(number, problem), problem, "done")
    assert_same(flat(state), trace.states[-1])
    for event in events:
        if event.kind == "trained":
            assert event.values == trace.event("trained", event.cycle).values
    assert isinstance(state.phase, Done)


def test_advance_leaves_scoring_states_as_they_were(trace):
    number = [event.kind for event in trace.events].index("scoring")
    problem = small.flat_problem()
    state = trace.restore(number, problem)
    in_memory = dataclasses.replace(state.phase, journal=Journal())
    state = dataclasses.replace(state, phase=in_memory)
    first, _ = cycle.advance(state, problem)
    assert_same(flat(state), trace.states[number])
    assert_same(flat(first), trace.states[number + 1])
    second, _ = cycle.advance(state, problem)
    assert_same(flat(second), flat(first))


def test_done_stays_done(trace):
    problem = small.flat_problem()
    state = trace.restore(len(trace.states) - 1, problem)
    after, event = cycle.advance(state, problem)
    assert after is state and event.kind == "done"


def test_methods_see_the_same_subset_of_the_pool():
    labelled = small.dataset().initial
    subsets = [
        small.flat_problem({"acquisition.method": method}).unlabelled(labelled, 0)
        for method in ("eglpp", "random", "control")
    ]
    for ids in subsets[1:]:
        np.testing.assert_array_equal(ids, subsets[0])
    assert len(subsets[0]) == 16 and (np.diff(subsets[0]) > 0).all()


def test_subsets_differ_but_for_what_is_labelled_only_by_cycle_and_seed():
    data = small.dataset()
    problem = small.flat_problem()
    first = problem.unlabelled(data.initial, 1)
    assert not np.array_equal(first, problem.unlabelled(data.initial, 2))
    other = small.flat_problem()
    other.config.seed = 1
    assert not np.array_equal(first, other.unlabelled(data.initial, 1))
    # Some of the subset get labelled: the others stay, the next in line move up.
    labelled = np.concatenate([data.initial, first[:3]])
    after = problem.unlabelled(labelled, 1)
    assert len(after) == 16 and np.isin(first[3:], after).all()
    assert not np.isin(after, labelled).any()


def test_without_a_subset_all_that_is_left_is_scored():
    data = small.dataset()
    problem = small.flat_problem({"acquisition.pool_subset": 0})
    labelled = np.concatenate([data.initial, data.pool[5:9]])
    np.testing.assert_array_equal(
        problem.unlabelled(labelled, 3), np.delete(data.pool, np.arange(5, 9))
    )


def scored(problem):
    """The state in which `problem`, given a base model, has its base metrics."""
    return small.advance_until(cycle.start(problem), problem, "trained")


def test_a_run_from_another_runs_base_has_its_base_metrics(trace):
    variables = small.copied(trace.event("trained", 0).variables)
    problem = small.flat_problem({"acquisition.method": "random"}, base=variables)
    state, events = scored(problem)
    assert [event.kind for event in events] == ["trained"]  # nothing is trained
    wanted = trace.event("trained", 0)
    assert events[0].values == wanted.values
    assert_same(events[0].arrays, wanted.arrays)
    assert_same(leaves(state.phase.variables, ""), leaves(variables, ""))


def test_control_buys_no_labels_but_trains_as_long(trace):
    problem = small.flat_problem(
        {"acquisition.method": "control"}, base=small.flat_variables()
    )
    state, events = small.advance_until(cycle.start(problem), problem, "done")
    np.testing.assert_array_equal(state.labelled, problem.dataset.initial)
    assert {len(e.arrays["selected"]) for e in events if e.kind == "selected"} == {0}
    for number in (1, 2):
        lengths = [
            [e.values for e in run if (e.kind, e.cycle) == ("steps", number)][-1][
                "step"
            ]
            for run in (events, trace.events)
        ]
        assert lengths[0] == lengths[1] == 4
    trained = [e.values["num_labelled"] for e in events if e.kind == "trained"]
    assert trained == [40, 40, 40]


def test_lengths_in_epochs_are_of_the_labels_planned():
    changes = {
        "training.cycle_steps": 0,
        "training.cycle_epochs": 2,
        "acquisition.method": "control",
    }
    problem = small.flat_problem(changes)
    # Nine tenths of 40, 48 and 56 labels in batches of 8: 4.5, 5.4 and 6.3.
    assert [problem.stages.steps_per_epoch(n) for n in range(3)] == [4, 5, 6]
    assert [problem.stages.total_steps(n) for n in range(3)] == [8, 10, 12]


@pytest.fixture
def awaiting():
    problem = small.flat_problem()
    variables = sharding.replicate(problem.mesh, small.flat_variables())
    state = cycle.CycleState(
        cycle=0,
        labelled=problem.dataset.initial,
        phase=AwaitingLabels(variables=variables, chosen=problem.dataset.pool[3:11]),
    )
    return problem, state


def test_labels_are_waited_for(awaiting, monkeypatch):
    problem, state = awaiting
    there = False
    monkeypatch.setattr(problem, "has_labels", lambda ids: there)
    for _ in range(2):
        same, event = cycle.advance(state, problem)
        assert same is state
        assert event.kind == "waiting" and event.values == {"num": 8}
    there = True
    after, event = cycle.advance(state, problem)
    assert event.kind == "labelled" and event.values == {"num": 8}
    assert after.cycle == 1 and isinstance(after.phase, Training)
    np.testing.assert_array_equal(after.labelled[40:], problem.dataset.pool[3:11])


def test_in_simulation_the_pool_has_labels_and_nothing_else():
    problem = small.flat_problem()
    assert problem.has_labels(problem.dataset.pool)
    assert problem.has_labels(np.zeros(0, np.int64))
    assert not problem.has_labels(problem.dataset.test[:1])


def test_warm_starts_go_on_and_fresh_ones_begin_anew(awaiting):
    problem, state = awaiting
    warm, _ = cycle.advance(state, problem)
    before = leaves(state.phase.variables, "")
    assert_same(leaves(warm.phase.train.variables, ""), before)

    problem = small.flat_problem({"training.start": "fresh"})
    fresh, _ = cycle.advance(state, problem)
    after = leaves(fresh.phase.train.variables, "")
    kernels = [name for name in before if name.endswith("['kernel']")]
    assert len(kernels) == 3
    assert all(not np.array_equal(after[name], before[name]) for name in kernels)
    # Of its own stream: neither the base model's start nor another cycle's.
    base = leaves(problem.stages.begin(0, problem.stages.of(0)[0]).variables, "")
    assert all(not np.array_equal(after[name], base[name]) for name in kernels)
    for train in (warm.phase.train, fresh.phase.train):
        assert int(train.step) == 0 and np.isinf(float(train.best_loss))


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_steps():
    problem = small.flat_problem()
    variables = jax.tree.map(lambda leaf: leaf * np.nan, small.flat_variables())
    state = cycle.CycleState(
        cycle=0,
        labelled=problem.dataset.initial,
        phase=Training(train=problem.trainer.restart(variables)),
    )
    message = (
        "loss of cycle 0, training of pose, became nan or infinite within steps 1 to "
        "4: .*learning_rate"
    )
    with pytest.raises(FloatingPointError, match=message):
        cycle.advance(state, problem)


def test_training_reaches_the_labels_that_were_bought(awaiting):
    problem, state = awaiting
    state, _ = cycle.advance(state, problem)
    seen = set()
    batches = problem.stages.batches(state.labelled, 1, Stage("pose", 4), 0)
    for _ in range(12):  # twice round 43 or so in batches of 8
        seen |= set(next(batches)["id"].tolist())
    held_out = problem.dataset.held_out(state.labelled)
    assert seen == set(state.labelled[~held_out].tolist())
    assert seen & set(problem.dataset.pool[3:11].tolist())


def test_first_steps_on_one_and_eight_devices_lose_alike():
    histories = {}
    for devices in (1, 8):
        trainer = small.flat_trainer(devices, learning_rate=1e-3)
        state = trainer.restart(small.flat_variables())
        stages = small.flat_problem().stages
        batches = stages.batches(small.dataset().initial, 0, stages.of(0)[0], 0)
        state, history = trainer.run(state, batches, jax.random.key(0), 4, 4)
        histories[devices] = history["loss"]
        assert int(state.step) == 4
    np.testing.assert_allclose(histories[8], histories[1], rtol=1e-4)


def test_scoring_states_hold_finished_blocks_only(trace):
    sizes = []
    for state, event in zip(trace.states, trace.events, strict=True):
        if "is Scoring" in state and state["cycle"] == 0:
            journal = [v for k, v in state.items() if k.startswith("journal ")]
            sizes.append(sum(v.nbytes for v in journal))
            if event.kind == "scoring":
                assert event.values["done"] <= event.values["total"]
    assert sizes[0] == 0 and all(b > a for a, b in itertools.pairwise(sizes))
    assert len(sizes) >= 4


def test_start_is_the_base_training_of_the_initial_set(trace):
    first = trace.states[0]
    assert "is Training" in first and first["cycle"] == 0
    assert first["stage"] == 0 and first["train.step"] == 0
    np.testing.assert_array_equal(first["labelled"], small.dataset().initial)
