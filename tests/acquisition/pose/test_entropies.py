"""Multi-peak and softmax entropy: goldens, slow oracles, and choices known before."""

import functools
import math
import re

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jalpose.acquisition.pose import multipeak_entropy
from jalpose.acquisition.pose.multipeak_entropy import MultiPeakEntropy
from jalpose.acquisition.softmax_entropy import SoftmaxEntropy
from jalpose.settings.checks import ConfigError
from jalpose.training.trainer import scale_images
from tests.support import small
from tests.support.probes import GivenOutputs
from tests.tasks.pose.test_peaks import slow_peaks

POOL = np.arange(40, 52)  # unlabelled examples of the small problem
METHODS: dict = {
    "multipeak": MultiPeakEntropy(),
    "raw": MultiPeakEntropy(normalise="raw", border=5, threshold=0),
    "softmax": SoftmaxEntropy(unit="value"),
    "warm": SoftmaxEntropy(temperature=0.25),  # of the peak, 30
}


def acquire(method, probe=None, ids=POOL, budget=5):
    method = METHODS.get(method, method)
    probe = probe or small.probe(small.flat_passes(), small.flat_variables())
    return method.acquire(jax.random.key(0), probe, small.pool(ids), budget)


@functools.cache
def scored(method):
    return acquire(method)


def probe_of(maps):
    """A probe whose examples' heatmaps [h, w, J] are given, by id."""
    return GivenOutputs(list(maps), np.stack(list(maps.values()))[:, None])


def bells(*peaks, size=64):
    """A joint's map with Gaussians (x, y, height) on it: [size, size]."""
    rows, columns = np.indices((size, size), np.float32)
    sigma = 1.75 * size / 64
    parts = [
        height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / sigma**2)
        for x, y, height in peaks
    ]
    return np.sum(parts, axis=0).astype(np.float32)


def stacked(*joints):
    return np.stack(joints, axis=-1)


# Choices known by construction.

ONE, TWO = (20, 20, 30), (45, 40, 25)
TOYS = {
    7: stacked(bells(ONE), bells(ONE)),  # both joints have one peak
    3: stacked(bells(ONE, TWO), bells(ONE)),  # one has two
    5: stacked(bells(ONE, TWO), bells(ONE, TWO)),  # both have
    9: stacked(bells(ONE, TWO, (50, 10, 20)), bells(ONE, TWO, (50, 10, 20))),
}


@pytest.mark.parametrize("method", ["multipeak", "softmax"])
def test_more_peaks_are_more_uncertain(method):
    found = acquire(method, probe_of(TOYS), np.array(sorted(TOYS)), 4)
    assert found.indices.tolist() == [9, 5, 3, 7]


def test_multipeak_golden():
    # Two peaks, 30 and 25: shares 6/11 and 5/11; their softmax is that of the
    # difference 1/11, p = 1 / (1 + e^(-1/11)). Raw: the difference is 5.
    ids = np.array(sorted(TOYS))
    found = acquire("multipeak", probe_of(TOYS), ids, 1)
    one = scipy.stats.entropy([1, math.exp(-1 / 11)])
    three = scipy.stats.entropy(np.exp(np.array([30, 25, 20]) / 75))
    np.testing.assert_allclose(
        found.scores, [one, 2 * one, 0, 2 * three], rtol=1e-5, atol=1e-6
    )
    assert found.explanation["num_peaks"].tolist() == [[2, 1], [2, 2], [1, 1], [3, 3]]
    np.testing.assert_allclose(
        found.explanation["joint_entropy"].sum(axis=1), found.scores, rtol=1e-6
    )
    assert found.summary["mean_peaks"] == 15 / 8
    places = found.explanation["peak_positions"]
    assert places.shape == (4, 2, 5, 2) and places.dtype == np.int16
    assert places[0, 0].tolist() == [[20, 20], [45, 40], *[[-1, -1]] * 3]
    assert places[2].tolist() == 2 * [[[20, 20], *[[-1, -1]] * 4]]
    raw = acquire("raw", probe_of(TOYS), ids, 1)
    one = scipy.stats.entropy([1, math.exp(-5)])  # 0.993 and 0.007
    np.testing.assert_allclose(raw.scores[1], 2 * one, rtol=1e-4)


