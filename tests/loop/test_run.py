"""Whole runs: what they write, how they resume, and what they refuse."""

import csv
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jalpose.loop import cautions, programs, run, saved_models
from jalpose.loop.conclusion import conclude
from jalpose.models.hourglass import HourglassOptions
from jalpose.runtime import hosts, provenance, sharding
from jalpose.runtime.screen import Screen
from jalpose.runtime.throughput import Meter
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from tests.support import commands, small

ROOT = Path(__file__).parents[2]
METHODS = ("eglpp", "random", "control")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One device, and what was compiled for one run serves the others."""
    make_mesh = sharding.make_mesh

    def one_device(devices=None):
        return make_mesh(jax.devices()[:1] if devices is None else devices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", one_device)
        patch.setattr(run, "Programs", lambda mesh: small.programs(mesh.size))
        patch.setattr(run, "load_dataset", small.drawn_dataset)
        small.remember_templates(patch)
        yield


def perform(workdir, changes=None):
    """Run in `workdir`: what was printed."""
    stream = io.StringIO()
    run.run(small.configure(changes), os.fspath(workdir), Screen(stream))
    return stream.getvalue()


FULL = {
    "loop.compare": METHODS[1:],
    "output.tensorboard": True,
    "output.images": 4,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, printed) of a finished run of EGL++, compared with the others."""
    workdir = tmp_path_factory.mktemp("runs") / "eglpp"
    return workdir, perform(workdir, FULL)


def paths(finished):
    workdir = finished[0]
    return {"eglpp": workdir, **{m: workdir / "compare" / m for m in METHODS[1:]}}


def contents(workdir, *left_out):
    """Bytes of every file of a workdir but for its locks, by path."""
    left_out = (r"(^|/)\.lock\.", *left_out)
    files = [path for path in sorted(Path(workdir).rglob("*")) if path.is_file()]
    found = {path.relative_to(workdir).as_posix(): path.read_bytes() for path in files}
    return {k: v for k, v in found.items() if not re.search("|".join(left_out), k)}


# What a run writes.


def test_a_run_writes_what_it_promises(finished):
    workdir, _ = finished
    names = {
        path.relative_to(workdir).as_posix()
        for path in workdir.rglob("*")
        if not re.search("checkpoints/(state|models)/.*/|compare/", str(path))
    }
    for expected in (
        "config.json",
        "cycles.jsonl",
        *(f"selections/cycle_0{n}.csv" for n in (0, 1)),
        *(f"arrays/cycle_0{n}.npz" for n in (0, 1, 2)),
        *(f"checkpoints/models/0{n}" for n in (0, 1, 2)),
        *(f"pictures/cycle_0{n}_test.png" for n in (0, 1, 2)),
        *(f"pictures/cycle_0{n}_chosen.png" for n in (0, 1)),
        "pictures/learning_curves.png",
    ):
        assert expected in names
    assert not [name for name in names if name.endswith(".tmp")]
    assert not (workdir / "selections" / "cycle_02.csv").exists()
    states = [p.name for p in (workdir / "checkpoints" / "state").iterdir()]
    assert 1 <= len([name for name in states if name.isdigit()]) <= 2


def test_config_json_holds_config_versions_device_and_revision(finished):
    record = json.loads((finished[0] / "config.json").read_text())
    assert set(record) == {"config", "versions", "device", "git", "outputs"}
    assert record["config"] == json.loads(small.configure(FULL).to_json())
    assert record["versions"]["jax"] == jax.__version__
    assert set(record["versions"]) == {"python", *provenance.PACKAGES}
    assert record["device"]["platform"] == "cpu" and record["device"]["kind"]


