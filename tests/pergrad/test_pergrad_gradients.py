"""Weighted, clipped and mean gradients against those of single examples."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.sharding import Mesh

from jalpose.pergrad import api, summing
from tests.support.gradients import (
    NETWORKS,
    B,
    ResNet,
    Transformer,
    case,
    each_gradient,
    flat,
)
from tests.support.networks import Net, random, square_loss, variables_of

K = 2
# A second pass of weighted losses, or each gradient formed, clipped and added.
CLIPPING = ("ghost", "exact")


@functools.partial(jax.jit, static_argnums=0)
def weighted(apply_fn, variables, inputs, targets, weights):
    arrays = (variables, inputs, targets, weights)
    return api.weighted_gradient(apply_fn, square_loss, *arrays)


@functools.partial(jax.jit, static_argnums=(0, 1))
def clipped(engine, apply_fn, variables, inputs, targets, clip_norm, mask=None):
    arrays = (variables, inputs, targets, clip_norm)
    return api.clipped_gradient(engine, apply_fn, square_loss, *arrays, mask=mask)


@functools.partial(jax.jit, static_argnums=(0, 1))
def norms_and_gradient(engine, apply_fn, variables, inputs, targets, mask=None):
    arrays = (variables, inputs, targets)
    return api.norms_and_gradient(engine, apply_fn, square_loss, *arrays, mask=mask)


def assert_sums(found, rows, weights, rtol=1e-5):
    """A gradient is the sum of rows [b, k, n] by weights [b, k]."""
    wanted = np.einsum("bk,bkn->n", weights, rows)
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])
    scale = np.sqrt(np.mean(np.sum(rows**2, axis=-1)))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module", params=NETWORKS)
def net(request):
    """(arguments of `weighted` but the weights, gradients [b, k, n])."""
    arguments = case(request.param, K)
    return arguments, flat(each_gradient(*arguments))


@pytest.mark.slow
def test_a_weighted_gradient_is_the_sum_of_gradients_times_weights(net):
    arguments, rows = net
    weights = random(5, B, K)  # of both signs
    found = weighted(*arguments, weights)
    structure = jax.tree.structure(arguments[1]["params"])
    assert jax.tree.structure(found) == structure
    assert_sums(found, rows, weights)


@pytest.mark.slow
@pytest.mark.parametrize("engine", CLIPPING)
def test_a_clipped_gradient_is_the_sum_of_clipped_gradients(net, engine):
    arguments, rows = net
    lengths = np.linalg.norm(rows, axis=-1)
    limit = np.float32(np.median(lengths))
    found = clipped(engine, *arguments, limit)
    weights = np.minimum(1, limit / lengths)
    assert 0 < np.sum(weights < 1) < weights.size
    np.testing.assert_allclose(found.squared_norms, lengths**2, rtol=2e-5)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-5)
    assert_sums(found.gradient, rows, weights)
    # No longer than the limit, each by itself.
    assert (found.weights * lengths <= limit * (1 + 1e-5)).all()


def test_norms_and_gradient_are_those_of_single_gradients(net):
    arguments, rows = net
    found = norms_and_gradient("ghost", *arguments)
    np.testing.assert_allclose(found.squared_norms, np.sum(rows**2, axis=-1), rtol=2e-5)
    assert_sums(found.gradient, rows, np.full((B, K), 1 / (B * K)))


def plain(num=1):
    """Convolutions and linear layers of few and of many positions."""

    def body(m, x):
        x = jnp.tanh(nn.Conv(6, (3, 3))(x))
        x = jnp.tanh(nn.Conv(40, (3, 3), (4, 4), use_bias=False)(x))
        x = jnp.tanh(nn.Dense(5)(x)).reshape(len(x), -1)
        return nn.Dense(3)(x)

    net, inputs = Net(body), random(1, B, 10, 10, 4)
    return net.apply, variables_of(net, inputs), inputs, random(2, B, num, 3)


@pytest.fixture(scope="module")
def small():
    """`plain` with its gradients."""
    arguments = plain()
    return arguments, flat(each_gradient(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("engine", CLIPPING)
def test_the_sum_of_the_unclipped_is_the_ordinary_gradient(small, engine):
    (apply_fn, variables, inputs, targets), _ = small

    def loss(params):
        output = apply_fn({"params": params}, inputs)
        return jnp.sum(jax.vmap(square_loss)(output, targets[:, 0]))

    wanted = jax.jit(jax.grad(loss))(variables["params"])
    found = clipped(engine, apply_fn, variables, inputs, targets, np.float32(np.inf))
    assert (found.weights == 1).all()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
        found.gradient,
        wanted,
    )


def test_weights_of_examples_are_those_of_all_their_candidates(small):
    (apply_fn, variables, inputs, _), _ = small
    targets, weights = random(3, B, K, 3), random(4, B)
    one = weighted(apply_fn, variables, inputs, targets, weights)
    both = np.repeat(weights[:, None], K, axis=1)
    each = weighted(apply_fn, variables, inputs, targets, both)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), one, each)


@pytest.mark.slow
@pytest.mark.parametrize("forms", [False, True])
def test_either_way_beside_a_sum_gives_both(small, forms, monkeypatch):
    arguments, rows = small
    monkeypatch.setattr(
        summing, "_forms", lambda rule: forms and rule.arrange is not None
    )
    monkeypatch.setattr(summing, "_EXAMPLES", 2000)  # several rounds
    found = jax.jit(
        lambda *arrays: api.norms_and_gradient(
            "ghost", arguments[0], square_loss, *arrays
        )
    )(*arguments[1:])
    norms = np.sum(rows**2, axis=-1)
    np.testing.assert_allclose(found.squared_norms, norms, rtol=2e-5)
    assert_sums(found.gradient, rows, np.full((B, 1), 1 / B))


@pytest.mark.slow
@pytest.mark.parametrize("microbatch", [1, 3])
def test_how_many_are_done_at_once_changes_nothing(small, microbatch):
    (apply_fn, *arrays), rows = spoilt(small)
    counts = np.array([False, True, False, True])  # one at once may be padding alone
    engine = api.Engine("ghost", microbatch=microbatch)
    found = norms_and_gradient(engine, apply_fn, *arrays, counts)
    norms = counts[:, None] * np.sum(rows**2, axis=-1)
    np.testing.assert_allclose(found.squared_norms, norms, rtol=2e-5)
    assert_sums(found.gradient, rows, counts[:, None] / 2)
    weights = counts * random(5, B)
    found = jax.jit(
        lambda *arrays: api.weighted_gradient(
            apply_fn, square_loss, *arrays, microbatch=microbatch
        )
    )(*arrays, weights)
    assert_sums(found, rows, weights[:, None])


@pytest.mark.slow
@pytest.mark.parametrize("microbatch", [1, 2, 3, 5])
def test_clipped_one_by_one_or_several_at_once(small, microbatch):
    (apply_fn, variables, inputs, _), _ = small
    targets = random(6, B, 3, 3)
    rows = flat(each_gradient(apply_fn, variables, inputs, targets))
    engine = api.Engine("exact", microbatch=microbatch)
    mask = np.array([True, False, True, True])
    found = clipped(engine, apply_fn, variables, inputs, targets, 1.0, mask)
    norms = mask[:, None] * np.sum(rows**2, axis=-1)
    np.testing.assert_allclose(found.squared_norms, norms, rtol=2e-5)
    weights = mask[:, None] * np.minimum(1, 1 / np.linalg.norm(rows, axis=-1))
    np.testing.assert_allclose(found.weights, weights, rtol=2e-5)
    assert_sums(found.gradient, rows, weights)


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_devices_share_the_examples(small, given):
    (apply_fn, variables, inputs, targets), rows = small
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    weights = random(5, B)
    if not given:
        inputs, targets, weights = jax.device_put((inputs, targets, weights), split)

    @jax.jit
    def run(variables, inputs, targets, weights):
        options = {"mesh": mesh if given else None}
        arguments = apply_fn, square_loss, variables, inputs, targets
        return (
            api.weighted_gradient(*arguments, weights, **options),
            api.norms_and_gradient("ghost", *arguments, **options),
            [api.clipped_gradient(e, *arguments, 1.0, **options) for e in CLIPPING],
        )

    total, both, clipped_sums = run(variables, inputs, targets, weights)
    assert_sums(total, rows, np.asarray(weights)[:, None])
    norms = np.sum(rows**2, axis=-1)
    np.testing.assert_allclose(both.squared_norms, norms, rtol=2e-5)
    assert_sums(both.gradient, rows, np.full((B, 1), 1 / B))
    for cut in clipped_sums:
        assert_sums(cut.gradient, rows, np.minimum(1, 1 / np.sqrt(norms)))


def test_the_noise_scale_of_the_docstring(small):
    (apply_fn, *arrays), rows = small
    found = norms_and_gradient("ghost", apply_fn, *arrays)
    n, small_batch = found.squared_norms.size, found.squared_norms.mean()
    big = sum(jnp.sum(g**2) for g in jax.tree.leaves(found.gradient))
    scale = n * (small_batch - big) / (n * big - small_batch)
    # The trace of the covariance by the squared mean, both without bias.
    rows = rows[:, 0]
    spread = np.sum(np.var(rows, axis=0, ddof=1))
    signal = np.sum(rows.mean(axis=0) ** 2) - spread / len(rows)
    np.testing.assert_allclose(scale, spread / signal, rtol=1e-3)


# Padding and NaN.


def spoilt(small):
    (apply_fn, variables, inputs, targets), rows = small
    inputs, targets = inputs.copy(), targets.copy()
    inputs[0], targets[2] = np.nan, np.nan
    return (apply_fn, variables, inputs, targets), rows


@pytest.mark.slow
def test_padding_counts_for_nothing_whatever_it_holds(small):
    (apply_fn, *arrays), rows = spoilt(small)
    mask = np.array([False, True, False, True])
    counts = mask[:, None].astype(float)
    found = norms_and_gradient("ghost", apply_fn, *arrays, mask)
    norms = np.sum(rows**2, axis=-1)
    np.testing.assert_allclose(found.squared_norms, counts * norms, rtol=2e-5)
    assert_sums(found.gradient, rows, counts / 2)

    @jax.jit
    def run(*arrays):
        arguments = (apply_fn, square_loss, *arrays)
        return (
            api.weighted_gradient(*arguments, jnp.ones(B), mask=mask),
            [api.clipped_gradient(e, *arguments, 1.0, mask=mask) for e in CLIPPING],
            api.squared_norms("ghost", *arguments, mask=mask, by_tensor=True),
        )

    total, clipped_sums, squares = run(*arrays)
    assert_sums(total, rows, counts)
    for cut in clipped_sums:
        np.testing.assert_allclose(cut.squared_norms, counts * norms, rtol=2e-5)
        assert_sums(cut.gradient, rows, counts * np.minimum(1, 1 / np.sqrt(norms)))
    np.testing.assert_allclose(squares.total, counts * norms, rtol=2e-5)
    assert all(not leaf[::2].any() for leaf in jax.tree.leaves(squares.by_tensor))


def test_nothing_but_padding_is_nothing(small):
    (apply_fn, *arrays), _ = spoilt(small)
    found = norms_and_gradient("ghost", apply_fn, *arrays, np.zeros(B, bool))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_padding_does_not_reach_a_derivative(small):
    (apply_fn, variables, inputs, targets), _ = spoilt(small)
    mask = np.array([False, True, False, True])

    @jax.jit
    @jax.grad
    def penalty(variables):
        arguments = (apply_fn, square_loss, variables, inputs, targets)
        return jnp.sum(api.squared_norms("exact", *arguments, mask=mask).total)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(penalty(variables)))


def test_nan_in_an_example_touches_no_norm_of_another(small):
    (apply_fn, *arrays), rows = spoilt(small)
    found = norms_and_gradient("ghost", apply_fn, *arrays)
    norms = np.sum(rows**2, axis=-1)
    assert np.isnan(found.squared_norms[::2]).all()
    np.testing.assert_allclose(found.squared_norms[1::2], norms[1::2], rtol=2e-5)


def test_what_has_no_weight_may_be_nan(small):
    (apply_fn, *arrays), rows = spoilt(small)
    weights = np.array([0, 2, 0, -1], np.float32)
    found = weighted(apply_fn, *arrays, weights)
    assert_sums(found, rows, weights[:, None])
    # A candidate of an example whose other one counts.
    variables, inputs, _ = small[0][1:]
    targets = random(3, B, K, 3)
    rows = flat(each_gradient(apply_fn, variables, inputs, targets))
    targets[1, 1] = np.nan
    weights = np.ones((B, K), np.float32)
    weights[1, 1] = 0
    assert_sums(weighted(apply_fn, variables, inputs, targets, weights), rows, weights)


@pytest.mark.parametrize("engine", CLIPPING)
def test_a_gradient_that_is_not_finite_is_clipped_to_nothing(small, engine):
    (apply_fn, *arrays), rows = spoilt(small)
    found = clipped(engine, apply_fn, *arrays, np.float32(1))
    counts = np.array([[0], [1], [0], [1]])
    assert (np.asarray(found.weights) > 0).tolist() == (counts > 0).tolist()
    weights = counts * np.minimum(1, 1 / np.linalg.norm(rows, axis=-1))
    assert_sums(found.gradient, rows, weights)


# What it costs.


def wide(name):
    """A network wide enough to be told by its products."""
    net = ResNet(width=16) if name == "ResNet" else Transformer(width=64)
    draws = np.random.default_rng(0)
    inputs = random(0, 4, 16, 16, 3)
    if name == "transformer":
        inputs = draws.integers(0, 11, (16, 6))
    variables = variables_of(net, inputs)
    shape = jax.eval_shape(net.apply, variables, inputs).shape
    return net.apply, variables, inputs, random(1, shape[0], 1, *shape[1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet", "transformer"])
def test_flops_beside_those_of_the_gradient_alone(name):
    # No loops here, whose rounds the compiler does not count.
    apply_fn, *arrays = wide(name)

    def gradient(variables, inputs, targets):
        def loss(params):
            output = apply_fn({**variables, "params": params}, inputs)
            return jnp.sum(jax.vmap(square_loss)(output, targets[:, 0]))

        return jax.grad(loss)(variables["params"])

    def both(*arrays):
        return api.norms_and_gradient("ghost", apply_fn, square_loss, *arrays)

    alone, beside = (
        jax.jit(fn).lower(*arrays).compile().cost_analysis()["flops"]
        for fn in (gradient, both)
    )
    assert alone < beside <= 1.15 * alone


# Number formats and mistakes.


@pytest.mark.slow
def test_float64_is_exact_to_nine_digits():
    with jax.enable_x64(True):
        for name in ("mixed", "ResNet"):
            arguments = case(name, K)
            apply_fn, *arrays = arguments
            wide = jax.tree.map(
                lambda x: x.astype(float) if x.dtype == np.float32 else x, arrays
            )
            rows = flat(each_gradient(apply_fn, *wide))
            weights = np.random.default_rng(0).normal(size=(B, K))
            found = weighted(apply_fn, *wide, weights)
            assert_sums(found, rows, weights, rtol=1e-9)
            norms = np.sum(rows**2, axis=-1)
            both = norms_and_gradient("ghost", apply_fn, *wide)
            np.testing.assert_allclose(both.squared_norms, norms, rtol=1e-9)
            mean = np.full((B, K), 1 / (B * K))
            assert_sums(both.gradient, rows, mean, rtol=1e-9)
            factors = np.minimum(1, 1 / np.sqrt(norms))
            for engine in CLIPPING:
                cut = clipped(engine, apply_fn, *wide, 1.0)
                assert_sums(cut.gradient, rows, factors, rtol=1e-9)


def test_integers_among_the_parameters_have_zeros():
    params = {"w": random(0, 4, 2), "steps": np.arange(3)}
    arrays = {"params": params}, random(1, B, 4), random(2, B, 1, 2)

    def apply_fn(variables, x):
        return x @ variables["params"]["w"] * variables["params"]["steps"][1]

    for found in (
        weighted(apply_fn, *arrays, np.ones(B, np.float32)),
        norms_and_gradient("ghost", apply_fn, *arrays).gradient,
        *(clipped(e, apply_fn, *arrays, 1e9).gradient for e in CLIPPING),
    ):
        assert found["w"].any() and found["steps"].tolist() == [0, 0, 0]


def test_bfloat16_parameters_keep_their_dtype():
    params = {"w": jnp.asarray(random(0, 4, 2), jnp.bfloat16)}
    arrays = {"params": params}, random(1, B, 4), random(2, B, 1, 2)

    def apply_fn(variables, x):
        return (x @ variables["params"]["w"]).astype(jnp.float32)

    found = norms_and_gradient("ghost", apply_fn, *arrays)
    assert found.gradient["w"].dtype == jnp.bfloat16
    assert found.squared_norms.dtype == jnp.float32
    for engine in CLIPPING:
        cut = clipped(engine, apply_fn, *arrays, 1.0)
        assert cut.gradient["w"].dtype == jnp.bfloat16
        assert cut.squared_norms.dtype == cut.weights.dtype == jnp.float32
    total = weighted(apply_fn, *arrays, np.full(B, 1 / B, np.float32))
    np.testing.assert_allclose(
        np.asarray(found.gradient["w"], float), np.asarray(total["w"], float), rtol=0.05
    )


@pytest.fixture
def no_hook(monkeypatch):
    """Shapes as a user has them checked, who has no import hook that looks first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_mistakes_are_named(no_hook):
    apply_fn, *arrays, targets = plain()
    with pytest.raises(ValueError, match=r"\[B\] or \[B, K\], \[4\] or \[4, 1\], got"):
        weighted(apply_fn, *arrays, targets, np.ones((B, 3)))
    with pytest.raises(ValueError, match="'exact' is not, take ghost"):
        norms_and_gradient("exact", apply_fn, *arrays, targets)
    with pytest.raises(ValueError, match=r"must be \[B, K, \.\.\.\]"):
        norms_and_gradient("ghost", apply_fn, *arrays, targets[:3])
    arguments = apply_fn, square_loss, *arrays, targets
    for length in (-1.0, 0, np.nan):  # known outside of `jit` alone
        with pytest.raises(ValueError, match=rf"clip_norm={length} must be above 0"):
            api.clipped_gradient("ghost", *arguments, length)
        with pytest.raises(ValueError, match=rf"clip_norm={length} must be above 0"):
            api.clipped_gradient("exact", *arguments, length)
    with pytest.raises(ValueError, match="microbatch=-1 must be >= 0"):
        api.weighted_gradient(*arguments, np.ones(B), microbatch=-1)


def test_targets_without_candidates_are_refused():
    net = Net(lambda m, x: nn.Dense(2)(x))
    inputs = random(0, B, 3, 4)
    arrays = variables_of(net, inputs), inputs, random(1, B, 3, 2)
    with pytest.raises(ValueError, match=r"give\s+targets\[:, None\] for K=1"):
        norms_and_gradient("ghost", net.apply, *arrays)
    with pytest.raises(ValueError, match=r"give\s+targets\[:, None\] for K=1"):
        weighted(net.apply, *arrays, np.ones(B, np.float32))
