"""Heads: their size, their arithmetic, and on which networks they fit."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jalpose.models.heads import HEADS, AverageHead, BlocksHead, LevelsHead, StackHead
from jalpose.models.hourglass import StackedHourglass
from jalpose.models.output import Features, Output
from jalpose.models.registry import options_of


def pose_output(sides, channels, batch=2, stacks=2, seed=0):
    """A `Output` with random features; the levels have these sides."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    levels = tuple(draw(batch, h, w, channels) for h, w in sides)
    maps = tuple(draw(batch, *sides[0], channels) for _ in range(stacks))
    heatmaps = draw(batch, stacks, *sides[0], 3)
    embedding = maps[-1].mean(axis=(1, 2))
    return Output(heatmaps, embedding, Features(maps, levels))


def squares(*sides):
    return [(side, side) for side in sides]


@functools.cache
def network_output(size=64, depth=2, dtype=jnp.float32, stacks=2, batch=3):
    """Shapes of what an hourglass returns."""
    height, width = (size, size) if isinstance(size, int) else size
    model = StackedHourglass(14, stacks, 8, depth, dtype)
    image = jax.ShapeDtypeStruct((batch, height, width, 3), jnp.float32)
    return jax.eval_shape(
        lambda key, x: model.init_with_output(key, x)[0], jax.random.key(0), image
    )


def classes_output(name, size, **options):
    """Shapes of what a network of classes returns."""
    model = options_of({"name": name, **options}).build(7)
    image = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
    return jax.eval_shape(
        lambda key, x: model.init_with_output(key, x)[0], jax.random.key(0), image
    )


def shapes_of(head, output):
    """Shapes of the head's output and of its parameters, by path."""
    found, variables = jax.eval_shape(head.init_with_output, jax.random.key(0), output)
    return found, flatten_dict(variables["params"])


def count(params):
    return sum(math.prod(leaf.shape) for leaf in params.values())


def initialised(head, output):
    """Random parameters, biases too, as numpy; and the head's output."""
    _, shapes = shapes_of(head, output)
    rng = np.random.default_rng(2)
    params = unflatten_dict(
        {k: rng.normal(0, 0.3, v.shape).astype(np.float32) for k, v in shapes.items()}
    )
    return params, apply(head, params, output)


def apply(head, params, output):
    return np.asarray(jax.jit(head.apply)({"params": params}, output))


# Sizes, and what the heads fit on.


def test_parameters_of_the_published_heads():
    shapes = jax.eval_shape(
        lambda: jax.tree.map(jnp.asarray, pose_output(squares(64, 32, 16, 8, 4), 256))
    )
    hidden = 43_777  # 256 -> 128 -> 64 -> 32 -> 16 -> 1
    assert count(shapes_of(AverageHead(1), shapes)[1]) == hidden
    params = shapes_of(LevelsHead(1), shapes)[1]
    assert count(params) == 2_098_432 + hidden
    # 256 -> 128 for each of two stacks, 256 -> 1.
    params = shapes_of(StackHead(1), shapes)[1]
    assert count(params) == 2 * (256 * 128 + 128) + 257
    # Four blocks of ResNet-18 -> 128 each, 512 -> 1.
    output = classes_output("resnet", 32, depth=18, width=64)
    params = shapes_of(BlocksHead(1), output)[1]
    assert count(params) == (64 + 128 + 256 + 512) * 128 + 4 * 128 + 513


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    ("size", "depth", "stacks"),
    [(32, 1, 1), (64, 1, 2), (64, 2, 3), (128, 4, 1), ((64, 96), 3, 2), (96, 2, 2)],
)
def test_heads_fit_any_size_depth_and_number_of_stacks(name, size, depth, stacks):
    output = network_output(size, depth, stacks=stacks)
    found, _ = shapes_of(HEADS[name](5), output)
    assert found.shape == (3, 5) and found.dtype == jnp.float32


@pytest.mark.parametrize("name", sorted(HEADS.keys() - {"stacks"}))
@pytest.mark.parametrize(
    ("network", "size", "options"),
    [
        ("resnet", 32, {"depth": 18, "width": 4}),
        ("resnet", 30, {"depth": 14, "width": 4}),  # maps of 30, 15 and 8
        ("resnet", 50, {"depth": 18, "width": 4, "stem": "original"}),
        ("vgg", 32, {"width": 4}),
    ],
)
def test_heads_fit_networks_of_classes(name, network, size, options):
    output = classes_output(network, size, **options)
    found, _ = shapes_of(HEADS[name](5), output)
    assert found.shape == (3, 5) and found.dtype == jnp.float32


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_float32_on_bfloat16_features(name):
    output = network_output(dtype=jnp.bfloat16)
    assert output.features.levels[0].dtype == jnp.bfloat16
    found, params = shapes_of(HEADS[name](2), output)
    assert found.dtype == jnp.float32
    assert {leaf.dtype for leaf in params.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", HEADS)
def test_bfloat16_features_are_widened_before_any_arithmetic(name):
    output = pose_output(squares(4, 2), 6)
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), output)
    wide = jax.tree.map(lambda x: x.astype(np.float32), narrow)
    params, found = initialised(HEADS[name](3), narrow)
    expected = apply(HEADS[name](3), params, wide)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", HEADS)
