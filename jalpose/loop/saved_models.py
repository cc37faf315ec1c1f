"""The models that a run's cycles were finished with, saved by Orbax.

`<workdir>/checkpoints/models/<cycle>` holds a cycle's variables, `.../initial_weights`
those of another network that the run began with, if any. They are written beside and
renamed, so a killed save leaves no half checkpoint behind, and who reads models beside
a run that is at work sees whole ones.
"""

import contextlib
import errno
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import orbax.checkpoint as ocp

from jalpose.runtime import hosts, sharding
from jalpose.storage import records

logging.getLogger("absl").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="Sharding info not provided")

_LOOKS, _LOOK = 20, 0.05  # times, and seconds between: for a model being put in place


class CheckpointError(RuntimeError):
    """A checkpoint is missing or cannot be read."""


def save_model(workdir, cycle: int, variables) -> None:
    """Write the variables a cycle was finished with, over those of a killed run."""
    _save(_model_path(workdir, cycle), variables)


def load_model(workdir, cycle: int) -> dict:
    """The variables `cycle` of the run in `workdir` was finished with, as numpy.

    The run may be at work: what it puts in their place meanwhile is read instead.

    Raises:
      CheckpointError: there are none, or they cannot be read.
    """
    path = _model_path(workdir, cycle)
    while (before := _mark(path)) is not None:
        try:
            found = _load(path)
        except Exception as error:  # Orbax and TensorStore raise half a dozen kinds
            if _mark(path) == before:
                raise CheckpointError(
                    f"the model of cycle {cycle} at {path} is damaged: {error}"
                ) from error
            continue
        if _mark(path) == before:
            return found
    raise CheckpointError(
        f"no model of cycle {cycle} at {path}: has the run in {workdir} got that far?"
    )


def newest_model(workdir) -> int:
    """The last cycle of the run in `workdir` whose model is saved.

    Raises:
      CheckpointError: there is none.
    """
    there = cycles(workdir)
    if not there:
        raise CheckpointError(
            f"no model is saved in {workdir} yet: let the run finish its base training"
        )
    return there[-1]


def save_initial_weights(workdir, variables) -> None:
    """Write the layers of another network that the run in `workdir` begins with."""
    _save(_initial_path(workdir), variables)


def load_initial_weights(workdir) -> dict:
    """The layers of another network that the run in `workdir` began with, as numpy.

    Raises:
      CheckpointError: they are not there.
    """
    path = _initial_path(workdir)
    if not path.is_dir():
        raise CheckpointError(
            f"{path}, the weights that the run began with, is not there: bring it back "
            "or start in another --workdir"
        )
    return _load(path)


def cycles(workdir) -> list[int]:
    """Cycles of the run in `workdir` whose models are saved, rising."""
    folder = _model_path(workdir, 0).parent
    # Orbax writes beside under longer names.
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


@contextlib.contextmanager
def explain_full_disk(path) -> Iterator[None]:
    """Raise WorkdirError where Orbax finds no room."""
    with records.explain_full_disk(path):
        try:
            yield
        except ValueError as error:  # so TensorStore tells it
            for code in (errno.ENOSPC, errno.EDQUOT):
                if f"os_error_code='{code}'" in str(error):
                    raise OSError(code, os.strerror(code)) from error
            raise


def _save(path: Path, variables) -> None:
    # Asked to write over it, Orbax removes first what somebody may be reading.
    beside = path.with_name(f"{path.name}.new")
    with explain_full_disk(path), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(beside, sharding.to_host(variables), force=True)
    if hosts.lead():
        old = _old(path)
        shutil.rmtree(old, ignore_errors=True)  # left by a kill
        if path.exists():
            os.rename(path, old)
        os.rename(beside, path)
        shutil.rmtree(old, ignore_errors=True)
        records.flush_folder(path.parent)
    hosts.barrier("model")


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another in its place; None where there is none."""
    for _ in range(_LOOKS):
        found = _about(path)
        if found is not None or not _old(path).exists():
            return found or _about(path)
        time.sleep(_LOOK)  # between the two renames of `_save`, or killed there
    return None


def _about(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _old(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _load(path: Path) -> dict:
    with ocp.StandardCheckpointer() as checkpointer:
        return sharding.to_host(checkpointer.restore(path))


def _initial_path(workdir) -> Path:
    return Path(workdir).absolute() / "checkpoints" / "initial_weights"


def _model_path(workdir, cycle: int) -> Path:
    return Path(workdir).absolute() / "checkpoints" / "models" / f"{cycle:02d}"
