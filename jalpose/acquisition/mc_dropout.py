"""MC dropout: how much samples of one network under dropout disagree.

Gal and Ghahramani, ICML 2016; Gal, Islam and Ghahramani, ICML 2017. The network is
trained with `model.dropout` and sampled with it, batch norm in evaluation mode. The
latter's BALD, for classes, is measure=mutual_information, their variation ratios
variation_ratio; see `parts.committees`.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.acquisition.parts import committees
from jalpose.settings.checks import at_least
from jalpose.training.needs import Needs

SECTION = "acquisition.mc_dropout"


@dataclasses.dataclass(frozen=True)
class McDropout(Method):
    """Disagreement of samples of one network under dropout.

    Attributes:
      samples: K, forward passes an example; at least 2.
      measure: what differs: prediction (as it is, of poses the heatmaps) | decoded
        (what is read off it, of poses the joints' positions) | of posteriors
        mutual_information, predictive_entropy, vote_entropy or variation_ratio.
    """

    samples: int = 10
    measure: str = "prediction"

    capabilities: ClassVar = ("disagreement",)
    scales: ClassVar = {"tiny": {"samples": 3}}
    presets: ClassVar = {"model.dropout": 0.05}

    def __post_init__(self):
        """Refuse samples that cannot differ."""
        at_least(2, **{f"{SECTION}.samples": self.samples})

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a measure that the task does not have."""
        del num_trained, budget
        committees.check_measure(SECTION, self.measure, task)

    def needs(self, task) -> Needs:
        """A network trained with dropout."""
        del task
        return Needs(dropout=True)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples on which the samples disagree most.

        What is dropped is drawn by the key folded with each example's id, and so is
        which of those that tie in votes come first.

        Raises:
          FloatingPointError: a disagreement is not finite; names the example ids.
        """
        return committees.select(
            probe,
            pool.unlabelled,
            budget,
            self.measure,
            key,
            over="dropout",
            samples=self.samples,
        )
