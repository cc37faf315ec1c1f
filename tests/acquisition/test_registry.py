"""Methods that are added, brought by other packages, or refused for a task."""

import dataclasses
import importlib
import sys
import types

import numpy as np
import pytest

from jalpose.acquisition import registry
from jalpose.acquisition.method import Method
from jalpose.acquisition.pose.vl4pose import Vl4Pose
from jalpose.acquisition.registry import METHODS
from jalpose.loop import configs
from jalpose.loop.context import make_context
from jalpose.loop.events import Selected
from jalpose.loop.state import CycleState, Scoring
from jalpose.settings.checks import ConfigError
from jalpose.settings.keys import known_keys
from jalpose.storage.journal import Journal
from jalpose.tasks.pose import labels as pose_labels
from jalpose.tasks.pose.skeletons import LSP
from jalpose.tasks.registry import TASKS
from jalpose.tasks.task import CAPABILITIES
from tests.support import small
from tests.support.tasks import bare
from tests.test_readme import code_after

# A method in one file and one line: what the README shows.


@pytest.fixture
def least_peak(monkeypatch):
    module: dict = {}
    exec(compile(code_after("method"), "least_peak.py", "exec"), module)
    monkeypatch.setitem(METHODS, "least_peak", module["LeastPeak"])
    return module["LeastPeak"]


def test_fields_of_a_new_method_are_config_keys(least_peak):
    config = small.configure({"acquisition.least_peak.joints": 2})
    assert config.acquisition.least_peak.to_dict() == {"joints": 2}
    assert "acquisition.least_peak.joints" in known_keys(small.configure())
    with pytest.raises(ConfigError, match=r"Did you mean 'acquisition\.least_peak\.jo"):
        small.configure({"acquisition.least_peak.joint": 2})


def test_a_new_method_is_chosen_by_name(least_peak):
    get_config = configs.benchmark("figures")
    config = get_config("method=least_peak,scale=tiny")
    assert config.acquisition.method == "least_peak"
    assert config.name == "figures_least_peak"
    configs.check(config)
    with pytest.raises(ConfigError, match=r"'least_peek'.*mean 'least_peak'\?$"):
        get_config("method=least_peek")


def test_options_a_new_method_does_not_allow_are_refused(least_peak):
    message = r"acquisition\.least_peak\.joints=0 must be at least 1"
    with pytest.raises(ConfigError, match=message):
        small.configure({"acquisition.least_peak.joints": 0})


