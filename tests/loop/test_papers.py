"""Presets of what published codes do: set after the colon, listed by --dry_run."""

import pytest

from jalpose.loop import configs, papers
from jalpose.loop.configs import benchmark, experiment
from jalpose.settings.checks import ConfigError
from jalpose.settings.keys import lookup
from jalpose.tasks.pose.published import PAPERS

LSP, MPII = benchmark("lsp"), benchmark("mpii")


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("get_config", [LSP, MPII])
def test_a_preset_is_set_at_every_scale_and_can_be_run(get_config, name, scale):
    config = get_config(f"papers={name},scale={scale}")
    configs.check(config)
    found = papers.changes("pose", name, config.data.name)
    assert found["acquisition.eglpp.perplexity"] == 75.33
    for key, value in found.items():
        assert lookup(config, key) == value, key
    # Lengths and sizes stay those of the scale.
    usual = get_config(f"scale={scale}")
    assert config.training.base_steps == usual.training.base_steps
    assert config.data.size == usual.data.size


def test_what_is_set_depends_on_the_data_set():
    lsp, mpii = LSP("papers=eglpp_published"), MPII("papers=eglpp_published")
    assert lsp.evaluation.reference == "torso" and lsp.data.mpii.head_shift == 0
    assert mpii.evaluation.reference == "head_full" and mpii.data.crop == "joints"
    assert mpii.data.mpii.all_joints and mpii.data.mpii.head_shift == 0.2
    earlier = MPII("papers=eglpp_published_2021")
    assert earlier.data.window == 2.0 and not earlier.data.mpii.all_joints
    assert earlier.evaluation.least_peak == 0.25 and not earlier.training.occluded


def test_an_experiment_has_it_in_all_its_runs():
    config = experiment("lsp", ("random", "eglpp"), (0, 1))("papers=eglpp_published")
    assert config.papers == "eglpp_published"
    assert config.acquisition.eglpp.labels == "predicted"
    configs.check(config)


def test_all_that_is_set_is_told_and_what_was_changed_since():
    config = LSP("papers=eglpp_published")
    config.acquisition.eglpp.perplexity = 20.0
    lines = papers.told(config)
    assert lines[0] == "papers=eglpp_published sets:"
    found = papers.changes("pose", "eglpp_published", "lsp")
    assert [line.split(" = ")[0].strip() for line in lines[1 : 1 + len(found)]] == (
        sorted(found)
    )
    assert "  acquisition.engine = conv_linear" in lines
    changed = "(--config.acquisition.eglpp.perplexity=20.0 instead)"
    assert f"  acquisition.eglpp.perplexity = 75.33 {changed}" in lines
    assert any("chosen by the test set" in line for line in lines)
    assert papers.told(LSP("")) == []


def test_presets_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"papers: 'eglpp'. Known: eglpp_pub"):
        LSP("papers=eglpp")
    classes = benchmark("cifar10", task="classification")
    with pytest.raises(ConfigError, match="classification has no such presets"):
        classes("papers=eglpp_published")
    config = LSP("")
    config.papers = "llpp"
    with pytest.raises(ConfigError, match="papers: 'llpp'"):
        configs.check(config)
