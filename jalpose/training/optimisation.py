"""How steps are taken: the optimiser, and the learning rate over a training."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import optax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How a step is taken and which weights are kept: part of `config.training`.

    Attributes:
      batch: examples a step, over all devices.
      optimizer: adam | rmsprop | sgd.
      learning_rate: of the optimiser.
      momentum: of sgd.
      nesterov: of sgd.
      weight_decay: times the weights, added to their gradient.
      schedule: plateau (of the held-out loss) | cosine | steps (drops) | constant.
      warmup_steps: linear warm-up at the start of each training.
      drop_factor: learning rate factor of a drop.
      plateau_factor: learning rate factor where the loss stalls.
      plateau_patience: held-out evaluations without a better loss.
      plateau_reduces: beyond (that patience, as PyTorch's) | at (it, as optax's).
      plateau_cooldown: held-out evaluations after a reduction.
      plateau_min: smallest learning rate, of `learning_rate`.
      clip_norm: global gradient norm; 0: no clipping.
      keep: best (held-out loss) | last weights of a training.
    """

    batch: int
    optimizer: str
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: str
    warmup_steps: int
    drop_factor: float
    plateau_factor: float
    plateau_patience: int
    plateau_reduces: str
    plateau_cooldown: int
    plateau_min: float
    clip_norm: float
    keep: str

    @classmethod
    def of(cls, training) -> "Optimisation":
        """What the config section `training` says of it."""
        return cls(**{f.name: training[f.name] for f in dataclasses.fields(cls)})

    def optimiser(self) -> optax.GradientTransformation:
        """What becomes of a gradient before it is taken times the learning rate.

        Clipping, then weight decay, then Adam, RMSprop (the mean square decays by
        0.99; no momentum) or momentum. All of it is as in `torch.optim`: the decay is
        added to the gradient, of all parameters, before anything is averaged; with g
        the gradient so far the momentum is b <- m b + g from b = 0, and the step is b,
        with Nesterov g + m b. The learning rate is not in the momentum: where it drops,
        what is gathered drops with it.
        """
        parts = []
        if self.clip_norm:
            parts.append(optax.clip_by_global_norm(self.clip_norm))
        if self.weight_decay:
            parts.append(optax.add_decayed_weights(self.weight_decay))
        if self.optimizer == "adam":
            parts.append(optax.scale_by_adam())
        elif self.optimizer == "rmsprop":
            # The square root first, then eps: as in torch, not as in TensorFlow.
            parts.append(optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False))
        else:
            parts.append(optax.trace(decay=self.momentum, nesterov=self.nesterov))
        return optax.chain(*parts)

    def plateau(self) -> optax.GradientTransformationExtraArgs:
        """What reduces the learning rate where the held-out loss stalls.

        With a patience of 5, PyTorch's `ReduceLROnPlateau`, which the papers' code
        uses, reduces it at the sixth evaluation in a row that is no better, optax at
        the fifth. Better is lower by one part in 10,000, in both.
        """
        borne = self.plateau_reduces == "beyond"
        return optax.contrib.reduce_on_plateau(
            factor=self.plateau_factor,
            patience=self.plateau_patience + borne,
            cooldown=self.plateau_cooldown,
            min_scale=self.plateau_min,
        )

    def rate(self, step: int, total: int, drops: Sequence[int] = ()) -> float:
        """Learning rate of step `step` of `total`, before reductions on a plateau.

        Args:
          step: from 0.
          total: steps of the training.
          drops: of schedule=steps, steps from which on the rate is `drop_factor` of
            what it was before.
        """
        warmup = min(self.warmup_steps, total // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "cosine":
            progress = (step - warmup) / max(1, total - warmup)
            return float(self.learning_rate * 0.5 * (1 + np.cos(np.pi * progress)))
        if self.schedule == "steps":
            past = sum(step >= drop for drop in drops)
            return self.learning_rate * self.drop_factor**past
        return self.learning_rate
