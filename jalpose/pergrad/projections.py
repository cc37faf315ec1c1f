"""Random projections of gradients whose inner products are unbiased.

A gradient of n entries becomes `size` sums, its bins, of entries with random signs: a
count sketch (Charikar, Chen and Farach-Colton, ICALP 2002). Its inner products have the
right expectation, and a standard deviation of about |x||y| sqrt(2 / size).

A larger matrix takes a sign for each row and each column instead, and for an entry its
row's bin plus its column's, modulo `size`: a tensor sketch (Pham and Pagh, KDD 2013).
That of an outer product a g^T is then the circular convolution of count sketches of a
and g, and so the sketch of a layer's gradient sum_t a_t g_t^T can be had without the
gradient: both sides are projected, multiplied by their Fourier transforms, and summed
over the positions t. Where there are many positions the gradient is formed and its
entries are summed up, which is the same projection; the cheaper by count is taken. Of
rank-one gradients the standard deviation is up to twice as large.

Where we differ: the bins are fixed, entry i in bin (i + i // size) mod size, so that
all is sums of rows; drawn are the signs and, for each tensor, one rotation of its bins.
Unbiased it is by the signs alone. What is drawn depends on the key and the shapes of
the parameters, never on the examples.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8, Integer, PRNGKeyArray, Shaped

from jalpose.pergrad import AnyArray, dtypes, windows
from jalpose.pergrad.windows import Window

# Up to as many entries are cheaper to sign and sum up one by one, and estimate better.
_ENTRIES = 2**15
# Multiplications that cost as much as an entry signed and added to its bin, and as one
# of the size * log2(size) steps of a Fourier transform (measured on a CPU).
_BINNING, _FOURIER = 50, 40
# Fewer bytes are batched over examples even on a CPU, see `stable`.
_SMALL_BYTES = 1_000_000


class Shape(NamedTuple):
    """How a tensor's gradient is looked at: a matrix, or with one column a vector.

    Attributes:
      depth: d, rows: what a layer sees at a position.
      width: p, columns: what it returns there, in all groups.
    """

    depth: int
    width: int

    @property
    def by_entries(self) -> bool:
        """Whether each entry has a sign of its own."""
        return self.width == 1 or self.depth * self.width <= _ENTRIES


class Drawn(NamedTuple):
    """Signs of a tensor and the rotation of its bins; without entries where unused."""

    entries: Int8[Array, " p*d"]
    depth: Int8[Array, " d"]
    width: Int8[Array, " p"]
    rotation: Integer[Array, ""]


def draw(
    key: PRNGKeyArray,
    shapes: Sequence[Shape],
    size: int,
    slices: Sequence[int] | None = None,
) -> list[Drawn]:
    """What the projections of all tensors are made of.

    Of a tensor of several slices all have an axis of them, and signs of their own.

    All signs are drawn at once: a draw for each tensor takes long to compile.

    Args:
      key: of the whole projection.
      shapes: of the matrices that the tensors' gradients are, or those of slices.
      size: of the sketch.
      slices: of each tensor; None: one.
    """
    of_signs, of_rotations = jax.random.split(key)
    slices = [1] * len(shapes) if slices is None else slices
    counts = [
        (several * shape.depth * shape.width, 0, 0)
        if shape.by_entries
        else (0, several * shape.depth, several * shape.width)
        for shape, several in zip(shapes, slices, strict=True)
    ]
    signs = _signs(of_signs, sum(map(sum, counts)))
    rotations = jax.random.randint(of_rotations, (sum(slices),), 0, size)
    ends = list(itertools.accumulate(itertools.chain.from_iterable(counts)))
    parts = jnp.split(signs, ends[:-1])
    found, first = [], 0
    for number, several in enumerate(slices):
        mine = [
            *(part.reshape(several, -1) for part in parts[3 * number : 3 * number + 3]),
            rotations[first : first + several],
        ]
        first += several
        found.append(Drawn._make(mine if several > 1 else (part[0] for part in mine)))
    return found


def shape_of(array: Shaped[AnyArray | jax.ShapeDtypeStruct, "..."]) -> Shape:
    """How the gradient of a tensor is looked at that no rule is known for."""
    real = array.size if dtypes.is_real(array) else 2 * array.size
    width = array.shape[-1] if array.ndim > 1 and array.size else 1
    return Shape(real // width, width)


def of_gradient(
    drawn: Drawn, size: int, gradient: Shaped[AnyArray, "..."]
) -> Float[Array, " size"]:
    """Sketch of a gradient in hand, in at least float32.

    Of complex numbers the real and the imaginary parts are entries each.

    Args:
      drawn: of the tensor, for its `shape_of`.
      size: of the sketch.
      gradient: floating or complex.
    """
    shape, wide = shape_of(gradient), dtypes.wide(gradient)
    if not dtypes.is_real(gradient):
        gradient = jnp.stack([gradient.real, gradient.imag])
    matrix = gradient.astype(wide).reshape(shape.depth, shape.width)
    return _of_formed(drawn, size, matrix.T[None])[0]


def of_matrix(
    drawn: Drawn,
    size: int,
    a: Float[AnyArray, "g t d"],
    g: Float[AnyArray, "k g t p"],
    *,
    accumulate: DTypeLike,
) -> Float[Array, "k size"]:
    """Sketches of the gradients of a matrix W, for y = a W in each group.

    Args:
      drawn: of the tensor, for a `Shape` of d and g p.
      size: of the sketch.
      a: what the layer saw.
      g: cotangents of y.
      accumulate: dtype of products and sums, and of the result.
    """
    groups, positions, depth = a.shape
    shape = Shape(depth, groups * g.shape[-1])
    if not _by_sides(shape, groups, positions, len(g), size):
        found = windows.outer(a.swapaxes(0, 1), g.swapaxes(1, 2), accumulate)
        return _of_formed(drawn, size, found.reshape(len(g), shape.width, depth))
    seen = _transformed(drawn.depth, size, a[0].astype(accumulate))
    cots = _transformed(drawn.width, size, g[:, 0].astype(accumulate))
    return _back(drawn, size, jnp.einsum("tf,ktf->kf", seen, cots))


def of_window(
    drawn: Drawn,
    size: int,
    window: Window,
    x: Float[AnyArray, "n *size c"],
    g: Float[AnyArray, "k n *out f"],
    *,
    blocked: bool,
    accumulate: DTypeLike,
) -> Float[Array, "k size"]:
    """Sketches of the gradients of a convolution's kernel.

    Args:
      drawn: of the tensor, for a `Shape` of the window's pixels and f.
      size: of the sketch.
      window: its geometry.
      x: the input.
      g: cotangents of the output.
      blocked: see `windows.products`.
      accumulate: dtype of products and sums, and of the result.
    """
    num, *where, features = g.shape
    depth = math.prod(window.kernel) * x.shape[-1] // window.groups
    shape, positions = Shape(depth, features), math.prod(where)
    if not _by_sides(shape, window.groups, positions, num, size):
        found = windows.products(window, x, g, blocked=blocked, accumulate=accumulate)
        return _of_formed(drawn, size, found.reshape(num, features, depth))

    def product(padded, cots):
        found = windows.patches(window, padded, cots.shape[2:-1])
        found = found.reshape(-1, depth).astype(accumulate)
        seen = _transformed(drawn.depth, size, found)
        cots = cots.reshape(num, -1, features).astype(accumulate)
        cots = _transformed(drawn.width, size, cots)
        return jnp.einsum("tf,ktf->kf", seen, cots)

    bytes_a_position = (depth + 2 * size) * x.dtype.itemsize
    rows = bytes_a_position if blocked else 0
    return _back(drawn, size, windows.over_blocks(window, x, g, product, rows))


def of_rows(
    drawn: Drawn,
    size: int,
    indices: Integer[AnyArray, " t"],
    g: Float[AnyArray, "k t p"],
    *,
    accumulate: DTypeLike,
) -> Float[Array, "k size"]:
    """Sketches of the gradients of an embedding's table, for y = table[indices].

    Args:
      drawn: of the tensor, for a `Shape` of the table.
      size: of the sketch.
      indices: rows taken; negative where nothing was.
      g: cotangents of y, zeros there.
      accumulate: dtype of sums, and of the result.
    """
    width = g.shape[-1]
    g, rows = g.astype(accumulate), jnp.maximum(indices, 0)
    if drawn.entries.size:
        table = jnp.arange(drawn.entries.size // width)
        taken = (indices[:, None] == table[None]).astype(accumulate)
        return _of_formed(drawn, size, jnp.einsum("td,ktp->kpd", taken, g))
    cots = fold(_signed(drawn.width, g), size)
    bins = (rows + rows // size) % size
    # The bins of a row's entries are those of the columns, moved on by its own.
    places = (jnp.arange(size)[None] - bins[:, None]) % size
    moved = jnp.take_along_axis(cots, places[None], axis=-1)
    signs = drawn.depth[rows].astype(accumulate)
    found = jnp.einsum("t,ktv->kv", signs, moved)
    return jnp.roll(found, drawn.rotation, axis=-1)


def fold(x: Float[Array, "*k n"], size: int) -> Float[Array, "*k size"]:
    """Sums of the entries of each bin: entry i falls in (i + i // size) mod size."""
    *lead, count = x.shape
    rows = max(1, -(-count // size))
    x = _padded(x, rows * size).reshape(*lead, rows, size)
    if rows == 1:
        return x[..., 0, :]
    # Rows a place longer are rotated by one each once they are cut up anew.
    x = _padded(x, size + 1).reshape(*lead, rows * (size + 1))
    rows = -(-x.shape[-1] // size)
    return _padded(x, rows * size).reshape(*lead, rows, size).sum(axis=-2)


def by_example(project: Callable, *, loop: bool) -> Callable:
    """Sketches of one example, batched by `vmap` over examples and cotangents.

    As `stable.by_example` does it for squares: a batch axis of the cotangents alone is
    more of them for the same example; one of both arguments is examples, looped over
    (`loop`) where one has more than a few bytes, else batched.

    Args:
      project: (drawn, size, a, g [k, ...]) -> [k, size].
      loop: see above.

    Returns:
      The same, batched.
    """

    def sized(drawn, size, a, g):
        return _by_example(functools.partial(_sized, project, size), loop)(drawn, a, g)

    return sized


def _sized(project, size, drawn, a, g):
    return project(drawn, size, a, g)


def _by_example(project, loop):
    @custom_batching.custom_vmap
    def projected(drawn, a, g):
        return project(drawn, a, g)

    @projected.def_vmap
    def rule(axis_size, in_batched, drawn, a, g):
        of_drawn, a_batched, g_batched = in_batched
        several = any(jax.tree.leaves(of_drawn))  # of several keys
        if not several and not a_batched:
            joined = g.reshape(axis_size * g.shape[1], *g.shape[2:])
            found = projected(drawn, a, joined)
            return found.reshape(axis_size, g.shape[1], *found.shape[1:]), True
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        example_bytes = (a.size + g.size) * g.dtype.itemsize / axis_size
        if several or not (loop and example_bytes > _SMALL_BYTES):
            return jax.vmap(project, axes)(drawn, a, g), True
        if not g_batched:
            g = jnp.broadcast_to(g, (axis_size, *g.shape))
        return lax.map(lambda pair: projected(drawn, *pair), (a, g)), True

    differentiable = jax.custom_jvp(projected)

    @differentiable.defjvp
    def derivative(primals, tangents):
        return projected(*primals), jax.jvp(project, primals, tangents)[1]

    return differentiable


def _by_sides(shape, groups, positions, num, size) -> bool:
    """Whether the sides are projected, and not the gradient that they make up."""
    if shape.by_entries or groups > 1:
        return False
    entries = shape.depth * shape.width
    formed = num * (2 * positions + _BINNING) * entries
    transforms = positions + num * (positions + 1)
    steps = size * max(1, math.ceil(math.log2(size)))
    return _FOURIER * transforms * steps < formed


def _of_formed(drawn, size, gradients):
    """Sketches [k, size] of gradients [k, p, d]."""
    num = len(gradients)
    if drawn.entries.size:
        flat = _signed(drawn.entries, gradients.reshape(num, -1))
        # Or the signs would be looked up again for each way the bins are cut.
        found = fold(lax.optimization_barrier(flat), size)
    else:
        signed = _signed(drawn.depth, gradients)
        columns = fold(lax.optimization_barrier(signed), size).swapaxes(1, 2)
        columns = _signed(drawn.width, columns).swapaxes(1, 2)
        # Column j is moved on by its own bin: as rows of `size` are by `fold`.
        found = fold(_in_turn(columns, size), size)
    return jnp.roll(found, drawn.rotation, axis=-1)


def _in_turn(columns, size):
    """Columns' bins [k, p, size] one after the other, those of one bin summed."""
    num, width, _ = columns.shape
    if width > size:
        columns = fold(columns.swapaxes(1, 2), size).swapaxes(1, 2)
    return columns.reshape(num, -1)


def _transformed(signs, size, x):
    """Fourier transforms of the count sketches of rows [..., n]."""
    return jnp.fft.rfft(fold(lax.optimization_barrier(_signed(signs, x)), size))


def _back(drawn, size, transformed):
    found = jnp.fft.irfft(transformed, size)
    return jnp.roll(found, drawn.rotation, axis=-1)


def _signed(signs, x):
    """Entries along the last axis with their signs."""
    return x * signs.astype(x.dtype).reshape(*[1] * (x.ndim - 1), -1)


def _signs(key, count):
    """As many random signs, from a bit each."""
    words = jax.random.bits(key, (-(-count // 32),), jnp.uint32)
    bits = (words[:, None] >> jnp.arange(32, dtype=jnp.uint32)[None]) & 1
    return (1 - 2 * bits.astype(jnp.int8)).reshape(-1)[:count]


def _padded(x, count):
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count - x.shape[-1])])
