"""Exact norms against approximate ones: what is measured, written and refused."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from scipy import stats

from jalpose import command
from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.engine_comparison import (
    agreement,
    contestants,
    layers,
    measure,
    session,
)
from jalpose.engine_comparison.options import Options
from jalpose.loop import context, saved_models
from jalpose.models.hourglass import HourglassOptions
from jalpose.models.registry import MODELS
from jalpose.report import canvas, engine_plots
from jalpose.runtime import provenance
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import plain
from jalpose.storage import records
from jalpose.storage.journal import Journal
from jalpose.tasks.pose import losses
from jalpose.tasks.pose.skeletons import ABSENT
from jalpose.training.trainer import scale_images
from tests.support import small

ROOT = Path(__file__).parents[2]
SKETCHES = ("sketch2", "sketch4", "sketch3r2")
NAMES = ("exact", "ghost", "goodfellow", "conv_linear", *SKETCHES)
K = 4
COUNT = 11  # two blocks of 8, the second padded


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatOptions(HourglassOptions):
    """A network that compiles in no time, under the keys of another."""

    last_layer: ClassVar = "maps"

    def build(self, num_outputs, *, traced=False):
        return small.FLAT


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hourglass", FlatOptions)
        yield


def make_context(config=None):
    """The context that models of a run are compared in, on one device."""
    ours = session.as_eglpp(config or small.configure())
    return context.make_context(ours, small.dataset(), small.programs())


def lay_run(workdir, changes=None, cycles=(0,)):
    """What a run leaves behind, with models of `cycles`."""
    config = small.configure(changes)
    records.write_config(workdir, provenance.describe(plain(config)))
    for cycle in cycles:
        saved_models.save_model(workdir, cycle, small.flat_variables())
    return workdir


def compare(workdir, changes=None, **options):
    stream = io.StringIO()
    options = {"images": COUNT, "engines": NAMES, **options}
    config = small.configure(changes)
    out = session.compare(
        config, str(workdir), Options(**options), Screen(stream), small.programs()
    )
    return out, stream.getvalue()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(folder, printed, record, arrays) of a comparison of all engines."""
    workdir = lay_run(tmp_path_factory.mktemp("run"))
    out, printed = compare(workdir, repeats=2)
    record = json.loads((out / "comparison.json").read_text())
    with np.load(out / "scores.npz") as arrays:
        return out, printed, record, dict(arrays)


@pytest.fixture(scope="module")
def slow():
    """(ids, squared norms by tensor [M, K], residuals [M, K], weights), one by one."""
    found_in = make_context()
    ids = found_in.unlabelled(found_in.dataset.initial, 0, COUNT)
    variables = small.flat_variables()
    probe = small.probe(found_in.passes, variables)
    found = found_in.method.candidates(probe, small.pool(ids))
    images = np.asarray(scale_images(small.crops(ids)["image"]))

    def loss(params, image, maps, present):
        output = small.FLAT.apply({**variables, "params": params}, image[None])
        return losses.heatmap_loss(output.prediction[0], maps, present)

    gradient, render = jax.jit(jax.grad(loss)), jax.jit(small.SPEC.render)
    norms, residuals = {}, np.zeros((COUNT, K))
    for m in range(COUNT):
        row = found.context(np.array([m]))
        for k in range(K):
            label = {name: value[0, k] for name, value in row.items()}
            present = label["status"] != ABSENT
            maps = np.asarray(render(label["joints"], present))
            tree = gradient(variables["params"], images[m], maps, present)
            for name, leaf in flatten_dict(tree, sep="/").items():
                norms.setdefault(name, np.zeros((COUNT, K)))[m, k] = (
                    np.asarray(leaf, np.float64) ** 2
                ).sum()
            output = small.flat_apply(variables, images[m : m + 1]).prediction[0]
            # d/dy of the mean over S * h * w and the joints present of (y - t)^2
            cells = 2 * 8 * 8 * present.sum()
            off = 2 * (np.asarray(output, np.float64) - maps) * present / cells
            residuals[m, k] = (off**2).sum()
    return ids, norms, residuals, found.probabilities


