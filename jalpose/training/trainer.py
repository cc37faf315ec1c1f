"""Training state, the one jitted step, and a bounded run of steps."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jalpose.runtime import sharding
from jalpose.runtime.throughput import Flow
from jalpose.tasks.task import Task, example_of
from jalpose.training import objectives
from jalpose.training.needs import Head
from jalpose.training.optimisation import Optimisation


class TrainState(flax.struct.PyTreeNode):
    """Everything a training carries from step to step.

    Attributes:
      step: int32, steps taken in this training (of this cycle).
      params: of the network.
      batch_stats: running statistics of its batch norms.
      opt_state: of the optimiser.
      head: parameters of the head trained beside the network; {} without one.
      head_opt_state: of the head's own optimiser.
      plateau: of the learning-rate reduction by held-out loss.
      best: variables of the lowest held-out loss so far, the head of that step too.
      best_loss: float32, that loss; infinity before the first evaluation.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    head: Any
    head_opt_state: Any
    plateau: Any
    best: Any
    best_loss: jax.Array

    @property
    def variables(self) -> dict:
        """The current Linen variables, and the parameters of the head if any."""
        return join(self.params, self.batch_stats, self.head)


def join(params, batch_stats, head) -> dict:
    """Variables of a network, with a `head` where there is one."""
    network = {"params": params, "batch_stats": batch_stats}
    return {**network, "head": head} if head else network


def network_of(variables) -> dict:
    """Linen variables of the network alone; it may have no batch norms."""
    return {
        "params": variables["params"],
        "batch_stats": variables.get("batch_stats", {}),
    }


