"""The record of a comparison, made from what was measured: numbers alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jalpose.engine_comparison import layers
from jalpose.engine_comparison.agreement import BUDGETS, CURVE, agreement, num_selected
from jalpose.engine_comparison.contestants import (
    LAST_LAYER,
    REFERENCES,
    RESIDUAL,
    Contestant,
)
from jalpose.engine_comparison.measure import Measured


def summarise(
    contestants: Sequence[Contestant],
    measured: Mapping[str, Measured],
    ids: np.ndarray,
    names: Sequence[str],
    block: int,
    last: str,
) -> dict[str, Any]:
    """Budgets, engines (a row each), and shares of the squared norm by layer.

    Args:
      contestants: the reference first.
      measured: by label.
      ids: int64 [M].
      names: of the P tensors.
      block: images of a block, padding included.
      last: what the names of the last layer begin with.
    """
    reference = measured[contestants[0].label]
    rows = [
        _row(item, measured[item.label], reference, ids, block) for item in contestants
    ]
    stand_in = last_layer(names, reference, last)
    if stand_in.any():
        found = agreement(ids, reference.scores, stand_in, same_unit=False)
        row = {"label": LAST_LAYER, "stands_in": True, "backward_passes": 0, **found}
        rows.append(row)
    count = len(ids)
    return {
        "reference": contestants[0].label,
        "budgets": list(BUDGETS),
        "budget_images": [num_selected(f, count) for f in BUDGETS],
        "curve_budgets": list(CURVE),
        "engines": rows,
        "layers": _layers(contestants, measured, names),
    }


def scores_of(
    measured: Mapping[str, Measured], names: Sequence[str], last: str
) -> dict[str, np.ndarray]:
    """Scores [M] of all contestants and of the last layer, the reference first."""
    found = {label: item.scores for label, item in measured.items()}
    stand_in = last_layer(names, next(iter(measured.values())), last)
    return {**found, LAST_LAYER: stand_in} if stand_in.any() else found


def last_layer(names: Sequence[str], reference: Measured, last: str) -> np.ndarray:
    """The part of the last layer's tensors in the exact squared norm: [M]."""
    assert reference.tensors is not None  # of an engine
    return layers.part_of(names, reference.tensors, lambda name: name.startswith(last))


def arrays(
    contestants: Sequence[Contestant],
    measured: Mapping[str, Measured],
    ids: np.ndarray,
    names: Sequence[str],
    last: str,
) -> dict[str, np.ndarray]:
    """Arrays of a comparison: ids, and by label scores, seconds and parts by stage."""
    stages = layers.groups(names)["stage"]
    found = {"ids": ids, "stages": np.array(list(dict.fromkeys(stages)))}
    for label, scores in scores_of(measured, names, last).items():
        found[f"scores:{label}"] = np.asarray(scores, np.float32)
    for item in contestants:
        result = measured[item.label]
        found[f"seconds:{item.label}"] = result.seconds
        if result.standard_error is not None:
            found[f"standard_error:{item.label}"] = result.standard_error
        if result.tensors is not None:
            columns = layers.summed(stages, result.tensors).values()
            parts = np.stack(list(columns), axis=1).astype(np.float32)
            found[f"stage_parts:{item.label}"] = parts  # [M, stages]
    return found


def _row(item: Contestant, found: Measured, reference: Measured, ids, block):
    seconds, slowest = found.block_seconds, reference.block_seconds
    images = block * len(seconds)
    quartiles = np.quantile(seconds / slowest, (0.25, 0.75))
    same = found is reference
    stands_in = item.label == RESIDUAL
    values = agreement(
        ids,
        reference.scores,
        found.scores,
        found.standard_error,
        same_unit=not stands_in,
    )
    return {
        "label": item.label,
        "stands_in": stands_in,
        "exact": item.label in REFERENCES,
        "options": dataclasses.asdict(item.engine) if item.engine else None,
        "backward_passes": item.backward_passes,
        "microbatch": found.microbatch,
        "seconds_an_image": float(seconds.sum() / images),
        "time_ratio": 1.0 if same else float(seconds.sum() / slowest.sum()),
        "time_ratio_quartiles": quartiles.tolist(),
        "peak_mib": found.peak_bytes / 2**20,
        "memory_ratio": _ratio(found.peak_bytes, reference.peak_bytes),
        **values,
    }


def _ratio(value: int, reference: int) -> float | None:
    # A backend that does not say has zero.
    return value / reference if value and reference else None


def _layers(contestants, measured, names):
    reference = measured[contestants[0].label]
    exact = layers.shares(names, reference.tensors, reference.scores)
    found = {}
    for item in contestants[1:]:
        tensors = measured[item.label].tensors
        if tensors is None:
            continue
        share = layers.shares(names, tensors, reference.scores)
        del share["tensor"]  # of the exact norm alone: there are hundreds
        found[item.label] = {
            "share": share,
            "of_exact": {k: layers.ratios(exact[k], share[k]) for k in share},
            "missed": layers.missed(exact["layer"], share["layer"]),
        }
    return {"exact": exact, "engines": found}
