"""Several hosts that work as one: joining, agreeing, and saying who does not.

A host is a process with devices of its own; all run the same program on the same
config, step by step. What is decided by one of them alone, such as whether it is time
to save, is the lead's to decide (`agree`). With one host nothing here costs anything.
"""

import itertools
import json
import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

PREEMPTED = 75  # exit code (EX_TEMPFAIL): saved; the same command goes on


class ClusterError(RuntimeError):
    """Hosts cannot be joined, or disagree."""


class Preempted(Exception):
    """The run was asked to end (SIGTERM, Ctrl-C); everything is saved."""


class Address(NamedTuple):
    """Where the hosts meet, given by hand.

    Attributes:
      coordinator: host:port of host 0.
      hosts: how many there are.
      host: which one this is, from 0.
    """

    coordinator: str
    hosts: int
    host: int


def started_as_many() -> bool:
    """Has a launcher (SLURM's srun, Open MPI, a TPU pod) started several of us?"""
    slurm = "SLURM_STEP_NODELIST" in os.environ  # set by srun, not by sbatch alone
    counts = [os.environ.get("SLURM_NTASKS", "")] if slurm else []
    counts.append(os.environ.get("OMPI_COMM_WORLD_SIZE", ""))
    several = any(count.isdigit() and int(count) > 1 for count in counts)
    return several or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def join(address: Address | None, timeout: int) -> None:
    """Join the other hosts; before anything has asked JAX for devices.

    Host 0 is the coordinator and waits as long: should not all come, JAX ends the
    process with a message of its own.

    Args:
      address: None: as the launcher says (SLURM, Open MPI, Kubernetes, TPU pods).
      timeout: seconds to wait for the others.

    Raises:
      ClusterError: the coordinator is not there, or the launcher says nothing.
    """
    options: dict = {"initialization_timeout": timeout}
    if address is None and "SLURM_STEP_NODELIST" in os.environ:
        address = _slurm_address(os.environ)
        options["local_device_ids"] = _slurm_devices(os.environ)
    if address is not None:
        print(
            f"host {address.host} of {address.hosts}: meeting the others at "
            f"{address.coordinator}, for at most {timeout} s",
            flush=True,
        )
        if address.host > 0:
            _wait_for(address.coordinator, timeout)
        options |= {
            "coordinator_address": address.coordinator,
            "num_processes": address.hosts,
            "process_id": address.host,
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise ClusterError(
            f"cannot join the cluster: {error}. Start every host with --coordinator, "
            "--hosts and --host, or by srun, mpirun or on a TPU pod"
        ) from error


def _slurm_address(environ: Mapping[str, str]) -> Address:
    """Address of a task that srun started: host 0 is on the first node of the step.

    JAX can tell this itself, but ends the process where the coordinator is not there:
    to say so first, one has to know where it would be.
    """
    nodes, job = environ["SLURM_STEP_NODELIST"], int(environ["SLURM_JOB_ID"])
    # node7 | node7,other | node[007-015,020],other | node[3,5]
    name, _, ranges = nodes.partition(",")[0].partition("[")
    first = ranges.rstrip("]").partition("-")[0]
    port = 61440 + job % 4096  # two jobs on a node differ
    return Address(
        f"{name}{first}:{port}",
        int(environ["SLURM_NTASKS"]),
        int(environ["SLURM_PROCID"]),
    )


def _slurm_devices(environ: Mapping[str, str]) -> list[int] | None:
    """Indices of this task's GPUs; None: all it can see.

    Of several tasks on a node each takes one GPU. Where srun has bound them
    (--gpus-per-task), a task sees none but its own.
    """
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0]
    visible = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if tasks == "1" or len(visible) < 2:
        return None
    return [int(environ["SLURM_LOCALID"])]


