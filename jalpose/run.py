"""The only effectful loop: restore, advance, write records, save, show progress."""

import contextlib
import functools
import io
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jalpose import (
    checkpoints,
    cluster,
    cycle,
    pictures,
    provenance,
    records,
    sharding,
    throughput,
)
from jalpose.acquisition.registry import METHODS
from jalpose.conclusion import conclude
from jalpose.config import HOST_KEYS, RUNTIME_KEYS, ConfigError, from_base, seed_of
from jalpose.data.registry import SOURCES, load_dataset
from jalpose.models.registry import MODELS
from jalpose.pergrad.api import ENGINES
from jalpose.problem import Problem
from jalpose.screen import Screen
from jalpose.throughput import Flow, peak_bytes, rates
from jalpose.traces import Traces
from jalpose.validation import refuse_experiment, uneven_splits, validate

KNOWN: dict[str, Collection[str]] = {
    "data": SOURCES,
    "model": MODELS,
    "engine": ENGINES,
    "method": METHODS,
}

IMAGES_COMPARED = 64  # between hosts, spread over the dataset


def run(config: ConfigDict, workdir: str, screen: Screen | None = None) -> None:
    """Run, or resume, the configured run in `workdir`; then those to compare with.

    Raises:
      ConfigError: a value is not allowed or does not fit data or devices.
      WorkdirError: the workdir cannot be written or holds another run.
      DataError: files are missing or damaged.
      CheckpointError: `config.base` holds no base model.
      ClusterError: hosts differ in config, versions, data or results.
      MemoryError: a device is too small.
      Preempted: the machine was asked for; everything is saved.
    """
    screen = (screen or Screen()) if cluster.lead() else Screen(silent=True)
    refuse_experiment(config)
    validate(config, KNOWN)
    _check_hosts(config, workdir)
    records.check_workdir(workdir)
    refuse_another_config(config, workdir)
    dataset = load_on_all_hosts(config)
    problem = make_problem(config, dataset)
    for line in uneven_splits(config, problem.mesh.size):
        screen.line(f"warning: {line}")
    _warn_of_large_picks(config, problem, screen)
    runs = {config.acquisition.method: workdir}
    run_one(problem, workdir, screen)
    for method in config.loop.compare:
        other = from_base(config, method, workdir)
        runs[method] = os.path.join(workdir, "compare", method)
        refuse_another_config(other, runs[method], ignore=("base",))
        screen.line(f"{method}, from the same base model, into {runs[method]}")
        base = checkpoints.load_model(workdir, 0)
        run_one(problem.with_method(other, base), runs[method], screen)
    if cluster.lead():
        conclude(config, workdir, runs, screen)
    cluster.barrier("concluded")


def _check_hosts(config, workdir):
    """Raise ClusterError where the hosts were not started alike."""
    about = provenance.describe(config)
    keys = records.config_leaves(
        {"config": about["config"], "versions": about["versions"]}
    )
    mine = tuple(f"config.{key}." for key in HOST_KEYS)
    cluster.check_same_facts(
        {
            "--workdir": str(workdir),
            "code": about["git"],
            "device": about["device"]["kind"],
            **{k: v for k, v in keys.items() if not f"{k}.".startswith(mine)},
        }
    )


def load_on_all_hosts(config: ConfigDict):
    """The dataset of a config, the same on every host.

    The lead comes first, so that what is prepared once is there for the others if
    they share its disk.

    Raises:
      DataError: files are missing or damaged.
      ClusterError: hosts have different examples; names the first.
    """
    if not cluster.lead():
        cluster.barrier("dataset")
    try:
        dataset = load_dataset(config.data, seed_of(config, "initial"))
    finally:
        if cluster.lead():
            cluster.barrier("dataset")
    if cluster.size() > 1:
        cluster.check_same_examples(dataset.files, dataset.checksums())
        # Of all images that would be reading the data once for nothing: some.
        last = len(dataset.keys) - 1
        some = np.unique(np.linspace(0, last, IMAGES_COMPARED).round().astype(int))
        files = [dataset.files[i] for i in some]
        cluster.check_same_examples(files, dataset.image_checksums(some))
    return dataset


