"""Per-example gradient norms against the slow, obvious way to get them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.models.hourglass import StackedHourglass
from jalpose.pergrad import api
from jalpose.tasks.pose import losses
from tests.support.networks import (
    assert_norms_agree,
    norms_of,
    slow_norms,
    variables_of,
    ways,
)

B, K = 3, 4


class DenseConv(nn.Module):
    """A plain image regressor: convolution, batch norm, dense layers."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(4, (3, 3), (2, 2), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.relu(x).reshape(len(x), -1)
        return nn.Dense(5, name="out")(jnp.tanh(nn.Dense(7, name="hidden")(x)))


def dense_conv():
    model = DenseConv()
    draws = np.random.default_rng(0)
    inputs = draws.normal(size=(B, 8, 8, 3)).astype(np.float32)
    targets = draws.normal(size=(B, K, 5)).astype(np.float32)

    def loss_fn(output, target):
        return jnp.mean(jnp.square(output - target))

    return model, model.apply, loss_fn, inputs, targets


def hourglass():
    model = StackedHourglass(3, stacks=1, channels=8, depth=1)
    draws = np.random.default_rng(1)
    inputs = draws.random((B, 16, 16, 3)).astype(np.float32)
    maps = 5 * draws.random((B, K, 4, 4, 3)).astype(np.float32)
    present = draws.random((B, K, 3)) < 0.7
    present[..., 0] = True

    def apply_fn(variables, images):
        return model.apply(variables, images).prediction

    def loss_fn(output, candidate):
        return losses.heatmap_loss(output, *candidate)

    return model, apply_fn, loss_fn, inputs, (maps, present)


CASES = {"dense_conv": dense_conv, "hourglass": hourglass}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """(apply_fn, loss_fn, variables, inputs, targets, norms), norms jitted."""
    model, apply_fn, loss_fn, inputs, targets = CASES[request.param]()
    variables = variables_of(model, inputs)

    @jax.jit
    def norms(variables, inputs, targets):
        return api.squared_norms(
            "exact", apply_fn, loss_fn, variables, inputs, targets, by_tensor=True
        )

    return apply_fn, loss_fn, variables, inputs, targets, norms


@pytest.fixture(scope="module")
def plain():
    """The dense case, for properties that do not depend on the network."""
    model, apply_fn, loss_fn, inputs, targets = dense_conv()
    variables = variables_of(model, inputs)

    # With all arrays as arguments: of constants they would be computed by the compiler.
    @functools.partial(jax.jit, static_argnums=(0, 1, 2))
    def compiled(engine, loss_fn, by_tensor, *arrays):
        return api.squared_norms(
            engine, apply_fn, loss_fn, *arrays, by_tensor=by_tensor
        )

    def norms(inputs, targets, loss_fn=loss_fn, microbatch=0, by_tensor=False):
        engine = api.Engine("exact", microbatch=microbatch)
        return compiled(engine, loss_fn, by_tensor, variables, inputs, targets)

    return variables, apply_fn, loss_fn, inputs, targets, norms


def test_norms_equal_one_gradient_at_a_time(case):
    apply_fn, loss_fn, variables, inputs, targets, norms = case
    slow = slow_norms(apply_fn, variables, inputs, targets, loss_fn)
    exact = norms(variables, inputs, targets)
    arguments = (apply_fn, variables, inputs, targets, loss_fn)
    (ghost,) = norms_of(("ghost",), *arguments)
    for found in (exact, ghost):
        assert found.total.shape == (B, K) and found.total.dtype == jnp.float32
        assert_norms_agree(found, slow, rtol=1e-4)
    assert "autodiff" not in ways(apply_fn, variables, inputs).values()


def test_norms_by_tensor_are_a_tree_like_params_and_sum_to_the_total(case):
    _, _, variables, inputs, targets, norms = case
    found = norms(variables, inputs, targets)
    structure = jax.tree.structure(variables["params"])
    assert jax.tree.structure(found.by_tensor) == structure
    leaves = jax.tree.leaves(found.by_tensor)
    assert all(leaf.shape == (B, K) for leaf in leaves)
    np.testing.assert_allclose(sum(leaves), found.total, rtol=1e-5)


