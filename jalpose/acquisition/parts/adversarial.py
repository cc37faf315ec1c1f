"""What the adversarial methods share: an autoencoder against a discriminator.

VAAL (Sinha, Ebrahimi & Darrell, ICCV 2019) and SRAAL (Zhang et al., CVPR 2020). A
variational autoencoder learns a latent space in which labelled and unlabelled images
look alike, a discriminator to tell them apart all the same. What it is surest to be
unlabelled is least like what is labelled.

Where the papers leave it open: the likelihood of a pixel is a Gaussian of variance 1 on
the scale [0, 1], added up over the image, so that reconstruction and divergence are
both in nats an image; reconstructions are of a sample of the code, the discriminator
sees its mean, in training and in choosing; labelled and unlabelled images go through
the autoencoder in one batch, so that both are normalised by the same statistics, whose
running averages are used to choose; each step is one of the autoencoder, then one of
the discriminator, on the same images.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import expit

from jalpose.acquisition.method import Pool, Selection, by_score
from jalpose.models import autoencoder
from jalpose.models.autoencoder import Code, Decoder, Discriminator, Encoder
from jalpose.settings.checks import above, at_least
from jalpose.training.companion import Seen
from jalpose.training.needs import Companion, Needs

# What the scales change of the fields that both methods have.
SCALES: dict[str, dict[str, Any]] = {
    "tiny": {
        "steps": 6,
        "batch": 8,
        "size": 16,
        "latents": 4,
        "width": 4,
        "hidden": 8,
    },
    "small": {
        "steps": 300,
        "batch": 64,
        "size": 32,
        "latents": 16,
        "width": 16,
        "hidden": 128,
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the parts of the autoencoder's objective.

    Attributes:
      beta: of the divergence from the prior beside the reconstruction.
      representation: of both together, the papers' lambda_1.
      adversarial: of misleading the discriminator, lambda_2.
    """

    beta: float
    representation: float
    adversarial: float


@dataclasses.dataclass(frozen=True)
class Adversary:
    """A learner: autoencoder and discriminator; see `companion.Learner`.

    Attributes:
      latents: dimensions of the latent space that an image is reconstructed from.
      width: channels of the autoencoder's first convolution.
      hidden: width of the discriminator's layers.
      size: pixels that larger images are shrunk to; 0: none are.
      weights: of the objective's parts.
      learning_rate: of both Adams.
    """

    latents: int
    width: int
    hidden: int
    size: int
    weights: Weights
    learning_rate: float

    @property
    def encoder(self) -> Encoder:
        """Of all latent dimensions."""
        return Encoder(self.latents, self.width)

    def decoder(self, size: int) -> Decoder:
        """Of images of this size."""
        return Decoder(size, self.width)

    @property
    def discriminator(self) -> Discriminator:
        """Of points of the latent space."""
        return Discriminator(self.hidden)

    def init(self, key, seen: Seen) -> dict:
        """New weights, statistics and optimisers."""
        images = autoencoder.shrunk(seen.images, self.size)
        keys = jax.random.split(key, 4)
        encoder = self.encoder.init(keys[0], images, train=False)
        points = jnp.zeros((1, self.encoder.latents))
        decoder = self.decoder(images.shape[1]).init(
            keys[1], points[:, : self.latents], train=False
        )
        generator = {
            "encoder": encoder["params"],
            "decoder": decoder["params"],
            **self.more_parameters(keys[2], seen),
        }
        discriminator = self.discriminator.init(keys[3], points)["params"]
        return {
            "generator": generator,
            "statistics": {
                "encoder": encoder["batch_stats"],
                "decoder": decoder["batch_stats"],
            },
            "generator_optimizer": self._optimizer.init(generator),
            "discriminator": discriminator,
            "discriminator_optimizer": self._optimizer.init(discriminator),
        }

    def more_parameters(self, key, seen: Seen) -> dict:
        """Parameters of what the generator has beside the autoencoder, by name."""
        del key, seen
        return {}

    def more_objective(self, generator, points, labelled: Seen):
        """What the generator learns beside, and its weight: a scalar and its name.

        Args:
          generator: its parameters.
          points: of the latent space [B, L], of the labelled.
          labelled: what they are of.
        """
        del generator, points, labelled
        return 0.0, {}

    def states(self, unlabelled: Seen):
        """States of unlabelled images [B], which the discriminator is to find."""
        return jnp.zeros(len(unlabelled.images))

    def step(self, learnt, key, labelled: Seen, unlabelled: Seen):
        """The autoencoder's step, then the discriminator's: Algorithm 1 of VAAL.

        States are 1 for labelled, 0 for unlabelled, or what `states` says.
        """
        count = len(labelled.images)
        both = jnp.concatenate([labelled.images, unlabelled.images])
        images = autoencoder.shrunk(both, self.size)

        def encoded(generator) -> Any:
            return self.encoder.apply(
                {
                    "params": generator["encoder"],
                    "batch_stats": learnt["statistics"]["encoder"],
                },
                images,
                train=True,
                mutable=["batch_stats"],
            )

        def generator_loss(generator):
            code, of_encoder = encoded(generator)
            points = autoencoder.sample(key, code)
            found, of_decoder = self.decoder(images.shape[1]).apply(
                {
                    "params": generator["decoder"],
                    "batch_stats": learnt["statistics"]["decoder"],
                },
                points[:, : self.latents],
                train=True,
                mutable=["batch_stats"],
            )
            errors, divergences = reconstruction(images, found), divergence(code)
            each = errors + self.weights.beta * divergences
            representation = of_both(each, count)
            odds = self.discriminator.apply(
                {"params": learnt["discriminator"]}, code.mean
            )
            adversarial = of_both(surprise(odds, 1.0), count)
            more, told = self.more_objective(generator, points[:count], labelled)
            loss = (
                self.weights.representation * representation
                + self.weights.adversarial * adversarial
                + more
            )
            told = {
                "loss": loss,
                "reconstruction_loss": of_both(errors, count),
                "divergence": of_both(divergences, count),
                "adversarial_loss": adversarial,
                **told,
            }
            statistics = {
                "encoder": of_encoder["batch_stats"],
                "decoder": of_decoder["batch_stats"],
            }
            return loss, (told, statistics)

        (_, (told, statistics)), gradient = jax.value_and_grad(
            generator_loss, has_aux=True
        )(learnt["generator"])
        generator, generator_optimizer = self._updated(
            learnt["generator"], gradient, learnt["generator_optimizer"]
        )
        code, _ = encoded(generator)
        states = jnp.concatenate([jnp.ones(count), self.states(unlabelled)])

        def discriminator_loss(params):
            odds = self.discriminator.apply({"params": params}, code.mean)
            return of_both(surprise(odds, states), count)

        loss, gradient = jax.value_and_grad(discriminator_loss)(learnt["discriminator"])
        discriminator, discriminator_optimizer = self._updated(
            learnt["discriminator"], gradient, learnt["discriminator_optimizer"]
        )
        return {
            "generator": generator,
            "statistics": statistics,
            "generator_optimizer": generator_optimizer,
            "discriminator": discriminator,
            "discriminator_optimizer": discriminator_optimizer,
        }, {**told, "discriminator_loss": loss}

    def variables(self, learnt) -> dict:
        """Encoder and discriminator."""
        return {
            "encoder": {
                "params": learnt["generator"]["encoder"],
                "batch_stats": learnt["statistics"]["encoder"],
            },
            "discriminator": {"params": learnt["discriminator"]},
        }

    def describe(self, variables, seen: Seen) -> dict:
        """Log odds [B] of being labelled."""
        images = autoencoder.shrunk(seen.images, self.size)
        code: Any = self.encoder.apply(variables["encoder"], images, train=False)
        odds = self.discriminator.apply(variables["discriminator"], code.mean)
        return {"log_odds": odds}

    @property
    def _optimizer(self):
        return optax.adam(self.learning_rate)

    def _updated(self, params, gradient, state):
        updates, state = self._optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state


