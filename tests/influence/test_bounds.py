"""Bounds of a finished run of classes, from its models to table, plot and record."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jalpose import bounds as command
from jalpose.influence import session
from jalpose.influence.options import Options
from jalpose.loop import configs, run, saved_models
from jalpose.loop.context import make_context
from jalpose.loop.finished import state_of
from jalpose.report import bounds_plots, bounds_tables
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from tests.loop.test_class_runs import DELTA
from tests.support import classes, small

NETWORK = classes.Pixels()
OPTIONS = Options(damping=0.05, tolerance=1e-4, steps=300)


def config_of(**changes):
    delta = {**DELTA, "model.dropout": 0.0, "training.base_steps": 40, "loop.cycles": 2}
    config = configs.assemble(
        "scale=tiny,method=entropy_gradnorm",
        name="bounds",
        task="classification",
        delta={**delta, **changes},
        method="random",
    )
    configs.check(config)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    context = make_context(
        config_of(), classes.dataset(), small.programs(), network=NETWORK
    )
    run.run_one(context, folder, Screen(silent=True))
    return folder


def take(workdir, options=OPTIONS, config=None, devices=1, out=None):
    if out is not None:
        options = Options(**{**options.asdict(), "out": str(out)})
    return session.bounds(
        config or config_of(),
        str(workdir),
        options,
        Screen(silent=True),
        small.programs(devices),
        dataset=classes.dataset(),
        network=NETWORK,
    )


@pytest.fixture(scope="module")
def taken(workdir, tmp_path_factory):
    return take(workdir, out=tmp_path_factory.mktemp("bounds") / "all")


def record_of(folder):
    return json.loads((folder / "bounds.json").read_text())


@functools.cache
def forward():
    return jax.jit(
        lambda variables, images: NETWORK.apply(variables, images).prediction
    )


def entropy(logits):
    shares = jax.nn.softmax(logits)
    return -jnp.sum(shares * jnp.log(shares), axis=-1)


def dense(workdir, cycle, damping):
    """All of a cycle's scores by dense float64 matrices, by loss: along, norms, |v|."""
    data = classes.dataset()
    following = state_of(data, workdir, cycle + 1).labelled
    trained = following[~data.held_out(following)]
    pool = np.setdiff1d(data.pool, state_of(data, workdir, cycle).labelled)
    labels = data.truth["class"]

    def gradients(number, ids, loss):
        variables = saved_models.load_model(workdir, number)
        wide = jax.tree.map(lambda v: np.asarray(v, np.float64), variables)
        flat, back = ravel_pytree(wide.pop("params"))
        images = np.asarray(classes.images(ids), np.float64)

        def outputs(flat):
            variables = {"batch_stats": wide["batch_stats"], "params": back(flat)}
            return NETWORK.apply(variables, images).prediction

        def losses(flat):
            said = outputs(flat)
            if loss == "entropy":
                return entropy(said)
            logs = jax.nn.log_softmax(said)
            return -logs[np.arange(len(ids)), labels[ids]]

        return (
            jax.jit(jax.jacrev(losses))(flat),
            jax.jit(jax.jacrev(outputs))(flat),
            jax.nn.softmax(outputs(flat)),
        )

    with jax.enable_x64(True):
        _, jacobian, shares = gradients(cycle + 1, trained, "labels")
        bent = jax.vmap(jnp.diag)(shares) - jnp.einsum("nc,nd->ncd", shares, shares)
        curvature = jnp.einsum("ncp,ncd,ndq->pq", jacobian, bent, jacobian)
        matrix = np.asarray(curvature) / len(trained) + damping * np.eye(len(curvature))
        found = {}
        for loss in ("labels", "entropy"):
            right = np.asarray(gradients(cycle + 1, data.test, loss)[0]).sum(axis=0)
            direction = np.linalg.solve(matrix, right)
            after, before = (
                np.asarray(gradients(number, pool, loss)[0])
                for number in (cycle + 1, cycle)
            )
            found[loss] = {
                "along": after @ direction,
                "next_norms": np.linalg.norm(after, axis=1),
                "norms": np.linalg.norm(before, axis=1),
                "length": np.linalg.norm(direction),
            }
    return pool, found


@pytest.mark.slow
@pytest.mark.parametrize("cycle", [0, 1])
def test_scores_are_those_of_dense_matrices(workdir, taken, cycle):
    pool, wanted = dense(workdir, cycle, OPTIONS.damping)
    with np.load(taken / "scores.npz") as arrays:
        np.testing.assert_array_equal(arrays[f"cycle_0{cycle}/ids"], pool)
        chosen = records.read_arrays(workdir, cycle)["selected"]
        np.testing.assert_array_equal(arrays[f"cycle_0{cycle}/chosen"], chosen)
        for loss, scores in wanted.items():
            for name in ("along", "next_norms", "norms"):
                found = arrays[f"cycle_0{cycle}/{loss}/{name}"]
                scale = np.abs(scores[name]).max()
                np.testing.assert_allclose(
                    found, scores[name], rtol=2e-3, atol=2e-4 * scale, err_msg=name
                )
    found = record_of(taken)["cycles"][cycle]
    for loss, scores in wanted.items():
        terms = found["losses"][loss]
        length = scores["length"]
        assert terms["direction_norm"] == pytest.approx(length, rel=1e-3)
        assert terms["target"] == pytest.approx(scores["along"].mean(), rel=5e-3)
        bound = length * scores["next_norms"].mean()
        assert terms["approx_2"] == pytest.approx(bound, rel=2e-3)
        assert abs(terms["target"]) <= terms["approx_1"] <= terms["approx_2"]
        assert terms["approx_3"] == pytest.approx(
            length * scores["norms"].mean(), rel=2e-3
        )
        assert terms["converged"] and terms["curvature"] >= 0
    count = found["num_chosen"]
    labels = wanted["labels"]
    by_target = set(np.argsort(-labels["along"])[:count])
    by_norm = set(np.argsort(-labels["norms"])[:count])
    assert found["overlap"]["eq5 labels"] == len(by_target & by_norm)


