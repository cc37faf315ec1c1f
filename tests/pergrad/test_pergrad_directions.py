"""Which directions the engine `sketch` takes, and how its random signs behave."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.models.hourglass import StackedHourglass
from jalpose.pergrad import api, sketch, taps
from jalpose.pergrad.api import Engine
from jalpose.pergrad.plan import make_plan
from tests.support import small
from tests.support.networks import Net, random, square_loss, targets_for, variables_of

# Random signs over what is left out.

DRAWS = 2000


@functools.cache
def vector_network():
    """theory.md, section 3: an MLP of 6, 9 and 12; weights, and A = S R^T J J^T R S."""

    def mlp(module, x):
        return nn.Dense(12, name="head")(jnp.tanh(nn.Dense(9)(x)))

    net, x = Net(mlp), random(3, 1, 6)
    variables = variables_of(net, x)
    targets = 0.3 + targets_for(net.apply, variables, x, 5, seed=4)
    weights = np.array([[0.4, 0.1, 0.2, 0.05, 0.25]], np.float32)

    @jax.jit
    def jacobian(params, x):
        found = jax.jacobian(lambda p: net.apply({"params": p}, x)[0])(params)
        return jnp.concatenate([g.reshape(12, -1) for g in jax.tree.leaves(found)], 1)

    output = jax.jit(net.apply)(variables, x)
    residuals = np.asarray(output)[0] - targets[0]  # [K, 12]
    mixed = np.sqrt(weights[0])[:, None] * residuals @ jacobian(variables["params"], x)
    return net, variables, x, targets, weights, np.float64(mixed @ mixed.T)


@functools.cache
def drawn(passes, split_mean, remainder):
    """(exact, estimates, their standard errors) for `DRAWS` keys."""
    net, variables, x, targets, weights, gram = vector_network()

    def repeated(rows):
        return np.repeat(rows, DRAWS, axis=0)

    engine = Engine("sketch", passes=passes, split_mean=split_mean, remainder=remainder)

    @jax.jit
    def estimate(keys, *arrays):
        return api.expected_squared_norm(
            engine, net.apply, square_loss, *arrays, keys=keys
        )

    keys = jax.random.split(jax.random.key(7), DRAWS)
    found = estimate(keys, variables, *map(repeated, (x, targets, weights)))
    return np.trace(gram), np.float64(found.total), np.float64(found.standard_error)


def is_mean(values, wanted):
    """Whether a mean is within four standard errors that are not vacuous."""
    error = values.std(ddof=1) / len(values) ** 0.5
    assert 0 < error < 0.05 * wanted
    return abs(values.mean() - wanted) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("passes", "split_mean", "remainder"),
    [(3, True, 2), (2, False, 2), (2, True, 1), (4, False, 3)],
)
def test_random_signs_make_the_estimate_unbiased(passes, split_mean, remainder):
    exact, estimates, _ = drawn(passes, split_mean, remainder)
    assert is_mean(estimates, exact)
    assert not is_mean(1.5 * estimates, exact)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("passes", "split_mean", "remainder"), [(3, True, 2), (2, False, 2), (4, False, 3)]
)
def test_the_standard_error_is_the_spread(passes, split_mean, remainder):
    _, estimates, errors = drawn(passes, split_mean, remainder)
    spread = estimates.std(ddof=1)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.1)


def test_one_pass_of_signs_has_no_standard_error():
    assert np.isnan(drawn(2, True, 1)[2]).all()


# The identities of theory.md, section 3.


basis_of = jax.jit(sketch.basis, static_argnames="split_mean")


@pytest.fixture(scope="module")
def tiny():
    """(A, weights, directions of the metric A / (s s^T), with and without the mean)."""
    *_, weights, gram = vector_network()
    roots = np.sqrt(weights[0])
    metric = gram / np.outer(roots, roots)
    bases = [
        np.float64(basis_of(np.float32(metric), weights[0], split_mean=split))
        for split in (True, False)
    ]
    return gram, weights[0], *bases


def test_directions_are_orthonormal_and_have_the_whole_trace(tiny):
    gram, weights, *bases = tiny
    for basis in bases:
        np.testing.assert_allclose(basis @ basis.T, np.eye(5), atol=1e-5)
        terms = np.einsum("ik,kl,il->i", basis, gram, basis)
        assert terms.sum() == pytest.approx(np.trace(gram), rel=1e-5)
    np.testing.assert_allclose(bases[0][0], np.sqrt(weights), rtol=1e-5)
    # Eigenvectors, the largest eigenvalue first.
    values = np.linalg.eigvalsh(gram)[::-1]
    terms = np.einsum("ik,kl,il->i", bases[1], gram, bases[1])
    np.testing.assert_allclose(terms, values, rtol=1e-3, atol=1e-4 * values[0])
    # Once the mean is out, the eigenvectors of what is left.
    away = np.eye(5) - np.outer(bases[0][0], bases[0][0])
    left = np.linalg.eigvalsh(away @ gram @ away)[:0:-1]
    terms = np.einsum("ik,kl,il->i", bases[0][1:], gram, bases[0][1:])
    np.testing.assert_allclose(terms, left, rtol=1e-3, atol=1e-4 * values[0])


@pytest.mark.parametrize("split_mean", [True, False])
def test_over_all_signs_mean_and_variance_are_the_formulas(tiny, split_mean):
    gram, _, with_mean, without = tiny
    basis = with_mean if split_mean else without
    for leading in (1, 2):
        rest = basis[leading:]
        signs = np.array(list(itertools.product([-1, 1], repeat=len(rest))))
        mixed = signs @ rest
        values = np.einsum("sk,kl,sl->s", mixed, gram, mixed)
        inside = rest @ gram @ rest.T
        assert values.mean() == pytest.approx(np.trace(inside), rel=1e-5)
        apart = np.sum(inside**2) - np.sum(np.diag(inside) ** 2)
        # Relative to the trace: in its own eigenbasis the estimate hardly varies.
        assert values.var() == pytest.approx(
            2 * apart, rel=1e-4, abs=1e-9 * np.trace(gram) ** 2
        )


def test_the_estimate_has_the_variance_of_the_formula():
    # Plain signs in a basis that does not diagonalise A: of the last layer's Gram.
    net, variables, x, targets, weights, gram = vector_network()
    metric = metric_of(net.apply, variables, x, targets)
    basis = np.float64(basis_of(metric, weights[0], split_mean=True))
    rest = basis[1:] @ gram @ basis[1:].T
    variance = 2 * (np.sum(rest**2) - np.sum(np.diag(rest) ** 2))
    _, estimates, _ = drawn(3, True, 2)
    assert estimates.var(ddof=1) == pytest.approx(variance / 2, rel=0.15)


# The metric.


def body(module, x):
    x = jnp.tanh(nn.Conv(4, (3, 3), 2, name="conv")(x))
    return nn.Conv(2, (1, 1), name="head")(x)


NET, INPUTS = Net(body), random(0, 1, 6, 6, 2)
VARIABLES = variables_of(NET, INPUTS)
TARGETS = targets_for(NET.apply, VARIABLES, INPUTS, 6)


def plan_of(apply_fn, variables, inputs):
    example = jax.tree.map(lambda x: x[0], inputs)
    params, other = variables["params"], dict(variables)
    del other["params"]
    plan = make_plan(apply_fn, params, other, example, reading="ghost")
    return plan, params, other, example


def last_layers_of(apply_fn, variables, inputs):
    """Names of the kernels of the last layers."""
    plan, *_ = plan_of(apply_fn, variables, inputs)
    layers, _ = sketch.last_layers(plan)
    return {plan.program.names[plan.taps[path][1]] for path in layers}


def metric_of(apply_fn, variables, inputs, targets):
    """Gram of the first example's candidates, for `square_loss`."""

    @jax.jit
    def metric(variables):
        plan, *parts = plan_of(apply_fn, variables, inputs)
        output, _, seen = taps.linearise(plan, *parts)
        return sketch.gram(plan, seen, output[None] - targets[0])

    return metric(variables)


