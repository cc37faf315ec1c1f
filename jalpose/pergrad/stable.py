"""Squares that neither cancel nor leave the range of their dtype.

A norm from Gram matrices, |A^T G|^2 = <A A^T, G G^T>, is a sum of terms of both signs:
where they cancel, rounding is all that is left, and where A or G is large or small, the
Gram leaves the range of its dtype before the norm does. The sum of the terms' absolute
values and the largest entries of A and G tell. An example of which that is so is done
again the direct way, A^T G itself, which rounds as autodiff does: flat images, and
cotangents that sum to zero (behind a normalisation), are the usual ones.

Where there is one position nothing can cancel, and operands are scaled by powers of
two to about one.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from jalpose.pergrad import AnyArray, dtypes

# Fewer bytes than these are batched over examples even on a CPU: a loop over tiny
# products is slower than one batched product.
_SMALL_BYTES = 1_000_000
# Below this part of its terms a sum of float32 has lost two of its seven digits.
_CANCELLED = 0.02
# Largest entries whose squares, and those of far smaller ones beside them, have all
# their digits in float32.
_USABLE = (1e-14, 1e15)

# (what the layer of one example saw, k cotangents of its output) -> squared norms.
Square = Callable[
    [Shaped[AnyArray, "..."], Float[AnyArray, "k ..."]], Float[Array, " k"]
]


class Doubted(NamedTuple):
    """Squared norms, and which of them are not to be trusted.

    Attributes:
      norms: of k cotangents.
      doubtful: whether terms cancelled, or there was anything but finite numbers.
    """

    norms: Float[Array, " k"]
    doubtful: Bool[Array, " k"]


def gram(
    a: Float[AnyArray, "*k g t d"], dtype: DTypeLike, products: DTypeLike | None
) -> Float[Array, "*k g t t"]:
    """Gram of rows.

    Args:
      a: rows.
      dtype: of sums, and of the result.
      products: rounded to it before they are multiplied; None: to `dtype`.
    """
    a = a.astype(products or dtype)
    return jnp.einsum("...td,...sd->...ts", a, a, preferred_element_type=dtype)


def usable(a: Float[AnyArray, "..."], g: Float[AnyArray, "k ..."]) -> Bool[Array, " k"]:
    """Whether the squares of the entries of a and of each g keep to float32's range.

    Zeros alone do.
    """
    least, most = _USABLE

    def within(largest):
        return (largest == 0) | ((largest > least) & (largest < most))

    largest = jnp.max(jnp.abs(g), axis=tuple(range(1, g.ndim)))
    return within(jnp.max(jnp.abs(a))) & within(largest)


def paired(
    left: Float[AnyArray, "g t t"],
    right: Float[AnyArray, "k g t t"],
    in_range: Bool[AnyArray, " k"],
) -> Doubted:
    """Squared norms |A^T G|^2, summed over groups, of A and each of k G.

    Args:
      left: Gram of A.
      right: of the k G.
      in_range: of `usable`, of A and each G.
    """
    terms = left[None] * right
    norms = jnp.sum(terms, axis=(1, 2, 3))
    sizes = jnp.sum(jnp.abs(terms), axis=(1, 2, 3))
    found = checked(norms, sizes)
    doubtful = jnp.logical_or(found.doubtful, jnp.logical_not(in_range))
    return Doubted(found.norms, doubtful)


def checked(norms: Float[AnyArray, " k"], sizes: Float[AnyArray, " k"]) -> Doubted:
    """Squared norms that are sums of terms, of the sums of their absolute values."""
    # Of NaN nothing is true.
    trusted = jnp.asarray(norms >= _CANCELLED * sizes)
    return Doubted(jnp.maximum(norms, 0), ~trusted)


def scaled(square: Square) -> Square:
    """Make a square keep to the range of its dtype.

    Both operands are divided by a power of two near their largest value, which rounds
    nothing, g for each k by its own; the result is brought back.
    """

    def within(a, g):
        a, of_a = _to_one(a, range(a.ndim))
        g, of_g = _to_one(g, range(1, g.ndim))
        return _times_square(square(a, g), of_a.reshape(-1) + of_g.reshape(-1))

    return within


def by_example(
    square: Callable, *, loop: bool, again: Square | None = None, formed: int = 0
) -> Square:
    """Squared norms of one example, batched by `vmap` over examples and cotangents.

    A batch axis of the cotangents alone is more of them for the same example, and joins
    the k: that is how `vmap` over a pulled-back cotangent comes to share A. A batch
    axis of both arguments is examples: looped over (`loop`, a CPU's caches hold one
    example's blocks) or batched.

    Args:
      square: (a, g [k, ...]) -> [k], or Doubted; both may be trees.
      loop: see above.
      again: what the doubtful are done with, one at a time.
      formed: bytes of what is formed for an example, beside its arguments.
    """

    @jax.jit  # to be traced and lowered once for all layers of this square
    def examples(a, g):
        """[n, ...], [n, k, ...] -> [n, k]."""
        found = jax.vmap(square)(a, g)
        if not isinstance(found, Doubted):
            return found
        assert again is not None
        return _again(again, a, g, found)

    @custom_batching.custom_vmap
    def squares(a, g):
        return examples(*jax.tree.map(lambda x: x[None], (a, g)))[0]

    @squares.def_vmap
    def rule(axis_size, in_batched, a, g):
        a_batched = any(jax.tree.leaves(in_batched[0]))
        all_batched = functools.partial(_all_batched, axis_size)
        g = jax.tree.map(all_batched, g, in_batched[1])
        if not a_batched:
            joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), g)
            return squares(a, joined).reshape(axis_size, -1), True
        a = jax.tree.map(all_batched, a, in_batched[0])
        dtype = jnp.result_type(*jax.tree.leaves(g))
        entries = sum(x.size for x in jax.tree.leaves((a, g)))
        example_bytes = entries * dtype.itemsize / axis_size + formed
        if loop and example_bytes > _SMALL_BYTES:
            return lax.map(lambda pair: squares(*pair), (a, g)), True
        return examples(a, g), True

    # What has its own `vmap` has no derivative: that of the direct way is taken, which
    # has no `cond` in it.
    differentiable = jax.custom_jvp(squares)

    @differentiable.defjvp
    def derivative(primals, tangents):
        return squares(*primals), jax.jvp(again or square, primals, tangents)[1]

    return differentiable


def _again(square: Square, a, g, found: Doubted):
    """Norms [n, k] with the doubtful computed by `square`; no work where none is."""
    num = found.norms.shape[1]
    if found.norms.size == 1:
        # In a loop XLA would see that it is the same each time, and do it beforehand.
        def only():
            return square(*jax.tree.map(lambda x: x[0], (a, g)))[None]

        return lax.cond(found.doubtful[0, 0], only, lambda: found.norms)

    def one(state):
        norms, left = state
        index = jnp.argmax(left)
        example = jax.tree.map(lambda x: x[index // num], a)
        cotangent = jax.tree.map(lambda x: x[index // num, index % num][None], g)
        norm = square(example, cotangent)[0]
        return norms.at[index].set(norm), left.at[index].set(False)

    flat = tuple(x.reshape(-1) for x in found)
    norms, _ = lax.while_loop(lambda state: jnp.any(state[1]), one, flat)
    return norms.reshape(found.norms.shape)


def _all_batched(axis_size, x, batched):
    return x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))


def _to_one(x, axes):
    """Array over a power of two near its largest absolute value, and the exponent."""
    if not dtypes.has_gradient(x):
        x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=tuple(axes), keepdims=True)
    usable = jnp.isfinite(largest) & (largest > 0)
    largest = jnp.where(usable, largest, 1).astype(dtypes.wide(x))
    # Read from the bits, where there is nothing to differentiate.
    ints, digits, bias = _layout(largest.dtype)
    exponent = (lax.bitcast_convert_type(largest, ints) >> digits) - bias
    # Both the power and its inverse have to be numbers of the dtype.
    least = int(jnp.finfo(x.dtype).minexp)
    exponent = jnp.clip(exponent, least, -least)
    return x * _power(-exponent, x.dtype), exponent


def _times_square(norms, exponent):
    """The norms times 4 to the exponent, out of range only if the result is."""
    half = exponent // 2
    for part in (half, exponent - half) * 2:
        norms = norms * _power(part, norms.dtype)
    return norms


def _power(exponent, dtype):
    """Two to the exponent, which has to be in the dtype's range."""
    wide = jnp.promote_types(jnp.float32, dtype)
    ints, digits, bias = _layout(wide)
    bits = (exponent.astype(ints) + bias) << digits
    return lax.bitcast_convert_type(bits, wide).astype(dtype)


def _layout(dtype):
    """Integers as wide as a float, bits of its fraction, bias of its exponent."""
    if dtype == jnp.float64:
        return jnp.int64, 52, 1023
    return jnp.int32, 23, 127
