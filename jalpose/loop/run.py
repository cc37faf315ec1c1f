"""The only effectful loop: restore, advance, have it written down, save."""

import dataclasses
import os
import time
from functools import partial

import numpy as np
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.loop import (
    advance,
    clock,
    compatibility,
    configs,
    duplicates,
    identity,
    saved_models,
    saved_states,
    transfer,
    wording,
)
from jalpose.loop.cautions import another_device, cautions
from jalpose.loop.conclusion import conclude
from jalpose.loop.context import RunContext, make_context
from jalpose.loop.events import (
    Event,
    Finished,
    LabelsCame,
    Passed,
    Selected,
    StepsTaken,
    Trained,
    Waiting,
)
from jalpose.loop.programs import Programs
from jalpose.loop.recorder import Recorder, Silence
from jalpose.loop.state import (
    AwaitingLabels,
    CycleState,
    Done,
    Measuring,
    Scoring,
    Training,
)
from jalpose.loop.workdirs import alone_in, write_extension
from jalpose.models import encoders
from jalpose.oracles import registry as oracles
from jalpose.oracles.oracle import LabelsAwaited
from jalpose.runtime import hosts, provenance, sharding, throughput
from jalpose.runtime.profiler import Traces
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import leaves, plain
from jalpose.settings.keys import HOST_KEYS, from_base, seed_of
from jalpose.settings.validation import refuse_experiment
from jalpose.storage import records
from jalpose.storage.locks import Lock
from jalpose.tasks import registry as tasks

IMAGES_COMPARED = 64  # between hosts, spread over the dataset


def run(config: ConfigDict, workdir: str, screen: Screen | None = None) -> None:
    """Run, or resume, the configured run in `workdir`; then those to compare with.

    Raises:
      ConfigError: a value is not allowed or does not fit data or devices.
      WorkdirError: the workdir cannot be written or holds another run.
      DataError: files are missing or damaged.
      CheckpointError: `config.base` or `config.transfer` holds no model.
      ClusterError: hosts differ in config, versions, data or results.
      MemoryError: a device is too small.
      LabelsError: labels that people gave cannot be taken.
      LabelsAwaited: people are to label what was chosen; everything is saved.
      Preempted: it was asked to end; everything is saved.
    """
    screen = (screen or Screen()) if hosts.lead() else Screen(silent=True)
    refuse_experiment(config)
    configs.check(config)
    _check_hosts(config, workdir)
    with alone_in(workdir, screen) as lock:
        _run_all(config, workdir, screen, lock)


def _run_all(config, workdir, screen: Screen, lock):
    compatibility.refuse_another_config(config, workdir)
    screen.line(wording.begins(config, workdir))
    with screen.doing("opening the data"):
        dataset = load_on_all_hosts(config, screen)
    programs = Programs(sharding.make_mesh())
    initial = transfer.initial_weights(config, workdir)
    context = make_context(
        config,
        dataset,
        programs,
        base=load_base(config, dataset),
        initial=initial,
        oracle=oracles.make_oracle(config, dataset, workdir),
    )
    for line in cautions(config, dataset, programs.mesh.size):
        screen.line(f"warning: {line}")
    runs = {config.acquisition.method: workdir}
    if isinstance(run_one(context, workdir, screen, lock), Waiting):
        raise LabelsAwaited
    for method in config.loop.compare:
        other = from_base(config, method, workdir)
        runs[method] = os.path.join(workdir, "compare", method)
        compatibility.refuse_another_config(other, runs[method], ignore=("base",))
        screen.line(f"{method}, from the same base model, into {runs[method]}")
        base = saved_models.load_model(workdir, 0)
        compared = make_context(other, dataset, programs, base=base, initial=initial)
        with alone_in(runs[method], screen) as other_lock:
            run_one(compared, runs[method], screen, other_lock)
    if hosts.lead():
        conclude(config, workdir, runs, screen)
    hosts.barrier("concluded")


def _check_hosts(config, workdir):
    """Raise ClusterError where the hosts were not started alike."""
    about = provenance.describe(plain(config))
    keys = leaves({"config": about["config"], "versions": about["versions"]})
    mine = tuple(f"config.{key}." for key in HOST_KEYS)
    hosts.check_same_facts(
        {
            "--workdir": str(workdir),
            "code": about["git"],
            "device": about["device"]["kind"],
            **{k: v for k, v in keys.items() if not f"{k}.".startswith(mine)},
        }
    )


def load_dataset(config: ConfigDict, screen: Screen | None = None) -> Dataset:
    """The dataset of a config, seen through its encoder if it has one.

    Raises:
      DataError: files are missing or damaged, or too few are labelled at the start to
        hold a tenth out.
    """
    sources = tasks.sources_of(config.task)
    dataset = sources.load_dataset(config.data, seed_of(config, "initial"))
    dataset = encoders.seen_through(config, dataset, screen)
    return dataset.holding_out(config.training.heldout == "tenth")


def load_on_all_hosts(config: ConfigDict, screen: Screen | None = None) -> Dataset:
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
        dataset = load_dataset(config, screen)
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