def _wait_for(coordinator: str, timeout: int) -> None:
    """Return when something listens there: JAX would end the process where not."""
    name, _, port = coordinator.rpartition(":")
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((name, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            if time.monotonic() > end or isinstance(error, ValueError):
                raise ClusterError(
                    f"no coordinator at {coordinator} within {timeout} s ({error}): "
                    "is host 0 started, and its port open to this host?"
                ) from error
            time.sleep(0.5)
        else:
            return


def size() -> int:
    """Number of hosts."""
    return jax.process_count()


def host() -> int:
    """Which one this is, from 0."""
    return jax.process_index()


def lead() -> bool:
    """Is this the host that writes?"""
    return host() == 0


def barrier(name: str) -> None:
    """Wait until every host is here."""
    if size() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: float) -> float:
    """The lead's `value`, on every host."""
    return float(gather(np.float64(value))[0])


def any_host(flag: bool) -> bool:
    """Is `flag` set on any host?"""
    return bool(gather(np.uint8(flag)).any())


def gather(values) -> np.ndarray:
    """An array of one shape and dtype on every host -> [hosts, ...], on every host."""
    values = np.array(values, order="C")
    if size() == 1:
        return values[None]
    # As bytes: JAX would make 64-bit numbers into 32.
    raw = np.frombuffer(values.tobytes(), np.uint8)
    found = multihost_utils.process_allgather(raw)
    return np.stack([np.frombuffer(r.tobytes(), values.dtype) for r in found]).reshape(
        size(), *values.shape
    )


def check_same(what: str, *arrays) -> None:
    """Raise ClusterError, on every host, where hosts have different arrays.

    Args:
      what: names the arrays in the message.
      arrays: of any dtype.
    """
    if size() == 1:
        return
    sums = gather(np.array([_checksum(a) for a in arrays], np.uint32))
    others = np.flatnonzero((sums != sums[0]).any(axis=1))
    if len(others):
        names = ", ".join(f"host {h}" for h in others)
        raise ClusterError(
            f"{what} came out different on {names} than on host 0: different hardware, "
            "versions or files? Nothing is written of it"
        )


def check_same_facts(facts: Mapping[str, object]) -> None:
    """Raise ClusterError, on every host, naming the facts on which hosts differ.

    Args:
      facts: by name, as JSON takes them; e.g. the keys of a config.
    """
    if size() == 1:
        return
    own = json.dumps({k: json.dumps(v, sort_keys=True) for k, v in facts.items()})
    data = np.frombuffer(own.encode(), np.uint8)
    lengths = gather(np.int64(len(data)))
    padded = gather(np.pad(data, (0, int(lengths.max()) - len(data))))
    texts = [json.loads(p[:n].tobytes()) for p, n in zip(padded, lengths, strict=True)]
    lines = [
        f"{name}: {texts[0].get(name, '(absent)')} on host 0, "
        f"{text.get(name, '(absent)')} on host {number}"
        for number, text in enumerate(texts)
        for name in sorted(texts[0].keys() | text.keys())
        if texts[0].get(name) != text.get(name)
    ]
    if lines:
        more = [f"and {len(lines) - 10} more"] if len(lines) > 10 else []
        raise ClusterError(
            "the hosts were not started alike:\n  " + "\n  ".join(lines[:10] + more)
        )


def check_same_examples(names, sums: np.ndarray) -> None:
    """Raise ClusterError, on every host, naming an example that hosts have different.

    Args:
      names: of the examples, N; asked for one of them alone.
      sums: uint32 [N], a checksum of each.
    """
    if size() == 1:
        return
    counts = gather(np.int64(len(sums)))
    if (counts != counts[0]).any():
        listed = ", ".join(f"{n} on host {h}" for h, n in enumerate(counts))
        raise ClusterError(f"the hosts have different data: examples: {listed}")
    found = gather(sums.astype(np.uint32))
    rows, places = np.nonzero(found != found[0])
    if len(rows):
        raise ClusterError(
            f"the hosts have different data: {names[places[0]]} on host {rows[0]} is "
            f"not what it is on host 0, and {len(set(places.tolist())) - 1} more"
        )


def _checksum(array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


# Counted on through all runs of a process: hosts compare where they are by it.
_steps = itertools.count()


class Notice(AbstractContextManager):
    """Is the run to end? SIGTERM or Ctrl-C to any host, seen by all at the same step.

    Within it neither ends the process at once; but a second Ctrl-C does.
    """

    def __init__(self):
        self._asked = False
        self._before: dict = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            take = {signal.SIGINT: self._interrupt}
            # Of several hosts JAX takes SIGTERM, and its threads pass it on.
            if size() == 1:
                take[signal.SIGTERM] = self._take
            self._before = {n: signal.signal(n, do) for n, do in take.items()}
        return self

    def __exit__(self, *exception):
        for number, before in self._before.items():
            signal.signal(number, before)

    def _take(self, number, frame):
        self._asked = True

    def _interrupt(self, number, frame):
        if self._asked:
            raise KeyboardInterrupt
        # Not `print`: a signal may have come while the stream is written to.
        os.write(2, b"\nending: what is done is saved first; Ctrl-C again does not\n")
        self._asked = True
        if size() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(self) -> bool:
        """Called by all hosts at the same steps: True on all at the same one."""
        if size() == 1:
            return self._asked
        return bool(multihost_utils.reached_preemption_sync_point(next(_steps)))
