"""Expected gradient length over the labels that the model itself thinks possible.

Settles and Craven, EMNLP 2008: the expectation, over labels drawn from the model's
posterior, of the length of the gradient they would bring. What the candidate labels
are and how probable each is, the task says: of an image's class every class,
sum_i P_i |grad l_i|^2, one forward pass and a gradient a class; of a pose each joint at
a local peak of its heatmap, drawn independently of the other joints
(`tasks.pose.peaks`). We take the squared length, as EGL++ does (WACV 2022, Eq. 5 and
12), so that the expectation over all combinations of peaks is exact in few gradients.

Unlike expected-gradnorm (the norm of the expected gradient) it does not degenerate.
"""

import dataclasses
import functools
from typing import ClassVar

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.settings.checks import above, at_least, one_of
from jalpose.tasks.task import CandidateOptions

SECTION = "acquisition.egl"


@dataclasses.dataclass(frozen=True)
class Egl(Method):
    """Expected squared gradient norm over the model's own candidate labels.

    Attributes:
      peaks: candidate values a site, at most: of classes classes, the likeliest; of
        poses positions a joint.
      min_distance: between two of them where values have places; of poses pixels of a
        64x64 map, at least 1.
      posterior: probabilities of the candidates, one that the task has: "softmax", of
        the values divided by `temperature`; of poses also "normalised", their positive
        values divided by the sum.
      temperature: of a softmax, in units of the prediction.
    """

    peaks: int = 2
    min_distance: float = 5
    posterior: str = "normalised"
    temperature: float = 1.0

    capabilities: ClassVar = ("candidates", "posterior")
    uses_engine: ClassVar = True

    def __post_init__(self):
        """Refuse options that leave no candidate."""
        above(0, **{f"{SECTION}.temperature": self.temperature})
        at_least(1, **{f"{SECTION}.peaks": self.peaks})
        at_least(1, **{f"{SECTION}.min_distance": self.min_distance})

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a posterior that the task does not have."""
        del num_trained, budget
        known = getattr(task, "candidate_posteriors", task.posteriors)
        one_of(f"{SECTION}.posterior", self.posterior, known)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the highest expected squared gradient norm.

        Nothing is drawn.

        Raises:
          FloatingPointError: a norm is not finite; names the example ids.
        """
        del key
        ids = pool.unlabelled
        options = CandidateOptions(**dataclasses.asdict(self))
        labels, reduction = _candidates(probe.task, options)
        found = dict(probe.reduce(reduction, ids))
        arrays, summary = labels.explain(found)
        weights = labels.weights(found)
        found.pop("positions", None)  # for the records alone

        def context(positions):
            return {name: values[positions] for name, values in found.items()}

        result = probe.squared_norms(
            labels.targets, ids, weights, context, loss_fn=labels.loss
        )
        return by_score(
            ids, result["expected"], budget, explanation=arrays, summary=summary
        )


@functools.cache
def _candidates(task, options: CandidateOptions):
    """The task's `Candidates`, and the reduction of an example's output to them.

    The same objects for equal options: what uses them is compiled once.
    """
    labels = task.candidates(options)

    def egl_peaks(output, key):
        del key
        return labels.find(output.prediction)

    return labels, egl_peaks