def test_a_method_that_refuses_its_own_options_disturbs_nobody(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Particular(Method):
        sites: int = 0

        def __post_init__(self):
            if self.sites < 1:
                raise ConfigError(f"acquisition.particular.sites={self.sites}")

    monkeypatch.setitem(METHODS, "particular", Particular)
    small.configure()
    # As it is used, by whichever key, or its options are changed, it is asked.
    for changes in (
        {"acquisition.method": "particular"},
        {"loop.compare": ("particular",)},
        {"experiment.methods": ("particular",)},
        {"acquisition.particular.sites": -1},
    ):
        with pytest.raises(ConfigError, match=r"acquisition\.particular\.sites="):
            small.configure(changes)
    small.configure({"acquisition.particular.sites": 2})


def test_a_run_chooses_by_a_new_method_and_its_options(least_peak):
    changes = {"acquisition.method": "least_peak", "acquisition.least_peak.joints": 3}
    context = small.flat_context(changes)
    assert context.method == least_peak(joints=3)
    variables = small.flat_variables()
    phase = Scoring(variables=variables, journal=Journal())
    state = CycleState(cycle=0, labelled=context.dataset.initial, phase=phase)
    state, events = small.advance_until(state, context, Selected)
    assert events[-1].acquisition["method"] == "least_peak"
    pool = context.pool(CycleState(cycle=0, labelled=state.labelled, phase=phase))
    wanted = context.method.acquire(
        None, small.probe(context.passes, variables), pool, len(state.phase.chosen)
    )
    np.testing.assert_array_equal(state.phase.chosen, wanted.indices)


# Methods of other packages.

FAR = """
import dataclasses
from jalpose.acquisition.method import Method

@dataclasses.dataclass(frozen=True)
class Far(Method):
    power: float = 2.0
    scales = {"tiny": {"power": 3.0}}
    presets = {"model.dropout": 0.25}

    def acquire(self, key, probe, pool, budget):
        raise NotImplementedError

class Plain:
    pass

@dataclasses.dataclass(frozen=True)
class Undecided(Method):
    power: float
"""


@pytest.fixture
def install(monkeypatch, tmp_path):
    """A function that lays a package with entry points on Python's path."""

    def install(entries, package="far_away"):
        (tmp_path / f"{package}.py").write_text(FAR)
        about = tmp_path / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        text = "\n".join([f"[{registry.GROUP}]", *lines])
        (about / "entry_points.txt").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        # Not there before, so that it is gone afterwards.
        monkeypatch.setitem(sys.modules, package, None)
        del sys.modules[package]
        registry.plugins.cache_clear()

    yield install
    monkeypatch.undo()
    importlib.invalidate_caches()
    registry.plugins.cache_clear()


def test_a_method_of_another_package_is_one_like_the_others(install):
    before = dict(METHODS)
    install({"far": "far_away:Far"})
    assert registry.methods().keys() == {*METHODS, "far"}
    assert before == METHODS
    config = configs.benchmark("figures")("method=far,scale=tiny")
    configs.check(config)
    assert config.acquisition.method == "far"
    assert config.acquisition.far.power == 3.0  # of the scale
    assert config.model.dropout == 0.25
    context = small.flat_context(
        {"acquisition.method": "far", "acquisition.far.power": 5.0}
    )
    assert context.method == registry.methods()["far"](power=5.0)


def test_what_a_package_brings_is_gone_with_it(install):
    install({"far": "far_away:Far"})
    assert "far" in registry.methods()
    sys.path.pop(0)
    importlib.invalidate_caches()
    assert "far" in registry.methods()  # looked for once
    registry.plugins.cache_clear()
    assert "far" not in registry.methods()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nowhere_at_all:Far", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("far_away:Near", "AttributeError: .*'Near'"),
        ("far_away:Plain", r"TypeError: not a dataclass with .*\.Method as its base"),
        ("far_away:FAR", "AttributeError: .*'FAR'"),
        ("far_away:Undecided", "TypeError: its option power has no default"),
    ],
)
def test_one_that_cannot_be_had_is_named_and_the_others_go_on(install, value, reason):
    install({"broken": value, "far": "far_away:Far"})
    with pytest.warns(UserWarning, match=f"entry point broken = {value} .*: {reason}"):
        found = registry.methods()
    assert found.keys() == {*METHODS, "far"}
    message = f"the method 'broken' cannot be used: {value}: {reason}"
    with pytest.raises(ConfigError, match=message):
        registry.method_of("broken", {})
    with pytest.raises(ConfigError, match=message):
        configs.benchmark("figures")("method=broken")
    with pytest.raises(ConfigError, match=message):
        small.configure({"acquisition.method": "broken"})
    small.configure({"acquisition.method": "far"})
    assert isinstance(registry.method_of("random", {}), METHODS["random"])


def test_a_name_that_is_taken_is_left_out(install):
    install({"random": "far_away:Far", "budget": "far_away:Far"})
    with pytest.warns(UserWarning) as caught:
        found = registry.methods()
    said = [str(one.message) for one in caught]
    assert any("point random = " in s and "jalpose has a method of" in s for s in said)
    assert any("acquisition.budget is a key of every config" in s for s in said)
    assert found == METHODS
    assert isinstance(registry.method_of("random", {}), METHODS["random"])
    assert small.configure().acquisition.budget == 8


def test_of_two_packages_with_one_name_the_first_stays(install):
    install({"far": "far_away:Far"})
    install({"far": "farther_away:Far"}, package="farther_away")
    with pytest.warns(UserWarning, match="another package has a method of that name"):
        found = registry.methods()
    assert found.keys() == {*METHODS, "far"}
    assert isinstance(registry.method_of("far", {}), found["far"])