def run_one(
    context: RunContext, workdir, screen: Screen, lock: Lock | None = None
) -> Finished | Waiting:
    """Run, or resume, one method in `workdir` until it is done or waits for labels.

    Args:
      context: of the run; its journals are taken from `workdir`.
      workdir: of the run.
      screen: for progress and lines.
      lock: of the workdir, held by whoever calls; None: on a host that does not write.

    Returns:
      Why it ended.
    """
    records.check_workdir(workdir)
    config, lead = context.config, hosts.lead()
    context = context.with_journals(partial(saved_states.open_journal, workdir))
    store = saved_states.StateStore(workdir)
    with screen.doing("preparing the network", throughput.compiling):
        number, state, account = _begin(context, store, workdir, screen)
    number, state = _with_corrections(number, state, account, context, store)
    scoring_on = not isinstance(state.phase, Training)
    if lead:
        records.truncate_cycles(workdir, state.cycle + scoring_on)
        saved_states.remove_journals(workdir, state.cycle)
    traces = Traces(
        os.path.join(workdir, "traces", f"host_{hosts.host()}"), config.output.trace
    )
    write = Recorder(context, workdir, screen) if lead else Silence()
    with write as recorder, hosts.Notice() as notice:
        saved = time.monotonic()
        while True:
            if isinstance(state.phase, AwaitingLabels):
                context.oracle.request(state.phase.chosen)
            begun = time.monotonic()
            told = screen.doing(wording.doing(state), throughput.compiling)
            with traces.piece(), told:
                state, event = advance.advance(state, context)
            traces.next_is(wording.piece_after(event))
            clock.charge(account, event, time.monotonic() - begun)
            number += 1
            if isinstance(event, Finished | Waiting):
                break
            _agree(event)
            if lock is not None:
                lock.check()
            if isinstance(event, Trained):
                saved_models.save_model(workdir, event.cycle, event.variables)
            recorder.take(event, account)
            if clock.ends_with(event):
                account = clock.new_clock()
            # What was scored or measured is in the journal; a state adds the clock.
            important = not isinstance(event, StepsTaken | Passed)
            # One host's clock for all: they save together or not at all.
            since = hosts.agree(time.monotonic() - saved)
            preempted = notice.asked()
            if important or preempted or since >= config.loop.checkpoint_seconds:
                store.save(number, state, account)
                saved = time.monotonic()
            if lead and isinstance(event, LabelsCame):
                saved_states.remove_journals(workdir, state.cycle)
            if preempted:
                store.close()
                raise hosts.Preempted(
                    f"saved in {workdir}; the same command goes on from there"
                )
    store.close()
    hosts.barrier("run")
    if isinstance(event, Waiting) and isinstance(state.phase, AwaitingLabels):
        screen.line(f"waiting for the labels of {event.count} images")
        screen.line(context.oracle.advice(state.phase.chosen))
    return event


def _begin(context, store, workdir, screen) -> tuple[int, CycleState, dict]:
    """Number of advances made, state and clock a run begins or goes on with."""
    if not store.empty:
        compatibility.refuse_other_data(context.dataset, workdir)
        duplicates.refuse_older(context.config, context.dataset, workdir)
    restored = store.restore(context)
    if hosts.lead() and (restored is None or not identity.written(workdir)):
        identity.write(workdir, context.dataset)
    if restored is not None:
        write_extension(context.config, workdir)
        number, state, account = restored
        for line in another_device(workdir):
            screen.line(f"warning: {line}")
        going_on = advance.reopened(state, context)
        if isinstance(going_on.phase, Done):
            screen.line(f"{workdir}: already finished, in cycle {state.cycle}")
        else:
            screen.line(f"resuming {workdir} in cycle {state.cycle}")
        return number, going_on, account
    state, initial = advance.start(context), context.plan.initial
    about = provenance.describe(plain(context.config))
    if initial is not None:
        transfer.keep(workdir, initial)
        about[transfer.RECORD] = initial.about
        screen.line(str(initial))
    if hosts.lead():
        inference = tasks.inference_of(context.config.task)
        if inference is not None:  # so that the network is of use without its data
            about["outputs"] = inference.outputs_of(context.dataset)
        records.write_config(workdir, about)
    return 0, state, clock.new_clock()


def _with_corrections(number, state: CycleState, account, context, store):
    """Number and state where labels that were bought have been corrected since."""
    if not state.answers:
        return number, state
    answers = context.oracle.revised(state.bought, state.answers)
    hosts.check_same("the labels that were bought", *answers.values())
    if answers is state.answers:
        return number, state
    state, phase = dataclasses.replace(state, answers=answers), state.phase
    if isinstance(phase, Scoring | Measuring):
        # What the passes found was with the old labels.
        journal = context.journal(state, phase.variables)
        phase = dataclasses.replace(phase, journal=journal)
        state = dataclasses.replace(state, phase=phase)
    store.save(number + 1, state, account)
    return number + 1, state


def _agree(event: Event) -> None:
    """Raise ClusterError where the hosts chose differently."""
    if isinstance(event, Selected):
        arrays = (event.arrays["selected"], event.arrays["scores"])
        hosts.check_same(f"the choice of cycle {event.cycle}", *arrays)


def load_base(config: ConfigDict, dataset: Dataset):
    """Variables of the base model that a config starts from, or None.

    Raises:
      ConfigError: `config.base` is no run's workdir, or of another network or data.
      CheckpointError: it holds no base model.
    """
    if not config.base:
        return None
    record = records.read_config(config.base)
    if record is None:
        raise ConfigError(
            f"config.base={config.base!r} is not the workdir of a run: it holds no "
            f"{records.CONFIG}"
        )
    found = compatibility.model_differences(record["config"], config)
    if found:
        raise ConfigError(
            f"the base model in {config.base} was trained under another config "
            "(base -> this run):\n  " + "\n  ".join(found)
        )
    compatibility.refuse_model_of_other_data(config.base, dataset, "config.base")
    return saved_models.load_model(config.base, 0)
