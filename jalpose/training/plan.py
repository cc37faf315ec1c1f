"""The trainings a cycle is made of: of the network, and of what a method needs."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jalpose.data import pipeline
from jalpose.data.dataset import Dataset, Labelled
from jalpose.runtime import random_streams, sharding
from jalpose.runtime.throughput import Flow
from jalpose.settings.keys import seed_of
from jalpose.training import lengths
from jalpose.training.companion import CompanionTrainer
from jalpose.training.initial_weights import InitialWeights
from jalpose.training.needs import Needs
from jalpose.training.trainer import Trainer, network_of

NETWORK = "network"  # the stage of the network itself
COMPANION = "companion"  # the stage of a model beside it
# Stages of what chooses alone: not in the last cycle, after which nothing is chosen.
FOR_CHOOSING = ("member", COMPANION)


class Stage(NamedTuple):
    """One of the trainings a cycle is made of.

    Attributes:
      kind: `NETWORK` (the network, and a head with it) | head (alone) | member |
        `COMPANION`.
      steps: how many.
      number: of a member, from 0.
    """

    kind: str
    steps: int
    number: int = 0

    @property
    def name(self) -> str:
        """For screen, records and random streams."""
        return f"member {self.number + 1}" if self.kind == "member" else self.kind

    @property
    def observed(self) -> bool:
        """Is the held-out loss taken on the way? Of what does not move the network not.

        A head alone has no best weights then, nor has a companion.
        """
        return self.kind not in ("head", COMPANION)


class TrainingPlan:
    """Every training of a run: how long, on what, from what, and what it leaves.

    Args:
      config: of the run.
      dataset: of the images.
      trainer: of the network.
      needs: of the run's method.
      base: variables of a base model, or None to train one.
      companion: the compiled steps of the companion that is needed, or None.
      initial: layers that trainings from scratch begin with, or None: all are new.
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        trainer: Trainer,
        needs: Needs,
        base,
        companion: CompanionTrainer | None = None,
        initial: InitialWeights | None = None,
    ):
        self.config, self.dataset, self.trainer = config, dataset, trainer
        self.needs, self.base, self.companion = needs, base, companion
        self.initial = initial
        self._batches: tuple | None = None

    def steps_per_epoch(self, cycle: int) -> int:
        """Steps of an epoch of `cycle`, by the labels planned for it."""
        return lengths.steps_per_epoch(self.config, len(self.dataset.initial), cycle)

    def total_steps(self, cycle: int) -> int:
        """Length of the training of `cycle` in steps."""
        return lengths.total_steps(self.config, len(self.dataset.initial), cycle)

    def heldout_interval(self, cycle: int) -> int | None:
        """Steps between held-out evaluations in the training of `cycle`; None: none."""
        if self.config.training.heldout == "none":
            return None
        epochs = self.config.training.heldout_epochs
        return max(1, round(epochs * self.steps_per_epoch(cycle)))

    def of(self, cycle: int) -> list[Stage]:
        """The trainings of `cycle`, in their order; the first is of the network.

        A base model that is given is a training of no steps. Members and companion are
        for choosing: the last cycle, after which nothing is chosen, trains none.
        """
        given = cycle == 0 and self.base is not None
        stages = [Stage(NETWORK, 0 if given else self.total_steps(cycle))]
        if given and self.needs.head is not None:
            stages.append(Stage("head", self.needs.head.steps))
        chooses = cycle < self.config.loop.cycles
        if self.needs.members is not None and chooses:
            count, steps, _ = dataclasses.astuple(self.needs.members)
            stages += [Stage("member", steps, number) for number in range(count)]
        if self.needs.companion is not None and chooses:
            stages.append(Stage(COMPANION, self.needs.companion.steps))
        return stages

    def begin(self, cycle: int, stage: Stage, variables=None):
        """The training state `stage` begins in.

        Args:
          cycle: whose training it is.
          stage: one of `of(cycle)`.
          variables: before the stage; for the first stage of all they are not used.
        """
        trainer, seed = self.trainer, seed_of(self.config, "init")
        if stage.kind == "head":
            head = trainer.new_head(random_streams.stream(seed, "head", cycle))
            return trainer.restart({**network_of(variables), "head": head})
        if stage.kind == "member":
            members = self.needs.members
            if members is not None and members.start == "fresh":
                key = random_streams.stream(seed, "init", *_names(cycle, stage))
                variables = self._from_scratch(key).variables
            return trainer.restart(network_of(variables))
        if stage.kind == COMPANION:
            key = random_streams.stream(seed, "init", *_names(cycle, stage))
            return self._companion.init(key)
        if cycle == 0 and self.base is not None:
            return trainer.restart(self.base)
        if cycle == 0 or self.config.training.start == "fresh":
            return self._from_scratch(random_streams.stream(seed, "init", cycle))
        for_choosing = ("members", COMPANION)
        return trainer.restart(
            {k: v for k, v in variables.items() if k not in for_choosing}
        )

    def _from_scratch(self, key):
        """A training state of new weights, but for the layers of `initial`."""
        state = self.trainer.init(key)
        if self.initial is None:
            return state
        return self.trainer.restart(self.initial.laid_over(state.variables))

    @property
    def _companion(self) -> CompanionTrainer:
        assert self.companion is not None  # else no stage is of it
        return self.companion

    def finish(self, stage: Stage, train, variables) -> dict:
        """Variables after `stage`: those before it with what it has trained."""
        if stage.kind == NETWORK:
            return self.trainer.chosen(train)
        if stage.kind == "head":
            return {**variables, "head": train.head}
        if stage.kind == COMPANION:
            return {**variables, COMPANION: self._companion.variables(train)}
        members = {
            **variables.get("members", {}),
            str(stage.number): network_of(self.trainer.chosen(train)),
        }
        return {**variables, "members": members}

    def advance(
        self,
        state,
        labelled: Labelled,
        cycle: int,
        stage: Stage,
        steps: int,
        flow: Flow,
        variables=None,
        unlabelled: np.ndarray | None = None,
    ):
        """Take `steps` steps of a training of `cycle`: (new state, values a step).

        Args:
          state: of the training; its buffers are given away.
          labelled: all there are.
          cycle: whose training it is.
          stage: one of `of(cycle)`.
          steps: to take.
          flow: counts the examples trained on.
          variables: before the stage; of a companion's.
          unlabelled: int64 [M], ids of what is scored in the cycle; of a companion's.
        """
        seed = seed_of(self.config, "order")
        if stage.kind == COMPANION:
            assert unlabelled is not None
            batches = self.companion_batches(
                labelled, unlabelled, cycle, stage, int(state.step)
            )
            key = random_streams.stream(seed, "draw", *_names(cycle, stage))
            state, history = self._companion.run(
                state, batches, network_of(variables), key, steps, flow=flow
            )
            self._keep(batches, cycle, stage, int(state.step), labelled)
            return state, history
        batches = self.batches(labelled, cycle, stage, int(state.step))
        key = random_streams.stream(seed, "augment", *_names(cycle, stage))
        detach_after = self.needs.head.detach_after if self.needs.head else 0
        state, history = self.trainer.run(
            state,
            batches,
            key,
            steps,
            stage.steps,
            flow=flow,
            drops=lengths.drops(
                self.config, len(self.dataset.initial), cycle, stage.steps
            ),
            attached_steps=round(detach_after * self.steps_per_epoch(cycle)),
            head_alone=stage.kind == "head",
        )
        self._keep(batches, cycle, stage, int(state.step), labelled)
        return state, history

    def batches(self, labelled: Labelled, cycle: int, stage: Stage, position: int):
        """Endless batches of a training, from the `position`-th on."""
        kept = self._kept(cycle, stage, position, labelled)
        if kept is not None:
            return kept
        trained_on = np.flatnonzero(~labelled.held_out)
        names, seed = _names(cycle, stage), seed_of(self.config, "order")
        if stage.kind == "member":  # a bootstrap: as many, with replacement
            own = random_streams.stream_seed(seed, "bootstrap", *names)
            draws = np.random.default_rng(own)
            trained_on = draws.choice(trained_on, len(trained_on))
        return pipeline.training_batches(
            self._source(labelled.at(trained_on)),
            batch=self.config.training.batch,
            seed=random_streams.stream_seed(seed, "order", *names),
            position=position,
            threads=self.config.data.threads,
            rows=self._rows(self.config.training.batch),
        )

    def companion_batches(
        self,
        labelled: Labelled,
        unlabelled: np.ndarray,
        cycle: int,
        stage: Stage,
        position: int,
    ):
        """Endless pairs of batches of a companion's training, from a position on.

        Held-out examples are labelled too: that is all a companion is to know of them.

        Yields:
          labelled rows, with labels, and unlabelled ones, as many.
        """
        kept = self._kept(cycle, stage, position, labelled)
        if kept is not None:
            return kept
        batch, seed = self._companion.batch, seed_of(self.config, "order")
        without = pipeline.CropSource(self.dataset, unlabelled, self.trainer.task.size)
        sources = {"labelled": self._source(labelled), "unlabelled": without}
        return zip(
            *(
                pipeline.training_batches(
                    source,
                    batch=batch,
                    seed=random_streams.stream_seed(
                        seed, "order", *_names(cycle, stage), name
                    ),
                    position=position,
                    threads=self.config.data.threads,
                    rows=self._rows(batch),
                )
                for name, source in sources.items()
            ),
            strict=True,
        )

    def _keep(self, batches, cycle, stage, position, labelled):
        """Keep a running iterator, which stands at this position."""
        self._batches = (cycle, stage.name, position, len(labelled.ids)), batches

    def _kept(self, cycle, stage, position, labelled):
        """The running iterator if it stands where a state says, else None.

        A position is nothing but the number of steps taken.
        """
        place = (cycle, stage.name, position, len(labelled.ids))
        if self._batches and self._batches[0] == place:
            return self._batches[1]
        return None

    def heldout_loss(self, variables, labelled: Labelled) -> float:
        """Mean loss over the held-out tenth of `labelled`."""
        block = self.config.evaluation.block
        blocks = pipeline.blocks_in_order(
            self._source(labelled.at(labelled.held_out)),
            block=sharding.part_of(self.trainer.mesh, block).rows,
            threads=self.config.data.threads,
            rows=self._rows(block),
        )
        return self.trainer.heldout_loss(variables, blocks)

    def _source(self, labelled: Labelled) -> pipeline.CropSource:
        size = self.trainer.task.size
        return pipeline.CropSource(self.dataset, labelled.ids, size, labelled.labels)

    def _rows(self, batch: int) -> tuple[int, int]:
        """Rows of a batch that this host holds: the first, and how many."""
        part = sharding.part_of(self.trainer.mesh, batch)
        return part.first, part.here

    def train_template(self, structure: dict):
        """Shapes and shardings of a training state of this `structure`."""
        if structure.get(COMPANION):
            shapes = jax.eval_shape(self._companion.init, jax.random.key(0))
            return self._on_every_device(shapes)
        shapes = jax.eval_shape(self.trainer.init, jax.random.key(0))
        if not structure["head"]:
            bare = network_of(shapes.variables)
            shapes = jax.eval_shape(self.trainer.restart, bare)
        return self._on_every_device(shapes)

    def variables_template(self, structure: dict):
        """Shapes and shardings of variables of this `structure`."""
        shapes = jax.eval_shape(self.trainer.init, jax.random.key(0)).variables
        found = shapes if structure["head"] else network_of(shapes)
        if structure["members"]:
            members = {str(k): network_of(shapes) for k in range(structure["members"])}
            found = {**found, "members": members}
        if structure.get(COMPANION):  # not in states saved before there were any
            companion = jax.eval_shape(
                lambda key: self._companion.variables(self._companion.init(key)),
                jax.random.key(0),
            )
            found = {**found, COMPANION: companion}
        return self._on_every_device(found)

    def _on_every_device(self, shapes):
        whole = jax.sharding.NamedSharding(
            self.trainer.mesh, jax.sharding.PartitionSpec()
        )
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), shapes
        )


def structure_of(variables) -> dict:
    """What there is beside the network: head and companion (bool), members (count)."""
    return {
        "head": bool(variables.get("head")),
        "members": len(variables.get("members", {})),
        COMPANION: COMPANION in variables,
    }


def _names(cycle: int, stage: Stage) -> tuple:
    """Names of the random streams of a training."""
    return (cycle,) if stage.kind == NETWORK else (cycle, stage.name)
