"""Whole runs on classes: every method resumes to the bit, and all is recorded."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from jalpose.loop import advance, configs, run, saved_states
from jalpose.loop.context import make_context
from jalpose.loop.events import Finished, Passed, Selected
from jalpose.loop.state import Training
from jalpose.report.contents import make_tables
from jalpose.report.gather import gather
from jalpose.runtime.screen import Screen
from jalpose.storage import records
from jalpose.storage.arrays import mismatches
from tests.acquisition.test_methods_on_classes import NAMES
from tests.support import classes, small
from tests.support.states import CLOCK, assert_same_events

DELTA = {
    "data.size": classes.SIZE,
    "data.threads": 1,
    "model.dropout": 0.3,
    "training.base_steps": 8,
    "training.cycle_steps": 4,
    "acquisition.budget": 3,
    "acquisition.pool_subset": 0,
    "acquisition.microbatch": 8,  # found by itself it is of a process, as memory is
    "acquisition.learning_loss.head": "average",
    "evaluation.true_norms": False,
    "loop.cycles": 1,
    "output.tensorboard": False,
    "output.images": 0,
    "output.report": False,
}


def context_of(method, **changes):
    delta = {**DELTA, "acquisition.method": method, **changes}
    config = configs.assemble(
        "scale=tiny", name="classes", task="classification", delta=delta
    )
    configs.check(config)
    return make_context(
        config, classes.dataset(), small.programs(), network=classes.NETWORK
    )


def run_through(context, state=None, keep=lambda number, state: None):
    """All events from a state on; `keep` is given each state before its advance."""
    state, events = state or advance.start(context), []
    while not events or not isinstance(events[-1], Finished):
        keep(len(events), state)
        state, event = advance.advance(state, context)
        events.append(event)
    return events


@pytest.fixture(scope="module", autouse=True)
def quick_restore():
    with pytest.MonkeyPatch.context() as patch:
        small.remember_templates(patch)
        yield


def kept(state):
    """A state that stays whole when the next steps give its buffers away."""
    if not isinstance(state.phase, Training):
        return state
    train = jax.tree.map(
        lambda leaf: jax.device_put(np.array(leaf), leaf.sharding), state.phase.train
    )
    return dataclasses.replace(
        state, phase=dataclasses.replace(state.phase, train=train)
    )


def save(folder, number, state):
    store = saved_states.StateStore(folder)
    store.save(number, state, CLOCK)
    store.close()


def assert_resumes(method, tmp_path):
    states = {}
    context = context_of(method)
    context = context.with_journals(
        functools.partial(saved_states.open_journal, tmp_path / "journal")
    )
    events = run_through(
        context, keep=lambda number, state: states.update({number: kept(state)})
    )
    kinds = [type(event) for event in events]
    # After the first steps, in scoring, once chosen, and in the last training.
    where = [1, kinds.index(Selected), kinds.index(Selected) + 1, len(events) - 3]
    if Passed in kinds:
        where.append(kinds.index(Passed) + 1)
    for number in sorted(set(where)):  # a first pass may be the last
        again = context_of(method).with_journals(
            functools.partial(saved_states.open_journal, tmp_path / f"again{number}")
        )
        save(tmp_path / str(number), number, states[number])
        store = saved_states.StateStore(tmp_path / str(number))
        _, state, _ = store.restore(again)
        store.close()
        found = [e for e in run_through(again, state) if not isinstance(e, Passed)]
        wanted = [e for e in events[number:] if not isinstance(e, Passed)]
        for one, other in zip(found, wanted, strict=True):
            assert_same_events(one, other)


# Of what is kept the most: members with drawn ties, a head. That what is drawn, and
# norms, come out the same after a pause has `test_methods_on_classes` by every method.
FIRST = ("ensemble", "learning_loss")


@pytest.mark.slow
@pytest.mark.parametrize("method", FIRST)
def test_it_resumes_to_the_bit(method, tmp_path):
    assert_resumes(method, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted({*NAMES, "control"} - set(FIRST)))
def test_it_resumes_to_the_bit_by_the_other_methods(method, tmp_path):
    assert_resumes(method, tmp_path)


def test_all_measures_are_recorded_and_shown(tmp_path):
    changes = {
        "evaluation.true_norms": True,
        "evaluation.train_score": True,
        "evaluation.test_scores": True,
    }
    context = context_of("entropy_gradnorm", **changes)
    run.run_one(context, tmp_path, Screen(silent=True))
    first, last = records.read_cycles(tmp_path)
    for record in (first, last):
        assert 0 <= record["metrics"]["train_accuracy"] <= 1
        assert record["metrics"]["train_loss"] > 0
    found = first["measures"]
    for name in ("test_ranking_accuracy", "test_pearson", "test_spearman"):
        assert np.isfinite(found[name])
    assert 0 <= found["sq_norm_overlap"] <= 1 and found["selected_accuracy"] is not None
    before, after = (records.read_arrays(tmp_path, cycle) for cycle in (0, 1))
    assert not mismatches(before) and not mismatches(after)
    ids = before["selected"]
    np.testing.assert_array_equal(after["bought_ids"], ids)
    was = before["true_squared_norms"][np.searchsorted(before["ids"], ids)]
    share = np.mean(after["bought_squared_norms"] < was)
    assert last["metrics"]["norms_fallen"] == pytest.approx(share)
    tables = {table.name: table for table in make_tables(gather([tmp_path]))}
    assert {"gradnorm_table_1", "gradnorm_table_3", "gradnorm_fallen"} <= tables.keys()
    (row,) = tables["gradnorm_table_3"].rows
    gap = last["metrics"]["train_accuracy"] - last["metrics"]["accuracy"]
    assert row["43"].mean == pytest.approx(100 * gap)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["evaluation"][
        "train_score"
    ]
