"""The two ways of a projection against sums over single entries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.pergrad import projections
from jalpose.pergrad.projections import Shape
from jalpose.pergrad.windows import Window
from tests.support.networks import random

K = 2


def by_hand(drawn, shape, size, gradients):
    """Sketches [k, size] of gradients [k, d, p], entry by entry."""
    signs = {name: np.asarray(leaf, float) for name, leaf in drawn._asdict().items()}

    def bin_of(place):
        return (place + place // size) % size

    i, j = np.indices(shape)
    if shape.by_entries:
        place = j * shape.depth + i  # columns one after the other
        sign, where = signs["entries"][place], bin_of(place)
    else:
        sign = signs["depth"][i] * signs["width"][j]
        where = bin_of(i) + bin_of(j)
    found = np.zeros((len(gradients), size))
    for row, gradient in zip(found, gradients, strict=True):
        np.add.at(row, (where + int(drawn.rotation)) % size, sign * gradient)
    return found


def matrix(shape, positions, size, groups=1):
    """Sketches of a layer's gradients, found and by hand."""
    a = random(0, groups, positions, shape.depth)
    g = random(1, K, groups, positions, shape.width // groups)
    (drawn,) = projections.draw(jax.random.key(3), [shape], size)
    project = jax.jit(
        lambda a, g: projections.of_matrix(drawn, size, a, g, accumulate=jnp.float32)
    )
    gradients = np.einsum("gtd,kgtp->kdgp", a, g).reshape(K, shape.depth, -1)
    return project(a, g), by_hand(drawn, shape, size, gradients)


# The widths on both sides of the size, and what is no multiple of anything.
@pytest.mark.parametrize("shape", [Shape(7, 5), Shape(37, 3), Shape(33, 1)])
@pytest.mark.parametrize("size", [1, 8, 13, 30])
def test_a_small_matrix_has_a_sign_for_each_entry(shape, size):
    found, wanted = matrix(shape, 3, size)
    assert shape.by_entries and found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [Shape(200, 170), Shape(1100, 31), Shape(31, 1100)])
@pytest.mark.parametrize("size", [32, 100, 257])
def test_both_ways_of_a_large_matrix_are_one_projection(shape, size, monkeypatch):
    found = {}
    for sides in (False, True):
        monkeypatch.setattr(projections, "_by_sides", lambda *_, s=sides: s)
        found[sides], wanted = matrix(shape, 3, size)
    assert not shape.by_entries
    for one in found.values():
        np.testing.assert_allclose(one, wanted, rtol=1e-3, atol=2e-3)


def test_few_positions_go_by_the_sides_and_many_by_the_gradient():
    large = Shape(2304, 256)
    assert projections._by_sides(large, 1, 1, 1, 512)
    assert not projections._by_sides(Shape(576, 64), 1, 1024, 1, 512)
    assert not projections._by_sides(large, 2, 1, 1, 512)  # groups
    assert not projections._by_sides(Shape(20, 20), 1, 1, 1, 512)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [Shape(9, 8), Shape(300, 120)])
def test_groups_are_columns_of_one_matrix(shape):
    found, wanted = matrix(shape, 3, 16, groups=4)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("sides", [False, True])
def test_a_convolution_is_a_product_of_patches(sides, blocked, monkeypatch):
    monkeypatch.setattr(projections, "_by_sides", lambda *_: sides)
    monkeypatch.setattr("jalpose.pergrad.windows.BLOCK_BYTES", 60_000)
    window = Window((3, 3), (2, 1), ((1, 1), (0, 1)), (1, 1), (1, 1))
    x, size = random(2, 2, 9, 8, 70), 64
    g = random(3, K, 2, 5, 7, 60)  # of 9 / 2 rows and 8 + 1 - 2 columns
    shape = Shape(9 * 70, 60)
    (drawn,) = projections.draw(jax.random.key(1), [shape], size)
    found = jax.jit(
        lambda x, g: projections.of_window(
            drawn, size, window, x, g, blocked=blocked, accumulate=jnp.float32
        )
    )(x, g)
    padded = np.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)))
    gradients = np.zeros((K, 3, 3, 70, 60))
    for row in range(3):
        for column in range(3):
            seen = padded[:, row : row + 9 : 2, column : column + 7]
            gradients[:, row, column] = np.einsum("nyxc,knyxf->kcf", seen, g)
    wanted = by_hand(drawn, shape, size, gradients.reshape(K, -1, 60))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [Shape(6, 4), Shape(400, 90)])
def test_rows_of_a_table_are_where_they_were_taken(shape):
    indices = np.array([2, 5, 2, -1, 0])
    g = random(4, K, 5, shape.width) * (indices >= 0)[None, :, None]
    (drawn,), size = projections.draw(jax.random.key(2), [shape], 12), 12
    found = projections.of_rows(drawn, size, indices, g, accumulate=jnp.float32)
    gradients = np.zeros((K, shape.depth, shape.width))
    for t, row in enumerate(indices):
        if row >= 0:
            gradients[:, row] += g[:, t]
    wanted = by_hand(drawn, shape, size, gradients)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("array_shape", [(5,), (4, 7), (3, 40, 300), ()])
def test_a_gradient_in_hand_is_its_rows_by_its_last_axis(array_shape):
    gradient, size = random(5, *array_shape), 11
    shape = projections.shape_of(gradient)
    (drawn,) = projections.draw(jax.random.key(5), [shape], size)
    found = projections.of_gradient(drawn, size, jnp.asarray(gradient))
    wanted = by_hand(drawn, shape, size, gradient.reshape(1, *shape))
    np.testing.assert_allclose(found, wanted[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_complex_entries_are_two_real_ones():
    gradient = random(6, 4, 3) + 1j * random(7, 4, 3)
    shape = projections.shape_of(gradient)
    assert shape == Shape(8, 3)
    (drawn,) = projections.draw(jax.random.key(5), [shape], 7)
    found = projections.of_gradient(drawn, 7, jnp.asarray(gradient))
    parts = np.concatenate([gradient.real, gradient.imag])[None]
    np.testing.assert_allclose(
        found, by_hand(drawn, shape, 7, parts)[0], rtol=1e-4, atol=1e-4
    )


def test_signs_are_fair_and_differ_between_tensors():
    shapes = [Shape(2**15, 1), Shape(2**15, 1)]
    draws = [drawn.entries for drawn in projections.draw(jax.random.key(0), shapes, 8)]
    one, other = (np.asarray(d, int) for d in draws)
    assert set(one) == {-1, 1}
    # Four standard deviations.
    assert abs(one.mean()) < 4 / 2**7.5 and abs((one * other).mean()) < 4 / 2**7.5
