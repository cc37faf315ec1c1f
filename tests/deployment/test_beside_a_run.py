"""Trained runs are put to use while they are at work: what is taken, what is left."""

import io
import shutil

import numpy as np
import pytest

from jalpose.deployment import predict as predicting
from jalpose.deployment.export import export
from jalpose.deployment.options import Export, Model, Prediction, Selection
from jalpose.deployment.predict import predict
from jalpose.deployment.select import select
from jalpose.loop import saved_models
from jalpose.loop.run import load_dataset
from jalpose.models.registry import MODELS
from jalpose.oracles.handout import read_index
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import locks, records
from jalpose.tasks.inference import Place
from tests.support import small, trained


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hourglass", trained.FlatOptions)
        small.remember_templates(patch)
        yield


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    root = tmp_path_factory.mktemp("mice")
    trained.lay_mice(root)
    trained.write_new(root)
    return root


@pytest.fixture
def workdir(laid, tmp_path):
    """A workdir of its own, as it is while the run trains its second network."""
    found = tmp_path / "run"
    shutil.copytree(laid / "run", found)
    half = found / "checkpoints/models/01.new.orbax-checkpoint-tmp-3"
    shutil.copytree(found / "checkpoints/models/00", half)
    (half / "_METADATA").unlink(missing_ok=True)
    return found


def use(command, laid, workdir, out, cycle=-1):
    """What a command says, and the folder it has written."""
    stream, model = io.StringIO(), Model(str(workdir), cycle)
    screen, place = Screen(stream), Place(str(laid / "nëw images"))
    if command == "predict":
        predict(model, Prediction(place, str(out)), screen, small.programs())
    elif command == "select":
        options = Selection(place, str(out), budget=2)
        select(model, options, screen, small.programs())
    else:
        pytest.importorskip("flatbuffers")
        export(model, Export(str(out), platforms=("cpu",)), screen)
    return stream.getvalue()


def contents(folder):
    """Of all files below a folder what is in them, and when they were written."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


COMMANDS = ("select", "predict", "export")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_beside_a_run_at_work_its_last_finished_model_is_taken(
    command, laid, workdir, tmp_path
):
    with locks.hold(workdir):
        before = contents(workdir)
        said = use(command, laid, workdir, tmp_path / "out")
        assert contents(workdir) == before
        assert (
            f"{workdir} is in use by {locks.myself()}: taken is the model of cycle 0, "
            "the last it has finished" in said
        )


def test_a_model_is_named_as_it_was_asked_for_and_of_a_quiet_run_nothing_is_said(
    laid, workdir, tmp_path
):
    with locks.hold(workdir):
        said = use("predict", laid, workdir, tmp_path / "beside", cycle=0)
        assert "the model of cycle 0, one it has finished" in said
    assert "is in use" not in use("predict", laid, workdir, tmp_path / "after")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_has_no_model_yet_is_refused_by_name(
    command, laid, workdir, tmp_path
):
    shutil.rmtree(workdir / "checkpoints/models/00")
    match = f"no model is saved in {workdir} yet"
    with locks.hold(workdir), pytest.raises(saved_models.CheckpointError, match=match):
        use(command, laid, workdir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["to_label", "labels/mine", "checkpoints/models/02"])
def test_nothing_is_written_where_the_run_keeps_its_own(
    command, place, laid, workdir, tmp_path
):
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"which keeps its own in {place[:6]}"):
        use(command, laid, workdir, workdir / place)
    assert contents(tmp_path) == before


def test_beside_what_the_run_keeps_there_is_room(laid, workdir):
    use("predict", laid, workdir, workdir / "predictions")
    assert (workdir / "predictions" / "predictions.csv").is_file()


def test_what_another_command_has_written_meanwhile_is_not_written_over(
    laid, workdir, tmp_path, monkeypatch
):
    def slow(folder, *_):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("")

    monkeypatch.setattr(predicting, "_draw", slow)
    with pytest.raises(ConfigError, match="something is there already"):
        use("predict", laid, workdir, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]


def choose(workdir, cycle, ids):
    """What a run records of a choice."""
    records.write_arrays(workdir, cycle, selected=np.array(ids, np.int64))
    records.write_cycle(workdir, {"cycle": cycle, "acquisition": {"method": "random"}})


def test_what_the_run_asks_people_for_is_not_asked_for_again(laid, workdir, tmp_path):
    """Chosen by the model of cycle 0, and not yet in any model."""
    data = load_dataset(trained.config_of(laid))
    asked = data.pool[:2]
    choose(workdir, 0, asked)
    out, names = tmp_path / "out", [data.files[i] for i in asked.tolist()]
    stream = io.StringIO()
    options = Selection(Place(str(laid / "images")), str(out), budget=1)
    select(Model(str(workdir)), options, Screen(stream), small.programs())
    said = stream.getvalue()
    assert "2 of 10 were asked for by the run since, and not chosen from" in said
    assert read_index(out)[0].file not in {name.rpartition("/")[2] for name in names}


def test_a_model_whose_choices_are_not_recorded_is_refused_by_name(
    laid, workdir, tmp_path
):
    saved_models.save_model(workdir, 1, trained.variables())
    with pytest.raises(records.WorkdirError, match=r"choice of cycle 0 in .* is not"):
        use("select", laid, workdir, tmp_path / "out")
    choose(workdir, 0, load_dataset(trained.config_of(laid)).pool[:1])
    use("select", laid, workdir, tmp_path / "out")
