"""Rows go the whole way: trained, chosen for by every form, recorded, resumed."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.acquisition.parts import label_models
from jalpose.acquisition.parts.expected_gradients import (
    expected_change,
    expected_squared,
    predictive_variance,
)
from jalpose.acquisition.registry import METHODS, method_of
from jalpose.loop import advance, configs, data_check, run, saved_states
from jalpose.loop.context import make_context
from jalpose.loop.events import LabelsCame, StepsTaken
from jalpose.loop.programs import Programs
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.storage.journal import Journal
from jalpose.tasks.regression.task import NumberTask
from jalpose.tasks.task import lacking
from jalpose.training import objectives

TASK = NumberTask(columns=3, mean=2.0, scale=4.0)
WORKING = sorted(n for n, m in METHODS.items() if not lacking(TASK, m.capabilities))
REFUSED = {
    "egl": "candidates",
    "badge": "predicted_label",
    "vaal": "pixels",
    "softmax_entropy": "posterior",
    "vl4pose": "skeleton",
}
DELTA = {
    "acquisition.eglpp.perplexity": 3.0,
    "acquisition.eglpp.neighbours": 4,
    "model.hidden": (8,),
    "model.dropout": 0.1,
    "output.tensorboard": False,
    "output.images": 2,
}


def config_of(method="random", **changes):
    delta = {key.replace("__", "."): value for key, value in changes.items()}
    config = configs.benchmark("curve", task="regression", delta={**DELTA, **delta})(
        f"method={method},scale=tiny"
    )
    configs.check(config)
    return config


@functools.cache
def programs():
    return Programs(sharding.make_mesh(jax.devices()[:1]))


def context_of(config, **options):
    return make_context(config, run.load_dataset(config), programs(), **options)


def test_methods_of_numbers_distances_and_heads_work():
    assert {"egl_regression", "predictive_variance", "coreset", "lcmd", "random"} <= {
        *WORKING
    }
    assert {"maxdet", "bait", "eglpp", "learning_loss", "ensemble"} <= {*WORKING}
    assert not set(REFUSED) & set(WORKING)


@pytest.mark.parametrize("name", REFUSED)
def test_methods_that_ask_for_more_are_refused(name):
    with pytest.raises(
        ConfigError, match=f"task regression, which lacks {REFUSED[name]}"
    ):
        context_of(config_of(name))


def test_rows_run_by_methods_from_one_base_model_to_a_report(tmp_path):
    others = ("egl_regression", "coreset")
    config = config_of(loop__compare=others, loop__cycles=1, output__report=True)
    run.run(config, str(tmp_path), Screen(silent=True))
    for name in ("random", *others):
        workdir = tmp_path if name == "random" else tmp_path / "compare" / name
        cycles = records.read_cycles(workdir)
        assert [r["num_labelled"] for r in cycles] == [40, 48]
        for record in cycles:
            metrics = record["metrics"]
            assert metrics["rmse"] > 0 and metrics["mean_value_rmse"] > 0
            assert len(metrics["rmse_per_quarter"]) == 4
        assert cycles[0]["measures"]["selected_rmse"] > 0
        arrays = records.read_arrays(workdir, 0)
        assert arrays["value"].shape == arrays["true_losses"].shape == (24,)
        assert (workdir / "pictures" / "cycle_00_test.png").is_file()
    norms = records.read_arrays(tmp_path / "compare" / "egl_regression", 0)
    assert norms["squared_norm"].min() > 0
    page = (tmp_path / "report" / "index.html").read_text()
    page = re.sub(r"data:image[^\"]*", "", page)
    assert "RMSE" in page and "PCK" not in page


@pytest.mark.slow
def test_it_resumes_to_the_bit_from_every_saved_state(tmp_path):
    config = config_of("egl_regression")
    context = context_of(config)
    state, events, whole = advance.start(context), [], []
    while not events or events[-1].cycle < 2 or not isinstance(events[-1], StepsTaken):
        state, event = advance.advance(state, context)
        events.append(event)
        if isinstance(event, LabelsCame):
            store = saved_states.StateStore(tmp_path / f"{len(events)}")
            store.save(len(events), state, {})
            store.close()
            whole.append(len(events))
    for number in whole:
        store = saved_states.StateStore(tmp_path / f"{number}")
        _, again, _ = store.restore(context_of(config))
        store.close()
        for expected in events[number:]:
            again, event = advance.advance(again, context)
            assert type(event) is type(expected)
        assert event.means == expected.means
        assert again.answers.keys() == {"value"}


def test_the_data_are_looked_through(tmp_path):
    found = data_check.check(config_of(), str(tmp_path), Screen(silent=True))
    assert not data_check.impossible(found)
    page = (tmp_path / "index.html").read_text()
    assert "3x1" in page


# What is learnt.


def test_the_loss_is_half_the_square_and_with_a_variance_the_likelihood():
    label = {"value": np.array(10.0, np.float32)}
    target = TASK.target(label)
    assert target[0] == 2.0
    assert TASK.loss(jnp.array([0.5]), target) == pytest.approx(1.125)
    both = NumberTask(columns=3, mean=2.0, scale=4.0, variance=True)
    said = jnp.array([0.5, 0.7])
    expected = objectives.gaussian_nll(jnp.float32(1.5**2), said[1], 1)
    assert both.loss(said, target) == pytest.approx(float(expected))
    mean, variance = both.moments(said)
    assert (float(mean), float(variance)) == pytest.approx((0.5, np.exp(0.7)))
    decoded = both.decode(said)
    assert float(decoded["value"]) == pytest.approx(4.0)
    assert float(decoded["deviation"]) == pytest.approx(4 * np.exp(0.35))
    unknown = both.target({"value": np.array(np.nan, np.float32)})
    assert both.loss(said, unknown) == 0 and not both.known(unknown)
    assert TASK.disagreement(jnp.array([[1.0], [3]]), "prediction")[0] == 1.0
    assert both.disagreement(jnp.array([[1.0, 0], [3, 0]]), "decoded")[0] == 16.0


# What is chosen by.


@pytest.fixture(scope="module")
def asked():
    """Context, variables with three members, their probe and pool; with a variance."""
    context = context_of(config_of("egl_regression", training__variance=True))
    drawn = [context.trainer.init(jax.random.key(i)).variables for i in range(4)]
    members = {str(i): one for i, one in enumerate(drawn[1:])}
    variables = {**drawn[0], "members": members}
    whole = context.probe(variables, Journal(), pieces=10**6)
    return context, variables, whole, context.pool(advance.start(context))


def choose(asked, name, **options):
    _, _, probe, pool = asked
    options = {"members": 3, "steps": 4, **options}
    return method_of(name, options).acquire(jax.random.key(5), probe, pool, 4)


def by_hand(asked, variables=None):
    """f_z, |grad f_z|^2 and the rows of the pool, by autodiff."""
    context, own, _, pool = asked
    rows = np.stack([context.dataset.image(i) for i in pool.unlabelled])

    def number(params, row):
        return context.model.apply({"params": params}, row[None]).prediction[0, 0]

    params = (variables or own)["params"]
    said = jax.vmap(number, in_axes=(None, 0))(params, rows)
    trees = jax.vmap(jax.grad(number), in_axes=(None, 0))(params, rows)
    norms = sum(
        jnp.sum(jnp.square(leaf.reshape(len(rows), -1)), axis=1)
        for leaf in jax.tree.leaves(trees)
    )
    return np.asarray(said), np.asarray(norms), rows


def labels_of_networks(asked):
    context, variables, *_ = asked
    rows = by_hand(asked)[2]
    outputs = [
        context.model.apply({"params": one["params"]}, rows).prediction
        for one in variables["members"].values()
    ]
    means = np.stack([one[:, 0] for one in outputs], axis=1)
    return means, np.exp(np.stack([one[:, 1] for one in outputs], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["squared", "change"])
def test_egl_by_networks_with_variances(asked, form):
    said, norms, _ = by_hand(asked)
    means, variances = labels_of_networks(asked)
    found = choose(asked, "egl_regression", form=form)
    if form == "squared":
        expected = expected_squared(norms, said, means, variances)
    else:
        expected = expected_change(norms, said, means)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)
    np.testing.assert_allclose(found.explanation["squared_norm"], norms, rtol=1e-4)
    assert -1 <= found.summary["spearman_with_variance"] <= 1
    product = found.explanation["squared_norm"] * (
        found.explanation["label_variance"] + found.explanation["squared_bias"]
    )
    if form == "squared":
        np.testing.assert_allclose(found.scores, product, rtol=1e-4)


@pytest.mark.slow
def test_predictive_variance_by_networks(asked):
    found = choose(asked, "predictive_variance")
    expected = predictive_variance(*labels_of_networks(asked))
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)


KERNEL = label_models.Kernel(length=1.5, amplitude=1.0, noise=0.1)


@pytest.mark.parametrize("models", ["linear", "process"])
def test_labels_of_models_fitted_to_the_labelled_rows(asked, models, monkeypatch):
    # Tested by itself, and slow beside other work.
    monkeypatch.setattr(label_models, "fitted", lambda inputs, targets: KERNEL)
    context, _, _, pool = asked
    found = choose(asked, "predictive_variance", models=models)
    rows = np.float64(by_hand(asked)[2])
    known = np.stack([context.dataset.image(i) for i in pool.labelled.ids])
    value = context.dataset.truth["value"][pool.labelled.ids]
    targets = (value - context.task.mean) / context.task.scale
    draws = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(5))))
    if models == "linear":
        fit = label_models.linear
        known, rows = (np.c_[np.ones(len(v)), v] for v in (known, rows))
    else:
        fit = functools.partial(label_models.gaussian_process, kernel=KERNEL)
    labels = label_models.bootstraps(fit, known, targets, rows, members=3, draws=draws)
    np.testing.assert_allclose(found.scores, predictive_variance(*labels), rtol=1e-3)


@pytest.mark.parametrize("name", ["lcmd", "maxdet", "eglpp", "ensemble"])
def test_methods_of_gradients_neighbours_and_committees_choose_rows(asked, name):
    context, _, probe, pool = asked
    options = dict(context.config.acquisition.get(name, {}))
    if name == "ensemble":
        options["members"] = 3
    found = method_of(name, options).acquire(jax.random.key(0), probe, pool, 4)
    assert len(set(found.indices.tolist())) == 4
    assert np.isin(found.indices, pool.unlabelled).all()


def test_of_a_linear_network_the_norm_is_that_of_the_row():
    context = context_of(config_of("egl_regression", model__hidden=()))
    variables = context.trainer.init(jax.random.key(0)).variables
    probe = context.probe(variables, Journal(), pieces=10**6)
    pool = context.pool(advance.start(context))
    method = method_of("egl_regression", {"members": 3, "models": "linear"})
    found = method.acquire(jax.random.key(0), probe, pool, 4)
    rows = np.stack([context.dataset.image(i) for i in pool.unlabelled])
    np.testing.assert_allclose(
        found.explanation["squared_norm"], 1 + np.sum(rows**2, axis=1), rtol=1e-5
    )


@pytest.mark.parametrize(
    "options, trained, message",
    [
        ({"members": 41}, 40, "members=41 are more than the 40 examples"),
        ({"models": "linear"}, 4 + 1, None),
        ({"models": "linear", "members": 4}, 4, "has 4 weights with the intercept"),
    ],
)
def test_more_than_what_is_labelled_determines_is_refused(options, trained, message):
    method = method_of("egl_regression", {"steps": 1, **options})
    if message is None:
        return method.check(TASK, num_trained=trained, budget=1)
    with pytest.raises(ConfigError, match=message):
        method.check(TASK, num_trained=trained, budget=1)


def test_models_and_forms_that_there_are_not_are_refused():
    for options in ({"models": "forest"}, {"form": "cubed"}, {"members": 1}):
        with pytest.raises(ConfigError, match=r"acquisition\.egl_regression\."):
            method_of("egl_regression", options)
