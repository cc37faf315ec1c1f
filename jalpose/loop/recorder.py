"""What a run writes of its events: records, pictures, TensorBoard and the screen."""

import collections
import contextlib
import io
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from jalpose.data.dataset import Dataset
from jalpose.evaluation.measures import share_fallen
from jalpose.evaluation.stopping import gains
from jalpose.loop import pictures, wording
from jalpose.loop.clock import throughput_record
from jalpose.loop.context import RunContext
from jalpose.loop.events import (
    Event,
    Finished,
    LabelsCame,
    Measured,
    Passed,
    Selected,
    StageBegun,
    StepsTaken,
    Trained,
    Waiting,
)
from jalpose.report.stopping import hint
from jalpose.runtime.screen import Screen
from jalpose.storage import records
from jalpose.storage.arrays import (
    BOUGHT_IDS,
    BOUGHT_SQUARED_NORMS,
    EXPECTED_CLICKS,
    GROUP_NUMBERS,
    IDS,
    TEST_IDS,
    TEST_LOSSES,
    TRUE_SQUARED_NORMS,
)
from jalpose.training.plan import NETWORK


class Silence(contextlib.nullcontext):
    """A stand-in for the `Recorder` on a host that writes nothing."""

    def __enter__(self):
        return self

    def take(self, event: Event, clock: dict) -> None:
        """Do nothing: the lead's clock is the one that is saved."""