def run_one(problem: Problem, workdir, screen: Screen) -> None:
    """Run, or resume, one method in `workdir` until it is done."""
    records.check_workdir(workdir)
    config, lead = problem.config, cluster.lead()
    problem.journals = functools.partial(checkpoints.open_journal, workdir)
    store = checkpoints.StateStore(workdir)
    restored = store.restore(problem)
    if restored is None:
        number, state, clock = 0, cycle.start(problem), _new_clock()
        if lead:
            records.write_config(workdir, provenance.describe(config))
    else:
        number, state, clock = restored
        screen.line(f"resuming {workdir} in cycle {state.cycle}")
        _warn_of_another_device(workdir, screen)
    scoring_on = not isinstance(state.phase, cycle.Training)
    if lead:
        records.truncate_cycles(workdir, state.cycle + scoring_on)
        checkpoints.remove_journals(workdir, state.cycle)
    traces = Traces(
        os.path.join(workdir, "traces", f"host_{cluster.host()}"), config.output.trace
    )
    write = Journalist(config, workdir, problem, screen) if lead else Silence()
    with write as journalist, cluster.Notice() as notice:
        saved = time.monotonic()
        while True:
            begun = time.monotonic()
            with traces.piece():
                state, event = cycle.advance(state, problem)
            traces.saw(event)
            _charge(clock, event, time.monotonic() - begun, problem)
            number += 1
            if event.kind in ("done", "waiting"):
                break
            if event.kind == "selected":
                arrays = (event.arrays["selected"], event.arrays["scores"])
                cluster.check_same(f"the choice of cycle {event.cycle}", *arrays)
            if event.variables is not None:
                checkpoints.save_model(workdir, event.cycle, event.variables)
            journalist.take(event, clock)
            # What was scored or measured is in the journal; a state adds the clock.
            important = event.kind not in ("steps", "scoring", "measuring")
            # One host's clock for all: they save together or not at all.
            since = cluster.agree(time.monotonic() - saved)
            preempted = notice.asked()
            if important or preempted or since >= config.loop.checkpoint_seconds:
                store.save(number, state, clock)
                saved = time.monotonic()
            if event.kind == "labelled" and lead:
                checkpoints.remove_journals(workdir, state.cycle)
            if preempted:
                store.close()
                raise cluster.Preempted(
                    f"saved in {workdir}; the same command goes on from there"
                )
    store.close()
    cluster.barrier("run")
    if event.kind == "waiting":
        screen.line(f"waiting for the labels of {event.values['num']} images")


def make_problem(config: ConfigDict, dataset) -> Problem:
    """The problem of a validated config on all devices there are."""
    mesh = sharding.make_mesh()
    base = _load_base(config) if config.base else None
    return Problem(config, dataset, mesh, base)


def _load_base(config):
    record = records.read_config(config.base)
    if record is None:
        raise ConfigError(
            f"config.base={config.base!r} is not the workdir of a run: it holds no "
            f"{records.CONFIG}"
        )
    sections = ("data", "heatmap", "model")
    ours, theirs = provenance.plain(config), record["config"]
    differences = records.config_differences(
        {name: theirs.get(name) for name in sections},
        {name: ours[name] for name in sections},
        ignore=RUNTIME_KEYS,
    )
    if differences:
        raise ConfigError(
            f"the base model in {config.base} was trained under another config "
            "(base -> this run):\n  " + "\n  ".join(differences)
        )
    return checkpoints.load_model(config.base, 0)


def refuse_another_config(
    config: ConfigDict, workdir, ignore: Collection[str] = ()
) -> None:
    """Raise WorkdirError where a run of another config is in `workdir`.

    `ignore` are keys beside the runtime's: `base`, where it follows from the workdir.
    """
    record = records.read_config(workdir)
    if record is None:
        return
    differences = records.config_differences(
        record["config"], provenance.plain(config), ignore=(*RUNTIME_KEYS, *ignore)
    )
    if differences:
        raise records.WorkdirError(
            f"{workdir} holds a run of another config; choose another --workdir, or "
            "repeat that run's config. Differences (there -> now):\n  "
            + "\n  ".join(differences)
        )


def _warn_of_another_device(workdir, screen):
    record, kind = records.read_config(workdir), jax.devices()[0].device_kind
    if record and record["device"]["kind"] != kind:
        screen.line(
            f"warning: this run was begun on {record['device']['kind']} and goes on on "
            f"{kind}: it will not be the same to the bit"
        )


def _warn_of_large_picks(config, problem, screen):
    if not config.loop.cycles:
        return
    acquisition, pool = config.acquisition, len(problem.dataset.pool)
    scored = acquisition.pool_subset or pool
    for what, part, whole in (
        ("a cycle's picks", acquisition.budget, scored),
        ("all cycles' picks", acquisition.budget * config.loop.cycles, pool),
    ):
        if part > 0.4 * whole:
            screen.line(
                f"warning: {what} are {part} of {whole} images, above 40 %: methods "
                "then choose much the same"
            )


def _new_clock() -> dict:
    seconds = dict.fromkeys(("seconds", "acquisition", "measures", "compiling"), 0.0)
    return {**seconds, "training": Flow().take(), "scoring": Flow().take()}


def _charge(clock, event, seconds, problem):
    charged = _CHARGED.get(event.kind, "seconds")
    clock[charged] += seconds
    clock["compiling"] += throughput.take_compiling()
    _add(clock["training"], problem.trainer.flow.take())
    walked = problem.passes.flow.take()
    if charged != "seconds":  # else over the test set
        _add(clock["scoring"], walked)


def _add(counts, more):
    for name, count in more.items():
        counts[name] += count


_CHARGED = {
    "scoring": "acquisition",
    "selected": "acquisition",
    "measuring": "measures",
    "measured": "measures",
}


class Silence(contextlib.nullcontext):
    """In the place of a `Journalist` on a host that writes nothing."""

    def __enter__(self):
        return self

    def take(self, event: cycle.Event, clock: dict) -> None:
        """Do nothing: the lead's clock is the one that is saved."""


class Journalist:
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
        clock.update(_new_clock())

    def _add_to_record(self, cycle, **found):
        record = records.read_cycles(self._workdir)[cycle]
        records.write_cycle(self._workdir, {**record, **found})

    def _take_labelled(self, event, clock):
        clock.update(_new_clock())

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
