"""Runs whose labels come back in files, by a script that plays the annotator."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest

from jalpose import command
from jalpose.loop import configs, run, saved_states
from jalpose.loop.context import make_context
from jalpose.loop.events import Finished, Waiting
from jalpose.loop.finished import state_of as state_when
from jalpose.oracles.folder import read_answers
from jalpose.oracles.oracle import LabelsAwaited, LabelsError
from jalpose.oracles.registry import make_oracle
from jalpose.report.gather import gather
from jalpose.report.write import Options, Report
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from tests.loop.test_class_runs import DELTA
from tests.loop.test_oracles import without_labels
from tests.support import annotator, classes, small
from tests.support.states import assert_same

DATA = small.dataset()
CHANGES = {
    "acquisition.method": "softmax_entropy",
    "training.base_steps": 2,
    "training.cycle_steps": 2,
    "loop.cycles": 2,
}


@pytest.fixture(scope="module", autouse=True)
def quick_restore():
    with pytest.MonkeyPatch.context() as patch:
        small.remember_templates(patch)
        yield


def context_of(workdir, name="folder", **changes):
    changes = {
        **CHANGES,
        "oracle.name": name,
        **{f"oracle.{k}": v for k, v in changes.items()},
    }
    config = small.configure(changes)
    data = without_labels() if name == "folder" else DATA
    oracle = make_oracle(config, data, workdir)
    return small.flat_context(
        changes, base=small.flat_variables(), oracle=oracle, dataset=data
    )


def perform(workdir, **changes):
    """Run until it is done or waits: what was printed."""
    stream = io.StringIO()
    run.run_one(context_of(workdir, **changes), workdir, Screen(stream))
    return stream.getvalue()


def state_of(workdir):
    store = saved_states.StateStore(workdir)
    _, state, _ = store.restore(context_of(workdir))
    store.close()
    return state


def answer(workdir, cycle, form=annotator.as_coco, name="", entries=None, **options):
    """Label what is handed out in a cycle, or some of it."""
    entries = annotator.handed_out(workdir, cycle) if entries is None else entries
    found = annotator.labelled(entries, DATA.truth, **options)
    usual, text = form(found)
    return annotator.bring(workdir, name or f"{cycle}/{usual}", text)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("simulated")
    perform(workdir, name="simulated")
    return workdir


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, what each start printed) of two cycles that people labelled."""
    workdir = tmp_path_factory.mktemp("people") / "a run"
    printed = [perform(workdir)]
    for cycle in (0, 1):
        answer(workdir, cycle)
        printed.append(perform(workdir))
    return workdir, printed


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A workdir that waits for the labels of its first choice."""
    workdir = tmp_path_factory.mktemp("asked") / "run"
    perform(workdir)
    return workdir


@pytest.fixture
def waiting(asked, tmp_path):
    shutil.copytree(asked, tmp_path / "run")
    return tmp_path / "run"


# Two cycles.


def test_it_chooses_and_learns_what_the_simulated_run_does(finished, simulated):
    workdir, printed = finished
    waits = ["waiting for the labels of 8 images" in text for text in printed]
    assert waits == [True, True, False]
    for number in range(3):
        ours, theirs = (
            records.read_arrays(folder, number) for folder in (workdir, simulated)
        )
        shared = ours.keys() & theirs.keys()
        assert {"test_joints", "test_losses"} <= shared
        assert ("selected" in shared) == (number < 2)
        for name in shared:
            assert ours[name].tobytes() == theirs[name].tobytes(), (number, name)
    ours, theirs = (records.read_cycles(folder) for folder in (workdir, simulated))
    assert [x["metrics"] for x in ours] == [x["metrics"] for x in theirs]


def test_a_run_says_what_to_do(finished):
    workdir, printed = finished
    (line,) = [x for x in printed[0].splitlines() if x.startswith("open ")]
    assert f"{workdir / 'to_label' / 'cycle_00' / 'index.html'}" in line
    assert f"into {workdir / 'labels'}, and run the same command again" in line
    assert "cycle 1: 8 of 8 labels came" in printed[1].splitlines()


def test_records_say_how_many_were_labelled_and_what_could_not_be_measured(finished):
    cycles = records.read_cycles(finished[0])
    wanted = {"asked": 8, "labelled": 8, "rejected": 0, "unanswered": 0}
    assert [x.get("answers") for x in cycles] == [wanted, wanted, None]
    for line in cycles[:2]:
        assert {"selected_pck", "pool_pck"} <= set(line["measures"]["left_out"])


def test_copies_of_what_was_taken_are_kept(finished):
    workdir, _ = finished
    for cycle in (0, 1):
        kept = workdir / "labels_taken" / f"cycle_{cycle:02d}"
        given = workdir / "labels" / f"{cycle}" / "coco.json"
        copy = kept / "labels" / f"{cycle}" / "coco.json"
        assert copy.read_bytes() == given.read_bytes()
        taken = read_answers(kept / "answers.npz")
        selected = records.read_arrays(workdir, cycle)["selected"]
        np.testing.assert_array_equal(taken.ids, selected)
        assert_same(taken.labels, DATA.truth_of(selected))


def test_a_finished_run_is_opened_with_the_labels_people_gave(finished, simulated):
    ours, theirs = (
        state_when(data, folder, 2)
        for data, folder in ((without_labels(), finished[0]), (DATA, simulated))
    )
    np.testing.assert_array_equal(ours.labelled, theirs.labelled)
    assert_same(ours.answers, theirs.answers)
    assert len(ours.bought) == 16 and len(ours.rejected) == 0


def test_the_report_is_written_without_the_measures_of_labels(finished, tmp_path):
    workdir, _ = finished
    page = Report(gather([str(workdir)]), [str(workdir)], tmp_path, Options()).write()
    text = page.read_text()
    assert "softmax_entropy" in text and "nan" not in text.lower().split()


# What is handed out.


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_written_again_it_is_the_same_to_the_byte(waiting):
    folder = waiting / "to_label"
    before = contents(folder)
    names = {"index.html", "selection.csv", "coco.json", "label_studio.json"}
    names |= {"cvat.xml", "cvat_labels.json", "machinelabels.csv"}
    assert {f"cycle_00/{name}" for name in names} <= before.keys()
    shutil.rmtree(folder)
    assert "waiting" in perform(waiting)
    assert contents(folder) == before
    # There, it is left as it is.
    (folder / "cycle_00" / "selection.csv").write_text("mine")
    perform(waiting)
    assert (folder / "cycle_00" / "selection.csv").read_text() == "mine"


def test_a_write_that_is_interrupted_leaves_nothing_that_looks_whole(
    waiting, monkeypatch
):
    folder = waiting / "to_label"
    before = contents(folder)
    shutil.rmtree(folder)

    def dies(*_):
        raise KeyboardInterrupt

    # A kill runs no clean-up: what is half written stays.
    with monkeypatch.context() as patch:
        patch.setattr("jalpose.oracles.contact_sheet.page", dies)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            perform(waiting)
    (left,) = folder.iterdir()
    assert left.name.startswith(".cycle_00.") and left.name.endswith(".tmp")
    assert "waiting" in perform(waiting)
    assert contents(folder) == before


def test_guesses_lie_where_the_model_said(waiting):
    arrays = records.read_arrays(waiting, 0)
    content = json.loads((waiting / "to_label/cycle_00/coco.json").read_bytes())
    names = [one["name"] for one in annotator.handed_out(waiting, 0)]
    assert [one["file_name"] for one in content["images"]] == names
    for one, example in zip(
        content["annotations"], arrays["selected"].tolist(), strict=True
    ):
        row = np.searchsorted(arrays["ids"], example)
        found = np.array(one["keypoints"]).reshape(-1, 3)[:, :2]
        said = np.clip(arrays["joints"][row], 0, 127)  # within the image
        np.testing.assert_array_equal(found.astype(np.float32), said)
        assert min(one["confidence"]) >= 0 and max(one["confidence"]) <= 1


# What comes back.


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["cvat", "deeplabcut", "label_studio"])
def test_every_format_is_read_back(waiting, tool):
    answer(waiting, 0, annotator.TOOLS[tool])
    assert "8 of 8 labels came" in perform(waiting)
    found = read_answers(waiting / "labels_taken/cycle_00/answers.npz")
    truth = DATA.truth_of(found.ids)
    off = np.abs(found.labels["joints"] - truth["joints"])
    assert np.nanmax(off) < (0.006 if tool == "cvat" else 1e-4)
    np.testing.assert_array_equal(np.isnan(off).any(-1), truth["status"] == -1)
    if tool != "deeplabcut":  # it does not tell hidden joints
        np.testing.assert_array_equal(found.labels["status"], truth["status"])


def test_some_are_not_enough_and_are_named(waiting):
    entries = annotator.handed_out(waiting, 0)
    answer(waiting, 0, entries=entries[:6])
    told = perform(waiting)
    assert "6 of 8 are finished; not yet: " in told
    assert all(one["name"] in told for one in entries[6:])
    assert len(records.read_cycles(waiting)) == 1


def test_with_allow_partial_the_finished_are_taken_and_the_others_stay(waiting):
    entries = annotator.handed_out(waiting, 0)
    answer(waiting, 0, entries=entries[:6])
    told = perform(waiting, allow_partial=True)
    assert "cycle 1: 6 of 8 labels came, 2 left in the pool" in told
    lines = records.read_cycles(waiting)
    assert lines[1]["num_labelled"] == 46
    assert lines[0]["answers"]["unanswered"] == 2
    state = state_of(waiting)
    left = context_of(waiting).unlabelled(state.taken, state.cycle, 0)
    assert {one["id"] for one in entries[6:]} <= set(left.tolist())


def test_rejected_images_leave_the_pool(waiting):
    entries = annotator.handed_out(waiting, 0)
    answer(waiting, 0, entries=entries[2:])
    names = "\n".join(one["name"] for one in entries[:2])
    annotator.bring(waiting, "never.txt", f"rejected\n{names}\n")
    assert "6 of 8 labels came, 2 rejected" in perform(waiting)
    state = state_of(waiting)
    gone = [one["id"] for one in entries[:2]]
    assert state.rejected.tolist() == gone
    left = context_of(waiting).unlabelled(state.taken, state.cycle, 0)
    assert not set(gone) & set(left.tolist())
    assert not set(gone) & {one["id"] for one in annotator.handed_out(waiting, 1)}


def refused(workdir, *words, **changes):
    folders = [workdir / name for name in ("checkpoints", "labels_taken")]
    before = [contents(folder) for folder in folders]
    with pytest.raises(LabelsError) as error:
        perform(workdir, **changes)
    for word in words:
        assert word in str(error.value), word
    assert [contents(folder) for folder in folders] == before


def test_labels_that_cannot_be_taken_are_refused_by_name(waiting):
    entries = annotator.handed_out(waiting, 0)
    name = entries[0]["name"]
    answer(waiting, 0)
    # Twice, and not the same.
    moved = {entries[0]["id"]: DATA.truth["joints"][entries[0]["id"]] + 1}
    other = answer(waiting, 0, name="b.json", entries=entries[:1], changes=moved)
    refused(waiting, f"{name!r} is answered twice", "0/coco.json", "b.json")
    # Never asked for: an example of the pool, and one of nowhere.
    strange = next(i for i in DATA.pool if i not in {one["id"] for one in entries})
    for bad in (f"{strange:06d}_{strange:06d}.png", "holiday.png"):
        found = annotator.labelled([{**entries[0], "name": bad}], DATA.truth)
        other.write_text(annotator.as_coco(found)[1])
        refused(waiting, f"{bad!r} was never asked for")
    # Of a picture of another size.
    sized = annotator.labelled([{**entries[0], "size": [640, 480]}], DATA.truth)
    other.write_text(annotator.as_coco(sized)[1])
    (waiting / "labels/0/coco.json").unlink()
    refused(waiting, name, "640 x 480 pixels, and 128 x 128 were handed out")
    # Percentages for pixels: most joints lie outside the crop, or the image.
    wrong = {entries[0]["id"]: DATA.truth["joints"][entries[0]["id"]] * 100 / 12}
    other = answer(waiting, 0, name="b.json", entries=entries[:1], changes=wrong)
    refused(waiting, name, "outside the image of 128 x 128 pixels")
    # The guesses themselves are no labels.
    handed = (waiting / "to_label/cycle_00/coco.json").read_text()
    other.write_text(handed)
    refused(waiting, "as it was handed out", "b.json")
    other.write_text('{"something": "else"}')
    refused(waiting, "b.json: it is in none of the formats that are read (COCO")
    # All right, and it goes on.
    other.unlink()
    answer(waiting, 0)
    assert "8 of 8 labels came" in perform(waiting)


def test_another_skeleton_is_refused(waiting):
    found = annotator.labelled(annotator.handed_out(waiting, 0), DATA.truth)
    content = json.loads(annotator.as_coco(found)[1])
    content["categories"][0]["keypoints"][0] = "snout"
    annotator.bring(waiting, "mouse.json", json.dumps(content))
    refused(waiting, "mouse.json", "another skeleton", "head", "snout")


def test_killed_between_taking_labels_and_saving_it_takes_them_again(
    waiting, simulated, monkeypatch
):
    answer(waiting, 0)
    with monkeypatch.context() as patch:

        def dies(*_):
            raise KeyboardInterrupt

        patch.setattr(saved_states.StateStore, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            perform(waiting)
    assert (waiting / "labels_taken/cycle_00/answers.npz").is_file()
    assert len(state_of(waiting).answers) == 0
    assert "8 of 8 labels came" in perform(waiting)
    ours, theirs = (
        records.read_arrays(folder, 1)["selected"] for folder in (waiting, simulated)
    )
    np.testing.assert_array_equal(ours, theirs)


# Labels that are corrected.


@pytest.fixture
def corrected(finished, tmp_path):
    """A run of two cycles; of one label of the first cycle one joint moved since."""
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    entry = annotator.handed_out(workdir, 0)[3]
    joints = DATA.truth["joints"][entry["id"]].copy()
    joint = int(np.argmax(DATA.truth["status"][entry["id"]] != -1))
    joints[joint] += 3
    answer(workdir, 0, changes={entry["id"]: joints})
    return workdir, entry, joints, joint


def test_a_corrected_label_is_asked_about(corrected):
    workdir, entry, _, joint = corrected
    refused(
        workdir,
        "1 labels were corrected after they were trained on",
        entry["name"],
        f"{annotator.LSP.joints[joint]} moved by 4.2 pixels",
        "oracle.corrected=take",
        "oracle.corrected=keep",
    )


def test_a_corrected_label_is_kept_out_or_taken_as_is_said(corrected, caplog):
    workdir, entry, joints, _ = corrected
    before = state_of(workdir)
    perform(workdir, corrected="keep")
    assert "those trained on are kept" in caplog.text
    assert_same(state_of(workdir).answers, before.answers)
    perform(workdir, corrected="take")
    row = before.bought.tolist().index(entry["id"])
    after = state_of(workdir)
    np.testing.assert_array_equal(after.answers["joints"][row], joints)
    assert (workdir / "labels_taken/corrected/labels/0/coco.json").is_file()
    # Taken, it is no difference any more; and the fingerprint is another.
    context = context_of(workdir)
    variables = small.flat_variables()
    prints = [context._fingerprint(state, variables) for state in (before, after)]
    assert prints[0] != prints[1]
    perform(workdir)


def test_rounding_is_no_correction(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    shutil.rmtree(workdir / "labels" / "0")
    answer(workdir, 0, annotator.as_cvat)
    before = state_of(workdir)
    perform(workdir)
    assert_same(state_of(workdir).answers, before.answers)


# Classes.


@pytest.mark.slow
def test_classes_are_labelled_in_a_table_and_in_folders(tmp_path):
    data = classes.dataset()
    truth = data.truth["class"]
    hidden = truth.copy()
    hidden[data.pool] = 0  # of no meaning
    unknown = dataclasses.replace(data, truth={"class": hidden})
    for name, own in (("simulated", data), ("folder", unknown)):
        workdir = tmp_path / name
        delta = {
            **DELTA,
            "oracle.name": name,
            "acquisition.method": "softmax_entropy",
            "acquisition.budget": 4,
        }
        config = configs.assemble(
            "scale=tiny", name="classes", task="classification", delta=delta
        )

        def start(config=config, own=own, workdir=workdir):
            oracle = make_oracle(config, own, workdir)
            context = make_context(
                config, own, small.programs(), network=classes.NETWORK, oracle=oracle
            )
            return run.run_one(context, workdir, Screen(io.StringIO()))

        if name == "folder":
            assert isinstance(start(), Waiting)
            _sort(workdir, truth)
        assert isinstance(start(), Finished)
    ours, theirs = (
        records.read_cycles(tmp_path / name) for name in ("folder", "simulated")
    )
    assert [line["num_labelled"] for line in theirs] == [40, 44]
    assert [line["num_labelled"] for line in ours] == [40, 43]
    wanted = {"asked": 4, "labelled": 3, "rejected": 1, "unanswered": 0}
    assert ours[0]["answers"] == wanted
    found = read_answers(tmp_path / "folder/labels_taken/cycle_00/answers.npz")
    np.testing.assert_array_equal(found.labels["class"], truth[found.ids])
    np.testing.assert_array_equal(
        *(
            records.read_arrays(tmp_path / name, 0)["selected"]
            for name in ("folder", "simulated")
        )
    )


def _sort(workdir, truth):
    """Two in the table, one in a folder of its class, one that is no use."""
    first, second, third, last = annotator.handed_out(workdir, 0)
    handed_out = workdir / "to_label/cycle_00"
    text = (handed_out / "classes.csv").read_text()
    for one in (first, second):
        said = classes.CLASSES[truth[one["id"]]]
        text = text.replace(f"{one['name']},,", f"{one['name']},{said},")
    annotator.bring(workdir, "filled in.csv", text)
    said = classes.CLASSES[truth[third["id"]]]
    for folder, one in ((said, third), ("rejected", last)):
        target = workdir / "labels" / folder / one["name"]
        target.parent.mkdir(parents=True)
        shutil.copy(handed_out / "images" / one["name"], target)


# The command.


def test_a_command_ends_with_a_code_of_its_own(capsys):
    def waits():
        raise LabelsAwaited

    def refuses():
        raise LabelsError("a.json: no")

    assert command.attempt(waits) == command.AWAITING_LABELS == 3
    assert command.attempt(refuses) == 2
    assert capsys.readouterr().err == "error: a.json: no\n"


def test_people_label_for_one_method_at_a_time():
    for key in ("loop.compare", "experiment.methods"):
        with pytest.raises(ConfigError, match=rf"{key}=\('egl',\) names more"):
            small.configure({"oracle.name": "folder", key: ("egl",)})


def test_people_are_asked_by_themselves_where_the_pool_has_no_labels(tmp_path):
    config = small.configure({"oracle.name": "auto"})
    bare = dataclasses.replace(DATA, pool_labelled=False)
    assert make_oracle(config, DATA, tmp_path).simulated
    assert not make_oracle(config, bare, tmp_path).simulated
    config.loop.compare = ("egl",)
    with pytest.raises(ConfigError, match=r"oracle\.name=auto asks people"):
        make_oracle(config, bare, tmp_path)


def test_a_waiting_run_is_told_by_what_it_raises(tmp_path, monkeypatch):
    config = small.configure({**CHANGES, "oracle.name": "folder", "model.depth": 1})
    monkeypatch.setattr(run, "load_dataset", small.drawn_dataset)
    monkeypatch.setattr(run, "run_one", lambda *_: run.Waiting(cycle=0, count=8))
    with pytest.raises(LabelsAwaited):
        run.run(config, str(tmp_path / "run"), Screen(io.StringIO()))