def test_the_record_says_what_was_taken(taken):
    record = record_of(taken)
    assert record["method"] == "entropy_gradnorm"
    first, second = record["cycles"]
    assert (first["cycle"], first["num_labelled"]) == (0, 40)
    assert (second["cycle"], second["num_labelled"]) == (1, 43)
    assert (first["num_images"], second["num_images"]) == (11, 8)
    assert first["num_chosen"] == 3 and first["num_test"] == 9
    held_out = classes.dataset().held_out(np.arange(51))
    assert first["num_trained"] >= 43 - held_out.sum()
    assert record["options"]["damping"] == 0.05
    assert {"config", "git", "versions", "device"} <= record.keys()


def test_table_and_plot_are_of_the_record(taken):
    record = record_of(taken)
    text = (taken / "table.txt").read_text()
    assert text == bounds_tables.text(record)
    assert "gauss-newton + 0.05" in text and "layout of Table 2" in text
    assert text.count("true labels") >= 2 and "Not solved" not in text
    assert (taken / "bounds.png").stat().st_size > 10_000
    for row in bounds_tables.chain_rows(record):
        assert re.search(rf"{row['target']:.4g}\b", text)


def test_a_mean_target_below_zero_has_no_point(taken, tmp_path):
    record = record_of(taken)
    record["cycles"][0]["losses"]["labels"]["target"] = -1.0
    bounds_plots.plot_chain(tmp_path / "bounds.pdf", record)
    assert (tmp_path / "bounds.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_eight_devices_find_the_same(workdir, taken, tmp_path):
    options = Options(**{**OPTIONS.asdict(), "cycles": (1,)})
    found = record_of(take(workdir, options, devices=8, out=tmp_path / "eight"))
    (one,) = found["cycles"]
    wanted = record_of(taken)["cycles"][1]
    assert one["overlap"] == wanted["overlap"]
    for loss, terms in wanted["losses"].items():
        for name in ("target", "approx_1", "approx_2", "approx_3"):
            assert one["losses"][loss][name] == pytest.approx(terms[name], rel=1e-2)


def test_some_of_everything(workdir, tmp_path):
    options = Options(
        cycles=(0,), images=6, training_images=20, test_images=5, steps=2, damping=0.05
    )
    folder = take(workdir, options, out=tmp_path / "some")
    (found,) = record_of(folder)["cycles"]
    assert found["num_images"] == 6 and found["num_scored"] == 11
    assert found["num_trained"] == 20 and found["num_test"] == 5
    assert found["num_chosen"] == 2  # 3 of 11, as many of 6
    assert found["losses"]["labels"]["steps"] == 2
    assert "Not solved to 0.01 in 2 steps" in (folder / "table.txt").read_text()


def test_a_hessian_with_too_little_damping_is_refused_with_what_is_enough(
    workdir, tmp_path
):
    options = Options(product="hessian", damping=1e-6, cycles=(0,), steps=300)
    message = r"--damping=1e-06: the hessian is not positive .* take more than "
    with pytest.raises(ConfigError, match=message):
        take(workdir, options, out=tmp_path / "refused")
    assert not (tmp_path / "refused" / "bounds.json").exists()
    enough = Options(product="hessian", damping=20.0, cycles=(0,), steps=300)
    (found,) = record_of(take(workdir, enough, out=tmp_path / "h"))["cycles"]
    assert found["losses"]["labels"]["converged"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"product": "fisher"}, r"--product: 'fisher'.*gauss_newton, hessian"),
        ({"damping": 0.0}, r"--damping=0\.0 must be above 0"),
        ({"steps": 0}, r"--steps=0 must be at least 1"),
        ({"images": -1}, r"--images=-1 must be at least 0"),
        ({"cycles": (0, 2)}, r"--cycles: 2: .* and of the next: 0, 1"),
    ],
)
def test_options_that_cannot_work_are_refused(workdir, changes, message):
    with pytest.raises(ConfigError, match=message):
        take(workdir, Options(**changes))


def test_another_config_and_a_run_without_two_models_are_refused(workdir, tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)under another config.*seed"):
        take(workdir, config=config_of(seed=3))
    with pytest.raises(ConfigError, match="is not the workdir of a run"):
        take(tmp_path)
    context = make_context(
        config_of(**{"loop.cycles": 0}),
        classes.dataset(),
        small.programs(),
        network=NETWORK,
    )
    run.run_one(context, tmp_path / "base", Screen(silent=True))
    with pytest.raises(ConfigError, match="no two models one after the other"):
        take(tmp_path / "base")


def test_cycles_on_the_command_line_are_whole_numbers():
    assert command.whole_numbers("--cycles", ["0", "3"]) == (0, 3)
    with pytest.raises(ConfigError, match=r"--cycles: '-1' is not a whole number"):
        command.whole_numbers("--cycles", ["-1"])


def test_the_command_says_what_it_does():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, "-m", "jalpose.bounds", "--help"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "--damping" in found.stdout and "--product" in found.stdout