# What a method asks of a task.


class NothingCompiles:
    """Programs that say so when a context gets as far as to ask for them."""

    class Reached(Exception):
        pass

    def trainer(self, *_):
        raise self.Reached

    passes = trainer


@pytest.fixture
def context_on(monkeypatch):
    """A function that makes the context of a task, up to what is compiled."""

    def context_on(task, changes):
        made = types.ModuleType("made_up.task")
        made.make_task = lambda config, dataset: task
        monkeypatch.setitem(TASKS, "made_up", "made_up")
        monkeypatch.setitem(sys.modules, "made_up.task", made)
        monkeypatch.setitem(sys.modules, "made_up.labels", pose_labels)
        config = small.configure({"model.dropout": 0.1, **changes})
        config.task = "made_up"
        return make_context(config, small.dataset(), NothingCompiles())

    return context_on


ASKED = [(name, one) for name, method in METHODS.items() for one in method.capabilities]


@pytest.mark.parametrize(("name", "capability"), ASKED)
def test_a_task_without_a_capability_is_refused_before_anything_compiles(
    name, capability, context_on
):
    others = tuple(one for one in CAPABILITIES if one != capability)
    message = rf"^{name} does not work on the task bare, which lacks {capability} "
    with pytest.raises(ConfigError, match=message) as caught:
        context_on(bare(*others), {"acquisition.method": name})
    _, _, listed = str(caught.value).partition("These methods do: ")
    working = [k for k, m in METHODS.items() if capability not in m.capabilities]
    assert listed.split(", ") == working


@pytest.mark.parametrize("name", METHODS)
def test_a_task_with_what_a_method_asks_for_is_taken(name, context_on):
    task = bare(*METHODS[name].capabilities)
    with pytest.raises(NothingCompiles.Reached):
        context_on(task, {"acquisition.method": name})


def test_a_method_to_compare_with_is_checked_too(context_on):
    changes = {"acquisition.method": "random", "loop.compare": ("coreset", "vl4pose")}
    with pytest.raises(ConfigError, match=r"^vl4pose does not work on the task bare"):
        context_on(bare(), changes)


def test_all_that_is_missing_is_named_at_once(context_on):
    with pytest.raises(ConfigError, match=r"lacks candidates .*; posterior \("):
        context_on(bare(), {"acquisition.method": "egl"})


def test_predicted_labels_are_refused_where_the_task_makes_none(context_on):
    changes = {"acquisition.method": "eglpp", "acquisition.eglpp.labels": "predicted"}
    message = r"labels='predicted' does not work on the task bare, which lacks pred"
    with pytest.raises(ConfigError, match=message):
        context_on(bare(), changes)
    with pytest.raises(NothingCompiles.Reached):
        context_on(bare("predicted_target"), changes)


def test_vl4pose_on_an_unknown_skeleton_is_refused_before_anything_compiles(context_on):
    paws = (*LSP.joints[:-2], "left paw", "right paw")
    dog = dataclasses.replace(LSP, name="dog", joints=paws)
    task = dataclasses.replace(small.TASK, skeleton=dog)
    message = "vl4pose has no links for the skeleton dog, .* left paw, right paw"
    with pytest.raises(ConfigError, match=message):
        context_on(task, {"acquisition.method": "vl4pose"})


def test_a_capability_that_is_none_is_one_the_task_does_not_have():
    task = dataclasses.make_dataclass("Other", ["skeleton"])(None)
    task.name = "other"
    with pytest.raises(ConfigError, match="task other, which lacks skeleton"):
        registry.check_capabilities("vl4pose", task)
    assert Vl4Pose.capabilities == ("skeleton",)


def test_capabilities_of_methods_are_among_those_there_are():
    assert {one for _, one in ASKED} <= CAPABILITIES.keys()
    assert all(Method in method.__mro__ for method in METHODS.values())