def test_cycles_jsonl_has_a_line_a_cycle(finished):
    lines = (finished[0] / "cycles.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["cycle"] for line in found] == [0, 1, 2]
    assert [line["num_labelled"] for line in found] == [40, 48, 56]
    for line in found:
        names = {"cycle", "num_labelled", "metrics", "acquisition", "seconds"}
        # What more labels may bring can be said of two cycles or more.
        names |= {"throughput", *(["stopping"] if line["cycle"] else [])}
        # The last cycle chooses nothing that could be measured.
        assert set(line) == names | ({"measures"} if line["cycle"] < 2 else set())
        assert 0 <= line["metrics"]["pck"] <= 1 and line["seconds"] > 0
        assert len(line["metrics"]["pck_per_joint"]) == 14
        assert line["throughput"]["training"]["images_per_second"] > 0
        assert 0 <= line["throughput"]["training"]["share_waiting"] <= 1
    for line in found[:2]:
        acquisition = line["acquisition"]
        assert acquisition["method"] == "eglpp" and acquisition["engine"] == "ghost"
        # Whole images of four labels each: no more than make it faster.
        assert acquisition["microbatch"] % 4 == 0
        assert 4 <= acquisition["microbatch"] <= 4 * 8
        assert acquisition["budget"] == 8 and acquisition["num_scored"] == 16
        assert acquisition["seconds"] > 0 and acquisition["peak_bytes"] > 0
        assert acquisition["not_converged"] == 0
        assert line["throughput"]["scoring"]["images_per_second"] > 0
        measures = line["measures"]
        assert 0 <= measures["ranking_accuracy"] <= 1
        assert measures["chance_overlap"] == 8 / 16
        assert measures["sq_norm_overlap"] is None  # `evaluation.true_norms` is off
    assert found[2]["acquisition"] is None


@pytest.mark.parametrize("number", [0, 1])
def test_selections_agree_with_arrays_and_data(finished, number):
    workdir, _ = finished
    data = small.dataset()
    arrays = records.read_arrays(workdir, number)
    with open(workdir / "selections" / f"cycle_0{number}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["rank", "id", "key", "file", "score", "neighbours"]
    assert [int(row["rank"]) for row in rows] == list(range(1, 9))
    ids = [int(row["id"]) for row in rows]
    assert ids == arrays["selected"].tolist() and np.isin(ids, data.pool).all()
    positions = np.searchsorted(arrays["ids"], ids)
    assert arrays["ids"][positions].tolist() == ids
    held_out = {data.keys[i] for i in data.initial[data.held_out(data.initial)]}
    known = {data.keys[i] for i in [*data.initial, *data.pool]}
    for row, example, position in zip(rows, ids, positions, strict=True):
        assert row["key"] == data.keys[example] and row["file"] == data.files[example]
        assert np.float32(row["score"]) == arrays["scores"][position]
        pairs = [pair.rsplit(":", 1) for pair in row["neighbours"].split("|")]
        assert len(pairs) == 4
        assert sum(float(p) for _, p in pairs) == pytest.approx(1, abs=1e-4)
        assert {key for key, _ in pairs} <= known - held_out
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] >= np.delete(arrays["scores"], positions).max()


@pytest.mark.parametrize("number", [0, 1])
def test_arrays_hold_all_that_was_scored(finished, number):
    arrays = records.read_arrays(finished[0], number)
    ids = arrays["ids"]
    assert len(ids) == 16 and (np.diff(ids) > 0).all()
    assert np.isin(arrays["selected"], ids).all()
    assert np.isfinite(arrays["scores"]).all() and (arrays["scores"] > 0).all()
    for name, shape in (
        ("embeddings", (16, 8)),
        ("joints", (16, 14, 2)),
        ("peaks", (16, 14)),
        ("true_losses", (16,)),
        ("neighbour_ids", (16, 4)),
        ("neighbour_probabilities", (16, 4)),
        ("neighbour_squared_norms", (16, 4)),
        ("test_joints", (16, 14, 2)),
    ):
        assert arrays[name].shape == shape, name
        assert np.isfinite(arrays[name]).all(), name


def test_arrays_and_metrics_agree(finished):
    workdir, _ = finished
    for line in records.read_cycles(workdir):
        arrays = records.read_arrays(workdir, line["cycle"])
        mean = arrays["test_losses"].mean(dtype=np.float64)
        assert line["metrics"]["test_loss"] == pytest.approx(mean)


def test_the_model_of_every_cycle_is_kept_and_has_its_metrics(finished):
    workdir, _ = finished
    found, passes = small.context(), small.context().passes
    for line in records.read_cycles(workdir):
        model = saved_models.load_model(workdir, line["cycle"])
        whole = sharding.replicate(passes.mesh, model)
        metrics, _ = found.evaluator.evaluate(passes, whole, Meter())
        assert metrics == line["metrics"]
    with pytest.raises(saved_models.CheckpointError, match="no model of cycle 3"):
        saved_models.load_model(workdir, 3)


def tensorboard_tags(folder):
    from tensorboardX.proto.event_pb2 import Event

    tags = {}
    for path in folder.glob("events*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                tags.setdefault(value.tag, []).append(event.step)
    return tags


def test_tensorboard_has_scalars_and_images(finished):
    tags = tensorboard_tags(finished[0] / "tensorboard")
    assert {"train/loss", "train/heldout_loss", "test/pck", "test/test_loss"} <= set(
        tags
    )
    assert tags["test/pck"] == [8, 12, 16]  # steps of all trainings before
    assert tags["train/loss"] == sorted(tags["train/loss"])
    assert len(tags["test"]) == 3 and len(tags["chosen"]) == 2
    assert "test_pck/right_ankle" in tags


def test_pictures_can_be_opened(finished):
    pictures = sorted((finished[0] / "pictures").glob("*.png"))
    assert len(pictures) == 6
    for path in pictures:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 100 and image.mode in ("RGB", "RGBA")
            assert len(image.convert("RGB").getcolors(2**24)) > 10


def test_the_screen_has_a_line_a_cycle_and_the_table(finished):
    workdir, printed = finished
    lines = printed.splitlines()
    # Three cycles of three methods.
    assert len([x for x in lines if re.match(r"cycle \d: \d+ labelled, PCK", x)]) == 9
    chosen = [x for x in lines if re.match(r"cycle \d: \d of 16 chosen by \w+ in", x)]
    assert len(chosen) == 6
    assert "PCK@0.2 in percent" in printed and "what choosing cost" in printed
    assert lines[-1] == f"records and pictures: {workdir}"


def test_methods_are_compared_from_the_same_base_model(finished):
    found = {m: records.read_cycles(path) for m, path in paths(finished).items()}
    for method in METHODS[1:]:
        assert len(found[method]) == 3
        assert found[method][0]["metrics"] == found["eglpp"][0]["metrics"]
        config = records.read_config(paths(finished)[method])["config"]
        assert config["base"] == os.fspath(finished[0])
        assert config["acquisition"]["method"] == method
        assert config["loop"]["compare"] == []
    subsets = [records.read_arrays(path, 0)["ids"] for path in paths(finished).values()]
    assert all(np.array_equal(ids, subsets[0]) for ids in subsets)
    assert [line["num_labelled"] for line in found["control"]] == [40, 40, 40]
    assert records.read_selection(paths(finished)["control"], 0) == []
    assert len(records.read_selection(paths(finished)["random"], 0)) == 8


@pytest.mark.slow
def test_a_comparison_ends_with_a_report_of_all_methods(finished):
    workdir, _ = finished
    stream = io.StringIO()
    config = small.configure({"output.report": True})
    conclude(config, workdir, paths(finished), Screen(stream))
    page = Path(workdir) / "report" / "index.html"
    assert stream.getvalue().splitlines()[-1] == f"report: {page}"
    text = page.read_text()
    assert all(method in text for method in METHODS)


# Resuming, and refusing.


def test_rerunning_a_finished_run_changes_nothing(finished):
    workdir, first = finished
    before = contents(workdir, "tensorboard/")
    printed = perform(workdir, FULL)
    after = contents(workdir, "tensorboard/")
    assert after.keys() == before.keys()
    changed = [name for name in before if after[name] != before[name]]
    assert changed == []
    table = first[first.index("PCK@0.2 in percent") :]
    assert printed[printed.index("PCK@0.2 in percent") :] == table
    assert printed.count("already finished, in cycle 2") == 3 == len(METHODS)


def test_keys_of_the_runtime_may_differ_when_resuming(finished):
    workdir, _ = finished
    before = contents(workdir, "tensorboard/", "pictures/")
    perform(
        workdir,
        {
            "output.images": 1,
            "loop.checkpoint_seconds": 5.0,
            "data.threads": 2,
            "data.cache_dir": "/elsewhere",
        },
    )
    assert contents(workdir, "tensorboard/", "pictures/") == before


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"acquisition.budget": 4}, "acquisition.budget: 8 -> 4"),
        ({"training.base_steps": 9}, "training.base_steps: 8 -> 9"),
        ({"augment.scale": (0.9, 1.1)}, r"augment.scale: [0.75, 1.25] -> [0.9, 1.1]"),
        (
            {"acquisition.method": "random", "loop.compare": ()},
            'acquisition.method: "eglpp" -> "random"',
        ),
    ],
)
def test_another_config_in_the_same_workdir_is_refused(finished, changes, line):
    workdir, _ = finished
    before = contents(workdir)
    with pytest.raises(records.WorkdirError) as error:
        perform(workdir, {**FULL, **changes})
    assert str(error.value).splitlines()[1:] == ["  " + line]
    assert "choose another --workdir" in str(error.value)
    assert contents(workdir) == before


