"""A model beside the network: its training on labelled and unlabelled images."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jalpose.models.output import Output
from jalpose.runtime import sharding
from jalpose.runtime.throughput import Flow
from jalpose.tasks.task import Label, Task, example_of
from jalpose.training.trainer import network_of, scale_images


class Seen(NamedTuple):
    """Images as a companion sees them; what is not used costs nothing under `jit`.

    Attributes:
      images: float32 [B, S, S, 3] in [0, 1], as they are: not augmented, since there is
        no label to be varied with an unlabelled one.
      output: of the trained network in evaluation mode; no gradient flows into it.
      label: arrays [B, ...] by name; None of unlabelled images.
    """

    images: jax.Array
    output: Output
    label: Label | None = None


@runtime_checkable
class Learner(Protocol):
    """What a companion is and how it learns: a frozen dataclass, its fields options.

    Equal learners are one: what is compiled for one serves the other.
    """

    def init(self, key, seen: Seen) -> Any:
        """All that is carried from step to step: weights, statistics, optimisers.

        Args:
          key: of this training.
          seen: one image, blank, with a label: for the shapes.
        """
        ...

    def step(
        self, learnt, key, labelled: Seen, unlabelled: Seen
    ) -> tuple[Any, dict[str, jax.Array]]:
        """One step of the training.

        Args:
          learnt: as `init` makes it.
          key: of this step.
          labelled: B images.
          unlabelled: as many.

        Returns:
          What is learnt then, and scalars for the screen and records; one is "loss".
        """
        ...

    def variables(self, learnt) -> Any:
        """Of what is learnt that which `describe` takes."""
        ...

    def describe(self, variables, seen: Seen) -> Any:
        """What a finished companion says of images: a tree of arrays [B, ...].

        An image's does not depend on the others of its batch.
        """
        ...

    def __hash__(self) -> int:
        """Equal learners are one."""
        ...


class CompanionState(flax.struct.PyTreeNode):
    """What a companion's training carries from step to step.

    Attributes:
      step: int32, steps taken.
      learnt: of the learner.
    """

    step: jax.Array
    learnt: Any

    @property
    def variables(self) -> dict:
        """By kind, as those of a finished cycle."""
        return {"companion": self.learnt}


class CompanionTrainer:
    """The compiled steps of a companion beside one network.

    Args:
      learner: of the companion.
      model: Linen module of the network.
      task: of the network.
      mesh: batches are split over it.
      batch: labelled images a step, and as many unlabelled.
    """

    def __init__(self, learner: Learner, model, task: Task, mesh, batch: int):
        self.learner, self.model, self.task = learner, model, task
        self.mesh, self.batch = mesh, batch
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._init = jax.jit(self._init_fn)
        self._step = jax.jit(
            self._step_fn, donate_argnums=0, out_shardings=(whole, whole)
        )

    def init(self, key) -> CompanionState:
        """A training's beginning: new weights for `key`."""
        return sharding.replicate(self.mesh, self._init(key))

    def variables(self, state: CompanionState):
        """What the finished training leaves."""
        return self.learner.variables(state.learnt)

    def run(
        self,
        state: CompanionState,
        batches: Iterator,
        network,
        key,
        steps: int,
        *,
        flow: Flow,
    ) -> tuple[CompanionState, dict[str, np.ndarray]]:
        """Take `steps` steps; `key` is of the training, each step folds itself in.

        Args:
          state: its buffers are given away.
          batches: pairs of rows, labelled and unlabelled.
          network: variables of the trained network.
          key: of the training.
          steps: to take.
          flow: counts the examples trained on.

        Returns:
          The new state, and of each scalar a step tells a value a step.
        """
        history: list[dict] = []
        taken = flow.through(
            itertools.islice(batches, steps),
            images=lambda rows: 2 * self.batch,
            idle=lambda: not history or history[-1]["loss"].is_ready(),
        )
        for pair in taken:
            rows = sharding.split(self.mesh, tuple(map(for_devices, pair)))
            state, found = self._step(state, network, rows, key)
            # Collectives queued on forced CPU devices can deadlock.
            if jax.default_backend() == "cpu":
                jax.block_until_ready(found)
            history.append(found)
        names = history[0] if history else ("loss",)
        return state, {k: np.array([float(h[k]) for h in history]) for k in names}

    def _init_fn(self, key):
        images = jnp.zeros((1, *example_of(self.task).shape))
        # Of the network's output only the shapes matter.
        output, _ = self.model.init_with_output(key, images)
        label = {
            name: jnp.zeros((1, *one.shape), one.dtype)
            for name, one in self.task.label_shapes.items()
        }
        learnt = self.learner.init(key, Seen(images, output, label))
        return CompanionState(step=jnp.int32(0), learnt=learnt)

    def _step_fn(self, state: CompanionState, network, rows, key):
        key = jax.random.fold_in(key, state.step)
        labelled, unlabelled = (self._seen(network, part) for part in rows)
        learnt, found = self.learner.step(state.learnt, key, labelled, unlabelled)
        return CompanionState(step=state.step + 1, learnt=learnt), found

    def _seen(self, network, rows) -> Seen:
        # Rows beyond are there for devices that would have none.
        rows = jax.tree.map(lambda values: values[: self.batch], rows)
        images = scale_images(rows["image"])
        output = jax.lax.stop_gradient(self.model.apply(network_of(network), images))
        return Seen(images, output, rows.get("label"))


def for_devices(rows: dict) -> dict:
    """What a device needs of a batch: the ids stay on the host."""
    return {name: rows[name] for name in ("image", "label") if name in rows}
