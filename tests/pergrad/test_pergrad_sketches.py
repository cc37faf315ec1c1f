"""Sketches of whole gradients against the gradients themselves."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jalpose.pergrad import api, given, projections
from tests.pergrad.test_pergrad_projections import by_hand
from tests.support.gradients import NETWORKS, B, case, each_gradient, flat
from tests.support.networks import Net, random, square_loss, variables_of

KEY = jax.random.key(7)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def sketches(engine, apply_fn, size, key, *arrays):
    return api.sketches(engine, apply_fn, square_loss, *arrays, size=size, key=key)


def assert_close(found, wanted):
    """Equal to what float32 keeps of the largest."""
    atol = 2e-5 * np.abs(np.asarray(wanted)).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def of_keys(engine, apply_fn, size, keys, *arrays):
    def one(key):
        return sketches(engine, apply_fn, size, key, *arrays)

    return jax.lax.map(one, keys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet", "LSTM"])
def test_a_sketch_is_the_drawn_sums_of_the_gradient(name):
    apply_fn, variables, inputs, targets = case(name, num=2)
    size = 24
    found = sketches("ghost", apply_fn, size, KEY, variables, inputs, targets)
    gradients = jax.tree.leaves(each_gradient(apply_fn, variables, inputs, targets))
    # Kernels as matrices of what they see and what they return.
    shapes = [
        projections.Shape(leaf[0, 0].size // leaf.shape[-1], leaf.shape[-1])
        if leaf.ndim > 3
        else projections.Shape(leaf[0, 0].size, 1)
        for leaf in gradients
    ]
    wanted = np.zeros((B * 2, size))
    for drawn, shape, leaf in zip(
        projections.draw(KEY, shapes, size), shapes, gradients, strict=True
    ):
        rows = np.asarray(leaf, float).reshape(B * 2, *shape)
        wanted += by_hand(drawn, shape, size, rows)
    assert found.shape == (B, 2, size) and found.dtype == jnp.float32
    assert_close(found.reshape(B * 2, size), wanted)


def z_scores(found, wanted):
    """How many standard errors means over keys [r, ...] are from what is wanted."""
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    return (found.mean(axis=0) - wanted) / np.maximum(error, 1e-12 * abs(wanted).max())


@pytest.mark.parametrize(
    ("engine", "name"), [("exact", "mixed"), *(("ghost", name) for name in NETWORKS)]
)
def test_inner_products_are_unbiased(engine, name):
    apply_fn, variables, inputs, targets = case(name)
    gradients = flat(each_gradient(apply_fn, variables, inputs, targets))[:, 0]
    gram = gradients @ gradients.T
    keys = jax.random.split(jax.random.key(0), 300)
    found = of_keys(engine, apply_fn, 32, keys, variables, inputs, targets)
    rows = np.asarray(found, float)[:, :, 0]
    grams = np.einsum("rbs,rcs->rbc", rows, rows)
    assert np.abs(z_scores(grams, gram)).max() < 4.5
    # A scale that is off by a tenth is seen.
    assert np.abs(z_scores(1.1 * grams, gram)).max() > 4.5


@pytest.mark.slow
def test_several_keys_at_once_are_the_same_as_one_after_the_other(small):
    apply_fn, *arrays, _ = small
    keys = jax.random.split(jax.random.key(0), 3)
    one = of_keys("ghost", apply_fn, 16, keys, *arrays)
    batched = jax.vmap(lambda k: sketches("ghost", apply_fn, 16, k, *arrays))(keys)
    assert_close(batched, one)


@pytest.mark.slow
def test_the_error_falls_as_the_root_of_the_size():
    # Layers on both sides of what has a sign for each entry.
    net = Net(lambda m, x: nn.Dense(3)(jnp.tanh(nn.Dense(280)(x).mean(axis=1))))
    inputs = random(1, B, 3, 120)
    variables = variables_of(net, inputs)
    arrays = (variables, inputs, random(2, B, 1, 3))
    gradients = flat(each_gradient(net.apply, *arrays))[:, 0]
    gram = gradients @ gradients.T
    scale = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    keys = jax.random.split(jax.random.key(1), 60)
    errors = []
    for size in (32, 128, 512):
        rows = np.asarray(of_keys("ghost", net.apply, size, keys, *arrays), float)
        grams = np.einsum("rbs,rcs->rbc", rows[:, :, 0], rows[:, :, 0])
        errors.append(np.sqrt(np.mean(((grams - gram) / scale) ** 2)) * size**0.5)
    # Between that of a count sketch, sqrt(2), or less where bins are not shared, and
    # of a tensor sketch of rank one, sqrt(8).
    assert min(errors) > 0.5 and max(errors) < 3
    assert max(errors) < 1.5 * min(errors)


def plain(num=2):
    """A convolution and a linear layer with both kinds of projection."""

    def body(m, x):
        x = jnp.tanh(nn.Conv(6, (3, 3), (2, 2))(x)).reshape(len(x), -1)
        return nn.Dense(3)(nn.Dense(400)(x))

    net, inputs = Net(body), random(1, B, 9, 9, 4)
    return net.apply, variables_of(net, inputs), inputs, random(2, B, num, 3)


@pytest.fixture(scope="module")
def small():
    """`plain` with its sketches."""
    arrays = plain()
    return *arrays, np.asarray(sketches("ghost", arrays[0], 16, KEY, *arrays[1:]))


@pytest.mark.slow
def test_a_sketch_does_not_depend_on_what_stands_beside_it(small):
    apply_fn, variables, inputs, targets, whole = small
    one = sketches("ghost", apply_fn, 16, KEY, variables, inputs[2:3], targets[2:3])
    assert_close(one[0], whole[2])
    moved = sketches("ghost", apply_fn, 16, KEY, variables, inputs[::-1], targets[::-1])
    assert_close(moved[::-1], whole)
    other = jax.random.key(8)
    other = sketches("ghost", apply_fn, 16, other, variables, inputs, targets)
    assert not np.allclose(other, whole, rtol=0.1)


@pytest.mark.parametrize("microbatch", [1, 3])
def test_neither_on_how_many_are_done_at_once(small, microbatch):
    apply_fn, *arrays, whole = small
    engine = api.Engine("ghost", microbatch=microbatch)
    found = sketches(engine, apply_fn, 16, KEY, *arrays)
    assert_close(found, whole)


def test_nor_on_the_devices(small):
    apply_fn, *arrays, whole = small
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    @jax.jit
    def split(key, *arrays):
        options = {"size": 16, "key": key, "mesh": mesh}
        return api.sketches("ghost", apply_fn, square_loss, *arrays, **options)

    assert_close(split(KEY, *arrays), whole)


def test_old_and_new_keys_are_one_key(small):
    apply_fn, *arrays, _ = small
    new = sketches("ghost", apply_fn, 16, jax.random.key(3), *arrays)
    old = sketches("ghost", apply_fn, 16, jax.random.PRNGKey(3), *arrays)
    np.testing.assert_array_equal(old, new)


def test_given_cotangents_have_sketches_that_add_up(small):
    apply_fn, variables, inputs, targets, _ = small
    cotangents = np.concatenate([targets, targets.sum(1, keepdims=True)], axis=1)

    @jax.jit
    def found(variables, inputs, cotangents):
        return api.cotangent_sketches(
            "ghost", apply_fn, variables, inputs, cotangents, size=16, key=KEY
        )

    rows = np.asarray(found(variables, inputs, cotangents))
    np.testing.assert_allclose(
        rows[:, 0] + rows[:, 1], rows[:, 2], rtol=1e-3, atol=1e-4
    )


@pytest.mark.slow
def test_convolutions_and_linear_layers_alone():
    apply_fn, variables, inputs, targets = case("transformer")
    gradients = each_gradient(apply_fn, variables, inputs, targets)
    kept = {
        route.name
        for route in api.routes(apply_fn, variables, inputs, "conv_linear")
        if route.way not in ("left out", "unused")
    }
    assert len(kept) < len(jax.tree.leaves(gradients))
    keys = jax.random.split(jax.random.key(0), 300)
    found = of_keys("conv_linear", apply_fn, 32, keys, variables, inputs, targets)
    lengths = np.sum(np.asarray(found, float)[:, :, 0] ** 2, axis=-1)
    wanted = sum(
        np.sum(flat(leaf)[:, 0] ** 2, axis=-1)
        for path, leaf in jax.tree.leaves_with_path(gradients)
        if jax.tree_util.keystr(path, simple=True, separator="/") in kept
    )
    assert np.abs(z_scores(lengths, wanted)).max() < 4.5


def test_padding_has_zeros_and_nan_stays_where_it_is(small):
    apply_fn, variables, inputs, targets, whole = small
    spoilt = inputs.copy()
    spoilt[1] = np.nan
    mask = np.array([True, False, True, True])
    found = sketches("ghost", apply_fn, 16, KEY, variables, spoilt, targets)
    assert np.isnan(found[1]).any()
    assert_close(found[mask], whole[mask])

    @jax.jit
    def masked(*arrays):
        options = {"size": 16, "key": KEY, "mask": mask}
        return api.sketches("ghost", apply_fn, square_loss, *arrays, **options)

    found = np.asarray(masked(variables, spoilt, targets))
    assert_close(found[mask], whole[mask])
    assert not found[1].any()


@pytest.mark.slow
def test_float64_is_kept():
    with jax.enable_x64(True):
        variables = {"params": {"w": np.random.default_rng(0).normal(size=(6, 4))}}
        inputs = np.random.default_rng(1).normal(size=(B, 6))
        targets = np.random.default_rng(2).normal(size=(B, 1, 4))

        def apply_fn(variables, x):
            return x @ variables["params"]["w"]

        found = sketches("ghost", apply_fn, 8, KEY, variables, inputs, targets)
        residual = inputs @ variables["params"]["w"] - targets[:, 0]
        gradients = np.einsum("bi,bj->bij", inputs, residual)
        shape = projections.Shape(6, 4)
        (drawn,) = projections.draw(KEY, [shape], 8)
        assert found.dtype == jnp.float64
        wanted = by_hand(drawn, shape, 8, gradients)
        np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-12)


SMALL = {"params": {"w": random(0, 4, 2), "steps": np.zeros(9, int)}}


def product(variables, x):
    return x @ variables["params"]["w"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, r"size=0 must be from 1 to the number of parameters, 8"),
        (9, r"size=9 must be from 1 to the number of parameters, 8"),
        (2.5, r"size must be an integer, got 2\.5"),
        (True, r"size must be an integer, got True"),
    ],
)
def test_a_size_that_no_sketch_can_have_is_refused(size, message):
    with pytest.raises(ValueError, match=message):
        given.sketch_size(size, SMALL["params"])


def test_every_size_up_to_the_parameters_can_be_had():
    arrays = SMALL, random(1, 3, 4), random(2, 3, 1, 2)
    for size in (1, 8):
        assert sketches("ghost", product, size, KEY, *arrays).shape == (3, 1, size)
    with pytest.raises(ValueError, match="size=9 must be from 1"):
        sketches("ghost", product, 9, KEY, *arrays)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (3, "got 3"),
        (jax.random.split(KEY, 2), r"got key<fry>\[2\]"),
        (np.zeros(2), r"got float64\[2\]"),
        (jax.random.split(jax.random.PRNGKey(0), 2), r"got uint32\[2, 2\]"),
    ],
)
def test_anything_but_one_key_is_refused(key, found):
    with pytest.raises(ValueError, match=rf"key must be one random key.*{found}"):
        given.one_key(key)


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (np.ones(2, bool), r"bool\[2\]"),
        (np.ones(3), r"float64\[3\]"),
        ([True], "a list"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, found):
    with pytest.raises(ValueError, match=rf"mask must be \[3\] booleans.*got {found}"):
        given.mask_fits(mask, 3)


@pytest.mark.parametrize("engine", ["goodfellow", "sketch"])
def test_engines_without_gradients_are_refused(engine):
    arrays = SMALL, random(1, 3, 4), random(2, 3, 1, 2)
    with pytest.raises(ValueError, match=rf"{engine} has no gradients .* ghost, exact"):
        sketches(engine, product, 4, KEY, *arrays)