def row_of(record, label):
    return next(row for row in record["engines"] if row["label"] == label)


# What is measured.


@pytest.mark.slow
def test_the_images_are_those_of_a_run_with_that_subset(compared, slow):
    np.testing.assert_array_equal(compared[3]["ids"], slow[0])
    found = small.flat_context({"acquisition.pool_subset": COUNT})
    wanted = found.unlabelled(found.dataset.initial, 0)
    np.testing.assert_array_equal(compared[3]["ids"], wanted)


def test_exact_scores_equal_a_slow_computation(compared, slow):
    _, norms, _, weights = slow
    wanted = sum((weights * part).sum(axis=1) for part in norms.values())
    np.testing.assert_allclose(compared[3]["scores:exact"], wanted, rtol=2e-5)


@pytest.mark.parametrize("label", ["ghost", "sketch4"])
def test_what_is_exact_agrees_with_exact(compared, label):
    arrays, row = compared[3], row_of(compared[2], label)
    exact = arrays["scores:exact"]
    np.testing.assert_allclose(arrays[f"scores:{label}"], exact, rtol=5e-5)
    assert row["max_error"] <= 5e-5 and row["overlap"] == [1.0] * 4
    assert row["spearman"] == pytest.approx(1)


def test_approximations_err_and_conv_linear_leaves_batch_norm_out(compared):
    record = compared[2]
    for label in ("goodfellow", "conv_linear"):
        assert row_of(record, label)["median_error"] > 1e-4
    found = record["layers"]["engines"]["conv_linear"]["of_exact"]["kind"]
    assert found["batch norm scales"] == found["batch norm biases"] == 0
    assert found["kernels"] == pytest.approx(1, abs=1e-4)


def test_a_score_is_the_one_an_acquisition_would_give(compared):
    arrays, config = compared[3], small.configure()
    sketch = contestants.contestants(["exact", "sketch3r2"], config.acquisition, K)[1]
    delta = {
        "acquisition.engine": "sketch",
        "acquisition.sketch.passes": sketch.engine.passes,
        "acquisition.sketch.remainder": sketch.engine.remainder,
        "acquisition.pieces": 100,
    }
    found = make_context(small.configure(delta))
    assert found.engine == sketch.engine
    probe = found.probe(small.flat_variables(), Journal())
    chosen = found.method.acquire(None, probe, small.pool(arrays["ids"]), 3)
    scores, errors = (arrays[f"{n}:sketch3r2"] for n in ("scores", "standard_error"))
    np.testing.assert_allclose(scores, chosen.scores, rtol=1e-5)
    np.testing.assert_allclose(errors, chosen.explanation["standard_error"], rtol=1e-3)
    within = np.mean(np.abs(scores - arrays["scores:exact"]) <= 2 * errors)
    covered = {row["label"]: row["covered"] for row in compared[2]["engines"]}
    assert covered.pop("sketch3r2") == pytest.approx(within)
    assert set(covered.values()) == {None}


def test_stand_ins_equal_a_slow_computation(compared, slow):
    _, norms, residuals, weights = slow
    arrays = compared[3]
    last = sum((weights * v).sum(1) for k, v in norms.items() if k.startswith("maps"))
    np.testing.assert_allclose(arrays["scores:last layer"], last, rtol=2e-5)
    energy = (weights * residuals).sum(axis=1)
    np.testing.assert_allclose(arrays["scores:residual"], energy, rtol=2e-5)
    for label in ("last layer", "residual"):
        row = row_of(compared[2], label)
        assert row["backward_passes"] == 0 and row["median_error"] is None
        assert row["stands_in"] and -1 <= row["spearman"] < 1


def test_shares_add_up_and_equal_a_slow_computation(compared, slow):
    _, norms, _, weights = slow
    found = compared[2]["layers"]["exact"]
    parts = {name: (weights * part).sum(axis=1) for name, part in norms.items()}
    total = sum(parts.values())
    assert set(found["tensor"]) == set(parts)
    for name, part in parts.items():
        assert found["tensor"][name] == pytest.approx(np.mean(part / total), rel=1e-4)
    for grouping in ("stage", "layer", "kind", "tensor"):
        assert sum(found[grouping].values()) == pytest.approx(1, abs=1e-5)
    assert list(found["stage"]) == ["stem", "norm", "maps0", "maps1"]  # as made
    stages = compared[3]["stage_parts:exact"] / total[:, None]
    np.testing.assert_allclose(stages.mean(0), list(found["stage"].values()), rtol=1e-4)


