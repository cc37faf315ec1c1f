"""Learning Loss and LL++: choose the examples whose predicted loss is largest.

Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019: a head learns to order
examples by their loss, objective=margin. For poses head=stacks, weight=1e-4,
detach_after=75, sub_pool=5000; for classes head=blocks, weight=1, detach_after=120, and
one sub-pool for all methods, acquisition.pool_subset=10000. Their variant without pairs
is objective=mse with weight=0.1. Shukla & Ahmed, "A Mathematical Analysis of Learning
Loss for Active Learning in Regression", CVPR workshops 2021: objective=kl, with
head=average LL++, with head=conv LL++conv, never reaching the network, no sub-pool.
Objective and head are free to be combined.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection, by_score, highest
from jalpose.acquisition.parts.heads import check_head, needs_head
from jalpose.scoring.passes import example_keys
from jalpose.settings.checks import ConfigError, above, one_of
from jalpose.training import objectives
from jalpose.training.needs import Needs

SECTION = "acquisition.learning_loss"
OBJECTIVES = ("margin", "kl", "mse")


@dataclasses.dataclass(frozen=True)
class LearningLoss(Method):
    """Loss as a head predicts it that learns to order examples by it.

    Attributes:
      objective: kl (LL++, `objectives.pair_kl`) | margin (Learning Loss,
        `objectives.margin_ranking`) | mse (its variant, `objectives.squared_error`).
      head: network on top of its features, see `models.heads`: stacks (Learning
        Loss for poses) | blocks (for classes) | average (LL++) | conv (LL++conv).
      margin: of objective=margin, in units of the prediction; above 0. The paper's is
        1.
      weight: of the head's objective beside the task's loss (Learning Loss's lambda).
      detach_after: epochs of each training after which the objective no longer reaches
        the network; 0: it never does.
      steps: of training the head alone on a finished model that has none.
      sub_pool: how many of the unlabelled are scored, drawn at random; 0: all. The
        others have the score NaN. (Neighbouring examples tend to have the same loss;
        a sub-pool keeps the choice from being all alike.)
    """

    objective: str = "kl"
    head: str = "conv"
    margin: float = 1.0
    weight: float = 1.0
    detach_after: float = 0.0
    steps: int = 5000
    sub_pool: int = 0

    scales: ClassVar = {"tiny": {"steps": 6}, "small": {"steps": 800}}

    def __post_init__(self):
        """Refuse options that cannot work."""
        check_head(SECTION, self)
        one_of(f"{SECTION}.objective", self.objective, OBJECTIVES)
        # With a margin of 0, equal predictions for all would be perfect.
        above(0, **{f"{SECTION}.margin": self.margin})
        if self.sub_pool < 0:
            raise ConfigError(
                f"{SECTION}.sub_pool={self.sub_pool} must not be negative"
            )

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a sub-pool smaller than the budget."""
        del task, num_trained
        if 0 < self.sub_pool < budget:
            raise ConfigError(
                f"{SECTION}.sub_pool={self.sub_pool} is smaller than the budget, "
                f"{budget}: take 0, for all of the unlabelled, or more than the budget"
            )

    def needs(self, task) -> Needs:
        """A head of one output, trained to rank."""
        del task
        margin = self.margin if self.objective == "margin" else 0.0
        return needs_head(self, _objective(self.objective, margin), outputs=1)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the largest predicted loss.

        Of a sub-pool each example draws with the key folded with its id, so being in
        it does not depend on the order of the others.

        Raises:
          FloatingPointError: a prediction is not finite; names the example ids.
        """
        chosen = unlabelled = pool.unlabelled
        if 0 < self.sub_pool < len(unlabelled):
            draws = jax.vmap(jax.random.uniform)(example_keys(key, unlabelled))
            drawn = highest(unlabelled, np.asarray(draws), self.sub_pool)
            chosen = unlabelled[np.isin(unlabelled, drawn)]
        found = probe.reduce(_predicted_loss, chosen)["loss"]
        selection = by_score(chosen, found, budget, summary={"scored": len(chosen)})
        scores = np.full(len(unlabelled), np.nan, np.float32)
        scores[np.isin(unlabelled, chosen)] = found
        return selection._replace(scores=scores)


@functools.cache
def _objective(name, margin):
    """The same function object for equal options: what it trains is compiled once."""
    if name != "margin":
        return {"kl": objectives.pair_kl, "mse": objectives.squared_error}[name]
    return functools.partial(objectives.margin_ranking, margin=margin)


def _predicted_loss(output, key):
    del key
    return {"loss": output.head[0]}
