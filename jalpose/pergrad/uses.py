"""Where each parameter of a traced function is used.

Every parameter is followed through the jaxpr, so that nothing depends on how the
network was written: a parameter used twice, inside a scan, or in an operation nobody
thought of, is seen as just that.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jalpose.pergrad import dtypes

# Operations that keep a parameter's entries, each once: the norm of its gradient is
# that of the result's.
_KEEPING = frozenset(
    {"reshape", "transpose", "squeeze", "expand_dims", "convert_element_type", "copy"}
    | {"rev"}
)
# Operations that take a part of a parameter, or make it a part of something.
_PARTS = frozenset({"slice", "split", "concatenate"})
# Operations whose body is read as if it stood in the caller's place.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
_REMAT = frozenset({"remat2", "remat", "checkpoint"})
_ELEMENTWISE = frozenset({"add", "sub", "mul", "div", "add_any"})

Path = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Operation:
    """An equation without its place in the program: equal ones share their rule.

    Attributes:
      primitive: what it binds.
      options: its parameters, by name.
      seen: shape and dtype of each operand.
      made: of each result.
    """

    primitive: core.Primitive
    options: tuple[tuple[str, Any], ...]
    seen: tuple[jax.ShapeDtypeStruct, ...]
    made: tuple[jax.ShapeDtypeStruct, ...]

    @classmethod
    def of(cls, equation: core.JaxprEqn) -> "Operation":
        """The operation of an equation, all of whose arrays have a shape and dtype."""
        seen, made = map(_shapes, (equation.invars, equation.outvars))
        return cls(equation.primitive, tuple(equation.params.items()), seen, made)

    @property
    def params(self) -> dict[str, Any]:
        """Its parameters."""
        return dict(self.options)


def _shapes(variables) -> tuple[jax.ShapeDtypeStruct, ...]:
    avals = [variable.aval for variable in variables]
    return tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals)


class Link(NamedTuple):
    """An operation between a parameter and its use that is linear in it alone.

    Attributes:
      operation: rearranges its entries, takes some, or sets others beside them.
      operand: which of its operands has them.
      result: which of its results.
    """

    operation: Operation
    operand: int
    result: int

    @property
    def whole(self) -> bool:
        """Whether what comes out is the entries and nothing else."""
        return self.operation.primitive.name not in _PARTS


class Loop(NamedTuple):
    """A `lax.scan` that a use lies in.

    Attributes:
      length: steps.
      sliced: each step takes a slice of the parameter, of its own, or else all of it.
    """

    length: int
    sliced: bool


class _Source(NamedTuple):
    """A parameter that a variable has the entries of; see `Use`."""

    number: int
    before: tuple[Link, ...] = ()
    links: tuple[Link, ...] = ()
    loops: tuple[Loop, ...] = ()

    @property
    def whole(self) -> bool:
        return all(link.whole for link in self.links)


@dataclasses.dataclass(frozen=True)
class Use:
    """One operation that takes a parameter.

    Attributes:
      path: position of the equation, through the bodies it is nested in.
      primitive: its name.
      operand: which of its operands is the parameter.
      in_shape: of that operand.
      before: what lies between the parameter and the last scan that slices it.
      links: what lies between there, or the parameter, and the use.
      loops: scans it lies in, the outermost first.
    """

    path: Path
    primitive: str
    operand: int
    in_shape: tuple[int, ...]
    before: tuple[Link, ...] = ()
    links: tuple[Link, ...] = ()
    loops: tuple[Loop, ...] = ()

    @property
    def joined(self) -> bool:
        """Whether the operand has entries beside the parameter's own."""
        names = [link.operation.primitive.name for link in self.links]
        return "concatenate" in names

    @property
    def in_place(self) -> bool:
        """Whether the gradient of the operand is the parameter's, or of its slices."""
        return not self.joined and all(loop.sliced for loop in self.loops)


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


def is_scan(equation) -> bool:
    """Whether an equation is `lax.scan`, whose body is read once for all its steps."""
    return equation.primitive.name == "scan"


