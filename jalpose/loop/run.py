"""The only effectful loop: restore, advance, have it written down, save."""

import functools
import os
import time
from collections.abc import Collection

import jax
import numpy as np
from ml_collections import ConfigDict

from jalpose.acquisition.registry import METHODS
from jalpose.loop import checkpoints, cycle
from jalpose.loop.conclusion import conclude
from jalpose.loop.context import Problem
from jalpose.loop.recorder import Recorder, Silence, new_clock
from jalpose.models.registry import MODELS
from jalpose.pergrad.api import ENGINES
from jalpose.runtime import hosts, provenance, sharding, throughput
from jalpose.runtime.profiler import Traces
from jalpose.runtime.screen import Screen
from jalpose.settings.keys import (
    HOST_KEYS,
    RUNTIME_KEYS,
    ConfigError,
    from_base,
    seed_of,
)
from jalpose.settings.validation import refuse_experiment, uneven_splits, validate
from jalpose.storage import records
from jalpose.tasks.pose.benchmarks import SOURCES, load_dataset

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
    screen = (screen or Screen()) if hosts.lead() else Screen(silent=True)
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
    if hosts.lead():
        conclude(config, workdir, runs, screen)
    hosts.barrier("concluded")


def _check_hosts(config, workdir):
    """Raise ClusterError where the hosts were not started alike."""
    about = provenance.describe(config)
    keys = records.config_leaves(
        {"config": about["config"], "versions": about["versions"]}
    )
    mine = tuple(f"config.{key}." for key in HOST_KEYS)
    hosts.check_same_facts(
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
    if not hosts.lead():
        hosts.barrier("dataset")
    try:
        dataset = load_dataset(config.data, seed_of(config, "initial"))
    finally:
        if hosts.lead():
            hosts.barrier("dataset")
    if hosts.size() > 1:
        hosts.check_same_examples(dataset.files, dataset.checksums())
        # Of all images that would be reading the data once for nothing: some.
        last = len(dataset.keys) - 1
        some = np.unique(np.linspace(0, last, IMAGES_COMPARED).round().astype(int))
        files = [dataset.files[i] for i in some]
        hosts.check_same_examples(files, dataset.image_checksums(some))
    return dataset


def run_one(problem: Problem, workdir, screen: Screen) -> None:
    """Run, or resume, one method in `workdir` until it is done."""
    records.check_workdir(workdir)
    config, lead = problem.config, hosts.lead()
    problem.journals = functools.partial(checkpoints.open_journal, workdir)
    store = checkpoints.StateStore(workdir)
    restored = store.restore(problem)
    if restored is None:
        number, state, clock = 0, cycle.start(problem), new_clock()
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
        os.path.join(workdir, "traces", f"host_{hosts.host()}"), config.output.trace
    )
    write = Recorder(config, workdir, problem, screen) if lead else Silence()
    with write as recorder, hosts.Notice() as notice:
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
                hosts.check_same(f"the choice of cycle {event.cycle}", *arrays)
            if event.variables is not None:
                checkpoints.save_model(workdir, event.cycle, event.variables)
            recorder.take(event, clock)
            # What was scored or measured is in the journal; a state adds the clock.
            important = event.kind not in ("steps", "scoring", "measuring")
            # One host's clock for all: they save together or not at all.
            since = hosts.agree(time.monotonic() - saved)
            preempted = notice.asked()
            if important or preempted or since >= config.loop.checkpoint_seconds:
                store.save(number, state, clock)
                saved = time.monotonic()
            if event.kind == "labelled" and lead:
                checkpoints.remove_journals(workdir, state.cycle)
            if preempted:
                store.close()
                raise hosts.Preempted(
                    f"saved in {workdir}; the same command goes on from there"
                )
    store.close()
    hosts.barrier("run")
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
