"""Measuring a choice by the labels its method did not see."""

import functools

import jax
import numpy as np
import pytest
from jalpose.loop.cycle import AwaitingLabels, Measuring, Scoring

from jalpose.acquisition.method import Method, by_score
from jalpose.evaluation import measures
from jalpose.loop import cycle
from jalpose.storage.journal import Journal
from jalpose.tasks.pose import losses, pck
from jalpose.training.trainer import scale_images
from tests.support import small

SCORED = {
    "acquisition.method": "softmax_entropy",
    "evaluation.true_norms": True,
    "acquisition.pieces": 1,
}
DATA = small.dataset()


def scoring(problem):
    """The state in which `Flat` has just been evaluated."""
    return cycle.CycleState(
        cycle=0,
        labelled=DATA.initial,
        phase=Scoring(variables=small.flat_variables(), journal=Journal()),
    )


@functools.cache
def measured(engine="ghost"):
    """The problem, and the events and phases up to the measures."""
    problem = small.flat_problem({**SCORED, "acquisition.engine": engine})
    state, events, phases = scoring(problem), [], []
    while not events or events[-1].kind != "measured":
        phases.append(state.phase)
        state, event = cycle.advance(state, problem)
        events.append(event)
    return problem, events, [*phases, state.phase]


def event(kind, engine="ghost"):
    _, events, _ = measured(engine)
    (found,) = [e for e in events if e.kind == kind]
    return found


@functools.cache
def slow_norms():
    """Squared gradient norms of the true labels, one example at a time, by autodiff."""
    problem, _, _ = measured()
    ids = event("selected").arrays["ids"]
    labels, variables = problem.labelled_set(ids), dict(small.flat_variables())
    params = variables.pop("params")

    @jax.jit
    def gradient(params, image, joints, present):
        def loss(params):
            output = small.FLAT.apply({**variables, "params": params}, image[None])
            target = problem.spec.render(joints, present)
            return losses.heatmap_loss(output.heatmaps[0], target, present)

        return jax.grad(loss)(params)

    found = []
    images = scale_images(small.crops(ids)["image"])
    for image, joints, present in zip(
        images, labels.joints, labels.present, strict=True
    ):
        leaves = jax.tree.leaves(gradient(params, image, joints, present))
        found.append(sum(np.sum(np.asarray(v, np.float64) ** 2) for v in leaves))
    return np.array(found)


@pytest.mark.parametrize("engine", ["ghost", "goodfellow"])
def test_true_norms_are_exact_whatever_the_engine_of_the_method(engine):
    found = event("measured", engine).arrays["true_squared_norms"]
    np.testing.assert_allclose(found, slow_norms(), rtol=1e-4)


def test_the_measures_are_of_the_records_arrays():
    chosen, found = event("selected").arrays, event("measured")
    arrays = found.arrays
    picked = np.isin(chosen["ids"], chosen["selected"])

    def mean_pck(rows):
        ids = chosen["ids"][rows]
        return pck.pck(
            arrays["joints"][rows],
            DATA.joints[ids],
            DATA.status[ids],
            DATA.skeleton,
            threshold=0.2,
        ).mean

    wanted = measures.summarise(
        chosen["ids"],
        chosen["scores"],
        chosen["selected"],
        arrays["true_losses"],
        sq_norms=arrays["true_squared_norms"],
        embeddings=arrays["embeddings"],
        selected_pck=mean_pck(picked),
        pool_pck=mean_pck(np.ones(len(picked), bool)),
    )
    assert found.values == wanted
    assert None not in [wanted[name] for name in ("sq_norm_overlap", "pool_pck")]
    pictures = ("labelled_ids", "labelled_embeddings")
    assert "heatmaps" not in arrays  # output.images=0
    rows = {len(value) for name, value in arrays.items() if name not in pictures}
    assert rows == {len(chosen["ids"])}


