"""EGL++: against the slow way, what changes its scores, pauses and devices."""

import functools

import jax
import numpy as np
import pytest
from scipy.stats import spearmanr

from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.acquisition.method import Pool, highest
from jalpose.acquisition.parts.neighbours import nearest_labels
from jalpose.runtime import sharding
from jalpose.scoring.passes import Passes
from jalpose.scoring.probe import Paused
from jalpose.settings.checks import ConfigError
from jalpose.storage.journal import Journal
from jalpose.tasks.pose import losses
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE
from jalpose.training.trainer import scale_images
from tests.support import small
from tests.support.probes import Counted

POOL = np.arange(40, 52)  # unlabelled examples of the small problem
OPTIONS = {"perplexity": 3.0, "neighbours": 4}


def acquire(probe=None, labelled=None, ids=POOL, budget=5, **options):
    method = EglPlusPlus(**{**OPTIONS, **options})
    pool = Pool(unlabelled=ids, labelled=labelled or small.labelled_set())
    return method.acquire(jax.random.key(0), probe or flat_probe(), pool, budget)


def flat_probe(**options):
    return small.probe(small.flat_passes(), small.flat_variables(), **options)


def present(labelled):
    """Joints that are annotated and in the crop: bool [L, J]."""
    joints = labelled.labels["joints"]
    inside = ((joints >= -0.5) & (joints <= 31.5)).all(axis=-1)
    return inside & (labelled.labels["status"] != ABSENT)


def annotated(labelled, joints):
    """The labelled set where nothing but `joints` [L, J] is annotated."""
    status = np.where(joints, VISIBLE, ABSENT).astype(np.int8)
    labels = {**labelled.labels, "status": status}
    return labelled._replace(labels=labels, known=small.context().labels.known(labels))


# EGL++ against the slow, obvious way.


@functools.cache
def slow_parts():
    """Embeddings and predictions of pool and labelled, each from a batch of one."""
    variables = small.flat_variables()
    found = {}
    for name, ids in (("pool", POOL), ("labelled", small.dataset().initial)):
        images = scale_images(small.crops(ids)["image"])
        outputs = [small.flat_apply(variables, image[None]) for image in images]
        found[name] = {
            "images": images,
            "embedding": np.concatenate([o.embedding for o in outputs]),
            "prediction": np.concatenate([o.prediction for o in outputs]),
        }
    return found


@jax.jit
def gradient_of(params, rest, image, target, present):
    def loss(params):
        output = small.FLAT.apply({**rest, "params": params}, image[None])
        return losses.heatmap_loss(output.prediction[0], target, present)

    return jax.grad(loss)(params)


def slow_eglpp(labels, renormalise):
    labelled = small.labelled_set()
    variables = dict(small.flat_variables())
    params = variables.pop("params")
    parts, counted = slow_parts(), present(labelled)
    possible = [
        row
        for row in range(len(labelled.ids))
        if not labelled.held_out[row] and counted[row].any()
    ]
    found = nearest_labels(
        parts["pool"]["embedding"],
        parts["labelled"]["embedding"][possible],
        perplexity=OPTIONS["perplexity"],
        num_neighbours=OPTIONS["neighbours"],
        renormalise=renormalise,
    )
    scores, ids = [], []
    for i in range(len(POOL)):
        score = 0.0
        for neighbour, probability in zip(
            found.indices[i], found.probabilities[i], strict=True
        ):
            row = possible[neighbour]
            target = (
                small.SPEC.render(labelled.labels["joints"][row], counted[row])
                if labels == "annotated"
                else parts["labelled"]["prediction"][row]
            )
            gradient = gradient_of(
                params, variables, parts["pool"]["images"][i], target, counted[row]
            )
            score += probability * sum(
                float(np.sum(np.asarray(g, np.float64) ** 2))
                for g in jax.tree.leaves(gradient)
            )
        scores.append(score)
        ids.append([labelled.ids[possible[n]] for n in found.indices[i]])
    return np.array(scores), np.array(ids), found


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("labels", ["annotated", "predicted"])
def test_eglpp_equals_a_slow_computation(labels, renormalise):
    scores, ids, neighbours = slow_eglpp(labels, renormalise)
    found = acquire(labels=labels, renormalise=renormalise)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-3)
    np.testing.assert_array_equal(found.indices, highest(POOL, scores, 5))
    explained = found.explanation
    np.testing.assert_array_equal(explained["neighbour_ids"], ids)
    np.testing.assert_allclose(
        explained["neighbour_probabilities"], neighbours.probabilities, rtol=1e-3
    )
    np.testing.assert_allclose(
        np.sum(
            explained["neighbour_probabilities"] * explained["neighbour_squared_norms"],
            axis=1,
        ),
        found.scores,
        rtol=1e-4,
    )
    np.testing.assert_allclose(explained["achieved_perplexity"], 3.0, rtol=1e-4)
    mass = explained["neighbour_probabilities"].sum(axis=1)
    if renormalise:
        np.testing.assert_allclose(mass, 1, rtol=1e-5)
    else:
        assert (mass < 1).all()
    assert found.summary["not_converged"] == 0
    captured = neighbours.captured_mass.mean()
    assert found.summary["mean_captured_mass"] == pytest.approx(captured, rel=1e-3)


