"""What is asked of per-example gradients, from one backward pass, by taps.

Every operation that takes a matrix of parameters gets one more input, a zero: its tap.
Backward, the operation returns as the tap's cotangent the squared norm of its own
weight gradient (or what else is asked of it, see `measures`), computed where the
cotangent is and thrown away (`rules`). Autodiff carries the taps, through scans too; no
per-example gradient outlives its layer, and the ordinary weight gradient is never
formed. Where a weight is used more than once, the tap's cotangent is what its gradient
is made of (`sharing`). Vectors, and every parameter that has no rule, get their exact
per-example gradient from autodiff: never an undercount.

Written for one example and batched by `vmap`, so that what stands beside an example
cannot matter.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree, Shaped

from jalpose.pergrad import AnyArray, dtypes, measures, places, sharing
from jalpose.pergrad import program as tracing
from jalpose.pergrad.exact import Pull, by_chunks
from jalpose.pergrad.measures import SQUARES, Measure
from jalpose.pergrad.plan import Plan
from jalpose.pergrad.rule import Rule
from jalpose.pergrad.uses import Path, body_of, is_remat, is_scan


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

    def operation(rule, data, weight, tap):
        return _tap(rule, measure)(data, weight, *tap)

    of_steps = {
        path: _by_steps(drawn[number], plan.lengths[path])
        for path, (_, number) in plan.taps.items()
    }

    def forward(taps, differentiated):
        values = list(leaves)
        for number, value in zip(plan.differentiated, differentiated, strict=True):
            values[number] = value
        arguments = [*values, *jax.tree.leaves(other), *jax.tree.leaves(example)]
        evaluation = Evaluation(plan, operation, seen={})
        with_drawn = taps | {path: (taps[path], of_steps[path]) for path in plan.taps}
        parts = tracing.cut(evaluation.output(arguments, with_drawn))
        return parts.floats, (parts, evaluation.seen)

    taps = places.vary_as(zero_taps(plan, measure.shape), (leaves, example))
    differentiated = [leaves[number] for number in plan.differentiated]
    floats, pull_back, (parts, seen) = jax.vjp(
        forward, taps, differentiated, has_aux=True
    )

    def measured(cotangent):
        answers, gradients = pull_back(jax.tree.leaves(cotangent))
        found = measures.zeros(measure, plan.routes)
        for path, (_, number) in plan.taps.items():
            steps = tuple(range(len(plan.lengths[path])))
            found[number] = found[number] + jnp.sum(answers[path], axis=steps)
        for number, shared in plan.shared.items():
            found[number] = _of_shared(shared, measure, answers, drawn[number])
        for number, gradient in zip(plan.differentiated, gradients, strict=True):
            if plan.routes[number].way == "autodiff":
                gradient = places.unsplit(gradient)
            found[number] = measure.of_gradient(gradient, drawn[number])
        return found

    def pull(cotangents, chunk):
        return by_chunks(measured, cotangents, chunk)

    return parts.tree(floats), pull, seen


def zero_taps(plan: Plan, shape: tuple[int, ...]) -> dict[Path, PyTree[Array]]:
    """A zero for each tapped or kept operation, of the dtype its answer comes back in.

    Args:
      plan: of the program.
      shape: of the answer of a tapped operation.
    """
    zeros: dict[Path, Any] = {
        path: jnp.zeros(
            (*plan.lengths[path], *shape),
            dtypes.wide(plan.program.equations[path].outvars[0].aval),
        )
        for path in plan.taps
    }
    for path, rule in plan.kept.items():
        equation = plan.program.equations[path]
        arrays = equation.invars[rule.data].aval, equation.outvars[0].aval
        shapes = [jax.eval_shape(sharing.encode, _shape(array)) for array in arrays]
        zeros[path] = tuple(
            jnp.zeros((*plan.lengths[path], *x.shape), x.dtype) for x in shapes
        )
    return zeros


def _by_steps(slices, lengths):
    """Arrays [slices, ...] with an axis for each scan they lie in."""
    if math.prod(lengths) == 1:
        return jax.tree.map(lambda x: x.reshape(*lengths, *x.shape), slices)
    return jax.tree.map(lambda x: x.reshape(*lengths, *x.shape[1:]), slices)


def _shape(array):
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _of_shared(shared, measure, answers, drawn):
    """What is asked of a gradient that is put together from what was kept."""

    def of_slice(data, cotangents, drawn):
        cotangents = jax.tree.map(lambda g: g[None], cotangents)
        return measure.of_layer(shared.rule, data, cotangents, drawn)[0]

    if shared.slices == 1:
        drawn = jax.tree.map(lambda x: x[None], drawn)
    kept = shared.collect({path: answers[path] for path in shared.paths})
    return jnp.sum(shared.per_slice(of_slice, *kept, drawn), axis=0)


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


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One run of a plan's program with its tapped operations in place.

    Attributes:
      plan: of `make_plan`.
      operation: (rule, data, weight, tap) -> y, a tapped one.
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
                rule, _ = self.plan.taps[here]
                data, weight = operands[rule.data], operands[rule.weight]
                results = [self.operation(rule, data, weight, taps[here])]
                if not path:
                    self.seen[here] = data
            elif here in self.plan.kept:
                rule = self.plan.kept[here]
                data, weight = operands[rule.data], operands[rule.weight]
                operation = sharing.keeping(rule, back_to_data)
                results = [operation(data, weight, taps[here])]
            elif here in self.plan.rooms:
                results = self._enter(equation, operands, here, taps)
            else:
                results = _bind(equation, operands)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _enter(self, equation, operands, here, taps) -> list:
        inside = {path: tap for path, tap in taps.items() if path[: len(here)] == here}
        if is_scan(equation):
            return self._scan(equation, operands, here, inside)
        closed = body_of(equation)
        assert closed is not None  # or nothing inside had been found

        def run(taps, operands):
            return self._results(closed, operands, here, taps)

        if is_remat(equation):
            policy, prevent = equation.params["policy"], equation.params["prevent_cse"]
            run = jax.checkpoint(run, policy=policy, prevent_cse=prevent)
        return run(inside, operands)

    def _scan(self, equation, operands, here, taps) -> list:
        """A scan whose steps take the taps' slices beside their own."""
        params = equation.params
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        constants, carry, scanned = (
            operands[:first],
            operands[first:last],
            operands[last:],
        )

        def step(carry, part):
            taps, scanned = part
            arguments = [*constants, *carry, *scanned]
            results = self._results(params["jaxpr"], arguments, here, taps)
            return results[: last - first], results[last - first :]

        carry, stacked = lax.scan(
            step,
            places.vary_as(carry, (operands, taps)),
            (taps, scanned),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
            _split_transpose=params.get("_split_transpose", False),
        )
        return [*carry, *stacked]


def _bind(equation, operands) -> list:
    """Results of an equation as it stands."""
    primitive, first = equation.primitive, ()
    options = primitive.get_bind_params(equation.params)
    if isinstance(options, tuple):  # before JAX 0.10: functions apart
        first, options = options
    results = primitive.bind(*first, *operands, **options)
    return list(results) if primitive.multiple_results else [results]
