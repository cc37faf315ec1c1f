import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jalpose.report import evidence, sameness
from jalpose.report.contents import make_tables
from jalpose.report.gather import GatherError, gather
from jalpose.report.text_formats import markdown
from jalpose.storage import records
from jalpose.tasks import registry
from tests.support.recorded_runs import metrics, write_experiment, write_run

CURVE = (0.5, 0.6, 0.7)


@pytest.fixture
def experiment(tmp_path):
    """Two methods with three seeds each, every run in a folder of its own."""
    scores = {
        method: [[0.5 + seed / 100, 0.6 + gain, 0.7 + gain] for seed in range(3)]
        for method, gain in (("random", 0.0), ("eglpp", 0.02))
    }
    return write_experiment(tmp_path / "experiment", scores)


def test_runs_are_found_at_any_depth(experiment):
    found = gather([experiment])
    assert found.methods == ("eglpp", "random") and found.seeds == (0, 1, 2)
    assert [(r.method, r.seed) for r in found.runs] == [
        (method, seed) for method in found.methods for seed in found.seeds
    ]
    assert found.missing == found.warnings == found.bases == ()
    assert [run.seed for run in found.by("random")] == [0, 1, 2]
    assert found.by("unknown") == () and found.run("random", 7) is None
    run = found.run("eglpp", 1)
    assert run.path == experiment / "eglpp" / "1"
    assert run.config["acquisition"]["budget"] == 100
    assert run.about == {"device": {"kind": "cpu"}, "git": "abc", "versions": {}}
    assert [record["cycle"] for record in run.cycles] == [0, 1, 2]


def test_a_run_gives_its_arrays_and_selections(experiment):
    run = gather([experiment]).run("eglpp", 0)
    ids = [row["id"] for row in run.selection(0)]
    np.testing.assert_array_equal(run.arrays(0)["selected"], ids)
    assert run.arrays(2) == {} and run.selection(2) == []
    (run.path / "arrays" / "cycle_00.npz").write_bytes(b"PK")
    with pytest.raises(records.WorkdirError, match=r"cycle_00\.npz is damaged"):
        run.arrays(0)


def test_a_run_with_others_to_compare_with(tmp_path):
    base = write_run(tmp_path / "run", "eglpp", 0, CURVE)
    changes = {"base": str(base)}
    write_run(base / "compare" / "random", "random", 0, CURVE, changes=changes)
    (base / "checkpoints" / "state").mkdir(parents=True)
    (base / "checkpoints" / "config.json").write_text("{}")
    for paths in ([base], [tmp_path], [base, tmp_path, base / "compare"]):
        assert gather(paths).methods == ("eglpp", "random")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)))
def test_the_order_of_the_folders_changes_nothing(experiment, order):
    folders = sorted(path.parent for path in experiment.rglob("config.json"))
    assert gather([folders[i] for i in order]) == gather([experiment])


# Damage


def damage_line(folder, number, change):
    path = folder / records.CYCLES
    lines = path.read_text().splitlines(keepends=True)
    lines[number - 1] = change(lines[number - 1])
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[: len(line) // 2],
        lambda line: "[1, 2]\n",
        lambda line: '{"cycle": 2}\n',
        lambda line: line.replace('"cycle": 2', '"cycle": "two"'),
        lambda line: line.replace('"num_labelled": 1200', '"num_labelled": null'),
        lambda line: "\xff\xfe\n",
        lambda line: line.replace('"cycle": 2', '"cycle": -1'),
    ],
    ids=["truncated", "list", "keys", "type", "null", "bytes", "negative"],
)
def test_damaged_lines_are_named_and_left_out(experiment, change):
    path = damage_line(experiment / "random" / "1", 3, change)
    found = gather([experiment])
    assert [record["cycle"] for record in found.run("random", 1).cycles] == [0, 1]
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"{path}:3 is damaged and left out")
    assert found.missing == (
        f"random, seed 1: cycle 2 of 0 to 2 is not there yet ({path.parent})",
    )


def test_a_cycle_twice_is_named(experiment):
    path = damage_line(experiment / "eglpp" / "0", 3, lambda line: line + line)
    assert gather([experiment]).warnings == (
        f"{path}:4 repeats cycle 2: this line counts",
    )


def test_a_damaged_config_is_named_and_its_run_left_out(experiment):
    (experiment / "random" / "2" / "config.json").write_text('{"config": ')
    found = gather([experiment])
    assert found.run("random", 2) is None
    assert "random/2/config.json is damaged" in found.warnings[0]
    assert found.missing == ("random: there is no run of seed 2",)


