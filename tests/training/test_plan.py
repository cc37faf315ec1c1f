"""The trainings of a cycle: heads beside and after the network, and committees."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.method import Pool
from jalpose.evaluation import measures
from jalpose.loop import advance
from jalpose.loop.events import LabelsCame, StageBegun, StepsTaken, Trained
from jalpose.models.output import Output
from jalpose.runtime import sharding
from jalpose.runtime.throughput import Flow
from jalpose.settings.checks import ConfigError
from jalpose.training.plan import NETWORK, Stage
from jalpose.training.trainer import network_of
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


def leaves(tree, prefix):
    """A tree as {path: array}, copied: buffers are given away."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): np.array(leaf) for path, leaf in found}


def assert_same(found, wanted):
    """To the bit."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name


def base():
    return small.flat_variables()


def head(context, variables=None):
    """The state in which the head is trained on a given base."""
    stage = Stage("head", 100)
    return stage, context.plan.begin(0, stage, variables or base())


WHOLE = Stage(NETWORK, 100)


def take(context, state, steps, stage=WHOLE):
    labelled = context.true_labels(DATA.initial)
    return context.plan.advance(state, labelled, 0, stage, steps, Flow())


def changed(state, *, step, **fields):
    new = state.replace(step=np.int32(step), **fields)
    # Where the training has it: what lies elsewhere is compiled for anew.
    return sharding.replicate(small.mesh(), new)


def names(state):
    return leaves(network_of(state.variables), "")


def with_head(context):
    """A training state of `base` with a new head, as numpy."""
    found = context.trainer.new_head(jax.random.key(0))
    return small.copied({**base(), "head": found})


# A head beside the network.


@functools.cache
def side_by_side():
    """A context with a head, and the same without."""
    both = small.flat_context(ALEATORIC)
    assert both.plan.steps_per_epoch(0) == 4
    return both, small.flat_context(PLAIN)


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_attached_head_moves_the_network_in_the_first_epochs_alone():
    both, alone = side_by_side()
    state = both.trainer.restart(with_head(both))
    for step in range(4):
        # What the network alone would do from here.
        start = small.copied(state)
        plain = alone.trainer.restart(network_of(start.variables))
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


@pytest.mark.slow
def test_a_head_alone_learns_and_nothing_else_moves():
    context = small.flat_context(ALEATORIC, base=base())
    stage, state = head(context)
    before = small.copied(state)
    state, history = take(context, state, 40, stage)
    assert_same(names(state), names(before))
    assert_same(leaves(state.opt_state, ""), leaves(before.opt_state, ""))
    found, start = leaves(state.head, ""), leaves(before.head, "")
    assert all(not np.array_equal(found[name], start[name]) for name in start)
    lost = history["head_loss"]
    assert lost[-10:].mean() < lost[:3].mean() - 1
    assert int(state.step) == 40
    left = context.plan.finish(stage, state, base())
    assert set(left) == {"params", "batch_stats", "head"}
    assert_same(leaves(network_of(left), ""), leaves(base(), ""))
    assert_same(leaves(left["head"], ""), found)


@pytest.fixture(scope="module")
def from_a_base():
    """A run with a head from a base: its context, its state at cycle 1, the events."""
    changes = {**ALEATORIC, "loop.cycles": 1, "acquisition.pieces": 9}
    context = small.flat_context(changes, base=base())
    state = advance.start(context)
    state, events = small.advance_until(state, context, LabelsCame)
    return context, state, events


@pytest.mark.slow
def test_on_a_given_base_the_head_is_trained_alone_and_then_with_the_network(
    from_a_base,
):
    context, state, events = from_a_base
    told = [type(e) for e in events if isinstance(e, StageBegun | Trained | LabelsCame)]
    assert told == [StageBegun, Trained, LabelsCame]
    steps = [e for e in events if isinstance(e, StepsTaken)]
    assert {e.stage for e in steps} == {"head"} and steps[-1].step == 6
    # A head has no held-out loss: its network does not move.
    assert all("head_loss" in e.means and e.heldout_loss is None for e in steps)
    (trained,) = [e for e in events if isinstance(e, Trained)]
    assert_same(leaves(network_of(trained.variables), ""), leaves(base(), ""))
    assert state.cycle == 1 and [s.name for s in context.plan.of(1)] == [NETWORK]
    # The same head goes on.
    start = leaves(trained.variables["head"], "")
    assert_same(leaves(state.phase.train.head, ""), start)
    network = names(state.phase.train)
    state, events = small.advance_until(state, context, Trained)
    assert any("head_loss" in e.means for e in events if isinstance(e, StepsTaken))
    for before, after in (
        (start, leaves(state.phase.variables["head"], "")),
        (network, leaves(network_of(state.phase.variables), "")),
    ):
        kernels = [name for name in before if "kernel" in name]
        assert kernels
        assert not any(np.array_equal(after[name], before[name]) for name in kernels)


def test_a_base_model_brings_its_network_and_no_head_or_members():
    context = small.flat_context(ALEATORIC)
    given = {**with_head(context), "members": {"0": base()}}
    context = small.flat_context(ALEATORIC, base=given)
    state = context.plan.begin(0, context.plan.of(0)[0])
    assert set(state.variables) == {"params", "batch_stats"}
    assert [s.name for s in context.plan.of(0)] == [NETWORK, "head"]
    assert [s.steps for s in context.plan.of(0)] == [0, 6]


# Members.


def bootstrap(context, number, labelled=None, at=0):
    """The ids that a member is trained on, in batches of one epoch."""
    labelled = context.true_labels(DATA.initial if labelled is None else labelled)
    member = Stage("member", 4, number)
    batches = context.plan.batches(labelled, at, member, 0)
    count = int((~labelled.held_out).sum())
    ids = np.concatenate([next(batches)["id"] for _ in range(-(-count // 8))])
    return ids[:count]


def test_members_are_trained_on_bootstraps_of_what_is_not_held_out():
    context = small.flat_context(ENSEMBLE)
    allowed = DATA.initial[~DATA.held_out(DATA.initial)]
    found = [bootstrap(context, number) for number in range(3)]
    found += [bootstrap(context, number, at=1) for number in range(3)]
    for ids in found:
        assert len(ids) == len(allowed) and np.isin(ids, allowed).all()
        # With replacement: about 1 - 1/e of them are drawn at all.
        assert 0.4 < len(set(ids.tolist())) / len(allowed) < 0.85
    assert len({tuple(sorted(ids)) for ids in found}) == 6
    again = small.flat_context(ENSEMBLE)
    np.testing.assert_array_equal(bootstrap(again, 1), found[1])
    other = small.flat_context({**ENSEMBLE, "seed": 1})
    assert sorted(bootstrap(other, 1)) != sorted(found[1])


def test_members_are_trained_on_labels_that_were_bought():
    context = small.flat_context(ENSEMBLE)
    labelled = np.concatenate([DATA.initial, DATA.pool[:20]])
    ids = np.concatenate([bootstrap(context, k, labelled, at=1) for k in range(3)])
    assert np.isin(DATA.pool[:20][~DATA.held_out(DATA.pool[:20])], ids).mean() > 0.8
    assert not DATA.held_out(ids).any()


def test_warm_members_start_from_the_network_and_fresh_ones_anew():
    warm = small.flat_context({**ENSEMBLE, "acquisition.ensemble.start": "warm"})
    fresh = small.flat_context({**ENSEMBLE, "acquisition.ensemble.start": "fresh"})
    for number in (0, 1):
        state = warm.plan.begin(1, Stage("member", 4, number), base())
        assert_same(names(state), leaves(base(), ""))
    kernel = "['params']['stem']['kernel']"
    begun = [(0, 0), (0, 1), (1, 0), (1, 0)]
    found = [
        names(fresh.plan.begin(at, Stage("member", 4, number), base()))[kernel]
        for at, number in begun
    ]
    np.testing.assert_array_equal(found[2], found[3])
    different = [*found[:3], leaves(base(), "")[kernel]]
    different.append(names(fresh.plan.begin(0, Stage(NETWORK, 4)))[kernel])
    assert len({kernel.tobytes() for kernel in different}) == 5


def test_the_members_are_trained_one_after_the_other_after_the_network():
    context = small.flat_context(ENSEMBLE)
    stages = context.plan.of(1)
    assert [s.name for s in stages] == [NETWORK, "member 1", "member 2"]
    assert [s.steps for s in stages] == [4, 4, 4]
    variables = base()
    for number in (0, 1):
        stage = Stage("member", 4, number)
        state = context.plan.begin(0, stage, variables)
        state, _ = take(context, state, 1, stage)
        variables = context.plan.finish(stage, state, variables)
        assert_same(leaves(variables["members"][str(number)], ""), names(state))
    assert list(variables["members"]) == ["0", "1"]
    assert_same(leaves(network_of(variables), ""), leaves(base(), ""))
    # Members are of their cycle: the next one's training is of the network.
    state = context.plan.begin(1, stages[0], variables)
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
        small.flat_context(
            {"acquisition.method": method, **changes}, base=base() if given else None
        )


# Does a ranking head learn to rank?


class Loud(nn.Module):
    """Maps as far off as the image is bright; the embedding shows how bright it is."""

    @nn.compact
    def __call__(self, images, train: bool = False) -> Output:
        gain = self.param("gain", lambda key: jnp.float32(1))
        bright = images.mean(axis=(1, 2, 3))
        maps = jnp.broadcast_to(
            gain * 30 * bright[:, None, None, None, None], (len(images), 1, 8, 8, 14)
        )
        return Output(maps, jnp.stack([bright, 1 - bright], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["kl", "margin", "mse"])
def test_a_trained_head_orders_new_examples_by_their_losses(objective):
    # Augmentation takes longest to compile.
    off = {"augment.scale": (1.0, 1.0)}
    for key in ("rotate", "shift", "flip"):
        off[f"augment.{key}"] = 0.0
    changes = {
        **RATE,
        **off,
        "acquisition.method": "learning_loss",
        "acquisition.learning_loss.objective": objective,
        "acquisition.learning_loss.head": "average",
    }
    given = {"params": {"gain": np.float32(1)}, "batch_stats": {}}
    context = small.flat_context(changes, base=given, network=Loud())
    stage, state = head(context, given)
    accuracies = {}
    for name in ("before", "after"):
        probe = small.probe(context.passes, context.plan.finish(stage, state, given))
        pool = Pool(DATA.pool, context.true_labels(DATA.initial))
        selection = context.method.acquire(jax.random.key(0), probe, pool, 8)
        losses = probe.describe(DATA.pool)["loss"]
        accuracies[name] = measures.ranking_accuracy(selection.scores, losses)
        if name == "before":
            state, history = take(context, state, 40, stage)
    assert accuracies["after"] > 0.9, accuracies
    assert history["head_loss"][-20:].mean() < history["head_loss"][:20].mean()
