"""Transfer: runs that begin with the layers of another run's network."""

import io
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.loop import dry_run, run, saved_models, transfer
from jalpose.loop.saved_models import CheckpointError
from jalpose.models.registry import MODELS
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.training.initial_weights import fitted, layers_of
from tests.support import small

BRIEF = {
    "acquisition.method": "random",
    "loop.cycles": 1,
    "training.base_steps": 2,
    "training.cycle_steps": 2,
}
ANEW = ("heatmaps0",)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One device, and what was compiled for one run serves the others."""
    make_mesh = sharding.make_mesh

    def one_device(devices=None):
        return make_mesh(jax.devices()[:1] if devices is None else devices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", one_device)
        patch.setattr(run, "Programs", lambda mesh: small.programs(mesh.size))
        patch.setattr(dry_run, "Programs", lambda mesh: small.programs(mesh.size))
        patch.setattr(run, "load_dataset", small.drawn_dataset)
        small.remember_templates(patch)
        yield


def perform(workdir, changes=None):
    stream = io.StringIO()
    config = small.configure({**BRIEF, **(changes or {})})
    run.run(config, os.fspath(workdir), Screen(stream))
    return stream.getvalue()


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "donor"
    perform(workdir, {"seed": 7})
    return workdir


def config_of(donor, **changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return small.configure({**BRIEF, "transfer": os.fspath(donor), **changes})


def assert_equal(one, other):
    flat = [jax.tree_util.tree_leaves_with_path(tree) for tree in (one, other)]
    assert [path for path, _ in flat[0]] == [path for path, _ in flat[1]]
    for (path, a), (_, b) in zip(*flat, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
def test_a_run_begins_with_all_layers_but_the_last(donor):
    config = config_of(donor)
    initial = transfer.initial_weights(config, donor.parent / "none")
    theirs = saved_models.load_model(donor, 1)  # the newest
    begun, anew = (
        small.context({**BRIEF, "transfer": os.fspath(donor)}, initial=given)
        for given in (initial, None)
    )
    stages = begun.plan.of(0)
    found, new = (c.plan.begin(0, stages[0]).variables for c in (begun, anew))
    for kind in ("params", "batch_stats"):
        for layer in found[kind]:
            source = new if layer in ANEW else theirs
            assert_equal(found[kind][layer], source[kind][layer])
    assert initial.about["anew"] == list(ANEW)
    assert sorted([*initial.about["taken"], *ANEW]) == sorted(found["params"])


@pytest.mark.slow
def test_each_fresh_start_begins_with_them(donor):
    changes = {"training.start": "fresh", "transfer": os.fspath(donor)}
    initial = transfer.initial_weights(config_of(donor), donor.parent / "none")
    plan = small.context({**BRIEF, **changes}, initial=initial).plan
    one, other = (plan.begin(c, plan.of(c)[0], {}).variables for c in (0, 1))
    assert_equal(one["params"]["stem"], other["params"]["stem"])
    heads = [v["params"]["heatmaps0"]["conv"]["kernel"] for v in (one, other)]
    assert not np.array_equal(*heads)


@pytest.fixture(scope="module")
def taken(donor):
    """(workdir, printed) of a run that began with the donor's layers."""
    workdir = donor.parent / "taken"
    return workdir, perform(workdir, {"transfer": os.fspath(donor)})


@pytest.mark.slow
def test_what_is_taken_is_said_and_recorded(donor, taken):
    workdir, printed = taken
    about = records.read_config(workdir)["initial_weights"]
    line = next(x for x in printed.splitlines() if x.startswith("initial weights"))
    assert (
        f"{len(about['taken'])} layers are taken ({', '.join(about['taken'])})" in line
    )
    assert line.endswith("1 begin anew (heatmaps0)")
    assert f"config.transfer='{donor}' (cycle 1)" in line
    again = perform(workdir, {"transfer": os.fspath(donor)})
    assert "initial weights" not in again and "already finished" in again


@pytest.mark.slow
def test_a_run_goes_on_without_the_other_workdir(donor, tmp_path):
    """To the bit, from an early state, though the other has trained on or is gone."""
    gone = tmp_path / "donor"
    shutil.copytree(donor, gone)
    changes = {"transfer": os.fspath(gone), "training.start": "fresh"}
    perform(tmp_path / "whole", changes)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "write_selection", stop)
        with pytest.raises(KeyboardInterrupt):
            perform(tmp_path / "killed", changes)
    shutil.rmtree(gone)
    perform(tmp_path / "killed", changes)
    models = [saved_models.load_model(tmp_path / n, 1) for n in ("whole", "killed")]
    assert_equal(*models)


@pytest.mark.slow
def test_a_copy_that_is_gone_is_named(donor, taken, tmp_path):
    workdir = tmp_path / "run"
    kept = shutil.ignore_patterns("initial_weights")
    shutil.copytree(taken[0], workdir, ignore=kept)
    with pytest.raises(CheckpointError, match=r"initial_weights.* bring it back"):
        perform(workdir, {"transfer": os.fspath(donor)})


def test_another_source_is_another_run(donor):
    with pytest.raises(records.WorkdirError, match='transfer: "" -> "other"'):
        perform(donor, {"seed": 7, "transfer": "other"})


def test_another_network_is_refused_by_its_keys(donor, tmp_path):
    with pytest.raises(ConfigError) as error:
        perform(tmp_path, {"transfer": os.fspath(donor), "model.channels": 16})
    assert str(error.value).splitlines()[1:] == ["  model.channels: 8 -> 16"]
    transfer.transferred(config_of(donor, model__dropout=0.2))


def test_what_is_no_run_or_has_no_model_is_refused(donor, tmp_path):
    with pytest.raises(ConfigError, match=r"config.transfer=.*it holds no config\.js"):
        transfer.transferred(config_of(tmp_path))
    records.write_config(tmp_path, records.read_config(donor))
    with pytest.raises(CheckpointError, match="no model is saved in"):
        transfer.transferred(config_of(tmp_path))


def test_a_dry_run_says_what_would_be_taken(donor, tmp_path, capsys):
    dry_run.show(config_of(donor), os.fspath(tmp_path / "run"))
    assert "7 layers are taken (features0, " in capsys.readouterr().out


def test_tensors_that_do_not_fit_are_named():
    def network(width, **more):
        layer = {"kernel": np.zeros((3, width), np.float32)}
        params = {"stem": layer, "logits": {"kernel": np.zeros((width, 2))}, **more}
        return {"params": params, "batch_stats": {}}

    with pytest.raises(ConfigError) as error:
        fitted(network(4, extra=np.zeros(1)), network(8), ["stem", "extra"], "X")
    assert str(error.value).splitlines() == [
        "layers of X do not fit this network (there -> here):",
        "  params/extra: 1 -> (absent)",
        "  params/stem/kernel: 3x4 -> 3x8",
    ]
    broken = network(8)
    broken["params"]["stem"]["kernel"][0, 0] = np.nan
    with pytest.raises(ConfigError, match="stem/kernel: numbers that are not finite"):
        fitted(broken, network(8), ["stem"], "X")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"mlp"}))  # of rows
def test_the_layers_that_hang_on_the_outputs_are_the_declared(name):
    options = MODELS[name](**MODELS[name].scales["tiny"])
    if name == "hourglass":
        options = MODELS[name](stacks=2, channels=8, depth=1)
    blank = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    few, many = (
        jax.eval_shape(options.build(n).init, jax.random.key(0), blank) for n in (2, 5)
    )
    for layer in layers_of(few):
        hangs = few["params"][layer] != many["params"][layer]
        assert layer.startswith(options.output_layers) == hangs, layer
