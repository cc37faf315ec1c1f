"""Query by committee: how much networks trained on bootstraps disagree.

Seung, Opper and Sompolinsky, COLT 1992; the committee are networks, each trained on as
many labels drawn with replacement (Abe & Mamitsuka, ICML 1998). The gradient-norm paper
(Wang et al., AAAI 2022) compares with it on classes, by settings it does not state;
EGL++'s does not, it holds ensembles of pose networks to be out of reach (section 2).
What disagreement is, the measures in `parts.committees` say; of classes QBC's usual are
vote_entropy and mutual_information.
"""

import dataclasses
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.acquisition.parts import committees
from jalpose.training.needs import Needs

SECTION = "acquisition.ensemble"


@dataclasses.dataclass(frozen=True)
class Ensemble(Method):
    """Disagreement of networks trained on bootstraps of the labels.

    Attributes:
      members: K, networks; at least 2.
      steps: of each member's training in every cycle.
      start: of that training: warm (from the cycle's network) | fresh (new weights).
        Warm members are cheaper and less diverse.
      measure: what differs: prediction (as it is, of poses the heatmaps) | decoded
        (what is read off it, of poses the joints' positions) | of posteriors
        mutual_information, predictive_entropy, vote_entropy or variation_ratio.
    """

    members: int = 5
    steps: int = 5000
    start: str = "fresh"
    measure: str = "prediction"

    capabilities: ClassVar = ("disagreement",)
    scales: ClassVar = {
        "tiny": {"members": 2, "steps": 4},
        "small": {"members": 3, "steps": 100, "start": "warm"},
    }

    def __post_init__(self):
        """Refuse a committee that cannot be trained."""
        committees.check_members(SECTION, self)

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a measure that the task does not have."""
        del num_trained, budget
        committees.check_measure(SECTION, self.measure, task)

    def needs(self, task) -> Needs:
        """The members."""
        del task
        return Needs(members=committees.members_of(self))

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples on which the members disagree most.

        Nothing is drawn but which of those that tie in votes come first.

        Raises:
          FloatingPointError: a disagreement is not finite; names the example ids.
        """
        ids = pool.unlabelled
        return committees.select(probe, ids, budget, self.measure, key, over="members")
