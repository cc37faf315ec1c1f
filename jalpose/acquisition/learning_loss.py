"""Learning Loss and LL++: choose the examples whose predicted loss is largest.

Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019: a head learns to order
examples by their loss, objective=margin. For poses head=stacks, detach_after=75; for
classes head=blocks, weight=1, detach_after=120. What they score, a sub-pool, is the
protocol's, for all methods: acquisition.pool_subset=5000 for poses, 10000 for classes.
Their variant without pairs is objective=mse with weight=0.1. Shukla & Ahmed, "A
Mathematical Analysis of Learning Loss for Active Learning in Regression", CVPR
workshops 2021: objective=kl, with head=average LL++, with head=conv LL++conv, never
reaching the network, no sub-pool; their Learning Loss too has head=average and
detach_after=0 in the published code, and differs from LL++ in the objective alone.
Objective and head are free to be combined.

**The weight for poses.** The paper's is 1e-4, since the squared error of its heatmaps
is "around 0.001 after several epochs"; how high they are it does not say, the usual
code's have a peak of 1 and a sigma of 1. The error, and with it the part of the head
that a weight stands for, grows by (peak sigma)^2: an empty answer has a mean squared
error of pi (peak sigma)^2 / 64^2, 0.00077 there and 2.11 at the published code's 30 and
1.75, where 1e-4 would let the head move nothing. So the paper's weight is 1e-4
(heatmap.peak heatmap.sigma)^2 here: 0.28 with the defaults of `heatmap`.
"""

import dataclasses
import functools
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts.heads import check_head, needs_head
from jalpose.settings.checks import above, one_of
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
      weight: of the head's objective beside the task's loss (Learning Loss's lambda,
        see above for poses). Without `detach_after` it matters only to clipping.
      detach_after: epochs of each training after which the objective no longer reaches
        the network; 0: it never does.
      steps: of training the head alone on a finished model that has none.
    """

    objective: str = "kl"
    head: str = "conv"
    margin: float = 1.0
    weight: float = 1.0
    detach_after: float = 0.0
    steps: int = 5000

    scales: ClassVar = {"tiny": {"steps": 6}, "small": {"steps": 800}}

    def __post_init__(self):
        """Refuse options that cannot work."""
        check_head(SECTION, self)
        one_of(f"{SECTION}.objective", self.objective, OBJECTIVES)
        # With a margin of 0, equal predictions for all would be perfect.
        above(0, **{f"{SECTION}.margin": self.margin})

    def needs(self, task) -> Needs:
        """A head of one output, trained to rank."""
        del task
        margin = self.margin if self.objective == "margin" else 0.0
        return needs_head(self, _objective(self.objective, margin), outputs=1)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the largest predicted loss.

        Nothing is drawn.

        Raises:
          FloatingPointError: a prediction is not finite; names the example ids.
        """
        del key
        ids = pool.unlabelled
        found = probe.reduce(_predicted_loss, ids)["loss"]
        return by_score(ids, found, budget, summary={"scored": len(ids)})


@functools.cache
def _objective(name, margin):
    """The same function object for equal options: what it trains is compiled once."""
    if name != "margin":
        return {"kl": objectives.pair_kl, "mse": objectives.squared_error}[name]
    return functools.partial(objectives.margin_ranking, margin=margin)


def _predicted_loss(output, key):
    del key
    return {"loss": output.head[0]}
