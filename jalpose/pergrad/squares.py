"""Squared norms of gradient matrices A^T G that are never kept.

Every function here is written for one example and k of its cotangents; A (what the
layer saw) is shared by all k. Two exact routes, the cheaper by count taken where the
shapes are known, at trace time:

- direct: A^T G, squared and summed;
- Gram: ||A^T G||^2 = <A A^T, G G^T>, where there are few positions; for a convolution
  A A^T comes from the Gram of its input's pixels, shifted and summed over the window,
  where that is cheaper still. What keeps these right in float32 is in `stable`.

Batching over examples, and over more cotangents, is done by `stable.by_example`.
"""

import itertools
import math

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from jalpose.pergrad import AnyArray, depthwise, stable, windows
from jalpose.pergrad.stable import Doubted
from jalpose.pergrad.windows import Window

# An elementwise pass over a matrix takes as long as this many operations of a product
# an entry, on a CPU with AVX-512 (scripts/RESULTS.md).
_PASS = 40
# A Gram way has to save this part: it is more to compile than the direct way.
_SAVING = 1 / 3


def of_matrix(
    a: Float[AnyArray, "g t d"],
    g: Float[AnyArray, "k g t p"],
    *,
    accumulate: DTypeLike,
) -> Float[Array, " k"]:
    """Squared norms of the gradients of a matrix W, for y = a W in each group: direct.

    Args:
      a: what the layer saw.
      g: cotangents of y.
      accumulate: dtype of products and sums, and of the result.
    """
    found = windows.outer(a.swapaxes(0, 1), g.swapaxes(1, 2), accumulate)
    return _sum_squares(found)


def of_matrix_by_gram(
    a: Float[AnyArray, "g t d"],
    g: Float[AnyArray, "k g t p"],
    *,
    accumulate: DTypeLike,
    products: DTypeLike | None = None,
) -> Doubted:
    """Squared norms of the gradients of a matrix W, for y = a W in each group: Gram.

    Args:
      a: what the layer saw.
      g: cotangents of y.
      accumulate: dtype of sums, and of the result.
      products: dtype of the operands of products; None: `accumulate`.
    """
    left = stable.gram(a, accumulate, products)
    return _paired(left, a, g, accumulate, products)


def of_window(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    g: Float[AnyArray, "k n *out f"],
    *,
    blocked: bool,
    accumulate: DTypeLike,
) -> Float[Array, " k"]:
    """Squared norms of the gradients of a convolution's kernel: direct.

    Args:
      window: its geometry.
      x: the input.
      g: cotangents of the output.
      blocked: work in parts that fit a CPU's cache, see `windows`.
      accumulate: dtype of products and sums, and of the result.
    """
    if blocked and window.groups == 1 and x.shape[-1] >= windows.WIDE:
        return windows.squared_norms(window, x, g, accumulate)
    if blocked and window.groups == x.shape[-1] == g.shape[-1] > 1:
        return _sum_squares(depthwise.products(window, x, g, accumulate))
    found = windows.products(window, x, g, blocked=blocked, accumulate=accumulate)
    return _sum_squares(found)


def of_window_by_gram(
    window: Window,
    x: Float[AnyArray, "n *size c"],
    g: Float[AnyArray, "k n *out f"],
    *,
    shifted: bool,
    accumulate: DTypeLike,
    products: DTypeLike | None = None,
) -> Doubted:
    """Squared norms of the gradients of a convolution's kernel: Gram.

    Args:
      window: its geometry.
      x: the input.
      g: cotangents of the output.
      shifted: take the Gram of the patches from that of the pixels; of one image.
      accumulate: dtype of sums, and of the result.
      products: dtype of the operands of products; None: `accumulate`.
    """
    positions, groups = g.shape[1:-1], window.groups
    total = math.prod(positions)
    padded = windows.pad_input(window, x)
    if shifted:
        left = shifted_gram(window, padded, positions, accumulate, products)
    else:
        found = windows.patches(window, padded, positions[1:])
        found = found.reshape(total, -1, groups, x.shape[-1] // groups)
        found = found.transpose(2, 0, 1, 3).reshape(groups, total, -1)
        left = stable.gram(found, accumulate, products)
    cots = g.reshape(len(g), total, groups, -1).swapaxes(1, 2)
    return _paired(left, x, cots, accumulate, products)


def _paired(left, a, g, accumulate, products) -> Doubted:
    right = stable.gram(g, accumulate, products)
    return stable.paired(left, right, stable.usable(a, g))


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
    patches = _PASS * total * taps * channels // window.groups
    ways = {"direct": (1 - _SAVING) * (direct + patches), "gram": gram + patches}
    if taps > 1 and images == 1:
        of_pixels = 2 * pixels**2 * channels // window.groups
        ways["shifted"] = pairs + of_pixels + _PASS * (taps + 1) * total**2
    return min(ways, key=ways.__getitem__)


def matrix_route(num: int, positions: int, depth: int, width: int) -> str:
    """Name of the cheaper exact way of a matrix product: `direct` or `gram`.

    Args:
      num: see `costs`, and so for the others.
      positions: t.
      depth: d, of A.
      width: p, of G.
    """
    direct, gram, _ = costs(num, positions, depth, width)
    return "gram" if gram < (1 - _SAVING) * direct else "direct"


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
    products: DTypeLike | None = None,
) -> Float[Array, "g t t"]:
    """Gram of one image's patches from the Gram of its padded pixels.

    With X X^T of the pixels, that of patches t and t' is the sum over the window's
    pixels o of X X^T[t + o, t' + o].

    Args:
      window: geometry.
      padded: of `windows.pad_input`.
      positions: (1, *out).
      accumulate: dtype of sums, and of the result.
      products: dtype of the operands of products; None: `accumulate`.
    """
    _, *size, channels = padded.shape
    groups, total = window.groups, math.prod(positions)
    pixels = padded.reshape(-1, groups, channels // groups).swapaxes(0, 1)
    gram = stable.gram(pixels, accumulate, products)
    gram = gram.reshape(groups, *size, *size)
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
    same = same.astype(accumulate)
    rows = jnp.einsum("ts,ksp->ktp", same, g, preferred_element_type=accumulate)
    # A row taken n times stands here n times.
    lengths = jnp.sum(jnp.square(rows), axis=-1)
    return lengths @ (1 / jnp.maximum(same.sum(axis=-1), 1))


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


def _sum_squares(found):
    return jnp.sum(jnp.square(found), axis=tuple(range(1, found.ndim)))