def test_predicted_labels_are_other_labels():
    annotated, predicted = acquire(), acquire(labels="predicted")
    assert not np.allclose(annotated.scores, predicted.scores, rtol=0.1)
    np.testing.assert_array_equal(
        annotated.explanation["neighbour_ids"], predicted.explanation["neighbour_ids"]
    )


@pytest.mark.parametrize("microbatch", [3])
def test_a_microbatch_changes_no_score(microbatch):
    found = acquire(flat_probe(microbatch=microbatch))
    np.testing.assert_allclose(found.scores, acquire().scores, rtol=1e-5)


def test_held_out_examples_and_those_without_joints_are_never_neighbours():
    labelled = small.labelled_set()
    # Without a ban these are the neighbours that are asked for most.
    ids, counts = np.unique(acquire().explanation["neighbour_ids"], return_counts=True)
    favourites = np.isin(labelled.ids, ids[np.argsort(-counts)[:8]])
    first = favourites & (np.cumsum(favourites) <= 4)
    banned = annotated(labelled, present(labelled) & ~(favourites & ~first)[:, None])
    banned = banned._replace(held_out=labelled.held_out | first)
    assert not banned.known[favourites & ~first].any()
    found = acquire(labelled=banned).explanation["neighbour_ids"]
    assert not np.isin(found, labelled.ids[favourites]).any()
    assert not np.isin(found, labelled.ids[labelled.held_out]).any()


def test_the_order_of_the_labelled_changes_no_score():
    labelled = small.labelled_set()
    order = np.random.default_rng(0).permutation(len(labelled.ids))
    found = acquire(labelled=labelled.at(order))
    np.testing.assert_allclose(found.scores, acquire().scores, rtol=1e-4)


def test_scores_do_not_depend_on_the_rest_of_the_pool():
    whole = acquire()
    some = acquire(ids=POOL[[2, 5, 11]], budget=2)
    np.testing.assert_allclose(some.scores, whole.scores[[2, 5, 11]], rtol=1e-4)


def check(**options):
    method = EglPlusPlus(**{**OPTIONS, **options})
    method.check(small.TASK, num_trained=36, budget=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 37}, r"acquisition\.eglpp\.neighbours=37, but only 36 "),
        ({"perplexity": 36.0}, r"acquisition\.eglpp\.perplexity=36\.0, but only 36 "),
        ({"perplexity": 50.0}, r"acquisition\.eglpp\.perplexity=50\.0, but only 36 "),
    ],
)
def test_check_names_what_asks_for_too_much(options, message):
    with pytest.raises(ValueError, match=message):
        check(**options)


def test_check_takes_all_there_are():
    check(neighbours=36, perplexity=35.5)


def test_too_many_neighbours_are_refused_before_anything_compiles():
    with pytest.raises(ConfigError, match=r"eglpp\.neighbours=41, but only "):
        small.context({"acquisition.eglpp.neighbours": 41})


# The number of annotated joints.

NUM_JOINTS = 14


def whole_poses():
    """The labelled set with every joint annotated; an absent one is in the corner."""
    labelled = small.labelled_set()
    whole = annotated(labelled, np.ones_like(present(labelled)))
    assert present(whole).all()
    return whole


@functools.cache
def trained_scores(number, seed):
    """EGL++ of a trained hourglass, where only some joints of labels are annotated.

    Args:
      number: (low, high), how many joints a label has, uniform.
      seed: of the numbers, and of which joints these are.

    Returns:
      scores [M]; the same had all joints been in the mean, absent ones as empty maps,
      as published; and the expected number of joints of the candidate labels.
    """
    labelled = whole_poses()
    draws = np.random.default_rng(seed)
    counts = draws.integers(number[0], number[1] + 1, len(labelled.ids))
    order = draws.permuted(np.tile(np.arange(NUM_JOINTS), (len(counts), 1)), axis=1)
    masked = annotated(labelled, order < counts[:, None])
    ids = np.arange(40, 88)
    passes, variables = hourglass(1)
    probe = small.probe(passes, variables, journal=described(ids.size))
    found = acquire(probe, masked, ids).explanation
    rows = np.searchsorted(labelled.ids, found["neighbour_ids"])
    weights, norms = (
        found["neighbour_probabilities"],
        found["neighbour_squared_norms"],
    )
    ours = np.sum(weights * norms, axis=1)
    published = np.sum(weights * norms * (counts[rows] / NUM_JOINTS) ** 2, axis=1)
    return ours, published, np.sum(weights * counts[rows], axis=1)


