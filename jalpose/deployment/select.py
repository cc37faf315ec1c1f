"""One choice without a loop: what of a pool a trained run would have labelled."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jalpose.acquisition import registry as methods
from jalpose.acquisition.method import Pool
from jalpose.acquisition.method import Selection as Chosen
from jalpose.deployment.options import Model, Selection, refuse_taken
from jalpose.deployment.pool import join
from jalpose.deployment.trained import Trained, open_images, open_trained
from jalpose.loop import budget, compatibility, configs, run
from jalpose.loop.context import RunContext, make_context
from jalpose.loop.finished import asked_since, state_of
from jalpose.loop.programs import Programs
from jalpose.loop.state import CycleState
from jalpose.models import encoders
from jalpose.oracles.handout import Choice, Handout
from jalpose.runtime import provenance, random_streams, sharding
from jalpose.runtime.screen import Screen
from jalpose.scoring.probe import Paused
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import plain
from jalpose.settings.keys import from_base, seed_of
from jalpose.storage import records
from jalpose.storage.arrays import IDS, SCORES
from jalpose.storage.folders import atomic_folder
from jalpose.storage.journal import Journal
from jalpose.tasks import registry as tasks
from jalpose.tasks.findings import listed
from jalpose.training.trainer import network_of

RECORD = "selection.json"
# What a method may need beside the network: where it lies in what is saved.
_PARTS = {"head": "head", "members": "members", "companion": "companion"}


def select(
    model: Model,
    options: Selection,
    screen: Screen | None = None,
    programs: Programs | None = None,
) -> Path:
    """Choose once with the model of a run: the folder of what is to be labelled.

    Args:
      model: whose.
      options: among which images, how many, by which method, and where to.
      screen: for progress; None: the standard output.
      programs: what is compiled already; None: nothing, for all devices.

    Raises:
      ConfigError: an option is not allowed, there is no such run, or its model was
        trained without what the method needs.
      CheckpointError: it has no model yet.
      DataError: there is no image, or a file is damaged or of another skeleton; or the
        data that the run was trained on are not there.
      WorkdirError: nothing can be written, or the run's records are damaged.
    """
    screen = screen or Screen()
    options.check()
    trained = open_trained(model, options.out, screen)
    config = config_of(trained, options)
    exchange = tasks.exchange_of(config.task)
    if exchange is None:
        raise ConfigError(f"the task {config.task} hands nothing out to be labelled")
    out = Path(options.out)
    records.check_workdir(out.absolute().parent)
    opened = None
    if options.place is not None:
        opened = open_images(trained, options.place, screen)
    old = run.load_dataset(config, screen)
    compatibility.refuse_model_of_other_data(model.workdir, old, "--model")
    dataset = dataclasses.replace(old, pool_labelled=False)
    state = state_of(old, model.workdir, trained.cycle)
    left_out: dict[str, tuple[str, ...]] = {}
    if opened is not None:
        since = asked_since(model.workdir, trained.cycle)
        joined = join(opened, old, state, since, config.data.size)
        dataset = encoders.seen_through(config, joined.dataset, screen)
        state = joined.state
        left_out = {
            "are labelled or tested on already": joined.known,
            "were asked for by the run since": joined.asked,
            "are copies of others": joined.copies,
        }
        for words, keys in left_out.items():
            if keys:
                screen.line(
                    f"{len(keys)} of {len(opened.dataset.keys)} {words}, and not "
                    f"chosen from: {listed(list(keys))}"
                )
    programs = programs or Programs(sharding.make_mesh())
    context = make_context(config, dataset, programs)
    _refuse_untrained(trained, context)
    variables = sharding.replicate(programs.mesh, _variables(trained, context))
    pool = context.pool(state)
    acquisition = config.acquisition
    if acquisition.budget > len(pool.unlabelled) and (
        acquisition.budget_unit == budget.IMAGES
    ):
        raise ConfigError(
            f"--budget={acquisition.budget}, but there are {len(pool.unlabelled)} to "
            "choose from"
        )
    chosen = _acquire(context, variables, pool, state, screen)
    choice = Choice(
        chosen.indices,
        _arrays(context, variables, pool.unlabelled, chosen),
        config.acquisition.method,
    )
    handout = Handout(
        out,
        dataset,
        context.labels,
        exchange.make_exchange(config, dataset),
        config.data.dir if opened is None else opened.folder,
        options.copy,
    )
    with atomic_folder(out) as folder:
        handout.fill(folder, choice)
        records.write_json(
            folder / RECORD,
            {
                "model": str(model.workdir),
                "cycle": trained.cycle,
                "images": None if options.place is None else options.place.images,
                "method": config.acquisition.method,
                "budget": acquisition.budget,
                "budget_unit": acquisition.budget_unit,
                "num_scored": len(pool.unlabelled),
                "left_out": {words: list(keys) for words, keys in left_out.items()},
                "damaged": {} if opened is None else dict(opened.damaged),
                "summary": dict(chosen.summary),
                **provenance.describe(plain(config)),
            },
        )
        refuse_taken(options.out)  # by another command, meanwhile
    screen.line(
        f"{len(chosen.indices)} of {len(pool.unlabelled)} chosen by "
        f"{config.acquisition.method}: open {out / 'index.html'}"
    )
    return out


def config_of(trained: Trained, options: Selection) -> ConfigDict:
    """The run's config with the method and what else was asked for.

    Raises:
      ConfigError: a value is not allowed.
    """
    config = ConfigDict(trained.config.to_dict())
    method = options.method or config.acquisition.method
    methods.check_name("--method", method)
    config.loop.cycles, config.loop.compare = 0, ()
    config.acquisition.pool_subset = 0
    config.data.check = "off"  # they were looked at when the run began
    if options.budget:
        config.acquisition.budget = options.budget
    config.experiment.variants = (("--options", method, *options.options),)
    try:
        config = from_base(config, "--options", "")
    except ConfigError as error:
        raise ConfigError(str(error).replace("experiment.variants: ", "")) from error
    configs.check(config)
    return config


def _refuse_untrained(trained: Trained, context: RunContext) -> None:
    """Raise ConfigError where a method needs what the run has not trained."""
    theirs = trained.config.acquisition
    before = methods.configured(theirs, theirs.method).needs(context.task)
    for part, place in _PARTS.items():
        needed = getattr(context.needs, part)
        if needed is None:
            continue
        if needed != getattr(before, part) or place not in trained.variables:
            raise ConfigError(
                f"--method={context.config.acquisition.method} needs a {part} beside "
                f"the network, which {trained.workdir} has not trained: choose another "
                "method, or train a run with this one"
            )


def _variables(trained: Trained, context: RunContext) -> dict:
    """The network's, and what the method needs beside it."""
    return {
        **network_of(trained.variables),
        **{
            place: trained.variables[place]
            for part, place in _PARTS.items()
            if getattr(context.needs, part) is not None
        },
    }