def test_true_losses_are_those_of_the_labels():
    problem, _, _ = measured()
    found, ids = event("measured").arrays, event("selected").arrays["ids"]
    crops = small.crops(ids)
    output = small.flat_apply(small.flat_variables(), scale_images(crops["image"]))
    render, loss = jax.jit(problem.spec.render), jax.jit(losses.heatmap_loss)
    labels = problem.labelled_set(ids)
    for row in range(len(ids)):
        target = render(labels.joints[row], labels.present[row])
        wanted = loss(output.heatmaps[row], target, labels.present[row])
        assert found["true_losses"][row] == pytest.approx(float(wanted), rel=1e-4)
    np.testing.assert_allclose(found["embeddings"], output.embedding, rtol=1e-4)


def test_pictures_have_the_labelled_examples_and_heatmaps_of_the_ends():
    problem = small.flat_problem({**SCORED, "output.images": 5})
    _, events = small.advance_until(scoring(problem), problem, "measured")
    found, chosen = events[-1].arrays, event("selected").arrays
    assert events[-1].values == event("measured").values
    np.testing.assert_array_equal(found["labelled_ids"], DATA.initial)
    order = chosen["ids"][np.lexsort((chosen["ids"], -chosen["scores"]))]
    shown = np.sort([*order[:2], *order[-2:]])
    np.testing.assert_array_equal(found["heatmap_ids"], shown)
    for ids, name, of in (
        (DATA.initial, "labelled_embeddings", lambda output: output.embedding),
        (shown, "heatmaps", lambda output: output.heatmaps[:, -1]),
    ):
        images = scale_images(small.crops(ids)["image"])
        wanted = of(small.FLAT.apply(small.flat_variables(), images))
        np.testing.assert_allclose(found[name], wanted, rtol=2e-3, atol=1e-4)
    assert found["heatmaps"].dtype == np.float16


def test_without_true_norms_there_are_none_and_the_rest_is_the_same():
    problem = small.flat_problem({**SCORED, "evaluation.true_norms": False})
    _, events = small.advance_until(scoring(problem), problem, "measured")
    found, whole = events[-1], event("measured")
    assert "true_squared_norms" not in found.arrays
    assert found.values == {**whole.values, "sq_norm_overlap": None}


def test_what_is_measured_comes_after_the_choice():
    _, events, phases = measured()
    kinds = [e.kind for e in events]
    chosen = kinds.index("selected")
    assert set(kinds[:chosen]) == {"scoring"}
    assert set(kinds[chosen + 1 : -1]) == {"measuring"} and kinds[-1] == "measured"
    assert len(kinds) > chosen + 3
    for phase in phases[: chosen + 1]:
        assert isinstance(phase, Scoring)
        assert not any(
            k.startswith(("describe", "norms")) for k in phase.journal.names()
        )
    assert all(isinstance(phase, Measuring) for phase in phases[chosen + 1 : -1])
    assert any(k.startswith("norms-target") for k in phases[-2].journal.names())
    assert isinstance(phases[-1], AwaitingLabels)
    np.testing.assert_array_equal(
        phases[-1].chosen, event("selected").arrays["selected"]
    )


def test_a_method_is_given_labels_of_the_labelled_set_alone():
    given = {}

    def acquire(key, probe, labelled, unlabelled, budget, **options):
        given.update(probe=probe, labelled=labelled, ids=unlabelled)
        return by_score(unlabelled, np.arange(len(unlabelled)), budget)

    problem = small.flat_problem(SCORED)
    problem.method = Method(acquire)
    cycle.advance(scoring(problem), problem)
    assert given["probe"].journal.names() == []
    np.testing.assert_array_equal(given["labelled"].ids, DATA.initial)
    assert {len(part) for part in given["labelled"]} == {len(DATA.initial)}
    assert not np.isin(given["ids"], DATA.initial).any()


def test_a_choice_of_nothing_is_measured():
    problem = small.flat_problem({**SCORED, "acquisition.method": "control"})
    _, events = small.advance_until(scoring(problem), problem, "measured")
    found = events[-1].values
    assert found["chance_overlap"] == 0 and found["pool_pck"] is not None
    nothing = ("ranking_accuracy", "selected_pck", "mean_distance", "sq_norm_overlap")
    assert [found[name] for name in nothing] == [None] * 4
