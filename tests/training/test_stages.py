"""The trainings of a cycle: heads beside and after the network, and committees."""

import functools
import re
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.evaluation import measures
from jalpose.loop import cycle
from jalpose.models.hourglass import PoseOutput
from jalpose.runtime import sharding
from jalpose.settings.keys import ConfigError
from jalpose.tasks.pose import augment
from jalpose.training.plan import Stage
from jalpose.training.trainer import pose_of
from tests.loop.test_cycle import assert_same, leaves
from tests.support import small

RATE = {
    "training.learning_rate": 1e-2,
    "training.schedule": "constant",
    "training.clip_norm": 1e-3,
}
# The head's gradient is large, and reaches the network for half an epoch: two steps.
ALEATORIC = {
    **RATE,
    "acquisition.method": "aleatoric",
    "acquisition.aleatoric.weight": 1e4,
    "acquisition.aleatoric.detach_after": 0.5,
}
ENSEMBLE = {**RATE, "acquisition.method": "ensemble"}
PLAIN = {**RATE, "acquisition.method": "random"}
DATA = small.dataset()


def base():
    return small.flat_variables()


def head(problem, variables=None):
    """The state in which the head is trained on a given base."""
    stage = Stage("head", 100)
    return stage, problem.stages.begin(0, stage, variables or base())


POSE = Stage("pose", 100)


def take(problem, state, steps, stage=POSE):
    return problem.stages.advance(state, DATA.initial, 0, stage, steps)


def changed(state, *, step, **fields):
    new = state.replace(step=np.int32(step), **fields)
    # Where the training has it: what lies elsewhere is compiled for anew.
    return sharding.replicate(small.mesh(), new)


def names(state):
    return leaves(pose_of(state.variables), "")


def with_head(problem):
    """A training state of `base` with a new head, as numpy."""
    found = problem.trainer.new_head(jax.random.key(0))
    return small.copied({**base(), "head": found})


# A head beside the network.


@functools.cache
def side_by_side():
    """A problem with a head, and the same without."""
    both = small.flat_problem(ALEATORIC)
    assert both.stages.steps_per_epoch(0) == 4
    return both, small.flat_problem(PLAIN)


def test_a_head_that_is_not_attached_leaves_the_network_as_it_would_be():
    # Clipping and Adam are each one's own.
    both, alone = side_by_side()
    state = changed(both.trainer.restart(with_head(both)), step=2)
    plain = changed(alone.trainer.restart(base()), step=2)
    for _ in range(3):
        state, history = take(both, state, 1)
        plain, wanted = take(alone, plain, 1)
        np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=1e-5)
        found, expected = names(state), names(plain)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7)
    before, after = leaves(with_head(both)["head"], ""), leaves(state.head, "")
    assert all(not np.array_equal(after[name], before[name]) for name in before)
    assert "head_loss" in history and "head_loss" not in wanted


def test_an_attached_head_moves_the_network_in_the_first_epochs_alone():
    both, alone = side_by_side()
    state = both.trainer.restart(with_head(both))
    for step in range(4):
        # What the network alone would do from here.
        start = small.copied(state)
        plain = alone.trainer.restart(pose_of(start.variables))
        plain = changed(plain, step=step, opt_state=start.opt_state)
        plain, _ = take(alone, plain, 1)
        state, _ = take(both, state, 1)
        found, wanted = (leaves(s.params, "") for s in (state, plain))
        stem = "['stem']['kernel']"
        apart = np.abs(found[stem] - wanted[stem]).max()
        if step < 2:
            assert apart > 1e-3
        else:
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7)


# A head alone.


def test_a_head_alone_learns_and_nothing_else_moves():
    problem = small.flat_problem(ALEATORIC, base=base())
    stage, state = head(problem)
    before = small.copied(state)
    state, history = take(problem, state, 40, stage)
    assert_same(names(state), names(before))
    assert_same(leaves(state.opt_state, ""), leaves(before.opt_state, ""))
    found, start = leaves(state.head, ""), leaves(before.head, "")
    assert all(not np.array_equal(found[name], start[name]) for name in start)
    lost = history["head_loss"]
    assert lost[-10:].mean() < lost[:3].mean() - 1
    assert int(state.step) == 40
    left = problem.stages.finish(stage, state, base())
    assert set(left) == {"params", "batch_stats", "head"}
    assert_same(leaves(pose_of(left), ""), leaves(base(), ""))
    assert_same(leaves(left["head"], ""), found)