def test_batch_norm_and_biases_count(case):
    _, _, variables, inputs, targets, norms = case
    tensors = norms(variables, inputs, targets).by_tensor
    kinds = {"scale": [], "bias": [], "kernel": []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tensors):
        kinds[path[-1].key].append(leaf)
    assert all(kinds.values())
    for leaf in [*kinds["scale"], *kinds["bias"], *kinds["kernel"]]:
        assert np.all(np.asarray(leaf).max(axis=1) > 0)


def test_running_statistics_are_used_and_no_parameters(case):
    _, _, variables, inputs, targets, norms = case
    stats = jax.tree.map(lambda v: 2 * v + 0.1, variables["batch_stats"])
    moved = {**variables, "batch_stats": stats}
    before = norms(variables, inputs, targets)
    after = norms(moved, inputs, targets)
    assert "batch_stats" not in before.by_tensor
    assert not np.allclose(before.total, after.total, rtol=1e-2)


def test_padding_and_permuting_a_batch_change_no_score(case):
    _, _, variables, inputs, targets, norms = case
    total = np.asarray(norms(variables, inputs, targets).total)
    order = np.array([2, 0, 0])  # a permutation of two, the last copied as padding
    moved = norms(variables, inputs[order], jax.tree.map(lambda t: t[order], targets))
    np.testing.assert_allclose(moved.total, total[order], rtol=1e-5)


def test_what_stands_beside_an_example_changes_nothing(plain):
    _, _, _, inputs, targets, norms = plain
    total = np.asarray(norms(inputs, targets).total)
    disturbed = inputs.copy()
    disturbed[1:] = 100 * inputs[1:] - 7
    np.testing.assert_allclose(norms(disturbed, targets).total[0], total[0], rtol=1e-5)
    longer = norms(np.repeat(inputs, 2, axis=0), np.repeat(targets, 2, axis=0)).total
    np.testing.assert_allclose(longer[::2], total, rtol=1e-5)


def test_candidates_are_independent_of_their_order(plain):
    _, _, _, inputs, targets, norms = plain
    total = np.asarray(norms(inputs, targets).total)
    order = np.array([3, 1, 0, 2])
    moved = norms(inputs, targets[:, order]).total
    np.testing.assert_allclose(moved, total[:, order], rtol=1e-5)


@pytest.mark.parametrize("microbatch", [1, 3, 10])
def test_every_microbatch_gives_the_same_norms(plain, microbatch):
    # Of the oracle; below one example's four candidates, and above.
    _, _, _, inputs, targets, norms = plain
    whole = norms(inputs, targets, by_tensor=True)
    parts = norms(inputs, targets, by_tensor=True, microbatch=microbatch)
    np.testing.assert_allclose(parts.total, whole.total, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4),
        parts.by_tensor,
        whole.by_tensor,
    )


def test_twice_the_residual_has_four_times_the_squared_norm(plain):
    variables, apply_fn, _, inputs, targets, norms = plain
    outputs = np.asarray(jax.jit(apply_fn)(variables, inputs))[:, None]  # [B, 1, 5]
    once = norms(inputs, targets).total
    twice = norms(inputs, outputs + 2 * (targets - outputs)).total
    np.testing.assert_allclose(twice, 4 * once, rtol=1e-4)
    none = norms(inputs, np.repeat(outputs, K, axis=1)).total
    np.testing.assert_allclose(none, 0, atol=1e-9)


def test_a_loss_of_twice_the_size_has_four_times_the_squared_norm(plain):
    _, _, loss_fn, inputs, targets, norms = plain
    once = norms(inputs, targets).total
    twice = norms(inputs, targets, lambda output, target: 2 * loss_fn(output, target))
    np.testing.assert_allclose(twice.total, 4 * once, rtol=1e-5)


