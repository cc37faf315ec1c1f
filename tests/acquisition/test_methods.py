"""What holds of every method of the registry; one that is added is tested too.

On the network `small.Flat`, for a task that has no capability but those that the method
asks for; eight devices, which compile everything again, are the business of the methods
that do not share their passes with others.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.method import Pool
from jalpose.acquisition.parts.spaces import Spatial
from jalpose.acquisition.registry import METHODS, method_of
from jalpose.loop import configs
from jalpose.runtime import sharding
from jalpose.scoring.passes import Passes
from jalpose.scoring.probe import Paused
from jalpose.settings.checks import ConfigError
from jalpose.settings.scales import SCALES
from jalpose.storage.journal import Journal
from jalpose.training.companion import CompanionTrainer
from tests.support import small
from tests.support.tasks import bare

NAMES = sorted(set(METHODS) - {"control"})
EVERY = pytest.mark.parametrize("name", NAMES)
# Those whose choice goes by the key, and those that choose otherwise with more to
# choose, not more of the same.
DRAWING = ("random", "mc_dropout", "kmeanspp", "badge", "typiclust", "core_gcn")
BY_BUDGET = ("bait", "typiclust")
POOL = np.arange(40, 51)  # two blocks, the second padded
BUDGET = 4
FLAT = small.Flat(dropout=0.3)


@functools.cache
def config(scale):
    return configs.assemble(f"scale={scale}", name="methods")


def method(name, scale="tiny", **changes):
    options = dict(config(scale).acquisition.get(name, {}))
    return method_of(name, {**options, **changes})


def task_of(name):
    return bare(*METHODS[name].capabilities)


def needs(name):
    return method(name).needs(task_of(name))


def passes(name, devices):
    head, companion = needs(name).head, needs(name).companion
    learner = companion and companion.learner
    return _passes(task_of(name), head and head.module, learner, devices)


@functools.cache
def _passes(task, head, learner, devices):
    """Methods of the same capabilities and head, or none, share what is compiled."""
    return Passes(
        FLAT,
        task,
        mesh=small.mesh(devices),
        threads=1,
        head=head,
        companion=learner,
    )


@functools.cache
def variables(name):
    """Of `Flat`, with the head, members and companion that the method needs."""
    network, needed = small.flat_variables(), needs(name)
    found = dict(network)
    if needed.head is not None:
        output = jax.eval_shape(FLAT.apply, network, jnp.zeros((1, 32, 32, 3)))
        blank = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), output)
        init = jax.jit(needed.head.module.init)(jax.random.key(1), blank)
        found["head"] = init["params"]
    if needed.members is not None:
        count = needed.members.count
        found["members"] = {str(k): moved(network, k) for k in range(count)}
    if needed.companion is not None:
        found["companion"] = companion_of(needed, FLAT, task_of(name))
    return found


def companion_of(needed, model, task):
    """Variables of a companion that was trained somehow."""
    learner = needed.companion.learner
    trainer = CompanionTrainer(learner, model, task, small.mesh(), 4)
    state = trainer.init(jax.random.key(2))
    return moved(small.copied(trainer.variables(state)), 3)


def moved(tree, seed):
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda v: v * (1 + 0.3 * draws.random(v.shape, np.float32)), tree
    )


def in_every_network(name, change, everywhere=False):
    """Variables of the method, `change(params)` in the network and its members.

    `everywhere`: in its companion too, which has other layers.
    """
    found = dict(variables(name))
    if "members" in found:
        members = found["members"].items()
        found["members"] = {k: {**v, "params": change(v["params"])} for k, v in members}
    if "companion" in found and everywhere:
        found["companion"] = change(found["companion"])
    return {**found, "params": change(found["params"])}


def acquire(
    name,
    ids=POOL,
    budget=BUDGET,
    seed=0,
    *,
    weights=None,
    labelled=None,
    devices=1,
    options=None,
    **given,
):
    walker = passes(name, devices)
    weights = variables(name) if weights is None else weights
    if devices > 1:
        weights = sharding.replicate(walker.mesh, weights)
    probe = small.probe(walker, weights, microbatch=16, **given)
    pool = Pool(
        unlabelled=ids,
        labelled=small.labelled_set() if labelled is None else labelled,
    )
    chosen_by = method(name, **(options or {}))
    key = jax.random.key(seed)
    return probe, functools.partial(chosen_by.acquire, key, probe, pool, budget)


def choose(name, *arguments, **given):
    _, select = acquire(name, *arguments, **given)
    return select()


@functools.cache
def usual(name):
    return choose(name)


@functools.cache
def scores_examples(name):
    return bool(np.isfinite(usual(name).scores).all())


def assert_full(found, ids, budget):
    assert found.indices.dtype.kind == "i" and found.indices.shape == (budget,)
    assert len(set(found.indices.tolist())) == budget
    assert np.isin(found.indices, ids).all()
    assert found.scores.shape == (len(ids),)
    for name, value in found.explanation.items():
        assert len(value) == len(ids), name
    assert all(np.isfinite(value) for value in found.summary.values())


@EVERY
def test_a_choice_is_of_the_unlabelled_unique_and_exactly_the_budget(name):
    found = usual(name)
    assert_full(found, POOL, BUDGET)
    scored = np.isfinite(found.scores)
    assert scored.all() or not scored.any()
    if scored.all():
        assert len(np.unique(found.scores)) == len(POOL), found.scores
        order = np.argsort(-found.scores, kind="stable")[:BUDGET]
        np.testing.assert_array_equal(found.indices, POOL[order])


@EVERY
def test_the_same_key_chooses_the_same_another_only_where_something_is_drawn(name):
    again = choose(name)
    assert again.indices.tolist() == usual(name).indices.tolist()
    assert again.scores.tobytes() == usual(name).scores.tobytes()
    other = choose(name, seed=1)
    same = (
        other.indices.tolist() == usual(name).indices.tolist()
        and other.scores.tobytes() == usual(name).scores.tobytes()
    )
    assert same != (name in DRAWING)


@EVERY
def test_the_order_of_the_pool_changes_nothing(name):
    order = np.random.default_rng(0).permutation(len(POOL))
    found = choose(name, POOL[order])
    assert found.indices.tolist() == usual(name).indices.tolist()
    np.testing.assert_allclose(found.scores, usual(name).scores[order], rtol=1e-4)


@EVERY
@pytest.mark.parametrize("count", [1, len(POOL)])
def test_a_pool_can_be_chosen_whole(name, count):
    found = choose(name, POOL[:count], count)
    assert_full(found, POOL[:count], count)
    if count > 1 and name not in ("coreset", *BY_BUDGET):
        assert found.indices[:BUDGET].tolist() == usual(name).indices.tolist()


@EVERY
def test_interrupted_at_every_piece_the_choice_is_the_same(name):
    journal, found, pauses = Journal(), None, 0
    while found is None:
        probe, select = acquire(name, journal=journal, pieces=1)
        try:
            found = select()
        except Paused:
            pauses += 1
            assert pauses < 50
        journal = small.copied_journal(probe.journal)
    assert pauses >= 1 or name == "random"
    wanted = usual(name)
    assert found.indices.tolist() == wanted.indices.tolist()
    assert found.scores.tobytes() == wanted.scores.tobytes()
    assert found.summary == wanted.summary
    for key, value in wanted.explanation.items():
        assert found.explanation[key].tobytes() == value.tobytes(), key


@EVERY
def test_with_nothing_labelled_it_works_or_says_what_to_do(name):
    nobody = small.labelled_set().at(slice(0))
    if name in ("coreset", "lcmd", "kmeanspp", "eglpp", "core_gcn"):
        with pytest.raises(ValueError, match=r"set data\.initial above 0"):
            choose(name, labelled=nobody)
    else:
        found = choose(name, labelled=nobody)
        assert_full(found, POOL, BUDGET)
        if not issubclass(METHODS[name], Spatial):  # what is labelled is not near
            assert found.indices.tolist() == usual(name).indices.tolist()


@EVERY
def test_examples_that_are_all_alike_still_give_a_full_choice(name):
    def blind(params):  # a companion's have other names: all of it
        seeing = {
            k: v for k, v in params.items() if k == "stem" or "stem" not in params
        }
        return {**params, **jax.tree.map(jnp.zeros_like, seeing)}

    found = choose(name, weights=in_every_network(name, blind, everywhere=True))
    assert_full(found, POOL, BUDGET)
    if scores_examples(name):
        assert np.isfinite(found.scores).all()
    # What the gradient of the blind layer is depends on the image all the same, under
    # dropout each example has a key of its own, and variances are alike but for their
    # rounding.
    differ = ("random", "mc_dropout", "maxdet")
    alike = not method(name).uses_engine and name not in differ
    if alike:
        assert found.indices.tolist() == POOL[:BUDGET].tolist()


@EVERY
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_heatmaps_give_finite_scores(name, value):
    def flat(params):
        maps = {
            f"maps{s}": {
                "kernel": jnp.zeros_like(params[f"maps{s}"]["kernel"]),
                "bias": jnp.full_like(params[f"maps{s}"]["bias"], value),
            }
            for s in (0, 1)
        }
        return {**params, **maps}

    found = choose(name, weights=in_every_network(name, flat))
    assert_full(found, POOL, BUDGET)
    if scores_examples(name):
        assert np.isfinite(found.scores).all()


@functools.cache
def other_labels():
    """The dataset, in which the labels of the pool are others."""
    data, draws = small.dataset(), np.random.default_rng(0)
    joints, status = np.array(data.truth["joints"]), np.array(data.truth["status"])
    joints[POOL] = draws.uniform(0, 30, joints[POOL].shape)
    status[POOL] = draws.permuted(status[POOL], axis=1)
    truth = {**data.truth, "joints": joints, "status": status}
    return dataclasses.replace(data, truth=truth)


@EVERY
def test_labels_that_are_not_bought_change_nothing(name):
    found = choose(name, data=other_labels())
    assert found.indices.tolist() == usual(name).indices.tolist()
    assert found.scores.tobytes() == usual(name).scores.tobytes()


def test_the_labels_that_change_nothing_are_others_indeed():
    walker, weights = passes("egl", 1), variables("egl")
    datasets = small.dataset(), other_labels()
    probes = [small.probe(walker, weights, data=data) for data in datasets]
    losses = [probe.describe(POOL)["loss"] for probe in probes]
    assert not np.isclose(*losses, rtol=1e-3).any()


MEASURES = {name: small.TASK.measures for name in ("ensemble", "mc_dropout")}
BROKEN = [
    (name, {"measure": measure} if measure else {})
    for name in NAMES
    if name != "random"
    for measure in MEASURES.get(name, ("",))
]
BROKEN.append(("egl_ensemble", {"variance": False}))


@pytest.mark.parametrize(
    ("name", "changes"), BROKEN, ids=lambda v: v if isinstance(v, str) else repr(v)
)
def test_weights_that_diverged_are_an_error_that_names_the_examples(name, changes):
    def diverged(params):
        return jax.tree.map(lambda leaf: leaf * np.nan, params)

    weights = in_every_network(name, diverged, everywhere=True)
    with pytest.raises(FloatingPointError, match=r"id 40\b.*id 41\b"):
        choose(name, weights=weights, options=changes)


@pytest.mark.parametrize("name", ["ensemble", "egl_ensemble"])
def test_one_member_that_diverged_is_an_error_that_names_the_examples(name):
    weights = variables(name)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, weights["members"]["1"])
    members = {**weights["members"], "1": broken}
    with pytest.raises(FloatingPointError, match=r"id 40\b.*id 41\b"):
        choose(name, weights={**weights, "members": members})


def assert_same_on_eight_devices(name):
    found, wanted = choose(name, devices=8), usual(name)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-3)
    assert found.indices.tolist() == wanted.indices.tolist()


# One of each kind of pass: of the network, of dropout, of members, of a head's
# outputs, of gradient norms.
FIRST = ("coreset", "mc_dropout", "ensemble", "vl4pose", "egl")


@pytest.mark.parametrize("name", FIRST)
def test_one_and_eight_devices_choose_the_same(name):
    assert_same_on_eight_devices(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(FIRST)))
def test_one_and_eight_devices_choose_the_same_by_the_other_methods(name):
    assert_same_on_eight_devices(name)


# What a method says of itself.


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [*NAMES, "control"])
def test_the_defaults_of_every_scale_can_work(name, scale):
    initial = {"tiny": 40}.get(scale, 1000)
    budget = config(scale).acquisition.budget
    found = method(name, scale)
    found.check(task_of(name), num_trained=round(0.9 * initial), budget=budget)


@pytest.mark.parametrize("name", [*NAMES, "control"])
def test_equal_options_need_equal_things(name):
    # Equal functions are the same object, so what is compiled for one serves the other.
    first, second = needs(name), needs(name)
    assert first == second and hash(first) == hash(second)
    assert method(name) == method(name) and hash(method(name)) == hash(method(name))


def test_an_unknown_method_is_answered_with_those_there_are():
    config = small.configure()
    config.acquisition.method = "eglp"
    message = r"acquisition\.method: 'eglp'. Known: .*\. Did you mean 'eglpp'\?$"
    with pytest.raises(ConfigError, match=message) as caught:
        configs.check(config)
    assert all(name in str(caught.value) for name in METHODS)
