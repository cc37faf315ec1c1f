"""Some of the parameters as the ones that count: adapters, a head.

The others become a collection of the variables like any other, so that nothing below
has to know of them: no gradient by them is formed, and none is computed through what
only they need.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from jalpose.pergrad.program import tensor_name

_FROZEN = "frozen parameters"

# (name of a tensor, as in `Route.name`) -> whether it counts.
Trainable = Callable[[str], Any]


def select(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    trainable: Trainable | None,
) -> tuple[Callable[..., Any], Mapping[str, PyTree]]:
    """A network of fewer parameters.

    Args:
      apply_fn: (variables, inputs) -> output.
      variables: with `params`.
      trainable: which of them count; None: all.

    Returns:
      The function, and variables whose `params` have None in the place of the others.

    Raises:
      ValueError: none counts.
    """
    if trainable is None:
        return apply_fn, variables
    params = variables["params"]
    counts = jax.tree_util.tree_map_with_path(
        lambda path, _: bool(trainable(tensor_name(path))), params
    )
    if not any(jax.tree.leaves(counts)):
        found, _ = jax.tree_util.tree_flatten_with_path(params)
        names = ", ".join(tensor_name(path) for path, _ in found[:10])
        raise ValueError(
            "trainable is true of none of the parameters, whose names are "
            f"{names}{', ...' if len(found) > 10 else ''}"
        )
    kept = jax.tree.map(lambda leaf, mine: leaf if mine else None, params, counts)
    frozen = jax.tree.map(lambda leaf, mine: None if mine else leaf, params, counts)
    return _merging(apply_fn), {**variables, "params": kept, _FROZEN: frozen}


def fill(tree: PyTree, value: Any) -> PyTree:
    """A tree of `select`'s parameters with a value in the place of the others."""
    return jax.tree.map(
        lambda leaf: value if leaf is None else leaf, tree, is_leaf=_is_none
    )


def _merging(apply_fn):
    """`apply_fn` of the selected variables, the same one for the same function."""
    try:
        hash(apply_fn)
    except TypeError:
        return _merging_anew(apply_fn)
    return _merging_once(apply_fn)


def _merging_anew(apply_fn):
    def merged(variables, inputs):
        variables = dict(variables)
        variables["params"] = jax.tree.map(
            lambda kept, frozen: frozen if kept is None else kept,
            variables["params"],
            variables.pop(_FROZEN),
            is_leaf=_is_none,
        )
        return apply_fn(variables, inputs)

    return merged


_merging_once = functools.lru_cache(maxsize=16)(_merging_anew)


def _is_none(leaf) -> bool:
    return leaf is None
