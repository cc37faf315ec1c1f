"""Squares that neither cancel nor leave the range of their dtype.

A norm from Gram matrices, |A^T G|^2 = <A A^T, G G^T>, is a sum of terms of both signs:
where they cancel, rounding is all that is left. Three things keep it right:

- Positions are centred: with means a, g over the T positions and A', G' the rest,
  |A^T G|^2 = <A' A'^T, G' G'^T> + 2 T (A' a).(G' g) + T^2 |a|^2 |g|^2. Flat images, and
  cotangents that sum to zero (behind a normalisation), then cost nothing.
- The sum of the terms' absolute values comes along. An example whose norm is a small
  part of it is done again the direct way, A^T G itself, which rounds as autodiff does.
- Operands are scaled by powers of two to about one.
"""

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
_CANCELLED = 0.01

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


class Seen(NamedTuple):
    """What the Gram way needs of a side of the product: A of t positions, in g groups.

    Attributes:
      gram: A' A'^T, of the centred.
      along: A' a, along the mean over the positions.
      energy: |a|^2 of the mean.
      terms: sums of the absolute values that these were added up from, where they are
        sums with cancellation themselves; None: their own absolute values.
    """

    gram: Float[Array, "*k g t t"]
    along: Float[Array, "*k g t"]
    energy: Float[Array, "*k g"]
    terms: "Seen | None" = None


def seen(
    a: Float[AnyArray, "*k g t d"], dtype: DTypeLike, products: DTypeLike | None
) -> Seen:
    """Gram of centred rows, and what belongs to their mean.

    Args:
      a: rows.
      dtype: of sums, and of the result.
      products: rounded to it before they are multiplied; None: to `dtype`.
    """
    a = a.astype(dtype)
    mean = a.mean(axis=-2, keepdims=True)
    rest = (a - mean).astype(products or dtype)
    gram = jnp.einsum("...td,...sd->...ts", rest, rest, preferred_element_type=dtype)
    along = jnp.sum(rest.astype(dtype) * mean, axis=-1)
    return Seen(gram, along, jnp.sum(jnp.square(mean[..., 0, :]), axis=-1))


def paired(left: Seen, right: Seen) -> Doubted:
    """Squared norms |A^T G|^2, summed over groups, of A and each of k G.

    Args:
      left: of A, without an axis of k.
      right: of the k G.
    """
    count = left.gram.shape[-1]

    def total(left, right):
        quadratic = jnp.einsum("gts,kgts->k", left.gram, right.gram)
        cross = jnp.einsum("gt,kgt->k", left.along, right.along)
        means = jnp.einsum("g,kg->k", left.energy, right.energy)
        return quadratic + 2 * count * cross + count**2 * means

    def terms(side):
        gram, along, energy, terms = side
        return terms or Seen(jnp.abs(gram), jnp.abs(along), energy)

    norms, sizes = total(left, right), total(terms(left), terms(right))
    # Of NaN nothing is true.
    return Doubted(jnp.maximum(norms, 0), ~(norms >= _CANCELLED * sizes))


def scaled(square: Callable) -> Callable:
    """Make a square (a, g [k, ...]) -> [k] or Doubted keep to the range of its dtype.

    Both operands are divided by a power of two near their largest value, which rounds
    nothing, g for each k by its own; the result is brought back.
    """

    def within(a, g):
        a, of_a = _to_one(a, range(a.ndim))
        g, of_g = _to_one(g, range(1, g.ndim))
        found = square(a, g)
        exponent = of_a.reshape(-1) + of_g.reshape(-1)
        if isinstance(found, Doubted):
            return Doubted(_times_square(found.norms, exponent), found.doubtful)
        return _times_square(found, exponent)

    return within


def by_example(square: Callable, *, loop: bool, again: Square | None = None) -> Square:
    """Squared norms of one example, batched by `vmap` over examples and cotangents.

    A batch axis of the cotangents alone is more of them for the same example, and joins
    the k: that is how `vmap` over a pulled-back cotangent comes to share A. A batch
    axis of both arguments is examples: looped over (`loop`, a CPU's caches hold one
    example's blocks) or batched.

    Args:
      square: (a, g [k, ...]) -> [k], or Doubted.
      loop: see above.
      again: what the doubtful are done with, one at a time.
    """

    def examples(a, g):
        """[n, ...], [n, k, ...] -> [n, k]."""
        found = jax.vmap(square)(a, g)
        if not isinstance(found, Doubted):
            return found
        assert again is not None
        return _again(again, a, g, found)

    @custom_batching.custom_vmap
    def squares(a, g):
        return examples(a[None], g[None])[0]

    @squares.def_vmap
    def rule(axis_size, in_batched, a, g):
        a_batched, g_batched = in_batched
        if not a_batched:
            joined = g.reshape(axis_size * g.shape[1], *g.shape[2:])
            return squares(a, joined).reshape(axis_size, -1), True
        if not g_batched:
            g = jnp.broadcast_to(g, (axis_size, *g.shape))
        example_bytes = (a.size + g.size) * g.dtype.itemsize / axis_size
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
    num = g.shape[1]

    def one(arguments):
        index, norm, doubtful = arguments
        return lax.cond(
            doubtful,
            lambda: square(a[index // num], g[index // num, index % num][None])[0],
            lambda: norm,
        )

    def each():
        flat = (jnp.arange(found.norms.size), *(x.reshape(-1) for x in found))
        return lax.map(one, flat).reshape(found.norms.shape)

    return lax.cond(jnp.any(found.doubtful), each, lambda: found.norms)


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
