"""Squared norms of gradient matrices A^T G that are never kept.

Every function here is written for one example and K of its cotangents; A (what the
layer saw) is shared by all K. Two exact routes, the cheaper by count taken where the
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

from jalpose.pergrad import windows
from jalpose.pergrad.windows import Window

# An elementwise pass over a matrix costs about as much as this many multiplications
# of a matrix product of the same size.
_PASS = 8
# Fewer bytes than these are batched over examples even on a CPU: a loop over tiny
# products is slower than one batched product.
_SMALL_BYTES = 1_000_000


def by_example(square: Callable, *, loop: bool) -> Callable:
    """Batch `square(a, g [K, ...]) -> [K]` over examples and over cotangents.

    A batch axis of `g` alone is more cotangents of the same example, and joins the K:
    that is how `vmap` over a pulled-back cotangent comes to share A. A batch axis of
    both is examples: looped over (`loop`, a CPU's caches hold one example's blocks)
    or batched.
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


def of_matrix(a, g, *, accumulate):
    """Squared norms for y = a W.

    Args:
      a: [groups, T, d].
      g: [K, groups, T, p].
      accumulate: dtype of products and sums.

    Returns:
      [K].
    """
    _, positions, depth = a.shape
    num, width = g.shape[0], g.shape[-1]
    direct, gram, _ = costs(num, positions, depth, width)
    options = {"preferred_element_type": accumulate}
    if gram < direct:
        seen = jnp.einsum("gtd,gsd->gts", a, a, **options)
        return _paired(seen, g, accumulate)
    found = windows.outer(a.swapaxes(0, 1), g.swapaxes(1, 2), accumulate)
    return _sum_squares(found)


def of_window(window: Window, x, g, *, blocked: bool, accumulate):
    """Squared norms for a convolution.

    Args:
      window: its geometry.
      x: [N, *S, C], the input.
      g: [K, N, *O, D].
      blocked: see `windows.products`.
      accumulate: dtype of products and sums.

    Returns:
      [K].
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
            "tkgc,skgc->gts", found, found, preferred_element_type=accumulate
        )
    cots = g.reshape(len(g), math.prod(positions), window.groups, -1).swapaxes(1, 2)
    return _paired(seen, cots, accumulate)


def route(window: Window, x_shape, g_shape) -> str:
    """`direct`, `gram` or `shifted`: the cheapest exact way by count.

    Args:
      window: geometry.
      x_shape: (N, *S, C).
      g_shape: (K, N, *O, D).
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
    """Operations a group: (direct, Gram, the Gram's part for the cotangents).

    Args:
      num: K cotangents.
      positions: T.
      depth: d, of A.
      width: p, of G.
    """
    direct = 2 * num * positions * depth * width + _PASS * num * depth * width
    pairs = num * (2 * positions**2 * width + _PASS * positions**2)
    return direct, pairs + 2 * positions**2 * depth, pairs


def shifted_gram(window: Window, padded, positions, accumulate):
    """A A^T [groups, T, T] from the Gram of the padded pixels, for one image.

    A A^T[t, t'] is the sum over the window's pixels o of X X^T[t + o, t' + o].
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


def of_rows(indices, g, *, accumulate):
    """Squared norms for y = table[indices], an embedding.

    The gradient of a row is the sum of the cotangents where it was taken.

    Args:
      indices: int [T]; negative where nothing was taken.
      g: [K, T, p].
      accumulate: dtype of products and sums.

    Returns:
      [K].
    """
    same = (indices[:, None] == indices[None]) & (indices >= 0)[:, None]
    return _paired(same[None].astype(accumulate), g[:, None], accumulate)


def per_position(energy, g, *, accumulate):
    """Sum over positions of |a_t|^2 |g_t|^2: Goodfellow (2015), a position at a time.

    Args:
      energy: [groups, T], |a_t|^2.
      g: [K, groups, T, p].
      accumulate: dtype of the sums.

    Returns:
      [K].
    """
    lengths = jnp.sum(jnp.square(g.astype(accumulate)), axis=-1)
    return jnp.einsum("gt,kgt->k", energy.astype(accumulate), lengths)


def _paired(seen, g, accumulate):
    """<seen, G G^T> for [g, T, T] and [K, g, T, p]: [K]."""
    pairs = jnp.einsum("kgtp,kgsp->kgts", g, g, preferred_element_type=accumulate)
    return jnp.einsum("gts,kgts->k", seen, pairs, preferred_element_type=accumulate)


def _sum_squares(found):
    return jnp.sum(jnp.square(found), axis=tuple(range(1, found.ndim)))
