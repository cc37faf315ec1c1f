"""Several hosts give what one gives; those that were not started alike are told so."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jalpose.runtime import hosts
from tests.loop import test_run
from tests.support import cluster_host, processes, small

ROOT = Path(__file__).parents[2]
# (hosts, devices of each)
SHAPES = {"2 hosts of 2": (2, 2), "4 hosts of 1": (4, 1)}
# Of scores and what they are made of, from hosts whose sums round differently.
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(task, folder, hosts, devices):
    """Arrays that `hosts` processes find for a task of `cluster_host`."""
    out, port = folder / f"{task}.npz", free_port()
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environ["JAX_PLATFORMS"] = "cpu"
    started, logs = [], [folder / f"{task} said{host}" for host in range(hosts)]
    for host, log in enumerate(logs):
        with open(log, "w") as said:
            started.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        ROOT / "tests" / "support" / "cluster_host.py",
                        *(str(a) for a in (task, out, port, hosts, host, devices)),
                    ],
                    env=environ,
                    cwd=ROOT,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        processes.wait(started)
    finally:
        for process in started:
            process.kill()
    codes = [process.returncode for process in started]
    assert codes == [0] * hosts, [log.read_text() for log in logs]
    with np.load(out) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def alone():
    """What one host of eight devices finds, a task at a time."""
    found = {}

    def find(task):
        if task not in found:
            found[task] = cluster_host.TASKS[task](small.flat_variables())
        return found[task]

    return find


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
def test_scores_and_choices_of_one_checkpoint_do_not_depend_on_the_hosts(
    shape, tmp_path, alone
):
    found, expected = together("scores", tmp_path, *SHAPES[shape]), alone("scores")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, **CLOSE, err_msg=name)
    for method in cluster_host.METHODS:
        chosen = f"{method} selected"
        assert np.array_equal(found[chosen], expected[chosen])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
def test_a_training_does_not_depend_on_the_hosts(shape, tmp_path, alone):
    found, expected = together("training", tmp_path, *SHAPES[shape]), alone("training")
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5)
    # Adam's first steps are of one length, the learning rate, whatever the gradient:
    # where that is near zero, its sign is rounding.
    np.testing.assert_allclose(found["heldout"], expected["heldout"], rtol=1e-2)
    for name in expected.keys() - {"losses", "heldout"}:
        assert np.abs(found[name] - expected[name]).max() < 2 * 3 * 1.01e-3, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
def test_companions_do_not_depend_on_the_hosts(shape, tmp_path, alone):
    task = "companions"
    found, expected = together(task, tmp_path, *SHAPES[shape]), alone(task)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, 1e-3, 1e-5, err_msg=name)
    chosen = "graph selected"
    assert np.array_equal(found[chosen], expected[chosen])


@pytest.mark.slow
def test_hosts_that_were_not_started_alike_are_told_in_what(tmp_path):
    told = {k: str(v) for k, v in together("disagree", tmp_path, 2, 1).items()}
    assert "alike" not in told
    assert "same" not in told
    assert "config.training.batch: 16 on host 0, 8 on host 1" in told["facts"]
    assert "config.seed" not in told["facts"]
    assert "b.jpg on host 1 is not what it is on host 0" in told["examples"]
    assert "data" not in told
    assert "labelled/000000 on host 1 is not what it is" in told["images"]
    assert "3 on host 0, 2 on host 1" in told["number"]
    assert "the choice came out different on host 1" in told["choice"]
    assert float(told["agreed"]) == 0.1
    assert told["any"] == "[ True False]"


@pytest.mark.slow
def test_hosts_wait_for_people_and_go_on_together(tmp_path):
    for name in ("together", "alone"):
        (tmp_path / name).mkdir()
    found = together("people", tmp_path / "together", 2, 1)
    expected = cluster_host.people(small.flat_variables(), tmp_path / "alone")
    assert found["ended"].tolist() == ["Waiting", "LabelsError", "Finished"]
    for name in ("ended", "selected", "joints", "labelled"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    np.testing.assert_allclose(found["test_loss"], expected["test_loss"], rtol=1e-2)


@pytest.mark.slow
def test_all_hosts_halve_the_microbatch_where_one_is_out_of_memory(tmp_path, alone):
    found = together("memory", tmp_path, 2, 1)
    assert len(found["told"]) == 1
    numbers = re.search(r"with (\d+) gradients .* on (\d+)", str(found["told"][0]))
    before, after = map(int, numbers.groups())
    assert after == before // 2 >= 1
    expected = alone("scores")
    assert np.array_equal(found["selected"], expected["eglpp selected"])


# The command, on several hosts, ended by a signal and started again.

CONFIG = """
from tests.support.small import DELTA
from jalpose.loop.configs import assemble

