"""Residual networks: published sizes, wiring, starting weights, gradient norms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jalpose.models.convolution import blocked_convolution
from jalpose.models.options import DTYPES
from jalpose.models.resnet import BLOCKS, ResNetOptions
from jalpose.pergrad import api
from jalpose.settings.checks import ConfigError
from tests.support.counts import count, drawn, shapes_of
from tests.support.networks import assert_norms_agree, norms_of, targets_for

MEAN, STD = (0.49, 0.48, 0.45), (0.2, 0.21, 0.22)


def options(**changes):
    """Small enough to be run: three stages, or four."""
    return ResNetOptions(**{"depth": 8, "width": 3, "mean": MEAN, "std": STD} | changes)


def images_of(seed, size=9, batch=3):
    return np.random.default_rng(seed).random((batch, size, size, 3), np.float32)


# Sizes.


@pytest.mark.parametrize(
    ("stem", "size", "classes", "published"),
    [
        ("3x3", 32, 10, 11_173_962),
        ("3x3", 32, 100, 11_220_132),
        ("original", 224, 1000, 11_689_512),
    ],
)
def test_parameters_of_the_published_networks(stem, size, classes, published):
    model = ResNetOptions(stem=stem).build(classes)
    assert count(shapes_of(model, size)["params"]) == published


def by_layers(depth, width, stem, classes):
    """Parameters, added up layer by layer."""
    total = (9 if stem == "3x3" else 49) * 3 * width + 2 * width
    inputs = width
    for stage, blocks in enumerate(BLOCKS[depth]):
        outputs = width * 2**stage
        for _ in range(blocks):
            total += 9 * inputs * outputs + 9 * outputs**2 + 4 * outputs
            if inputs != outputs:
                total += inputs * outputs + 2 * outputs
            inputs = outputs
    return total + inputs * classes + classes


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize(("width", "stem"), [(16, "3x3"), (5, "original")])
def test_parameters_of_other_sizes(depth, width, stem):
    model = ResNetOptions(depth=depth, width=width, stem=stem).build(7)
    params = shapes_of(model, 64)["params"]
    assert count(params) == by_layers(depth, width, stem, 7)
    # As many layers as the name says, shortcuts left out.
    kernels = [p for p in flatten_dict(params) if p[-1] == "kernel"]
    assert sum("shortcut" not in path for path in kernels) == depth


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_comes_out(dtype):
    for stem, size, maps in (("3x3", 32, [32, 16, 8, 4]), ("original", 96, [24, 12])):
        model = ResNetOptions(width=4, stem=stem, dtype=dtype).build(6)
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        output, variables = jax.eval_shape(
            model.init_with_output, jax.random.key(0), images
        )
        assert output.prediction.shape == (2, 6)
        assert output.embedding.shape == (2, 32)
        assert output.prediction.dtype == output.embedding.dtype == jnp.float32
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
        levels = output.features.levels
        assert [x.shape[1] for x in levels][: len(maps)] == maps
        assert [x.shape[-1] for x in levels] == [4, 8, 16, 32]
        assert all(x.dtype == DTYPES[dtype] for x in levels)


# Wiring.


def convolve(x, kernel, stride):
    """Padded by half the kernel at every side, as a sum over the kernel's places."""
    size = len(kernel)
    wide = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    height, width = (-(-side // stride) for side in x.shape[1:3])
    y = 0
    for i in range(size):
        for j in range(size):
            seen = wide[:, i : i + stride * height : stride]
            seen = seen[:, :height, j : j + stride * width : stride][:, :, :width]
            y = y + seen @ kernel[i, j]
    return y


def conv_norm(variables, path, x, stride):
    params, stats = variables["params"], variables["batch_stats"]
    for name in path:
        params, stats = params[name], stats[name]
    assert set(params["conv"]) == {"kernel"}
    x = convolve(x, params["conv"]["kernel"], stride)
    x = (x - stats["norm"]["mean"]) / np.sqrt(stats["norm"]["var"] + 1e-5)
    return x * params["norm"]["scale"] + params["norm"]["bias"]


def pooled(x):
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows = [wide[:, i : i + x.shape[1] : 2] for i in range(3)]
    parts = [part[:, :, j : j + x.shape[2] : 2] for part in rows for j in range(3)]
    return np.max(parts, axis=0)


def by_hand(variables, images, depth, stem):
    """(logits, embedding, stages) in NumPy."""
    x = (images - np.array(MEAN)) / np.array(STD)
    x = np.maximum(conv_norm(variables, ["stem"], x, 1 if stem == "3x3" else 2), 0)
    x = x if stem == "3x3" else pooled(x)
    stages = []
    for s, blocks in enumerate(BLOCKS[depth]):
        for b in range(blocks):
            name, stride = f"stage{s}_block{b}", 2 if s > 0 and b == 0 else 1
            y = np.maximum(conv_norm(variables, [name, "conv1"], x, stride), 0)
            y = conv_norm(variables, [name, "conv2"], y, 1)
            if s > 0 and b == 0:
                x = conv_norm(variables, [name, "shortcut"], x, stride)
            x = np.maximum(x + y, 0)
        stages.append(x)
    embedding = x.mean(axis=(1, 2))
    last = variables["params"]["logits"]
    return embedding @ last["kernel"] + last["bias"], embedding, stages


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "stem", "size"),
    [(8, "3x3", 9), (14, "3x3", 8), (18, "3x3", 8), (8, "original", 18)],
)
def test_it_is_put_together_as_published(depth, stem, size):
    model = options(depth=depth, width=2, stem=stem).build(4)
    variables, images = drawn(model, size), images_of(1, size, batch=2)
    output = jax.jit(model.apply)(variables, images)
    logits, embedding, stages = by_hand(variables, images, depth, stem)
    np.testing.assert_allclose(output.prediction, logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(output.embedding, embedding, rtol=1e-3, atol=1e-4)
    for got, wanted in zip(output.features.levels, stages, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_blocked_convolutions_do_what_the_native_ones_do():
    model = options(convolution="native").build(4)
    assert options(convolution="auto").build(4).convolve is blocked_convolution
    blocked = options(convolution="blocked").build(4)
    assert blocked == model.clone(convolve=blocked_convolution)
    assert options(convolution="blocked").build(4, traced=True) == model
    variables, images = drawn(model, 9), images_of(2)

    def loss(model, variables):
        output = model.apply(variables, images)
        return jnp.sum(jnp.sin(output.prediction))

    gradients = [
        jax.jit(jax.grad(functools.partial(loss, net)))(variables)
        for net in (model, blocked)
    ]
    for got, wanted in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


# Starting weights.


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "size"), [("3x3", 8), ("original", 32)])
def test_weights_start_as_those_of_the_code_in_use(stem, size):
    model = ResNetOptions(depth=8, width=32, stem=stem).build(10)
    init = jax.jit(model.init)
    params = init(jax.random.key(0), images_of(0, size))["params"]
    for path, leaf in flatten_dict(params).items():
        fan_in, fan_out = math.prod(leaf.shape[:-1]), math.prod(leaf.shape[:2])
        fan_out *= leaf.shape[-1]
        if path[-2] == "norm":
            assert (np.asarray(leaf) == (path[-1] == "scale")).all()
        elif path[0] == "logits" or stem == "3x3":  # U(+-1/sqrt(fan_in))
            # The last layer's bias, too; its features are 128.
            bound = 1 / math.sqrt(128 if path[-1] == "bias" else fan_in)
            assert 0.5 * bound < np.abs(leaf).max() <= bound
            if path[-1] == "kernel":
                assert np.std(leaf) == pytest.approx(bound / math.sqrt(3), rel=0.06)
        else:  # normal, of standard deviation sqrt(2/fan_out)
            assert np.std(leaf) == pytest.approx(math.sqrt(2 / fan_out), rel=0.06)
            assert np.abs(leaf).max() > 2.5 * np.std(leaf)