def heatmaps_of(model):
    return lambda variables, images: model.apply(variables, images).prediction


def ends_in_softmax(variables, x):
    return jax.nn.softmax(NET.apply(variables, x))


@pytest.mark.slow
def test_all_heads_are_last_layers():
    images = np.zeros((1, 16, 16, 3), np.float32)
    model = StackedHourglass(3, stacks=2, channels=4, depth=1)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = last_layers_of(heatmaps_of(model), variables, np.zeros((1, 16, 16, 3)))
    assert found == {"heatmaps0/conv/kernel", "heatmaps1/conv/kernel"}
    images = np.zeros((1, 32, 32, 3), np.float32)
    found = last_layers_of(heatmaps_of(small.FLAT), small.flat_variables(), images)
    assert found == {"maps0/kernel", "maps1/kernel"}
    assert last_layers_of(NET.apply, VARIABLES, INPUTS) == {"head/kernel"}
    assert last_layers_of(ends_in_softmax, VARIABLES, INPUTS) == set()


def heads_gram(apply_fn, variables, inputs, targets, heads):
    """Gram of the gradients by the parameters of `heads`, by `jax.jacobian`."""

    @jax.jit
    def jacobian(params):
        def output(chosen):
            changed = {**variables, "params": {**params, **chosen}}
            return apply_fn(changed, inputs[:1])[0]

        chosen = {name: params[name] for name in heads}
        return output(chosen), jax.jacobian(output)(chosen)

    output, found = jacobian(variables["params"])
    residuals = (np.asarray(output) - targets[0]).reshape(len(targets[0]), -1)
    leaves = [np.reshape(j, (residuals.shape[1], -1)) for j in jax.tree.leaves(found)]
    gradients = residuals @ np.concatenate(leaves, axis=1)
    return gradients @ gradients.T


def test_the_metric_is_the_gram_of_the_last_layers_gradients():
    found = metric_of(NET.apply, VARIABLES, INPUTS, TARGETS)
    wanted = heads_gram(NET.apply, VARIABLES, INPUTS, TARGETS, ("head",))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def test_the_metric_of_two_heads_is_the_sum_of_theirs():
    def heads(module, x):
        x = jnp.tanh(nn.Dense(4)(x))
        maps = [nn.Dense(3, name=f"head{n}")(x) for n in (0, 1)]
        return jnp.stack([maps[0], -10 * maps[1] / 4], axis=1)

    net, x = Net(heads), random(0, 1, 5)
    variables = variables_of(net, x)
    targets = targets_for(net.apply, variables, x, 4)
    found = metric_of(net.apply, variables, x, targets)
    wanted = heads_gram(net.apply, variables, x, targets, ("head0", "head1"))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def test_without_a_last_layer_the_metric_is_the_gram_of_the_cotangents():
    found = metric_of(ends_in_softmax, VARIABLES, INPUTS, TARGETS)
    output = np.asarray(jax.jit(ends_in_softmax)(VARIABLES, INPUTS[:1]))
    residuals = (output - TARGETS[0]).reshape(6, -1)
    np.testing.assert_allclose(found, residuals @ residuals.T, rtol=1e-4)
