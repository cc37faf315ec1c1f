"""VGG networks: published sizes, wiring, starting weights, dropout, gradient norms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jalpose.models.convolution import blocked_convolution
from jalpose.models.options import DTYPES
from jalpose.models.vgg import CLASSIFIERS, CONVOLUTIONS, VggOptions
from jalpose.pergrad import api
from jalpose.settings.checks import ConfigError
from tests.support.counts import count, drawn, shapes_of
from tests.support.networks import assert_norms_agree, norms_of, targets_for

MEAN, STD = (0.49, 0.48, 0.45), (0.2, 0.21, 0.22)


def options(**changes):
    about = {"depth": 11, "width": 2, "mean": MEAN, "std": STD}
    return VggOptions(**about | changes)


def images_of(seed, size=32, batch=2):
    return np.random.default_rng(seed).random((batch, size, size, 3), np.float32)


# Sizes.


@pytest.mark.parametrize(
    ("depth", "classifier", "size", "classes", "published"),
    [
        (16, "linear", 32, 10, 14_728_266),
        (16, "original", 224, 1000, 138_365_992),
        (11, "original", 224, 1000, 132_868_840),
        (13, "original", 224, 1000, 133_053_736),
        (19, "original", 224, 1000, 143_678_248),
    ],
)
def test_parameters_of_the_published_networks(
    depth, classifier, size, classes, published
):
    model = VggOptions(depth=depth, classifier=classifier).build(classes)
    params = shapes_of(model, size)["params"]
    assert count(params) == published
    kernels = [p for p in flatten_dict(params) if p[-1] == "kernel"]
    assert len(kernels) == (depth if classifier == "original" else depth - 2)


@pytest.mark.parametrize("depth", CONVOLUTIONS)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_parameters_of_other_sizes(depth, classifier):
    model = VggOptions(depth=depth, classifier=classifier, width=3).build(7)
    total, inputs = 0, 3
    for outputs, number in zip((3, 6, 12, 24, 24), CONVOLUTIONS[depth], strict=True):
        for _ in range(number):
            total += 9 * inputs * outputs + 3 * outputs  # a bias, and batch norm
            inputs = outputs
    if classifier == "original":  # images of 64 pixels leave maps of 2x2
        total += 4 * 24 * 192 + 192 + 192 * 192 + 192
        inputs = 192
    assert count(shapes_of(model, 64)["params"]) == total + inputs * 7 + 7


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_what_comes_out(classifier, dtype):
    model = options(classifier=classifier, dtype=dtype).build(6)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    output, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), images
    )
    assert output.prediction.shape == (2, 6)
    assert output.embedding.shape == (2, 16)
    assert output.prediction.dtype == output.embedding.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    levels = output.features.levels
    assert [x.shape[1:] for x in levels] == [
        (32, 32, 2),
        (16, 16, 4),
        (8, 8, 8),
        (4, 4, 16),
        (2, 2, 16),
    ]
    assert all(x.dtype == DTYPES[dtype] for x in levels)


# Wiring.


def by_hand(variables, images, depth, classifier):
    """(logits, embedding, stages) in NumPy."""
    params, stats = variables["params"], variables["batch_stats"]
    x, stages = (images - np.array(MEAN)) / np.array(STD), []
    for s, number in enumerate(CONVOLUTIONS[depth]):
        for c in range(number):
            name = f"stage{s}_conv{c}"
            conv, norm = params[name]["conv"], params[name]["norm"]
            wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            height, width = x.shape[1:3]
            y = conv["bias"]
            for i in range(3):
                for j in range(3):
                    seen = wide[:, i : i + height, j : j + width]
                    y = y + seen @ conv["kernel"][i, j]
            y = (y - stats[name]["norm"]["mean"]) / np.sqrt(
                stats[name]["norm"]["var"] + 1e-5
            )
            x = np.maximum(y * norm["scale"] + norm["bias"], 0)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        stages.append(x)
    embedding = x.mean(axis=(1, 2))
    read = embedding
    if classifier == "original":
        read = x.reshape(len(x), -1)
        for i in (0, 1):
            layer = params[f"hidden{i}"]
            read = np.maximum(read @ layer["kernel"] + layer["bias"], 0)
    last = params["logits"]
    return read @ last["kernel"] + last["bias"], embedding, stages


@pytest.mark.parametrize(
    ("depth", "classifier", "size"),
    [(11, "linear", 32), (16, "linear", 32), (11, "original", 64)],
)
def test_it_is_put_together_as_published(depth, classifier, size):
    model = options(depth=depth, classifier=classifier).build(4)
    variables, images = drawn(model, size), images_of(1, size)
    output = jax.jit(model.apply)(variables, images)
    logits, embedding, stages = by_hand(variables, images, depth, classifier)
    np.testing.assert_allclose(output.prediction, logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(output.embedding, embedding, rtol=1e-3, atol=1e-3)
    for got, wanted in zip(output.features.levels, stages, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


def test_the_options_choose_the_convolution():
    native = options(convolution="native").build(3)
    assert options(convolution="auto").build(3).convolve is blocked_convolution
    blocked = options(convolution="blocked")
    assert blocked.build(3) == native.clone(convolve=blocked_convolution)
    assert blocked.build(3, traced=True) == native


# Starting weights.


@pytest.mark.slow
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_weights_start_as_those_of_the_code_in_use(classifier):
    model = VggOptions(depth=11, width=16, classifier=classifier).build(10)
    params = jax.jit(model.init)(jax.random.key(0), images_of(0))["params"]
    for path, leaf in flatten_dict(params).items():
        layer = shapes = np.asarray(leaf)
        if path[-1] == "bias" and path[-2] != "norm":
            kernel = flatten_dict(params)[(*path[:-1], "kernel")]
            shapes = np.asarray(kernel)
        fan_in, fan_out = math.prod(shapes.shape[:-1]), 9 * shapes.shape[-1]
        if path[-2] == "norm":
            assert (layer == (path[-1] == "scale")).all()
        elif classifier == "linear":  # U(+-1/sqrt(fan_in)), of kernels and biases
            bound = 1 / math.sqrt(fan_in)
            assert 0.5 * bound < np.abs(layer).max() <= bound
        elif path[-1] == "bias":
            assert not layer.any()
        else:
            conv = path[-2] == "conv"
            wanted = math.sqrt(2 / fan_out) if conv else 0.01
            assert np.std(layer) == pytest.approx(wanted, rel=0.06)


# Dropout.


@pytest.mark.slow
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_dropout_is_of_what_the_classifiers_layers_read(classifier):
    model = options(dropout=0.5, classifier=classifier, width=4).build(4)
    variables, images = drawn(model, 32), images_of(3, batch=4)

    @functools.partial(jax.jit, static_argnames="drop")
    def run(variables, key, drop):
        rngs = {"dropout": jax.random.key(key)}
        return model.apply(variables, images, drop=drop, rngs=rngs)

    plain = jax.jit(model.clone(dropout=0.0).apply)(variables, images)
    off = run(variables, 0, False)
    one, other = (run(variables, key, True) for key in (0, 1))
    np.testing.assert_array_equal(off.prediction, plain.prediction)
    for dropped in (one, other):
        np.testing.assert_allclose(dropped.embedding, plain.embedding, rtol=1e-6)
        assert np.abs(dropped.prediction - plain.prediction).max() > 1e-3
    assert np.abs(one.prediction - other.prediction).max() > 1e-3


# Gradient norms.


@pytest.mark.slow
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_ghost_norms_are_the_exact_ones_without_a_fallback(classifier):
    model = options(classifier=classifier, width=1).build(3, traced=True)
    model = model.clone(convolutions=(1,) * 5)  # compiled sooner
    variables, images = drawn(model, 32), images_of(4)

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
    ("classifier", "size", "classes"), [("linear", 32, 10), ("original", 224, 1000)]
)
def test_the_published_networks_need_no_fallback(classifier, size, classes):
    # Traced only.
    about = VggOptions(classifier=classifier, mean=MEAN, std=STD)
    model = about.build(classes, traced=True)
    variables = shapes_of(model, size)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    found = api.routes(lambda v, x: model.apply(v, x).prediction, variables, images)
    assert {route.way for route in found} <= {"direct", "gram", "shifted", "vector"}
    assert not any(route.reason for route in found)


# Options.


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({"depth": 12}, 32, "unknown value of model.depth: 12. Known: 11, 13, 16, 19"),
        ({"classifier": "big"}, 32, "unknown value of model.classifier: 'big'"),
        ({"width": 0}, 32, "model.width=0 must be above 0"),
        ({"dropout": -0.1}, 32, "model.dropout=-0.1 must be 0 or more, and below 1"),
        ({"dtype": "float16"}, 32, "unknown value of model.dtype"),
        ({"mean": ()}, 32, "three numbers each"),
        ({}, 48, "data.size=48 must be a multiple of 32"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, size, message):
    with pytest.raises(ConfigError, match=message):
        options(**changes).check(size)
