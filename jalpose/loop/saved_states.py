"""The states that a run goes on from, saved by Orbax, and the journals of its passes.

`<workdir>/checkpoints/state/<n>` holds the newest states; a killed save leaves no half
state behind. `.../journal/cycle_NN` is not Orbax's: the blocks of a cycle's passes,
from their first on, whatever state was saved last.
"""

import dataclasses
import json
import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from jalpose.loop.context import RunContext
from jalpose.loop.saved_models import CheckpointError, explain_full_disk
from jalpose.loop.state import (
    AwaitingLabels,
    CycleState,
    Done,
    Measuring,
    Scoring,
    Training,
)
from jalpose.runtime import hosts
from jalpose.storage import journal, records
from jalpose.storage.journal import FolderJournal, Journal
from jalpose.training.plan import structure_of

_PHASES = {
    "training": Training,
    "scoring": Scoring,
    "measuring": Measuring,
    "awaiting_labels": AwaitingLabels,
    "done": Done,
}

_ANSWER = "answer_"  # arrays of bought labels begin so


class StateStore:
    """The newest states of a run, two of them.

    Each has the CRC-32 of its files beside it, in `state_sums`. A state that is not as
    it was saved is named in a warning and set aside, and the one before is used.

    Args:
      workdir: of the run.
    """

    def __init__(self, workdir):
        self._folder = Path(workdir).absolute() / "checkpoints" / "state"
        self._sums = self._folder.parent / "state_sums"
        if hosts.lead():
            self._set_damaged_aside()
        hosts.barrier("states")
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                enable_async_checkpointing=False,
                # What a killed save has left would take up room for ever.
                cleanup_tmp_directories=True,
            ),
            item_names=("model", "arrays", "about"),
        )

    def save(self, number: int, state: CycleState, clock: dict) -> None:
        """Save a state under a number that rises from save to save.

        Args:
          number: of advances made so far.
          state: to be saved.
          clock: seconds spent, for the records; kept beside the state.

        Raises:
          WorkdirError: the disk is full; the states saved before stay.
        """
        name = next(n for n, kind in _PHASES.items() if isinstance(state.phase, kind))
        about = {"phase": name, "cycle": state.cycle, "clock": clock}
        arrays = {"labelled": state.labelled}
        arrays |= {f"{_ANSWER}{name}": v for name, v in state.answers.items()}
        if len(state.rejected):
            arrays["rejected"] = state.rejected
        phase = state.phase
        model = phase.variables
        if isinstance(phase, Training):
            about["stage"] = phase.stage
            about["train"] = structure_of(phase.train.variables)
            model = {"train": phase.train, "variables": phase.variables}
        if phase.variables:
            about["variables"] = structure_of(phase.variables)
        if isinstance(phase, Measuring):
            arrays["scores"] = phase.scores
        if isinstance(phase, Measuring | AwaitingLabels):
            arrays["chosen"] = phase.chosen
        # Orbax does not write arrays without elements.
        about["empty"] = [
            k for k, v in arrays.items() if v.size == 0 and not k.startswith(_ANSWER)
        ]
        arrays = {k: v for k, v in arrays.items() if v.size}
        with explain_full_disk(self._folder):
            self._manager.save(
                number,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(model),
                    arrays=ocp.args.StandardSave(arrays),
                    about=ocp.args.JsonSave(about),
                ),
                force=True,
            )
            self._manager.wait_until_finished()
        if hosts.lead():
            self._write_sums(number)

    def _write_sums(self, number):
        sums = _sums(self._folder / str(number))
        records.write_json(self._sums / f"{number}.json", sums)
        for path in self._sums.glob("*.json"):
            if not (self._folder / path.stem).exists():
                path.unlink()

    def _set_damaged_aside(self):
        for path in self._sums.glob("*.json"):
            folder = self._folder / path.stem
            if not folder.is_dir():
                continue
            expected, found = json.loads(path.read_bytes()), _sums(folder)
            names = sorted(expected.keys() | found.keys())
            bad = [name for name in names if expected.get(name) != found.get(name)]
            if bad:
                aside = self._folder.parent / f"damaged_state_{path.stem}"
                os.replace(folder, aside)
                path.unlink()
                warnings.warn(
                    f"{folder / bad[0]} is not as it was saved: the state is set aside "
                    f"as {aside}, and the one before it is used",
                    stacklevel=3,
                )

    @property
    def empty(self) -> bool:
        """Is no state saved yet?"""
        return self._manager.latest_step() is None

    def restore(self, context: RunContext) -> tuple[int, CycleState, dict] | None:
        """The newest saved (number, state, clock), or None where there is none."""
        number = self._manager.latest_step()
        if number is None:
            return None
        about = self._manager.restore(
            number, args=ocp.args.Composite(about=ocp.args.JsonRestore())
        )["about"]
        template = _template(about, context)
        found = self._manager.restore(
            number,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(template),
                arrays=ocp.args.StandardRestore(),
            ),
        )
        arrays = {k: np.asarray(v) for k, v in found["arrays"].items()}
        empty = {"scores": np.float32}
        arrays.update({k: np.zeros(0, empty.get(k, np.int64)) for k in about["empty"]})
        state = CycleState(
            cycle=about["cycle"],
            labelled=arrays["labelled"],
            answers=_answers(arrays, context),
            rejected=arrays.get("rejected", np.zeros(0, np.int64)),
            phase=Done(variables=found["model"]),
        )
        phase = _phase(about, found["model"], arrays, state, context)
        return number, dataclasses.replace(state, phase=phase), about["clock"]

    def close(self) -> None:
        """Release the manager."""
        self._manager.close()