@pytest.mark.slow
def test_a_given_base_gives_the_same_base_metrics(finished, tmp_path):
    workdir, _ = finished
    changes = {
        "base": os.fspath(workdir),
        "acquisition.method": "random",
        "loop.cycles": 1,
    }
    perform(tmp_path / "run", changes)
    theirs, ours = records.read_cycles(workdir), records.read_cycles(tmp_path / "run")
    assert ours[0]["metrics"] == theirs[0]["metrics"]
    arrays = [records.read_arrays(w, 0) for w in (workdir, tmp_path / "run")]
    for name in ("ids", "embeddings", "true_losses", "test_joints"):
        np.testing.assert_array_equal(arrays[1][name], arrays[0][name])


def test_a_base_of_another_network_or_data_is_refused(finished, tmp_path):
    changes = {
        "base": os.fspath(finished[0]),
        "model.channels": 16,
        "data.window": 2.0,
    }
    with pytest.raises(ConfigError) as error:
        perform(tmp_path / "run", changes)
    assert str(error.value).splitlines()[1:] == [
        "  data.window: 1.75 -> 2.0",
        "  model.channels: 8 -> 16",
    ]


def test_a_base_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not the workdir of a run.*config\.json"):
        perform(tmp_path / "run", {"base": os.fspath(tmp_path)})


