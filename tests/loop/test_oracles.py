"""Oracles that are asked for labels and have them later, as people do."""

import dataclasses
import functools
import io

import numpy as np
import pytest

from jalpose.evaluation import measures
from jalpose.loop import advance, run, saved_states
from jalpose.loop.events import Finished, LabelsCame, Measured, Selected, Trained
from jalpose.loop.state import AwaitingLabels, CycleState, Scoring
from jalpose.oracles.oracle import Answers
from jalpose.oracles.simulated import SimulatedOracle
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.storage.journal import Journal
from tests.support import small
from tests.support.states import CLOCK, assert_same, flat

DATA = small.dataset()
CHOSEN = DATA.pool[3:11]
CHANGES = {
    "acquisition.method": "softmax_entropy",
    "training.base_steps": 2,
    "training.cycle_steps": 2,
}
OF_LABELS = (*measures.OF_LABELS, "selected_pck", "pool_pck")


@dataclasses.dataclass
class People:
    """Label what they are asked for when `work` is called, moved by some pixels.

    The data set they have knows nothing of the pool.
    """

    shift: float = 0.0
    simulated: bool = False
    requests: list = dataclasses.field(default_factory=list)
    done: set = dataclasses.field(default_factory=set)

    def request(self, ids):
        self.requests.append(ids.tolist())

    def work(self, count=None):
        """Label what was asked for last, or the first of it."""
        self.done |= set(self.requests[-1][:count])

    def answers(self, ids):
        if not self.done.issuperset(ids.tolist()):
            return None
        found = DATA.truth_of(ids)
        joints = found["joints"] + np.float32(self.shift)
        return Answers(ids, {**found, "joints": joints})

    def advice(self, ids):
        return f"label {len(ids)}"

    def revised(self, ids, labels):
        return labels


def without_labels():
    """The small dataset as it is where people label: nothing is known of the pool."""
    truth = {name: values.copy() for name, values in DATA.truth.items()}
    truth["joints"][DATA.pool] = np.nan
    truth["status"][DATA.pool] = -1  # of no meaning: whoever reads it is found out
    return dataclasses.replace(DATA, truth=truth)


def context(people, changes=None, base=None, **options):
    return small.flat_context(
        {**CHANGES, **(changes or {})},
        base=base,
        oracle=people,
        dataset=without_labels(),
        **options,
    )


@pytest.fixture(scope="module", autouse=True)
def quick_restore():
    with pytest.MonkeyPatch.context() as patch:
        small.remember_templates(patch)
        yield


def perform(workdir, people, changes=None, base=None):
    """Run in `workdir` until it is done or waits: what was printed."""
    stream = io.StringIO()
    run.run_one(context(people, changes, base), workdir, Screen(stream))
    return stream.getvalue()


def awaiting():
    return CycleState(
        cycle=0,
        labelled=DATA.initial,
        phase=AwaitingLabels(variables=small.flat_variables(), chosen=CHOSEN),
    )


def after(people, state=None):
    """The state that the answers of people bring."""
    people.done |= set(CHOSEN.tolist())
    state, event = advance.advance(state or awaiting(), context(people))
    assert isinstance(event, LabelsCame)
    return state


def test_labels_that_nobody_has_are_not_simulated():
    nowhere = dataclasses.replace(without_labels(), pool_labelled=False)
    assert not SimulatedOracle(nowhere).simulated and SimulatedOracle(DATA).simulated
    assert SimulatedOracle(nowhere).answers(CHOSEN) is None
    with pytest.raises(ConfigError, match="the pool of this data set has no labels"):
        small.flat_context(CHANGES, dataset=nowhere)
    # Without choices there is nothing to hand out; nor is anything measured by labels.
    found = small.flat_context({**CHANGES, "loop.cycles": 0}, dataset=nowhere)
    assert not found.oracle.simulated


# Waiting.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, what each start printed, people) of a run that waited twice."""
    workdir, people, printed = tmp_path_factory.mktemp("people") / "run", People(), []
    while not printed or "waiting" in printed[-1]:
        printed.append(perform(workdir, people))
        people.work()
    return workdir, printed, people


def test_a_run_waits_for_labels_and_goes_on_when_they_are_there(finished):
    workdir, printed, _ = finished
    told = "waiting for the labels of 8 images"
    assert [told in text.splitlines() for text in printed] == [True, True, False]
    cycles = records.read_cycles(workdir)
    assert [line["num_labelled"] for line in cycles] == [40, 48, 56]
    assert all("resuming" in text for text in printed[1:])


def test_it_is_the_run_of_an_oracle_that_answers_at_once(finished, tmp_path):
    workdir, _, _ = finished
    at_once = People(done=set(DATA.pool.tolist()))
    perform(tmp_path, at_once)
    assert len(at_once.requests) == 2
    for number in range(3):
        assert_same(
            *(records.read_arrays(folder, number) for folder in (workdir, tmp_path))
        )
    ours, theirs = (records.read_cycles(folder) for folder in (workdir, tmp_path))
    assert [x["metrics"] for x in ours] == [x["metrics"] for x in theirs]


