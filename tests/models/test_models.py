"""The stacked hourglass: its size, its wiring, and its convolutions."""

import dataclasses
import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import lax

from jalpose.models.convolution import blocked_convolution
from jalpose.models.hourglass import (
    Conv,
    Hourglass,
    HourglassOptions,
    Residual,
    StackedHourglass,
    upsample_nearest,
)
from jalpose.models.options import Options
from jalpose.models.registry import MODELS, options_of
from jalpose.pergrad import windows
from jalpose.settings.checks import ConfigError
from tests.support.counts import count, drawn, shapes_of

# The layer list.


def residual_size(inputs, outputs):
    half = outputs // 2
    size = 2 * inputs + inputs * half + half  # BN, 1x1 convolution
    size += 2 * half + 9 * half * half + half  # BN, 3x3
    size += 2 * half + half * outputs + outputs  # BN, 1x1
    return size + (inputs * outputs + outputs if inputs != outputs else 0)


def network_size(stacks, width, joints, depth):
    quarter, half = width // 4, width // 2
    stem = 49 * 3 * quarter + quarter + 2 * quarter
    stem += residual_size(quarter, half) + residual_size(half, half)
    stem += residual_size(half, width)
    # An hourglass has three residuals a level and one more at the bottom.
    hourglass = (3 * depth + 1) * residual_size(width, width)
    stack = hourglass + residual_size(width, width)
    stack += width * width + width + 2 * width + width * joints + joints
    merge = joints * width + width + width * width + width
    return stem + stacks * stack + (stacks - 1) * merge


def test_parameters_of_the_papers_network():
    model = StackedHourglass(14)
    params = shapes_of(model)["params"]
    assert count(params) == 6_568_860 == network_size(2, 256, 14, 4)
    norms = {
        path: leaf
        for path, leaf in flatten_dict(params).items()
        if path[-2].startswith("norm")
    }
    assert {path[-1] for path in norms} == {"scale", "bias"}
    assert count(norms) == 31_488


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stacks", "width", "joints", "depth"),
    [(1, 256, 14, 4), (8, 256, 16, 4), (2, 256, 16, 4), (1, 96, 14, 4), (3, 8, 5, 2)],
)
def test_parameters_of_other_sizes(stacks, width, joints, depth):
    model = StackedHourglass(joints, stacks, width, depth)
    expected = network_size(stacks, width, joints, depth)
    assert count(shapes_of(model)["params"]) == expected


@pytest.mark.slow
def test_convolutions_start_as_pytorchs_but_with_biases_of_zero():
    images = np.zeros((1, 16, 16, 3), np.float32)
    init = jax.jit(SMALL.clone(stacks=1).init)
    flat = flatten_dict(init(jax.random.key(0), images)["params"])
    values = []
    for path, kernel in flat.items():
        if path[-1] == "kernel":
            assert not flat[(*path[:-1], "bias")].any()
            # U(+-1 / sqrt(fan_in)).
            fan_in = math.prod(kernel.shape[:-1])
            values.append(np.ravel(kernel) * math.sqrt(fan_in))
    values = np.concatenate(values)
    error = 1 / math.sqrt(3 * len(values))
    assert np.abs(values).max() <= 1
    assert abs(values.mean()) < 4 * error
    assert values.std() == pytest.approx(1 / math.sqrt(3), rel=0.05)


