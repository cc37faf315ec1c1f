"""The rule of convolutions, of any geometry."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jalpose.pergrad import depthwise, dtypes, projections, squares, windows
from jalpose.pergrad.rule import Rule, batched, binding, of_several, rounded, route_of
from jalpose.pergrad.windows import Window


def convolution(operation, weight, settings) -> Rule | None:
    """The rule of a `conv_general_dilated` whose kernel is the parameter."""
    params = operation.params
    if weight != 1 or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]
    kernel = operation.seen[1]
    window = Window(
        kernel=tuple(kernel.shape[axis] for axis in numbers.rhs_spec[2:]),
        strides=tuple(params["window_strides"]),
        padding=tuple(map(tuple, params["padding"])),
        input_dilation=tuple(params["lhs_dilation"]),
        kernel_dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
    )

    seen, made = operation.seen[0].shape, operation.made[0].shape
    sizes = [
        (shape[spec[0]], *(shape[axis] for axis in spec[2:]), shape[spec[1]])
        for shape, spec in ((seen, numbers.lhs_spec), (made, numbers.out_spec))
    ]
    positions = math.prod(sizes[1][:-1])
    by_position = settings.approximate or positions == 1

    def last(x, spec):
        """Array [n, *size, c] of one whose axes stand as `spec` says."""
        order = (spec[0], *spec[2:], spec[1])
        return x.transpose(order)

    def canonical(x, g):
        x, g = rounded(settings, x, g)
        cots = jax.vmap(lambda cot: last(cot, numbers.out_spec))(g)
        return last(x, numbers.lhs_spec), cots

    def rows(x, g):
        """A 1x1 convolution as a product of matrices."""
        return x.reshape(1, -1, x.shape[-1]), g.reshape(len(g), 1, -1, g.shape[-1])

    def square(x, g):
        wide = dtypes.wide(x, g)
        x, g = canonical(x, g)
        if by_position:
            energy = _window_energy(window, x.astype(wide))
            cots = g.reshape(len(g), -1, window.groups, g.shape[-1] // window.groups)
            return squares.per_position(energy, cots.swapaxes(1, 2), accumulate=wide)
        if window.pointwise:
            return squares.of_matrix(*rows(x, g), accumulate=wide)
        return squares.of_window(window, x, g, blocked=settings.cpu, accumulate=wide)

    def by_gram(shifted, x, g):
        options = {"accumulate": dtypes.wide(x, g), "products": settings.dtype}
        x, g = canonical(x, g)
        if window.pointwise:
            return squares.of_matrix_by_gram(*rows(x, g), **options)
        return squares.of_window_by_gram(window, x, g, shifted=shifted, **options)

    def gradient(x, g):
        options = {"blocked": settings.cpu, "accumulate": dtypes.wide(x, g)}
        x, cots = canonical(x, g)
        return windows.products(window, x, cots, **options).reshape(len(g), -1)

    def project(drawn, size, x, g):
        wide = dtypes.wide(x, g)
        x, g = canonical(x, g)
        if window.pointwise:
            return projections.of_matrix(drawn, size, *rows(x, g), accumulate=wide)
        return projections.of_window(
            drawn, size, window, x, g, blocked=settings.cpu, accumulate=wide
        )

    plain = binding(operation, 1)

    def again(x, g):
        """As autodiff has it: the least to compile, for what is hardly ever run."""
        wide = dtypes.wide(x, g)
        x, g = rounded(settings, x, g)
        dtype = jnp.result_type(x, g)
        zeros = jnp.zeros(kernel.shape, dtype)
        convolve = functools.partial(plain, x.astype(dtype))
        pull_back = jax.linear_transpose(lambda w: convolve(w).astype(dtype), zeros)
        found = [pull_back(cotangent.astype(dtype))[0] for cotangent in g]
        return jnp.stack([jnp.sum(jnp.square(w.astype(wide))) for w in found])

    def arrange(flat):
        spec = numbers.rhs_spec  # of features, channels and the window's axes
        order = (spec[0], *spec[2:], spec[1])
        found = flat.reshape([kernel.shape[axis] for axis in order])
        return found.transpose([order.index(axis) for axis in range(kernel.ndim)])

    ordered = numbers == windows.channels_last(kernel.ndim)

    # A sum of shifted inputs is in the dtype of its terms.
    shifts = (
        settings.cpu
        and ordered
        and window.depthwise(kernel.shape)
        and operation.seen[0].dtype == operation.made[0].dtype == jnp.float32
    )

    def forward(x, w):
        if shifts:
            return depthwise.convolve(window, x, w)
        # On a CPU a 1x1 convolution is twice as fast as a matrix product.
        if not (settings.cpu and window.pointwise and ordered):
            return plain(x, w)
        return lax.dot_general(
            x,
            w.reshape(w.shape[-2:]),
            (((x.ndim - 1,), (0,)), ((), ())),
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )

    def input_gradient(w, g, shape):
        if window.pointwise:
            return lax.dot_general(
                g,
                w.reshape(w.shape[-2:]),
                (((g.ndim - 1,), (1,)), ((), ())),
                precision=params["precision"],
            )
        size = shape[1:-1]
        if shifts:
            return depthwise.input_gradient(window, w, g, size)
        return windows.input_gradient(window, w, g, size, params["precision"])

    def way(num):
        return squares.route(window, sizes[0], (num, *sizes[1]))

    grams = {
        name: functools.partial(by_gram, name == "shifted")
        for name in ("gram", "shifted")
    }
    loop = settings.cpu and not window.pointwise
    usual = settings.cpu and ordered and window.groups == 1

    def several(count):
        """As many as one on as many more images."""
        shapes, moves = [], []
        for array, spec in (
            (operation.seen[0], numbers.lhs_spec),
            (operation.made[0], numbers.out_spec),
        ):
            images = list(array.shape)
            images[spec[0]] *= count
            shapes.append(jax.ShapeDtypeStruct(tuple(images), array.dtype))
            moves.append(functools.partial(_as_images, spec[0]))
        joined = dataclasses.replace(
            operation, seen=(shapes[0], operation.seen[1]), made=(shapes[1],)
        )
        found = convolution(joined, weight, settings)
        assert found is not None  # as there is one of one
        return of_several(rule, found, *moves)

    rule = Rule(
        "conv",
        0,
        1,
        forward,
        batched(settings, square, positions, way, grams, loop=loop, again=again),
        route_of(settings, way(1)),
        gradient,
        input_gradient if shifts or usual else None,
        shape=projections.Shape(kernel.size // sizes[1][-1], sizes[1][-1]),
        positions=positions,
        arrange=arrange,
        project=projections.by_example(project, loop=loop),
        operation=operation,
        several=several,
    )
    return rule


def _as_images(axis, x):
    """Arrays [n, ...] with the n among the images, which are on an axis of each."""
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _window_energy(window: Window, x):
    """Squared length |a_t|^2 of each patch: [n, *size, c] -> [g, t]."""
    squared = jnp.square(x).reshape(*x.shape[:-1], window.groups, -1).sum(-1)
    padded = windows.pad_input(window, squared)
    counts = [
        (size - reach) // stride + 1
        for size, reach, stride in zip(
            padded.shape[1:-1], window.reach, window.strides, strict=True
        )
    ]
    energy = windows.patches(window, padded, tuple(counts)).sum(-2)
    return energy.reshape(-1, window.groups).T
