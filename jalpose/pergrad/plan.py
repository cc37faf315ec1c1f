"""The road of each parameter's gradient through a program."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import PyTree

from jalpose.pergrad import dtypes, projections, rules, sharing
from jalpose.pergrad import program as tracing
from jalpose.pergrad.program import Program
from jalpose.pergrad.rules import Rule, Settings
from jalpose.pergrad.sharing import Shared
from jalpose.pergrad.uses import Path, is_elementwise


@dataclasses.dataclass(frozen=True)
class Route:
    """How the norm of one parameter tensor is found.

    Attributes:
      name: of the tensor, e.g. `conv/kernel`.
      shape: of the tensor.
      way: `direct`, `gram`, `shifted` (one backward pass, `squares`), `summed` (of
        several uses, the gradient of one example at a time formed from what they saw),
        `positions` (Goodfellow), `vector` (autodiff of a bias, scale or other tensor
        that is only added or multiplied), `autodiff` (the fallback: its gradient is
        formed for each example), `unused`, or `left out`.
      reason: of a fallback or of leaving out.
    """

    name: str
    shape: tuple[int, ...]
    way: str
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A program with the road of each parameter.

    Attributes:
      program: traced.
      routes: of each parameter, in the order of the tree's leaves.
      taps: rule of each tapped equation, and the number of its parameter.
      kept: rule of each equation whose data and cotangents are kept.
      shared: how the kept are put together, by the number of their parameter.
      differentiated: numbers of the parameters autodiff takes.
      lengths: of the scans that tapped and kept equations lie in.
    """

    program: Program
    routes: tuple[Route, ...]
    taps: dict[Path, tuple[Rule, int]]
    kept: dict[Path, Rule]
    shared: dict[int, Shared]
    differentiated: tuple[int, ...]
    lengths: dict[Path, tuple[int, ...]]

    @functools.cached_property
    def rooms(self) -> frozenset[Path]:
        """Equations with a tapped or kept one in their body."""
        inside = (*self.taps, *self.kept)
        return frozenset(p[:end] for p in inside for end in range(1, len(p)))

    def shapes(self, leaves: list[Any]) -> tuple[list[projections.Shape], list[int]]:
        """How each tensor's gradient is looked at, and how many slices of it are."""
        found, slices = list(map(projections.shape_of, leaves)), [1] * len(leaves)
        for path, (rule, number) in self.taps.items():
            assert rule.shape is not None  # of all that measure a gradient
            found[number], slices[number] = rule.shape, math.prod(self.lengths[path])
        for number, shared in self.shared.items():
            assert shared.rule.shape is not None
            found[number], slices[number] = shared.rule.shape, shared.slices
        return found, slices


def make_plan(
    apply_fn: Callable[..., Any],
    params: PyTree,
    other: Mapping[str, PyTree],
    example: PyTree,
    *,
    reading: str,
    dtype: DTypeLike | None = None,
) -> Plan:
    """Trace and decide each parameter's road.

    Args:
      apply_fn: see `program.trace`, and so for the three that follow.
      params: tree of parameters.
      other: the other collections of the variables.
      example: inputs of one example, without an axis of examples.
      reading: `ghost`, exact; `goodfellow`, its approximation; `conv_linear`, exact
        over convolutions and linear layers and nothing else.
      dtype: activations and cotangents are rounded to it in products; None: kept.

    Raises:
      ValueError: a reading other than `ghost` meets a parameter it cannot place; the
        function returns anything but arrays of one row an example.
    """
    program = tracing.trace(apply_fn, params, other, example)
    settings = Settings(
        approximate=reading == "goodfellow",
        dtype=dtype,
        cpu=jax.default_backend() == "cpu",
    )
    leaves = jax.tree.leaves(params)
    shapes = [leaf.shape for leaf in leaves]
    matrices = [_rules_of(program, uses, settings) for uses in program.uses]
    routes, taps, all_shared = [], {}, {}
    for number, (name, shape) in enumerate(zip(program.names, shapes, strict=True)):
        uses, found = program.uses[number], matrices[number]
        if not dtypes.has_gradient(leaves[number]):
            reason = f"{leaves[number].dtype} has no gradient"
            routes.append(Route(name, shape, "left out", reason))
            continue
        exact = functools.partial(_exact_road, program, uses, found, shape, settings)
        if reading == "ghost":
            way, reason, mine = exact()
        else:
            beside = _has_matrix_beside(number, program.names, matrices)
            if reading == "goodfellow":
                exact = functools.partial(_by_position, program, uses, found, settings)
            way, reason, mine = _layer_road(name, uses, found, beside, exact, reading)
        routes.append(Route(name, shape, way, reason))
        if isinstance(mine, Shared):
            all_shared[number] = mine
        else:
            taps.update({path: (rule, number) for path, rule in mine.items()})
    _leave_to_autodiff(program, all_shared, routes)
    differentiated = tuple(
        number
        for number, route in enumerate(routes)
        if route.way in ("vector", "autodiff")
    )
    kept = {
        path: group.rule
        for shared in all_shared.values()
        for group in shared.groups
        for path in (use.path for use in group.uses)
    }
    lengths = {
        use.path: tuple(loop.length for loop in use.loops)
        for uses in program.uses
        for use in uses
    }
    return Plan(program, tuple(routes), taps, kept, all_shared, differentiated, lengths)


