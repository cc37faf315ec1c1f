"""Runs that were begun by an older version: gone on with, or refused with a difference.

`data/before_tasks.tar.xz` holds records of the version before tasks had names (commit
3acc1f7), on drawn figures, of the method ensemble: `whole`, a finished run without its
checkpoints; `training` and `measuring`, the same run killed in these phases of cycle 1,
with the newest state. It was made on a CPU, under the XLA flags of `conftest`, by
`run.run_one` with the changes below, saving after every piece, and an exception in
`cycle.advance` where it was to be killed.
"""

import io
import json
import os
import shutil
import tarfile
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from jalpose.loop import advance, compatibility, run, saved_models, saved_states
from jalpose.loop.state import Measuring, Training
from jalpose.oracles.simulated import SimulatedOracle
from jalpose.runtime import sharding
from jalpose.runtime.screen import Screen
from jalpose.settings.differences import plain
from jalpose.storage import records
from tests.support import small

ARCHIVE = Path(__file__).parent / "data" / "before_tasks.tar.xz"
CHANGES = {
    "model.channels": 4,
    "model.stacks": 1,
    "training.base_steps": 4,
    "training.cycle_steps": 4,
    "training.report_steps": 2,
    "acquisition.method": "ensemble",
    "acquisition.ensemble.members": 2,
    "acquisition.ensemble.steps": 2,
    "acquisition.pieces": 1,
    "loop.checkpoint_seconds": 0.0,
}
PHASES = {"training": Training, "measuring": Measuring}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(archive, tmp_path):
    """Copies of the old workdirs, by name."""
    return lambda name: shutil.copytree(archive / name, tmp_path / name)


@pytest.fixture(scope="module", autouse=True)
def quick():
    make_mesh = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sharding, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1])
        )
        patch.setattr(run, "Programs", lambda mesh: small.programs(mesh.size))
        patch.setattr(run, "load_dataset", small.drawn_dataset)
        small.remember_templates(patch)
        yield


def perform(workdir, changes=None):
    """Go on in `workdir`: what was printed, and what was warned of."""
    stream, config = io.StringIO(), small.configure({**CHANGES, **(changes or {})})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        run.run(config, os.fspath(workdir), Screen(stream))
    return stream.getvalue(), [
        str(w.message) for w in told if w.category is UserWarning
    ]


def rewrite(workdir, change):
    """Let `change` alter the recorded config, as dicts."""
    record = records.read_config(workdir)
    change(record["config"])
    records.write_config(workdir, record)


# What records have had since.
NEWER = {
    "measures": {"selected_loss", "selected_loss_sd", "pool_loss"},
    "acquisition": {"near_skipped", "equal_chosen", "equal_skipped"},
}


def assert_same_end(found, wanted):
    """Records of the same run on two machines.

    On the machine that made the archive, with the suite's XLA flags, all arrays were
    the same to the bit. The network has hardly learnt anything: elsewhere the highest
    pixel of a map may be another, and with it a joint, a score of a pose, and a pick;
    the loss differed by 0.2 % on an EPYC that rounds otherwise.
    """
    ours, theirs = (records.read_cycles(workdir) for workdir in (found, wanted))
    assert [line["num_labelled"] for line in ours] == [40, 48, 56]
    for mine, yours in zip(ours, theirs, strict=True):
        for part in ("metrics", "acquisition", "measures"):
            one, other = mine.get(part), yours.get(part)
            keys = one and one.keys() - NEWER.get(part, set())
            assert keys == (other and other.keys()), part
        loss = yours["metrics"]["test_loss"]
        assert mine["metrics"]["test_loss"] == pytest.approx(loss, rel=5e-3)
        arrays = [records.read_arrays(w, mine["cycle"]) for w in (found, wanted)]
        assert arrays[0].keys() == arrays[1].keys()
        for name, values in arrays[1].items():
            same = arrays[0][name]
            assert (same.dtype, same.shape) == (values.dtype, values.shape), name
            if name in ("test_losses", "true_losses", "scores", "embeddings"):
                close = {"rtol": 2e-2, "atol": 1e-3, "err_msg": name}
                np.testing.assert_allclose(same, values, **close)
        if "selected" in arrays[0]:
            assert len(np.intersect1d(*(part["selected"] for part in arrays))) >= 6
    first, then = (records.read_selection(w, 0) for w in (found, wanted))
    assert first == then


