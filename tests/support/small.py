"""A problem so small that it is trained inside a test, and networks smaller still."""

import dataclasses
import functools
import itertools
import os
import re
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.method import Pool
from jalpose.data.dataset import Labelled
from jalpose.loop import advance, configs, saved_states
from jalpose.loop import state as states
from jalpose.loop.context import RunContext, make_context
from jalpose.loop.events import Trained
from jalpose.loop.programs import Programs
from jalpose.models.output import Features, Output
from jalpose.pergrad.api import Engine
from jalpose.runtime import sharding
from jalpose.scoring import passes as passes_module
from jalpose.scoring.passes import Examples, Passes
from jalpose.scoring.probe import Probe
from jalpose.settings.keys import seed_of
from jalpose.storage.journal import Journal
from jalpose.tasks.pose.heatmaps import HeatmapSpec
from jalpose.tasks.pose.skeletons import LSP
from jalpose.tasks.pose.sources import load_dataset
from jalpose.tasks.pose.task import PoseTask
from jalpose.training import trainer as trainer_module
from jalpose.training.optimisation import Optimisation
from jalpose.training.plan import TrainingPlan
from jalpose.training.trainer import Trainer

DELTA = {
    "data.name": "figures",
    "acquisition.method": "eglpp",
    "data.test": 16,
    "data.threads": 1,
    "model.channels": 8,
    "model.depth": 1,
    "model.convolution": "native",  # compiles faster
    "training.base_steps": 8,
    "training.cycle_steps": 4,
    "evaluation.true_norms": False,  # compiles another pass
    "acquisition.pool_subset": 16,
    "acquisition.eglpp.neighbours": 4,
    "acquisition.pieces": 2,
    "output.tensorboard": False,
    "output.images": 0,
    "output.report": False,
}


def configure(changes=None):
    """The config `tiny`, smaller, with `changes` by dotted key; validated."""
    delta = {**DELTA, **(changes or {})}
    config = configs.assemble("scale=tiny", name="small", delta=delta)
    configs.check(config)
    return config


@functools.cache
def dataset():
    """40 labelled, 60 pool and 16 test figures."""
    config = configure()
    return load_figures(config.data, config.seed)


def load_figures(data, seed):
    """`load_dataset` of figures that are drawn once a process, not at every reading."""
    return drawn_once(load_dataset(data, seed), repr((data, seed)))


def drawn_once(dataset, name):
    """The same dataset, whose images are kept under the name of what they are of."""
    sources = [DrawnOnce(source, name) for source in dataset.sources]
    return dataclasses.replace(dataset, sources=tuple(sources))


def drawn_dataset(config, screen=None):
    """The dataset of a config of figures, in the place of `run.load_dataset`."""
    del screen  # no encoder looks at figures
    return load_figures(config.data, seed_of(config, "initial"))


class DrawnOnce:
    """A drawn source that keeps its images, also for its equals."""

    images: ClassVar[dict] = {}

    def __init__(self, source, name):
        self.annotations = source.annotations
        if hasattr(source, "skeleton"):
            self.skeleton = source.skeleton
        self._source, self._name = source, (name, source.annotations.keys)

    def image(self, index):
        key = self._name, index
        if key not in self.images:
            self.images[key] = self._source.image(index)
            self.images[key].setflags(write=False)
        return self.images[key]


@functools.cache
def mesh(devices=1):
    return sharding.make_mesh(jax.devices()[:devices])


class SharedPrograms(Programs):
    """Programs whose trainers compute an initial state once a key."""

    def trainer(self, *arguments):
        made = super().trainer(*arguments)
        if not hasattr(made.init, "remembers"):
            made.init = remembered_init(made)
        return made


@functools.cache
def programs(devices=1) -> Programs:
    """What all tests of a process have compiled, by the number of devices."""
    return SharedPrograms(mesh(devices))


def remembered_init(trainer):
    """`trainer.init`, computed once a key: it is compiled anew at every call."""
    init, found = trainer.init, {}

    def remembered(key):
        if isinstance(key, jax.core.Tracer):
            return init(key)
        number = jax.random.key_data(key).tobytes()
        if number not in found:
            found[number] = copied(init(key).variables)
        return trainer.restart(found[number])

    remembered.remembers = True
    return remembered