@pytest.mark.slow
def test_one_clean_peak_on_faint_ripples_is_surer_than_two_equal_peaks():
    ripples = [(10, 10, 0.03), (50, 10, 0.03), (10, 50, 0.03), (50, 50, 0.03)]
    clean = bells((30, 30, 30), *ripples)[..., None]
    maps = {0: clean, 1: bells((20, 20, 30), (45, 40, 30))[..., None]}
    published = {"normalise": "raw", "border": 5}
    for options, one, two in (
        ({}, 0, math.log(2)),
        ({"threshold": 0}, 1.505, math.log(2)),  # counts ripples, and is above
        ({**published, "threshold": 0}, 0, math.log(2)),
    ):
        found = acquire(MultiPeakEntropy(**options), probe_of(maps), np.arange(2), 1)
        np.testing.assert_allclose(found.scores, [one, two], rtol=3e-3, atol=1e-6)
        assert found.indices == [1 if one < two else 0]


def test_the_temperature_of_the_softmax_is_in_units_of_the_peak():
    # One peak of 18, two of 27, one of 30, of labels 30 high. The paper's regime, a
    # peak of 1, puts the first highest; a softmax of the values the second.
    one, two, sure = (32, 32, 18), [(20, 20, 27), (45, 40, 27)], (32, 32, 30)
    maps = {0: bells(one), 1: bells(*two), 2: bells(sure)}
    probe = {k: v[..., None] for k, v in maps.items()}
    found = acquire(SoftmaxEntropy(unit="value"), probe_of(probe), np.arange(3), 3)
    np.testing.assert_allclose(found.scores, [0.93, 1.04, 0.24], atol=0.005)
    assert found.indices.tolist() == [1, 0, 2]
    found = acquire(SoftmaxEntropy(), probe_of(probe), np.arange(3), 3)
    wanted = [
        scipy.stats.entropy(scipy.special.softmax(m.astype(float) / 30).ravel())
        for m in maps.values()
    ]
    np.testing.assert_allclose(found.scores, wanted, rtol=3e-7)
    assert found.indices.tolist() == [0, 2, 1]


def test_equal_options_are_one_pass_others_another():
    probe, ids = probe_of(TOYS), np.array(sorted(TOYS))
    for normalise in ("raw", "sum", "raw"):
        acquire(MultiPeakEntropy(normalise=normalise), probe, ids)
    raw, shares, again = probe.functions
    assert raw is again and raw is not shares


def test_a_joint_at_the_border_counts_but_for_the_published_exclusion():
    maps = {0: bells((2, 30, 30), (40, 30, 30))[..., None]}
    found = {
        m: acquire(m, probe_of(maps), np.array([0]), 1) for m in ("multipeak", "raw")
    }
    np.testing.assert_allclose(found["multipeak"].scores, math.log(2), rtol=1e-4)
    assert found["raw"].scores == 0 and found["raw"].explanation["num_peaks"] == 1


@pytest.mark.parametrize("size", [64, 32, 16])
def test_distances_between_peaks_scale_with_the_map(size):
    # 4 pixels apart at 64 is one peak, 8 is two, whatever the map's size.
    scale = size / 64
    near, far = (
        bells((20 * scale, 32 * scale, 30), (x * scale, 32 * scale, 29), size=size)
        for x in (24, 32)
    )
    found = acquire("multipeak", probe_of({0: stacked(near, far)}), np.array([0]), 1)
    assert found.explanation["num_peaks"].tolist() == [[1, 2]]


@pytest.mark.parametrize("normalise", multipeak_entropy.NORMALISATIONS)
def test_entropies_of_special_peaks(normalise):
    values = np.float32([[0, 0, 0], [4, 0, 0], [-1, -1, 0], [2, 2, 2], [np.nan] * 3])
    found = np.arange(3) < np.array([[0], [1], [2], [3], [0]])
    fn = jax.jit(multipeak_entropy.peak_entropies, static_argnums=2)
    entropies = fn(values, found, normalise)
    expected = [0, 0, math.log(2), math.log(3), np.nan]
    np.testing.assert_allclose(entropies, expected, rtol=1e-6)


