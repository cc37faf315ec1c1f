"""Where arrays live: a mesh of devices, the inside of a `shard_map`.

- With a mesh each of its devices works on its own examples, under `shard_map`.
- Under `jit`, inputs that live on a mesh are taken the same way without being told: XLA
  itself, left to split the gradients of convolutions, has been seen to get them wrong.
- What `jit` is told by `in_shardings` alone is seen when it is compiled: gradients that
  XLA would then split are refused, by an operation that does nothing else.
- Inside the user's own `shard_map` parameters that are the same everywhere are first
  made to vary, or JAX would add up the gradients of all devices.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    reshard,
)
from jaxtyping import PyTree, Shaped

from jalpose.pergrad import AnyArray


def vary_as(arrays: PyTree, others: PyTree) -> PyTree:
    """Arrays that vary over every axis of a `shard_map` that any of `others` does.

    Unchanged outside a `shard_map`, and inside one without `check_vma`.
    """
    wanted = frozenset[Any]().union(*map(_varying, jax.tree.leaves(others)))

    def vary(leaf):
        missing = tuple(sorted(wanted - _varying(leaf)))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, arrays) if wanted else arrays


def _varying(leaf) -> frozenset:
    aval: Any = jax.typeof(leaf)
    manual = getattr(aval, "manual_axis_type", None)
    return manual.varying if manual is not None else getattr(aval, "vma", frozenset())


def mesh_of(inputs: PyTree[Shaped[AnyArray, "b ..."]]) -> AbstractMesh | None:
    """The mesh of several devices that traced inputs live on, if they say.

    None too for arrays in hand, and inside a `shard_map`.
    """
    for leaf in jax.tree.leaves(inputs):
        if not isinstance(leaf, jax.core.Tracer):
            continue
        aval: Any = jax.typeof(leaf)
        mesh = getattr(aval.sharding, "mesh", None)
        manual = mesh is not None and AxisType.Manual in mesh.axis_types
        if mesh is not None and mesh.size > 1 and not manual:
            return mesh
    return None


def spread(
    fn: Callable[..., Any],
    mesh: Mesh | AbstractMesh,
    axes: tuple[str, ...],
    *,
    sums: bool = False,
) -> Callable[..., Any]:
    """Make a function (variables, arguments [b, ...]) -> [b, ...] one of a mesh.

    Args:
      fn: the function; variables are whole on each device.
      mesh: of devices.
      axes: names of the mesh's axes that share the examples; with none each device
        does all of them.
      sums: the function returns ([b, ...], sums over examples), and the latter are
        added up over the devices.
    """
    whole, part = PartitionSpec(), PartitionSpec(axes or None)

    def summed(variables, arguments):
        each, total = fn(variables, arguments)
        return each, lax.psum(total, axes) if axes else total

    mapped = jax.shard_map(
        summed if sums else fn,
        mesh=mesh,
        in_specs=(whole, part),
        out_specs=(part, whole) if sums else part,
        check_vma=False,
    )
    if AxisType.Explicit not in mesh.axis_types:
        return mapped

    def moved(*arguments):
        # Explicit axes are part of an array's type, which has to be what is expected.
        return mapped(
            *(
                jax.tree.map(lambda x, s=s: reshard(x, NamedSharding(mesh, s)), tree)
                for tree, s in zip(arguments, (whole, part), strict=True)
            )
        )

    return moved


def sharing(count: int, mesh: AbstractMesh) -> tuple[str, ...]:
    """Axes of a mesh that `count` examples split evenly over, the most devices."""
    names = tuple(mesh.axis_names)
    for axes in (names, names[:1]):
        size = 1
        for name in axes:
            size *= mesh.shape[name]
        if count % size == 0:
            return axes
    return ()


def unsplit(array: Shaped[AnyArray, "..."]) -> Shaped[AnyArray, "..."]:
    """The array; a program that XLA splits over devices by itself is not compiled.

    Raises:
      ValueError: when it is compiled.
    """
    return _UNSPLIT.bind(array)


def _lower_unsplit(context, array):
    around = context.module_context.axis_context
    # Of a `shard_map` there is none.
    if (getattr(around, "num_devices", None) or 1) > 1:
        raise ValueError(
            "per-example gradients are formed under a jit for "
            f"{around.num_devices} devices, whose compiler has been seen to get them "
            "wrong where it splits convolutions itself: give the mesh, "
            "squared_norms(..., mesh=mesh), so that each device works on its own "
            "examples"
        )
    return [array]


_UNSPLIT = core.Primitive("unsplit")
_UNSPLIT.def_impl(lambda array: array)
_UNSPLIT.def_abstract_eval(lambda array: array)
ad.deflinear(_UNSPLIT, lambda cotangent: [_UNSPLIT.bind(cotangent)])
batching.primitive_batchers[_UNSPLIT] = lambda arrays, axes: (
    _UNSPLIT.bind(*arrays),
    *axes,
)
mlir.register_lowering(_UNSPLIT, _lower_unsplit)
