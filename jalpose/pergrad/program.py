"""A function of one example, traced, with the uses of its parameters."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes, uses
from jalpose.pergrad.uses import Path, Use


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of one example, traced.

    Attributes:
      closed: its jaxpr; invars are the parameters, the other variables, the input.
      names: of the parameters, e.g. `params/conv/kernel`.
      uses: of each parameter.
      equations: by path, for every use.
      structure: of the tree that its results are the leaves of.
    """

    closed: core.ClosedJaxpr
    names: tuple[str, ...]
    uses: tuple[tuple[Use, ...], ...]
    equations: dict[Path, core.JaxprEqn]
    structure: Any

    @functools.cached_property
    def shared(self) -> frozenset[Path]:
        """Equations several of whose operands are parameters, e.g. their product."""
        operands: dict[Path, set[int]] = {}
        for use in itertools.chain.from_iterable(self.uses):
            operands.setdefault(use.path, set()).add(use.operand)
        return frozenset(path for path, found in operands.items() if len(found) > 1)


def trace(
    apply_fn: Callable[..., Any],
    params: PyTree,
    other: Mapping[str, PyTree],
    example: PyTree,
) -> Program:
    """Trace `apply_fn` for one example.

    All arrays are looked at for their shapes and dtypes alone, and may be
    `jax.ShapeDtypeStruct`.

    Args:
      apply_fn: (variables, inputs [b, ...]) -> tree of [b, ...].
      params: tree of parameters, of any shape.
      other: the other collections of the variables.
      example: tree of the inputs of one example, without an axis of examples.

    Raises:
      ValueError: the function returns anything but arrays of one row an example.
    """

    def one(params, other, example):
        batch = jax.tree.map(lambda x: x[None], example)
        output = checked(apply_fn({**other, "params": params}, batch), 1)
        return jax.tree.map(lambda leaf: leaf[0], output)

    closed, shapes = jax.make_jaxpr(one, return_shape=True)(params, other, example)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    names = tuple(tensor_name(path) for path, _ in leaves)
    variables = closed.jaxpr.invars
    known = {
        variable: number
        for number, variable in enumerate(variables[: len(names)])
        if dtypes.has_gradient(variable.aval)
    }
    found, equations = uses.follow(closed.jaxpr, known)
    of_each = tuple(found.get(number, ()) for number in range(len(names)))
    return Program(
        closed,
        names,
        of_each,
        equations,
        jax.tree.structure(shapes),
    )


def checked(output: PyTree, rows: int) -> PyTree[Shaped[AnyArray, "{rows} ..."]]:
    """A network's output: a tree of arrays of any dtype, some of them floats.

    Raises:
      ValueError: an array has not so many rows, or there are no floats.
    """
    leaves = jax.tree.leaves(output)
    if not leaves or any(jnp.shape(leaf)[:1] != (rows,) for leaf in leaves):
        shapes = jax.tree.map(jnp.shape, output)
        raise ValueError(
            f"apply_fn must return arrays with a row for each example, got {shapes} "
            f"for {rows} of them: wrap it so that it returns what the loss is of, and "
            "no updated statistics"
        )
    if not any(leaf.size and dtypes.has_gradient(leaf) for leaf in leaves):
        found = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
        raise ValueError(
            "apply_fn must return floats for each example, and at least one, got "
            f"{found}: return what the loss is of, and see that the inputs are large "
            "enough"
        )
    return output


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["floats", "others"],
    meta_fields=["structure", "kinds"],
)
@dataclasses.dataclass(frozen=True)
class Output:
    """An output cut in two: what cotangents come by, and the rest of its arrays.

    Attributes:
      floats: arrays that have a gradient.
      others: integers and the like.
      structure: of the tree.
      kinds: of each leaf, whether it is among the floats.
    """

    floats: list[Any]
    others: list[Any]
    structure: Any
    kinds: tuple[bool, ...]

    def tree(self, floats: list[Any]) -> PyTree:
        """The output with other floats in their place."""
        parts = iter(floats), iter(self.others)
        leaves = [next(parts[0] if kind else parts[1]) for kind in self.kinds]
        return jax.tree.unflatten(self.structure, leaves)


def cut(output: PyTree) -> Output:
    """An output's arrays, those with a gradient apart."""
    leaves, structure = jax.tree.flatten(output)
    kinds = tuple(map(dtypes.has_gradient, leaves))
    floats = [leaf for leaf, kind in zip(leaves, kinds, strict=True) if kind]
    others = [leaf for leaf, kind in zip(leaves, kinds, strict=True) if not kind]
    return Output(floats, others, structure, kinds)


def operations(jaxpr: core.Jaxpr) -> set[str]:
    """Names of all primitives in a jaxpr and in what it holds."""
    found = set[str]()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for inner in jax.tree.leaves(list(equation.params.values())):
            if isinstance(inner, core.ClosedJaxpr):
                inner = inner.jaxpr
            if isinstance(inner, core.Jaxpr):
                found |= operations(inner)
    return found


def tensor_name(path) -> str:
    """Name of a tensor by its key path, e.g. `a/b/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
