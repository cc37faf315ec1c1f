"""What is asked of per-example gradients, from one backward pass, by taps.

Every operation that takes a matrix of parameters gets one more input, a zero: its tap.
Backward, the operation returns as the tap's cotangent the squared norm of its own
weight gradient (or what else is asked of it, see `measures`), computed where the
cotangent is and thrown away (`rules`). Autodiff carries the taps; no per-example
gradient outlives its layer, and the ordinary weight gradient is never formed. Vectors,
and every parameter that has no rule or is used more than once, get their exact
per-example gradient from autodiff: never an undercount.

Written for one example and batched by `vmap`, so that what stands beside an example
cannot matter.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes, measures, places, rules
from jalpose.pergrad import program as tracing
from jalpose.pergrad.exact import Pull, by_chunks
from jalpose.pergrad.measures import SQUARES, Measure
from jalpose.pergrad.program import Path, Program
from jalpose.pergrad.rules import Rule, Settings


@dataclasses.dataclass(frozen=True)
class Route:
    """How the norm of one parameter tensor is found.

    Attributes:
      name: of the tensor, e.g. `conv/kernel`.
      shape: of the tensor.
      way: `direct`, `gram`, `shifted` (one backward pass, `squares`), `positions`
        (Goodfellow), `vector` (autodiff of a bias, scale or other tensor that is only
        added or multiplied), `autodiff` (the fallback: its gradient is formed for
        each example), `unused`, or `left out`.
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
      differentiated: numbers of the parameters autodiff takes.
    """

    program: Program
    routes: tuple[Route, ...]
    taps: dict[Path, tuple[Rule, int]]
    differentiated: tuple[int, ...]


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
    routes, taps = [], {}
    for number, (name, shape) in enumerate(zip(program.names, shapes, strict=True)):
        uses, found = program.uses[number], matrices[number]
        if not dtypes.has_gradient(leaves[number]):
            reason = f"{leaves[number].dtype} has no gradient"
            routes.append(Route(name, shape, "left out", reason))
            continue
        if reading == "ghost":
            way, reason, mine = _exact_road(uses, found)
        else:
            road = _goodfellow_road if reading == "goodfellow" else _linear_road
            beside = _has_matrix_beside(number, program.names, matrices)
            way, reason, mine = road(name, program, uses, found, beside, settings)
        routes.append(Route(name, shape, way, reason))
        taps.update({path: (rule, number) for path, rule in mine.items()})
    differentiated = tuple(
        number
        for number, route in enumerate(routes)
        if route.way in ("vector", "autodiff")
    )
    return Plan(program, tuple(routes), taps, differentiated)


def _rules_of(program, uses, settings) -> dict[Path, Rule] | None:
    """A rule for every use, or None where one has none."""
    found = {}
    for use in uses:
        equation = program.equations.get(use.path)
        rule = equation and rules.find_rule(equation, use.operand, settings)
        if rule is None or use.path in program.shared:
            return None
        found[use.path] = rule
    return found


def _exact_road(uses, found):
    if not uses:
        return "unused", "", {}
    if found and len(found) == 1:
        (rule,) = found.values()
        return rule.route, "", found
    if all(map(tracing.is_elementwise, uses)):
        return "vector", "", {}
    if len(uses) > 1:
        return "autodiff", f"used {len(uses)} times", {}
    return "autodiff", f"no rule for {uses[0].primitive}", {}


def _has_matrix_beside(number, names, matrices) -> bool:
    """Whether a convolution's or linear layer's kernel stands in the same module."""
    module = names[number].rpartition("/")[0]
    return any(
        _is_linear(found)
        for name, found in zip(names, matrices, strict=True)
        if name.rpartition("/")[0] == module
    )


def _is_linear(found) -> bool:
    return bool(found) and all(r.kind in ("conv", "dense") for r in found.values())


def _linear_road(name, program, uses, found, beside, settings):
    del settings
    if not uses:
        return "unused", "", {}
    if _is_linear(found):
        return _exact_road(uses, found)
    if all(map(tracing.is_elementwise, uses)) and beside:
        return "vector", "", {}
    return _left_out(name, program, uses, found)


def _goodfellow_road(name, program, uses, found, beside, settings):
    if not uses:
        return "unused", "", {}
    if found:
        return "positions", "", found  # a sum over uses: no cross terms either
    if all(map(tracing.is_elementwise, uses)) and beside:
        added = {}
        for use in uses:
            rule = rules.bias_rule(program.equations[use.path], use.operand, settings)
            if rule is None or use.path in program.shared:
                break
            added[use.path] = rule
        else:
            return "positions", "", added
    return _left_out(name, program, uses, found)


def _left_out(name, program, uses, found):
    if found or all(map(tracing.is_elementwise, uses)):
        return "left out", "neither of a convolution nor of a linear layer", {}
    kinds = ", ".join(sorted({use.primitive for use in uses}))
    raise ValueError(
        f"cannot tell what layer the parameter {name} belongs to: it enters {kinds}. "
        "The engines goodfellow and conv_linear know convolutions and linear layers "
        "alone: take ghost or exact, which place every parameter"
    )


def linearise(
    plan: Plan,
    params: PyTree,
    other: Mapping[str, PyTree],
    example: PyTree,
    measure: Measure = SQUARES,
    drawn: Sequence[PyTree] | None = None,
) -> tuple[PyTree[Shaped[Array, "..."]], Pull, dict[Path, Shaped[AnyArray, "..."]]]:
    """Run one example forward, with its taps in place.

    Args:
      plan: of `make_plan`, for arrays of these shapes.
      params: tree of parameters.
      other: the other collections of the variables.
      example: its inputs, without an axis of examples.
      measure: what is asked of the gradients.
      drawn: of each tensor, in the order of the tree's leaves, arrays that the measure
        wants, the same for all examples; None: it wants none.

    Returns:
      The output, without an axis of examples; what pulls cotangents of its floats
      back through it, to zeros where a tensor has no part; and what each tapped
      operation took as its data, by path.
    """
    leaves = jax.tree.leaves(params)
    drawn = [()] * len(leaves) if drawn is None else drawn

    def operation(rule, number, data, weight, tap):
        return _tap(rule, measure)(data, weight, tap, drawn[number])

    def forward(taps, differentiated):
        values = list(leaves)
        for number, value in zip(plan.differentiated, differentiated, strict=True):
            values[number] = value
        arguments = [*values, *jax.tree.leaves(other), *jax.tree.leaves(example)]
        evaluation = Evaluation(plan, operation, seen={})
        parts = tracing.cut(evaluation.output(arguments, taps))
        return parts.floats, (parts, evaluation.seen)

    taps = places.vary_as(zero_taps(plan, measure.shape), (leaves, example))
    differentiated = [leaves[number] for number in plan.differentiated]
    floats, pull_back, (parts, seen) = jax.vjp(
        forward, taps, differentiated, has_aux=True
    )

    def measured(cotangent):
        of_taps, gradients = pull_back(jax.tree.leaves(cotangent))
        found = measures.zeros(measure, plan.routes)
        for path, (_, number) in plan.taps.items():
            found[number] = found[number] + of_taps[path]
        for number, gradient in zip(plan.differentiated, gradients, strict=True):
            if plan.routes[number].way == "autodiff":
                gradient = places.unsplit(gradient)
            found[number] = measure.of_gradient(gradient, drawn[number])
        return found

    def pull(cotangents, chunk):
        return by_chunks(measured, cotangents, chunk)

    return parts.tree(floats), pull, seen


def zero_taps(plan: Plan, shape: tuple[int, ...]) -> dict[Path, Array]:
    """A zero for each tapped operation, of the dtype its answer comes back in."""
    return {
        path: jnp.zeros(shape, dtypes.wide(_output(plan, path))) for path in plan.taps
    }


def _tap(rule: Rule, measure: Measure):
    """The operation of a rule with a tap: (data, weight, tap, drawn) -> y.

    Backward, the tap's cotangent is what is asked of the weight's gradient, and the
    weight's own is left out. The gradient itself never exists outside this layer.
    """

    @jax.custom_vjp
    def tapped(data, weight, tap, drawn):
        del tap, drawn
        return rule.forward(data, weight)

    # Not by `tapped` itself: then the norms could not be differentiated by the weight.
    def forward(data, weight, tap, drawn):
        del tap
        return rule.forward(data, weight), (data, weight, drawn)

    def backward(kept, cotangent):
        data, weight, drawn = kept
        found = measure.of_layer(rule, data, cotangent[None], drawn)[0]
        found = found.astype(dtypes.wide(cotangent))
        return back_to_data(rule, data, weight, cotangent), None, found, None

    tapped.defvjp(forward, backward)
    return tapped


def back_to_data(rule: Rule, data: Any, weight: Any, cotangent: Any) -> Any:
    """Cotangent of an operation's data, None where it has none."""
    if not rule.linear or not dtypes.has_gradient(data):
        return None
    # In one dtype, as operations of several have no transpose.
    dtype = jnp.result_type(data, weight, cotangent)
    weight, cotangent = weight.astype(dtype), cotangent.astype(dtype)
    if rule.input_gradient is not None:
        back = rule.input_gradient(weight, cotangent, data.shape)
    else:
        (back,) = jax.linear_transpose(
            lambda x: rule.forward(x, weight).astype(dtype), data.astype(dtype)
        )(cotangent)
    return back.astype(data.dtype)


def _output(plan, path):
    return plan.program.equations[path].outvars[0].aval


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One run of a plan's program with its tapped operations in place.

    Attributes:
      plan: of `make_plan`.
      operation: (rule, number of the tensor, data, weight, tap) -> y, a tapped one.
      seen: filled with the data of the tapped operations of the outermost level.
    """

    plan: Plan
    operation: Callable[..., Array]
    seen: dict[Path, Any]

    def output(self, arguments: Sequence[Any], taps: dict[Path, Any]) -> PyTree:
        """The program's output for its arguments, flat, and a tap by each path."""
        program = self.plan.program
        results = self._results(program.closed, arguments, (), taps)
        return jax.tree.unflatten(program.structure, results)

    def _results(self, closed, arguments, path, taps) -> list:
        jaxpr = closed.jaxpr
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(variable):
            return variable.val if hasattr(variable, "val") else values[variable]

        for index, equation in enumerate(jaxpr.eqns):
            here = (*path, index)
            operands = [read(variable) for variable in equation.invars]
            if here in self.plan.taps:
                rule, number = self.plan.taps[here]
                data, weight = operands[rule.data], operands[rule.weight]
                results = [self.operation(rule, number, data, weight, taps[here])]
                if not path:
                    self.seen[here] = data
            elif _holds_tap(self.plan, here):
                results = self._enter(equation, operands, here, taps)
            else:
                results = _bind(equation, operands)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _enter(self, equation, operands, here, taps) -> list:
        closed = tracing.body_of(equation)
        assert closed is not None  # or nothing inside had been found
        inside = {path: tap for path, tap in taps.items() if path[: len(here)] == here}

        def run(taps, operands):
            return self._results(closed, operands, here, taps)

        if tracing.is_remat(equation):
            policy, prevent = equation.params["policy"], equation.params["prevent_cse"]
            run = jax.checkpoint(run, policy=policy, prevent_cse=prevent)
        return run(inside, operands)


def _bind(equation, operands) -> list:
    """Results of an equation as it stands."""
    primitive, first = equation.primitive, ()
    options = primitive.get_bind_params(equation.params)
    if isinstance(options, tuple):  # before JAX 0.10: functions apart
        first, options = options
    results = primitive.bind(*first, *operands, **options)
    return list(results) if primitive.multiple_results else [results]


def _holds_tap(plan, here) -> bool:
    return any(path[: len(here)] == here for path in plan.taps)