class Recorder:
    """Writes down what events bring: records, pictures, TensorBoard and the screen.

    Args:
      context: of the run.
      workdir: of the run.
      screen: for progress and lines.
    """

    def __init__(self, context: RunContext, workdir, screen: Screen):
        self._config, self._workdir = context.config, Path(workdir)
        self._context, self._screen = context, screen
        self._board = None
        if context.config.output.tensorboard:
            from tensorboardX import SummaryWriter

            logging.getLogger("tensorboardX").setLevel(logging.ERROR)
            self._board = SummaryWriter(str(self._workdir / "tensorboard"))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._screen.end()
        if self._board is not None:
            self._board.close()

    def take(self, event: Event, clock: dict) -> None:
        """Write down one event; `clock` is of its cycle so far."""
        match event:
            case StepsTaken():
                self._take_steps(event)
            case Passed():
                self._screen.progress(wording.passed(event), event.done, event.total)
            case Trained():
                self._take_trained(event, clock)
            case Selected():
                self._take_selected(event, clock)
            case Measured():
                self._take_measured(event, clock)
            case StageBegun():
                self._screen.end()
            case LabelsCame():
                self._take_labels_came(event)
            case Waiting() | Finished():
                pass

    def _take_steps(self, event: StepsTaken):
        values = dict(event.means)
        if event.heldout_loss is not None:
            values["heldout_loss"] = event.heldout_loss
        if event.stage == NETWORK:
            step = self._steps_before(event.cycle) + event.step
            folder, shown = "train", "loss"
            if event.learning_rate_scale is not None:
                values["learning_rate_scale"] = event.learning_rate_scale
        else:  # on an axis of its own in every cycle
            step = event.step
            folder = f"train_{event.stage.replace(' ', '_')}/cycle_{event.cycle:02d}"
            shown = "head_loss" if event.stage == "head" else "loss"
        for name, value in values.items():
            self._scalar(f"{folder}/{name}", value, step)
        what = "" if event.stage == NETWORK else f" of {event.stage}"
        self._screen.progress(
            f"cycle {event.cycle} training{what}",
            event.step,
            event.total,
            f"{shown.replace('_', ' ')} {values[shown]:.3f}",
        )

    def _take_trained(self, event: Trained, clock):
        metrics, labels = dict(event.metrics), self._context.labels
        metrics |= self._norms_fallen(event)
        records.write_arrays(self._workdir, event.cycle, **event.arrays)
        stopping = self._stopping(event)
        records.write_cycle(
            self._workdir,
            {
                "cycle": event.cycle,
                "num_labelled": event.num_labelled,
                "metrics": metrics,
                **({} if stopping is None else {"stopping": stopping}),
                "acquisition": None,
                "seconds": clock["seconds"],
                "throughput": throughput_record(clock),
            },
        )
        step = self._steps_before(event.cycle + 1)
        key = labels.keys.key
        for name in (key, "test_loss", f"train_{key}", "train_loss"):
            if metrics.get(name) is not None:
                self._scalar(f"test/{name}", metrics[name], step)
        for part, value in metrics[labels.keys.parts].items():
            self._scalar(f"test_{key}/{part.replace(' ', '_')}", value, step)
        if self._config.output.images:
            self._picture(
                "test",
                lambda: pictures.test_sheet(
                    self._context.dataset,
                    labels,
                    event.arrays,
                    self._config.output.images,
                ),
                event.cycle,
                step,
            )
        self._screen.end()
        self._screen.line(
            f"cycle {event.cycle}: {event.num_labelled} labelled, "
            f"{labels.summary(metrics)}, {clock['seconds']:.0f} s"
        )
        said = hint(stopping, metrics["test_loss"])
        if said:
            self._screen.line(f"cycle {event.cycle}: {said}")
        for line in wording.below_baseline(labels.keys, metrics):
            self._screen.line(line)

    def _stopping(self, event: Trained) -> dict | None:
        """What the last labels gained and the next may; None where nobody knows."""
        past = [
            c for c in records.read_cycles(self._workdir) if c["cycle"] < event.cycle
        ]
        if not past:
            return None
        names = (TEST_IDS, TEST_LOSSES)
        before = records.read_arrays(self._workdir, event.cycle - 1, names)
        if not np.array_equal(before[TEST_IDS], event.arrays[TEST_IDS]):
            return None
        groups = self._context.dataset.groups
        return gains(
            np.array([*(c["num_labelled"] for c in past), event.num_labelled]),
            np.array(
                [
                    *(c["metrics"]["test_loss"] for c in past),
                    event.metrics["test_loss"],
                ],
                np.float64,
            ),
            before[TEST_LOSSES],
            event.arrays[TEST_LOSSES],
            None
            if groups is None
            else np.array([groups[i] for i in event.arrays[TEST_IDS].tolist()]),
        )

    def _norms_fallen(self, event: Trained) -> dict:
        """Metric: of what was bought last, the share whose gradient norm has fallen."""
        if BOUGHT_IDS not in event.arrays:
            return {}
        names = (IDS, TRUE_SQUARED_NORMS)
        before = records.read_arrays(self._workdir, event.cycle - 1, names)
        ids, norms = event.arrays[BOUGHT_IDS], event.arrays[BOUGHT_SQUARED_NORMS]
        # Where fewer were bought than the budget, earlier ones are among them.
        there = np.isin(ids, before[IDS])
        ids, norms = ids[there], norms[there]
        share = share_fallen(before[IDS], before[TRUE_SQUARED_NORMS], ids, norms)
        return {"norms_fallen": share}

    def _take_selected(self, event: Selected, clock):
        dataset = self._context.dataset
        numbers = group_numbers(dataset, event.arrays[IDS])
        more = {} if numbers is None else {GROUP_NUMBERS: numbers}
        records.add_arrays(self._workdir, event.cycle, **event.arrays, **more)
        rows = selection_rows(dataset, event.arrays)
        records.write_selection(self._workdir, event.cycle, rows)
        acquisition = {**event.acquisition, "seconds": clock["acquisition"]}
        groups = groups_chosen(dataset, event.arrays["selected"])
        if groups:
            acquisition["groups"] = groups
        self._add_to_record(event.cycle, acquisition=acquisition)
        self._screen.end()
        self._screen.line(
            f"cycle {event.cycle}: {len(event.arrays['selected'])} of "
            f"{acquisition['num_scored']} chosen by {acquisition['method']} in "
            f"{clock['acquisition']:.0f} s"
            + (
                f", expected to cost {acquisition[EXPECTED_CLICKS]} clicks"
                if EXPECTED_CLICKS in acquisition
                else ""
            )
        )
        for line in wording.chosen(acquisition):
            self._screen.line(f"cycle {event.cycle}: {line}")

    def _take_measured(self, event: Measured, clock):
        records.add_arrays(self._workdir, event.cycle, **event.arrays)
        measures = {**event.measures, "seconds": clock["measures"]}
        found = throughput_record(clock)
        self._add_to_record(event.cycle, measures=measures, throughput=found)
        self._screen.end()
        for line in wording.measured(measures):
            self._screen.line(f"cycle {event.cycle}: {line}")
        if self._config.output.images:
            labels = self._context.labels
            names = ("ids", "selected", "scores", *labels.recorded)
            arrays = records.read_arrays(self._workdir, event.cycle, names)
            self._picture(
                "chosen",
                lambda: pictures.chosen_sheet(
                    self._context.dataset,
                    labels,
                    arrays,
                    self._config.output.images,
                    truth=self._context.oracle.simulated,
                ),
                event.cycle,
                self._steps_before(event.cycle + 1),
            )
        self._screen.end()

    def _take_labels_came(self, event: LabelsCame):
        if self._context.oracle.simulated:
            return
        unanswered = event.asked - event.count - event.rejected
        answers = {
            "asked": event.asked,
            "labelled": event.count,
            "rejected": event.rejected,
            "unanswered": unanswered,
        }
        self._add_to_record(event.cycle - 1, answers=answers)
        more = f", {event.rejected} rejected" if event.rejected else ""
        more += f", {unanswered} left in the pool" if unanswered else ""
        self._screen.line(
            f"cycle {event.cycle}: {event.count} of {event.asked} labels came{more}"
        )

    def _add_to_record(self, cycle, **found):
        record = records.read_cycles(self._workdir)[cycle]
        records.write_cycle(self._workdir, {**record, **found})

    def _steps_before(self, number: int) -> int:
        """Training steps of all cycles before `number`, for TensorBoard's axis."""
        return sum(self._context.plan.total_steps(c) for c in range(number))

    def _scalar(self, name, value, step):
        if self._board is not None:
            self._board.add_scalar(name, value, step)

    def _picture(self, name, draw, number, step):
        try:
            image = draw()
        except Exception as error:  # a run that took hours does not end for a picture
            self._screen.end()
            self._screen.line(
                f"warning: no picture {name!r} of cycle {number}: "
                f"{type(error).__name__}: {error}"
            )
            return
        if image is None:
            return
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        path = self._workdir / "pictures" / f"cycle_{number:02d}_{name}.png"
        records.atomic_write_bytes(path, buffer.getvalue())
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HWC")


