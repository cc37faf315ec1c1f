"""SRAAL: VAAL, in which the network says how unlabelled an unlabelled image is.

Zhang et al., "State-Relabeling Adversarial Active Learning", CVPR 2020. As in VAAL an
autoencoder and a discriminator learn against each other, with two changes. The unified
representation: beside the latent dimensions that the image is reconstructed from there
are some that its label is predicted from, learnt on the labelled; the discriminator
sees both. State relabelling: the discriminator is not to find the state 0, unlabelled,
for every unlabelled image, but one the nearer to 1, labelled, the surer the network is
of it, by the uncertainty indicator

    1 - MINVar(V) / Var(V) * max(V)

of the network's class probabilities V, where Var is their variance about 1 / C and
MINVar the smallest that any C probabilities with this maximum have, at which all others
are equal. It is 0 where one class has everything, and the larger the lower the maximum
and the nearer the second comes to it.

The authors' settings could not be confirmed, so those of VAAL stand, nor could the
whole of their text; our choices are: the indicator is of the network of the cycle,
which is trained before (the paper trains its target learner at the same time); of a
task with several sites it is the mean over them; at a uniform posterior, where the
fraction is 0 / 0, the fraction is 1. The objective as we know it has
log(indicator - D), which is undefined where the discriminator says more; here it is the
cross-entropy with the state 1 - indicator, which is smallest where D equals that state.
Labels are predicted from their dimensions by a linear layer and the task's own loss, by
which any task has them. The paper's draw of what is labelled at the start is a matter
of the data set here, not of a method.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.acquisition.parts.adversarial import (
    SCALES,
    Adversary,
    check_adversary,
    least_labelled,
    needs_adversary,
)
from jalpose.acquisition.parts.gradnorm import check_posterior
from jalpose.models.autoencoder import KERNEL_INIT, Encoder
from jalpose.settings.checks import above, at_least
from jalpose.training.companion import Seen
from jalpose.training.needs import Needs

SECTION = "acquisition.sraal"


@dataclasses.dataclass(frozen=True)
class Sraal(Method):
    """Probability of being unlabelled, where states are relabelled by uncertainty.

    Attributes:
      steps: of training generator and discriminator, in every cycle.
      batch: labelled images a step, and as many unlabelled.
      size: pixels that larger images are shrunk to for the generator; 0: none are.
      latents: dimensions of the latent space that images are reconstructed from.
      label_latents: those that labels are predicted from.
      width: channels of the generator's first convolution.
      hidden: width of the discriminator's two hidden layers.
      beta: weight of the divergence from the prior beside the reconstruction.
      representation: weight of both together.
      supervised: weight of the task's loss beside them.
      adversarial: weight of misleading the discriminator.
      learning_rate: of both Adams.
      posterior: of the indicator: over each site's values, of poses the pixels of a
        joint's heatmap: softmax (at a temperature) | normalised (its positive part) |
        window (that round its peak).
      temperature: of a softmax posterior, in units of the prediction.
    """

    steps: int = 39_000
    batch: int = 128
    size: int = 0
    latents: int = 32
    label_latents: int = 32
    width: int = 128
    hidden: int = 512
    beta: float = 1.0
    representation: float = 1.0
    supervised: float = 1.0
    adversarial: float = 1.0
    learning_rate: float = 5e-4
    posterior: str = "softmax"
    temperature: float = 1.0

    capabilities: ClassVar = ("posterior", "pixels")
    scales: ClassVar = {
        scale: {**changes, "label_latents": changes["latents"]}
        for scale, changes in SCALES.items()
    }

    def __post_init__(self):
        """Refuse options that cannot work."""
        check_adversary(SECTION, self)
        at_least(1, **{f"{SECTION}.label_latents": self.label_latents})
        at_least(0, **{f"{SECTION}.supervised": self.supervised})
        above(0, **{f"{SECTION}.temperature": self.temperature})

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a posterior that the task does not have."""
        del num_trained, budget
        check_posterior(SECTION, self.posterior, task)

    def needs(self, task) -> Needs:
        """Generator and discriminator."""
        return needs_adversary(
            self,
            Relabelling,
            task=task,
            label_latents=self.label_latents,
            supervised=self.supervised,
            posterior=self.posterior,
            temperature=self.temperature,
        )

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the smallest probability of being labelled.

        Nothing is drawn.

        Raises:
          FloatingPointError: a score is not finite; names the example ids.
        """
        del key
        return least_labelled(probe, pool, budget)


@dataclasses.dataclass(frozen=True)
class Relabelling(Adversary):
    """`Adversary` with labels in the latent space, and states by the indicator.

    Attributes:
      task: of the labels.
      label_latents: dimensions that labels are predicted from, after the others.
      supervised: weight of the task's loss.
      posterior: kind of the network's.
      temperature: of a softmax.
    """

    task: Any  # `Task` with a posterior
    label_latents: int
    supervised: float
    posterior: str
    temperature: float

    @property
    def encoder(self) -> Encoder:
        """Of all latent dimensions."""
        return Encoder(self.latents + self.label_latents, self.width)

    def more_parameters(self, key, seen: Seen) -> dict:
        """The layer that predicts labels."""
        points = jnp.zeros((1, self.label_latents))
        layer = _layer(seen.output.prediction)
        return {"labels": layer.init(key, points)["params"]}

    def more_objective(self, generator, points, labelled: Seen):
        """The task's loss of what is predicted from the points, mean over the batch."""
        like = labelled.output.prediction
        said = _layer(like).apply(
            {"params": generator["labels"]}, points[:, self.latents :]
        )
        targets = jax.vmap(self.task.target)(labelled.label)
        losses = jax.vmap(self.task.loss)(_shaped(said, like), targets)
        loss = jnp.mean(losses)
        return self.supervised * loss, {"supervised_loss": loss}

    def states(self, unlabelled: Seen):
        """One less the indicator of each [B]."""

        def state(prediction):
            found = self.task.posterior(prediction, self.posterior, self.temperature)
            return 1 - indicator(found)

        return jax.vmap(state)(unlabelled.output.prediction)


def indicator(probabilities):
    """How uncertain a posterior is, from 0 to 1; mean over the sites.

    Args:
      probabilities: [sites, values], each row adding up to 1; two values or more.
    """
    count = probabilities.shape[1]
    highest = jnp.max(probabilities, axis=1)
    variance = jnp.mean(jnp.square(probabilities - 1 / count), axis=1)
    least = jnp.square(highest - 1 / count) / (count - 1)
    there = variance > 0
    share = jnp.where(there, least / jnp.where(there, variance, 1), 1)
    # Of two values both variances are one, but for rounding.
    return jnp.mean(1 - jnp.minimum(share, 1) * highest)


def _layer(prediction) -> nn.Dense:
    """A layer with as many outputs as a network's prediction has numbers."""
    sizes = [math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(prediction)]
    return nn.Dense(sum(sizes), kernel_init=KERNEL_INIT)


def _shaped(numbers, prediction):
    """Numbers [B, n] in the shapes of a prediction."""
    leaves, tree = jax.tree.flatten(prediction)
    ends = [0]
    for leaf in leaves:
        ends.append(ends[-1] + math.prod(leaf.shape[1:]))
    parts = [
        numbers[:, start:end].reshape(leaf.shape)
        for leaf, start, end in zip(leaves, ends, ends[1:], strict=False)
    ]
    return jax.tree.unflatten(tree, parts)
