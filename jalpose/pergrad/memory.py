"""How many gradients fit on a device at once, by the compiler's account."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core
from jaxtyping import PyTree, Shaped

from jalpose.pergrad import AnyArray

# Of what is free on the host: the rest is for everything else there.
_HOST_SHARE = 0.5
# Of a device's limit: its allocator fragments.
_DEVICE_SHARE = 0.9
# More candidates of one example at once make nothing faster on a CPU, where work is in
# blocks anyway and caches are what is scarce (`scripts/bench_pergrad.py`, one image at
# a time against all at once in scripts/RESULTS.md).
CPU_MICROBATCH = 5
# Of all that a forward pass computes, for the examples worked on at once on a CPU: more
# leave its caches and are slower, fewer leave its cores waiting (the same script).
_CACHED_BYTES = 32_000_000


def worthwhile(
    apply_fn: Callable[..., Any],
    variables: Mapping[str, PyTree],
    inputs: PyTree[Shaped[AnyArray | jax.ShapeDtypeStruct, "b ..."]],
    num: int,
) -> int:
    """How many gradients are worth taking at once; all there are but on a CPU.

    Args:
      apply_fn: (variables, inputs [b, ...]) -> tree of arrays [b, ...].
      variables: of which, as of the inputs, shapes and dtypes are enough.
      inputs: the batch.
      num: gradients of an example.
    """
    count = jax.tree.leaves(inputs)[0].shape[0]
    if jax.default_backend() != "cpu" or count * num == 1:
        return count * num

    def one(leaf):
        return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)

    def same(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    shapes = jax.tree.map(same, variables), jax.tree.map(one, inputs)
    closed = jax.make_jaxpr(apply_fn)(*shapes)
    fitting = _CACHED_BYTES // max(1, computed_bytes(closed.jaxpr))
    if fitting >= num:
        return num * _evenly(count, fitting // num)
    return _evenly(num, max(fitting, CPU_MICROBATCH))


def _evenly(count: int, most: int) -> int:
    """At most `most` of `count` at once, in equal parts if that is not far less."""
    if most >= count:
        return count
    # A rest would be compiled as a program of its own.
    even = max(size for size in range(1, max(1, most) + 1) if count % size == 0)
    return even if 2 * even > most else most


def computed_bytes(jaxpr: core.Jaxpr) -> int:
    """Bytes of all results of a jaxpr's operations, and of those inside them."""
    total = 0
    for equation in jaxpr.eqns:
        inside = list[core.Jaxpr]()
        for inner in jax.tree.leaves(list(equation.params.values())):
            if isinstance(inner, core.ClosedJaxpr):
                inside.append(inner.jaxpr)
            elif isinstance(inner, core.Jaxpr):
                inside.append(inner)
        total += equation.params.get("length", 1) * sum(map(computed_bytes, inside))
        if not inside:
            avals: list[Any] = [variable.aval for variable in equation.outvars]
            arrays = [aval for aval in avals if hasattr(aval, "dtype")]
            total += sum(array.size * array.dtype.itemsize for array in arrays)
    return total


def compiled_bytes(compiled: Any) -> int:
    """Peak memory of a compiled program on one device, as the compiler has it.

    Arguments + outputs + temporaries - what is aliased; 0 where a backend does not
    say.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def limit_bytes(device: Any = None) -> int:
    """Memory one device may take: its reported limit, else half of what is free."""
    device = device or jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(_DEVICE_SHARE * stats["bytes_limit"])
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(_HOST_SHARE * free / len(jax.local_devices(backend=device.platform)))


def largest_fitting(
    compile_at: Callable[[int], Any], most: int, limit: int
) -> tuple[Any, int]:
    """Compile with the largest microbatch, up to `most`, that keeps within `limit`.

    `most` is tried first. Where it does not fit, the peaks of one and two are taken
    for a line, and what the line allows is compiled, less until it fits.

    Args:
      compile_at: microbatch -> compiled program.
      most: at least 1.
      limit: bytes.

    Returns:
      (compiled, microbatch).

    Raises:
      MemoryError: one gradient at a time takes more than `limit`.
    """
    compiled = compile_at(most)
    if compiled_bytes(compiled) <= limit:
        return compiled, most
    single = compile_at(1)
    base = compiled_bytes(single)
    if base > limit:
        raise MemoryError(
            f"one gradient at a time needs {base / 2**20:.0f} MiB by the compiler's "
            f"account, the limit is {limit / 2**20:.0f} MiB: a smaller block, image "
            "or network, or a higher limit"
        )
    if most <= 2:
        return single, 1
    step = max(1, compiled_bytes(compile_at(2)) - base)
    size = min(most - 1, 1 + (limit - base) // step)
    while size > 1:
        compiled = compile_at(size)
        if compiled_bytes(compiled) <= limit:
            return compiled, size
        size = size * 3 // 4
    return single, 1