def test_the_record_has_times_memory_and_origin(compared):
    _, _, record, arrays = compared
    labels = [row["label"] for row in record["engines"]]
    assert labels == [*NAMES, "residual", "last layer"]
    assert record["num_images"] == COUNT and record["num_candidates"] == K
    assert record["budget_images"] == [1, 1, 2, 6]
    assert {"config", "versions", "device", "git", "options"} <= record.keys()
    for row in record["engines"][:-1]:
        seconds = arrays[f"seconds:{row['label']}"]
        assert seconds.shape == (2, 2) and (seconds > 0).all()
        # Two blocks of eight were computed, the padding of the second too.
        spent = np.median(seconds, axis=1).sum() / 16
        assert row["seconds_an_image"] == pytest.approx(spent)
        assert row["peak_mib"] > 0
        low, high = row["time_ratio_quartiles"]
        assert 0 < low <= high
    assert record["engines"][0]["time_ratio"] == 1
    passes = {row["label"]: row["backward_passes"] for row in record["engines"]}
    assert passes["exact"] == passes["goodfellow"] == K and passes["sketch2"] == 2


def test_what_is_printed_is_the_table_and_where_it_is(compared):
    out, printed, _, _ = compared
    text = (out / "table.txt").read_text()
    assert text in printed and printed.rstrip().endswith(str(out))
    for word in ("Spearman", "top 5%", "goodfellow misses most", "batch norm scales"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 140


def test_plots_can_be_opened(compared):
    for name in ("scores", "overlap", "stages", "times"):
        with Image.open(compared[0] / f"{name}.png") as image:
            image.load()
            assert len(image.convert("RGB").getcolors(2**24)) > 10


def test_plots_of_scores_that_are_zero_constant_or_negative(tmp_path):
    exact = np.array([0.0, 1, 2, 3])
    scores = {"negative": -exact, "constant": np.ones(4), "zero": np.zeros(4)}
    figure = engine_plots.scores_figure(exact, scores, dict.fromkeys(scores))
    canvas.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_what_is_there_is_never_written_over(compared):
    out = compared[0]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert session.free_folder(out) == out.with_name("compare_engines-2")
    out.with_name("compare_engines-2").mkdir()  # empty: of a comparison broken off
    assert session.free_folder(out) == out.with_name("compare_engines-2")
    (out.with_name("compare_engines-2") / "file").write_text("mine")
    assert session.free_folder(out) == out.with_name("compare_engines-3")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_labelled_are_those_of_the_models_cycle(tmp_path):
    data = small.dataset()
    for cycle, ids in enumerate(([50, 45], [60])):
        records.write_arrays(tmp_path, cycle, selected=np.array(ids))
        chosen = {"method": "random", "budget": len(ids)}
        records.write_cycle(tmp_path, {"cycle": cycle, "acquisition": chosen})
    for cycle, more in enumerate(([], [50, 45], [50, 45, 60])):
        state = session.state_of(data, tmp_path, cycle)
        assert state.cycle == cycle
        np.testing.assert_array_equal(state.labelled, [*data.initial, *more])
        # With the labels that were bought, and no others.
        labelled = make_context().labelled_set(state)
        wanted = small.labels_of(data, state.labelled)
        for name, values in wanted.items():
            np.testing.assert_array_equal(labelled.labels[name], values)


def test_the_newest_model_is_taken_unless_another_is_named(tmp_path):
    lay_run(tmp_path, cycles=(0, 2))
    assert session.cycle_of(tmp_path, -1) == 2
    assert session.cycle_of(tmp_path, 0) == 0
    with pytest.raises(ConfigError, match=r"--cycle=1: .* has models of cycles 0, 2"):
        session.cycle_of(tmp_path, 1)


# Statistics.


def test_statistics_are_scipys_and_numpys():
    draws = np.random.default_rng(0)
    exact, scores = draws.random(40) + 1, draws.random(40).round(1)  # with ties
    found = agreement.agreement(np.arange(40), exact, scores)
    assert found["spearman"] == pytest.approx(stats.spearmanr(exact, scores)[0])
    assert found["kendall"] == pytest.approx(stats.kendalltau(exact, scores)[0])
    errors = np.abs(scores / exact - 1)
    assert found["median_error"] == pytest.approx(np.median(errors))
    assert found["max_error"] == pytest.approx(errors.max())


def test_correlations_by_hand():
    # One neighbouring pair of four swapped: rho = 1 - 6 * 2 / (4 * 15), and of the six
    # pairs five in order: tau = (5 - 1) / 6.
    rho, tau = agreement.correlations(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4]))
    assert rho == pytest.approx(0.8) and tau == pytest.approx(4 / 6)
    assert agreement.correlations(np.ones(4), np.arange(4)) == (None, None)