@functools.cache
def described(num):
    """Journal of all that does not depend on the labels: embeddings, neighbours."""
    labelled = whole_poses()
    probe = small.probe(*hourglass(1))
    acquire(probe, labelled, np.arange(40, 40 + num))
    return small.copied_journal(probe.journal, left_out=("norms",))


@pytest.mark.slow
def test_the_number_of_annotated_joints_alone_does_not_order_scores():
    ours, theirs = [], []
    for seed in range(4):
        scores, published, counts = trained_scores((10, 14), seed)
        ours.append(spearmanr(counts, scores).statistic)
        theirs.append(spearmanr(counts, published).statistic)
    assert abs(np.mean(ours)) < 0.4 and np.abs(ours).max() < 0.75, ours
    # The loss is what makes the difference: the published one favours many joints.
    assert np.mean(theirs) > np.mean(ours) + 0.3, (ours, theirs)


@pytest.mark.slow
def test_labels_of_half_the_joints_score_no_lower_and_in_much_the_same_order():
    # The mean of 7 gradients has the squared norm of the mean of 14 where those are
    # alike, and twice that where they are orthogonal (here they nearly are). With
    # absent joints in the mean, as published, it would be a quarter, or half.
    everything, _, _ = trained_scores((14, 14), 0)
    ratios, correlations = [], []
    for seed in range(3):
        half, published, _ = trained_scores((7, 7), seed)
        ratios.append(half.mean() / everything.mean())
        correlations.append(spearmanr(everything, half).statistic)
        assert published.mean() < 0.7 * everything.mean()
    assert 1.0 < np.mean(ratios) < 2.2, ratios
    assert np.mean(correlations) > 0.3, correlations


# One device and eight.


def flat_network(devices):
    return small.flat_passes(devices), small.flat_variables()


def hourglass(devices):
    return small.context(devices=devices).passes, small.base_variables()


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(flat_network, id="flat"),
        pytest.param(hourglass, id="hourglass"),
    ],
)
def test_one_and_eight_devices_score_alike_and_select_the_same(network):
    ids, budget = small.dataset().pool[:32], 8
    labelled = small.labelled_set()
    found = {}
    for devices in (1, 8):
        passes, variables = network(devices)
        whole = sharding.replicate(passes.mesh, variables)
        probe = small.probe(passes, whole)
        found[devices] = acquire(probe, labelled, ids, budget)
        assert probe.describe(ids)["joints"].shape == (32, 14, 2)
    one, eight = found[1], found[8]
    np.testing.assert_allclose(eight.scores, one.scores, rtol=1e-3)
    cut = np.sort(one.scores)[-budget]
    margin = 1e-3 * cut
    sure = set(ids[one.scores > cut + margin].tolist())
    possible = set(ids[one.scores >= cut - margin].tolist())
    assert sure <= set(eight.indices.tolist()) <= possible
    assert sure <= set(one.indices.tolist()) <= possible


# Pauses.


@functools.cache
def counted_passes(threads=1):
    counted = Counted()
    passes = Passes(
        small.FLAT,
        small.TASK,
        mesh=small.mesh(),
        threads=threads,
        run_block=counted,
    )
    return passes, counted


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("labels", ["annotated", "predicted"])
def test_pausing_and_resuming_is_exact_and_computes_each_block_once(labels, pieces):
    (passes, counted), variables = counted_passes(), small.flat_variables()
    counted.blocks.clear()
    straight = acquire(small.probe(passes, variables), labels=labels)
    straight_blocks = [*counted.blocks]
    counted.blocks.clear()
    journal, pauses, paused = Journal(), 0, True
    while paused:
        probe = small.probe(passes, variables, journal=journal, pieces=pieces)
        before = small.copied_journal(journal)
        try:
            found = acquire(probe, labels=labels)
            paused = False
        except Paused:
            pauses += 1
        assert small.same_journals(journal, before)  # its own is a copy
        journal = small.copied_journal(probe.journal)
    # The search for neighbours is one piece more, on the host.
    assert pauses == len(counted.blocks) // pieces
    assert counted.blocks == straight_blocks
    assert len(set(counted.blocks)) == len(counted.blocks)
    np.testing.assert_array_equal(found.indices, straight.indices)
    assert found.scores.tobytes() == straight.scores.tobytes()
    assert found.summary == straight.summary
    for name, value in straight.explanation.items():
        assert found.explanation[name].tobytes() == value.tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_on_the_host_change_nothing(threads):
    passes, _ = counted_passes(threads)
    found = acquire(small.probe(passes, small.flat_variables()))
    for name, value in acquire().explanation.items():
        assert found.explanation[name].tobytes() == value.tobytes(), name


def test_two_norms_of_the_same_examples_are_kept_apart():
    probe = flat_probe()
    whole = acquire(probe)
    other = acquire(probe, neighbours=2, labels="predicted")
    assert not np.allclose(whole.scores, other.scores)