def test_softmax_golden():
    # 4 pixels at log 1, log 1, log 2, log 4, and a constant map: log 16 nats.
    maps = np.full((4, 4, 2), -100, np.float32)
    maps[0, :, 0] = np.log([1, 1, 2, 4])
    found = acquire("softmax", probe_of({0: maps}), np.array([0]), 1)
    entropies = [scipy.stats.entropy([1, 1, 2, 4]), math.log(16)]
    np.testing.assert_allclose(found.explanation["joint_entropy"], [entropies], 1e-5)
    np.testing.assert_allclose(found.scores, np.mean(entropies), rtol=1e-5)


# Through a network, against the slow way.


@functools.cache
def last_maps():
    output = small.flat_apply(
        small.flat_variables(), scale_images(small.crops(POOL)["image"])
    )
    return np.asarray(output.prediction[:, -1])  # [M, 8, 8, J]


def slow_multipeak(heatmap, normalise, border):
    # 5 pixels at 64x64 are 0.6 at 8x8: 1.
    peaks = slow_peaks(heatmap, 5, 1, None, border)
    values = np.array([value for value, _, _ in peaks], np.float64)
    if normalise == "sum" and len(values):
        values = values[(values >= 0.25 * values[0]) | (values[0] <= 0)]
        shares = np.maximum(values, 0)
        values = shares / (shares.sum() or 1)
    if not len(values):
        return 0.0
    return scipy.stats.entropy(scipy.special.softmax(values))


SLOW = {
    "multipeak": lambda m: slow_multipeak(m, "sum", 0),
    "raw": lambda m: slow_multipeak(m, "raw", 1),
    "softmax": lambda m: scipy.stats.entropy(scipy.special.softmax(m).ravel()),
    "warm": lambda m: scipy.stats.entropy(scipy.special.softmax(m / 7.5).ravel()),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_slow_way_scores_the_same(method):
    maps = last_maps().astype(np.float64)
    slow = [[SLOW[method](one[..., j]) for j in range(14)] for one in maps]
    over_joints = np.mean if isinstance(METHODS[method], SoftmaxEntropy) else np.sum
    scores = over_joints(slow, axis=1)
    found = scored(method)
    joints = found.explanation["joint_entropy"]
    np.testing.assert_allclose(joints, slow, rtol=1e-3, atol=1e-6)
    assert (joints >= 0).all()
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4)
    assert found.scores.dtype == np.float32 and np.ptp(found.scores) > 0
    assert found.indices.tolist() == POOL[np.argsort(-scores)[:5]].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_neither_order_nor_devices_change_a_score(method):
    shuffled = np.random.default_rng(0).permutation(POOL)
    probe = small.probe(small.flat_passes(8), small.flat_variables())
    again = acquire(method, probe, shuffled)
    expected = dict(zip(POOL.tolist(), scored(method).scores, strict=True))
    np.testing.assert_allclose(
        again.scores, [expected[i] for i in shuffled.tolist()], rtol=1e-4
    )
    np.testing.assert_array_equal(again.indices, scored(method).indices)


def test_two_options_of_one_method_are_kept_apart_by_a_probe():
    probe = small.probe(small.flat_passes(), small.flat_variables())
    for method in METHODS:
        again = acquire(method, probe)
        np.testing.assert_allclose(again.scores, scored(method).scores, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_no_numbers_are_named_by_example(method, value):
    broken = TOYS[5].copy()
    broken[11, 3, 1] = value
    ids = np.array([3, 5, 9])
    named = re.escape("the score of 1 of 3 examples is NaN or infinite: id 5.")
    with pytest.raises(FloatingPointError, match=named):
        acquire(method, probe_of({**TOYS, 5: broken}), ids, 1)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (MultiPeakEntropy, {"peaks": 1}, "peaks=1: the entropy of less than two"),
        (MultiPeakEntropy, {"min_distance": 0.0}, "min_distance=0.0 must be above 0"),
        (
            MultiPeakEntropy,
            {"normalise": "max"},
            "normalise='max' is unknown.*one of sum, raw",
        ),
        (MultiPeakEntropy, {"border": 32}, "border=32 must be from 0 to less than"),
        (MultiPeakEntropy, {"threshold": 1.5}, "threshold=1.5 must lie between 0"),
        (SoftmaxEntropy, {"temperature": 0.0}, "temperature=0.0 must be above 0"),
        (SoftmaxEntropy, {"unit": "pixel"}, "unit: 'pixel'. Known: peak, value"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_compiles(
    method, options, message
):
    with pytest.raises(ConfigError, match=rf"acquisition\.\w+_entropy\.{message}"):
        method(**options)