class Trainer:
    """The compiled steps of one network, task and optimiser.

    Args:
      model: Linen module returning `Output`.
      task: what is learnt.
      config: of the steps.
      mesh: batches are split over it.
      head: trained beside the network, or None.

    Attributes:
      optimizer: see `Optimisation.optimiser`; the head has its own state of it.
    """

    def __init__(
        self,
        model,
        task: Task,
        config: Optimisation,
        mesh,
        head: Head | None = None,
    ):
        self.model, self.task, self.config, self.mesh = model, task, config, mesh
        self.head = head
        self.optimizer, self._plateau = config.optimiser(), config.plateau()
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._init = jax.jit(self._init_fn)
        self._init_head = jax.jit(self._init_head_fn)
        self._step = jax.jit(
            self._step_fn,
            donate_argnums=0,
            out_shardings=(whole, whole),
            static_argnames="attached",
        )
        self._head_step = jax.jit(
            self._head_step_fn, donate_argnums=0, out_shardings=(whole, whole)
        )
        self._heldout = jax.jit(self._heldout_fn, out_shardings=whole)
        self._keep = jax.jit(self._keep_fn, donate_argnums=0, out_shardings=whole)

    def init(self, key) -> TrainState:
        """New weights, of the head too, and optimiser for `key`."""
        variables = self._init(key)
        if self.head is not None:
            variables = {**variables, "head": self.new_head(key)}
        return self.restart(variables)

    def new_head(self, key):
        """New parameters of the head."""
        return self._init_head(jax.random.fold_in(key, 1))

    def restart(self, variables) -> TrainState:
        """Start a training from `variables`: fresh optimiser, learning rate and best.

        Args:
          variables: of the network, and of a head if one is to be trained.
        """
        whole = {**variables, **network_of(variables)}
        placed = sharding.replicate(self.mesh, whole)
        # Copies: steps give the state's buffers away, and the caller's are not ours.
        variables, best = (jax.tree.map(jnp.copy, placed) for _ in range(2))
        head = variables.get("head", {})
        state = TrainState(
            step=jnp.int32(0),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=self.optimizer.init(variables["params"]),
            head=head,
            head_opt_state=self.optimizer.init(head),
            plateau=self._plateau.init({}),
            best=best,
            best_loss=jnp.float32(jnp.inf),
        )
        return sharding.replicate(self.mesh, state)

    def run(
        self,
        state: TrainState,
        batches: Iterator,
        key,
        steps: int,
        total: int,
        *,
        flow: Flow,
        drops: Sequence[int] = (),
        attached_steps: int = 0,
        head_alone: bool = False,
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        """Take `steps` steps; `key` is of the training, each step folds itself in.

        Args:
          state: its buffers are given away.
          batches: of `pipeline.training_batches`.
          key: of the training.
          steps: to take.
          total: steps of the whole training.
          flow: counts the examples trained on.
          drops: see `Optimisation.rate`.
          attached_steps: in how many first steps of the training the head's gradient
            reaches the network.
          head_alone: the head alone learns; the network is in evaluation mode, and
            neither its weights nor its statistics move.

        Returns:
          The new state, and a value a step of loss and, with a head, head_loss.
        """
        history: list[dict] = []
        first = int(state.step)
        taken = flow.through(
            itertools.islice(batches, steps),
            images=lambda rows: self.config.batch,
            idle=lambda: not history or history[-1]["loss"].is_ready(),
        )
        for step, rows in enumerate(taken, start=first):
            batch = sharding.split(self.mesh, for_devices(rows))
            rate = np.float32(self.config.rate(step, total, drops))
            if head_alone:
                state, found = self._head_step(state, batch, key, rate)
            else:
                attached = bool(state.head) and step < attached_steps
                state, found = self._step(state, batch, key, rate, attached=attached)
            # Collectives queued on forced CPU devices can deadlock.
            if jax.default_backend() == "cpu":
                jax.block_until_ready(found)
            history.append(found)
        names = history[0] if history else ("loss",)
        return state, {k: np.array([float(h[k]) for h in history]) for k in names}

    def heldout_loss(self, variables, blocks) -> float:
        """Mean loss over held-out examples, evaluation mode, no augmentation.

        Args:
          variables: Linen variables.
          blocks: of (number that count, rows), see `pipeline.blocks_in_order`.
        """
        total, count = 0.0, 0
        for number, rows in blocks:
            values = self._heldout(
                variables, sharding.split(self.mesh, for_devices(rows))
            )
            total += float(np.sum(np.asarray(values)[:number], dtype=np.float64))
            count += number
        return total / count

    def observe(self, state: TrainState, loss: float) -> TrainState:
        """Take note of a held-out loss: best weights, and the plateau."""
        return self._keep(state, np.float32(loss))

    def chosen(self, state: TrainState) -> dict:
        """The variables a finished training leaves: the best, or the last."""
        seen = bool(np.isfinite(state.best_loss))
        return state.best if self.config.keep == "best" and seen else state.variables

    def lower_step(self, batch: int):
        """Lowered training step for `batch` examples, from shapes alone."""
        state = jax.eval_shape(self.init, jax.random.key(0))
        example = example_of(self.task)
        rows = {
            "image": jax.ShapeDtypeStruct((batch, *example.shape), example.dtype),
            "label": {
                name: jax.ShapeDtypeStruct((batch, *one.shape), one.dtype)
                for name, one in self.task.label_shapes.items()
            },
        }
        return self._step.lower(
            state, rows, jax.random.key(0), np.float32(0), attached=False
        )

    def _init_fn(self, key):
        return network_of(self.model.init(key, self._blank()))

    def _init_head_fn(self, key):
        assert self.head is not None  # else nobody asks for one
        # Of the network's output only the shapes matter.
        output, _ = self.model.init_with_output(key, self._blank())
        return self.head.module.init(key, output)["params"]

    def _blank(self):
        return jnp.zeros((1, *example_of(self.task).shape))

    def _augmented(self, batch, key):
        """(images, labels, targets) of a batch, augmented."""
        # Rows beyond are there for devices that would have none.
        batch = jax.tree.map(lambda rows: rows[: self.config.batch], batch)
        keys = jax.random.split(key, batch["image"].shape[0])
        images, labels = jax.vmap(self.task.augment)(
            keys, scale_images(batch["image"]), batch["label"]
        )
        return images, labels, jax.vmap(self.task.target)(labels)

    def _objective(self, head, output, each, labels, targets):
        """The head's objective on a batch; `each` are the examples' losses."""
        assert self.head is not None  # its parameters are there
        truth = objectives.Truth(
            losses=jax.lax.stop_gradient(each),
            known=jax.vmap(self.task.known)(targets),
            prediction=jax.lax.stop_gradient(output.prediction),
            label=labels,
        )
        outputs = self.head.module.apply({"params": head}, output)
        return self.head.objective(outputs, truth)

    def _step_fn(self, state: TrainState, batch, key, rate, *, attached: bool):
        key = jax.random.fold_in(key, state.step)
        images, labels, targets = self._augmented(batch, key)

        def total_loss(learnt):
            params, head = learnt
            output, changed = self.model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(key, 0)},
            )
            each = jax.vmap(self.task.loss)(output.prediction, targets)
            found = {"loss": jnp.mean(each)}
            total = found["loss"]
            if head and self.head is not None:
                seen = output if attached else jax.lax.stop_gradient(output)
                found["head_loss"] = self._objective(head, seen, each, labels, targets)
                total += self.head.weight * found["head_loss"]
            return total, (found, changed.get("batch_stats", {}))

        learnt = (state.params, state.head)
        (_, (found, batch_stats)), gradient = jax.value_and_grad(
            total_loss, has_aux=True
        )(learnt)
        rate = -rate * state.plateau.scale
        # Each is clipped and optimised by itself: a head that is not attached leaves
        # the network's training as it would be without it.
        params, opt_state = self._updated(
            state.params, gradient[0], state.opt_state, rate
        )
        head, head_opt_state = self._updated(
            state.head, gradient[1], state.head_opt_state, rate
        )
        return state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            head=head,
            head_opt_state=head_opt_state,
        ), found

    def _head_step_fn(self, state: TrainState, batch, key, rate):
        key = jax.random.fold_in(key, state.step)
        images, labels, targets = self._augmented(batch, key)
        output = self.model.apply(network_of(state.variables), images)
        each = jax.vmap(self.task.loss)(output.prediction, targets)
        loss, gradient = jax.value_and_grad(self._objective)(
            state.head, output, each, labels, targets
        )
        head, head_opt_state = self._updated(
            state.head, gradient, state.head_opt_state, -rate
        )
        found = {"loss": jnp.mean(each), "head_loss": loss}
        return state.replace(
            step=state.step + 1, head=head, head_opt_state=head_opt_state
        ), found

    def _updated(self, params, gradient, opt_state, rate):
        updates, opt_state = self.optimizer.update(gradient, opt_state, params)
        return jax.tree.map(lambda p, u: p + rate * u, params, updates), opt_state

    def _heldout_fn(self, variables, rows):
        output = self.model.apply(network_of(variables), scale_images(rows["image"]))
        targets = jax.vmap(self.task.target)(rows["label"])
        return jax.vmap(self.task.loss)(output.prediction, targets)

    def _keep_fn(self, state: TrainState, loss):
        better = loss < state.best_loss
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), state.variables, state.best
        )
        plateau = state.plateau
        if self.config.schedule == "plateau":
            _, plateau = self._plateau.update({}, plateau, value=loss)
        return state.replace(
            best=best,
            best_loss=jnp.where(better, loss, state.best_loss),
            plateau=plateau,
        )


def scale_images(images):
    """Uint8 [0, 255] -> float32 [0, 1]; rows of float32 as they are."""
    if images.dtype != jnp.uint8:
        return images
    return images.astype(jnp.float32) / 255.0


def for_devices(rows: dict) -> dict:
    """What a device needs of a batch: the ids stay on the host."""
    return {"image": rows["image"], "label": rows["label"]}
