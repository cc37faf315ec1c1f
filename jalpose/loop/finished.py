"""Runs opened again, at work or not: models, and what was labelled when they chose."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.loop import compatibility, saved_models
from jalpose.loop.state import AwaitingLabels, CycleState
from jalpose.oracles.folder import ANSWERS, read_answers, taken_in
from jalpose.oracles.oracle import Answers
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
    found = compatibility.model_differences(
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
    newest, there = (
        saved_models.newest_model(workdir),
        saved_models.cycles(workdir),
    )
    if wanted >= 0 and wanted not in there:
        listed = ", ".join(map(str, there))
        raise ConfigError(f"--cycle={wanted}: {workdir} has models of cycles {listed}")
    return newest if wanted < 0 else wanted


def state_of(dataset: Dataset, workdir, cycle: int) -> CycleState:
    """The state the model of `cycle` chose in: what was labelled, no more.

    Labels that people gave are those that were taken, whatever was corrected since.

    Raises:
      WorkdirError: a choice before it is not recorded, or damaged.
    """
    bought = [_bought(dataset, workdir, c) for c in range(cycle)]
    labelled = np.concatenate([dataset.initial, *(one.ids for one in bought)])
    answers = {
        name: np.concatenate([one.labels[name] for one in bought])
        for name in (dataset.truth if bought else ())
    }
    nobody = np.zeros(0, np.int64)
    return CycleState(
        cycle=cycle,
        labelled=labelled.astype(np.int64),
        answers=answers,
        rejected=np.concatenate([nobody, *(one.rejected for one in bought)]),
        phase=AwaitingLabels(variables={}, chosen=nobody),
    )


def asked_since(workdir, cycle: int) -> np.ndarray:
    """Ids that the model of `cycle` and later ones have asked for.

    They are labelled by now, or rejected, or people are at it; those that they went on
    without are not.

    Raises:
      WorkdirError: a record is damaged.
    """
    found = [np.zeros(0, np.int64)]
    for line in records.read_cycles(workdir):
        if line["cycle"] >= cycle and line["acquisition"]:
            path = taken_in(workdir, line["cycle"]) / ANSWERS
            if path.is_file():
                answers = read_answers(path)
                found += [answers.ids, answers.rejected]
            else:
                found.append(_selected(workdir, line["cycle"]))
    return np.concatenate(found)


def _bought(dataset: Dataset, workdir, cycle: int) -> Answers:
    """What the choice of a cycle bought: of people, or of the data set."""
    path = taken_in(workdir, cycle) / ANSWERS
    if path.is_file():
        return read_answers(path)
    chosen = [
        line["cycle"] for line in records.read_cycles(workdir) if line["acquisition"]
    ]
    if cycle not in chosen:  # a run whose last states were damaged goes back
        raise records.WorkdirError(
            f"the choice of cycle {cycle} in {workdir} is not recorded, though later "
            "models are there: let the run go on until it has chosen anew, or take a "
            "model of an earlier cycle"
        )
    ids = _selected(workdir, cycle)
    return Answers(ids, dataset.truth_of(ids))


def _selected(workdir, cycle: int) -> np.ndarray:
    return records.read_arrays(workdir, cycle, ["selected"])["selected"]


def free_folder(wanted: Path) -> Path:
    """`wanted`, or with the first number behind it under which nothing is yet."""
    found, number = wanted, 1
    while found.exists() and not (found.is_dir() and not any(found.iterdir())):
        number += 1
        found = wanted.with_name(f"{wanted.name}-{number}")
    return found