def _leave_to_autodiff(program, shared, routes) -> None:
    """What is joined with a tensor that autodiff takes needs its cotangents too."""
    while True:
        used: dict[Path, set[int]] = {}
        for number, uses in enumerate(program.uses):
            for use in uses:
                used.setdefault(use.path, set()).add(number)
        left = [
            number
            for number, mine in shared.items()
            if any(used[path] - shared.keys() for path in mine.paths)
        ]
        if not left:
            return
        for number in left:
            del shared[number]
            route = routes[number]
            reason = "joined with another tensor that has no rule"
            routes[number] = Route(route.name, route.shape, "autodiff", reason)


def _rules_of(program, uses, settings) -> dict[Path, Rule | None]:
    """A rule for every use, or None where it has none."""
    found = {}
    for use in uses:
        equation = program.equations.get(use.path)
        rule = equation and rules.find_rule(equation, use.operand, settings)
        found[use.path] = None if use.path in program.shared else rule
    return found


def _exact_road(program, uses, found, shape, settings):
    if not uses:
        return "unused", "", {}
    if all(found.values()):
        if len(uses) == 1 and uses[0].in_place:
            return found[uses[0].path].route, "", found
        shared = sharing.plan(uses, found, program.equations, shape, settings)
        if shared is not None:
            return shared.rule.route, "", shared
        return "autodiff", f"used {len(uses)} times, in scans that differ", {}
    if all(map(is_elementwise, uses)):
        return "vector", "", {}
    without = {use.primitive for use in uses if found[use.path] is None}
    return "autodiff", f"no rule for {', '.join(sorted(without))}", {}


def _has_matrix_beside(number, names, matrices) -> bool:
    """Whether a convolution's or linear layer's kernel stands in the same module."""
    module = names[number].rpartition("/")[0]
    return any(
        _is_linear(found)
        for name, found in zip(names, matrices, strict=True)
        if name.rpartition("/")[0] == module
    )


def _is_linear(found) -> bool:
    kinds = {rule and rule.kind for rule in found.values()}
    return bool(kinds) and kinds <= {"conv", "dense"}


def _layer_road(name, uses, found, beside, road, reading):
    """The road of what belongs to a convolution or a linear layer, for some engines."""
    if not uses:
        return "unused", "", {}
    matrix = all(found.values())
    vector = not matrix and all(map(is_elementwise, uses))
    if _is_linear(found) or (beside and vector) or (matrix and reading == "goodfellow"):
        way, reason, mine = road()
        if way is not None:
            return way, reason, mine
    if matrix or vector:
        return "left out", "neither of a convolution nor of a linear layer", {}
    kinds = ", ".join(sorted({use.primitive for use in uses}))
    raise ValueError(
        f"cannot tell what layer the parameter {name} belongs to: it enters {kinds}. "
        "The engines goodfellow and conv_linear know convolutions and linear layers "
        "alone: take ghost or exact, which place every parameter"
    )


def _by_position(program, uses, found, settings):
    """Goodfellow's road: a sum over uses, without their cross terms."""
    if not all(found.values()):
        found = {
            use.path: rules.bias_rule(
                program.equations[use.path], use.operand, settings
            )
            for use in uses
            if use.path not in program.shared
        }
    if any(use.joined or not found.get(use.path) for use in uses):
        return None, "", {}
    return "positions", "", found