# Shapes and types.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "dtype", "convolution"),
    [
        (32, 32, "float32", "native"),
        (48, 48, "bfloat16", "blocked"),
        (64, 32, "float32", "blocked"),
        (16, 80, "bfloat16", "native"),
    ],
)
def test_outputs_are_float32_at_a_quarter_the_size(height, width, dtype, convolution):
    options = HourglassOptions(
        stacks=2, channels=8, depth=2, dtype=dtype, convolution=convolution
    )
    model = options.build(5)
    images = jax.ShapeDtypeStruct((3, height, width, 3), jnp.float32)
    output, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), images
    )
    assert output.prediction.shape == (3, 2, height // 4, width // 4, 5)
    assert output.embedding.shape == (3, 8)
    assert output.prediction.dtype == output.embedding.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_bfloat16_is_used_inside():
    model = SMALL.clone(dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    _, variables = jax.eval_shape(
        functools.partial(model.init_with_output, capture_intermediates=True),
        jax.random.key(0),
        images,
    )
    inner = flatten_dict(variables["intermediates"])
    outputs = {path[0]: leaf[0] for path, leaf in inner.items() if len(path) == 2}
    for name, output in outputs.items():
        head = name.startswith("heatmaps")
        expected = jnp.float32 if head else jnp.bfloat16
        for leaf in [] if name == "__call__" else jax.tree.leaves(output):
            assert leaf.dtype == expected, name


def test_the_options_choose_the_convolution():
    for name, expected in [
        ("auto", blocked_convolution),  # tests run on a CPU
        ("blocked", blocked_convolution),
        ("native", None),
    ]:
        options = HourglassOptions(stacks=1, channels=8, depth=1, convolution=name)
        model = options.build(3)
        assert model.convolve is expected
        assert model.num_outputs == 3
        # What engines read is the same network of the same variables.
        traced = options.build(3, traced=True)
        assert traced == model.clone(convolve=None)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_options_of_a_config_build_a_network_that_knows_its_last_layer(name):
    fields = {f.name: f.default for f in dataclasses.fields(MODELS[name])}
    options = options_of({"name": name, **fields, **MODELS[name].scales["tiny"]})
    assert isinstance(options, MODELS[name]) and isinstance(options, Options)
    options.check(64)
    model = options.build(5)
    example = (1, 7) if name == "mlp" else (1, 64, 64, 3)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(example))["params"]
    assert any(key.startswith(options.last_layer) for key in params)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.dropout = 0.3


def test_an_unknown_network_is_refused_with_those_there_are():
    message = "unknown value of model.name: 'hourglas'. Known: "
    with pytest.raises(ConfigError, match=re.escape(message)):
        options_of({"name": "hourglas"})


# Wiring. Two stacks, 8 channels, 3 joints, one level; 16 pixels.

SMALL = StackedHourglass(3, stacks=2, channels=8, depth=1)
apply = jax.jit(SMALL.apply)


def images_of(seed, batch=3, size=16):
    return np.random.default_rng(seed).random((batch, size, size, 3), np.float32)


@pytest.fixture(scope="module")
def variables():
    """Of `SMALL`, every parameter and statistic drawn at random."""
    return drawn(SMALL, 16)


def sub(variables, name):
    return {
        collection: tree[name] for collection, tree in variables.items() if name in tree
    }


@functools.partial(jax.jit, static_argnames="merge")
def by_hand(variables, images, merge="newell"):
    """`SMALL` put together from its parts; the wiring is written out here."""

    def run(module, name, x):
        return module.apply(sub(variables, name), x, False)

    x = run(Conv(2, kernel=7, stride=2, norm_relu=True), "stem", images)
    x = run(Residual(4), "stem1", x)
    x = nn.max_pool(x, (2, 2), (2, 2))
    x = run(Residual(4), "stem2", x)
    x = run(Residual(8), "stem3", x)
    maps = []
    for s in range(2):
        y, _ = run(Hourglass(1, 8), f"hourglass{s}", x)
        y = run(Residual(8), f"features{s}", y)
        y = run(Conv(8, norm_relu=True), f"project{s}", y)
        maps.append(run(Conv(3), f"heatmaps{s}", y))
        if s == 0:
            kept = x if merge == "newell" else y
            back = run(Conv(8), "merge_maps0", maps[0])
            x = kept + back + run(Conv(8), "merge_features0", y)
    return jnp.stack(maps, axis=1), jnp.mean(y, axis=(1, 2))


@pytest.mark.slow
def test_stacks_are_merged_as_newells(variables):
    images = images_of(1)
    output = apply(variables, images)
    heatmaps, embedding = by_hand(variables, images)
    np.testing.assert_allclose(output.prediction, heatmaps, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.embedding, embedding, rtol=1e-4, atol=1e-5)
    # The published code adds to the feature map instead, which is another network.
    other, _ = by_hand(variables, images, merge="published")
    np.testing.assert_allclose(other[:, 0], heatmaps[:, 0], rtol=1e-4, atol=1e-5)
    assert np.abs(other[:, 1] - heatmaps[:, 1]).max() > 0.01


@pytest.mark.slow
def test_without_the_projections_the_next_stack_sees_the_same_input(variables):
    # With merges of zero and the first stack's weights, the second does the same.
    parts = ("hourglass", "features", "project", "heatmaps")
    changed = {
        collection: tree | {f"{p}1": tree[f"{p}0"] for p in parts if f"{p}0" in tree}
        for collection, tree in variables.items()
    }
    for name in ("merge_maps0", "merge_features0"):
        zero = jax.tree.map(np.zeros_like, changed["params"][name])
        changed["params"] = {**changed["params"], name: zero}
    heatmaps = apply(changed, images_of(2)).prediction
    np.testing.assert_allclose(heatmaps[:, 1], heatmaps[:, 0], rtol=1e-5, atol=1e-6)
    # Either projection alone changes it.
    for name in ("merge_maps0", "merge_features0"):
        params = {**changed["params"], name: variables["params"][name]}
        heatmaps = apply({**changed, "params": params}, images_of(2)).prediction
        assert np.abs(heatmaps[:, 1] - heatmaps[:, 0]).max() > 1e-3


def norm_relu(variables, name, x):
    params, stats = variables["params"][name], variables["batch_stats"][name]
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return np.maximum(x * params["scale"] + params["bias"], 0)


def convolve(variables, name, x):
    """Same-padded, as a sum over the kernel's places."""
    params = variables["params"][name]["conv"]
    size = len(params["kernel"])
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    y = params["bias"]
    for i in range(size):
        for j in range(size):
            y = y + padded[:, i : i + height, j : j + width] @ params["kernel"][i, j]
    return y


def residual(variables, x):
    y = x
    for i in (1, 2, 3):
        y = convolve(variables, f"conv{i}", norm_relu(variables, f"norm{i}", y))
    # The skip has no norm, and is there only where the width changes.
    changes = y.shape[-1] != x.shape[-1]
    assert ("skip" in variables["params"]) == changes
    return y + (convolve(variables, "skip", x) if changes else x)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"), [("stem2", 4, 4), ("stem3", 4, 8)]
)
def test_residuals_are_preactivation_bottlenecks(variables, name, inputs, outputs):
    part = sub(variables, name)
    x = np.random.default_rng(3).normal(size=(2, 4, 4, inputs)).astype(np.float32)
    got = jax.jit(lambda part, x: Residual(outputs).apply(part, x, False))(part, x)
    np.testing.assert_allclose(got, residual(part, x), rtol=1e-4, atol=1e-5)


