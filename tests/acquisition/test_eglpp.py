"""Acquisition: the choices of the methods, and the probe they are made with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from jalpose.acquisition import control, eglpp, random
from jalpose.acquisition.method import Labelled, highest
from jalpose.acquisition.parts.neighbours import nearest_labels
from jalpose.acquisition.registry import METHODS
from jalpose.loop import cycle
from jalpose.runtime import sharding
from jalpose.scoring.passes import Passes
from jalpose.scoring.probe import Paused
from jalpose.settings.keys import ConfigError
from jalpose.storage.journal import Journal
from jalpose.tasks.pose import losses
from jalpose.training.trainer import scale_images
from tests.support import small

POOL = np.arange(40, 52)  # unlabelled examples of the small problem
OPTIONS = {
    "perplexity": 3.0,
    "neighbours": 4,
    "labels": "annotated",
    "renormalise": True,
}


def acquire(probe=None, labelled=None, ids=POOL, budget=5, **options):
    probe = probe or flat_probe()
    labelled = labelled or small.labelled_set()
    options = {**OPTIONS, **options}
    return eglpp.acquire(jax.random.key(0), probe, labelled, ids, budget, **options)


def flat_probe(**options):
    return small.probe(small.flat_passes(), small.flat_variables(), **options)


# Random, control, and the highest scores.


def choose(ids, budget=10, seed=0):
    return random.acquire(jax.random.key(seed), None, None, ids, budget).indices


def test_random_chooses_without_replacement_from_the_unlabelled():
    ids = np.arange(100, 160)
    chosen = choose(ids)
    assert chosen.shape == (10,) and len(set(chosen.tolist())) == 10
    assert np.isin(chosen, ids).all()
    assert sorted(choose(ids, budget=60)) == ids.tolist()


def test_random_does_not_depend_on_the_order_of_the_ids():
    ids = np.arange(100, 160)
    shuffled = np.random.default_rng(0).permutation(ids)
    np.testing.assert_array_equal(choose(ids), choose(shuffled))


def test_random_does_not_depend_on_the_others():
    ids = np.arange(100, 160)
    order = choose(ids, budget=60)
    fewer = np.setdiff1d(ids, order[:7])
    np.testing.assert_array_equal(choose(fewer, budget=53), order[7:])


def test_random_chooses_by_its_key():
    ids = np.arange(100, 160)
    assert choose(ids).tolist() == choose(ids).tolist()
    assert choose(ids, seed=1).tolist() != choose(ids).tolist()


def test_random_is_uniform():
    # 400 choices of 5 of 20: each is chosen 100 times, standard deviation 8.7.
    ids = np.arange(1000, 1020)
    counts = np.zeros(20)
    for seed in range(400):
        counts[choose(ids, budget=5, seed=seed) - 1000] += 1
    assert counts.sum() == 2000
    assert np.abs(counts - 100).max() < 4 * 8.7
    # Chi-squared of 19 degrees of freedom, with the variance without replacement.
    assert 5 < np.sum((counts - 100) ** 2 / 75) * 19 / 20 < 45


def test_random_gives_no_scores():
    found = random.acquire(jax.random.key(0), None, None, POOL, 3)
    assert found.scores.shape == POOL.shape and np.isnan(found.scores).all()


def test_control_chooses_nothing():
    found = control.acquire(jax.random.key(0), None, None, POOL, 3)
    assert found.indices.shape == (0,) and found.indices.dtype == np.int64
    assert found.scores.shape == POOL.shape and np.isnan(found.scores).all()


def test_highest_scores_come_first_and_ties_go_by_id():
    ids = np.array([9, 4, 7, 1, 3])
    scores = np.array([1.0, 2.0, 1.0, 2.0, 0.5], np.float32)
    assert highest(ids, scores, 5).tolist() == [1, 4, 7, 9, 3]
    assert highest(ids, scores, 3).tolist() == [1, 4, 7]
    order = np.array([2, 0, 4, 1, 3])
    assert highest(ids[order], scores[order], 5).tolist() == [1, 4, 7, 9, 3]


def test_methods_are_registered_by_name():
    assert set(METHODS) >= {"eglpp", "random", "control"}
    assert METHODS["eglpp"].uses_engine and not METHODS["random"].uses_engine


# EGL++ against the slow, obvious way.


@functools.cache
def slow_parts():
    """Embeddings and heatmaps of pool and labelled, each from a batch of one."""
    variables = small.flat_variables()
    found = {}
    for name, ids in (("pool", POOL), ("labelled", small.dataset().initial)):
        images = scale_images(small.crops(ids)["image"])
        outputs = [small.flat_apply(variables, image[None]) for image in images]
        found[name] = {
            "images": images,
            "embedding": np.concatenate([o.embedding for o in outputs]),
            "heatmaps": np.concatenate([o.heatmaps for o in outputs]),
        }
    return found


@jax.jit
def gradient_of(params, rest, image, target, present):
    def loss(params):
        output = small.FLAT.apply({**rest, "params": params}, image[None])
        return losses.heatmap_loss(output.heatmaps[0], target, present)

    return jax.grad(loss)(params)


def slow_eglpp(labels, renormalise):
    labelled = small.labelled_set()
    variables = dict(small.flat_variables())
    params = variables.pop("params")
    parts = slow_parts()
    possible = [
        row
        for row in range(len(labelled.ids))
        if not labelled.held_out[row] and labelled.present[row].any()
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
            present = labelled.present[row]
            target = (
                small.SPEC.render(labelled.joints[row], present)
                if labels == "annotated"
                else parts["labelled"]["heatmaps"][row]
            )
            gradient = gradient_of(
                params, variables, parts["pool"]["images"][i], target, present
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
    banned = labelled._replace(
        held_out=labelled.held_out | first,
        present=labelled.present & ~(favourites & ~first)[:, None],
    )
    found = acquire(labelled=banned).explanation["neighbour_ids"]
    assert not np.isin(found, labelled.ids[favourites]).any()
    assert not np.isin(found, labelled.ids[labelled.held_out]).any()


def test_the_order_of_the_labelled_changes_no_score():
    labelled = small.labelled_set()
    order = np.random.default_rng(0).permutation(len(labelled.ids))
    shuffled = Labelled(*[part[order] for part in labelled])
    found = acquire(labelled=shuffled)
    np.testing.assert_allclose(found.scores, acquire().scores, rtol=1e-4)


def test_scores_do_not_depend_on_the_rest_of_the_pool():
    whole = acquire()
    some = acquire(ids=POOL[[2, 5, 11]], budget=2)
    np.testing.assert_allclose(some.scores, whole.scores[[2, 5, 11]], rtol=1e-4)


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
        eglpp.check(36, **{**OPTIONS, **options})


def test_check_takes_all_there_are():
    eglpp.check(36, **{**OPTIONS, "neighbours": 36, "perplexity": 35.5})


def test_too_many_neighbours_are_refused_before_anything_compiles():
    with pytest.raises(ConfigError, match=r"eglpp\.neighbours=41, but only "):
        small.problem({"acquisition.eglpp.neighbours": 41})


# The number of annotated joints.

NUM_JOINTS = 14


@functools.cache
def trained_scores(annotated, seed):
    """EGL++ of a trained hourglass, where only some joints of labels are annotated.

    Args:
      annotated: (low, high), how many joints a label has, uniform.
      seed: of the numbers, and of which joints these are.

    Returns:
      scores [M]; the same had all joints been in the mean, absent ones as empty maps,
      as published; and the expected number of joints of the candidate labels.
    """
    labelled = small.labelled_set()
    draws = np.random.default_rng(seed)
    counts = draws.integers(annotated[0], annotated[1] + 1, len(labelled.ids))
    order = draws.permuted(np.tile(np.arange(NUM_JOINTS), (len(counts), 1)), axis=1)
    masked = labelled._replace(present=order < counts[:, None])
    ids = np.arange(40, 88)
    probe = small.probe(
        small.problem().passes, small.base_variables(), journal=described(ids.size)
    )
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
    labelled = small.labelled_set()
    everything = labelled._replace(present=np.ones_like(labelled.present))
    probe = small.probe(small.problem().passes, small.base_variables())
    acquire(probe, everything, np.arange(40, 40 + num))
    return small.copied_journal(probe.journal, left_out=("norms",))


@pytest.mark.slow
def test_the_number_of_annotated_joints_alone_does_not_order_scores():
    ours, theirs = [], []
    for seed in range(4):
        scores, published, counts = trained_scores((10, 14), seed)
        ours.append(spearmanr(counts, scores).statistic)
        theirs.append(spearmanr(counts, published).statistic)
    assert abs(np.mean(ours)) < 0.4 and np.abs(ours).max() < 0.7, ours
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
    return small.problem(devices=devices).passes, small.base_variables()


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


# The probe's journal.


class Walker(Passes):
    """Counts the blocks that are computed."""

    def __init__(self):
        usual = small.flat_passes()
        self.__dict__.update(usual.__dict__)
        self.describe = usual.describe  # the same object is not compiled anew
        self.blocks = []

    def walk(self, fn, variables, ids, **options):
        start = options.get("start", 0)
        for block in super().walk(fn, variables, ids, **options):
            rows = len(next(iter(block.values())))
            what = getattr(fn, "__name__", "?")
            self.blocks.append((what, *ids[start : start + rows].tolist()))
            start += rows
            yield block


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("labels", ["annotated", "predicted"])
def test_pausing_and_resuming_is_exact_and_computes_each_block_once(labels, pieces):
    straight_walker, walker = Walker(), Walker()
    variables = small.flat_variables()
    straight = acquire(small.probe(straight_walker, variables), labels=labels)
    journal, pauses, paused = Journal(), 0, True
    while paused:
        probe = small.probe(walker, variables, journal=journal, pieces=pieces)
        before = small.copied_journal(journal)
        try:
            found = acquire(probe, labels=labels)
            paused = False
        except Paused:
            pauses += 1
        assert small.same_journals(journal, before)  # its own is a copy
        journal = small.copied_journal(probe.journal)
    # The search for neighbours is one piece more, on the host.
    assert pauses == len(walker.blocks) // pieces
    assert walker.blocks == straight_walker.blocks
    assert len(set(walker.blocks)) == len(walker.blocks)
    np.testing.assert_array_equal(found.indices, straight.indices)
    assert found.scores.tobytes() == straight.scores.tobytes()
    assert found.summary == straight.summary
    for name, value in straight.explanation.items():
        assert found.explanation[name].tobytes() == value.tobytes(), name


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
    walker = Walker()
    walker.threads = threads
    probe = small.probe(walker, small.flat_variables())
    found = probe.blocks("squares", lambda at: {"square": at**2}, POOL, 3)
    assert found["square"].tolist() == [n**2 for n in range(12)]
    found, single = acquire(probe), acquire()
    for name, value in single.explanation.items():
        assert found.explanation[name].tobytes() == value.tobytes(), name


def test_what_a_probe_returns_is_read_only():
    for value in flat_probe().describe(POOL).values():
        with pytest.raises(ValueError, match="read-only"):
            value[0] = 0


def peaks(output, key):
    del key
    return {"found": jnp.max(output.heatmaps)}


def troughs(output, key):
    del key
    return {"found": jnp.min(output.heatmaps)}


def draw(output, key):
    del output
    return {"found": jax.random.uniform(key)}


def test_reduce_applies_the_function_to_each_example():
    output = small.flat_apply(
        small.flat_variables(), scale_images(small.crops(POOL)["image"])
    )
    found = flat_probe().reduce(peaks, POOL)["found"]
    np.testing.assert_allclose(found, output.heatmaps.max(axis=(1, 2, 3, 4)), rtol=1e-4)


def test_two_reductions_of_the_same_examples_are_kept_apart():
    probe = flat_probe()
    high, low = (probe.reduce(fn, POOL)["found"] for fn in (peaks, troughs))
    assert (high > low).all()
    one, two = (probe.reduce(draw, POOL, jax.random.key(n))["found"] for n in (1, 2))
    assert not np.any(one == two)


def test_two_norms_of_the_same_examples_are_kept_apart():
    probe = flat_probe()
    whole = acquire(probe)
    other = acquire(probe, neighbours=2, labels="predicted")
    assert not np.allclose(whole.scores, other.scores)


def test_keys_of_a_reduction_go_by_example():
    key = jax.random.key(3)
    found = flat_probe().reduce(draw, POOL, key)["found"]
    again = flat_probe().reduce(draw, POOL[::-1].copy(), key)["found"]
    np.testing.assert_array_equal(found, again[::-1])
    assert len(set(found.tolist())) == len(POOL)


def test_scoring_through_the_cycle_leaves_the_journal_it_was_given_alone():
    problem = small.problem()
    problem.passes = small.flat_passes()
    state = cycle.CycleState(
        cycle=0,
        labelled=problem.dataset.initial,
        phase=cycle.Scoring(variables=small.flat_variables(), journal=Journal()),
    )
    after, event = cycle.advance(state, problem)
    assert event.kind == "scoring" and state.phase.journal.names() == []
    assert after.phase.journal.names()
    assert after.phase.variables is state.phase.variables
