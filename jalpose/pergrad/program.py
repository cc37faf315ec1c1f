"""Where each parameter of a traced function is used.

The function is traced for one example into a jaxpr, and every parameter is followed
through it, so that nothing depends on how the network was written: a parameter used
twice, inside a scan, or in an operation nobody thought of, is seen as just that.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes

# Operations that keep a parameter's entries, each once: the norm of its gradient is
# that of the result's.
_KEEPING = frozenset(
    {"reshape", "transpose", "squeeze", "expand_dims", "convert_element_type", "copy"}
    | {"rev"}
)
# Operations whose body is read as if it stood in the caller's place.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
_REMAT = frozenset({"remat2", "remat", "checkpoint"})
_ELEMENTWISE = frozenset({"add", "sub", "mul", "div", "add_any"})

Path = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Use:
    """One operation that takes a parameter.

    Attributes:
      path: position of the equation, through the bodies it is nested in.
      primitive: its name.
      operand: which of its operands is the parameter.
      in_shape: of that operand.
    """

    path: Path
    primitive: str
    operand: int
    in_shape: tuple[int, ...]


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
        """Equations that take parameters twice, e.g. a product of two of them."""
        counts = collections.Counter(use.path for uses in self.uses for use in uses)
        return frozenset(path for path, count in counts.items() if count > 1)


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
    found, _ = jax.tree_util.tree_flatten_with_path(params)
    names = tuple(tensor_name(path) for path, _ in found)
    uses: list[list[Use]] = [[] for _ in names]
    equations: dict[Path, core.JaxprEqn] = {}
    variables = closed.jaxpr.invars
    known = {
        variable: number
        for number, variable in enumerate(variables[: len(names)])
        if dtypes.has_gradient(variable.aval)
    }
    _follow(closed.jaxpr, known, (), uses, equations)
    return Program(
        closed,
        names,
        tuple(map(tuple, uses)),
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


def body_of(equation) -> core.ClosedJaxpr | None:
    """The jaxpr an equation stands for, where it may be read in its place."""
    name = equation.primitive.name
    if name in _CALLS and _CALLS[name] in equation.params:
        return equation.params[_CALLS[name]]
    if name in _REMAT:
        return core.ClosedJaxpr(equation.params["jaxpr"], ())
    return None


def is_remat(equation) -> bool:
    """Whether an equation is `jax.checkpoint`: its body is computed again backward."""
    return equation.primitive.name in _REMAT


def is_elementwise(use: Use) -> bool:
    """Whether a use combines the parameter's entries with an array, each by itself."""
    return use.primitive in _ELEMENTWISE


def _follow(jaxpr, known, path, uses, equations) -> dict:
    """Record the uses of the parameters in `known` (variable -> number) in `jaxpr`.

    Returns `known` with the variables that stand for a parameter added.
    """
    known = dict(known)
    for index, equation in enumerate(jaxpr.eqns):
        here = (*path, index)
        taken = [
            (operand, known[variable])
            for operand, variable in enumerate(equation.invars)
            if not isinstance(variable, core.Literal) and variable in known
        ]
        if not taken:
            continue
        equations[here] = equation
        closed = body_of(equation)
        if closed is not None:
            body = closed.jaxpr
            inside = {body.invars[operand]: number for operand, number in taken}
            inside = _follow(body, inside, here, uses, equations)
            for result, variable in zip(body.outvars, equation.outvars, strict=True):
                if not isinstance(result, core.Literal) and result in inside:
                    known[variable] = inside[result]
        elif not any(dtypes.has_gradient(out.aval) for out in equation.outvars):
            continue  # nothing comes back through integers
        elif _keeps_entries(equation):
            known[equation.outvars[0]] = taken[0][1]
        else:
            for operand, number in taken:
                shape = equation.invars[operand].aval.shape
                name = equation.primitive.name
                uses[number].append(Use(here, name, operand, shape))
    for variable in jaxpr.outvars if not path else ():
        if not isinstance(variable, core.Literal) and variable in known:
            uses[known[variable]].append(Use((), "output", 0, variable.aval.shape))
    return known


def _keeps_entries(equation) -> bool:
    before, after = equation.invars[0].aval, equation.outvars[0].aval
    if not dtypes.same_kind(before, after):
        return False
    if equation.primitive.name in _KEEPING:
        return True
    if equation.primitive.name == "broadcast_in_dim":
        return before.size == after.size
    return False
