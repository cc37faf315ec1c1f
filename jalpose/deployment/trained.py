"""The network of a run, opened by its workdir alone.

The run may be at work there, and is not disturbed: its models are whole once they have
their names, and its lock is looked at, to say so, and not held.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jalpose.deployment.options import Model
from jalpose.loop import configs, saved_models
from jalpose.loop.finished import cycle_of
from jalpose.models.registry import options_of
from jalpose.oracles import handout
from jalpose.oracles.folder import LABELS, TAKEN
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.storage import locks, records
from jalpose.tasks import registry as tasks
from jalpose.tasks.inference import Opened, Outputs, Place


class Trained(NamedTuple):
    """A run's network.

    Attributes:
      workdir: of the run.
      config: of the run, as today's.
      cycle: that trained it.
      variables: as saved, of heads and members too; NumPy.
      outputs: what it says, by name; see `tasks.inference`.
      task: module `inference` of the task.
    """

    workdir: str
    config: ConfigDict
    cycle: int
    variables: dict
    outputs: Outputs
    task: Any


# What a run writes in its workdir, or is told there: nothing else is to come between.
_OF_THE_RUN = (
    "arrays",
    "checkpoints",
    "compare",
    LABELS,
    TAKEN,
    "pictures",
    "selections",
    "tensorboard",
    handout.FOLDER,
    "traces",
)


def open_trained(model: Model, out: str, screen: Screen) -> Trained:
    """The model of a run; where the run is at work, that is said.

    Args:
      model: of which run.
      out: where something is to be written.
      screen: for what is to be said.

    Raises:
      ConfigError: the workdir holds no run, or of a task that cannot be used so; `out`
        is a folder that a run itself writes or reads.
      CheckpointError: it has no model yet.
      WorkdirError: its records are damaged.
      DataError: the names of its outputs are not recorded, and its data are not there.
    """
    record = records.read_config(model.workdir)
    if record is None:
        there = os.path.isdir(model.workdir)
        raise ConfigError(
            f"--model={model.workdir} is not the workdir of a run: "
            + (f"it holds no {records.CONFIG}" if there else "there is no such folder")
        )
    _refuse_folders_of_runs(out)
    config = configs.of_record(record["config"])
    if model.data_dir:
        with config.unlocked():
            config.data.dir = model.data_dir
    configs.check(config)
    task = tasks.inference_of(config.task)
    if task is None:
        raise ConfigError(
            f"--model={model.workdir}: the task {config.task} has no module "
            "`inference`, which opens new images; see jalpose/tasks/inference.py"
        )
    cycle = cycle_of(model.workdir, model.cycle)
    found = Trained(
        workdir=model.workdir,
        config=config,
        cycle=cycle,
        variables=saved_models.load_model(model.workdir, cycle),
        outputs=record.get("outputs") or task.find_outputs(config),
        task=task,
    )
    other = locks.holder(model.workdir)
    if other is not None:
        screen.line(
            f"{model.workdir} is in use by {other}: taken is the model of cycle "
            f"{cycle}, " + ("the last" if model.cycle < 0 else "one") + " it has "
            "finished"
        )
    return found


def _refuse_folders_of_runs(out: str) -> None:
    """Raise ConfigError where `out` lies in what a run keeps in its workdir."""
    path = Path(out).resolve()
    for folder in path.parents:
        part = path.relative_to(folder).parts[0]
        if part in _OF_THE_RUN and (folder / records.CONFIG).is_file():
            raise ConfigError(
                f"--out={out} is for the run in {folder}, which keeps its own in "
                f"{part}/: name another folder"
            )


def network_of(trained: Trained, num_outputs: int):
    """The Linen module of a run's network."""
    return options_of(dict(trained.config.model)).build(num_outputs)


def open_images(trained: Trained, place: Place, screen: Screen) -> Opened:
    """New images, looked through; what is left out is said.

    Raises:
      DataError: there is none, or a file is damaged or of another skeleton.
    """
    from jalpose.data.loose import look_through

    def look(folder, files):
        def progress(done, total):
            screen.progress("looking through the images", done, total)

        found = look_through(folder, files, progress)
        screen.end()
        if found.damaged:
            screen.line(
                f"{len(found.damaged)} of {len(files)} images are damaged or missing, "
                "and left out:"
            )
            for why in list(found.damaged.values())[:_NAMED]:
                screen.line(f"  {why}")
            if len(found.damaged) > _NAMED:
                screen.line(f"  and {len(found.damaged) - _NAMED} more")
        return found

    opened = trained.task.open_images(trained.config, trained.outputs, place, look)
    for note in opened.notes:
        screen.line(note)
    return opened


_NAMED = 10
