"""Squared norms of gradient matrices A^T G that are never kept.

Every function here is written for one example and k of its cotangents; A (what the
layer saw) is shared by all k. Two exact routes, the cheaper by count taken where the
shapes are known, at trace time:

- direct: A^T G, squared and summed;
- Gram: ||A^T G||^2 = <A A^T, G G^T>, where there are few positions; for a convolution
  A A^T comes from the Gram of its input's pixels, shifted and summed over the window,
  where that is cheaper still.

Batching over examples, and over more cotangents, is done by `by_example`.
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer, Shaped

from jalpose.pergrad import AnyArray, windows
from jalpose.pergrad.windows import Window

# An elementwise pass over a matrix costs about as much as this many multiplications
# of a matrix product of the same size.
_PASS = 8
# Fewer bytes than these are batched over examples even on a CPU: a loop over tiny
# products is slower than one batched product.
_SMALL_BYTES = 1_000_000


# (what the layer of one example saw, k cotangents of its output) -> squared norms.
Square = Callable[
    [Shaped[AnyArray, "..."], Float[AnyArray, "k ..."]], Float[Array, " k"]
]


def by_example(square: Square, *, loop: bool) -> Square:
    """Squared norms of one example, batched by `vmap` over examples and cotangents.

    A batch axis of the cotangents alone is more of them for the same example, and joins
    the k: that is how `vmap` over a pulled-back cotangent comes to share A. A batch
    axis of both arguments is examples: looped over (`loop`, a CPU's caches hold one
    example's blocks) or batched.
    """

    @custom_batching.custom_vmap
    def squares(a, g):
        return square(a, g)

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
        return jax.vmap(square)(a, g), True

    return squares


def of_matrix(
    a: Float[AnyArray, "g t d"],
    g: Float[AnyArray, "k g t p"],
    *,
    accumulate: DTypeLike,
) -> Float[Array, " k"]:
    """Squared norms of the gradients of a matrix W, for y = a W in each group.

    Args:
      a: what the layer saw.
      g: cotangents of y.
      accumulate: dtype of products and sums, and of the result.
    """
    _, positions, depth = a.shape
    num, width = g.shape[0], g.shape[-1]
    direct, gram, _ = costs(num, positions, depth, width)
    if gram < direct:
        seen = jnp.einsum("gtd,gsd->gts", a, a, preferred_element_type=accumulate)
        return _paired(seen, g, accumulate)
    found = windows.outer(a.swapaxes(0, 1), g.swapaxes(1, 2), accumulate)
    return _sum_squares(found)


def of_window(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    g: Float[AnyArray, "k n *out f"],
    *,
    blocked: bool,
    accumulate: DTypeLike,
) -> Float[Array, " k"]:
    """Squared norms of the gradients of a convolution's kernel.

    Args:
      window: its geometry.
      x: the input.
      g: cotangents of the output.
      blocked: see `windows.products`.
      accumulate: dtype of products and sums, and of the result.
    """
    if route(window, x.shape, g.shape) == "direct":
        found = windows.products(window, x, g, blocked=blocked, accumulate=accumulate)
        return _sum_squares(found)
    positions = g.shape[1:-1]
    padded = windows.pad_input(window, x)
    if route(window, x.shape, g.shape) == "shifted":
        seen = shifted_gram(window, padded, positions, accumulate)
    else:
        found = windows.patches(window, padded, positions[1:])
        groups = window.groups
        found = found.reshape(math.prod(positions), -1, groups, x.shape[-1] // groups)
        seen = jnp.einsum(
            "twgc,swgc->gts", found, found, preferred_element_type=accumulate
        )
    cots = g.reshape(len(g), math.prod(positions), window.groups, -1).swapaxes(1, 2)
    return _paired(seen, cots, accumulate)


def route(window: Window, x_shape: tuple[int, ...], g_shape: tuple[int, ...]) -> str:
    """Name of the cheapest exact way by count: `direct`, `gram` or `shifted`.

    Args:
      window: geometry.
      x_shape: (n, *size, c).
      g_shape: (k, n, *out, f).
    """
    num, images, *positions, features = g_shape
    taps, channels = math.prod(window.kernel), x_shape[-1]
    total = images * math.prod(positions)
    direct, gram, pairs = costs(
        num, total, taps * channels // window.groups, features // window.groups
    )
    pixels = math.prod(
        low + high + (size - 1) * dilation + 1
        for size, dilation, (low, high) in zip(
            x_shape[1:-1], window.input_dilation, window.padding, strict=True
        )
    )
    shifted = pairs + 2 * pixels**2 * channels // window.groups
    shifted += _PASS * (taps + 1) * total**2
    ways = {"direct": direct, "gram": gram}
    if taps > 1 and images == 1:
        ways["shifted"] = shifted
    return min(ways, key=ways.__getitem__)


def costs(num: int, positions: int, depth: int, width: int) -> tuple[int, int, int]:
    """Operations a group takes: (direct, Gram, the Gram's part for the cotangents).

    Args:
      num: k cotangents.
      positions: t.
      depth: d, of A.
      width: p, of G.
    """
    direct = 2 * num * positions * depth * width + _PASS * num * depth * width
    pairs = num * (2 * positions**2 * width + _PASS * positions**2)
    return direct, pairs + 2 * positions**2 * depth, pairs


def shifted_gram(
    window: Window,
    padded: Float[AnyArray, "1 *padded c"],
    positions: tuple[int, ...],
    accumulate: DTypeLike,
) -> Float[Array, "g t t"]:
    """Gram A A^T of one image's patches, from the Gram of its padded pixels.

    A A^T[t, t'] is the sum over the window's pixels o of X X^T[t + o, t' + o].

    Args:
      window: geometry.
      padded: of `windows.pad_input`.
      positions: (1, *out).
      accumulate: dtype of products and sums, and of the result.
    """
    _, *size, channels = padded.shape
    groups = window.groups
    pixels = padded.reshape(-1, groups, channels // groups)
    gram = jnp.einsum("tgc,sgc->gts", pixels, pixels, preferred_element_type=accumulate)
    gram = gram.reshape(groups, *size, *size)
    total = math.prod(positions)
    seen = jnp.zeros((groups, total, total), accumulate)
    for offset in itertools.product(*map(range, window.kernel)):
        starts = [o * d for o, d in zip(offset, window.kernel_dilation, strict=True)]
        limits = [
            start + (count - 1) * stride + 1
            for start, count, stride in zip(
                starts, positions[1:], window.strides, strict=True
            )
        ]
        part = lax.slice(
            gram,
            (0, *starts, *starts),
            (groups, *limits, *limits),
            (1, *window.strides, *window.strides),
        )
        seen += part.reshape(groups, total, total)
    return seen


def of_rows(
    indices: Integer[AnyArray, " t"],
    g: Float[AnyArray, "k t p"],
    *,
    accumulate: DTypeLike,
) -> Float[Array, " k"]:
    """Squared norms of the gradients of an embedding's table, for y = table[indices].

    The gradient of a row is the sum of the cotangents where it was taken.

    Args:
      indices: rows taken; negative where nothing was.
      g: cotangents of y.
      accumulate: dtype of products and sums, and of the result.
    """
    same = (indices[:, None] == indices[None]) & (indices >= 0)[:, None]
    return _paired(same[None].astype(accumulate), g[:, None], accumulate)


def per_position(
    energy: Float[AnyArray, "g t"],
    g: Float[AnyArray, "k g t p"],
    *,
    accumulate: DTypeLike,
) -> Float[Array, " k"]:
    """Sum over positions of |a_t|^2 |g_t|^2: Goodfellow (2015), a position at a time.

    Args:
      energy: |a_t|^2.
      g: cotangents.
      accumulate: dtype of the sums, and of the result.
    """
    lengths = jnp.sum(jnp.square(g.astype(accumulate)), axis=-1)
    return jnp.einsum("gt,kgt->k", energy.astype(accumulate), lengths)


def _paired(seen, g, accumulate):
    """Inner product of [g, t, t] with the Gram G G^T of each of [k, g, t, p]: [k]."""
    pairs = jnp.einsum("kgtp,kgsp->kgts", g, g, preferred_element_type=accumulate)
    return jnp.einsum("gts,kgts->k", seen, pairs, preferred_element_type=accumulate)


def _sum_squares(found):
    return jnp.sum(jnp.square(found), axis=tuple(range(1, found.ndim)))