def groups_chosen(dataset: Dataset, selected: np.ndarray) -> dict[str, dict[str, int]]:
    """Examples of each group in the whole pool, and of it chosen, by the group's name.

    Groups are the videos or sequences that a set names, else `Dataset.groups`. {} of a
    set without, and where each image is its own.
    """
    names = _group_names(dataset)
    if names is None:
        return {}
    pool, chosen = (
        collections.Counter(names[i] for i in ids.tolist() if names[i])
        for ids in (dataset.pool, selected)
    )
    return {name: {"pool": pool[name], "chosen": chosen[name]} for name in sorted(pool)}


def score_of(arrays: dict, row: int) -> float:
    """The score of a row; without one, the distance at which it was picked."""
    score = arrays["scores"][row]
    picked = arrays.get("pick_distance")
    return score if picked is None or np.isfinite(score) else picked[row]


def group_numbers(dataset: Dataset, ids: np.ndarray) -> np.ndarray | None:
    """Place of each id's group in `groups_chosen`: int32 [M], -1 of none.

    None of a set without groups.
    """
    names = _group_names(dataset)
    if names is None:
        return None
    known = sorted({names[i] for i in dataset.pool.tolist()} - {""})
    places = {name: place for place, name in enumerate(known)}
    return np.array([places.get(names[i], -1) for i in ids.tolist()], np.int32)


def _group_names(dataset: Dataset) -> tuple[str, ...] | None:
    if dataset.videos is not None:
        return dataset.videos
    return None if dataset.groups == dataset.files else dataset.groups


def selection_rows(dataset: Dataset, arrays: dict) -> list[dict]:
    """Rows of a selection's CSV: rank, id, key, file, score and the explanation."""
    rows = []
    for rank, example in enumerate(arrays["selected"].tolist(), start=1):
        position = int(np.searchsorted(arrays["ids"], example))
        row = {
            "rank": rank,
            "id": example,
            "key": dataset.keys[example],
            "file": dataset.files[example],
            "score": score_of(arrays, position),
        }
        if "neighbour_ids" in arrays:
            pairs = zip(
                arrays["neighbour_ids"][position].tolist(),
                arrays["neighbour_probabilities"][position].tolist(),
                strict=True,
            )
            row["neighbours"] = "|".join(f"{dataset.keys[i]}:{p:.6g}" for i, p in pairs)
        rows.append(row)
    return rows