def test_some_of_the_labels_are_not_enough(tmp_path):
    people, base = People(), small.flat_variables()
    changes = {"loop.cycles": 1}
    perform(tmp_path, people, changes, base)
    people.work(7)
    assert "waiting for the labels of 8" in perform(tmp_path, people, changes, base)
    assert len(records.read_cycles(tmp_path)) == 1
    people.work()
    assert "waiting" not in perform(tmp_path, people, changes, base)
    assert len(records.read_cycles(tmp_path)) == 2


def test_a_request_is_made_again_after_a_restart_and_is_the_same(finished):
    workdir, _, people = finished
    chosen = [records.read_arrays(workdir, n)["selected"].tolist() for n in (0, 1)]
    # At the choice, and when the run is started again with the labels there.
    assert people.requests == [chosen[0], chosen[0], chosen[1], chosen[1]]


def test_waiting_writes_nothing(tmp_path):
    people, base = People(), small.flat_variables()

    def contents():
        files = [p for p in sorted(tmp_path.rglob("*")) if p.is_file()]
        return {path: path.read_bytes() for path in files}

    perform(tmp_path, people, base=base)
    before = contents()
    assert "waiting" in perform(tmp_path, people, base=base)
    assert contents() == before


# The answers are values of the state.


def test_answers_enter_the_state_in_the_order_of_the_labelled():
    people = People(shift=2.0)
    state = after(people)
    truth = DATA.truth_of(CHOSEN)
    np.testing.assert_array_equal(state.answers["joints"], truth["joints"] + 2)
    np.testing.assert_array_equal(state.answers["status"], truth["status"])
    np.testing.assert_array_equal(state.labelled[-8:], CHOSEN)
    # Those of the next cycle come behind.
    more = dataclasses.replace(
        state,
        phase=AwaitingLabels(variables=small.flat_variables(), chosen=DATA.pool[:3]),
    )
    people.done |= set(DATA.pool[:3].tolist())
    later, _ = advance.advance(more, context(people))
    both = np.concatenate([CHOSEN, DATA.pool[:3]])
    np.testing.assert_array_equal(later.labelled[-11:], both)
    wanted = people.answers(both).labels
    assert_same(later.answers, wanted)


def test_training_uses_the_answers_and_not_what_the_data_set_knows():
    state, whole = after(People(shift=2.0)), DATA
    for data in (whole, without_labels()):
        found = small.flat_context(
            CHANGES, oracle=People(done=set(CHOSEN.tolist())), dataset=data
        )
        labelled = found.labelled_set(state)
        in_crop = found.labels.in_crop(
            {**state.answers}, data.windows_of(CHOSEN), found.task.size
        )
        np.testing.assert_array_equal(labelled.labels["joints"][40:], in_crop["joints"])
        truth = small.labels_of(DATA, DATA.initial)
        np.testing.assert_array_equal(labelled.labels["joints"][:40], truth["joints"])
        # As the batches bring it to the devices.
        plan, seen = found.plan, set()
        batches = plan.batches(labelled, 1, plan.of(1)[0], 0)
        for _ in range(8):
            rows = next(batches)
            for example, joints in zip(
                rows["id"].tolist(), rows["label"]["joints"], strict=True
            ):
                if example in CHOSEN:
                    row = CHOSEN.tolist().index(example)
                    np.testing.assert_array_equal(joints, in_crop["joints"][row])
                    seen.add(example)
        held_out = DATA.held_out(CHOSEN)
        assert seen == set(CHOSEN[~held_out].tolist()) and len(seen) > 4


def test_other_answers_train_another_network():
    """Of two that differ in the answers alone, and not in what is not bought."""
    found = []
    for people in (People(), People(shift=2.0), People()):
        _, events = small.advance_until(after(people), context(people), Trained)
        found.append(events[-1].metrics["test_loss"])
    assert found[0] == found[2] != found[1]


def test_a_method_is_given_the_answers():
    given = {}

    class Asked:
        uses_engine = False

        def acquire(self, key, probe, pool, budget):
            given["labelled"] = pool.labelled
            raise InterruptedError

    state = after(People(shift=2.0))
    phase = Scoring(variables=small.flat_variables(), journal=Journal())
    scoring = dataclasses.replace(state, phase=phase)
    asked = dataclasses.replace(context(People()), method=Asked())
    with pytest.raises(InterruptedError):
        advance.advance(scoring, asked)
    wanted = context(People()).labelled_set(state)
    assert_same(given["labelled"].labels, wanted.labels)


def test_answers_are_kept_in_checkpoints(tmp_path):
    state = after(People(shift=2.0))
    store = saved_states.StateStore(tmp_path)
    store.save(1, state, CLOCK)
    # Restored, nobody is asked: whoever labels may have closed by then.
    closed = context(People())
    _, again, _ = store.restore(closed)
    store.close()
    assert_same(flat(again), flat(state))
    assert {"joints", "status"} <= set(again.answers)


