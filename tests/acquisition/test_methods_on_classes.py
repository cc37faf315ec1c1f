"""What holds of every method that works on classes, on a task that is whole.

As `test_methods` has it for poses; here methods have all that classes have.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.method import Pool
from jalpose.acquisition.registry import METHODS, method_of
from jalpose.loop import configs
from jalpose.runtime import sharding
from jalpose.scoring.probe import Paused
from jalpose.settings.scales import SCALES
from jalpose.storage.journal import Journal
from jalpose.tasks.classification.settings import METHOD_OPTIONS
from jalpose.tasks.task import lacking
from tests.acquisition.test_methods import DRAWING, assert_full, companion_of, moved
from tests.support import classes, small

NOT_OF_CLASSES = [
    "aleatoric",
    "egl_ensemble",
    "egl_regression",
    "multipeak_entropy",
    "predictive_variance",
    "vl4pose",
]
NAMES = sorted(METHODS.keys() - {"control", *NOT_OF_CLASSES})
EVERY = pytest.mark.parametrize("name", NAMES)
POOL, BUDGET = classes.POOL, 4
# What the tiny network has no use for or lacks.
OPTIONS = {"learning_loss": {"head": "average"}}


@functools.cache
def config(scale):
    return configs.assemble(f"scale={scale}", name="methods", delta=METHOD_OPTIONS)


def method(name, scale="tiny", **changes):
    options = dict(config(scale).acquisition.get(name, {}))
    return method_of(name, {**options, **OPTIONS.get(name, {}), **changes})


def needs(name):
    return method(name).needs(classes.TASK)


@functools.cache
def variables(name):
    """Of the network, with the head, members and companion that the method needs."""
    network, needed = classes.variables(), needs(name)
    found = dict(network)
    if needed.head is not None:
        blank = jnp.zeros((1, classes.SIZE, classes.SIZE, 3))
        output = jax.eval_shape(classes.NETWORK.apply, network, blank)
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), output)
        init = jax.jit(needed.head.module.init)(jax.random.key(1), ones)
        found["head"] = init["params"]
    if needed.members is not None:
        count = needed.members.count
        found["members"] = {str(k): moved(network, k) for k in range(count)}
    if needed.companion is not None:
        found["companion"] = companion_of(needed, classes.NETWORK, classes.TASK)
    return found


def in_every_network(name, change, everywhere=False):
    """Variables of the method, `change(params)` in the network and its members.

    `everywhere`: in its companion too, which has other layers.
    """
    found = dict(variables(name))
    if "companion" in found and everywhere:
        found["companion"] = change(found["companion"])
    if "members" in found:
        members = found["members"].items()
        found["members"] = {k: {**v, "params": change(v["params"])} for k, v in members}
    return {**found, "params": change(found["params"])}


def acquire(
    name, ids=POOL, budget=BUDGET, seed=0, *, weights=None, devices=1, options=None, **g
):
    head, companion = needs(name).head, needs(name).companion
    walker = classes.passes(
        devices, head and head.module, companion and companion.learner
    )
    weights = variables(name) if weights is None else weights
    if devices > 1:
        weights = sharding.replicate(walker.mesh, weights)
    probe = classes.probe(walker, weights, **g)
    chosen_by, pool = method(name, **(options or {})), classes.pool(ids)
    key = jax.random.key(seed)
    return probe, functools.partial(chosen_by.acquire, key, probe, pool, budget)


def choose(name, *arguments, **given):
    _, select = acquire(name, *arguments, **given)
    return select()


@functools.cache
def usual(name):
    return choose(name)


def same(one, other):
    return (
        one.indices.tolist() == other.indices.tolist()
        and one.scores.tobytes() == other.scores.tobytes()
    )


def test_all_methods_but_those_of_skeletons_and_numbers_work_on_classes():
    refused = [
        name
        for name, chosen_by in METHODS.items()
        if lacking(classes.TASK, chosen_by.capabilities)
    ]
    assert sorted(refused) == NOT_OF_CLASSES


@EVERY
def test_a_choice_is_of_the_unlabelled_unique_and_exactly_the_budget(name):
    found = usual(name)
    assert_full(found, POOL, BUDGET)
    scored = np.isfinite(found.scores)
    assert scored.all() or not scored.any()
    if scored.all() and len(np.unique(found.scores)) == len(POOL):
        order = np.argsort(-found.scores, kind="stable")[:BUDGET]
        np.testing.assert_array_equal(found.indices, POOL[order])


@EVERY
def test_the_same_key_chooses_the_same_another_only_where_something_is_drawn(name):
    assert same(choose(name), usual(name))
    other = choose(name, seed=1)
    if name != "ensemble":  # whose votes tie, or not
        assert same(other, usual(name)) != (name in DRAWING)


@EVERY
def test_the_order_of_the_pool_changes_nothing(name):
    order = np.random.default_rng(0).permutation(len(POOL))
    found = choose(name, POOL[order])
    assert found.indices.tolist() == usual(name).indices.tolist()
    np.testing.assert_allclose(
        found.scores, usual(name).scores[order], rtol=1e-4, atol=1e-7
    )


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
    assert same(found, wanted) and found.summary == wanted.summary
    for key, value in wanted.explanation.items():
        assert found.explanation[key].tobytes() == value.tobytes(), key


@EVERY
def test_classes_that_are_not_bought_change_nothing(name):
    data = classes.dataset()
    labels = np.array(data.truth["class"])
    labels[POOL] = (labels[POOL] + 1) % len(classes.CLASSES)
    others = dataclasses.replace(data, truth={"class": labels})
    assert same(choose(name, data=others), usual(name))


@EVERY
def test_a_network_that_says_nothing_gives_a_full_choice(name):
    def silent(params):
        return {**params, "logits": jax.tree.map(jnp.zeros_like, params["logits"])}

    found = choose(name, weights=in_every_network(name, silent))
    assert_full(found, POOL, BUDGET)
    if np.isfinite(usual(name).scores).all():
        assert np.isfinite(found.scores).all()


COMMITTEES = ("ensemble", "mc_dropout")
MEASURES = (
    "prediction",
    "decoded",
    "mutual_information",
    "predictive_entropy",
    "vote_entropy",
    "variation_ratio",
)
BROKEN = [(name, {}) for name in NAMES if name not in ("random", *COMMITTEES)]
BROKEN += [(name, {"measure": one}) for name in COMMITTEES for one in MEASURES]


@pytest.mark.parametrize(("name", "changes"), BROKEN, ids=str)
def test_weights_that_diverged_are_an_error_that_names_the_examples(name, changes):
    def diverged(params):
        return jax.tree.map(lambda leaf: leaf * np.nan, params)

    weights = in_every_network(name, diverged, everywhere=True)
    with pytest.raises(FloatingPointError, match=r"id 40\b.*id 41\b"):
        choose(name, weights=weights, options=changes)


def test_nobody_labelled_is_said_where_labels_are_needed():
    for name in ("coreset", "lcmd", "kmeanspp", "eglpp", "core_gcn"):
        probe, _ = acquire(name)
        nobody = classes.labelled_set(POOL[:0])
        pool = Pool(unlabelled=POOL, labelled=nobody)
        with pytest.raises(ValueError, match=r"set data\.initial above 0"):
            method(name).acquire(jax.random.key(0), probe, pool, BUDGET)


def assert_same_on_eight_devices(name):
    found, wanted = choose(name, devices=8), usual(name)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-3, atol=1e-7)
    assert found.indices.tolist() == wanted.indices.tolist()


# One of each kind of pass.
FIRST = ("coreset", "mc_dropout", "ensemble", "learning_loss", "egl")


@pytest.mark.parametrize("name", FIRST)
def test_one_and_eight_devices_choose_the_same(name):
    assert_same_on_eight_devices(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(FIRST)))
def test_one_and_eight_devices_choose_the_same_by_the_other_methods(name):
    assert_same_on_eight_devices(name)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [*NAMES, "control"])
def test_the_defaults_of_every_scale_can_work(name, scale):
    initial = {"tiny": 40}.get(scale, 1000)
    budget = config(scale).acquisition.budget
    found = method(name, scale)
    found.check(classes.TASK, num_trained=round(0.9 * initial), budget=budget)


def test_what_the_task_changes_of_methods_are_options_that_there_are():
    for key in METHOD_OPTIONS:
        section, name, option = key.split(".")
        assert section == "acquisition"
        assert option in {field.name for field in dataclasses.fields(METHODS[name])}
