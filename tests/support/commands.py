"""Commands in processes of their own that find what they import already there.

To import JAX and all that stands on it takes longer than what most commands of a test
do. They are forked from a process that has it, before any backend starts; to the
command it is `python -m module arguments`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
# What the commands import, not they themselves: each defines its flags once.
CONTEXT.set_forkserver_preload(
    ["jalpose.loop.run", "jalpose.loop.dry_run", "jalpose.experiments.loop"]
)
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "PYTHONUNBUFFERED": "1",
}


def perform(module, *arguments, folder, timeout=300):
    """What `python -m module arguments` says in `folder`: a CompletedProcess."""
    with tempfile.TemporaryDirectory() as said:
        texts = [Path(said) / name for name in ("stdout", "stderr")]
        command = [str(argument) for argument in arguments]
        process = CONTEXT.Process(
            target=_become, args=(module, command, os.fspath(folder), texts)
        )
        with mock.patch.dict(os.environ, ENVIRONMENT):
            process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([module, *command], timeout)
        return subprocess.CompletedProcess(
            [module, *command], process.exitcode, *(t.read_text() for t in texts)
        )


def _become(module, command, folder, texts):
    for descriptor, text in zip((1, 2), texts, strict=True):
        os.dup2(os.open(text, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(folder)
    sys.argv = [module, *command]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
