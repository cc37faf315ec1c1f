"""Experiments: plans, shares, what they write, how they go on, and what they refuse."""

import contextlib
import functools
import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.experiments import loop, outlook
from jalpose.experiments.plan import (
    BASE,
    FULL,
    Plan,
    Shard,
    Unit,
    parse_shard,
    with_bases,
)
from jalpose.loop import advance, configs, run, saved_models
from jalpose.loop.context import make_context
from jalpose.loop.programs import Programs
from jalpose.report import printed
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import differences
from jalpose.storage import locks, records
from jalpose.tasks.pose import sources
from tests.support import commands, small

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "experiments").glob("*.py"))
METHODS = ("random", "coreset", "learning_loss")
SEEDS = (0, 3)
LOAD_DATASET = run.load_dataset  # before `quick`
DELTA = {
    **small.DELTA,
    "data.size": 32,
    "training.base_steps": 4,
    "training.cycle_steps": 2,
    "acquisition.learning_loss.steps": 2,
    "loop.cycles": 1,
    "experiment.methods": METHODS,
    "experiment.seeds": SEEDS,
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One device, and a network that compiles in no time, once for all experiments."""
    make_mesh = sharding.make_mesh

    def one_device(devices=None):
        return make_mesh(jax.devices()[:1] if devices is None else devices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", one_device)
        patch.setattr(loop, "WAIT", 0.01)
        # Not of `run`: a run of its own compiles by itself.
        patch.setattr(loop, "Programs", functools.cache(Programs))
        patch.setattr(run, "load_dataset", small.drawn_dataset)
        for module in (run, loop):
            flat = functools.partial(make_context, network=small.FLAT)
            patch.setattr(module, "make_context", flat)
        yield


def configure(changes=None):
    delta = {**DELTA, **(changes or {})}
    return configs.assemble("scale=tiny", name="small", delta=delta)


def plan(workdir="runs/x", changes=None):
    return Plan(configure(changes), os.fspath(workdir), configs.check)


def perform(workdir, changes=None, shard=None):
    """Run an experiment: what was printed."""
    stream = io.StringIO()
    loop.experiment(configure(changes), os.fspath(workdir), shard, Screen(stream))
    return stream.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, folders in the order they were run) of a whole experiment."""
    workdir, order = tmp_path_factory.mktemp("runs") / "whole", []
    original = run.run_one

    def noted(context, folder, screen, lock):
        order.append(Path(folder))
        original(context, folder, screen, lock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_one", noted)
        perform(workdir)
    return workdir, order


def units(found):
    return with_bases(found.units)


def contents(workdir):
    """Bytes of every file but locks, by path."""
    files = [path for path in sorted(Path(workdir).rglob("*")) if path.is_file()]
    return {
        path.relative_to(workdir).as_posix(): path.read_bytes()
        for path in files
        if not path.name.startswith(".lock")
    }


def results(found, unit):
    """What has to be the same to the bit, however a run came about."""
    folder = found.folder(unit)
    # Not what a kill has left half written.
    names = [p for p in contents(folder) if re.match(r"(arrays|selections)/[^.]", p)]
    kept = {name: (folder / name).read_bytes() for name in names}
    lines = []
    for line in records.read_cycles(folder):
        spent = ("seconds", "peak_bytes", "throughput")
        for part in (line, line.get("acquisition"), line.get("measures")):
            for key in spent:
                (part or {}).pop(key, None)
        lines.append(line)
    models = [
        jax.tree.map(lambda leaf: leaf.tobytes(), saved_models.load_model(folder, n))
        for n in range(len(lines))
    ]
    return kept, lines, models


# The plan.


@pytest.mark.parametrize("text", ["1/1", "2/5", " 5/5 "])
def test_a_share_is_a_number_of_a_count(text):
    assert parse_shard(text) == tuple(map(int, text.split("/")))


@pytest.mark.parametrize("text", ["", "1", "1/2/3", "a/b", "0/2", "3/2", "-1/2", "0/0"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--shard="):
        parse_shard(text)


@pytest.mark.parametrize("count", range(1, 15))
def test_shares_are_disjoint_and_complete_and_keep_seeds_together(count):
    found = plan(changes={"experiment.seeds": (0, 1, 2, 5)})
    shares = [found.share(Shard(k, count)) for k in range(1, count + 1)]
    assert [unit for share in shares for unit in share] == found.units
    assert len(found.units) == 12
    sizes = [len(share) for share in shares]
    if count <= 4:
        seeds = [{unit.seed for unit in share} for share in shares]
        assert sum(map(len, seeds)) == 4
        assert max(sizes) - min(sizes) <= 3
    else:
        assert max(sizes) - min(sizes) <= 1


def test_every_seed_has_its_base_model_before_its_methods():
    found = units(plan())
    assert found == [Unit(s, n) for s in SEEDS for n in (BASE, *METHODS)]


def test_units_differ_in_seed_method_and_base_alone():
    found = plan("runs/x")
    configs = {unit: found.config_of(unit).to_dict() for unit in units(found)}
    for unit, config in configs.items():
        base = unit.name == BASE
        assert config["seed"] == unit.seed
        assert config["base"] == ("" if base else f"runs/x/seed_{unit.seed}/base")
        assert config["loop"]["cycles"] == (0 if base else 1)
        assert config["acquisition"]["method"] == ("random" if base else unit.name)
    first, *others = configs.values()
    for config in others:
        for key in differences(first, config):
            name = key.partition(":")[0]
            assert name in ("seed", "base", "loop.cycles", "acquisition.method")


def test_a_variant_is_a_unit_with_other_options():
    changes = {
        "experiment.methods": ("random", "learning_loss", "spread"),
        "experiment.variants": (
            ("spread", "learning_loss", "acquisition.diverse=lcmd"),
        ),
    }
    found = plan("runs/x", changes)
    assert [unit.name for unit in found.units] == [*changes["experiment.methods"]] * 2
    plain, spread = (found.config_of(unit) for unit in found.units[1:3])
    assert found.folder(found.units[2]) == Path("runs/x/seed_0/spread")
    assert differences(plain.to_dict(), spread.to_dict()) == [
        'acquisition.diverse: "" -> "lcmd"'
    ]
    assert spread.acquisition.method == "learning_loss"
    # What any of them needs is checked, and trained, for all.
    with pytest.raises(ConfigError, match=r"acquisition\.learning_loss\.steps"):
        perform("x", {**changes, "acquisition.learning_loss.steps": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experiment.methods": ("random", "eglp")},
            r"experiment\.methods: 'eglp'. Known: random, core.*Did you mean 'eglpp'",
        ),
        ({"experiment.methods": ()}, r"experiment\.methods=\(\) must have one or more"),
        ({"experiment.seeds": ()}, r"experiment\.seeds=\(\) must have one or more"),
        ({"experiment.seeds": (1, 1)}, "each once"),
        ({"experiment.seeds": (1, -1)}, "whole numbers, 0 or more"),
        ({"experiment.seeds": (1, 0.5)}, "whole numbers, 0 or more"),
        ({"base": "runs/x"}, r"base=runs/x is not for an experiment"),
        ({"data.labelled": "all"}, r"leaves nothing to choose: set loop\.cycles=0"),
        ({"loop.compare": ("random",)}, r"set experiment\.methods"),
        ({"seeds.init": -2}, r"seeds\.init=-2 must be 0 or more, or -1"),
        ({"experiment.methods": ("mc_dropout",)}, r"set model\.dropout above"),
        ({"acquisition.learning_loss.steps": 0}, r"acquisition\.learning_loss\.steps"),
        ({"acquisition.budget": 61, "acquisition.pool_subset": 0}, "pool has 60"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_trains(
    tmp_path, monkeypatch, changes, message
):
    monkeypatch.setattr(run, "run_one", None)
    with pytest.raises(ConfigError, match=message):
        perform(tmp_path / "x", changes)
    assert not list(tmp_path.rglob("config.json"))


def test_a_seed_in_the_argument_of_the_config_is_refused():
    config = configure()
    config.seed = 2
    with pytest.raises(ConfigError, match=r"seed=2 is not .* set experiment\.seeds"):
        Plan(config, "x", configs.check)


def test_a_single_run_refuses_methods_and_seeds(tmp_path):
    with pytest.raises(ConfigError, match=r"experiment\.methods.*jalpose\.experiment"):
        run.run(configure(), os.fspath(tmp_path / "x"), Screen(io.StringIO()))
    config = small.configure({"experiment.full": True})
    with pytest.raises(ConfigError, match=r"experiment\.full=True is for `python -m"):
        run.run(config, os.fspath(tmp_path / "x"), Screen(io.StringIO()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_experiments_are_valid_and_say_how_they_are_run(path, scale):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(f"scale={scale}")
    found = Plan(config, "x", configs.check)
    assert (config.name, config.scale) == (path.stem, scale)
    assert "random" in found.methods and len(found.seeds) >= 3
    assert config.experiment.full != (path.stem in printed.OF_CONFIG)  # no such rows
    shown = f"python -m jalpose.experiment --config=configs/experiments/{path.stem}.py"
    assert shown in path.read_text()


# What is run, and how it goes on.


def test_a_base_model_is_trained_once_a_seed_and_all_methods_start_from_it(finished):
    workdir, order = finished
    found = plan(workdir)
    assert order == [found.folder(unit) for unit in units(found)]
    for unit in found.units:
        base = Unit(unit.seed, BASE)
        ours, theirs = (records.read_cycles(found.folder(u)) for u in (unit, base))
        assert len(ours) == 2 and len(theirs) == 1
        assert ours[0]["metrics"] == theirs[0]["metrics"]
        config = records.read_config(found.folder(unit))["config"]
        assert config["base"] == found.folder(base).as_posix()
        assert config["seed"] == unit.seed
    scores = [records.read_cycles(found.folder(Unit(s, BASE))) for s in SEEDS]
    assert scores[0][0]["metrics"]["test_loss"] != scores[1][0]["metrics"]["test_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [BASE, "coreset", "learning_loss"])
def test_a_unit_is_what_a_run_of_its_own_is(finished, tmp_path, name):
    """Sharing what is compiled, over methods and seeds, changes nothing."""
    found, unit = plan(finished[0]), Unit(SEEDS[1], name)
    alone = plan(tmp_path)
    config = found.config_of(unit)
    run.run(config, os.fspath(alone.folder(unit)), Screen(io.StringIO()))
    assert results(alone, unit) == results(found, unit)


def test_a_second_start_does_nothing(finished, monkeypatch):
    workdir, _ = finished
    before = contents(workdir)
    monkeypatch.setattr(run, "run_one", None)
    monkeypatch.setattr(loop, "make_context", None)
    assert "6 of 6 runs are finished" in perform(workdir)
    assert contents(workdir) == before


def test_a_moved_experiment_and_one_with_more_methods_go_on(finished, monkeypatch):
    monkeypatch.chdir(finished[0].parent)
    more = {"experiment.methods": (*METHODS, "softmax_entropy")}
    begun = []
    monkeypatch.setattr(run, "run_one", lambda c, folder, *_: begun.append(folder))
    printed = perform("whole", more)
    # Nothing is finished here: each is tried a second time, as after a wait.
    assert begun == 2 * [Path(f"whole/seed_{s}/softmax_entropy") for s in SEEDS]
    assert "6 of 8 runs are finished" in printed
    assert "not finished: seed 3, softmax_entropy: to do" in printed


def test_another_config_in_the_same_workdir_is_refused(finished, monkeypatch):
    workdir, _ = finished
    before = contents(workdir)
    monkeypatch.setattr(run, "run_one", None)
    with pytest.raises(records.WorkdirError, match=r"training\.base_steps: 4 -> 5"):
        perform(workdir, {"training.base_steps": 5})
    assert contents(workdir) == before


# On all labels.

ON_ALL = {"experiment.full": True}


def test_a_run_on_all_labels_stands_behind_the_methods_and_needs_no_base_model():
    found = plan(changes=ON_ALL)
    assert found.units == [Unit(s, n) for s in SEEDS for n in (*METHODS, FULL)]
    shares = [found.share(Shard(k, 8)) for k in range(1, 9)]
    assert with_bases(shares[3]) == [Unit(SEEDS[0], FULL)]
    assert with_bases(shares[2]) == [Unit(SEEDS[0], BASE), Unit(SEEDS[0], METHODS[2])]


def test_a_run_on_all_labels_differs_from_a_base_model_in_labels_and_length_alone():
    found = plan(changes=ON_ALL)
    base, full = (
        found.config_of(Unit(3, name)).to_dict() | {"experiment": {}}
        for name in (BASE, FULL)
    )
    assert differences(base, full) == [
        'data.labelled: "initial" -> "all"',
        'name: "small" -> "small_full"',
        "training.base_steps: 4 -> 6",
    ]
    assert plan().config_of(Unit(3, BASE)) == found.config_of(Unit(3, BASE))


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"loop.cycles": 3}, 4 + 3 * 2),
        ({"loop.cycles": 3, "training.start": "fresh"}, 2),
        ({"loop.cycles": 0, "training.start": "fresh"}, 4),
        # Of 40, 45 and 50 labels a tenth is held out: batches of 8 make 4 (4.5), 5 and
        # 6 (5.6) an epoch.
        (
            {
                "data.initial": 40,
                "acquisition.budget": 5,
                "training.batch": 8,
                "loop.cycles": 2,
                "training.base_epochs": 10,
                "training.base_steps": 0,
                "training.cycle_epochs": 3,
                "training.cycle_steps": 0,
            },
            10 * 4 + 3 * (5 + 6),
        ),
    ],
)
def test_it_takes_as_many_steps_as_the_last_network_of_a_method(changes, steps):
    found = plan(changes={**ON_ALL, **changes})
    training = found.config_of(Unit(0, FULL)).training
    assert (training.base_epochs, training.base_steps) == (0, steps)


@pytest.mark.slow
def test_it_is_added_to_a_finished_experiment_and_is_a_run_of_its_own(
    finished, tmp_path
):
    changes = {**ON_ALL, "experiment.seeds": SEEDS[:1]}
    found = plan(tmp_path / "more", changes)
    shutil.copytree(finished[0], tmp_path / "more")
    before = contents(tmp_path / "more")
    assert "3 of 4 runs are finished" in perform(tmp_path / "more", changes)
    after = contents(tmp_path / "more")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {FULL}
    unit = Unit(SEEDS[0], FULL)
    (record,) = records.read_cycles(found.folder(unit))
    base = records.read_cycles(found.folder(Unit(SEEDS[0], BASE)))[0]
    assert record["num_labelled"] == base["num_labelled"] + 60 == 100
    assert record["metrics"]["num_images"] == base["metrics"]["num_images"]
    assert record["acquisition"] is None and found.finished(unit)
    # Sharing what is compiled changed nothing.
    alone = plan(tmp_path / "alone", changes)
    config = found.config_of(unit)
    run.run(config, os.fspath(alone.folder(unit)), Screen(io.StringIO()))
    assert results(alone, unit) == results(found, unit)
    assert "4 of 4 runs are finished" in perform(tmp_path / "more", changes)


@pytest.mark.slow
def test_finished_with_runs_on_all_labels_it_is_given_more_of_everything(
    finished, tmp_path
):
    workdir = tmp_path / "grown"
    shutil.copytree(finished[0], workdir)
    begun = {**ON_ALL, "experiment.methods": METHODS[:2], "experiment.seeds": SEEDS[:1]}
    assert "2 of 3 runs are finished" in perform(workdir, begun)
    before = contents(workdir)
    # A method and a seed more: of what is finished nothing is done again.
    wider = {**ON_ALL, "experiment.methods": METHODS}
    assert "7 of 8 runs are finished" in perform(workdir, wider)
    after = contents(workdir)
    assert {name: after[name] for name in before} == before
    new = {"/".join(name.split("/")[:2]) for name in after.keys() - before.keys()}
    assert new == {f"seed_{SEEDS[1]}/{FULL}"}
    # A cycle more: the methods go on, all labels are trained on for longer.
    longer = {**begun, "loop.cycles": 2}
    printed = perform(workdir, longer)
    assert "0 of 3 runs are finished" in printed
    folder = workdir / f"seed_{SEEDS[0]}"
    assert f"seed 0, full, into {folder / 'full_8_steps'}" in printed
    kept = [name for name in before if f"/{FULL}/" in name]
    assert kept and all(contents(workdir)[name] == before[name] for name in kept)
    assert len(records.read_cycles(folder / "random")) == 3
    assert len(records.read_cycles(folder / "full_8_steps")) == 1
    assert "3 of 3 runs are finished" in perform(workdir, longer)


def make_no_context(patch):
    """Nothing is loaded nor built for the runs, which `run_one` stands in for."""
    patch.setattr(loop, "make_context", lambda *_, **__: None)
    patch.setattr(saved_models, "load_model", lambda *_: None)


def test_it_does_not_wait_for_a_base_model_nor_for_one_that_diverged(
    tmp_path, monkeypatch
):
    changes = {**ON_ALL, "experiment.methods": ("random",), "experiment.seeds": (0,)}
    found, begun = plan(tmp_path, changes), []

    def note(context, folder, screen, lock):
        begun.append(folder.name)
        if folder.name == BASE:
            raise FloatingPointError("nan in step 7")
        records.write_cycle(folder, {"cycle": 0})

    monkeypatch.setattr(run, "run_one", note)
    make_no_context(monkeypatch)
    worker = loop.Worker(found, Screen(io.StringIO()))
    with locks.hold(found.folder(Unit(0, BASE))):
        worker.work(found.units, wait=False)
    assert begun == [FULL]
    worker.work(found.units, wait=True)
    assert begun == [FULL, BASE]
    shutil.rmtree(found.folder(Unit(0, FULL)))
    worker.work(found.units, wait=True)
    assert begun == [FULL, BASE, FULL]


def test_a_dry_run_counts_them(tmp_path, capsys):
    config = configure(ON_ALL)
    loop.dry_run(config, os.fspath(tmp_path / "x"), Shard(4, 8))
    shown = capsys.readouterr().out
    assert "3 methods with 2 seeds, and a run on all labels each, in" in shown
    assert re.search(r"0 +full +to do", shown) and "finished: 0 of 1 runs" in shown


# Broken off.


class Killed(Exception):
    """Stands for SIGKILL inside this process."""


@pytest.mark.slow
def test_broken_off_and_started_again_it_ends_the_same(finished, tmp_path):
    def die():
        raise Killed

    again = plan(tmp_path)
    changes = {"loop.checkpoint_seconds": 0.0}
    # The slow test with SIGKILL takes more.
    for place in (
        "before the base model is in place",
        "before the selection is in place",
    ):
        with pytest.MonkeyPatch.context() as patch:
            small.lay_ambush(patch.setattr, place, die)
            try:
                perform(tmp_path, changes)
            except BaseException as error:
                causes = [error]
                while causes[-1] is not None:
                    causes.append(causes[-1].__cause__ or causes[-1].__context__)
                assert any(isinstance(cause, Killed) for cause in causes), place
            else:
                pytest.fail(f"the experiment was not broken off {place}")
    perform(tmp_path, changes)
    for unit in units(again):
        assert results(again, unit) == results(plan(finished[0]), unit), unit


@pytest.mark.slow
def test_a_share_runs_its_own_and_the_rest_makes_up_the_whole(finished, tmp_path):
    changes = {"experiment.methods": METHODS[:2]}
    found = plan(tmp_path, changes)
    perform(tmp_path, changes, Shard(4, 4))
    there = [unit for unit in units(found) if found.finished(unit)]
    assert there == [Unit(3, BASE), Unit(3, "coreset")]
    before = contents(found.folder(Unit(3, BASE)))
    perform(tmp_path, changes)
    assert contents(found.folder(Unit(3, BASE))) == before
    for unit in units(found):
        assert results(found, unit) == results(plan(finished[0]), unit), unit


def test_weights_that_diverge_end_their_run_alone(tmp_path, monkeypatch):
    changes = {"experiment.methods": ("coreset", "random"), "experiment.seeds": (0, 1)}
    found = plan(tmp_path, changes)
    run_one = run.run_one

    def diverging(context, folder, screen, lock):
        if Path(folder) in (tmp_path / "seed_0/coreset", tmp_path / "seed_1/base"):
            raise FloatingPointError("nan in step 7")
        run_one(context, folder, screen, lock)

    monkeypatch.setattr(run, "run_one", diverging)
    with pytest.raises(FloatingPointError) as error:
        perform(tmp_path, changes)
    assert "seed 0, coreset: nan in step 7" in str(error.value)
    assert "seed 1, base: nan in step 7" in str(error.value)
    assert [u for u in found.units if found.finished(u)] == [Unit(0, "random")]


def test_a_run_another_process_is_at_is_left_to_it(finished, monkeypatch, tmp_path):
    changes = {"experiment.seeds": (0,), "experiment.methods": ("random", "coreset")}
    found = plan(tmp_path, changes)
    with locks.hold(found.folder(Unit(0, "coreset"))):
        printed = perform(tmp_path, changes)
        assert f"coreset: 0 of 2 cycles, under way in process {os.getpid()}" in printed
    assert found.finished(Unit(0, "random"))
    assert records.read_cycles(found.folder(Unit(0, "coreset"))) == []


def test_a_base_model_another_process_trains_is_waited_for(tmp_path, monkeypatch):
    changes = {"experiment.methods": ("random",)}
    found = plan(tmp_path, changes)
    order, waited = [], []
    make_no_context(monkeypatch)
    theirs = found.folder(Unit(0, BASE))
    held = contextlib.ExitStack()

    def finish(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            records.write_cycle(theirs, {"cycle": 0})
            held.close()

    monkeypatch.setattr(loop.time, "sleep", finish)
    monkeypatch.setattr(
        run,
        "run_one",
        lambda c, folder, *_: [
            order.append(folder),
            *(records.write_cycle(folder, {"cycle": k}) for k in range(2)),
        ],
    )
    monkeypatch.setattr(
        Plan, "cycles", lambda self, u: (len(records.read_cycles(self.folder(u))), 1)
    )
    monkeypatch.setattr(
        Plan, "finished", lambda self, u: bool(records.read_cycles(self.folder(u)))
    )
    held.enter_context(locks.hold(theirs))
    printed = perform(tmp_path, changes)
    assert "waiting for seed 0, base, trained by process" in printed
    assert len(waited) == 2
    # Seed 3, for which nobody is waited, comes first.
    assert order == [
        found.folder(unit)
        for unit in (Unit(3, BASE), Unit(3, "random"), Unit(0, "random"))
    ]


# The outlook.


def lay_records(found, unit, seconds, cycles):
    for cycle in range(cycles):
        parts = {"seconds": 1.0}
        records.write_cycle(
            found.folder(unit),
            {"cycle": cycle, "seconds": seconds, "acquisition": parts},
        )


def test_the_outlook_knows_nothing_before_anything_is_finished(tmp_path):
    text = outlook.show(plan(tmp_path), Shard())
    assert "finished: 0 of 8" in text and "left" not in text
    assert "nothing is known yet of base, random, coreset, learning_loss" in text
    assert len(re.findall("to do +not known", text)) == 8


def test_the_outlook_reckons_with_what_the_finished_took(tmp_path):
    found = plan(tmp_path)
    lay_records(found, Unit(0, BASE), 99.0, 1)
    lay_records(found, Unit(0, "random"), 19.0, 2)
    lay_records(found, Unit(3, "random"), 29.0, 1)
    lay_records(found, Unit(0, "coreset"), 5.0, 1)
    text = outlook.show(found, Shard())
    assert re.search(r"0 +base +finished +1 min 40 s\n", text)
    assert re.search(r"0 +random +finished +40 s\n", text)
    assert re.search(r"3 +base +to do +about 1 min 40 s more\n", text)
    assert re.search(r"3 +random +to do +about 10 s more\n", text)
    assert "left: about 1 min 50 s" in text
    assert "nothing is known yet of coreset, learning_loss:" in text
    part = outlook.show(found, Shard(1, 2))
    assert "part 1 of 2: 3 runs" in part and "finished: 2 of 4" in part
    assert "left" not in part


def test_a_dry_run_makes_nothing(tmp_path, capsys):
    loop.dry_run(configure(), os.fspath(tmp_path / "x"))
    assert "3 methods with 2 seeds" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


# Seeds of their own.


def drawn(changes):
    """What is drawn of each part: {part: arrays}."""
    context = small.flat_context({**changes, "acquisition.pool_subset": 8})
    plan, state = context.plan, advance.start(context)
    first = plan.of(0)[0]
    batch = next(plan.batches(context.labelled_set(state), 0, first, 0))
    return {
        "init": jax.tree.leaves(small.copied(state.phase.train.variables)),
        "order": [np.asarray(batch["id"])],
        "acquire": [context.unlabelled(state.labelled, 0)],
    }


def parts_that_differ(first, second):
    return {
        part
        for part in first
        if not all(map(np.array_equal, first[part], second[part]))
    }


def test_each_seed_changes_its_part_alone():
    plain = drawn({})
    for part in plain:
        assert parts_that_differ(plain, drawn({f"seeds.{part}": 7})) == {part}
        assert parts_that_differ(plain, drawn({f"seeds.{part}": 0})) == set()
    assert parts_that_differ(plain, drawn({"seeds.initial": 7})) == set()


def test_the_initial_set_has_a_seed_of_its_own(tmp_path, monkeypatch):
    asked = []

    def note(data, seed):
        asked.append(seed)
        raise DataError("enough")

    monkeypatch.setattr(sources, "load_dataset", note)
    monkeypatch.setattr(run, "load_dataset", LOAD_DATASET)
    for changes in ({}, {"seeds.initial": 5}, {"seeds.init": 5}):
        with pytest.raises(DataError):
            run.run(small.configure(changes), os.fspath(tmp_path), Screen())
    assert asked == [0, 5, 0]
    monkeypatch.undo()
    data = small.configure().data
    keys = [sources.load_dataset(data, seed).windows for seed in (0, 5)]
    assert not np.array_equal(*keys)


# Killed for good.

CONFIG_FILE = f"""
from jalpose.loop.configs import assemble

def get_config(arg=""):
    return assemble(arg, name="killed", scale="tiny", delta={DELTA!r})
"""

DRIVER = """
import functools, os, signal, sys

sys.path.insert(0, {root!r})
import jax

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
from jalpose import experiment
from jalpose.experiments import loop
from tests.support import commands, small

loop.make_context = functools.partial(loop.make_context, network=small.FLAT)
place = sys.argv.pop(1)
if place:
    small.lay_ambush(setattr, place, lambda: os.kill(os.getpid(), signal.SIGKILL))
experiment.cli()
"""


@pytest.mark.slow
def test_killed_at_several_places_an_experiment_ends_the_same(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILE)
    (tmp_path / "driver.py").write_text(DRIVER.format(root=str(ROOT)))

    def start(workdir, place="", *more):
        return subprocess.run(
            [
                sys.executable,
                tmp_path / "driver.py",
                place,
                f"--config={tmp_path / 'config.py'}",
                f"--workdir={tmp_path / workdir}",
                "--config.loop.checkpoint_seconds=0.0",
                f"--config.output.compilation_cache={tmp_path / 'cache'}",
                *more,
            ],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    whole = start("whole")
    assert whole.returncode == 0, whole.stderr
    for place in list(small.PLACES)[1::2]:  # test_run.py has them all
        killed = start("killed", place)
        if killed.returncode == 0:  # what is left does not come by there any more
            continue
        assert killed.returncode == -signal.SIGKILL, (place, killed.stderr)
    resumed = start("killed")
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = plan(tmp_path / "killed"), plan(tmp_path / "whole")
    for unit in units(ours):
        assert results(ours, unit) == results(theirs, unit), unit


def test_the_command_tells_mistakes_without_a_traceback(tmp_path):
    for arguments, told in (
        (["--shard=3/2"], "--shard=3/2: the parts are 1/n to n/n"),
        (
            ["--config.experiment.methods=('random', 'eglp')"],
            "unknown value of experiment.methods: 'eglp'",
        ),
    ):
        found = commands.perform(
            "jalpose.experiment",
            "--config=configs/experiments/figures.py:scale=tiny",
            f"--workdir={tmp_path / 'x'}",
            *arguments,
            folder=ROOT,
        )
        assert found.returncode == 2, found.stderr
        assert told in found.stderr and "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []
