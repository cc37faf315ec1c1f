"""What the methods share that choose by the labels K models predict for a number.

The models q_k of Shukla, WACV 2022, section 3: networks trained on bootstraps, which
say a variance where they learn one (Eq. 8), or linear models (Eq. 7) or Gaussian
processes (Eq. 9) fitted to bootstraps of the labelled rows. The number is in the unit
that the network learns, the standardised target.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import numpy as np

from jalpose.acquisition.method import Method, Pool
from jalpose.acquisition.parts import committees, label_models
from jalpose.acquisition.parts.label_models import Predicted
from jalpose.settings.checks import ConfigError, at_least, one_of
from jalpose.tasks.task import example_of, lacking
from jalpose.training.needs import NOTHING, Needs

MODELS = ("networks", "linear", "process")


@dataclasses.dataclass(frozen=True)
class NumberLabels(Method):
    """Labels that K models predict, for the methods that choose by them.

    Attributes:
      models: of the labels: networks (trained on bootstraps, with `steps` and `start`)
        | linear (least squares with an intercept) | process (Gaussian processes of
        mean zero, one kernel for all, by the marginal likelihood of all that is
        labelled).
      members: K, of any kind.
      steps: of each network's training in every cycle.
      start: of that training: warm (from the cycle's network) | fresh (new weights).
      noise: the variance of a linear model has the label's own noise in it.
    """

    models: str = "networks"
    members: int = 5
    steps: int = 5000
    start: str = "fresh"
    noise: bool = True

    section: ClassVar[str] = ""
    capabilities: ClassVar[tuple[str, ...]] = ("moments",)
    scales: ClassVar = {
        "tiny": {"members": 2, "steps": 4},
        "small": {"steps": 300},
    }

    def __post_init__(self):
        """Refuse models that there are not, and committees that cannot be trained."""
        one_of(f"{self.section}.models", self.models, MODELS)
        if self.models == "networks":
            committees.check_members(self.section, self)
        at_least(1, **{f"{self.section}.members": self.members})

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse models that what is labelled at the start does not determine."""
        del budget
        if self.members > num_trained:
            raise ConfigError(
                f"{self.section}.members={self.members} are more than the "
                f"{num_trained} examples that are trained on at the start: take fewer, "
                "or a larger data.initial"
            )
        if self.models == "networks":
            return
        if lacking(task, ("example",)):
            raise ConfigError(
                f"{self.section}.models={self.models!r} is fitted to rows of numbers, "
                f"and the task {task.name} has none: set it to 'networks'"
            )
        columns = 1 + example_of(task).shape[0]
        if self.models == "linear" and num_trained <= columns:
            raise ConfigError(
                f"{self.section}.models='linear' has {columns} weights with the "
                f"intercept, and needs more than {columns} examples that are trained "
                f"on at the start (there are {num_trained}): choose a larger "
                "data.initial, fewer data.inputs, or models='process'"
            )

    def needs(self, task) -> Needs:
        """The networks, if the labels are theirs."""
        del task
        if self.models != "networks":
            return NOTHING
        return Needs(members=committees.members_of(self))

    def labels(self, key, probe, pool: Pool) -> Predicted:
        """Labels of the unlabelled, in the unit of the network's number.

        Raises:
          DataError: a singular design.
        """
        ids = pool.unlabelled
        if self.models == "networks":
            found = probe.reduce(moments(probe.task, True), ids, over="members")
            return Predicted(found["mean"], found["variance"])
        labelled = pool.labelled.at(pool.labelled.known & ~pool.labelled.held_out)
        known, queries = (
            np.asarray(probe.reduce(inputs, some)["inputs"], np.float64)
            for some in (labelled.ids, ids)
        )
        targets = np.asarray(_targets(probe.task, labelled.labels), np.float64)
        seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        draws = np.random.default_rng(seed)
        if self.models == "linear":
            known, queries = (np.c_[np.ones(len(v)), v] for v in (known, queries))
            fit: Any = functools.partial(label_models.linear, noise=self.noise)
            shift = 0.0
        else:
            shift = float(targets.mean())
            kernel = label_models.fitted(known, targets - shift)
            fit = functools.partial(label_models.gaussian_process, kernel=kernel)
        found = label_models.bootstraps(
            fit, known, targets - shift, queries, members=self.members, draws=draws
        )
        return Predicted(found.means + shift, found.variances)


@functools.cache
def moments(task, of_many: bool):
    """The reduction to mean and variance of the number: [], of many predictions [K]."""

    def reduction(output, key):
        del key
        each = jax.vmap(task.moments) if of_many else task.moments
        mean, variance = each(output.prediction)
        return {"mean": mean, "variance": variance}

    # The probe's journal goes by this name.
    reduction.__name__ = "moments"
    return reduction


def inputs(output, key):
    """The reduction to the row that the network was given."""
    del key
    return {"inputs": output.features.inputs}


def _targets(task, labels) -> np.ndarray:
    """The number of each label, in the unit that is learnt: [N]."""
    return np.asarray(jax.vmap(lambda label: task.target(label)[0])(labels))