def test_equal_heads_are_one_key(name):
    assert HEADS[name](3) == HEADS[name](3) and HEADS[name](3) != HEADS[name](4)
    assert len({HEADS[name](3), HEADS[name](3)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_kernels_start_as_pytorchs_and_biases_at_zero(name):
    output = pose_output(squares(8, 4, 2), 16)
    init = jax.jit(HEADS[name](2).init)
    params = flatten_dict(init(jax.random.key(0), output)["params"])
    params = {path: np.asarray(leaf) for path, leaf in params.items()}
    for path, leaf in params.items():
        if path[-1] == "bias":
            assert not leaf.any()
        else:
            bound = 1 / math.sqrt(math.prod(leaf.shape[:-1]))
            assert 0.8 * bound < np.abs(leaf).max() <= bound
            assert np.abs(leaf).mean() == pytest.approx(bound / 2, rel=0.25)


@pytest.mark.parametrize(
    ("name", "field"), [("stacks", "stacks"), ("blocks", "levels"), ("conv", "levels")]
)
def test_a_network_without_the_features_is_refused(name, field):
    output = pose_output(squares(4), 6)._replace(features=Features())
    with pytest.raises(ValueError, match=f"features.{field}.*choose the head average"):
        shapes_of(HEADS[name](1), output)
    assert shapes_of(AverageHead(1), output)[0].shape == (2, 1)


# The arithmetic, against slow numpy.


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def relu(x):
    return np.maximum(x, 0)


def slow_hidden_layers(x, params):
    for i in range(len(params) - 1):
        x = relu(dense(x, params[f"hidden{i}"]))
    return dense(x, params["out"])


def slow_halving(x, layer):
    """2x2 convolution of stride 2, a pixel at a time; zeros behind an odd end."""
    x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    batch, height, width, _ = x.shape
    result = np.zeros((batch, height // 2, width // 2, layer["bias"].shape[0]))
    for r in range(height // 2):
        for c in range(width // 2):
            patch = x[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
            result[:, r, c] = np.einsum("brci,rcio->bo", patch, layer["kernel"])
    return result + layer["bias"]


def test_the_head_on_stacks_equals_a_slow_computation():
    output = pose_output([(4, 6), (2, 3)], 5)
    params, found = initialised(StackHead(2, 7), output)
    means = [x.mean(axis=(1, 2)) for x in output.features.stacks]
    parts = [relu(dense(x, params[f"stack{s}"])) for s, x in enumerate(means)]
    expected = dense(np.concatenate(parts, axis=1), params["out"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_head_on_blocks_equals_a_slow_computation():
    # Blocks of their own widths.
    output = pose_output([(4, 6), (2, 3), (1, 2)], 5)
    levels = [x[..., : 5 - i] for i, x in enumerate(output.features.levels)]
    output = output._replace(features=Features(levels=tuple(levels)))
    params, found = initialised(BlocksHead(2, 7), output)
    means = [x.mean(axis=(1, 2)) for x in levels]
    parts = [relu(dense(x, params[f"block{i}"])) for i, x in enumerate(means)]
    expected = dense(np.concatenate(parts, axis=1), params["out"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_head_on_the_embedding_equals_a_slow_computation():
    output = pose_output([(4, 6), (2, 3)], 5)
    params, found = initialised(AverageHead(2, (7, 6)), output)
    assert set(params) == {"hidden0", "hidden1", "out"}
    expected = slow_hidden_layers(output.embedding, params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sides", [[(8, 12), (4, 6), (2, 3)], [(7, 9), (4, 5), (2, 3)]])
def test_the_head_on_levels_equals_a_slow_computation(sides):
    output = pose_output(sides, 5)
    params, found = initialised(LevelsHead(2, (7, 6)), output)
    x, middle, low = output.features.levels
    x = middle + relu(slow_halving(x, params["halve0"]))
    x = low + relu(slow_halving(x, params["halve1"]))
    whole = params["whole"]
    assert whole["kernel"].shape == (2, 3, 5, 5)
    x = relu(np.einsum("brci,rcio->bo", x, whole["kernel"]) + whole["bias"])
    hidden = {k: v for k, v in params.items() if k.startswith(("hidden", "out"))}
    expected = slow_hidden_layers(x, hidden)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_an_example_is_read_by_itself(name):
    output = pose_output(squares(4, 2), 6, batch=3)
    params, found = initialised(HEADS[name](2), output)
    one = jax.tree.map(lambda x: x[1:2], output)
    alone = apply(HEADS[name](2), params, one)
    np.testing.assert_allclose(found[1:2], alone, rtol=1e-5, atol=1e-6)
