"""What `--config_help` says: of every key, from what stands beside it."""

import pytest
from ml_collections import ConfigDict

from jalpose.loop import config_help, configs
from jalpose.models.registry import MODELS
from jalpose.settings.keys import known_keys
from jalpose.tasks import registry as tasks


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_key_says_what_it_means(task):
    config = configs.default(task)
    meanings = config_help.meanings_of(config)
    assert [key for key in known_keys(config) if not meanings.get(key)] == []


@pytest.mark.parametrize("model", MODELS)
def test_so_do_those_of_every_network(model):
    config = configs.default("classification", model)
    meanings = config_help.meanings_of(config)
    ours = [key for key in known_keys(config) if key.startswith("model.")]
    assert [key for key in ours if not meanings.get(key)] == []


def test_a_section_is_shown_with_its_values():
    config = configs.assemble("seed=3,scale=tiny", name="x")
    text = config_help.show(config, "training")
    assert "training.batch = 8\n    examples a step, over all devices" in text
    assert "acquisition" not in text
    assert "\nseed = 3\n" in config_help.show(config, "all")


def test_a_sections_own_keys_come_before_those_of_the_sections_in_it():
    config = configs.assemble("scale=tiny", name="x")
    shown = config_help.show(config, "acquisition").splitlines()
    keys = [line.partition(" = ")[0] for line in shown if not line.startswith(" ")]
    depths = [key.count(".") for key in keys]
    assert keys[0] == "acquisition.block" and depths == sorted(depths)
    sections = config_help.show(config).splitlines()
    assert sections[0].startswith("acquisition  ")


def a_function(config):
    # Of a section, and of it alone.
    part = config.part = ConfigDict()
    part.first = 1  # beside
    # Above, on two
    # lines.
    part.second = 2  # and beside
    part.third = 3
    other = config.other

    other.fourth = 4
    config.deep.fifth = 5  # by its whole name


def test_comments_above_and_beside_are_a_keys():
    assert config_help._of_comments(a_function) == {
        "part.first": "beside",
        "part.second": "Above, on two lines. and beside",
        "part.third": "Above, on two lines. and beside",
        "other.fourth": "",
        "deep.fifth": "by its whole name",
    }
