"""VAAL: the images that a discriminator is surest to be unlabelled.

Sinha, Ebrahimi & Darrell, "Variational Adversarial Active Learning", ICCV 2019. A
variational autoencoder and a discriminator of its latent space learn against each other
on labelled and unlabelled images, without labels and without the network (Eq. 1 to 4,
Algorithm 1); the smallest probability of being labelled is chosen (Algorithm 2). Eq. 1
is the reconstruction and beta times the divergence, of labelled and of unlabelled;
Eq. 2 the cross-entropy of both being labelled; Eq. 3 their sum with the weights
lambda_1 and lambda_2; Eq. 4 the discriminator's cross-entropy. The settings
are, as far as they are known to us, the paper's for CIFAR-10: Adam at 5e-4, weights of
1, 32 latent dimensions, batches of 128, and 100 epochs of its 50,000 images in `steps`.

We differ: the paper trains network and autoencoder side by side, which changes nothing
of either since they share nothing; each cycle starts from new weights. What the paper
leaves open is said in `parts.adversarial`, and of the networks in
`models.autoencoder`.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.acquisition.parts.adversarial import (
    SCALES,
    Adversary,
    check_adversary,
    least_labelled,
    needs_adversary,
)
from jalpose.training.needs import Needs

SECTION = "acquisition.vaal"


@dataclasses.dataclass(frozen=True)
class Vaal(Method):
    """Probability of being unlabelled by a discriminator of an autoencoder's codes.

    Attributes:
      steps: of training autoencoder and discriminator, in every cycle.
      batch: labelled images a step, and as many unlabelled.
      size: pixels that larger images are shrunk to for the autoencoder; 0: none are.
      latents: dimensions of the latent space.
      width: channels of the autoencoder's first convolution.
      hidden: width of the discriminator's two hidden layers.
      beta: weight of the divergence from the prior beside the reconstruction.
      representation: weight of both together (lambda_1).
      adversarial: weight of misleading the discriminator (lambda_2).
      learning_rate: of both Adams.
    """

    steps: int = 39_000
    batch: int = 128
    size: int = 0
    latents: int = 32
    width: int = 128
    hidden: int = 512
    beta: float = 1.0
    representation: float = 1.0
    adversarial: float = 1.0
    learning_rate: float = 5e-4

    capabilities: ClassVar = ("pixels",)
    scales: ClassVar = SCALES

    def __post_init__(self):
        """Refuse options that cannot work."""
        check_adversary(SECTION, self)

    def needs(self, task) -> Needs:
        """Autoencoder and discriminator."""
        del task
        return needs_adversary(self, Adversary)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the smallest probability of being labelled.

        Nothing is drawn.

        Raises:
          FloatingPointError: a score is not finite; names the example ids.
        """
        del key
        return least_labelled(probe, pool, budget)
