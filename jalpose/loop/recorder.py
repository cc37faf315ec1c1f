"""What a run writes of its events: records, pictures, TensorBoard and the screen."""

import contextlib
import io
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from jalpose.loop import cycle, pictures
from jalpose.loop.context import Problem
from jalpose.runtime.screen import Screen
from jalpose.runtime.throughput import Flow, peak_bytes, rates
from jalpose.storage import records


def new_clock() -> dict:
    """The account of a cycle that begins: seconds by kind of work, and its flows."""
    seconds = dict.fromkeys(("seconds", "acquisition", "measures", "compiling"), 0.0)
    return {**seconds, "training": Flow().take(), "scoring": Flow().take()}


class Silence(contextlib.nullcontext):
    """In the place of a `Recorder` on a host that writes nothing."""

    def __enter__(self):
        return self

    def take(self, event: cycle.Event, clock: dict) -> None:
        """Do nothing: the lead's clock is the one that is saved."""


class Recorder:
    """Writes down what events bring: records, pictures, TensorBoard and the screen."""

    def __init__(self, config, workdir, problem: Problem, screen: Screen):
        self._config, self._workdir = config, Path(workdir)
        self._problem, self._screen = problem, screen
        self._board = None
        if config.output.tensorboard:
            from tensorboardX import SummaryWriter

            logging.getLogger("tensorboardX").setLevel(logging.ERROR)
            self._board = SummaryWriter(str(self._workdir / "tensorboard"))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._screen.end()
        if self._board is not None:
            self._board.close()

    def take(self, event: cycle.Event, clock: dict) -> None:
        """Write down one event; `clock` is of its cycle, and reset when it ends."""
        getattr(self, f"_take_{event.kind}")(event, clock)

    def _take_steps(self, event, clock):
        values, stage = event.values, event.values["stage"]
        names = ["loss", "heldout_loss", "head_loss"]
        if stage == "pose":
            step = self._steps_before(event.cycle) + values["step"]
            folder, shown = "train", "loss"
            names.append("learning_rate_scale")
        else:  # on an axis of its own in every cycle
            step = values["step"]
            folder = f"train_{stage.replace(' ', '_')}/cycle_{event.cycle:02d}"
            shown = "head_loss" if stage == "head" else "loss"
        for name in names:
            if name in values:
                self._scalar(f"{folder}/{name}", values[name], step)
        what = "" if stage == "pose" else f" of {stage}"
        self._screen.progress(
            f"cycle {event.cycle} training{what}",
            values["step"],
            values["total"],
            f"{shown.replace('_', ' ')} {values[shown]:.3f}",
        )

    def _take_stage(self, event, clock):
        self._screen.end()

    def _take_trained(self, event, clock):
        metrics = event.values["metrics"]
        records.write_arrays(self._workdir, event.cycle, **event.arrays)
        records.write_cycle(
            self._workdir,
            {
                "cycle": event.cycle,
                "num_labelled": event.values["num_labelled"],
                "metrics": metrics,
                "acquisition": None,
                "seconds": clock["seconds"],
                "throughput": throughput_record(clock),
            },
        )
        step = self._steps_before(event.cycle + 1)
        for name in ("pck", "test_loss"):
            self._scalar(f"test/{name}", metrics[name], step)
        for joint, value in metrics["pck_per_joint"].items():
            self._scalar(f"test_pck/{joint.replace(' ', '_')}", value, step)
        if self._config.output.images:
            lengths = self._problem.judge.reference_lengths(event.arrays["test_ids"])
            sheet = pictures.test_sheet(
                self._problem.dataset,
                event.arrays,
                self._config.output.images,
                reach=metrics["pck_threshold"] * lengths,
            )
            self._picture("test", sheet, event.cycle, step)
        self._screen.end()
        self._screen.line(
            f"cycle {event.cycle}: {event.values['num_labelled']} labelled, "
            f"{metrics['pck_name']} {metrics['pck']:.1%} on "
            f"{metrics['num_images']} test images ({metrics['num_left_out']} left out; "
            f"mean pose {metrics['mean_pose_pck']:.1%}), {clock['seconds']:.0f} s"
        )

    def _take_scoring(self, event, clock):
        values = event.values
        self._screen.progress(
            f"cycle {event.cycle} {values['pass']}", values["done"], values["total"]
        )

    def _take_measuring(self, event, clock):
        self._take_scoring(event, clock)

    def _take_selected(self, event, clock):
        records.add_arrays(self._workdir, event.cycle, **event.arrays)
        rows = selection_rows(self._problem.dataset, event.arrays)
        records.write_selection(self._workdir, event.cycle, rows)
        acquisition = {**event.values, "seconds": clock["acquisition"]}
        self._add_to_record(event.cycle, acquisition=acquisition)
        self._screen.end()
        self._screen.line(
            f"cycle {event.cycle}: {len(event.arrays['selected'])} of "
            f"{event.values['num_scored']} chosen by {event.values['method']} in "
            f"{clock['acquisition']:.0f} s"
        )

    def _take_measured(self, event, clock):
        records.add_arrays(self._workdir, event.cycle, **event.arrays)
        measures = {**event.values, "seconds": clock["measures"]}
        found = throughput_record(clock)
        self._add_to_record(event.cycle, measures=measures, throughput=found)
        if self._config.output.images:
            arrays = records.read_arrays(
                self._workdir, event.cycle, ("ids", "selected", "scores", "joints")
            )
            sheet = pictures.chosen_sheet(
                self._problem.dataset, arrays, self._config.output.images
            )
            if sheet is not None:
                step = self._steps_before(event.cycle + 1)
                self._picture("chosen", sheet, event.cycle, step)
        self._screen.end()
        clock.update(new_clock())

    def _add_to_record(self, cycle, **found):
        record = records.read_cycles(self._workdir)[cycle]
        records.write_cycle(self._workdir, {**record, **found})

    def _take_labelled(self, event, clock):
        clock.update(new_clock())

    def _steps_before(self, number: int) -> int:
        """Training steps of all cycles before `number`, for TensorBoard's axis."""
        return sum(self._problem.stages.total_steps(c) for c in range(number))

    def _scalar(self, name, value, step):
        if self._board is not None:
            self._board.add_scalar(name, value, step)

    def _picture(self, name, image, number, step):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        path = self._workdir / "pictures" / f"cycle_{number:02d}_{name}.png"
        records.atomic_write_bytes(path, buffer.getvalue())
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HWC")


def throughput_record(clock: dict) -> dict:
    """A cycle's throughput so far, for its record.

    Images a second and share of time waiting for data, in training and in scoring
    (choosing and measuring together); seconds spent compiling, in the first cycle
    what came before it too; peak memory in bytes.
    """
    return {
        "training": rates(**clock["training"]),
        "scoring": rates(**clock["scoring"]),
        "seconds_compiling": clock["compiling"],
        "peak_bytes": peak_bytes(),
    }


def selection_rows(dataset, arrays: dict) -> list[dict]:
    """Rows of a selection's CSV: rank, id, key, file, score and the explanation."""
    rows = []
    for rank, example in enumerate(arrays["selected"].tolist(), start=1):
        position = int(np.searchsorted(arrays["ids"], example))
        row = {
            "rank": rank,
            "id": example,
            "key": dataset.keys[example],
            "file": dataset.files[example],
            "score": arrays["scores"][position],
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
