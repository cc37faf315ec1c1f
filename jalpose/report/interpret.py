"""Which examples explain a choice: from the arrays of a run alone, without images.

Every function takes arrays as `arrays/cycle_NN.npz` holds them, rows of pool examples
under `ids`, and gives rows or numbers; what is drawn of them is another module's.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jalpose.storage import cycles
from jalpose.storage.arrays import (
    EMBEDDINGS,
    IDS,
    LABELLED_EMBEDDINGS,
    NEIGHBOUR_IDS,
    NEIGHBOUR_PROBABILITIES,
    SCORES,
    SELECTED,
    TRUE_LOSSES,
    TRUE_SQUARED_NORMS,
)

BLOCK = 2**14  # embeddings in float64 at a time

Arrays = Mapping[str, np.ndarray]


def scored_cycles(run: Any) -> list[int]:
    """The cycles in which a run chose, by its records, whatever files there are."""
    return [record["cycle"] for record in run.cycles if cycles.chose(record)]


def extremes(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the highest and of the lowest values, each from the extreme inwards.

    Rows that are not finite are left out; of few rows none is in both; equal values
    stand in the order of their rows.
    """
    values = np.asarray(values, np.float64)
    known = np.flatnonzero(np.isfinite(values))
    falling = known[np.argsort(-values[known], kind="stable")]
    high = min(count, -(-len(falling) // 2))
    low = min(count, len(falling) - high)
    return falling[:high], falling[len(falling) - low :][::-1]


def neighbours_of(arrays: Arrays, row: int, count: int) -> list[tuple[int, float]]:
    """Ids and probabilities of the likeliest labelled neighbours of a pool row."""
    probabilities = np.asarray(arrays[NEIGHBOUR_PROBABILITIES][row], np.float64)
    order = np.argsort(-probabilities, kind="stable")[:count]
    ids = np.asarray(arrays[NEIGHBOUR_IDS][row])[order]
    return list(zip(ids.tolist(), probabilities[order].tolist(), strict=True))


def prediction(
    arrays: Arrays, names: Iterable[str], row: int
) -> dict[str, np.ndarray] | None:
    """The arrays of a row's prediction; None where one of them is not there."""
    if not all(name in arrays for name in names):
        return None
    return {name: arrays[name][row] for name in names} or None


def score(arrays: Arrays, row: int) -> float | None:
    """A row's score; None without one."""
    return _finite(arrays[SCORES][row]) if SCORES in arrays else None


def true_loss(arrays: Arrays, row: int) -> float | None:
    """A row's loss by its label; None where it was not measured."""
    return float(arrays[TRUE_LOSSES][row]) if TRUE_LOSSES in arrays else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """Principal components of the embeddings of pool and labelled examples.

    Attributes:
      places: float64 [N, 2], of the pool's that were scored.
      explained: share of the variance along each of the two.
      selected: bool [N].
      labelled: float64 [L, 2], of the examples labelled before; none where their
        embeddings are not recorded.
    """

    places: np.ndarray
    explained: tuple[float, float]
    selected: np.ndarray
    labelled: np.ndarray


def map_embeddings(arrays: Arrays, block_rows: int = BLOCK) -> EmbeddingMap:
    """Project the embeddings onto the two directions in which they vary most.

    The signs are fixed (the largest coefficient of a direction is positive): equal
    embeddings give equal maps, so that methods on one base model can be compared.

    Args:
      arrays: of a cycle.
      block_rows: embeddings in float64 at a time.
    """
    pool = np.asarray(arrays[EMBEDDINGS])
    labelled = np.asarray(arrays.get(LABELLED_EMBEDDINGS, pool[:0]))
    # Nothing of the pool's size is held in float64 but the places.
    blocks = [
        part[start : start + block_rows]
        for part in (pool, labelled)
        for start in range(0, len(part), block_rows)
    ]
    count = len(pool) + len(labelled)
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / count
    scatter = np.zeros((pool.shape[1], pool.shape[1]))
    for block in blocks:
        centred = block - mean
        scatter += centred.T @ centred
    squares, directions = np.linalg.eigh(scatter)  # rising
    squares = np.maximum(squares[::-1], 0)
    directions = directions[:, ::-1][:, :2]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, range(len(largest))])
    places = np.concatenate([(block - mean) @ directions for block in blocks])
    if places.shape[1] < 2:  # a single dimension: nothing else varies
        places = np.pad(places, ((0, 0), (0, 1)))
    total = max(float(squares.sum()), 1e-30)
    shares = [*(squares[:2] / total).tolist(), 0.0]
    return EmbeddingMap(
        places=places[: len(pool)],
        explained=(shares[0], shares[1]),
        selected=np.isin(arrays[IDS], arrays[SELECTED]),
        labelled=places[len(pool) :],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bought:
    """An example whose label was bought, as it stood when it was scored.

    Attributes:
      loss: against the label that was then bought; None where not recorded.
      gradient_norm: of that loss in all parameters; None where not recorded.
      predicted: arrays of the prediction by the model of that cycle.
      purchases: how many runs bought it.
    """

    example: int
    key: str
    file: str
    loss: float | None
    gradient_norm: float | None
    cycle: int
    method: str
    seed: int
    predicted: Mapping[str, np.ndarray] | None
    purchases: int


def bought_labels(
    runs: Iterable[Any], prediction_names: Sequence[str] = ()
) -> list[Bought]:
    """Every example bought by any run, the most suspicious label first.

    An example bought by several runs stands there once, as of the run in which its
    gradient norm (or, without norms, its loss) was greatest.

    Args:
      runs: with `method`, `seed`, `cycles`, `arrays`, `selection` and `drawn`: what
        tells examples of one key apart, see `drawn_seed` in `jalpose.tasks.pictures`.
      prediction_names: arrays that hold the predictions.
    """
    found: dict[tuple[Any, str], list[Bought]] = {}
    for run in runs:
        for cycle in scored_cycles(run):
            arrays = run.arrays(cycle)
            if not {IDS, TRUE_LOSSES} <= arrays.keys():
                continue  # chosen but not yet measured, or the file is lost
            for row in run.selection(cycle):
                found.setdefault((run.drawn, row["key"]), []).append(
                    _bought(run, cycle, arrays, row, prediction_names)
                )
    once = [
        dataclasses.replace(max(many, key=_suspicion), purchases=len(many))
        for many in found.values()
    ]
    return sorted(once, key=lambda b: (*(-s for s in _suspicion(b)), b.key))


def _bought(run, cycle: int, arrays: Arrays, row: Mapping, names) -> Bought:
    position = int(np.searchsorted(arrays[IDS], row["id"]))
    squared = arrays.get(TRUE_SQUARED_NORMS)
    norm = None if squared is None else _finite(np.sqrt(max(squared[position], 0.0)))
    return Bought(
        example=row["id"],
        key=row["key"],
        file=row["file"],
        loss=_finite(arrays[TRUE_LOSSES][position]),
        gradient_norm=norm,
        cycle=cycle,
        method=run.method,
        seed=run.seed,
        predicted=prediction(arrays, names, position),
        purchases=1,
    )


def by_loss(bought: Iterable[Bought]) -> list[Bought]:
    """Examples bought, the greatest loss first."""
    return sorted(bought, key=lambda b: (-_or_least(b.loss), b.key))


LABEL_CHECK_COLUMNS = (
    "key",
    "file",
    "loss",
    "gradient_norm",
    "cycle",
    "method",
    "seed",
    "rank_by_loss",
    "purchases",
)


def label_check_rows(bought: Sequence[Bought]) -> list[dict]:
    """Rows of `label_check.csv`, in the order of `bought_labels`."""
    # By the object: keys repeat where seeds draw figures of their own.
    ranks = {id(b): rank for rank, b in enumerate(by_loss(bought), start=1)}
    return [
        {
            **{name: getattr(b, name) for name in LABEL_CHECK_COLUMNS[:7]},
            "rank_by_loss": ranks[id(b)],
            "purchases": b.purchases,
        }
        for b in bought
    ]


def _suspicion(bought: Bought) -> tuple[float, float]:
    return _or_least(bought.gradient_norm), _or_least(bought.loss)


def _or_least(value: float | None) -> float:
    return float("-inf") if value is None else value


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
