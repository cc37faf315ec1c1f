"""What a probe gives a method, its pauses, and its journal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.loop import advance
from jalpose.loop.events import Passed
from jalpose.loop.state import CycleState, Scoring
from jalpose.scoring.passes import Passes
from jalpose.scoring.probe import Paused
from jalpose.storage.journal import Journal
from jalpose.training.trainer import scale_images
from tests.support import small

POOL = np.arange(40, 52)  # unlabelled examples of the small problem


def flat_probe(**options):
    return small.probe(small.flat_passes(), small.flat_variables(), **options)


def test_a_paused_probe_says_how_far_it_is():
    probe = flat_probe(pieces=1)
    with pytest.raises(Paused):
        probe.describe(POOL)
    assert probe.progress == ("describe", 8, 12)
    probe = flat_probe(journal=probe.journal, pieces=1)
    assert len(probe.describe(POOL)["embedding"]) == 12
    assert probe.progress == ("describe", 12, 12)


def test_blocks_on_the_host_pause_and_are_computed_once():
    calls = []

    def squares(positions):
        calls.append(positions.tolist())
        return {"square": positions**2, "id": POOL[positions]}

    journal, pauses, found = Journal(), 0, None
    while found is None:
        probe = flat_probe(journal=journal, pieces=2)
        try:
            found = probe.blocks("squares", squares, POOL, 3)
        except Paused:
            assert probe.progress == ("squares", 6, 12)
            pauses += 1
        journal = probe.journal
    assert pauses == 1
    assert sorted(calls) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert found["square"].tolist() == [n**2 for n in range(12)]
    assert found["id"].tolist() == POOL.tolist()
    # Of other examples, or under another name, it is another pass.
    whole = flat_probe(journal=journal)
    assert whole.blocks("squares", squares, POOL[:5], 3)["square"].tolist()[-1] == 16
    assert whole.blocks("cubes", squares, POOL, 12).keys() == {"square", "id"}
    assert len(calls) == 7


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_on_the_host_change_nothing(threads):
    passes = Passes(small.FLAT, small.TASK, mesh=small.mesh(), threads=threads)
    probe = small.probe(passes, small.flat_variables())
    found = probe.blocks("squares", lambda at: {"square": at**2}, POOL, 3)
    assert found["square"].tolist() == [n**2 for n in range(12)]


def test_what_a_probe_returns_is_read_only():
    for value in flat_probe().describe(POOL).values():
        with pytest.raises(ValueError, match="read-only"):
            value[0] = 0


def peaks(output, key):
    del key
    return {"found": jnp.max(output.prediction)}


def troughs(output, key):
    del key
    return {"found": jnp.min(output.prediction)}


def draw(output, key):
    del output
    return {"found": jax.random.uniform(key)}


def test_reduce_applies_the_function_to_each_example():
    output = small.flat_apply(
        small.flat_variables(), scale_images(small.crops(POOL)["image"])
    )
    found = flat_probe().reduce(peaks, POOL)["found"]
    np.testing.assert_allclose(
        found, output.prediction.max(axis=(1, 2, 3, 4)), rtol=1e-4
    )


def test_two_reductions_of_the_same_examples_are_kept_apart():
    probe = flat_probe()
    high, low = (probe.reduce(fn, POOL)["found"] for fn in (peaks, troughs))
    assert (high > low).all()
    one, two = (probe.reduce(draw, POOL, jax.random.key(n))["found"] for n in (1, 2))
    assert not np.any(one == two)


def test_keys_of_a_reduction_go_by_example():
    key = jax.random.key(3)
    found = flat_probe().reduce(draw, POOL, key)["found"]
    again = flat_probe().reduce(draw, POOL[::-1].copy(), key)["found"]
    np.testing.assert_array_equal(found, again[::-1])
    assert len(set(found.tolist())) == len(POOL)


def test_scoring_through_the_cycle_leaves_the_journal_it_was_given_alone():
    context = small.flat_context()
    state = CycleState(
        cycle=0,
        labelled=context.dataset.initial,
        phase=Scoring(variables=small.flat_variables(), journal=Journal()),
    )
    after, event = advance.advance(state, context)
    assert isinstance(event, Passed) and not event.measuring
    assert state.phase.journal.names() == []
    assert after.phase.journal.names()
    assert after.phase.variables is state.phase.variables


def test_an_iteration_keeps_every_state_and_goes_on_from_the_last():
    begun, taken = [], []

    def begin():
        begun.append(1)
        return {"sum": np.float64(1), "all": np.zeros(2, np.int32)}

    def step(number, state):
        taken.append(number)
        return {"sum": state["sum"] * 3 + number, "all": state["all"] + number}

    journal, pauses, found = Journal(), 0, None
    while found is None:
        probe = flat_probe(journal=journal, pieces=2)
        try:
            found = probe.iterate("walk", step, begin, 5)
        except Paused:
            pauses += 1
            assert probe.progress == ("walk", 2 * pauses, 5)
        journal = small.copied_journal(probe.journal)
    assert pauses == 2 and taken == [0, 1, 2, 3, 4] and len(begun) == 1
    # By hand: 1, 3, 10, 32, 99, 301.
    assert found["sum"] == 301 and found["all"].tolist() == [10, 10]
    assert found["all"].dtype == np.int32
    # Done, it is not taken again; of another length it is another iteration.
    again = flat_probe(journal=journal)
    assert again.iterate("walk", step, begin, 5)["sum"] == 301
    assert again.iterate("walk", step, begin, 1)["sum"] == 3
    assert taken == [0, 1, 2, 3, 4, 0]
