"""The keys of every config: what they are called, where they come from, seeds."""

import pytest
from ml_collections import ConfigDict

from jalpose.loop import configs
from jalpose.settings import keys
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import differences
from jalpose.settings.scales import SCALES


def test_known_keys_are_dotted_and_sections_left_out():
    config = ConfigDict({"b": {"d": 1, "c": {"e": 2}}, "a": 3})
    assert keys.known_keys(config) == ["a", "b.c.e", "b.d"]


def test_runtime_and_host_keys_are_keys_or_sections():
    config = keys.common()
    for key in (*keys.RUNTIME_KEYS, *keys.HOST_KEYS):
        keys.lookup(config, key)


def test_every_scale_changes_common_keys_only():
    known = keys.known_keys(keys.common())
    for changes in SCALES.values():
        assert set(changes) <= set(known)


def test_the_data_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("JALPOSE_DATA", "/somewhere")
    assert keys.common().data.dir == "/somewhere"
    monkeypatch.delenv("JALPOSE_DATA")
    assert keys.common().data.dir == "data"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("training.bach", " Did you mean 'training.batch'?"),
        ("modell.name", " Did you mean 'model.name'?"),
        ("acquisition.sketch.pass", " Did you mean 'acquisition.sketch.passes'?"),
        ("acquisition.sketsh.passes", " Did you mean 'acquisition.sketch.passes'?"),
        ("zzz", ""),
    ],
)
def test_unknown_keys_are_told_with_those_beside_them_the_nearest_last(key, hint):
    with pytest.raises(ConfigError) as caught:
        keys.check_key(keys.common(), key)
    told = str(caught.value)
    assert told.startswith(f"unknown config key {key!r}. Known ")
    assert told.endswith(f" says what they are.{hint}") and "\n" not in told
    section = {"training.bach": "training", "modell.name": "", "zzz": ""}.get(
        key, "acquisition.sketch" if key.endswith("pass") else "acquisition"
    )
    config = keys.common()
    there = keys.lookup(config, section) if section else config
    listed = told.partition(": ")[2].partition(";")[0].split(", ")
    assert sorted(listed) == sorted(there)
    assert f"--config_help{'=' * bool(section)}{section} says" in told


def test_a_section_is_no_key():
    with pytest.raises(ConfigError, match="unknown config key 'training'"):
        keys.check_key(keys.common(), "training")


def test_a_part_has_a_seed_of_its_own_or_the_runs():
    config = keys.common()
    config.seed = 3
    parts = list(config.seeds)
    assert {keys.seed_of(config, part) for part in parts} == {3}
    for number, part in enumerate(parts):
        config.seeds[part] = number
        assert keys.seed_of(config, part) == number
    assert config.seed == 3


def with_variants(*given):
    config = configs.assemble("scale=tiny", name="variants")
    with config.unlocked():
        config.experiment.variants = given
    return config


SPREAD = "eglpp_spread", "eglpp", "acquisition.diverse=lcmd"


def test_a_variant_is_a_method_with_other_options():
    config = with_variants(
        (*SPREAD, "acquisition.diverse_share=1", "acquisition.eglpp.neighbours=7")
    )
    other = keys.from_base(config, "eglpp_spread", "runs/one")
    assert (other.base, other.acquisition.method) == ("runs/one", "eglpp")
    assert other.experiment.variants == ()
    lines = differences(config.to_dict(), other.to_dict(), ignore=["base"])
    assert [line.partition(":")[0] for line in lines] == [
        "acquisition.diverse",
        "acquisition.diverse_share",
        "acquisition.eglpp.neighbours",
        "acquisition.method",
        "experiment.variants",
    ]
    assert other.acquisition.diverse_share == 1.0
    assert type(other.acquisition.diverse_share) is float
    assert config.acquisition.eglpp.neighbours == 5
    again = with_variants(("again", "random", "seeds.acquire=3"))
    assert keys.from_base(again, "again", "").seeds.acquire == 3
    plain = keys.from_base(config, "eglpp", "runs/one")
    assert plain.acquisition.diverse == "" and plain.acquisition.eglpp.neighbours == 5


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (("one", "eglpp", "acquisition.divers=lcmd"), "Did you mean 'acquisition.div"),
        (("one", "eglpp", "training.batch=2"), r"training.batch=2', which is not"),
        (("one", "eglpp", "acquisition.budget"), "acquisition.budget', which is not"),
        (
            ("one", "eglpp", "acquisition.budget=2.5"),
            r"=2\.5 must be of the kind",
        ),
        (("one",), r"\('one',\) must be a name of its own"),
        ("one", "'one' must be a name of its own"),
        (("eglpp", "eglpp"), "eglpp is a method's name already"),
        (("one", "eglp"), r"the method of one: 'eglp'\..* Did you mean 'eglpp'"),
        (("one", "eglpp", "acquisition.diverse=random"), r"diverse must name a method"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(variant, message):
    with pytest.raises(ConfigError, match=message):
        configs.check(with_variants(variant))
    with pytest.raises(ConfigError, match="must be a name of its own"):
        configs.check(with_variants(SPREAD, SPREAD))


def test_from_a_base_the_method_alone_is_another():
    config = keys.common()
    config.loop.compare = ("random", "coreset")
    other = keys.from_base(config, "coreset", "runs/one")
    assert (other.base, other.acquisition.method) == ("runs/one", "coreset")
    assert other.loop.compare == ()
    assert (config.base, config.acquisition.method) == ("", "random")
    other.base, other.acquisition.method = "", "random"
    other.loop.compare = config.loop.compare
    assert other.to_dict() == config.to_dict()