def test_a_base_without_a_finished_base_model_is_refused(finished, tmp_path):
    record = records.read_config(finished[0])
    records.write_config(tmp_path / "begun", record)
    with pytest.raises(saved_models.CheckpointError, match="no model of cycle 0"):
        perform(tmp_path / "run", {"base": os.fspath(tmp_path / "begun")})


def test_large_picks_are_warned_about(tmp_path, monkeypatch):
    config = small.configure({"acquisition.budget": 15})
    lines = cautions.large_picks(config, small.dataset())
    assert len(lines) == 2
    assert lines[0].startswith("a cycle's picks are 15 of 16 images")
    assert lines[1].startswith("all cycles' picks are 30 of 60 images")
    config = small.configure({"acquisition.budget": 6})
    assert cautions.large_picks(config, small.dataset()) == []
    # As `run` says it.
    monkeypatch.setattr(run, "run_one", lambda *_: None)
    monkeypatch.setattr(run, "conclude", lambda *_: None)
    said = perform(tmp_path / "run", {"acquisition.budget": 15})
    assert "warning: a cycle's picks are 15 of 16 images" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"acquisition.budget": 31, "acquisition.pool_subset": 0},
            r"loop\.cycles=2 of acquisition\.budget=31 need 62 examples.*pool has 60",
        ),
        ({"acquisition.pool_subset": 61}, r"pool_subset=61 is larger than the.* 60"),
        ({"acquisition.eglpp.neighbours": 99}, r"eglpp\.neighbours=99, but only "),
        ({"acquisition.eglpp.perplexity": 80.0}, r"eglpp\.perplexity=80\.0, but only "),
        ({"acquisition.budget": 20}, r"budget=20 is larger than .*pool_subset=16"),
        ({"loop.compare": ("mc_dropout",)}, r"set model\.dropout above 0"),
        ({"acquisition.duplicates": "twice"}, "Known: once, skip, keep"),
    ],
)
def test_what_cannot_work_is_an_error_before_anything_compiles(
    tmp_path, monkeypatch, changes, message
):
    def too_late(*arguments, **options):
        raise AssertionError("something was built")

    monkeypatch.setattr(programs, "Trainer", too_late)
    monkeypatch.setattr(programs, "Passes", too_late)
    monkeypatch.setattr(HourglassOptions, "build", too_late)
    monkeypatch.setattr(run, "Programs", programs.Programs)
    with pytest.raises(ConfigError, match=message):
        perform(tmp_path / "run", changes)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_batch_that_does_not_divide_over_the_devices_is_told_of(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "Programs", lambda mesh: small.programs(8))
    monkeypatch.setattr(run, "run_one", lambda *_: None)
    monkeypatch.setattr(run, "conclude", lambda *_: None)
    said = perform(tmp_path / "run", {"training.batch": 9})
    assert "training.batch=9 does not split over 8 devices: filled up to 16" in said


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(records.WorkdirError, match="cannot be written to"):
        perform(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


# Killed anywhere, and run again.


def results(workdir):
    """What has to be the same to the bit, whether or not a run was killed."""
    files = contents(
        workdir, "checkpoints/", "pictures/", "config.json", r"/\.", "line"
    )
    kept = {k: v for k, v in files.items() if not k.startswith("cycles")}
    metrics = [
        {
            "cycle": line["cycle"],
            "num_labelled": line["num_labelled"],
            "metrics": line["metrics"],
            "summary": {
                k: v
                for k, v in (line["acquisition"] or {}).items()
                if k not in ("seconds", "peak_bytes", "microbatch")
            },
        }
        for line in records.read_cycles(workdir)
    ]
    models = [
        jax.tree.map(lambda leaf: leaf.tobytes(), saved_models.load_model(workdir, n))
        for n in range(3)
    ]
    assert len(kept) == 6  # two selections, three arrays, and what the data are
    return kept, metrics, models


STORING = {"loop.checkpoint_seconds": 0.0}


class Killed(Exception):
    """Stands for SIGKILL inside this process."""


@pytest.mark.slow
def test_broken_off_at_several_places_a_run_ends_the_same(tmp_path):
    def die():
        raise Killed

    perform(tmp_path / "whole", STORING)
    for place in list(small.PLACES)[::3]:  # the slow test with SIGKILL takes all
        with pytest.MonkeyPatch.context() as patch:
            small.lay_ambush(patch.setattr, place, die)
            try:
                perform(tmp_path / "killed", STORING)
            except BaseException as error:
                causes = [error]
                while causes[-1] is not None:
                    causes.append(causes[-1].__cause__ or causes[-1].__context__)
                assert any(isinstance(cause, Killed) for cause in causes), place
            else:
                pytest.fail(f"the run was not broken off {place}")
    assert "resuming" in perform(tmp_path / "killed", STORING)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["in a training step of the base", "in a block of gradient norms"]
)
def test_a_run_asked_to_end_saves_and_goes_on_where_it_was(place, tmp_path):
    perform(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        small.lay_ambush(
            patch.setattr, place, lambda: os.kill(os.getpid(), signal.SIGTERM)
        )
        with pytest.raises(hosts.Preempted, match="the same command goes on"):
            perform(tmp_path / "ended")
    # Nothing is due at this length of run: saved for the signal alone.
    assert list((tmp_path / "ended/checkpoints/state").iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "resuming" in perform(tmp_path / "ended")
    assert results(tmp_path / "ended") == results(tmp_path / "whole")


CONFIG_FILE = """
from tests.support.small import DELTA
from jalpose.loop.configs import assemble

def get_config(arg=""):
    return assemble(arg, name="killed", scale="tiny", delta=DELTA)
"""

DRIVER = """
import os, signal, sys, threading

sys.path.insert(0, {root!r})
import jax

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
from jalpose import main
from jalpose.loop import advance
from tests.support import small

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_after(seconds):  # of work: importing JAX does not count
    first = advance.advance

    def begin(*arguments):
        advance.advance = first
        timer = threading.Timer(seconds, die)
        timer.daemon = True
        timer.start()
        return first(*arguments)

    advance.advance = begin

place = sys.argv.pop(1)
if place.endswith("seconds"):
    die_after(float(place.split()[0]))
elif place:
    small.lay_ambush(setattr, place, die)
main.cli()
"""


def environment():
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a run in a process of its own: (workdir, where to be killed) -> result."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "config.py").write_text(CONFIG_FILE)
    (folder / "driver.py").write_text(DRIVER.format(root=str(ROOT)))

    def start(workdir, place=""):
        return subprocess.run(
            [
                sys.executable,
                folder / "driver.py",
                place,
                f"--config={folder / 'config.py'}",
                f"--workdir={workdir}",
                "--config.loop.checkpoint_seconds=0.0",
                f"--config.output.compilation_cache={folder / 'cache'}",
            ],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=600,
        )

    return start


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The workdir of a run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    found = start(workdir)
    assert found.returncode == 0, found.stderr
    return workdir


@pytest.mark.slow
def test_killed_at_any_place_a_run_ends_the_same(start, whole, tmp_path):
    for place in small.PLACES:
        killed = start(tmp_path, place)
        assert killed.returncode == -signal.SIGKILL, (place, killed.stderr)
    resumed = start(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stdout
    assert results(tmp_path) == results(whole)


@pytest.mark.slow
def test_killed_twenty_times_at_random_a_run_ends_the_same(start, whole, tmp_path):
    begun, ended = (
        (whole / n).stat().st_mtime for n in ("config.json", "cycles.jsonl")
    )
    draws = np.random.default_rng(0)
    ends = []
    while ends.count(-signal.SIGKILL) < 20:
        # Twenty do not fit into one run: another begins where one ends.
        workdir = tmp_path / str(ends.count(0))
        seconds = draws.uniform(0, (ended - begun) / 3)
        found = start(workdir, f"{seconds} seconds")
        assert found.returncode in (0, -signal.SIGKILL), found.stderr
        ends.append(found.returncode)
        if found.returncode == 0:
            assert results(workdir) == results(whole)
    resumed = start(workdir)
    assert resumed.returncode == 0, resumed.stderr
    assert results(workdir) == results(whole)


# The command line.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--config=configs/quickstart.py", "--config.acquisition.bugdet=3"],
            ["unknown config key 'acquisition.bugdet'", "mean 'acquisition.budget'?\n"],
        ),
        (
            ["--config=configs/quickstart.py:sclae=tiny"],
            ["unknown config argument 'sclae=tiny'", "scale=tiny|small|paper"],
        ),
        (
            ["--config=configs/quickstart.py:scale=tniy"],
            ["scale: 'tniy'", "Did you mean 'tiny'", "tiny, small, paper"],
        ),
        (
            [
                "--config=configs/quickstart.py:scale=tiny",
                "--config.acquisition.method=eglp",
            ],
            ["acquisition.method: 'eglp'", "Did you mean 'eglpp'", "random, "],
        ),
        (
            ["--config=configs/lsp_eglpp.py:scale=tiny", "--config.data.dir={tmp}/no"],
            ["{tmp}/no", "joints.mat"],
        ),
    ],
    ids=["key", "argument", "scale", "value", "data"],
)
def test_mistakes_on_the_command_line_are_told_without_a_traceback(
    tmp_path, arguments, told
):
    arguments = [text.format(tmp=tmp_path) for text in arguments]
    workdir = f"--workdir={tmp_path / 'run'}"
    found = commands.perform("jalpose.main", *arguments, workdir, folder=ROOT)
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr and "error: " in found.stderr
    for text in told:
        assert text.format(tmp=tmp_path) in found.stderr
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_dry_run_shows_what_would_be_done_and_does_nothing(tmp_path):
    found = subprocess.run(
        [
            *(sys.executable, "-m", "jalpose.main"),
            "--config=configs/quickstart.py:scale=tiny,seed=3",
            f"--workdir={tmp_path / 'run'}",
            "--config.model.channels=8",
            "--config.model.depth=1",
            "--config.model.convolution=native",
            "--dry_run",
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    for text in ("seed = 3", "parameters", "40 labelled at the start", "MiB"):
        assert text in found.stdout
    assert "cycle 0: 12 steps" in found.stdout
    assert "cycle 2: 6 steps" in found.stdout
    assert list(tmp_path.iterdir()) == []