def test_overlap_by_hand():
    ids = np.array([7, 3, 5, 9])
    exact, scores = np.array([4.0, 3, 2, 1]), np.array([1.0, 4, 3, 2])
    # exact selects 7, 3, 5, 9 in that order, the scores 3, 5, 9, 7.
    found = [agreement.overlap(ids, exact, scores, b) for b in (1, 2, 3, 4)]
    assert found == pytest.approx([0, 1 / 2, 2 / 3, 1])
    # Ties go to the lower id: 3, then 5.
    assert agreement.overlap(ids, exact, np.ones(4), 1) == 0
    assert agreement.overlap(ids, exact, np.ones(4), 2) == 1 / 2


def test_budgets_and_coverage_by_hand():
    assert [agreement.num_selected(f, 10) for f in (0.01, 0.2, 0.5)] == [1, 2, 5]
    off = agreement.coverage(np.zeros(4), np.array([1.0, 2, 3, -2]), np.ones(4))
    assert off == 3 / 4


def test_errors_where_the_reference_is_zero_are_left_out():
    found = agreement.agreement(
        np.arange(3), np.array([0.0, 1, 2]), np.array([1, 2, 2])
    )
    assert found["max_error"] == 1 and found["median_error"] == 0.5


def test_kinds_and_groups_by_name():
    names = [
        "a/conv/kernel",
        "a/conv/bias",
        "a/norm/scale",
        "a/norm/bias",
        "b/c/kernel",
    ]
    words = ["kernels", "biases", "batch norm scales", "batch norm biases", "kernels"]
    assert layers.kinds(names) == words
    parts = np.array([[1.0, 2, 3, 4, 10]])
    found = layers.shares(names, parts, np.array([20.0]))
    assert found["stage"] == {"a": 0.5, "b": 0.5}
    assert found["layer"] == {"a/conv": 0.15, "a/norm": 0.35, "b/c": 0.5}
    assert found["kind"]["kernels"] == 0.55


def test_layers_missed_most_come_first_either_way():
    exact, found = {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.4, "b": 0.6, "c": 0.2}
    rows = layers.missed(exact, found)
    assert [row["layer"] for row in rows] == ["b", "a", "c"]
    assert rows[0]["lost"] == pytest.approx(-0.3)
    assert layers.ratios({"a": 0.5, "b": 0.0}, {"a": 1.0, "b": 0.0}) == {
        "a": 2,
        "b": None,
    }


# What is refused.


def engines(*names, num_labels=30):
    return contestants.contestants(names, small.configure().acquisition, num_labels)