@pytest.fixture(scope="module")
def from_a_base():
    """A run with a head from a base: its problem, its state at cycle 1, the events."""
    changes = {**ALEATORIC, "loop.cycles": 1, "acquisition.pieces": 9}
    problem = small.flat_problem(changes, base=base())
    state, events = small.advance_until(cycle.start(problem), problem, "labelled")
    return problem, state, events


def test_on_a_given_base_the_head_is_trained_alone_and_then_with_the_network(
    from_a_base,
):
    problem, state, events = from_a_base
    told = [e.kind for e in events if e.kind in ("stage", "trained", "labelled")]
    assert told == ["stage", "trained", "labelled"]
    steps = [e.values for e in events if e.kind == "steps"]
    assert {v["stage"] for v in steps} == {"head"} and steps[-1]["step"] == 6
    # A head has no held-out loss: its network does not move.
    assert all("head_loss" in v and "heldout_loss" not in v for v in steps)
    (trained,) = [e for e in events if e.kind == "trained"]
    assert_same(leaves(pose_of(trained.variables), ""), leaves(base(), ""))
    assert state.cycle == 1 and [s.name for s in problem.stages.of(1)] == ["pose"]
    # The same head goes on.
    start = leaves(trained.variables["head"], "")
    assert_same(leaves(state.phase.train.head, ""), start)
    pose = names(state.phase.train)
    state, events = small.advance_until(state, problem, "trained")
    assert any("head_loss" in e.values for e in events)
    for before, after in (
        (start, leaves(state.phase.variables["head"], "")),
        (pose, leaves(pose_of(state.phase.variables), "")),
    ):
        kernels = [name for name in before if "kernel" in name]
        assert kernels
        assert not any(np.array_equal(after[name], before[name]) for name in kernels)


def test_a_base_model_brings_its_network_and_no_head_or_members():
    problem = small.flat_problem(ALEATORIC)
    given = {**with_head(problem), "members": {"0": base()}}
    problem = small.flat_problem(ALEATORIC, base=given)
    state = problem.stages.begin(0, problem.stages.of(0)[0])
    assert set(state.variables) == {"params", "batch_stats"}
    assert [s.name for s in problem.stages.of(0)] == ["pose", "head"]
    assert [s.steps for s in problem.stages.of(0)] == [0, 6]


# Members.


def bootstrap(problem, number, labelled=None, at=0):
    """The ids that a member is trained on."""
    drawn, real = [], problem.stages.passes
    problem.stages.passes = types.SimpleNamespace(
        source=lambda ids: drawn.append(ids) or real.source(ids)
    )
    labelled = DATA.initial if labelled is None else labelled
    problem.stages.batches(labelled, at, Stage("member", 4, number), 0)
    problem.stages.passes = real
    return drawn[0]


def test_members_are_trained_on_bootstraps_of_what_is_not_held_out():
    problem = small.flat_problem(ENSEMBLE)
    allowed = DATA.initial[~DATA.held_out(DATA.initial)]
    found = [bootstrap(problem, number) for number in range(3)]
    found += [bootstrap(problem, number, at=1) for number in range(3)]
    for ids in found:
        assert len(ids) == len(allowed) and np.isin(ids, allowed).all()
        # With replacement: about 1 - 1/e of them are drawn at all.
        assert 0.4 < len(set(ids.tolist())) / len(allowed) < 0.85
    assert len({tuple(sorted(ids)) for ids in found}) == 6
    again = small.flat_problem(ENSEMBLE)
    np.testing.assert_array_equal(bootstrap(again, 1), found[1])
    other = small.flat_problem(ENSEMBLE)
    other.config.seed = 1
    assert not np.array_equal(bootstrap(other, 1), found[1])


def test_members_are_trained_on_labels_that_were_bought():
    problem = small.flat_problem(ENSEMBLE)
    labelled = np.concatenate([DATA.initial, DATA.pool[:20]])
    ids = np.concatenate([bootstrap(problem, k, labelled, at=1) for k in range(3)])
    assert np.isin(DATA.pool[:20][~DATA.held_out(DATA.pool[:20])], ids).mean() > 0.8
    assert not DATA.held_out(ids).any()


