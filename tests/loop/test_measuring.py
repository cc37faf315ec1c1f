"""Measuring a choice by the labels its method did not see."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jalpose.acquisition.method import Method, by_score
from jalpose.evaluation import measures
from jalpose.loop import advance
from jalpose.loop.events import LabelsCame, Measured, Passed, Selected, Trained
from jalpose.loop.state import AwaitingLabels, CycleState, Done, Measuring, Scoring
from jalpose.runtime.throughput import Meter
from jalpose.storage.journal import Journal
from jalpose.tasks.pose import losses, pck
from jalpose.tasks.pose.skeletons import ABSENT, LSP
from jalpose.training.trainer import scale_images
from tests.support import small

SCORED = {
    "acquisition.method": "softmax_entropy",
    "acquisition.softmax_entropy.unit": "value",
    "evaluation.true_norms": True,
    "acquisition.pieces": 1,
}
DATA = small.dataset()


def scoring():
    """The state in which `Flat` has just been evaluated."""
    return CycleState(
        cycle=0,
        labelled=DATA.initial,
        phase=Scoring(variables=small.flat_variables(), journal=Journal()),
    )


@functools.cache
def measured(engine="ghost"):
    """The context, and the events and phases up to the measures."""
    context = small.flat_context({**SCORED, "acquisition.engine": engine})
    state, events, phases = scoring(), [], []
    while not events or not isinstance(events[-1], Measured):
        phases.append(state.phase)
        state, event = advance.advance(state, context)
        events.append(event)
    return context, events, [*phases, state.phase]


def event(kind, engine="ghost"):
    _, events, _ = measured(engine)
    (found,) = [e for e in events if isinstance(e, kind)]
    return found


def present_in(joints, status):
    """Which joints count: annotated, and inside the crop."""
    inside = ((joints >= -0.5) & (joints <= 31.5)).all(axis=-1)
    return inside & (status != ABSENT)


@functools.cache
def slow_norms():
    """Squared gradient norms of the true labels, one example at a time, by autodiff."""
    context, _, _ = measured()
    ids = event(Selected).arrays["ids"]
    labels, variables = context.true_labels(ids).labels, dict(small.flat_variables())
    params = variables.pop("params")

    @jax.jit
    def gradient(params, image, joints, status):
        def loss(params):
            output = small.FLAT.apply({**variables, "params": params}, image[None])
            present = present_in(joints, status)
            target = small.SPEC.render(joints, present)
            return losses.heatmap_loss(output.prediction[0], target, present)

        return jax.grad(loss)(params)

    found = []
    images = scale_images(small.crops(ids)["image"])
    rows = zip(images, labels["joints"], labels["status"], strict=True)
    for image, joints, status in rows:
        leaves = jax.tree.leaves(gradient(params, image, joints, status))
        found.append(sum(np.sum(np.asarray(v, np.float64) ** 2) for v in leaves))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ghost", "goodfellow"])
def test_true_norms_are_exact_whatever_the_engine_of_the_method(engine):
    found = event(Measured, engine).arrays["true_squared_norms"]
    np.testing.assert_allclose(found, slow_norms(), rtol=1e-4)


def test_the_measures_are_of_the_records_arrays():
    chosen, found = event(Selected).arrays, event(Measured)
    arrays = found.arrays
    picked = np.isin(chosen["ids"], chosen["selected"])

    def mean_pck(rows):
        ids = chosen["ids"][rows]
        return pck.pck(
            arrays["joints"][rows],
            DATA.truth["joints"][ids],
            DATA.truth["status"][ids],
            LSP,
            threshold=0.2,
        ).mean

    wanted = measures.summarise(
        chosen["ids"],
        chosen["scores"],
        chosen["selected"],
        arrays["true_losses"],
        sq_norms=arrays["true_squared_norms"],
        embeddings=arrays["embeddings"],
        more={
            "selected_pck": mean_pck(picked),
            "pool_pck": mean_pck(np.ones(len(picked), bool)),
        },
    )
    assert found.measures == wanted
    assert None not in [wanted[name] for name in ("sq_norm_overlap", "pool_pck")]
    pictures = ("labelled_ids", "labelled_embeddings")
    assert "heatmaps" not in arrays  # output.images=0
    rows = {len(value) for name, value in arrays.items() if name not in pictures}
    assert rows == {len(chosen["ids"])}


def test_true_losses_are_those_of_the_labels():
    context, _, _ = measured()
    found, ids = event(Measured).arrays, event(Selected).arrays["ids"]
    crops = small.crops(ids)
    output = small.flat_apply(small.flat_variables(), scale_images(crops["image"]))
    render, loss = jax.jit(small.SPEC.render), jax.jit(losses.heatmap_loss)
    labels = context.true_labels(ids).labels
    present = present_in(labels["joints"], labels["status"])
    for row in range(len(ids)):
        target = render(labels["joints"][row], present[row])
        wanted = loss(output.prediction[row], target, present[row])
        assert found["true_losses"][row] == pytest.approx(float(wanted), rel=1e-4)
    np.testing.assert_allclose(found["embeddings"], output.embedding, rtol=1e-4)


def test_pictures_have_the_labelled_examples_and_heatmaps_of_the_ends():
    context = small.flat_context({**SCORED, "output.images": 5})
    _, events = small.advance_until(scoring(), context, Measured)
    found, chosen = events[-1].arrays, event(Selected).arrays
    assert events[-1].measures == event(Measured).measures
    np.testing.assert_array_equal(found["labelled_ids"], DATA.initial)
    order = chosen["ids"][np.lexsort((chosen["ids"], -chosen["scores"]))]
    shown = np.sort([*order[:2], *order[-2:]])
    np.testing.assert_array_equal(found["heatmap_ids"], shown)
    for ids, name, of in (
        (DATA.initial, "labelled_embeddings", lambda output: output.embedding),
        (shown, "heatmaps", lambda output: output.prediction[:, -1]),
    ):
        images = scale_images(small.crops(ids)["image"])
        wanted = of(small.FLAT.apply(small.flat_variables(), images))
        np.testing.assert_allclose(found[name], wanted, rtol=2e-3, atol=1e-4)
    assert found["heatmaps"].dtype == np.float16


def test_without_true_norms_there_are_none_and_the_rest_is_the_same():
    context = small.flat_context({**SCORED, "evaluation.true_norms": False})
    _, events = small.advance_until(scoring(), context, Measured)
    found, whole = events[-1], event(Measured)
    assert "true_squared_norms" not in found.arrays
    assert found.measures == {**whole.measures, "sq_norm_overlap": None}


# On the test set, what is trained on, and what falls.


def slow_entropies(ids):
    """Mean entropy of each joint's softmax over its pixels."""
    images = scale_images(small.crops(ids)["image"])
    maps = np.asarray(small.flat_apply(small.flat_variables(), images).prediction)
    flat = maps[:, -1].reshape(len(ids), -1, maps.shape[-1]).astype(np.float64)
    shares = np.exp(flat - flat.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return -(shares * np.log(shares)).sum(axis=1).mean(axis=1)


def test_the_methods_scores_of_the_test_set_rank_its_losses():
    context = small.flat_context({**SCORED, "evaluation.test_scores": True})
    state, _ = small.advance_until(scoring(), context, Selected)
    passed = []
    while not isinstance(state.phase, AwaitingLabels):
        state, found = advance.advance(state, context)
        passed.append(found)
    assert all(isinstance(e, Passed) for e in passed[:-1]) and len(passed) > 4
    whole = event(Measured)
    scores = found.arrays["test_scores"]
    np.testing.assert_allclose(scores, slow_entropies(DATA.test), rtol=1e-4)
    _, arrays = context.evaluator.evaluate(
        context.passes, small.flat_variables(), Meter()
    )
    wanted = {
        f"test_{name}": value
        for name, value in measures.ranking(scores, arrays["test_losses"]).items()
    }
    assert None not in wanted.values()
    assert found.measures == {**whole.measures, **wanted}
    assert found.arrays.keys() == {*whole.arrays, "test_scores"}


@pytest.mark.parametrize("method", ["random", "coreset", "control"])
def test_a_method_without_scores_ranks_nothing(method):
    changes = {"acquisition.method": method, "evaluation.test_scores": True}
    context = small.flat_context({**SCORED, **changes})
    _, events = small.advance_until(scoring(), context, Measured)
    found = events[-1]
    names = ("test_ranking_accuracy", "test_pearson", "test_spearman")
    assert [found.measures[name] for name in names] == [None] * 3
    assert "test_scores" not in found.arrays


def test_the_images_trained_on_are_scored_as_a_test_set_of_them_is():
    context = small.flat_context({"evaluation.threshold": 0.5})
    variables = small.flat_variables()
    labelled = context.true_labels(DATA.initial)
    found = context.evaluator.evaluate_training(
        context.passes, variables, Meter(), labelled, DATA.truth_of(DATA.initial)
    )
    trained = DATA.initial[~DATA.held_out(DATA.initial)]
    assert 0 < len(trained) < len(DATA.initial)
    other = small.flat_context(
        {"evaluation.threshold": 0.5}, dataset=dataclasses.replace(DATA, test=trained)
    )
    wanted, _ = other.evaluator.evaluate(other.passes, variables, Meter())
    assert found["train_pck"] == pytest.approx(wanted["pck"]) and found["train_pck"] > 0
    assert found["train_loss"] == pytest.approx(wanted["test_loss"], rel=1e-6)


def test_scores_of_what_is_trained_on_are_of_labels_that_were_bought():
    context = small.flat_context({"evaluation.threshold": 0.5})
    labelled = context.true_labels(DATA.initial)
    unknown = {**DATA.truth_of(DATA.initial)}
    unknown["status"] = np.full_like(unknown["status"], ABSENT)
    found = context.evaluator.evaluate_training(
        context.passes, small.flat_variables(), Meter(), labelled, unknown
    )
    assert found["train_pck"] is None


@functools.cache
def one_cycle():
    """Events of a run to its second network, which ends it."""
    changes = {**SCORED, "evaluation.train_score": True, "loop.cycles": 1}
    context = small.flat_context(changes)
    state, events = advance.start(context), []
    while not isinstance(state.phase, Done):
        state, found = advance.advance(state, context)
        events.append(found)
    return context, events


def test_norms_of_what_was_bought_are_those_of_the_network_trained_on_it():
    context, events = one_cycle()
    first, second = [e for e in events if isinstance(e, Trained)]
    (chosen,) = [e for e in events if isinstance(e, Selected)]
    assert "bought_ids" not in first.arrays
    np.testing.assert_array_equal(
        second.arrays["bought_ids"], chosen.arrays["selected"]
    )
    before = context.probe(second.variables, Journal(), pieces=10**9)
    labelled = context.true_labels(chosen.arrays["selected"])
    again = context.evaluator.squared_norms(before, labelled)
    np.testing.assert_allclose(second.arrays["bought_squared_norms"], again, rtol=1e-5)
    for trained in (first, second):
        assert {"train_pck", "train_loss"} <= trained.metrics.keys()


def test_a_control_buys_nothing_that_could_fall():
    changes = {**SCORED, "acquisition.method": "control", "loop.cycles": 1}
    context = small.flat_context(changes)
    state, _ = small.advance_until(advance.start(context), context, LabelsCame)
    _, events = small.advance_until(state, context, Trained)
    assert "bought_ids" not in events[-1].arrays


def test_what_is_measured_comes_after_the_choice():
    _, events, phases = measured()
    kinds = [type(e) for e in events]
    chosen = kinds.index(Selected)
    assert set(kinds[:chosen]) == set(kinds[chosen + 1 : -1]) == {Passed}
    assert not any(e.measuring for e in events[:chosen])
    assert all(e.measuring for e in events[chosen + 1 : -1])
    assert kinds[-1] is Measured and len(kinds) > chosen + 3
    for phase in phases[: chosen + 1]:
        assert isinstance(phase, Scoring)
        assert not any(
            k.startswith(("describe", "norms")) for k in phase.journal.names()
        )
    assert all(isinstance(phase, Measuring) for phase in phases[chosen + 1 : -1])
    assert any(k.startswith("norms-target") for k in phases[-2].journal.names())
    assert isinstance(phases[-1], AwaitingLabels)
    np.testing.assert_array_equal(phases[-1].chosen, event(Selected).arrays["selected"])


def test_a_method_is_given_labels_of_the_labelled_set_alone():
    given = {}

    class Curious(Method):
        def acquire(self, key, probe, pool, budget):
            given.update(probe=probe, pool=pool)
            return by_score(pool.unlabelled, np.arange(len(pool.unlabelled)), budget)

    context = dataclasses.replace(small.flat_context(SCORED), method=Curious())
    advance.advance(scoring(), context)
    labelled = given["pool"].labelled
    assert given["probe"].journal.names() == []
    np.testing.assert_array_equal(labelled.ids, DATA.initial)
    assert set(labelled.labels) == {"joints", "status"}
    parts = (labelled.ids, labelled.known, labelled.held_out)
    rows = {len(part) for part in (*parts, *labelled.labels.values())}
    assert rows == {len(DATA.initial)}
    assert not np.isin(given["pool"].unlabelled, DATA.initial).any()


def test_a_choice_of_nothing_is_measured():
    context = small.flat_context({**SCORED, "acquisition.method": "control"})
    _, events = small.advance_until(scoring(), context, Measured)
    found = events[-1].measures
    assert found["chance_overlap"] == 0 and found["pool_pck"] is not None
    nothing = ("ranking_accuracy", "selected_pck", "mean_distance", "sq_norm_overlap")
    assert [found[name] for name in nothing] == [None] * 4