# Dropout.


def test_dropout_drops_whole_channels_between_the_convolutions_of_a_block():
    model = options(dropout=0.5).build(4)
    variables, images = drawn(model, 9), images_of(3, batch=8)

    @functools.partial(jax.jit, static_argnames="drop")
    def run(variables, key, drop):
        rngs = {"dropout": jax.random.key(key)}
        found, kept = model.apply(
            variables, images, drop=drop, rngs=rngs, capture_intermediates=True
        )
        return found.prediction, kept["intermediates"]["stage0_block0"]

    off, _ = run(variables, 0, False)
    plain = options().build(4)
    wanted = jax.jit(plain.apply)(variables, images).prediction
    np.testing.assert_array_equal(off, wanted)
    (one, inside), (other, _) = (run(variables, key, True) for key in (0, 1))
    assert np.abs(one - other).max() > 1e-3
    before = np.maximum(inside["conv1"]["__call__"][0], 0)
    dropped = inside["Dropout_0"]["__call__"][0]
    gone = (np.asarray(dropped) == 0).all(axis=(1, 2))  # [B, C]
    assert 0.2 < gone.mean() < 0.8
    kept = np.where(gone[:, None, None], 0, 2 * before)  # scaled by 1 / (1 - 0.5)
    np.testing.assert_allclose(dropped, kept, rtol=1e-6)