def test_sketch_alone_stands_for_several():
    found = {item.label: item for item in engines("sketch", "exact")}
    assert list(found) == [
        "exact",
        *("sketch1", "sketch2", "sketch3", "sketch4", "sketch8"),
        *("sketch4r2", "sketch8r2", "residual"),
    ]
    assert found["sketch8r2"].engine.remainder == 2
    assert found["sketch8r2"].backward_passes == 8
    assert engines("ghost", "sketch12")[1].engine.passes == 12
    # With K = 4 passes a sketch is exact, and nothing is left to be random.
    found = [
        item.label for item in engines("goodfellow", "ghost", "sketch", num_labels=4)
    ]
    sketches = ["sketch1", "sketch2", "sketch3", "sketch4"]
    assert found == ["ghost", "goodfellow", *sketches, "residual"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("exact", "goodfelow"), "--engines: 'goodfelow'.*Did you mean 'goodfellow'"),
        (("exact", "sketch4r"), "--engines: 'sketch4r'.*sketch<passes>"),
        (("exact", "sketch2r2"), r"--engines: sketch2r2: passes=2 must be at least"),
        (("goodfellow",), "names no engine to compare with: add exact or ghost"),
    ],
)
def test_engines_that_are_none_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        engines(*names)


def test_a_workdir_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"not the workdir of a run.*jalpose\.main"):
        compare(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_config_is_refused(tmp_path):
    lay_run(tmp_path, {"model.channels": 16, "data.window": 2.0})
    with pytest.raises(ConfigError, match="under another config") as error:
        compare(tmp_path)
    assert str(error.value).splitlines()[1:] == [
        "  data.window: 2.0 -> 1.75",
        "  model.channels: 16 -> 8",
    ]


def test_what_does_not_change_the_model_may_differ(tmp_path):
    changes = {
        "acquisition.method": "random",
        "loop.cycles": 0,
        "model.convolution": "auto",
        "data.threads": 2,
    }
    lay_run(tmp_path, changes)
    session.refuse_another_model(small.configure(), tmp_path)


def test_a_run_without_a_model_is_refused(tmp_path):
    lay_run(tmp_path, cycles=())
    with pytest.raises(saved_models.CheckpointError, match=r"no model is saved .* yet"):
        compare(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "--repeats=0 must be at least 1"),
        ({"images": -1}, "--images=-1 must be at least 0"),
        ({"cycle": -2}, "--cycle=-2 must be at least -1"),
        ({"images": 2}, "2 images are left to compare on: 3 are the least"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        compare(lay_run(tmp_path), **options)


def test_a_score_that_is_not_finite_is_told_with_engine_and_image():
    variables = small.copied(small.flat_variables())
    variables["params"]["stem"]["kernel"][:] = np.nan
    found = make_context()
    near = EglPlusPlus(neighbours=K, perplexity=3.0).candidates(
        small.probe(found.passes, small.flat_variables()), small.pool([45, 48])
    )
    item = contestants.contestants(["exact"], found.config.acquisition, K)[0]
    names = contestants.tensor_names(small.FLAT, 32)
    with pytest.raises(FloatingPointError, match="exact: id 45"):
        measure.measure(
            found,
            variables,
            np.array([45, 48]),
            near,
            [item],
            names,
            block=2,
            repeats=1,
            progress=lambda *_: None,
        )


def test_a_mistake_ends_with_code_2_and_what_to_do(tmp_path, capsys):
    assert command.attempt(lambda: compare(tmp_path) and None) == 2
    assert capsys.readouterr().err.startswith(f"error: --workdir={tmp_path} is not")


@pytest.mark.slow
def test_the_command_compares_on_a_run_of_the_quickstart(tmp_path):
    def command(module, *arguments):
        return subprocess.run(
            [
                *(sys.executable, "-m", f"jalpose.{module}"),
                "--config=configs/quickstart.py:scale=tiny",
                f"--workdir={tmp_path}",
                *arguments,
            ],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=900,
        )

    found = command("main", "--config.loop.cycles=1")
    assert found.returncode == 0, found.stderr
    found = command("compare", "--engines=exact,ghost,sketch2", "--images=5")
    assert found.returncode == 0, found.stderr
    assert "model of cycle 1" in found.stdout
    record = json.loads((tmp_path / "compare_engines/comparison.json").read_text())
    assert row_of(record, "ghost")["max_error"] < 5e-5
    assert row_of(record, "last layer")["spearman"] is not None
    found = command("compare", "--engines=exact,gost")
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert "Did you mean 'ghost'" in found.stderr
