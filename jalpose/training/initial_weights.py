"""Weights of another network that trainings from scratch begin with, layer by layer.

A layer is what a network has under one name at its top: `stem`, `hourglass0`.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from jalpose.settings.checks import ConfigError

KINDS = ("params", "batch_stats")
SHOWN = 6  # of what does not fit


class InitialWeights(NamedTuple):
    """Layers that are not begun anew.

    Attributes:
      variables: `params` and `batch_stats` of these layers alone, as numpy.
      about: for the record and the screen: `source`, `taken`, `anew`, `digest`.
    """

    variables: dict[str, dict]
    about: dict[str, Any]

    def __str__(self) -> str:
        taken, anew = self.about["taken"], self.about["anew"]
        return (
            f"initial weights of {self.about['source']}: {len(taken)} layers are taken "
            f"({', '.join(taken)}), {len(anew)} begin anew ({', '.join(anew)})"
        )

    def laid_over(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Variables of a network, with these layers in the place of its own."""
        own = {k: {**variables.get(k, {}), **self.variables[k]} for k in KINDS}
        return {**variables, **own}


def layers_of(variables: Mapping[str, Any]) -> list[str]:
    """Names of a network's layers, in order; those with statistics alone too."""
    return sorted({name for kind in KINDS for name in variables.get(kind, {})})


def fitted(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    layers: Collection[str],
    source: str,
) -> InitialWeights:
    """The `layers` of another network, if they are this one's too.

    Args:
      found: variables of the other network.
      wanted: of this one; shapes are enough.
      layers: to be taken.
      source: of `found`, for errors and the record.

    Raises:
      ConfigError: a tensor is not in both, or of another shape, or not finite; names
        it.
    """
    theirs, ours = (_tensors(side, layers) for side in (found, wanted))
    wrong = []
    for name in sorted(theirs.keys() | ours.keys()):
        there, here = (_shape(side, name) for side in (theirs, ours))
        if there != here:
            wrong.append(f"{name}: {there} -> {here}")
        elif not np.isfinite(theirs[name]).all():
            wrong.append(f"{name}: numbers that are not finite")
    if wrong:
        more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise ConfigError(
            f"layers of {source} do not fit this network (there -> here):\n  "
            + "\n  ".join([*wrong[:SHOWN], *more])
        )
    taken = [name for name in layers_of(wanted) if name in layers]
    variables = {
        kind: {name: found[kind][name] for name in taken if name in found[kind]}
        for kind in KINDS
    }
    about = {
        "source": source,
        "taken": taken,
        "anew": [name for name in layers_of(wanted) if name not in layers],
        "digest": _digest(theirs),
    }
    return InitialWeights(variables, about)


def _tensors(variables, layers: Collection[str]) -> dict[str, Any]:
    """Tensors of these layers by kind and path."""
    return {
        "/".join((kind, *path)): value
        for kind in KINDS
        for path, value in flatten_dict(variables.get(kind, {})).items()
        if path[0] in layers
    }


def _shape(tensors: Mapping[str, Any], name: str) -> str:
    if name not in tensors:
        return "(absent)"
    return "x".join(map(str, tensors[name].shape)) or "one number"


def _digest(tensors: Mapping[str, Any]) -> str:
    names: Iterable[str] = sorted(tensors)
    found = hashlib.blake2b(digest_size=16)
    for name in names:
        found.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()