@pytest.mark.parametrize("by_tensor", [False, True])
def test_expected_squared_norm_is_the_weighted_sum(plain, by_tensor):
    variables, apply_fn, loss_fn, inputs, targets, norms = plain
    weights = np.random.default_rng(3).random((B, K)).astype(np.float32)
    each = norms(inputs, targets, by_tensor=True)

    @jax.jit
    def expect(*arguments):
        return api.expected_squared_norm(
            "exact", apply_fn, loss_fn, *arguments, by_tensor=by_tensor
        )

    expected = expect(variables, inputs, targets, weights)
    assert expected.total.shape == (B,)
    wanted = np.sum(weights * np.asarray(each.total), axis=1)
    np.testing.assert_allclose(expected.total, wanted, rtol=1e-5)
    if by_tensor:
        jax.tree.map(
            lambda ours, norm: np.testing.assert_allclose(
                ours, np.sum(weights * np.asarray(norm), axis=1), rtol=1e-4
            ),
            expected.by_tensor,
            each.by_tensor,
        )
    else:
        assert expected.by_tensor is None


def under_jit(fn, apply_fn, loss_fn, *arrays):
    """`fn` by the engine exact, as one program."""
    return jax.jit(lambda *arrays: fn("exact", apply_fn, loss_fn, *arrays))(*arrays)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_linear_regression_has_its_closed_form(factor):
    # l = c (x.theta - y)^2 has the gradient 2 c (f - y) x: the papers' Eq. 7, where
    # c = 1/2, is ||x||^2 (f - y)^2, and a plain squared error four times that.
    draws = np.random.default_rng(4)
    x = draws.normal(size=(B, 6)).astype(np.float32)
    y = draws.normal(size=(B, K)).astype(np.float32)
    theta = draws.normal(size=6).astype(np.float32)
    found = under_jit(
        api.squared_norms,
        lambda variables, x: x @ variables["params"]["theta"],
        lambda output, target: factor * jnp.square(output - target),
        {"params": {"theta": theta}},
        x,
        y,
    )
    residual = (x @ theta)[:, None] - y  # [B, K]
    wanted = (2 * factor) ** 2 * np.sum(x**2, axis=1)[:, None] * residual**2
    np.testing.assert_allclose(found.total, wanted, rtol=1e-4)


def test_expectation_of_linear_regression_is_variance_plus_squared_bias():
    # The papers' Eq. 7: E ||x (f - y)||^2 = ||x||^2 (variance + (mean - f)^2).
    draws = np.random.default_rng(5)
    x = draws.normal(size=(B, 6)).astype(np.float32)
    y = draws.normal(size=(B, K)).astype(np.float32)
    theta = draws.normal(size=6).astype(np.float32)
    weights = draws.random((B, K)).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    found = under_jit(
        api.expected_squared_norm,
        lambda variables, x: x @ variables["params"]["theta"],
        lambda output, target: 0.5 * jnp.square(output - target),
        {"params": {"theta": theta}},
        x,
        y,
        weights,
    )
    mean = np.sum(weights * y, axis=1)
    variance = np.sum(weights * (y - mean[:, None]) ** 2, axis=1)
    wanted = np.sum(x**2, axis=1) * (variance + (mean - x @ theta) ** 2)
    np.testing.assert_allclose(found.total, wanted, rtol=1e-4)


def test_norms_are_float32_for_bfloat16_parameters():
    # 1,024 gradients of 1/32 square to a sum of one; in bfloat16 it would stall.
    theta = jnp.zeros(1024, jnp.bfloat16)
    found = under_jit(
        api.squared_norms,
        lambda variables, x: (x @ variables["params"]["theta"]).astype(jnp.float32),
        lambda output, target: output * target,
        {"params": {"theta": theta}},
        jnp.full((1, 1024), 1 / 32, jnp.bfloat16),
        jnp.ones((1, 1), jnp.float32),
    )
    assert found.total.dtype == jnp.float32
    np.testing.assert_allclose(found.total, [[1.0]], rtol=1e-6)


def test_by_tensor_is_given_on_request_only(plain):
    _, _, _, inputs, targets, norms = plain
    found = norms(inputs, targets)
    assert found.by_tensor is None and found.standard_error is None


@pytest.mark.parametrize("fn", [api.squared_norms, api.expected_squared_norm])
def test_unknown_engines_are_errors_that_name_the_known(fn):
    x, y = np.zeros((B, 6), np.float32), np.zeros((B, K), np.float32)
    arguments = [x, y] if fn is api.squared_norms else [x, y, y]
    with pytest.raises(ValueError, match=r"unknown engine 'exakt'\. Known: exact"):
        fn("exakt", jnp.dot, jnp.dot, {"params": {}}, *arguments)
