"""One comparison from end to end: load, measure, write, show."""

import math
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jalpose.acquisition import eglpp
from jalpose.engine_comparison import summary
from jalpose.engine_comparison.contestants import contestants, tensor_names
from jalpose.engine_comparison.measure import measure
from jalpose.engine_comparison.options import FOLDER, Options
from jalpose.loop import checkpoints, run
from jalpose.loop.context import Problem
from jalpose.report import engine_plots, engine_tables
from jalpose.runtime import provenance, sharding
from jalpose.runtime.screen import Screen
from jalpose.scoring.probe import Paused
from jalpose.settings.keys import RUNTIME_KEYS, ConfigError, seed_of
from jalpose.settings.validation import validate
from jalpose.storage import records
from jalpose.storage.journal import Journal
from jalpose.tasks.pose.benchmarks import load_dataset

# What makes a model what it is, and chooses the images; the rest may differ.
_SECTIONS = ("data", "heatmap", "model", "seed")
_IGNORED = (*RUNTIME_KEYS, "model.convolution")


def compare(
    config: ConfigDict, workdir: str, options: Options, screen: Screen | None = None
) -> Path:
    """Compare engines on a model of the run in `workdir`: the folder of the results.

    Raises:
      ConfigError: an option or value is not allowed, or the run's config is another.
      WorkdirError: nothing can be written, or the run's records are damaged.
      CheckpointError: the run has no such model.
      DataError: files are missing or damaged.
    """
    screen = screen or Screen()
    options.check()
    validate(config, run.KNOWN)
    ours = _as_eglpp(config)
    chosen = contestants(
        options.engines, ours.acquisition, ours.acquisition.eglpp.neighbours
    )
    _refuse_another_model(config, workdir)
    cycle = _cycle(workdir, options.cycle)
    out = _free_folder(Path(options.out or Path(workdir) / FOLDER))
    records.check_workdir(out)

    problem = _make_problem(ours)
    variables = checkpoints.load_model(workdir, cycle)
    variables = sharding.replicate(problem.mesh, variables)
    labelled = _labelled(problem, workdir, cycle)
    ids = problem.unlabelled(labelled, cycle, options.images)
    if len(ids) < 3:
        raise ConfigError(f"{len(ids)} images are left to compare on: 3 are the least")
    block = _block(ours.acquisition.block, len(ids), problem.mesh.size)
    found = _candidates(problem, variables, labelled, ids, screen)
    names = tensor_names(problem.model, config.data.size)
    try:
        measured = measure(
            problem,
            variables,
            ids,
            found,
            chosen,
            names,
            block=block,
            repeats=options.repeats,
            progress=screen.progress,
        )
    except MemoryError as error:
        raise ConfigError(
            f"{error}; or an engine less in --engines, or a larger acquisition.memory"
        ) from error
    screen.end()
    record = {
        "workdir": str(workdir),
        "cycle": cycle,
        "num_images": len(ids),
        "num_labelled": len(labelled),
        "num_candidates": found.rows.shape[1],
        "candidates": found.summary,
        "block": block,
        "options": options.asdict(),
        **summary.summarise(chosen, measured, ids, names, block),
        **provenance.describe(config),
    }
    arrays = summary.arrays(chosen, measured, ids, names)
    _write(out, record, arrays, summary.scores_of(measured, names))
    screen.line(engine_tables.text(record))
    screen.line(f"table, record, arrays and plots: {out}")
    return out


def _as_eglpp(config: ConfigDict) -> ConfigDict:
    """The config with nothing in it that only matters to a run."""
    ours = ConfigDict(config.to_dict())
    ours.base, ours.acquisition.method = "", "eglpp"
    ours.loop.cycles, ours.loop.compare = 0, ()
    ours.acquisition.pool_subset = 0
    return ours


def _make_problem(config: ConfigDict) -> Problem:
    dataset = load_dataset(config.data, seed_of(config, "initial"))
    mesh = sharding.make_mesh()
    return Problem(config, dataset, mesh)


def _refuse_another_model(config, workdir):
    record = records.read_config(workdir)
    if record is None:
        raise ConfigError(
            f"--workdir={workdir} is not the workdir of a run: it holds no "
            f"{records.CONFIG}. Run `python -m jalpose.main` with this --config and "
            "--workdir first"
        )
    theirs, now = record["config"], provenance.plain(config)
    differences = records.config_differences(
        {name: theirs.get(name) for name in _SECTIONS},
        {name: now[name] for name in _SECTIONS},
        ignore=_IGNORED,
    )
    if differences:
        raise ConfigError(
            f"the models in {workdir} were trained under another config: give the one "
            "they were trained under. Differences (there -> now):\n  "
            + "\n  ".join(differences)
        )


def _cycle(workdir, wanted: int) -> int:
    there = checkpoints.saved_models(workdir)
    if not there:
        raise checkpoints.CheckpointError(
            f"no model is saved in {workdir} yet: let the run finish its base training"
        )
    if wanted >= 0 and wanted not in there:
        listed = ", ".join(map(str, there))
        raise ConfigError(f"--cycle={wanted}: {workdir} has models of cycles {listed}")
    return there[-1] if wanted < 0 else wanted


def _labelled(problem: Problem, workdir, cycle: int) -> np.ndarray:
    """Ids the model of `cycle` was trained on."""
    bought = [records.read_arrays(workdir, c)["selected"] for c in range(cycle)]
    return np.concatenate([problem.dataset.initial, *bought]).astype(np.int64)


def _free_folder(wanted: Path) -> Path:
    """`wanted`, or with the first number behind it under which nothing is yet."""
    found, number = wanted, 1
    while found.exists() and not (found.is_dir() and not any(found.iterdir())):
        number += 1
        found = wanted.with_name(f"{wanted.name}-{number}")
    return found


def _block(most: int, count: int, num_devices: int) -> int:
    return min(most, math.ceil(count / num_devices) * num_devices)


def _candidates(problem: Problem, variables, labelled, ids, screen):
    journal = Journal()
    while True:
        probe = problem.probe(variables, journal)
        try:
            return eglpp.candidates(
                probe,
                problem.labelled_set(labelled),
                ids,
                **problem.method_options("eglpp"),
            )
        except Paused:
            journal = probe.journal
            screen.progress(*probe.progress)


def _write(out: Path, record: dict, arrays: dict, scores: dict) -> None:
    records.write_npz(out / "scores.npz", arrays)
    records.atomic_write_text(out / "table.txt", engine_tables.text(record))
    engine_plots.plot_all(out, record, scores)
    # Last: where it is, everything is.
    records.write_json(out / "comparison.json", record)