# Unfinished


def test_what_is_missing_is_said(tmp_path):
    write_run(tmp_path / "a", "random", 0, (0.5,), cycles=5)
    write_run(tmp_path / "b", "eglpp", 0, (0.5, 0.6, 0.7, 0.7, 0.7, 0.7))
    damage_line(tmp_path / "b", 2, lambda line: "")
    damage_line(tmp_path / "b", 3, lambda line: "")
    write_run(tmp_path / "c", "eglpp", 1, (), cycles=5)
    found = gather([tmp_path])
    assert found.missing == (
        f"{tmp_path / 'c'}: no cycle is there yet",
        f"eglpp, seed 0: cycles 1, 3 of 0 to 5 are not there yet ({tmp_path / 'b'})",
        f"random, seed 0: cycles 1 to 5 of 0 to 5 are not there yet ({tmp_path / 'a'})",
    )


def test_a_report_of_nothing_says_so(tmp_path):
    with pytest.raises(GatherError, match=r"no run to report on in .*: nothing found"):
        gather([tmp_path])
    with pytest.raises(GatherError, match="no run to report on in no folder"):
        gather([])
    with pytest.raises(GatherError, match="gone is not a folder"):
        gather([tmp_path / "gone"])
    write_run(tmp_path / "base", "eglpp", 0, (0.5,))
    with pytest.raises(GatherError, match="only base models"):
        gather([tmp_path])
    write_run(tmp_path / "begun", "eglpp", 0, (), cycles=2)
    with pytest.raises(GatherError, match="begun: no cycle is there yet"):
        gather([tmp_path])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"name": "not ours"}')
    with pytest.raises(GatherError, match="no run to report on"):
        gather([tmp_path / "other"])


def test_base_models_stand_apart(experiment):
    base = write_run(experiment / "base", "eglpp", 0, (0.5,), changes={"scale": "x"})
    found = gather([experiment])
    assert len(found.runs) == 6
    assert [run.path for run in found.bases] == [base]


# Refusals and labels


@pytest.mark.parametrize(
    "key, value, shown",
    [
        ("training.batch", 8, "training.batch: 16 in .*random/0 and 5 more; 8 in .*/x"),
        ("data.name", "mpii", 'data.name: "lsp" .*; "mpii" in .*/x'),
        ("acquisition.budget", 7, "acquisition.budget: 100 .*; 7 in .*/x"),
        ("augment.scale", (1.0, 1.0), r"augment.scale: \[0.75, 1.25\] .*; \[1.0, 1.0"),
    ],
    ids=["training", "data", "budget", "tuple"],
)
def test_other_protocols_are_refused_by_key(experiment, key, value, shown):
    write_run(experiment / "x", "coreset", 0, CURVE, changes={key: value})
    shown = shown.replace("random/0", "eglpp/0")
    with pytest.raises(GatherError, match=rf"cannot be in one table(.|\n)*{shown}"):
        gather([experiment])


def test_runs_scored_otherwise_are_refused(experiment):
    folder = write_run(experiment / "x", "coreset", 0, CURVE)
    for cycle, score in enumerate(CURVE):
        record = {"cycle": cycle, "num_labelled": 1000 + 100 * cycle}
        scored = metrics(score) | {"num_images": 500}
        records.write_cycle(folder, {**record, "metrics": scored, "seconds": 1.0})
    with pytest.raises(GatherError, match=r"metrics.num_images: 1000 .*; 500 in .*/x"):
        gather([experiment])


def test_what_does_not_change_the_protocol_is_let_pass(experiment):
    changes = {
        "data.dir": "/elsewhere",
        "acquisition.block": 3,
        "acquisition.vl4pose.steps": 9,
        "output.images": 0,
        "base": "/runs/base",
        "loop.compare": ("random",),
    }
    write_run(experiment / "x", "coreset", 0, CURVE, changes=changes)
    assert "coreset" in gather([experiment]).methods


def test_a_method_and_seed_twice_are_refused(experiment):
    write_run(experiment / "again", "random", 1, CURVE)
    first, second = experiment / "again", experiment / "random" / "1"
    with pytest.raises(
        GatherError,
        match=re.escape(
            f"random with seed 1 is there twice: in {first} and in {second}"
        ),
    ):
        gather([experiment])