def test_the_records_are_of_the_version_before(archive):
    for name in ("whole", *PHASES):
        config = records.read_config(archive / name)["config"]
        assert "task" not in config and "name" in config["model"]
        assert config["acquisition"]["ensemble"]["measure"] == "heatmaps"
    assert ARCHIVE.stat().st_size < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_a_run_of_the_version_before_is_gone_on_with_to_the_same_end(
    name, old, archive
):
    workdir = old(name)
    before = (workdir / "config.json").read_bytes()
    printed, told = perform(workdir)
    assert f"resuming {workdir} in cycle 1" in printed
    assert_same_end(workdir, archive / "whole")
    # What its passes had found is not trusted: it is computed again, and told so.
    assert len(told) == (name == "measuring")
    assert all("journal/cycle_01 is discarded" in text for text in told)
    # The record stays what it was begun with.
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_its_state_is_taken_over_with_labels_asked_for_anew(name, old):
    context = small.context(CHANGES)
    store = saved_states.StateStore(old(name))
    number, state, clock = store.restore(context)
    store.close()
    assert number > 0 and clock["seconds"] > 0
    assert isinstance(state.phase, PHASES[name]) and state.cycle == 1
    assert len(state.labelled) == 48
    truth = context.dataset.truth_of(state.labelled[40:])
    assert state.answers.keys() == truth.keys()
    for key, values in truth.items():
        np.testing.assert_array_equal(state.answers[key], values)
    advance.advance(state, context)


def test_labels_that_are_not_to_be_had_again_are_an_error(old):
    class Gone(SimulatedOracle):
        def answers(self, ids):
            return None

    context = small.context(CHANGES, oracle=Gone(small.dataset()))
    store = saved_states.StateStore(old("training"))
    with pytest.raises(
        saved_models.CheckpointError, match="no labels of the 8 examples"
    ):
        store.restore(context)
    store.close()


def test_a_finished_run_of_the_version_before_is_started_from(old, archive):
    """`config.base` names it: its network is of the same config."""
    workdir = old("whole")
    config = small.configure(CHANGES)
    found = compatibility.model_differences(
        records.read_config(workdir)["config"], config
    )
    assert found == []
    other = small.configure({**CHANGES, "model.channels": 8, "heatmap.sigma": 2.0})
    found = compatibility.model_differences(
        records.read_config(workdir)["config"], other
    )
    assert found == ["heatmap.sigma: 1.75 -> 2.0", "model.channels: 4 -> 8"]


def _written(workdir):
    """All that lies there, but for locks, of which a refused run leaves a number."""
    return sorted(path for path in workdir.rglob("*") if ".lock" not in path.name)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"acquisition.budget": 4}, ["acquisition.budget: 8 -> 4"]),
        ({"training.base_steps": 5}, ["training.base_steps: 4 -> 5"]),
        (
            {"acquisition.ensemble.measure": "decoded"},
            ['acquisition.ensemble.measure: "prediction" -> "decoded"'],
        ),
        (
            {"acquisition.ensemble.members": 3, "augment.flip": 0.0},
            ["acquisition.ensemble.members: 2 -> 3", "augment.flip: 0.5 -> 0.0"],
        ),
        # A sketch is of the engine, not of a method that is not run.
        ({"acquisition.sketch.passes": 5}, ["acquisition.sketch.passes: 4 -> 5"]),
    ],
)
def test_differences_that_matter_are_refused_by_name(old, changes, lines):
    workdir = old("training")
    before = _written(workdir)
    with pytest.raises(records.WorkdirError) as error:
        perform(workdir, changes)
    assert str(error.value).splitlines()[1:] == [f"  {line}" for line in lines]
    assert _written(workdir) == before


@pytest.mark.parametrize("then", ["heatmaps", "joints"])
def test_a_measure_is_known_by_its_old_name(old, then):
    workdir = old("training")

    def change(config):
        config["acquisition"]["ensemble"]["measure"] = then

    rewrite(workdir, change)
    now = {"heatmaps": "prediction", "joints": "decoded"}
    for measure in now.values():
        config = small.configure({**CHANGES, "acquisition.ensemble.measure": measure})
        if measure == now[then]:
            compatibility.refuse_another_config(config, workdir)
        else:
            with pytest.raises(records.WorkdirError, match=r"ensemble\.measure"):
                compatibility.refuse_another_config(config, workdir)


def test_options_of_methods_that_are_not_run_make_no_difference(old):
    workdir = old("training")

    def change(config):
        acquisition = config["acquisition"]
        del acquisition["vl4pose"]  # a method that came later
        acquisition["abandoned"] = {"strength": 3.0}  # one that went
        acquisition["eglpp"]["neighbours"] = 77
        acquisition["mc_dropout"]["measure"] = "joints"

    rewrite(workdir, change)
    changes = {"acquisition.learning_loss.margin": 2.0}
    config = small.configure({**CHANGES, **changes})
    assert "abandoned" not in json.dumps(plain(config))
    compatibility.refuse_another_config(config, workdir)
    # Of a method that is run, beside or instead, they do.
    for key in ("method", "compare"):

        def use(config, key=key):
            if key == "method":
                config["acquisition"]["method"] = "eglpp"
            else:
                config["loop"]["compare"] = ["eglpp"]

        rewrite(workdir, use)
        with pytest.raises(records.WorkdirError, match=r"eglpp\.neighbours: 77 -> 4"):
            compatibility.refuse_another_config(config, workdir)
        rewrite(workdir, lambda config: config["acquisition"].update(method="ensemble"))


def test_another_task_than_of_old_is_refused(old):
    config = small.configure(CHANGES)
    config.task = "classification"
    with pytest.raises(records.WorkdirError, match='task: "pose" -> "classification"'):
        compatibility.refuse_another_config(config, old("training"))