def test_an_hourglass_adds_its_lower_half_to_its_upper(variables):
    part = sub(variables, "hourglass0")
    x = np.random.default_rng(4).normal(size=(2, 4, 4, 8)).astype(np.float32)
    low = x.reshape(2, 2, 2, 2, 2, 8).max(axis=(2, 4))
    for name in ("low1", "low2", "low3"):
        low = residual(sub(part, name), low)
    low = np.repeat(np.repeat(low, 2, axis=1), 2, axis=2)
    expected = residual(sub(part, "up"), x) + low
    run = jax.jit(lambda part, x: Hourglass(1, 8).apply(part, x, False)[0])
    got = run(part, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_examples_of_a_batch_do_not_meet_in_evaluation_mode(variables):
    images = images_of(5)
    output = apply(variables, images)
    images = images.copy()  # the device may read the others still
    images[1] = 1 - images[1]
    other = apply(variables, images)
    for got, expected in zip(*map(jax.tree.leaves, (other, output)), strict=True):
        np.testing.assert_array_equal(got[::2], expected[::2])
        assert np.abs(got[1] - expected[1]).max() > 1e-3


@pytest.mark.slow
def test_training_mode_uses_and_updates_the_statistics_of_the_batch(variables):
    images = images_of(6)
    train = jax.jit(functools.partial(SMALL.apply, train=True, mutable=["batch_stats"]))
    output, changed = train(variables, images)
    images = images.copy()  # the device may read the others still
    images[1] = 1 - images[1]
    other, _ = train(variables, images)
    assert np.abs(other.prediction[0] - output.prediction[0]).max() > 1e-3
    # The first norm's input is the stem's convolution; momentum 0.9.
    conv = nn.Conv(2, (7, 7), (2, 2), padding=[(3, 3), (3, 3)])
    params = variables["params"]["stem"]["conv"]
    y = jax.jit(conv.apply)({"params": params}, images_of(6))
    mean = 0.9 * variables["batch_stats"]["stem"]["norm"]["mean"]
    mean += 0.1 * np.asarray(y).mean(axis=(0, 1, 2))
    got = changed["batch_stats"]["stem"]["norm"]["mean"]
    np.testing.assert_allclose(got, mean, rtol=1e-4, atol=1e-6)


def test_the_embedding_is_not_negative(variables):
    embedding = np.asarray(apply(variables, images_of(7)).embedding)
    assert (embedding >= 0).all()
    assert embedding.any()


def test_blocked_convolutions_do_what_the_native_ones_do(variables):
    images = images_of(8)
    blocked = jax.jit(SMALL.clone(convolve=blocked_convolution).apply)
    outputs = blocked(variables, images), apply(variables, images)
    for got, expected in zip(*map(jax.tree.leaves, outputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


# The convolution with kernel gradients in blocks.

LAYOUTS = {
    1: ("NHC", "HIO", "NHC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}
BLOCK_BYTES = windows.BLOCK_BYTES
# (sizes of the image, of the kernel, strides, padding, options)
CONVOLUTIONS = {
    "1x1": ((9, 12), (1, 1), (1, 1), ((0, 0), (0, 0)), {}),
    "1x1 strided": ((9, 12), (1, 1), (2, 2), ((0, 0), (0, 0)), {}),
    "1x1 padded": ((9, 12), (1, 1), (1, 1), ((1, 0), (0, 1)), {}),
    "3x3": ((9, 12), (3, 3), (1, 1), ((1, 1), (1, 1)), {}),
    "3x3 strided": ((9, 12), (3, 3), (2, 2), ((1, 1), (1, 1)), {}),
    "3x3 unpadded": ((9, 12), (3, 3), (1, 1), ((0, 0), (0, 0)), {}),
    "3x3 padded unevenly": ((9, 12), (3, 3), (2, 2), ((2, 0), (1, 2)), {}),
    "3x3 cropped": ((9, 12), (3, 3), (1, 1), ((-1, 1), (0, -2)), {}),
    "7x7": ((9, 12), (7, 7), (1, 1), ((3, 3), (3, 3)), {}),
    "7x7 strided": ((9, 12), (7, 7), (2, 2), ((3, 3), (3, 3)), {}),
    "3x5": ((8, 9), (3, 5), (2, 3), ((1, 1), (2, 2)), {}),
    "a trous": ((9, 12), (3, 2), (1, 2), ((2, 2), (0, 1)), {"rhs_dilation": (2, 3)}),
    "transposed": ((5, 4), (3, 4), (1, 1), ((2, 2), (1, 2)), {"lhs_dilation": (2, 3)}),
    "grouped": ((9, 12), (3, 3), (1, 2), ((1, 1), (1, 1)), {"feature_group_count": 2}),
    "grouped 1x1": (
        (5, 4),
        (1, 1),
        (1, 1),
        ((0, 0), (0, 0)),
        {"feature_group_count": 2},
    ),
    "depthwise": ((5, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), {"feature_group_count": 4}),
    "1-D": ((11,), (3,), (2,), ((1, 2),), {"rhs_dilation": (2,)}),
    "1-D grouped": ((11,), (4,), (1,), ((0, 0),), {"feature_group_count": 2}),
    "3-D": ((4, 5, 6), (2, 3, 1), (1, 2, 1), ((1, 0), (1, 1), (0, 0)), {}),
}


def native_convolution(x, w, strides, padding, **options):
    """XLA's, but for cropping: it reads beyond its input (openxla/xla#48713)."""
    for axis, (low, high) in enumerate(padding, start=1):
        x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] - max(-high, 0), axis=axis)
    rest = [(max(low, 0), max(high, 0)) for low, high in padding]
    return lax.conv_general_dilated(x, w, strides, rest, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_blocked_convolution_is_the_native_one(name, monkeypatch):
    sizes, kernel, strides, padding, options = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    groups = options.get("feature_group_count", 1)
    x = rng.normal(size=(2, *sizes, 4)).astype(np.float32)
    w = rng.normal(size=(*kernel, 4 // groups, 8)).astype(np.float32)
    layout = LAYOUTS[len(sizes)]

    def run(convolve, x, w, block_bytes=None):
        def loss(x, w):
            y = convolve(x, w, strides, padding, dimension_numbers=layout, **options)
            return jnp.sum(jnp.sin(y)), y

        monkeypatch.setattr(windows, "BLOCK_BYTES", block_bytes or BLOCK_BYTES)
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, w)

    @jax.jit  # of arguments: of constants it would be computed by the compiler
    def run_all(x, w):
        # Whole, and in several blocks an image.
        found = [run(blocked_convolution, x, w, size) for size in (None, 1000)]
        return found, run(native_convolution, x, w)

    found, ((_, expected), expected_gradients) = run_all(x, w)
    for (_, y), gradients in found:
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        for got, wanted in zip(gradients, expected_gradients, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


def test_kernel_gradients_are_taken_in_blocks(monkeypatch):
    # Twelve rows of patches of 4 * 8 * 9 * 2 bytes: four rows fit, three blocks.
    monkeypatch.setattr(windows, "BLOCK_BYTES", 4 * 8 * 9 * 2 * 4)
    x, w = jnp.ones((1, 12, 8, 2)), jnp.ones((3, 3, 2, 4))

    def total(w):
        return jnp.sum(blocked_convolution(x, w, (1, 1), ((1, 1), (1, 1))))

    jaxpr = str(jax.make_jaxpr(jax.grad(total))(w))
    assert "length=3" in jaxpr
    assert "f32[1,4,8,9,2]" in jaxpr and "f32[1,12,8,9,2]" not in jaxpr


def test_linen_layers_take_the_blocked_convolution():
    # What Linen hands over, precision and dimension numbers included.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 8, 6, 4)).astype(np.float32)
    options = {"kernel_dilation": (1, 2), "feature_group_count": 2, "padding": 1}
    native = nn.Conv(6, (3, 3), **options)
    blocked = native.clone(conv_general_dilated=blocked_convolution)
    variables = jax.jit(native.init)(jax.random.key(0), x)
    outputs = [jax.jit(conv.apply)(variables, x) for conv in (blocked, native)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_upsampling_repeats_pixels():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    expected = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(jax.jit(upsample_nearest)(x), expected)


def test_blocked_convolution_takes_padding_by_name():
    draws = np.random.default_rng(0)
    x = draws.normal(size=(2, 9, 8, 3)).astype(np.float32)
    w = draws.normal(size=(3, 2, 3, 4)).astype(np.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    for padding in ("SAME", "VALID"):
        for dilation in ((1, 1), (2, 2)):
            options = {"rhs_dilation": dilation, "dimension_numbers": layout}
            got, wanted = (
                jax.jit(functools.partial(fn, **options), static_argnums=(2, 3))(
                    x, w, (2, 1), padding
                )
                for fn in (blocked_convolution, lax.conv_general_dilated)
            )
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