def test_two_draws_of_random_are_compared_as_a_pilot_does(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"{seed}", "random", seed, CURVE)
        changes = {"seeds.acquire": 1000 + seed}
        write_run(tmp_path / f"{seed} again", "random", seed, CURVE, changes=changes)
    write_run(tmp_path / "alone", "egl", 0, CURVE, changes={"seeds.acquire": 7})
    assert gather([tmp_path]).methods == (
        "egl",  # no other draw of it to be told from
        "random",
        "random seeds.acquire=1000",
        "random seeds.acquire=1001",
    )


def test_options_in_which_runs_of_a_method_differ_are_in_its_label(tmp_path):
    for name, method, changes in (
        ("a", "learning_loss", {"acquisition.learning_loss.objective": "kl"}),
        ("b", "learning_loss", {"acquisition.learning_loss.objective": "margin"}),
        ("c", "eglpp", {"acquisition.engine": "ghost"}),
        ("d", "eglpp", {"acquisition.engine": "sketch"}),
        # An engine is no option of a method without gradients.
        ("e", "random", {"acquisition.engine": "sketch"}),
        # Nor are a section's keys of another method.
        ("f", "coreset", {"acquisition.learning_loss.objective": "margin"}),
        ("h", "egl", {}),
        ("i", "egl", {"acquisition.diverse": "lcmd"}),
        ("j", "softmax_entropy", {"acquisition.diverse": "lcmd"}),
        ("k", "softmax_entropy", {"acquisition.diverse": "bait"}),
    ):
        write_run(tmp_path / name, method, 0, CURVE, changes=changes)
    write_run(tmp_path / "g", "random", 1, CURVE)
    assert gather([tmp_path]).methods == (
        "coreset",
        "egl",
        "egl diverse=lcmd",
        "eglpp engine=ghost",
        "eglpp engine=sketch",
        "learning_loss objective=kl",
        "learning_loss objective=margin",
        "random",
        "softmax_entropy diverse=bait",
        "softmax_entropy diverse=lcmd",
    )


@pytest.mark.parametrize(
    ("method", "changes", "label"),
    [
        ("lcmd", {"lcmd": {"space": "gradients"}}, "lcmd space=gradients"),
        ("lcmd", {"lcmd": {"space": "embedding"}}, "lcmd"),
        ("badge", {"badge": {"space": "gradients"}}, "badge"),
        ("badge", {"badge": {"space": "embedding"}}, "badge space=embedding"),
        ("egl", {"diverse": "lcmd", "diverse_share": 0.5}, "egl diverse=lcmd"),
        ("egl", {"diverse": "", "diverse_share": 0.5}, "egl"),
    ],
)
def test_what_makes_another_method_of_it_is_told_of_all_its_runs(
    method, changes, label
):
    config = {"acquisition": {"method": method, **changes}}
    assert sameness.labels([config, config], [[], []]) == [label, label]


def test_what_should_be_known_is_warned_of(tmp_path):
    write_run(tmp_path / "a", "random", 0, CURVE)
    gpu = {"device": {"kind": "H200"}}
    write_run(tmp_path / "b", "eglpp", 0, (0.51, 0.6, 0.7), about=gpu)
    dropout = {"model.dropout": 0.05}
    write_run(tmp_path / "c", "mc_dropout", 0, CURVE, changes=dropout)
    warnings = gather([tmp_path]).warnings
    assert warnings[0] == (
        "devices differ: H200 (eglpp seed 0); cpu (mc_dropout seed 0, random seed 0)"
    )
    assert warnings[1].startswith("model.dropout differ: 0.0 (eglpp seed 0, random")
    assert warnings[2].startswith("with seed 0 the methods did not start from one base")


def test_unlike_numbers_of_labels_are_warned_of(tmp_path):
    write_run(tmp_path / "a", "random", 0, CURVE, labelled=(1000, 1090, 1185))
    write_run(tmp_path / "b", "eglpp", 0, CURVE, labelled=(1000, 1080, 1125))
    still = {"labelled": (1000,) * 3, "selections": [[]] * 2}
    write_run(tmp_path / "c", "control", 0, CURVE, **still)
    (line,) = gather([tmp_path]).warnings
    assert line.startswith(
        "numbers of labels differ, from 1125 (eglpp seed 0) to 1185 (random seed 0) at "
        "cycle 2: each cycle stands at the number of the run with most"
    )


