"""LL++'s closed forms against integrals, draws, and the page's check values."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from jalpose.theory import loss_pairs
from jalpose.theory.loss_pairs import PAPER, Gamma

# P(|l1 - l2| <= m), of shape, rate and m.
WITHIN = [
    (1, 5, 0.1, 0.39346934),
    (2, 3, 0.5, 0.60952222),
    (3, 10, 0.05, 0.18497443),
    (4, 15, 0.05, 0.23009787),
    (4, 15, 0.3, 0.89125334),
    (5, 2, 1, 0.50024627),
    (4, 15, 0.02, 0.0934700036),
    (4, 15, 0.125, 0.5268123173),
]


def density(gamma, x):
    return stats.gamma.pdf(x, gamma.shape, scale=1 / gamma.rate)


@pytest.mark.parametrize("shape, rate, margin, value", WITHIN)
def test_pairs_within_a_margin(shape, rate, margin, value):
    gamma = Gamma(shape, rate)
    found = float(loss_pairs.similar(margin, gamma))
    assert found == pytest.approx(value, abs=1e-8)

    def inner(x):
        ends = stats.gamma.cdf([x - margin, x + margin], shape, scale=1 / rate)
        return density(gamma, x) * (ends[1] - ends[0])

    exact = sum(
        integrate.quad(inner, *ends, epsabs=1e-12)[0]
        for ends in ((0, margin), (margin, 60 / rate))
    )
    assert found == pytest.approx(exact, abs=1e-9)


def test_within_nothing_and_within_everything_and_of_large_shapes():
    assert loss_pairs.similar(0.0, PAPER) == pytest.approx(0.0, abs=1e-15)
    assert loss_pairs.similar(100.0, PAPER) == 1.0
    many = loss_pairs.similar(np.linspace(0, 2, 50), Gamma(100, 100.0))
    assert np.all(np.diff(many) > -1e-12) and many[-1] == pytest.approx(1.0, abs=1e-9)


def test_the_expected_share_by_three_ways():
    """Gauss-Laguerre, the incomplete Gamma functions' closed form, and an integral."""
    margins = np.array([0.0, 0.1, 0.2])
    known = [0.5, 0.614561875396, 0.695687268031]
    np.testing.assert_allclose(
        loss_pairs.higher_share(margins, PAPER), known, atol=1e-12
    )
    a, rate = PAPER
    for margin in (0.05, 0.3):
        y, k = rate * margin, np.arange(a)
        signs = special.comb(a - 1, k) * (-(y**2)) ** (a - 1 - k)

        def upper(order, y=y):
            return (
                special.exp1(y)
                if order == 0
                else special.gammaincc(order, y) * special.gamma(order)
            )

        below = signs @ [upper(2 * one + 1) for one in k]
        above = signs @ [upper(2 * one) for one in k]
        closed = 0.5 + y / 2 * above / below
        assert loss_pairs.higher_share(margin, PAPER) == pytest.approx(
            closed, abs=1e-11
        )


def test_the_margins_density_is_one_and_eq_6_follows_from_it():
    total, _ = integrate.quad(
        lambda m: float(loss_pairs.margin_density(m, PAPER)), 0, 5
    )
    assert total == pytest.approx(0.5, abs=1e-10)
    known = [2.34375, 1.89573476, 1.09687135]
    found = loss_pairs.margin_density(np.array([0, 0.1, 0.2]), PAPER)
    np.testing.assert_allclose(found, known, rtol=1e-8)
    margins = np.array([[0.0], [0.1], [0.2]])
    factors = loss_pairs.expected_factor(margins, np.array([-1, 0, 1]), PAPER)
    np.testing.assert_allclose(
        factors,
        [
            [-0.231059, 0, 0.231059],
            [-0.345620, -0.114562, 0.116497],
            [-0.426746, -0.195687, 0.035371],
        ],
        atol=1e-6,
    )


def test_what_a_share_depends_on():
    margins = np.linspace(0, 3, 40)
    shares = loss_pairs.higher_share(margins, PAPER)
    assert np.all(np.diff(shares) > 0) and shares[-1] > 0.95
    np.testing.assert_allclose(
        loss_pairs.higher_share(margins / 7, Gamma(4, 105.0)), shares, rtol=1e-12
    )


@pytest.mark.parametrize(
    "losses, predictions, known",
    [
        ((0.45, 0.47), (1.48, 1.51), (0.489130, 0.492501, 0.00002272, 0.003370, 0.97)),
        ((0.45, 2.87), (1.48, 1.63), (0.135542, 0.462570, 0.24450042, 0.327028, 0.85)),
        ((2, 0.5), (0.3, -0.2), (0.8, 0.622459, 0.07367456, -0.177541, 0.5)),
    ],
)
def test_a_pair_is_the_check_value_and_what_is_trained(losses, predictions, known):
    jnp = pytest.importorskip("jax.numpy")
    from jalpose.training import objectives

    found = loss_pairs.pair(losses, predictions)
    np.testing.assert_allclose(found[:5], known, atol=1e-6)
    truth = objectives.Truth(
        jnp.array(losses, jnp.float32), jnp.ones(2, bool), None, {}
    )
    outputs = jnp.array(predictions, jnp.float32)[:, None]
    assert objectives.pair_kl(outputs, truth) == pytest.approx(
        found.divergence, rel=1e-2, abs=1e-7
    )
    assert objectives.margin_ranking(outputs, truth) == pytest.approx(found.hinge)


def test_a_gamma_is_found_again_and_pairs_are_counted():
    draws = np.random.default_rng(0)
    losses = draws.gamma(3, 1 / 40, 4000)
    found = loss_pairs.fit(losses)
    assert found.shape == 3 and found.rate == pytest.approx(40, rel=0.05)
    few = losses[:60]
    apart = np.abs(few[:, None] - few)[np.triu_indices(60, 1)]
    assert loss_pairs.share_within(few, 0.03) == pytest.approx((apart <= 0.03).mean())
    assert loss_pairs.share_within(losses, 0.03) == pytest.approx(
        float(loss_pairs.similar(0.03, found)), abs=0.01
    )
