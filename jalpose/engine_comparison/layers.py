"""Where in the network the squared norm is, and where an approximation misses it.

Shares are of the exact squared norm of the same image, averaged over the images; those
of an approximation are too, so that what it lacks is the difference of the two.
"""

from collections.abc import Callable, Sequence

import numpy as np

NUM_MISSED = 10


def kinds(names: Sequence[str]) -> list[str]:
    """What each tensor is: kernels, biases, batch norm scales or batch norm biases."""
    norms = {name.rpartition("/")[0] for name in names if name.endswith("/scale")}
    found = []
    for name in names:
        module, _, leaf = name.rpartition("/")
        word = {"kernel": "kernels", "bias": "biases", "scale": "scales"}.get(
            leaf, leaf
        )
        found.append(f"batch norm {word}" if module in norms else word)
    return found


def groups(names: Sequence[str]) -> dict[str, list[str]]:
    """For each way to lump tensors together, the lump each of them is in."""
    return {
        "stage": [name.partition("/")[0] for name in names],
        "layer": [name.rpartition("/")[0] or name for name in names],
        "kind": kinds(names),
        "tensor": list(names),
    }


def summed(lumps: Sequence[str], tensors: np.ndarray) -> dict[str, np.ndarray]:
    """Parts [M, P] added up by lump: {lump: float64 [M]}, in order of appearance."""
    found: dict[str, np.ndarray] = {}
    for lump, column in zip(lumps, np.asarray(tensors, np.float64).T, strict=True):
        found[lump] = found.get(lump, 0) + column
    return found


def part_of(names: Sequence[str], tensors: np.ndarray, wanted: Callable) -> np.ndarray:
    """Sum of the parts [M, P] of all tensors whose name is `wanted`: float64 [M]."""
    chosen = [i for i, name in enumerate(names) if wanted(name)]
    return np.asarray(tensors, np.float64)[:, chosen].sum(axis=1)


def shares(
    names: Sequence[str], tensors: np.ndarray, totals: np.ndarray
) -> dict[str, dict[str, float]]:
    """Mean share of the exact norm by stage, layer, kind and tensor.

    Args:
      names: of the P tensors.
      tensors: [M, P], squared norms by tensor.
      totals: [M], exact squared norms; images where it is zero are left out.
    """
    totals = np.asarray(totals, np.float64)
    known = totals > 0
    return {
        grouping: {
            lump: float(np.mean(part[known] / totals[known])) if known.any() else 0.0
            for lump, part in summed(lumps, tensors).items()
        }
        for grouping, lumps in groups(names).items()
    }


def ratios(exact: dict[str, float], found: dict[str, float]) -> dict[str, float | None]:
    """Found over exact, lump by lump; None where the exact share is zero."""
    return {k: found[k] / exact[k] if exact[k] else None for k in exact}


def missed(exact: dict[str, float], found: dict[str, float]) -> list[dict]:
    """The layers of the largest differences, either way, the largest first."""
    lost = {layer: share - found[layer] for layer, share in exact.items()}
    worst = sorted(lost, key=lambda layer: -abs(lost[layer]))[:NUM_MISSED]
    return [
        {"layer": k, "exact": exact[k], "found": found[k], "lost": lost[k]}
        for k in worst
    ]
