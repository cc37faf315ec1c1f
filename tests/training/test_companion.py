"""The training of a companion: on what, from what, what it leaves, on many devices."""

import functools
import io
import re

import jax
import numpy as np
import pytest

from jalpose.loop import advance, run
from jalpose.loop.events import Selected, StageBegun, StepsTaken
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.runtime.throughput import Flow
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.training import companion
from jalpose.training.plan import COMPANION, NETWORK
from jalpose.training.trainer import network_of
from tests.support import small

VAAL = {"acquisition.method": "vaal", "acquisition.vaal.steps": 5}
SRAAL = {"acquisition.method": "sraal", "acquisition.sraal.steps": 4}
DATA = small.dataset()
POOL = DATA.pool[:16]


def base():
    return small.flat_variables()


@functools.cache
def context(devices=1, method="vaal"):
    changes = {"vaal": VAAL, "sraal": SRAAL}[method]
    return small.flat_context(changes, devices, base=base())


def last_stage(found, cycle=0):
    stage = found.plan.of(cycle)[-1]
    assert stage.kind == COMPANION and stage.name == "companion"
    return stage


def take(found, state, steps, cycle=0, pool=POOL):
    """Steps of the companion's training: (state, values)."""
    labelled = found.true_labels(DATA.initial)
    variables = jax.tree.map(np.asarray, base())
    if found.trainer.mesh.size > 1:
        variables = sharding.replicate(found.trainer.mesh, variables)
    return found.plan.advance(
        state,
        labelled,
        cycle,
        last_stage(found, cycle),
        steps,
        Flow(),
        variables=variables,
        unlabelled=pool,
    )


def begin(found, cycle=0):
    return found.plan.begin(cycle, last_stage(found, cycle), base())


def arrays(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p): np.array(leaf) for p, leaf in leaves}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].tobytes() == value.tobytes(), name


def test_it_follows_the_network_in_every_cycle_that_chooses():
    plan = context().plan
    last = context().config.loop.cycles
    for cycle in range(last):
        assert [s.name for s in plan.of(cycle)] == [NETWORK, "companion"]
        assert plan.of(cycle)[1].steps == 5
    assert [s.name for s in plan.of(last)] == [NETWORK]