def test_warm_members_start_from_the_network_and_fresh_ones_anew():
    warm = small.flat_problem({**ENSEMBLE, "acquisition.ensemble.start": "warm"})
    fresh = small.flat_problem({**ENSEMBLE, "acquisition.ensemble.start": "fresh"})
    for number in (0, 1):
        state = warm.stages.begin(1, Stage("member", 4, number), base())
        assert_same(names(state), leaves(base(), ""))
    kernel = "['params']['stem']['kernel']"
    begun = [(0, 0), (0, 1), (1, 0), (1, 0)]
    found = [
        names(fresh.stages.begin(at, Stage("member", 4, number), base()))[kernel]
        for at, number in begun
    ]
    np.testing.assert_array_equal(found[2], found[3])
    different = [*found[:3], leaves(base(), "")[kernel]]
    different.append(names(fresh.stages.begin(0, Stage("pose", 4)))[kernel])
    assert len({kernel.tobytes() for kernel in different}) == 5


def test_the_members_are_trained_one_after_the_other_after_the_network():
    problem = small.flat_problem(ENSEMBLE)
    stages = problem.stages.of(1)
    assert [s.name for s in stages] == ["pose", "member 1", "member 2"]
    assert [s.steps for s in stages] == [4, 4, 4]
    variables = base()
    for number in (0, 1):
        stage = Stage("member", 4, number)
        state = problem.stages.begin(0, stage, variables)
        state, _ = take(problem, state, 1, stage)
        variables = problem.stages.finish(stage, state, variables)
        assert_same(leaves(variables["members"][str(number)], ""), names(state))
    assert list(variables["members"]) == ["0", "1"]
    assert_same(leaves(pose_of(variables), ""), leaves(base(), ""))
    # Members are of their cycle: the next one's training is of the network.
    state = problem.stages.begin(1, stages[0], variables)
    assert set(state.variables) == {"params", "batch_stats"}


# What is refused before anything is trained.


@pytest.mark.parametrize(
    ("method", "changes", "given", "message"),
    [
        ("learning_loss", {"learning_loss.steps": 0}, True, "learning_loss.steps=0"),
        ("vl4pose", {"vl4pose.weight": 0.0}, False, "vl4pose.weight=0.0"),
        (
            "aleatoric",
            {"aleatoric.detach_after": -1.0},
            False,
            "aleatoric.detach_after",
        ),
        ("ensemble", {"ensemble.members": 1}, False, "ensemble.members=1"),
        ("ensemble", {"ensemble.steps": 0}, False, "ensemble.steps=0"),
        ("egl_ensemble", {"egl_ensemble.members": 1}, True, "egl_ensemble.members=1"),
        ("mc_dropout", {}, True, "model.dropout"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_key(method, changes, given, message):
    changes = {f"acquisition.{key}": value for key, value in changes.items()}
    with pytest.raises(ConfigError, match=re.escape(message)):
        small.flat_problem(
            {"acquisition.method": method, **changes}, base=base() if given else None
        )


# Does a ranking head learn to rank?


class Loud(nn.Module):
    """Maps as far off as the image is bright; the embedding shows how bright it is."""

    @nn.compact
    def __call__(self, images, train: bool = False) -> PoseOutput:
        gain = self.param("gain", lambda key: jnp.float32(1))
        self.variable("batch_stats", "unused", lambda: jnp.float32(0))
        bright = images.mean(axis=(1, 2, 3))
        maps = jnp.broadcast_to(
            gain * 30 * bright[:, None, None, None, None], (len(images), 1, 8, 8, 14)
        )
        return PoseOutput(maps, jnp.stack([bright, 1 - bright], axis=1))


@pytest.mark.parametrize("objective", ["kl", "margin"])
def test_a_trained_head_orders_new_examples_by_their_losses(objective, monkeypatch):
    # Augmentation takes longest to compile.
    monkeypatch.setattr(augment, "augment", lambda key, *example, **_: example)
    changes = {
        **RATE,
        "acquisition.method": "learning_loss",
        "acquisition.learning_loss.objective": objective,
        "acquisition.learning_loss.head": "average",
    }
    pose = {"params": {"gain": np.float32(1)}, "batch_stats": {"unused": np.float32(0)}}
    problem = small.flat_problem(changes, base=pose, network=Loud())
    stage, state = head(problem, pose)
    accuracies = {}
    for name in ("before", "after"):
        probe = small.probe(problem.passes, problem.stages.finish(stage, state, pose))
        selection = problem.method.acquire(
            jax.random.key(0),
            probe,
            None,
            DATA.pool,
            8,
            **problem.method_options("learning_loss"),
        )
        losses = probe.describe(DATA.pool)["loss"]
        accuracies[name] = measures.ranking_accuracy(selection.scores, losses)
        if name == "before":
            state, history = take(problem, state, 40, stage)
    assert accuracies["after"] > 0.9, accuracies
    assert history["head_loss"][-20:].mean() < history["head_loss"][:20].mean()