def get_config(arg=""):
    return assemble(arg, name="hosts", scale="tiny", delta=DELTA)
"""
# Where to send which signal, on the last host alone.
DRIVER = """
import os, signal, sys
sys.path.insert(0, {root!r})
import jax

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
from jalpose import main
from tests.support import small

place, number = sys.argv.pop(1), int(sys.argv.pop(1))
if place:
    small.lay_ambush(setattr, place, lambda: os.kill(os.getpid(), number))
main.cli()
"""


@pytest.mark.slow
def test_hosts_that_are_ended_and_started_again_find_the_same(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "driver.py").write_text(DRIVER.format(root=str(ROOT)))

    def start(workdir, place="", number=0):
        """Return codes of both hosts, and what they said; the second is ambushed."""
        port, hosts = free_port(), []
        logs = [tmp_path / f"said{host}" for host in (0, 1)]
        for host, log in enumerate(logs):
            with open(log, "w") as out:
                hosts.append(
                    subprocess.Popen(
                        [
                            sys.executable,
                            tmp_path / "driver.py",
                            place if host == 1 else "",
                            str(int(number)),
                            f"--config={tmp_path / 'config.py'}",
                            f"--workdir={tmp_path / workdir}",
                            "--config.loop.checkpoint_seconds=0.0",
                            f"--config.output.compilation_cache={tmp_path / str(host)}",
                            f"--coordinator=127.0.0.1:{port}",
                            "--hosts=2",
                            f"--join_seconds={cluster_host.JOIN_SECONDS}",
                            f"--host={host}",
                        ],
                        env={**os.environ, "JAX_PLATFORMS": "cpu"},
                        cwd=ROOT,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )
        try:
            # Killed, the second ends alone: srun then kills the first.
            processes.wait(hosts[1:] if number == signal.SIGKILL else hosts)
            if number == signal.SIGKILL:
                hosts[0].kill()
                hosts[0].wait()
        finally:
            for process in hosts:
                process.kill()
        return [process.returncode for process in hosts], [x.read_text() for x in logs]

    codes, said = start("whole")
    assert codes == [0, 0], said
    assert "chosen by" in said[0]
    assert "chosen by" not in said[1]  # the lead speaks for all
    for place, number, expected in (
        ("in a training step of the base", signal.SIGKILL, -9),
        ("in a block of gradient norms", signal.SIGTERM, hosts.PREEMPTED),
        ("in a training step of cycle 1", signal.SIGTERM, hosts.PREEMPTED),
        ("in describing the pool in cycle 1", signal.SIGKILL, -9),
    ):
        codes, said = start("ended", place, number)
        assert codes == [expected] * 2, (place, said)
    codes, said = start("ended")
    assert codes == [0, 0], said
    assert "resuming" in said[0]
    whole, ended = (test_run.results(tmp_path / name) for name in ("whole", "ended"))
    assert whole == ended


# Where the hosts meet.


def test_no_coordinator_is_an_error_after_the_time_that_is_stated():
    address = hosts.Address(f"127.0.0.1:{free_port()}", 2, 1)
    with pytest.raises(hosts.ClusterError, match="no coordinator at"):
        hosts.join(address, 1)


@pytest.fixture
def joined(monkeypatch):
    """Join as a task of SLURM: what JAX is told, with nobody to meet."""

    def join(environ):
        told = {}
        monkeypatch.setattr(jax.distributed, "initialize", told.update)
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: io.BytesIO())
        for name, value in {**SLURM, **environ}.items():
            monkeypatch.setenv(name, value)
        hosts.join(None, 1)
        return told

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return join


SLURM = {
    "SLURM_STEP_NODELIST": "node7",
    "SLURM_JOB_ID": "4097",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node7,other", "node7"),
        ("node[007-015,020],other", "node007"),
        ("a-b[3,5]", "a-b3"),
    ],
)
def test_slurm_says_where_to_meet(nodes, first, joined):
    told = joined({"SLURM_STEP_NODELIST": nodes})
    assert told["coordinator_address"] == f"{first}:61441"
    assert (told["num_processes"], told["process_id"]) == (8, 5)


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({}, None),
        # A task a node: all of its GPUs, where JAX would take one.
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "CUDA_VISIBLE_DEVICES": "0,1"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x4)", "CUDA_VISIBLE_DEVICES": "0,1"}, [1]),
        # Bound by srun: there is but one to be seen.
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x4)", "CUDA_VISIBLE_DEVICES": "1"}, None),
    ],
)
def test_slurm_says_which_devices(environ, devices, joined):
    assert joined(environ)["local_device_ids"] == devices


@pytest.mark.parametrize(
    ("environ", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # of sbatch itself, or an array job
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a[1-4]"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "a1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a"}, False),
    ],
)
def test_launchers_are_noticed(environ, several, monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert hosts.started_as_many() is several
