"""People label: a folder of what they are asked for, and a folder of their answers.

<workdir>/to_label/cycle_NN/      what was chosen, see `handout`
<workdir>/labels/                 what annotation tools export, put there by people
<workdir>/labels_taken/cycle_NN/  copies of the files that were taken in a cycle, and
                                  answers.npz: ids, rejected, label_<name> [n, ...]
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.oracles.handout import FOLDER, INDEX, Handout, read_index
from jalpose.oracles.oracle import Answers, LabelsError
from jalpose.oracles.returns import Names, Statement, read_folder
from jalpose.runtime import hosts
from jalpose.storage import records
from jalpose.storage.folders import atomic_folder
from jalpose.tasks.exchange import Exchange, Request
from jalpose.tasks.findings import listed
from jalpose.tasks.labels import Labels, Truth

LABELS, TAKEN, ANSWERS = "labels", "labels_taken", "answers.npz"
_LABEL = "label_"  # arrays of labels begin so
_logger = logging.getLogger(__name__)


class FolderOracle:
    """Hands out what was chosen, and reads what people bring back.

    Args:
      dataset: the benchmark.
      labels: of the task.
      exchange: of the task.
      workdir: of the run.
      data_dir: that files of the dataset are relative to.
      copy: see `oracle.copy`.
      allow_partial: see `oracle.allow_partial`.
      corrected: see `oracle.corrected`.
    """

    simulated = False

    def __init__(
        self,
        dataset: Dataset,
        *,
        labels: Labels,
        exchange: Exchange,
        workdir,
        data_dir: str,
        copy: str = "copy",
        allow_partial: bool = False,
        corrected: str = "refuse",
    ):
        self._dataset, self._allow_partial = dataset, allow_partial
        self._corrected = corrected
        self._exchange, self._workdir = exchange, Path(workdir)
        self._handout = Handout(workdir, dataset, labels, exchange, data_dir, copy)
        self._missing: list[str] = []

    def request(self, ids: np.ndarray) -> None:
        """Write the folder of what is to be labelled, unless it is there."""

        def write():
            if len(ids):
                self._handout.write(self._cycle(), ids)
                (self._workdir / LABELS).mkdir(exist_ok=True)
            return True

        _by_lead(write)

    def answers(self, ids: np.ndarray) -> Answers | None:
        """The labels that lie in the folder of labels; None while some are missing.

        Raises:
          LabelsError: a file cannot be read, speaks of what was never asked for, has an
            example twice, or a label that cannot be its.
        """
        if not len(ids):
            return Answers(ids, {})
        # The lead reads, the others take what it has taken: files may come meanwhile.
        if not _by_lead(lambda: self._take(ids)):
            return None
        return read_answers(self._taken(self._cycle()) / ANSWERS)

    def advice(self, ids: np.ndarray) -> str:
        """What is to be labelled, where labels belong, and what is still missing."""
        page = self._handout.folder(self._cycle()) / "index.html"
        words = (
            f"open {page}, label what it shows, put what your annotation tool exports "
            f"into {self._workdir / LABELS}, and run the same command again"
        )
        if 0 < len(self._missing) < len(ids):
            words += (
                f". {len(ids) - len(self._missing)} of {len(ids)} are finished; not "
                f"yet: {listed(self._missing)} (oracle.allow_partial=True goes on "
                "without)"
            )
        return words

    def revised(self, ids: np.ndarray, labels: Truth) -> Truth:
        """Labels that were taken, or as they lie in the folder now; see `corrected`.

        Raises:
          LabelsError: they are others now and `oracle.corrected` is refuse; or a file
            cannot be read, or has an example twice and different.
        """
        statements, files = self._read()
        names = self._names()
        rows = {example: row for row, example in enumerate(ids.tolist())}
        found: dict[int, tuple[Statement, str]] = {}
        for one in statements:
            example = names.find(one.name)
            if (
                example is None
                or example not in rows
                or (one.label is None and not one.rejected)
            ):
                continue
            row = rows[example]
            words = self._changed(example, _row(labels, row), one)
            if not words:
                continue
            if row in found:
                raise LabelsError(
                    f"{one.name} is corrected twice: {found[row][0]}, and {one}. Keep "
                    "one of them"
                )
            found[row] = one, words
        if not found:
            return labels
        told = [f"{one.name} ({one}): {words}" for one, words in found.values()]
        return self._follow(ids, found, told, labels, files)

    def _follow(self, ids, found, told: list[str], labels: Truth, files) -> Truth:
        """Do what `oracle.corrected` says of corrected labels."""
        what = f"{len(told)} labels were corrected after they were trained on"
        more = "\n  ".join([*told[:10], *(["..."] if len(told) > 10 else [])])
        unlabelled = [one for one, _ in found.values() if one.label is None]
        policy = self._corrected
        if policy == "keep":
            _logger.warning(
                "%s, and those trained on are kept (oracle.corrected=keep):\n  %s",
                what,
                more,
            )
            return labels
        if policy == "refuse" or unlabelled:
            also = (
                ", but what was learnt from cannot be rejected any more"
                if policy == "take"
                else ""
            )
            raise LabelsError(
                f"{what}{also}:\n  {more}\nSet oracle.corrected=take to go on with the "
                "new ones, oracle.corrected=keep to go on with those trained on, or "
                "put the files back as they were"
            )
        revised = {name: values.copy() for name, values in labels.items()}
        for row, (one, _) in found.items():
            label = self._complete(int(ids[row]), one.label)
            for name, values in label.items():
                revised[name][row] = values
        if hosts.lead():
            self._keep(self._workdir / TAKEN / "corrected", files, {})
        _logger.warning(
            "%s, and are taken as they are now (oracle.corrected=take):\n  %s",
            what,
            more,
        )
        return revised

    def _changed(self, example: int, before: Truth, one: Statement) -> str:
        if one.label is None:
            return "was labelled, is now rejected"
        now = self._complete(example, one.label)
        return self._exchange.difference(before, now)

    def _take(self, ids: np.ndarray) -> bool:
        """Look for the labels of a choice; where they are there, keep them."""
        statements, files = self._read()
        names, wanted = self._names(), set(ids.tolist())
        said: dict[int, Statement] = {}
        problems: list[str] = []
        late = set()
        for one in statements:
            example = names.find(one.name)
            if example is None:
                problems.append(f"{one}: {_unknown(one.name, names)}")
            elif one.label is None and not one.rejected:
                pass
            elif example not in wanted:
                late.add(example)
            elif example in said and self._agree(example, one, said[example]):
                pass
            elif example in said:
                problems.append(
                    f"{one.name!r} is answered twice: {said[example]}, and {one}"
                )
            else:
                said[example] = one
        labelled = {
            i: (s, self._complete(i, s.label))
            for i, s in said.items()
            if s.label is not None
        }
        problems += self._objections(labelled, names)
        if problems:
            more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
            raise LabelsError(
                f"labels in {self._workdir / LABELS} cannot be taken, and none is:\n  "
                + "\n  ".join([*problems[:10], *more])
                + f"\nWhat is asked for stands in {self._handout.folder(self._cycle())}"
            )
        order = ids.tolist()
        self._missing = [names.requests[i].name for i in order if i not in said]
        if not said or (self._missing and not self._allow_partial):
            return False
        self._tell_late(late, names)
        done = [i for i in order if i in labelled]
        arrays = {
            "ids": np.array(done, np.int64),
            "rejected": np.array(
                [i for i in order if i in said and i not in labelled], np.int64
            ),
        }
        rows = [labelled[i][1] for i in done]
        for name, values in self._dataset.truth.items():
            found = np.empty((len(rows), *values.shape[1:]), values.dtype)
            for place, label in enumerate(rows):
                found[place] = label[name]
            arrays[_LABEL + name] = found
        self._keep(self._taken(self._cycle()), files, arrays)
        return True

    def _agree(self, example: int, one: Statement, other: Statement) -> bool:
        """Do two statements say the same? Some tools write the same file twice."""
        if one.label is None or other.label is None:
            return one.rejected and other.rejected
        ours, theirs = (
            self._complete(example, label) for label in (one.label, other.label)
        )
        return not self._exchange.difference(ours, theirs)

    def _objections(
        self, labelled: dict[int, tuple[Statement, Truth]], names: Names
    ) -> list[str]:
        """What is against labels: one by one, and those of a file together."""
        problems: list[str] = []
        files: dict[str, list[tuple[Request, Truth]]] = {}
        for example, (one, label) in labelled.items():
            request = names.requests[example]
            words = self._exchange.objection(request, label)
            if one.size not in (None, request.size):
                words = (
                    f"it is of a picture of {one.size[0]} x {one.size[1]} pixels, and "
                    f"{request.size[0]} x {request.size[1]} were handed out"
                )
            if words:
                problems.append(f"{one}: {one.name!r}: {words}")
            files.setdefault(one.file, []).append((request, label))
        for file, answered in files.items():
            words = self._exchange.doubt(answered)
            if words:
                problems.insert(0, f"{file}: {words}")
        return problems

    def _complete(self, example: int, label: Truth) -> Truth:
        """A label with all that a data set has of an example.

        What stands beside labels there (sizes that scores are measured in) is the data
        set's own.
        """
        return {
            name: np.asarray(label.get(name, values[example]), values.dtype)
            for name, values in self._dataset.truth.items()
        }

    def _tell_late(self, late: set[int], names: Names) -> None:
        """Tell of labels of earlier cycles that nobody waits for any more."""
        bought = {
            example
            for path in self._workdir.glob(f"{TAKEN}/cycle_*/{ANSWERS}")
            for found in [read_answers(path)]
            for example in [*found.ids.tolist(), *found.rejected.tolist()]
        }
        rest = [names.requests[i].name for i in sorted(late - bought)]
        if rest:
            _logger.warning(
                "%d labels of earlier cycles came late, and are taken when their "
                "images are chosen again: %s",
                len(rest),
                listed(rest),
            )

    def _read(self) -> tuple[list[Statement], list[Path]]:
        return read_folder(
            self._workdir / LABELS, self._exchange, self._workdir / FOLDER
        )

    def _names(self) -> Names:
        """All that was ever handed out, by name."""
        folders = sorted(
            path.parent
            for place in (TAKEN, FOLDER)
            for path in self._workdir.glob(f"{place}/cycle_*/{INDEX}")
        )
        requests = [one for folder in folders for one in read_index(folder)]
        return Names(requests, self._dataset.files)

    def _keep(self, folder: Path, files: Sequence[Path], arrays: dict) -> None:
        """Keep copies of files of labels, what was asked for, and what was taken."""
        asked = self._handout.folder(self._cycle()) / INDEX
        with atomic_folder(folder) as temporary:
            for path in files:
                target = temporary / path.relative_to(self._workdir)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            if arrays:
                shutil.copyfile(asked, temporary / INDEX)
                records.write_npz(temporary / ANSWERS, arrays)

    def _cycle(self) -> int:
        """The cycle that chose last, by the records."""
        return records.read_cycles(self._workdir)[-1]["cycle"]

    def _taken(self, cycle: int) -> Path:
        return taken_in(self._workdir, cycle)


def _by_lead(work: Callable[[], bool]) -> bool:
    """What the lead finds, on every host; where it fails, none waits for it.

    Raises:
      LabelsError: it has failed; on the lead its own error.
    """
    found, problem = False, None
    if hosts.lead():
        try:
            found = work()
        except Exception as error:  # told below
            problem = error
    outcome = hosts.agree(-1.0 if problem else float(found))
    if problem is not None:
        raise problem
    if outcome < 0:
        raise LabelsError("the first host cannot go on; it says why")
    return bool(outcome)


def taken_in(workdir, cycle: int) -> Path:
    """Where what was taken in a cycle is kept."""
    return Path(workdir) / TAKEN / f"cycle_{cycle:02d}"


def read_answers(path: Path) -> Answers:
    """What was taken in a cycle.

    Raises:
      WorkdirError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        labels = {
            name.removeprefix(_LABEL): values
            for name, values in arrays.items()
            if name.startswith(_LABEL)
        }
        return Answers(arrays["ids"], labels, arrays["rejected"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise records.WorkdirError(f"{path} is damaged: {error}") from error


def _unknown(name: str, names: Names) -> str:
    """Why it is not known which picture a name is of."""
    alike = names.alike(name)
    if not alike:
        return f"{name!r} was never asked for"
    return f"{name!r} may be {' or '.join(alike)}: it is to have its folder before it"


def _row(labels: Truth, row: int) -> Truth:
    return {name: np.asarray(values[row]) for name, values in labels.items()}