def remember_templates(patch):
    """Find the shapes of a training state out once a network, not once a restore."""
    find, found = TrainingPlan.train_template, {}

    def template(plan, structure):
        key = plan.trainer, plan.companion, repr(structure)
        if key not in found:
            found[key] = find(plan, structure)
        return found[key]

    patch.setattr(TrainingPlan, "train_template", template)


def context(changes=None, devices=1, base=None, **options) -> RunContext:
    """A context of the small config; `options` as of `make_context`."""
    config = configure(changes)
    data = options.pop("dataset", None) or dataset()
    return make_context(config, data, programs(devices), base=base, **options)


def flat_context(changes=None, devices=1, base=None, network=None, **options):
    """`context` whose network is `Flat`, or `network`."""
    if network is None:
        network = Flat(dropout=configure(changes).model.dropout)
    return context(changes, devices, base, network=network, **options)


def advance_until(state, context, *kinds):
    """Advance to the first event of one of these classes: (state, events)."""
    events = []
    while not events or not isinstance(events[-1], kinds):
        state, event = advance.advance(state, context)
        events.append(event)
    return state, events


@functools.cache
def base_variables():
    """Numpy variables of the small hourglass after its base training."""
    found = context()
    state, _ = advance_until(advance.start(found), found, Trained)
    return copied(state.phase.variables)


def copied(tree):
    """Numpy copies: what `advance` gives away stays whole."""
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