def is_elementwise(use: Use) -> bool:
    """Whether a use combines the parameter's entries with an array, each by itself."""
    return use.primitive in _ELEMENTWISE


def follow(
    jaxpr: core.Jaxpr, known: dict[core.Var, int]
) -> tuple[dict[int, tuple[Use, ...]], dict[Path, core.JaxprEqn]]:
    """Uses of the parameters that variables stand for, and the equations of all uses.

    Args:
      jaxpr: of the function.
      known: numbers of the parameters.
    """
    uses: dict[int, list[Use]] = {number: [] for number in known.values()}
    equations: dict[Path, core.JaxprEqn] = {}
    sources = {variable: (_Source(number),) for variable, number in known.items()}
    _follow(jaxpr, sources, (), uses, equations)
    return {number: tuple(found) for number, found in uses.items()}, equations


def _follow(jaxpr, known, path, uses, equations) -> dict:
    """Record the uses in `jaxpr` of the parameters in `known` (variable -> sources).

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
            inside = {body.invars[operand]: sources for operand, sources in taken}
            inside = _follow(body, inside, here, uses, equations)
            for result, variable in zip(body.outvars, equation.outvars, strict=True):
                if not isinstance(result, core.Literal) and result in inside:
                    known[variable] = inside[result]
        elif is_scan(equation):
            _follow_scan(equation, taken, here, uses, equations)
        elif not any(dtypes.has_gradient(out.aval) for out in equation.outvars):
            continue  # nothing comes back through integers
        elif _keeps_entries(equation) or equation.primitive.name in _PARTS:
            known.update(_linked(equation, taken))
        else:
            for operand, sources in taken:
                _use(uses, here, equation, operand, sources)
    for variable in jaxpr.outvars if not path else ():
        if not isinstance(variable, core.Literal) and variable in known:
            for number, *rest in known[variable]:
                shape = variable.aval.shape
                uses[number].append(Use((), "output", 0, shape, *rest))
    return known


def _use(uses, here, equation, operand, sources) -> None:
    shape, name = equation.invars[operand].aval.shape, equation.primitive.name
    for number, *rest in sources:
        uses[number].append(Use(here, name, operand, shape, *rest))


def _linked(equation, taken) -> dict:
    """Results of an equation that stand for the parameters it takes."""
    operation = Operation.of(equation)
    return {
        variable: tuple(
            source._replace(links=(*source.links, Link(operation, operand, result)))
            for operand, sources in taken
            for source in sources
        )
        for result, variable in enumerate(equation.outvars)
    }


def _follow_scan(equation, taken, here, uses, equations) -> None:
    """Follow parameters that a scan takes whole at each step, or by slices."""
    body, length = equation.params["jaxpr"].jaxpr, equation.params["length"]
    constants = equation.params["num_consts"]
    scanned = constants + equation.params["num_carry"]
    inside = {}
    for operand, sources in taken:
        sliced = operand >= scanned
        if constants <= operand < scanned or not (
            length and (not sliced or all(source.whole for source in sources))
        ):
            _use(uses, here, equation, operand, sources)  # it becomes something else
            continue
        inside[body.invars[operand]] = tuple(
            source._replace(
                before=source.before + source.links if sliced else source.before,
                links=() if sliced else source.links,
                loops=(*source.loops, Loop(length, sliced)),
            )
            for source in sources
        )
    inside = _follow(body, inside, here, uses, equations)
    for variable in body.outvars:
        if not isinstance(variable, core.Literal) and variable in inside:
            for number, *rest in inside[variable]:
                shape = variable.aval.shape
                uses[number].append(Use(here, "scan", 0, shape, *rest))


def _keeps_entries(equation) -> bool:
    before, after = equation.invars[0].aval, equation.outvars[0].aval
    if not dtypes.same_kind(before, after):
        return False
    if equation.primitive.name in _KEEPING:
        return True
    if equation.primitive.name == "broadcast_in_dim":
        return before.size == after.size
    return False
