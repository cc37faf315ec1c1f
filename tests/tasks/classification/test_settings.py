"""Keys of classes: what is refused, and what methods are told on them."""

import pytest

from jalpose.acquisition import registry as methods
from jalpose.loop import configs
from jalpose.settings.checks import ConfigError
from jalpose.tasks.classification import settings


def make(**changes):
    delta = {key.replace("__", "."): value for key, value in changes.items()}
    return configs.assemble("scale=tiny", name="x", task="classification", delta=delta)


def test_the_defaults_are_allowed():
    for scale in ("tiny", "small", "paper"):
        config = configs.assemble(f"scale={scale}", name="x", task="classification")
        settings.check(config)
    assert config.model.name == "resnet" and "heatmap" not in config


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("augment__pad", -1, r"augment\.pad=-1 must be at least 0"),
        ("augment__pad", 32, r"augment\.pad=32 must be below data\.size=32"),
        ("augment__flip", 1.5, r"augment\.flip=1\.5 must lie between 0 and 1"),
        ("augment__least_area", 0.0, r"augment\.least_area=0\.0 must be above 0"),
        ("augment__least_area", 1.5, r"augment\.least_area=1\.5 must lie between"),
        ("training__label_smoothing", 1.0, "0 or more, and below 1"),
        ("evaluation__bins", 0, r"evaluation\.bins=0 must be at least 1"),
        ("data__cifar__labels", "coarsest", r"data\.cifar\.labels"),
    ],
)
def test_values_that_are_refused(key, value, says):
    with pytest.raises(ConfigError, match=says):
        settings.check(make(**{key: value}))


def test_two_ways_to_crop_are_refused():
    with pytest.raises(ConfigError, match="two ways to crop"):
        settings.check(make(augment__least_area=0.5))
    settings.check(make(augment__least_area=0.5, augment__pad=0))


def test_methods_are_told_what_they_need_to_know_of_classes():
    config = make()
    for key in settings.METHOD_OPTIONS:
        assert key in configs.known_keys(config)
    for name in ("egl", "entropy_gradnorm", "expected_gradnorm"):
        assert config.acquisition[name].posterior == "softmax"
        usual = "normalised" if name == "egl" else "window"
        assert configs.default().acquisition[name].posterior == usual
        methods.method_of(name, dict(config.acquisition[name]))
    assert config.acquisition.softmax_entropy.unit == "value"


def test_a_method_option_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setitem(settings.METHOD_OPTIONS, "acquisition.egl.peeks", 3)
    with pytest.raises(ConfigError, match=r"Did you mean 'acquisition\.egl\.peaks'"):
        make()