def test_it_sees_all_labelled_with_labels_and_of_the_pool_what_is_scored_without():
    found = context()
    labelled = found.true_labels(DATA.initial)
    pairs = found.plan.companion_batches(labelled, POOL, 0, last_stage(found), 0)
    rows = [next(pairs) for _ in range(5)]
    ids = np.concatenate([one["id"] for one, _ in rows])
    assert sorted(ids) == DATA.initial.tolist()  # 5 batches of 8: an epoch
    assert DATA.held_out(ids).any()
    joints = labelled.labels["joints"]
    for one, _ in rows:
        place = np.searchsorted(DATA.initial, one["id"])
        np.testing.assert_array_equal(one["label"]["joints"], joints[place])
    others = [other for _, other in rows]
    assert sorted(np.concatenate([o["id"] for o in others[:2]])) == POOL.tolist()
    assert all("label" not in other for other in others)
    # From a position on, as a run that is resumed.
    again = small.flat_context(VAAL, base=base()).plan
    pairs = again.companion_batches(labelled, POOL, 0, last_stage(found), 3)
    for one, wanted in zip(next(pairs), rows[3], strict=True):
        np.testing.assert_array_equal(one["id"], wanted["id"])
        np.testing.assert_array_equal(one["image"], wanted["image"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vaal", "sraal"])
def test_in_pieces_it_is_trained_to_the_same_bit(method):
    found = context(1, method)
    whole, history = take(found, begin(found), 4)
    state, values = begin(found), []
    for steps in (1, 3):
        # As a process begun anew: neither iterator nor buffers are left.
        fresh = small.flat_context({"vaal": VAAL, "sraal": SRAAL}[method], base=base())
        state, told = take(fresh, small.copied(state), steps)
        values.append(told["loss"])
    assert_same(arrays(state), arrays(whole))
    np.testing.assert_array_equal(np.concatenate(values), history["loss"])
    assert {"loss", "discriminator_loss", "adversarial_loss"} <= history.keys()
    assert ("supervised_loss" in history) == (method == "sraal")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vaal", "sraal"])
def test_eight_devices_train_it_as_one(method):
    one, eight = context(1, method), context(8, method)
    state, history = take(one, begin(one), 2)
    other, values = take(eight, begin(eight), 2)
    for name, wanted in history.items():
        np.testing.assert_allclose(values[name], wanted, rtol=1e-3, err_msg=name)
    found, wanted = arrays(other), arrays(state)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if "optimizer" in name:
            continue
        # Adam makes a step of the rate of the smallest gradient: 1e-3 is two of them.
        np.testing.assert_allclose(found[name], value, atol=1.1e-3, err_msg=name)
        assert np.mean(np.abs(found[name] - value)) < 1e-4, name


def test_each_cycle_begins_with_new_weights_and_the_seed_decides():
    def first(found, cycle):
        state = begin(found, cycle)
        return arrays(state.learnt["generator"])["['encoder']['conv0']['kernel']"]

    found = context()
    kernels = [first(found, 0), first(found, 1)]
    np.testing.assert_array_equal(first(found, 1), kernels[1])
    kernels.append(first(small.flat_context({**VAAL, "seed": 1}, base=base()), 0))
    assert len({kernel.tobytes() for kernel in kernels}) == 3


@pytest.mark.slow
def test_it_is_left_beside_the_network_which_does_not_move_and_of_its_cycle_alone():
    found = context()
    state, _ = take(found, begin(found), 1)
    variables = found.plan.finish(last_stage(found), state, dict(base()))
    assert_same(arrays(network_of(variables)), arrays(network_of(base())))
    assert set(variables["companion"]) == {"encoder", "discriminator"}
    state = found.plan.begin(1, found.plan.of(1)[0], variables)
    assert set(state.variables) == {"params", "batch_stats"}


@pytest.mark.parametrize("key", ["steps", "batch"])
def test_what_cannot_be_trained_is_refused_by_its_key(key):
    with pytest.raises(ConfigError, match=rf"acquisition\.vaal\.{key}=0"):
        small.flat_context({**VAAL, f"acquisition.vaal.{key}": 0})


@pytest.mark.slow
def test_a_training_that_diverges_names_the_key_of_its_rate():
    changes = {**VAAL, "acquisition.vaal.learning_rate": 1e30}
    found = small.flat_context(changes, base=base())
    message = re.escape("acquisition.vaal.learning_rate")
    with pytest.raises(FloatingPointError, match=f"training of companion.*{message}"):
        small.advance_until(advance.start(found), found, Selected)


# A whole run.

RUN = {
    **VAAL,
    "loop.cycles": 1,
    "loop.checkpoint_seconds": 0.0,
    "training.report_steps": 2,
    "training.cycle_steps": 2,
}


def perform(workdir):
    screen = io.StringIO()
    found = small.flat_context(RUN, base=base())
    run.run_one(found, workdir, Screen(screen))
    return screen.getvalue()


class Killed(Exception):
    """Stands for SIGKILL inside this process."""


@pytest.mark.slow
def test_a_run_killed_in_the_companions_training_ends_the_same_to_the_bit(
    tmp_path, monkeypatch
):
    small.remember_templates(monkeypatch)
    told = perform(tmp_path / "whole")
    assert "cycle 0 training of companion: 5/5" in told
    original, calls = companion.for_devices, []

    def dies(rows):
        calls.append(1)
        if len(calls) == 7:  # two a step: in the fourth
            raise Killed
        return original(rows)

    monkeypatch.setattr(companion, "for_devices", dies)
    with pytest.raises(Killed):
        perform(tmp_path / "killed")
    told = perform(tmp_path / "killed")
    assert "resuming" in told
    # Saved after two steps: three are left, not five.
    assert len(calls) == 7 + 2 * 3
    for kind in ("selections", "arrays"):
        folder = tmp_path / "whole" / kind
        names = sorted(path.name for path in folder.iterdir())
        assert names
        for name in names:
            other = tmp_path / "killed" / kind / name
            assert other.read_bytes() == (folder / name).read_bytes(), name
    lines = [records.read_cycles(tmp_path / one) for one in ("whole", "killed")]
    assert lines[0][0]["metrics"] == lines[1][0]["metrics"]
    probability = records.read_arrays(tmp_path / "whole", 0)["labelled_probability"]
    scores = records.read_arrays(tmp_path / "whole", 0)["scores"]
    assert probability.dtype == np.float32
    assert (np.argsort(probability) == np.argsort(-scores)).all()


@pytest.mark.slow
def test_events_tell_of_the_companions_training():
    found = small.flat_context(RUN, base=base())
    _, events = small.advance_until(advance.start(found), found, Selected)
    begun = [event.stage for event in events if isinstance(event, StageBegun)]
    assert begun == ["companion"]
    steps = [event for event in events if isinstance(event, StepsTaken)]
    assert [(e.stage, e.step, e.total) for e in steps] == [
        ("companion", done, 5) for done in (2, 4, 5)
    ]
    assert all(event.heldout_loss is None for event in steps)
    # Two images for each place of a batch are counted.
    assert sum(event.meter.training.images for event in steps) == 5 * 2 * 8