# Gradient norms.


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "size"), [("3x3", 8), ("original", 16)])
def test_ghost_norms_are_the_exact_ones_without_a_fallback(stem, size):
    model = options(stem=stem, width=2).build(3, traced=True)
    variables, images = drawn(model, size), images_of(4, size, batch=2)

    def logits(variables, images):
        return model.apply(variables, images).prediction

    arguments = logits, variables, images
    targets = targets_for(*arguments, 2)
    ghost, exact = norms_of(("ghost", "exact"), *arguments, targets)
    assert_norms_agree(ghost, exact.by_tensor, rtol=3e-4)
    found = api.routes(*arguments)
    assert len(found) == len(jax.tree.leaves(variables["params"]))
    for route in found:
        kernel = route.name.endswith("kernel")
        ways = ("direct", "gram", "shifted") if kernel else ("vector",)
        assert route.way in ways, route


@pytest.mark.parametrize(
    ("stem", "size", "classes"), [("3x3", 32, 10), ("original", 224, 1000)]
)
def test_the_published_networks_need_no_fallback(stem, size, classes):
    # Traced only.
    model = ResNetOptions(stem=stem, mean=MEAN, std=STD).build(classes, traced=True)
    variables = shapes_of(model, size)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    found = api.routes(lambda v, x: model.apply(v, x).prediction, variables, images)
    assert {route.way for route in found} <= {"direct", "gram", "shifted", "vector"}
    assert not any(route.reason for route in found)


# Options.


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({"depth": 34}, 32, "unknown value of model.depth: 34. Known: 8, 14, 18"),
        ({"stem": "7x7"}, 32, "unknown value of model.stem: '7x7'"),
        ({"width": 0}, 32, "model.width=0 must be above 0"),
        ({"dropout": 1.0}, 32, "model.dropout=1.0 must be 0 or more, and below 1"),
        ({"dtype": "float16"}, 32, "unknown value of model.dtype"),
        ({"convolution": "fast"}, 32, "unknown value of model.convolution"),
        ({"std": ()}, 32, r"three numbers each"),
        ({"std": (1.0, 0.0, 1.0)}, 32, "a standard deviation must be above 0"),
        ({}, 3, "data.size=3 must be at least 4"),
        ({"depth": 18, "stem": "original"}, 31, "data.size=31 must be at least 32"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, size, message):
    with pytest.raises(ConfigError, match=message):
        options(**changes).check(size)


def test_options_as_a_record_has_them_build_the_same_network():
    # JSON knows no tuples.
    assert options(mean=list(MEAN), std=list(STD)).build(3) == options().build(3)
    options(mean=list(MEAN), std=list(STD)).check(8)