def reconstruction(images, found):
    """-log N(images; found, 1) in nats of each image [B], without the constant.

    Args:
      images: float32 [B, S, S, 3].
      found: the decoder's, likewise.
    """
    return 0.5 * jnp.sum(jnp.square(images - found), axis=(1, 2, 3))


def divergence(code: Code):
    """KL(N(mean, variance) || N(0, 1)) in nats of each image [B]."""
    return 0.5 * jnp.sum(
        jnp.square(code.mean) + jnp.exp(code.log_variance) - 1 - code.log_variance,
        axis=1,
    )


def surprise(log_odds, state):
    """Binary cross-entropy in nats of a state in [0, 1] under log odds, of each [B]."""
    return state * jax.nn.softplus(-log_odds) + (1 - state) * jax.nn.softplus(log_odds)


def of_both(values, count: int):
    """Mean over the first `count`, the labelled, plus that over the rest."""
    return jnp.mean(values[:count]) + jnp.mean(values[count:])


def needs_adversary(options: Any, make: Callable[..., Adversary], **more) -> Needs:
    """An adversary trained beside the network, by a method's fields of these names.

    Args:
      options: with the fields of `Adversary`, `Weights` and `Companion`.
      make: `Adversary`, or one that is more.
      more: fields of that.
    """
    weights = Weights(
        beta=options.beta,
        representation=options.representation,
        adversarial=options.adversarial,
    )
    learner = make(
        latents=options.latents,
        width=options.width,
        hidden=options.hidden,
        size=options.size,
        weights=weights,
        learning_rate=options.learning_rate,
        **more,
    )
    return Needs(
        companion=Companion(learner=learner, steps=options.steps, batch=options.batch)
    )


def check_adversary(section: str, options: Any) -> None:
    """Raise ConfigError for shared options that cannot work.

    Args:
      section: of the config, for the message.
      options: as of `needs_adversary`.
    """
    for name in ("latents", "width", "hidden", "steps", "batch"):
        at_least(1, **{f"{section}.{name}": getattr(options, name)})
    for name in ("size", "beta", "representation", "adversarial"):
        at_least(0, **{f"{section}.{name}": getattr(options, name)})
    above(0, **{f"{section}.learning_rate": options.learning_rate})


def least_labelled(probe, pool: Pool, budget: int) -> Selection:
    """Choose what the discriminator is surest to be unlabelled.

    The score is the log odds of being unlabelled: in the order of the probability, and
    still told apart where that rounds to 1. The explanation has `labelled_probability`.

    Raises:
      FloatingPointError: log odds are not finite; names the example ids.
    """
    odds = probe.reduce(_log_odds, pool.unlabelled, over="companion")["log_odds"]
    probability = expit(odds)
    return by_score(
        pool.unlabelled,
        -odds,
        budget,
        explanation={"labelled_probability": probability},
        summary={"mean_labelled_probability": float(np.mean(probability))},
    )


def _log_odds(said, key):
    del key
    return said
