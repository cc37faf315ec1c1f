"""EGL++: expected gradient length from the labels of neighbours.

Shukla, "Bayesian Uncertainty and Expected Gradient Length - Regression: Two Sides Of
The Same Coin?", WACV 2022, Eq. 12, 13 and Algorithm 1. The probability that labelled
example j's label is also that of unlabelled example i is a Gaussian kernel in the
embedding, calibrated to a perplexity as in t-SNE; the score of i is the expectation
over its K most probable labels of the squared gradient norm of the loss.

We differ from paper and published code: all trainable parameters count, where Algorithm
1 takes those of convolutions and linear layers (acquisition.engine=conv_linear), and
the K probabilities are made to sum to one (`renormalise`). We differ from the code:
neighbours and pool are seen through the same crop, the perplexity is a true one, and
the loss of a pose averages over the joints the candidate label has. `papers=` after a
config's colon sets what the code does. As there, a neighbour's joints keep their place
in the crop: both crops are cut alike, so a label is carried over as a pose within its
frame. Of classes the candidates are the classes of the neighbours, as probable as the
neighbours that have them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection, highest
from jalpose.acquisition.parts import points
from jalpose.acquisition.parts.neighbours import BLOCK_ROWS, nearest_labels
from jalpose.scoring.probe import digest
from jalpose.settings.checks import ConfigError, one_of
from jalpose.tasks.task import CAPABILITIES, lacking

SECTION = "acquisition.eglpp"
LABELS = ("annotated", "predicted")


class NeighbourLabels(NamedTuple):
    """The candidate labels of M examples, and how probable each is.

    Attributes:
      rows: int64 [M, K], of the labelled set.
      probabilities: float32 [M, K].
      targets_fn: makes targets of a row of context, see `Probe.squared_norms`.
      context: positions among the M -> rows of context.
      perplexity: float64 [M], of the neighbour distribution.
      converged: bool [M], whether it is the one asked for.
      mass: float64 [M], probability of the K among all possible neighbours.
    """

    rows: np.ndarray
    probabilities: np.ndarray
    targets_fn: Callable
    context: Callable
    perplexity: np.ndarray
    converged: np.ndarray
    mass: np.ndarray

    @property
    def summary(self) -> dict[str, float]:
        """Numbers about the whole search, for records."""
        return {
            "not_converged": int((~self.converged).sum()),
            "mean_captured_mass": float(self.mass.mean()),
        }


@dataclasses.dataclass(frozen=True)
class EglPlusPlus(Method):
    """Expected squared gradient norm over the labels of labelled neighbours.

    Attributes:
      perplexity: effective number of neighbours, exp of the entropy in nats. The
        papers name none; 20 is the published code's, which by a mix of bases in
        truth works at 75.3.
      neighbours: K, candidate labels an example. The published code's is 30.
      labels: "annotated", the paper's: the neighbour's own label. "predicted", the
        published code's default: what the network says of the neighbour, of poses its
        heatmaps, of classes its probabilities. A prediction is what the model already
        believes, so it hides what the label would have taught; hence the paper's is
        the default.
      renormalise: let the K probabilities sum to one. Neither Algorithm 1 nor the
        published code does; an example whose mass is spread over more than K labels
        then scores lower for that alone, and it is the one least like its neighbours.
        Hence True.
    """

    perplexity: float = 20.0
    neighbours: int = 30
    labels: str = "annotated"
    renormalise: bool = True

    uses_engine: ClassVar = True
    scales: ClassVar = {"tiny": {"neighbours": 5, "perplexity": 3.0}}

    def __post_init__(self):
        """Refuse options that fit no labelled set."""
        one_of(f"{SECTION}.labels", self.labels, LABELS)
        if not (self.perplexity >= 1 and self.neighbours >= 1):
            raise ConfigError(
                f"{SECTION}.perplexity={self.perplexity} and "
                f"{SECTION}.neighbours={self.neighbours} must be at least 1"
            )

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse K or a perplexity beyond the possible neighbours."""
        del budget
        if self.labels == "predicted" and lacking(task, ("predicted_target",)):
            raise ConfigError(
                f"{SECTION}.labels='predicted' does not work on the task {task.name}, "
                f"which lacks predicted_target {CAPABILITIES['predicted_target']}: set "
                "it to 'annotated'"
            )
        beyond = {
            "neighbours": self.neighbours > num_trained,
            "perplexity": self.perplexity >= num_trained,
        }
        for name, refused in beyond.items():
            if refused:
                raise ConfigError(
                    f"{SECTION}.{name}={getattr(self, name)}, but only {num_trained} "
                    "labelled examples are trained on and can be neighbours: choose a "
                    "smaller value or a larger data.initial"
                )

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the highest expected squared gradient norm.

        Nothing is drawn. Held-out examples are never neighbours.

        Raises:
          ValueError: no labelled example can be a neighbour.
          FloatingPointError: an embedding or a norm is not finite; names the example
            ids.
        """
        del key
        ids = pool.unlabelled
        found = self.candidates(probe, pool)
        result = probe.squared_norms(
            found.targets_fn, ids, found.probabilities, found.context
        )
        # The engine sketch has the expectation alone.
        named = {"norms": "neighbour_squared_norms", "standard_error": "standard_error"}
        found_norms = {named[k]: v for k, v in result.items() if k in named}
        return Selection(
            indices=highest(ids, result["expected"], budget),
            scores=result["expected"],
            explanation={
                "neighbour_ids": pool.labelled.ids[found.rows],
                "neighbour_probabilities": found.probabilities,
                **found_norms,
                "achieved_perplexity": found.perplexity,
            },
            summary={
                "perplexity": self.perplexity,
                "neighbours": self.neighbours,
                **found.summary,
            },
        )

    def candidates(self, probe, pool: Pool) -> NeighbourLabels:
        """Find the K candidate labels of each unlabelled example.

        Raises:
          ValueError: no labelled example can be a neighbour.
        """
        labelled = pool.labelled
        # A label in which nothing counts would have no gradient at all.
        possible = np.flatnonzero(~labelled.held_out & labelled.known)
        if not len(possible):
            raise ValueError(
                "EGL++ takes the labels of labelled examples that are trained on, and "
                "there are none: set data.initial above 0"
            )
        found = _neighbours(
            probe,
            labelled.ids,
            possible,
            pool.unlabelled,
            perplexity=self.perplexity,
            num_neighbours=self.neighbours,
            renormalise=self.renormalise,
        )
        rows, content = found["rows"], dict(labelled.labels)
        if self.labels == "annotated":
            targets_fn = _annotated_targets(probe.task)
        else:
            targets_fn = _predicted_targets(probe.task)
            said = probe.reduce(_heatmaps, labelled.ids)
            content["prediction"] = said["prediction"]

        def context(positions):
            chosen = rows[positions]
            return {name: values[chosen] for name, values in content.items()}

        return NeighbourLabels(targets_fn=targets_fn, context=context, **found)


def _neighbours(probe, labelled_ids, possible, ids, **options):
    """The arrays of `NeighbourLabels` for each of `ids`, by field.

    Args:
      probe: of the trained network.
      labelled_ids: int64 [L].
      possible: int64, rows of them that can be neighbours.
      ids: int64 [M].
      options: of `nearest_labels`.
    """
    known_ids = labelled_ids[possible]
    pool, known = probe.embeddings(ids), probe.embeddings(known_ids)

    def search(positions):
        some = pool[positions]
        points.check_finite(some, ids[positions], "pool")
        points.check_finite(known, known_ids, "labelled")
        found = nearest_labels(some, known, **options)
        return {
            "rows": possible[found.indices],
            "probabilities": found.probabilities.astype(np.float32),
            "perplexity": found.achieved_perplexity,
            "converged": found.converged,
            "mass": found.captured_mass,
        }

    decisive = [*options.values(), digest(labelled_ids), digest(possible)]
    name = "-".join(["neighbours", *map(str, decisive)])
    return probe.blocks(name, search, ids, BLOCK_ROWS)


@functools.cache
def _annotated_targets(task):
    """Targets of the neighbours' labels; the same object for equal tasks."""

    def targets(row):
        return jax.vmap(task.target)(row)

    return targets


@functools.cache
def _predicted_targets(task):
    """Targets of what the network says; the same object for equal tasks."""

    def targets(row):
        label = dict(row)
        return jax.vmap(task.predicted_target)(label.pop("prediction"), label)

    # The probe's journal goes by this name.
    targets.__name__ = "_predicted_targets"
    return targets


def _heatmaps(output, key):
    """What the network says; its name is that of the journal's pass."""
    del key
    return {"prediction": output.prediction}