def _acquire(
    context: RunContext, variables, pool: Pool, state: CycleState, screen: Screen
) -> Chosen:
    """The choice a run would make, with progress."""
    seed = seed_of(context.config, "acquire")
    key, journal = random_streams.stream(seed, "acquire", state.cycle), Journal()
    while True:
        probe = context.probe(variables, journal)
        try:
            found = budget.acquire(context, state, key, probe, pool)
            screen.end()
            return found
        except Paused:
            journal = probe.journal
            screen.progress(*probe.progress)


def _arrays(context: RunContext, variables, ids, chosen: Chosen) -> dict:
    """Arrays of a choice: predictions are of those chosen, NaN of the others."""
    order = np.sort(chosen.indices)
    probe = context.probe(variables, Journal(), pieces=sys.maxsize)
    decoded = dict(probe.describe(order))
    del decoded["embedding"]
    windows = context.dataset.windows_of(order)
    placed = context.labels.place(decoded, windows, context.task.size)
    rows = np.searchsorted(ids, order)
    predicted = {}
    for name, values in placed.items():
        nothing = np.nan if values.dtype.kind == "f" else -1
        full = np.full((len(ids), *values.shape[1:]), nothing, values.dtype)
        full[rows] = values
        predicted[name] = full
    return {IDS: ids, SCORES: chosen.scores, **chosen.explanation, **predicted}