class Flat(nn.Module):
    """Nearly nothing of a pose network: compiles in no time, has every kind of layer.

    Two stacks, so that intermediate supervision counts, and features for heads.
    """

    num_outputs: int = 14
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, train: bool = False, drop: bool | None = None) -> Output:
        x = nn.Conv(6, (4, 4), (4, 4), name="stem")(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = jnp.tanh(x)
        if self.dropout:
            dropped = nn.Dropout(self.dropout, broadcast_dims=(1, 2))
            x = dropped(x, not (train if drop is None else drop))
        maps = [nn.Conv(self.num_outputs, (3, 3), name=f"maps{s}")(x) for s in (0, 1)]
        return Output(
            10 * jnp.stack(maps, axis=1),
            jnp.mean(x, axis=(1, 2)),
            Features(stacks=(x, x), levels=(x, x[:, ::2, ::2])),
        )


FLAT = Flat()
flat_apply = jax.jit(FLAT.apply)
SPEC = HeatmapSpec(32, 8, 1.75, 30.0)
TASK = PoseTask(skeleton=LSP, spec=SPEC)


@functools.cache
def flat_variables():
    """Variables of `Flat` whose every tensor matters, running statistics too."""
    variables = jax.jit(FLAT.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    leaves, tree = jax.tree.flatten(variables)
    draws = np.random.default_rng(0)
    noisy = [v + 0.1 * draws.random(v.shape, np.float32) for v in leaves]
    return jax.tree.unflatten(tree, noisy)


def same_journals(one, other) -> bool:
    """Whether two journals hold the same passes, to the bit."""
    found = [
        {
            (name, key): (value.dtype, value.shape, value.tobytes())
            for name in journal.names()
            for key, value in journal.read(name).items()
        }
        for journal in (one, other)
    ]
    return found[0] == found[1]


def copied_journal(journal, left_out=()) -> Journal:
    """One in memory of the same passes, but for those that begin with `left_out`."""
    other = Journal()
    for name in journal.names():
        if not name.startswith(tuple(left_out)):
            arrays = journal.read(name)
            other.append(name, {key: value.copy() for key, value in arrays.items()})
    return other


def flat_passes(devices=1) -> Passes:
    return _flat_passes(devices)  # the same whether or not the number is given


@functools.cache
def _flat_passes(devices) -> Passes:
    return Passes(FLAT, TASK, mesh=mesh(devices), threads=1)


def examples(data=None, labels=True) -> Examples:
    """Of the small dataset, or another of figures."""
    data = data or dataset()
    return Examples(data, functools.partial(labels_of, data) if labels else None)


def labels_of(data, ids, size=32):
    """Labels of the crops of examples, as the network sees them."""
    windows = data.windows_of(ids)
    return context().labels.in_crop(data.truth_of(ids), windows, size)


def probe(
    passes,
    variables,
    journal=None,
    pieces=10**9,
    microbatch=0,
    engine="exact",
    data=None,
) -> Probe:
    return Probe(
        passes,
        variables,
        examples(data),
        journal=journal or Journal(),
        pieces=pieces,
        forward_block=8,
        gradient_block=8,
        engine=Engine(engine, microbatch=microbatch),
    )


def labelled_set() -> Labelled:
    """The labelled set of the small problem, as a method sees it."""
    found = context()
    return found.true_labels(dataset().initial)


def pool(ids=None) -> Pool:
    """What a method chooses from: of the small problem, or these ids."""
    ids = dataset().pool if ids is None else np.asarray(ids)
    return Pool(unlabelled=ids, labelled=labelled_set())


def crops(ids, size=32):
    """Crops of `ids`, read one by one: dict of stacked arrays."""
    source = examples().source(np.asarray(ids), size)
    rows = [source[i] for i in range(len(ids))]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def flat_trainer(devices, **changes):
    config = configure({f"training.{k}": v for k, v in changes.items()})
    task = context({f"training.{k}": v for k, v in changes.items()}).task
    return Trainer(FLAT, task, Optimisation.of(config.training), mesh(devices))


# Where a run is killed, in the order in which it comes there: (kind, what, which time).
# rename: before a file or folder is put in its place; renamed: after that.
PLACES = {
    "before the config is in place": ("rename", r"/config\.json$", 1),
    "in a training step of the base": ("step", "", 6),
    "before a state of the training is in place": ("rename", r"/state/\d+$", 1),
    "before the base model is in place": ("rename", r"/models/00$", 1),
    "before its arrays are in place": ("rename", r"/arrays/cycle_00\.npz$", 1),
    "after its records, before the state": ("save", states.Scoring, 1),
    "before a state of the scoring is in place": ("rename", r"/state/\d+$", 2),
    "in a block of gradient norms": ("block", "norms", 2),
    "before the selection is in place": ("rename", r"/cycle_00\.csv$", 1),
    "after the selection is in place": ("renamed", r"/cycle_00\.csv$", 1),
    "after all its records, before the state": ("save", states.AwaitingLabels, 1),
    "in a training step of cycle 1": ("step", "", 3),
    "after the record of cycle 1 is in place": ("renamed", r"/cycles\.jsonl$", 1),
    "in describing the pool in cycle 1": ("block", "describe", 2),
    "when an old state is half removed": ("rmdir", r"/state/\d+$", 1),
    "before the last state": ("save", states.Done, 1),
}


def pass_name(fn):
    """The name a pass of `Passes` goes by."""
    # Gradient norms come as `Fitted` where their microbatch is yet to be found.
    return getattr(fn, "__name__", "norms")


def lay_ambush(patch, place, die):
    """Have `die` called at one of `PLACES`; `patch` is as `monkeypatch.setattr`."""
    kind, what, time = PLACES[place]
    times = itertools.count(1)

    def hit():
        if next(times) == time:
            die()

    def around(owner, name, before=None, after=None):
        original = getattr(owner, name)

        def wrapped(*arguments, **options):
            if before is not None and before(*arguments):
                hit()
            result = original(*arguments, **options)
            if after is not None and after(*arguments):
                hit()
            return result

        patch(owner, name, wrapped)

    def into_place(source, target, *_):
        return re.search(what, os.fspath(target)) is not None

    if kind in ("rename", "renamed"):
        when = {"rename": "before", "renamed": "after"}[kind]
        for name in ("rename", "replace"):
            around(os, name, **{when: into_place})
    elif kind == "step":
        around(trainer_module, "for_devices", before=lambda rows: True)
    elif kind == "block":
        around(passes_module, "execute", before=lambda fn, *_: pass_name(fn) == what)
    elif kind == "save":
        around(
            saved_states.StateStore,
            "save",
            before=lambda self, number, state, clock: isinstance(state.phase, what),
        )
    else:
        around(os, "rmdir", before=lambda path: re.search(what, os.fspath(path)))
