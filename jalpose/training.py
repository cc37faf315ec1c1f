"""Training state, the one jitted step, and a bounded run of steps."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jalpose import heatmaps, losses, sharding
from jalpose.data import augment
from jalpose.data.skeletons import ABSENT, VISIBLE


class TrainState(flax.struct.PyTreeNode):
    """Everything a training carries from step to step.

    Attributes:
      step: int32, steps taken in this training (of this cycle).
      params: of the network.
      batch_stats: running statistics of its batch norms.
      opt_state: of Adam.
      plateau: of the learning-rate reduction by held-out loss.
      best: params and batch_stats of the lowest held-out loss so far.
      best_loss: float32, that loss; infinity before the first evaluation.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    plateau: Any
    best: Any
    best_loss: jax.Array

    @property
    def variables(self) -> dict:
        """The current Linen variables."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class HeatmapSpec(NamedTuple):
    """How label heatmaps are drawn: sizes in pixels, sigma at a 64x64 map."""

    crop_size: int
    heatmap_size: int
    sigma: float
    peak: float

    def render(self, joints, present):
        """[J, 2] crop pixels, bool [J] -> float32 [h, w, J]."""
        return heatmaps.render_heatmaps(joints, present, **self._asdict())


class Trainer:
    """The compiled steps of one network, optimiser and set of augmentations.

    Args:
      model: Linen module returning `PoseOutput`.
      config: the `training` section.
      ranges: of the augmentations.
      mirror: the skeleton's permutation under a flip.
      spec: of the label heatmaps.
      mesh: batches are split over it.
    """

    def __init__(self, model, config, ranges, mirror, spec: HeatmapSpec, mesh):
        self.model, self.config, self.spec, self.mesh = model, config, spec, mesh
        self._ranges, self._mirror = ranges, mirror
        clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
        self._optimizer = optax.chain(*clip, optax.scale_by_adam())
        self._plateau = optax.contrib.reduce_on_plateau(
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            cooldown=config.plateau_cooldown,
            min_scale=config.plateau_min,
        )
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._init = jax.jit(self.model.init)
        self._step = jax.jit(
            self._step_fn, donate_argnums=0, out_shardings=(whole, whole)
        )
        self._heldout = jax.jit(self._heldout_fn)
        self._keep = jax.jit(self._keep_fn, donate_argnums=0, out_shardings=whole)

    def init(self, key) -> TrainState:
        """New weights and optimiser for `key`."""
        image = jnp.zeros((1, self.spec.crop_size, self.spec.crop_size, 3))
        variables = self._init(key, image)
        return self.restart(variables)

    def restart(self, variables) -> TrainState:
        """Start a training from `variables`: fresh Adam, learning rate and best."""
        placed = sharding.replicate(self.mesh, dict(variables))
        # Copies: steps give the state's buffers away, and the caller's are not ours.
        variables, best = (jax.tree.map(jnp.copy, placed) for _ in range(2))
        state = TrainState(
            step=jnp.int32(0),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=self._optimizer.init(variables["params"]),
            plateau=self._plateau.init({}),
            best=best,
            best_loss=jnp.float32(jnp.inf),
        )
        return sharding.replicate(self.mesh, state)

    def learning_rate(self, step: int, total: int) -> float:
        """Of step `step` of `total`, before reductions on a plateau."""
        rate, warmup = self.config.learning_rate, self.config.warmup_steps
        warmup = min(warmup, total // 2)
        if step < warmup:
            return rate * (step + 1) / warmup
        if self.config.schedule == "cosine":
            progress = (step - warmup) / max(1, total - warmup)
            return float(rate * 0.5 * (1 + np.cos(np.pi * progress)))
        return rate

    def run(
        self, state: TrainState, batches: Iterator, key, steps: int, total: int
    ) -> tuple[TrainState, np.ndarray]:
        """Take `steps` steps; `key` is of the training, each step folds itself in.

        Returns:
          The new state (the old one's buffers are given away) and the losses.
        """
        history = []
        first = int(state.step)
        for step in range(first, first + steps):
            batch = sharding.split(self.mesh, arrays_only(next(batches)))
            rate = np.float32(self.learning_rate(step, total))
            state, loss = self._step(state, batch, key, rate)
            # Collectives queued on forced CPU devices can deadlock.
            if jax.default_backend() == "cpu":
                loss.block_until_ready()
            history.append(loss)
        return state, np.array([float(loss) for loss in history])

    def heldout_loss(self, variables, blocks) -> float:
        """Mean loss over held-out examples, evaluation mode, no augmentation.

        Args:
          variables: Linen variables.
          blocks: of (number that count, rows), see `pipeline.blocks_in_order`.
        """
        total, count = 0.0, 0
        for number, rows in blocks:
            values = self._heldout(
                variables, sharding.split(self.mesh, arrays_only(rows))
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
        size, joints = self.spec.crop_size, self.model.num_joints
        rows = {
            "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
            "joints": jax.ShapeDtypeStruct((batch, joints, 2), jnp.float32),
            "status": jax.ShapeDtypeStruct((batch, joints), jnp.int8),
        }
        return self._step.lower(state, rows, jax.random.key(0), np.float32(0))

    def _present(self, status):
        if self.config.occluded:
            return status != ABSENT
        return status == VISIBLE

    def _step_fn(self, state: TrainState, batch, key, rate):
        step_key = jax.random.fold_in(key, state.step)
        keys = jax.random.split(step_key, batch["image"].shape[0])
        drop_key = jax.random.fold_in(step_key, 0)
        images, joints, present = jax.vmap(
            lambda k, image, xy, there: augment.augment(
                k, image, xy, there, ranges=self._ranges, mirror=self._mirror
            )
        )(
            keys,
            scale_images(batch["image"]),
            batch["joints"],
            self._present(batch["status"]),
        )
        targets = jax.vmap(self.spec.render)(joints, present)

        def mean_loss(params):
            output, changed = self.model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": drop_key},
            )
            each = jax.vmap(losses.heatmap_loss)(output.heatmaps, targets, present)
            return jnp.mean(each), changed["batch_stats"]

        (loss, batch_stats), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
            state.params
        )
        updates, opt_state = self._optimizer.update(gradient, state.opt_state)
        rate = -rate * state.plateau.scale
        params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
        return state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
        ), loss

    def _heldout_fn(self, variables, rows):
        output = self.model.apply(variables, scale_images(rows["image"]))
        present = self._present(rows["status"])
        targets = jax.vmap(self.spec.render)(rows["joints"], present)
        return jax.vmap(losses.heatmap_loss)(output.heatmaps, targets, present)

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
    """Uint8 [0, 255] -> float32 [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def arrays_only(rows: dict) -> dict:
    """What the device needs of a batch: the ids stay on the host."""
    return {name: rows[name] for name in ("image", "joints", "status")}
