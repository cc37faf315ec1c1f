"""What stays the same through a run: data, task, network, method, and their use."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jalpose.acquisition import registry as methods
from jalpose.acquisition.diverse import Diverse
from jalpose.acquisition.method import Method, Pool
from jalpose.data.dataset import Dataset, Labelled
from jalpose.evaluation.evaluator import Evaluator
from jalpose.loop import requirements
from jalpose.loop.programs import Programs
from jalpose.loop.state import CycleState
from jalpose.models.registry import options_of
from jalpose.oracles.oracle import Oracle
from jalpose.oracles.simulated import SimulatedOracle
from jalpose.pergrad.api import Engine
from jalpose.runtime import random_streams
from jalpose.runtime.throughput import Meter
from jalpose.scoring.passes import Examples, Passes
from jalpose.scoring.probe import Probe
from jalpose.settings.differences import plain, without
from jalpose.settings.keys import RUNTIME_KEYS, seed_of
from jalpose.storage.journal import Journal
from jalpose.tasks import registry as tasks
from jalpose.tasks.labels import Labels, Truth
from jalpose.tasks.task import Task
from jalpose.training.initial_weights import InitialWeights
from jalpose.training.needs import Needs
from jalpose.training.optimisation import Optimisation
from jalpose.training.plan import TrainingPlan
from jalpose.training.trainer import Trainer, network_of

Journals = Callable[[int, str], Journal]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext:
    """A benchmark, a network and an acquisition method, ready to be advanced.

    Attributes:
      config: validated.
      dataset: the benchmark.
      task: of the labels, JAX half.
      labels: of the task, NumPy half.
      method: that chooses.
      needs: of the method, what is trained for it.
      oracle: answers with the labels of what was chosen.
      evaluator: scores models and choices.
      plan: of the trainings.
      trainer: the compiled training steps.
      passes: compiled.
      model: Linen module of the network.
      traced_model: the same, as engines take it that read the network.
      engine: of gradient norms.
      journals: (cycle, fingerprint) -> journal of that cycle's passes.
    """

    config: ConfigDict
    dataset: Dataset
    task: Task
    labels: Labels
    method: Method | Diverse
    needs: Needs
    oracle: Oracle
    evaluator: Evaluator
    plan: TrainingPlan
    trainer: Trainer
    passes: Passes
    model: Any
    traced_model: Any
    engine: Engine
    journals: Journals
    _remembered: dict[str, tuple] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    def network_for(self, engine: Engine):
        """The network as `engine` takes it: the same function of the same variables.

        All but `exact` read the network and bring convolutions of their own.
        """
        return self.model if engine.name == "exact" else self.traced_model

    def with_journals(self, journals: Journals) -> "RunContext":
        """The same context, its journals kept elsewhere."""
        return dataclasses.replace(self, journals=journals)

    def journal(self, state: CycleState, variables) -> Journal:
        """The journal of the passes of `variables`: new, or what is left of it."""
        return self.journals(state.cycle, self._fingerprint(state, variables))

    def _fingerprint(self, state: CycleState, variables) -> str:
        """A name for all that decides what the passes of a cycle find.

        Number and kind of the devices are no part of it: a run may go on on others.
        """
        config = without(plain(self.config), (*RUNTIME_KEYS, "base"))
        found = hashlib.blake2b(digest_size=16)
        about = [sorted(config.items()), state.cycle, state.labelled.tolist()]
        found.update(json.dumps(about).encode())
        if len(state.rejected):
            found.update(json.dumps(state.rejected.tolist()).encode())
        trees = (variables, dict(sorted(state.answers.items())))
        for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
            values = np.asarray(leaf)
            about = [jax.tree_util.keystr(path), str(values.dtype), values.shape]
            found.update(json.dumps(about).encode() + values.tobytes())
        return found.hexdigest()

    def probe(
        self,
        variables,
        journal: Journal,
        meter: Meter | None = None,
        pieces: int | None = None,
    ) -> Probe:
        """A probe of `variables` on a journal.

        Args:
          variables: of the network.
          journal: of earlier passes.
          meter: counts what is done; None: one of its own.
          pieces: blocks before it pauses; None: `acquisition.pieces`.
        """
        config = self.config.acquisition
        labels_of = self.evaluator.labels_of if self.oracle.simulated else None
        return Probe(
            self.passes,
            variables,
            Examples(self.dataset, labels_of),
            journal=journal,
            pieces=config.pieces if pieces is None else pieces,
            forward_block=self.config.evaluation.block,
            gradient_block=config.block,
            engine=self.engine,
            memory=config.memory,
            meter=meter,
        )

    def engine_record(self, meter: Meter) -> dict:
        """Engine of gradient norms and its microbatch, None where none is used."""
        if not self.method.uses_engine:
            return {"engine": None, "microbatch": None}
        microbatch = self.engine.microbatch or meter.microbatch
        return {"engine": self.engine.name, "microbatch": microbatch}

    def pool(self, state: CycleState) -> Pool:
        """What the method chooses from in the cycle of `state`."""
        ids = self.unlabelled(state.taken, state.cycle)
        return Pool(unlabelled=ids, labelled=self.labelled_set(state))

    def labelled_set(self, state: CycleState) -> Labelled:
        """The labelled examples: those of the start, and what was bought."""
        return self._remember(self._labelled_set, state.labelled, state.answers)

    def _labelled_set(self, labelled, answers):
        return self._as_labelled(labelled, self._labelled_truth(labelled, answers))

    def labelled_truth(self, state: CycleState) -> Truth:
        """What is known of the labelled examples, in pixels of the image."""
        return self._labelled_truth(state.labelled, state.answers)

    def _labelled_truth(self, labelled, answers):
        initial = len(labelled) - _num_rows(answers)
        truth = self.dataset.truth_of(labelled[:initial])
        if not answers:
            return truth
        return {k: np.concatenate([v, answers[k]]) for k, v in truth.items()}

    def bought_last(self, state: CycleState) -> Labelled:
        """The labelled examples that the last choice bought, none before the first."""
        count = min(self.config.acquisition.budget, _num_rows(state.answers))
        labelled = self.labelled_set(state)
        return labelled.at(slice(len(labelled.ids) - count, None))

    def true_labels(self, ids: np.ndarray) -> Labelled:
        """Examples with labels that nobody bought: for measures, in simulation."""
        return self._remember(self._true_labels, ids)

    def _true_labels(self, ids):
        return self._as_labelled(ids, self.dataset.truth_of(ids))

    def _as_labelled(self, ids, truth):
        windows = self.dataset.windows_of(ids)
        labels = self.labels.in_crop(truth, windows, self.task.size)
        known, held_out = self.labels.known(labels), self.dataset.held_out(ids)
        return Labelled(ids=ids, labels=labels, known=known, held_out=held_out)

    def unlabelled(
        self, taken: np.ndarray, cycle: int, size: int | None = None
    ) -> np.ndarray:
        """Pool examples to be scored in `cycle`, but for those taken; rising ids.

        With a `size` (None: `acquisition.pool_subset`; 0: all there are) each example
        draws a priority from the seed, the cycle and its id, and the lowest are taken:
        methods compared under one seed see the same subset, but for what they have
        already labelled.
        """
        if size is None:
            size = self.config.acquisition.pool_subset
        seed = seed_of(self.config, "acquire")
        return self._remember(self._unlabelled, taken, cycle, size, seed)

    def _unlabelled(self, taken, cycle, size, seed):
        left = np.setdiff1d(self.dataset.pool, taken)
        if size == 0 or size >= len(left):
            return left
        own = random_streams.stream_seed(seed, "subset", cycle)
        draws = np.random.default_rng(own).random(len(self.dataset.keys))
        return np.sort(left[np.argsort(draws[left], kind="stable")[:size]])

    def _remember(self, compute: Callable, ids: np.ndarray, *others):
        """`compute` of these arguments, kept for the next call: each piece asks again.

        Of a large pool it would else take longer than the piece itself.
        """
        name = compute.__name__
        before, key, found = self._remembered.get(name, (None, None, None))
        same = before is not None and np.array_equal(before, ids) and _same(key, others)
        if not same:
            found = compute(ids, *others)
            self._remembered[name] = ids.copy(), others, found
        return found


def make_context(
    config: ConfigDict,
    dataset: Dataset,
    programs: Programs,
    *,
    base=None,
    initial: InitialWeights | None = None,
    journals: Journals | None = None,
    oracle: Oracle | None = None,
    network: Any = None,
) -> RunContext:
    """The context of a run; nothing is compiled yet.

    Args:
      config: validated.
      dataset: the benchmark.
      programs: to share what is compiled with.
      base: variables of another run's base model, or None to train one; of them the
        network is used, what a method needs beside it is trained anew.
      initial: layers that trainings from scratch begin with; None: all are new.
      journals: see `RunContext`; None: in memory.
      oracle: None: the data set's own labels.
      network: a Linen module to take instead of the config's.

    Raises:
      ConfigError: budgets beyond the pool, a method that the task or its options do not
        allow.
      DataError: too few are labelled at the start to hold a tenth out.
    """
    about, acquisition = tasks.task_of(config.task), config.acquisition
    # Configs that differ in it may share what is loaded.
    dataset = dataset.holding_out(config.training.heldout == "tenth")
    task = about.make_task(config, dataset)
    labels = tasks.labels_of(config.task).make_labels(config, dataset)
    oracle = oracle or SimulatedOracle(dataset)
    requirements.check(config, dataset, task, labels, oracle, has_base=base is not None)
    method = methods.configured(acquisition, acquisition.method)
    needs = method.needs(task)
    engine = engine_of(acquisition)
    model = traced = network
    if network is None:
        options = options_of(dict(config.model))
        model = options.build(task.num_outputs)
        traced = options.build(task.num_outputs, traced=True)
    trainer = programs.trainer(
        model, task, Optimisation.of(config.training), needs.head
    )
    if needs.head is not None:  # does it find in the network what it reads?
        jax.eval_shape(trainer.init, jax.random.key(0))
    companion = None
    if needs.companion is not None:
        companion = programs.companion(model, trainer.task, needs.companion)
        jax.eval_shape(companion.init, jax.random.key(0))
    return RunContext(
        config=config,
        dataset=dataset,
        task=trainer.task,  # of equal tasks the one that things are compiled for
        labels=labels,
        method=method,
        needs=needs,
        oracle=oracle,
        evaluator=Evaluator(
            labels,
            dataset,
            size=task.size,
            block=config.evaluation.block,
            true_norms=config.evaluation.true_norms,
        ),
        plan=TrainingPlan(
            config,
            dataset,
            trainer,
            needs,
            None if base is None else network_of(base),
            companion,
            initial,
        ),
        trainer=trainer,
        passes=programs.passes(
            model,
            model if engine.name == "exact" else traced,
            trainer.task,
            needs.head,
            config.data.threads,
            needs.companion,
        ),
        model=model,
        traced_model=traced,
        engine=engine,
        journals=journals or (lambda *_: Journal()),
    )


def options_for(config: ConfigDict, name: str | None = None) -> dict:
    """The section of a method in `config.acquisition`, by default the run's own."""
    name = name or config.acquisition.method
    return dict(config.acquisition.get(name, {}))


def engine_of(acquisition: ConfigDict, **changes) -> Engine:
    """The engine of gradient norms that `config.acquisition` describes."""
    options = {
        "name": acquisition.engine,
        "microbatch": acquisition.microbatch,
        "products": acquisition.products,
        **acquisition.sketch,
        **changes,
    }
    return Engine(**options)


def _num_rows(arrays: dict) -> int:
    return len(next(iter(arrays.values()))) if arrays else 0


def _same(one: tuple, other: tuple) -> bool:
    """Equal arguments; of bought labels the very same object, or none."""
    return one is not None and all(
        a is b if isinstance(a, dict) else a == b
        for a, b in zip(one, other, strict=True)
    )