def test_other_answers_are_another_fingerprint():
    prints = []

    def journals(cycle, fingerprint):
        prints.append((cycle, fingerprint))
        return Journal()

    variables = small.flat_variables()
    for shift in (0.0, 2.0, 0.0):
        found = context(People(), journals=journals)
        found.journal(after(People(shift=shift)), variables)
    assert prints[0] == prints[2] != prints[1]
    # No float of the answers is lost in it.
    state = after(People())
    joints = state.answers["joints"].copy()
    joints[-1, -1, -1] = np.nextafter(joints[-1, -1, -1], np.float32(np.inf))
    changed = dataclasses.replace(state, answers={**state.answers, "joints": joints})
    found.journal(changed, variables)
    assert prints[3] != prints[0]


def test_a_journal_of_other_answers_is_discarded(tmp_path):
    open_journal = functools.partial(saved_states.open_journal, tmp_path)
    variables, found = small.flat_variables(), context(People(), journals=open_journal)
    state = after(People())
    ours = found.journal(state, variables)
    ours.append("pass", {"value": np.arange(3)})
    ours.sync()
    assert found.journal(state, variables).names() == ["pass"]
    with pytest.warns(UserWarning, match="discarded, it is of other"):
        theirs = found.journal(after(People(shift=2.0)), variables)
    assert theirs.names() == []


def test_nothing_bought_leaves_no_trace_in_the_fingerprint(tmp_path):
    """A control's state is the same after a restart as before it."""
    changes = {"acquisition.method": "control"}
    found = small.flat_context(changes, base=small.flat_variables())
    state, _ = small.advance_until(advance.start(found), found, LabelsCame)
    assert state.answers == {} and len(state.labelled) == 40
    store = saved_states.StateStore(tmp_path)
    store.save(1, state, CLOCK)
    _, again, _ = store.restore(found)
    store.close()
    assert_same(flat(again), flat(state))


# What cannot be measured.


@pytest.fixture(scope="module")
def measured():
    """Events of a choice measured with labels and without, pictures drawn of both."""
    found = {}
    for name, oracle in (("simulated", None), ("people", People())):
        changes = {**CHANGES, "evaluation.true_norms": True, "output.images": 4}
        data = DATA if oracle is None else without_labels()
        made = small.flat_context(
            changes, base=small.flat_variables(), oracle=oracle, dataset=data
        )
        _, events = small.advance_until(advance.start(made), made, Measured)
        (chosen,) = [e for e in events if isinstance(e, Selected)]
        found[name] = chosen, events[-1]
    return found


def test_the_choice_is_the_same_with_nothing_known_of_the_pool(measured):
    assert_same(measured["people"][0].arrays, measured["simulated"][0].arrays)


def test_measures_that_need_labels_are_left_out_by_name(measured):
    ours, whole = measured["people"][1].measures, measured["simulated"][1].measures
    assert ours["left_out"] == list(OF_LABELS) and "left_out" not in whole
    assert {name: ours[name] for name in OF_LABELS} == dict.fromkeys(OF_LABELS)
    assert None not in [whole[name] for name in OF_LABELS]


def test_measures_of_spread_are_kept(measured):
    ours, whole = measured["people"][1].measures, measured["simulated"][1].measures
    kept = whole.keys() - set(OF_LABELS)
    assert kept >= {"mean_distance", "near_duplicates", "pool_distance"}
    assert {name: ours[name] for name in kept} == {name: whole[name] for name in kept}


def test_arrays_of_labels_are_left_out_and_the_others_are_the_same(measured):
    ours, whole = measured["people"][1].arrays, measured["simulated"][1].arrays
    missing = {"true_losses", "true_squared_norms"}
    assert whole.keys() - ours.keys() == missing
    assert_same(ours, {k: v for k, v in whole.items() if k not in missing})


@pytest.mark.slow
def test_a_run_with_people_draws_what_was_chosen_without_labels(tmp_path):
    people, base = People(), small.flat_variables()
    changes = {"output.images": 4, "loop.cycles": 1, "evaluation.true_norms": True}
    assert "waiting" in perform(tmp_path, people, changes, base)
    assert (tmp_path / "pictures" / "cycle_00_chosen.png").is_file()
    (line,) = records.read_cycles(tmp_path)
    assert line["measures"]["left_out"] == list(OF_LABELS)
    people.work()
    assert "waiting" not in perform(tmp_path, people, changes, base)
    assert len(records.read_cycles(tmp_path)) == 2


def test_the_passes_of_a_probe_have_no_labels_to_look_at():
    found = context(People(), base=small.flat_variables())
    probe = found.probe(small.flat_variables(), Journal())
    assert set(probe.describe(DATA.pool[:16])) == {"embedding", "joints", "peaks"}


def test_the_run_ends_as_others_do(finished):
    workdir, _, people = finished
    again = perform(workdir, people)
    assert "already finished" in again and "waiting" not in again
    store = saved_states.StateStore(workdir)
    _, state, _ = store.restore(context(people))
    store.close()
    assert isinstance(advance.advance(state, context(people))[1], Finished)
    assert len(state.answers["joints"]) == 16
