"""Finished runs opened again: their models, and what was labelled when they chose."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.loop import checkpoints, run
from jalpose.loop.state import AwaitingLabels, CycleState
from jalpose.settings.checks import ConfigError
from jalpose.storage import records


def refuse_another_model(config: ConfigDict, workdir) -> None:
    """Raise ConfigError where the models of a workdir are of another config."""
    record = records.read_config(workdir)
    if record is None:
        raise ConfigError(
            f"--workdir={workdir} is not the workdir of a run: it holds no "
            f"{records.CONFIG}. Run `python -m jalpose.main` with this --config and "
            "--workdir first"
        )
    found = run.model_differences(
        record["config"], config, more=("seed",), ignore=("model.convolution",)
    )
    if found:
        raise ConfigError(
            f"the models in {workdir} were trained under another config: give the one "
            "they were trained under. Differences (there -> now):\n  "
            + "\n  ".join(found)
        )


def cycle_of(workdir, wanted: int) -> int:
    """The cycle whose model is asked for: of the newest where `wanted` is below 0."""
    there = checkpoints.saved_models(workdir)
    if not there:
        raise checkpoints.CheckpointError(
            f"no model is saved in {workdir} yet: let the run finish its base training"
        )
    if wanted >= 0 and wanted not in there:
        listed = ", ".join(map(str, there))
        raise ConfigError(f"--cycle={wanted}: {workdir} has models of cycles {listed}")
    return there[-1] if wanted < 0 else wanted


def state_of(dataset: Dataset, workdir, cycle: int) -> CycleState:
    """The state the model of `cycle` chose in: what was labelled, no more."""
    bought = [records.read_arrays(workdir, c)["selected"] for c in range(cycle)]
    labelled = np.concatenate([dataset.initial, *bought]).astype(np.int64)
    answers = {}
    if bought:
        answers = dataset.truth_of(labelled[len(dataset.initial) :])
    phase = AwaitingLabels(variables={}, chosen=labelled[:0])
    return CycleState(cycle=cycle, labelled=labelled, answers=answers, phase=phase)


def free_folder(wanted: Path) -> Path:
    """`wanted`, or with the first number behind it under which nothing is yet."""
    found, number = wanted, 1
    while found.exists() and not (found.is_dir() and not any(found.iterdir())):
        number += 1
        found = wanted.with_name(f"{wanted.name}-{number}")
    return found
