"""Aleatoric uncertainty: choose the examples whose joints are predicted to be far off.

Kendall & Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer
Vision?", NeurIPS 2017, as the published code of EGL++ and VL4Pose compares with it: a
head learns the log variance of each joint's error, its mean over the joints is the
score. We differ in the likelihood, see `objectives.aleatoric`.
"""

import dataclasses
import functools
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts.heads import check_head, needs_head
from jalpose.acquisition.pose import objectives
from jalpose.training.needs import Needs

SECTION = "acquisition.aleatoric"


@dataclasses.dataclass(frozen=True)
class Aleatoric(Method):
    """Variance of the joints' errors, as a head predicts it.

    Attributes:
      head: network on top of its features, see `models.heads`: stacks (Learning
        Loss) | average (LL++) | conv (LL++conv).
      weight: of the head's objective beside the task's loss (Learning Loss's lambda).
      detach_after: epochs of each training after which the objective no longer reaches
        the network; 0: it never does.
      steps: of training the head alone on a finished model that has none.
      published: learn by the published code's likelihood, that of one coordinate.
    """

    head: str = "average"
    weight: float = 1.0
    detach_after: float = 0.0
    steps: int = 5000
    published: bool = False

    capabilities: ClassVar = ("skeleton",)
    scales: ClassVar = {"tiny": {"steps": 6}, "small": {"steps": 800}}

    def __post_init__(self):
        """Refuse options that cannot work."""
        check_head(SECTION, self)

    def needs(self, task) -> Needs:
        """A head of one output a joint, its log variance."""
        objective = _objective(task, bool(self.published))
        return needs_head(self, objective, outputs=task.skeleton.num_joints)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the largest mean log variance.

        The explanation is log_variances float32 [M, J], of the joints (heatmap pixels
        squared). Nothing is drawn.

        Raises:
          FloatingPointError: a score is not finite; names the example ids.
        """
        del key
        ids = pool.unlabelled
        found = probe.reduce(_log_variances, ids)["log_variances"]
        explanation = {"log_variances": found}
        return by_score(ids, found.mean(axis=1), budget, explanation=explanation)


@functools.cache
def _objective(task, published):
    """The same function object for equal options: what it trains is compiled once."""
    return functools.partial(objectives.aleatoric, task=task, published=published)


def _log_variances(output, key):
    del key
    return {"log_variances": output.head}
