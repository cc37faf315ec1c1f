"""One comparison from end to end: load, measure, write, show."""

import math
from pathlib import Path

from ml_collections import ConfigDict

from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.acquisition.method import Pool
from jalpose.engine_comparison import summary
from jalpose.engine_comparison.contestants import contestants, tensor_names
from jalpose.engine_comparison.measure import measure
from jalpose.engine_comparison.options import FOLDER, Options
from jalpose.loop import compatibility, configs, run, saved_models
from jalpose.loop.context import RunContext, make_context, options_for
from jalpose.loop.finished import (
    cycle_of,
    free_folder,
    refuse_another_model,
    state_of,
)
from jalpose.loop.programs import Programs
from jalpose.models.registry import MODELS
from jalpose.report import engine_plots, engine_tables
from jalpose.runtime import provenance, sharding
from jalpose.runtime.screen import Screen
from jalpose.scoring.probe import Paused
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import plain
from jalpose.storage import locks, records
from jalpose.storage.journal import Journal


def compare(
    config: ConfigDict,
    workdir: str,
    options: Options,
    screen: Screen | None = None,
    programs: Programs | None = None,
) -> Path:
    """Compare engines on a model of the run in `workdir`: the folder of the results.

    Args:
      config: of the run.
      workdir: of the run.
      options: of the comparison.
      screen: for progress and the table; None: the standard output.
      programs: what is compiled already; None: nothing, for all devices.

    Raises:
      ConfigError: an option or value is not allowed, or the run's config is another.
      WorkdirError: nothing can be written, or the run's records are damaged.
      CheckpointError: the run has no such model.
      DataError: files are missing or damaged.
    """
    screen = screen or Screen()
    options.check()
    configs.check(config)
    ours = as_eglpp(config)
    chosen = contestants(
        options.engines, ours.acquisition, ours.acquisition.eglpp.neighbours
    )
    refuse_another_model(config, workdir)
    cycle = cycle_of(workdir, options.cycle)
    out = free_folder(Path(options.out or Path(workdir) / FOLDER))
    records.check_workdir(out)
    with locks.alone_in(out, screen.line):
        return _compare_into(
            out, config, ours, workdir, cycle, options, chosen, screen, programs
        )


def _compare_into(
    out, config, ours, workdir, cycle, options, chosen, screen, programs
) -> Path:
    """Compare engines on the model of `cycle`, by the config `ours`."""
    dataset = run.load_dataset(ours, screen)
    compatibility.refuse_model_of_other_data(workdir, dataset, "--workdir")
    programs = programs or Programs(sharding.make_mesh())
    context = make_context(ours, dataset, programs)
    variables = saved_models.load_model(workdir, cycle)
    variables = sharding.replicate(programs.mesh, variables)
    state = state_of(dataset, workdir, cycle)
    ids = context.unlabelled(state.taken, cycle, options.images)
    if len(ids) < 3:
        raise ConfigError(f"{len(ids)} images are left to compare on: 3 are the least")
    block = _block(ours.acquisition.block, len(ids), programs.mesh.size)
    pool = Pool(unlabelled=ids, labelled=context.labelled_set(state))
    found = _candidates(context, variables, pool, screen)
    names = tensor_names(context.model, config.data.size)
    try:
        measured = measure(
            context,
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
    last = MODELS[config.model.name].last_layer
    screen.end()
    record = {
        "workdir": str(workdir),
        "cycle": cycle,
        "num_images": len(ids),
        "num_labelled": len(state.labelled),
        "num_candidates": found.rows.shape[1],
        "candidates": found.summary,
        "block": block,
        "options": options.asdict(),
        **summary.summarise(chosen, measured, ids, names, block, last),
        **provenance.describe(plain(config)),
    }
    arrays = summary.arrays(chosen, measured, ids, names, last)
    _write(out, record, arrays, summary.scores_of(measured, names, last))
    screen.line(engine_tables.text(record))
    screen.line(f"table, record, arrays and plots: {out}")
    return out


def as_eglpp(config: ConfigDict) -> ConfigDict:
    """The config with nothing in it that only matters to a run."""
    ours = ConfigDict(config.to_dict())
    ours.base, ours.acquisition.method = "", "eglpp"
    ours.loop.cycles, ours.loop.compare = 0, ()
    ours.acquisition.pool_subset = 0
    return ours


def _block(most: int, count: int, num_devices: int) -> int:
    return min(most, math.ceil(count / num_devices) * num_devices)


def _candidates(context: RunContext, variables, pool: Pool, screen: Screen):
    method = EglPlusPlus(**options_for(context.config, "eglpp"))
    journal = Journal()
    while True:
        probe = context.probe(variables, journal)
        try:
            return method.candidates(probe, pool)
        except Paused:
            journal = probe.journal
            screen.progress(*probe.progress)


def _write(out: Path, record: dict, arrays: dict, scores: dict) -> None:
    records.write_npz(out / "scores.npz", arrays)
    records.atomic_write_text(out / "table.txt", engine_tables.text(record))
    engine_plots.plot_all(out, record, scores)
    # Last: where it is, everything is.
    records.write_json(out / "comparison.json", record)
