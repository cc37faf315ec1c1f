"""The cluster scripts, as far as one machine shows: srun and gcloud are stand-ins."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Runs what it is given as SLURM_NTASKS tasks of one node, without its own options.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
code=0
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_STEP_NODELIST=localhost \\
    SLURM_STEP_TASKS_PER_NODE=$SLURM_NTASKS "$@" > "$LOGS/task$task" 2>&1 &
  tasks[$task]=$!
done
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
cat "$LOGS"/task*
exit $code
"""

# Runs the command it is to give to all workers, who meet as tasks of a step do.
GCLOUD = """#!/bin/bash
for argument in "$@"; do
  [[ "$argument" == --command=* ]] && command=${argument#--command=}
done
cd "$LOGS" && srun bash -c "$command"
"""


def perform(script, arguments, folder, **environ):
    """Run a script with stand-ins for srun, scontrol and python in its path."""
    commands = {
        "srun": SRUN,
        "scontrol": '#!/bin/bash\necho "$@" > "$LOGS/queued"\n',
        "gcloud": GCLOUD,
    }
    python = f'#!/bin/bash\nexec {environ.pop("python", sys.executable)} "$@"\n'
    commands |= {"python": python, "python3": python}
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PATH": f"{folder}:{os.environ['PATH']}",
            "LOGS": str(folder),
            "SLURM_NTASKS": "1",
            **environ,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_a_job_of_an_array_takes_its_part(tmp_path):
    done = perform(
        "slurm_array.sh",
        ["configs/experiments/figures.py:scale=tiny", tmp_path / "out", "--dry_run"],
        tmp_path,
        SLURM_ARRAY_TASK_ID="2",
        SLURM_ARRAY_TASK_COUNT="5",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "part 2 of 5" in done.stdout
    assert not (tmp_path / "queued").exists()


def job_number():
    """One whose port, as `cluster` derives it, is free."""
    for number in range(4096):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", 61440 + number))
            except OSError:
                continue
            return str(number)
    return pytest.fail("no port is free")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "where"), [("slurm_hosts.sh", []), ("tpu_pod.sh", ["pod", "zone"])]
)
def test_hosts_find_each_other(script, where, tmp_path):
    (tmp_path / "jalpose").symlink_to(ROOT)
    done = perform(
        script,
        [
            *where,
            "configs/quickstart.py:scale=tiny",
            tmp_path / "out",
            "--config.loop.cycles=0",
            "--config.loop.compare=()",
            "--config.model.channels=8",
            "--config.model.depth=1",
        ],
        tmp_path,
        SLURM_NTASKS="2",
        SLURM_JOB_ID=job_number(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for host in (0, 1):
        assert f"host {host} of 2: meeting the others" in done.stdout
    assert done.stdout.count("records and pictures") == 1


def test_arguments_reach_the_workers_of_a_pod_as_they_are(tmp_path):
    (tmp_path / "jalpose").symlink_to(ROOT)
    show = tmp_path / "show"
    show.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    show.chmod(0o755)
    arguments = ["--config.loop.compare=('random',)", "--config.name=two words; $HOME"]
    done = perform(
        "tpu_pod.sh",
        ["pod", "zone", "config.py:scale=tiny", "/a folder/run", *arguments],
        tmp_path,
        python=str(show),
    )
    assert done.stdout.splitlines() == [
        *("-m", "jalpose.main", "--cluster=on", "--config=config.py:scale=tiny"),
        *("--workdir=/a folder/run", *arguments),
    ]


@pytest.mark.parametrize("script", ["slurm_array.sh", "slurm_hosts.sh"])
def test_a_job_that_saved_and_ended_is_queued_again(script, tmp_path):
    ending = tmp_path / "ending"
    ending.write_text("#!/bin/bash\nexit 75\n")
    ending.chmod(0o755)
    done = perform(
        script,
        ["config.py", "out"],
        tmp_path,
        python=str(ending),
        SLURM_JOB_ID="7",
        SLURM_ARRAY_JOB_ID="7",
        SLURM_ARRAY_TASK_ID="2",
        SLURM_ARRAY_TASK_COUNT="5",
    )
    assert done.returncode == 75
    job = {"slurm_array.sh": "7_2", "slurm_hosts.sh": "7"}[script]
    assert (tmp_path / "queued").read_text().split() == ["requeue", job]