@pytest.mark.parametrize("score", [None, math.nan])
def test_a_cycle_without_a_score_is_warned_of(experiment, score):
    path = experiment / "eglpp" / "1" / records.CYCLES
    first, second, last = map(json.loads, path.read_text().splitlines())
    second["metrics"]["pck"] = score
    path.write_text("\n".join(map(json.dumps, (first, second, last))))
    found = gather([experiment])
    assert found.warnings == ("there is no score of eglpp seed 1 cycle 1",)
    (learning, _) = evidence.learning(found, "random")
    assert "A hollow marker" in learning.caption


def test_gathering_imports_no_jax():
    code = (
        "import sys; from jalpose.report import contents; print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_records_are_only_read(experiment):
    def state():
        return {p: p.stat().st_mtime_ns for p in experiment.rglob("*")}

    before = state()
    run = gather([experiment]).runs[0]
    run.arrays(0), run.selection(0)
    assert state() == before
    assert json.loads((experiment / "eglpp/0/config.json").read_text())["git"] == "abc"


# On all labels.

FULL = {"data.labelled": "all", "training.base_steps": 9, "name": "x_full"}


def write_full(folder, seed, score, **changes):
    return write_run(
        folder / f"full{seed}",
        "random",
        seed,
        (score,),
        cycles=0,
        labelled=(2000,),
        changes={**FULL, **changes},
    )


def test_runs_on_all_labels_are_told_from_base_models(experiment):
    write_run(experiment / "base", "random", 0, (0.5,), cycles=0)
    before = gather([experiment])
    assert before.full == () and [run.path.name for run in before.bases] == ["base"]
    assert before.missing == ()
    for seed in (2, 0):
        write_full(experiment, seed, 0.9)
    found = gather([experiment])
    assert [run.seed for run in found.full] == [0, 2] and found.bases == before.bases
    assert found.runs == before.runs and found.warnings == ()
    assert found.missing == ("all labels: there is no run of seed 1",)


def test_one_that_differs_in_more_than_labels_is_left_out(experiment):
    write_full(experiment, 0, 0.9)
    write_full(experiment, 1, 0.9, **{"model.channels": 4, "data.size": 32})
    found = gather([experiment])
    assert [run.seed for run in found.full] == [0]
    assert len(found.warnings) == 1
    assert (
        "it differs from the others in data.size, model.channels" in (found.warnings[0])
    )


def test_of_two_on_all_labels_the_longer_stands(experiment):
    write_full(experiment, 0, 0.9)
    longer = {**FULL, "training.base_steps": 11}
    place = experiment / "full0_11_steps"
    write_run(place, "random", 0, (0.95,), cycles=0, labelled=(2000,), changes=longer)
    found = gather([experiment])
    assert [run.path for run in found.full] == [place]
    assert [run.path.name for run in found.bases] == ["full0"]
    assert found.warnings == ()


# Tasks


def test_a_record_without_a_task_is_of_poses(tmp_path):
    write_run(tmp_path / "a", "random", 0, CURVE)
    config = records.read_config(tmp_path / "a")["config"]
    assert "task" not in config  # as records were
    found = gather([tmp_path])
    assert found.task == found.runs[0].task == "pose"
    assert found.scoring.name == "PCK@0.2" and found.scoring.sign == 1
    assert found.scoring.value(found.runs[0].cycles[0]) == 50.0


def test_records_with_and_without_a_task_are_of_one_table(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, task in ((old, None), (new, "pose")):
        write_run(folder / "random", "random", 0, CURVE, task=task)
        write_run(folder / "eglpp", "eglpp", 0, (0.5, 0.65, 0.7), task=task)
    for first, second in zip(
        make_tables(gather([old])), make_tables(gather([new])), strict=True
    ):
        assert markdown(first) == markdown(second)
    mixed = gather([old / "random", new / "eglpp"])
    assert mixed.methods == ("eglpp", "random") and mixed.warnings == ()


def test_runs_of_two_tasks_are_refused(tmp_path, monkeypatch):
    task = {"brightness": "tests.support.brightness"}
    monkeypatch.setattr(registry, "TASKS", registry.TASKS | task)
    write_run(tmp_path / "a", "random", 0, CURVE)
    write_run(tmp_path / "b", "eglpp", 0, CURVE, task="brightness")
    with pytest.raises(GatherError, match=r'task: "pose" in .*/a; "brightness" in'):
        gather([tmp_path])
    assert gather([tmp_path / "b"]).task == "brightness"
    monkeypatch.undo()
    with pytest.raises(GatherError, match=r"/b cannot be read here: .*brightness"):
        gather([tmp_path / "b"])
