"""EGL++: expected gradient length from the labels of neighbours.

Shukla, "Bayesian Uncertainty and Expected Gradient Length - Regression: Two Sides Of
The Same Coin?", WACV 2022, Eq. 12, 13 and Algorithm 1. The probability that labelled
example j's label is also that of unlabelled example i is a Gaussian kernel in the
embedding, calibrated to a perplexity as in t-SNE; the score of i is the expectation
over its K most probable labels of the squared gradient norm of the loss.

We differ from the published code: neighbours and pool are seen through the same
crop, the perplexity is a true one, all trainable parameters count (batch norm's
scale and bias included), and the loss averages over the joints the candidate label
has. As there, a neighbour's joints keep their place in the crop: both crops are cut
alike, so a label is carried over as a pose within its frame.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jalpose.acquisition.method import Method, Selection, highest
from jalpose.acquisition.parts import kcenter
from jalpose.acquisition.parts.neighbours import BLOCK_ROWS, nearest_labels
from jalpose.scoring.probe import digest


class Candidates(NamedTuple):
    """The candidate labels of M examples, and how probable each is.

    Attributes:
      rows: int64 [M, K], of the labelled set.
      probabilities: float32 [M, K].
      targets_fn: makes labels of a row of context, see `Probe.squared_norms`.
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


def acquire(
    key,
    probe,
    labelled,
    unlabelled,
    budget,
    *,
    perplexity,
    neighbours,
    labels,
    renormalise,
) -> Selection:
    """Choose the `budget` examples of the highest expected squared gradient norm.

    Args:
      key: unused, EGL++ draws nothing.
      probe: of the trained network.
      labelled: `Labelled`; held-out examples are never neighbours.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      perplexity: effective number of neighbours, exp of the entropy in nats. The
        papers name none; 20 is the published code's, which by a mix of bases in
        truth works at 75.3.
      neighbours: K. The published code's is 30.
      labels: "annotated", the paper's: the neighbour's own label. "predicted", the
        published code's default: the network's heatmaps for the neighbour. A
        prediction is what the model already believes, so it hides what the label
        would have taught; hence the paper's is the default.
      renormalise: let the K probabilities sum to one. The published code does not;
        an example whose mass is spread over more than K labels then scores lower
        for that alone, and it is the one least like its neighbours. Hence True.

    Raises:
      ValueError: no labelled example can be a neighbour.
      FloatingPointError: an embedding or a norm is not finite; names the example ids.
    """
    del key
    found = candidates(
        probe,
        labelled,
        unlabelled,
        perplexity=perplexity,
        neighbours=neighbours,
        labels=labels,
        renormalise=renormalise,
    )
    result = probe.squared_norms(
        found.targets_fn, unlabelled, found.probabilities, found.context
    )
    # The engine sketch has the expectation alone.
    named = {"norms": "neighbour_squared_norms", "standard_error": "standard_error"}
    found_norms = {named[k]: v for k, v in result.items() if k in named}
    return Selection(
        indices=highest(unlabelled, result["expected"], budget),
        scores=result["expected"],
        explanation={
            "neighbour_ids": labelled.ids[found.rows],
            "neighbour_probabilities": found.probabilities,
            **found_norms,
            "achieved_perplexity": found.perplexity,
        },
        summary={
            "perplexity": perplexity,
            "neighbours": neighbours,
            **found.summary,
        },
    )


def candidates(
    probe, labelled, unlabelled, *, perplexity, neighbours, labels, renormalise
) -> Candidates:
    """Find the K candidate labels of each unlabelled example; options of `acquire`."""
    # A label without a joint would have no gradient at all.
    possible = np.flatnonzero(~labelled.held_out & labelled.present.any(axis=1))

    if not len(possible):
        raise ValueError(
            "EGL++ takes the labels of labelled examples outside the held-out tenth, "
            "and there are none: set data.initial above 0"
        )

    found = _neighbours(
        probe,
        labelled.ids,
        possible,
        unlabelled,
        perplexity=perplexity,
        num_neighbours=neighbours,
        renormalise=renormalise,
    )
    rows = found["rows"]
    if labels == "annotated":
        targets_fn = _annotated_targets(probe.spec)
        content, name = labelled.joints, "joints"
    else:
        targets_fn = _predicted_targets
        content, name = probe.reduce(_heatmaps, labelled.ids)["heatmaps"], "heatmaps"

    def context(positions):
        chosen = rows[positions]
        return {name: content[chosen], "present": labelled.present[chosen]}

    return Candidates(targets_fn=targets_fn, context=context, **found)


def _neighbours(probe, labelled_ids, possible, ids, **options):
    """Of each of `ids` what `Candidates` holds: the fields that are arrays, by name.

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
        kcenter.check_finite(some, ids[positions], "pool")
        kcenter.check_finite(known, known_ids, "labelled")
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


def check(num_neighbours, *, perplexity, neighbours, labels, renormalise) -> None:
    """Raise ValueError where K or the perplexity exceed the possible neighbours."""
    del labels, renormalise
    for name, value in (("neighbours", neighbours), ("perplexity", perplexity)):
        if value > num_neighbours or (name == "perplexity" and value == num_neighbours):
            raise ValueError(
                f"acquisition.eglpp.{name}={value}, but only {num_neighbours} labelled "
                "examples outside the held-out tenth can be neighbours: choose a "
                "smaller value or a larger data.initial"
            )


@functools.cache
def _annotated_targets(spec):
    def targets(row):
        maps = jax.vmap(spec.render)(row["joints"], row["present"])
        return maps, row["present"]

    return targets


def _predicted_targets(row):
    return row["heatmaps"], row["present"]


def _heatmaps(output, key):
    del key
    return {"heatmaps": output.heatmaps}


METHOD = Method(acquire, check, uses_engine=True)