def _sums(folder: Path) -> dict[str, int]:
    """CRC-32 of each file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): zlib.crc32(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _answers(arrays, context: RunContext) -> dict[str, np.ndarray]:
    """The labels that were bought; {} before the first.

    Not in states saved before there were oracles, nor where nothing was bought: asked
    for anew, which in simulation gives the same.
    """
    found = {
        name.removeprefix(_ANSWER): values
        for name, values in arrays.items()
        if name.startswith(_ANSWER)
    }
    bought = arrays["labelled"][len(context.dataset.initial) :]
    if found or not len(bought):
        return found
    answers = context.oracle.answers(bought)
    if answers is None or len(answers.ids) < len(bought):
        raise CheckpointError(
            f"the saved state has no labels of the {len(bought)} examples that were "
            "bought, and they are not to be had again: start in another --workdir"
        )
    return answers.labels


def _phase(about, model, arrays, state: CycleState, context: RunContext):
    kind = _PHASES[about["phase"]]
    if kind is Training:
        return Training(
            train=model["train"], stage=about["stage"], variables=model["variables"]
        )
    fields = {"variables": model}
    if kind in (Scoring, Measuring):
        fields["journal"] = context.journal(state, model)
    names = {Measuring: ("chosen", "scores"), AwaitingLabels: ("chosen",)}
    fields.update({name: arrays[name] for name in names.get(kind, ())})
    return kind(**fields)


def _template(about, context: RunContext):
    """Shapes, dtypes and shardings of what was saved, without computing any of it."""
    plan = context.plan
    variables = {}
    if "variables" in about:
        variables = plan.variables_template(about["variables"])
    if about["phase"] != "training":
        return variables
    return {"train": plan.train_template(about["train"]), "variables": variables}


def open_journal(workdir, cycle: int, fingerprint: str) -> Journal:
    """The journal of a cycle's passes in `workdir`; see `FolderJournal`.

    Called by all hosts: the lead, who writes, verifies what is there before the others
    look at it.
    """
    path, found = _journal_path(workdir, cycle), None
    if hosts.lead():
        found = FolderJournal(path, fingerprint=fingerprint)
    hosts.barrier("journal")
    return found or FolderJournal(path, fingerprint=fingerprint, writer=False)


def remove_journals(workdir, before: int) -> None:
    """Remove the journals of the cycles before one: records hold what they found."""
    for path in _journal_path(workdir, 0).parent.glob("cycle_*"):
        if int(path.name.removeprefix("cycle_")) < before:
            journal.remove(path)


def _journal_path(workdir, cycle: int) -> Path:
    return Path(workdir) / "checkpoints" / "journal" / f"cycle_{cycle:02d}"
