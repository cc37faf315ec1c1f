"""Convolutions and products of any geometry, each way their norms can be taken."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jalpose.pergrad import squares, windows
from jalpose.pergrad.windows import Window
from tests.support.networks import (
    Net,
    assert_norms_agree,
    layer,
    norms_of,
    random,
    slow_norms,
    targets_for,
    variables_of,
    ways,
)

B, K = 2, 2


def image(height=6, width=5, channels=4):
    return random(0, B, height, width, channels)


def sequence(length, width):
    return random(0, B, length, width)


def over_images(convolution):
    """A convolution of all images of an example, which makes a batch of them."""

    def body(module, x):
        y = convolution(x.reshape(-1, *x.shape[2:]))
        return y.reshape(*x.shape[:2], -1)

    return Net(body)


def channels_first(module, x):
    kernel = module.param("w", nn.initializers.normal(), (3, 4, 3, 2))
    return lax.conv_general_dilated(x, kernel, (1, 2), "SAME")


# name -> (network, inputs, way of each parameter)
CASES = {
    "conv": (nn.Conv(3, (3, 3)), image(), layer("direct")),
    "conv, few positions": (nn.Conv(8, (3, 3), 3), image(6, 6, 8), layer("gram")),
    "conv, few pixels": (nn.Conv(8, (3, 3)), image(2, 2, 8), layer("shifted")),
    "conv, wide": (nn.Conv(32, (3, 3)), image(4, 4, 16), layer("shifted")),
    "conv without bias": (
        nn.Conv(3, (3, 3), use_bias=False),
        image(),
        {"kernel": "direct"},
    ),
    "conv 1x1": (nn.Conv(3, (1, 1)), image(), layer("direct")),
    "conv 1x1, strided": (nn.Conv(3, (1, 1), 2), image(), layer("direct")),
    "conv 1x1, few positions": (nn.Conv(6, (1, 1)), image(2, 1, 6), layer("gram")),
    "conv valid": (nn.Conv(3, (3, 2), padding="VALID"), image(), layer("direct")),
    "conv circular": (nn.Conv(3, (3, 3), padding="CIRCULAR"), image(), layer("direct")),
    "conv reflect": (nn.Conv(3, (3, 3), padding="REFLECT"), image(), layer("direct")),
    "conv padded unevenly": (
        nn.Conv(3, (3, 3), padding=((2, 0), (1, 3))),
        image(),
        layer("direct"),
    ),
    "conv cropped": (
        nn.Conv(3, (3, 2), padding=((-1, 0), (1, -2))),
        image(),
        layer("direct"),
    ),
    "conv strided": (nn.Conv(3, (3, 3), (2, 3)), image(), layer("direct")),
    "conv a trous": (
        nn.Conv(3, (3, 2), kernel_dilation=(2, 3)),
        image(),
        layer("direct"),
    ),
    "conv input dilation": (
        nn.Conv(3, (3, 3), input_dilation=(2, 3), padding=((1, 2), (0, 1))),
        image(3, 4),
        layer("direct"),
    ),
    "conv grouped": (
        nn.Conv(6, (3, 3), 2, feature_group_count=2),
        image(),
        layer("direct"),
    ),
    "conv grouped 1x1": (
        nn.Conv(6, (1, 1), feature_group_count=2),
        image(),
        layer("direct"),
    ),
    "conv depthwise": (
        nn.Conv(8, (3, 3), feature_group_count=4),
        image(),
        layer("direct"),
    ),
    "conv 1-D": (nn.Conv(3, (3,), (2,)), sequence(9, 4), layer("direct")),
    "conv 1-D causal": (
        nn.Conv(3, (3,), padding="CAUSAL"),
        sequence(7, 4),
        layer("direct"),
    ),
    "conv 3-D": (
        nn.Conv(3, (2, 3, 2), (1, 2, 1)),
        random(0, B, 4, 5, 3, 2),
        layer("direct"),
    ),
    "conv transpose": (
        nn.ConvTranspose(3, (3, 3), (2, 2)),
        image(3, 4),
        layer("direct"),
    ),
    "conv transpose, of a conv": (
        nn.ConvTranspose(3, (3, 2), (2, 3), transpose_kernel=True),
        image(3, 4),
        layer("direct"),
    ),
    "conv local": (nn.ConvLocal(3, (2, 2)), image(4, 3), layer("gram")),
    "conv, channels first": (
        Net(channels_first),
        random(0, B, 4, 6, 5),
        {"w": "direct"},
    ),
    "conv of several images an example": (
        over_images(lambda x: nn.Conv(3, (3, 3), 2)(x)),
        random(0, B, 3, 6, 5, 4),
        layer("direct", "Conv_0/"),
    ),
    "conv of several small images an example": (
        over_images(lambda x: nn.Conv(12, (3, 3))(x)),
        random(0, B, 2, 2, 2, 6),
        layer("gram", "Conv_0/"),
    ),
    "conv 1x1 of several images an example": (
        over_images(lambda x: nn.Conv(6, (1, 1))(x)),
        random(0, B, 2, 2, 2, 6),
        layer("direct", "Conv_0/"),
    ),
}


def computed(name):
    module, inputs, _ = CASES[name]
    variables = variables_of(module, inputs)
    targets = targets_for(module.apply, variables, inputs, K)
    return module.apply, variables, inputs, targets


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ghost_is_exact(name):
    apply_fn, variables, inputs, targets = computed(name)
    ghost, exact = norms_of(("ghost", "exact"), apply_fn, variables, inputs, targets)
    assert_norms_agree(ghost, exact.by_tensor)
    assert ways(apply_fn, variables, inputs) == CASES[name][2]


@pytest.mark.parametrize("name", ["conv", "conv, wide", "conv, few positions"])
def test_ghost_is_one_gradient_at_a_time(name):
    apply_fn, variables, inputs, targets = computed(name)
    (ghost,) = norms_of(("ghost",), apply_fn, variables, inputs, targets)
    assert_norms_agree(ghost, slow_norms(apply_fn, variables, inputs, targets))


# Every way, whichever is the cheapest.


@st.composite
def convolutions(draw):
    """(Window's fields, pixels to spare, images an example, channels, features, K)."""
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(numbers):
        return tuple(draw(numbers) for _ in range(axes))

    groups = draw(st.sampled_from([1, 2]))
    fields = {
        "kernel": each(st.integers(1, 4)),
        "strides": each(st.integers(1, 3)),
        "padding": each(st.tuples(st.integers(-1, 2), st.integers(0, 2))),
        "input_dilation": each(st.sampled_from([1, 1, 2])),
        "kernel_dilation": each(st.integers(1, 2)),
        "groups": groups,
    }
    spare = each(st.integers(0, 3))
    images = draw(st.sampled_from([1, 1, 2]))
    widths = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    return fields, spare, images, *widths, draw(st.integers(1, 3))


@pytest.mark.slow
@settings(max_examples=15)
@given(convolutions())
def test_every_way_is_exact_for_every_geometry(case):
    fields, spare, images, channels, features, num = case
    window, axes = Window(**fields), len(spare)
    # At least one place for the kernel, and what is to spare.
    size = tuple(
        max(2, reach - low - high) + more
        for reach, (low, high), more in zip(
            window.reach, window.padding, spare, strict=True
        )
    )
    last = (0, axes + 1, *range(1, axes + 1))
    numbers = lax.ConvDimensionNumbers(last, (axes + 1, axes, *range(axes)), last)
    x = random(0, images, *size, channels)
    w = random(1, *window.kernel, channels // window.groups, features)

    def convolve(w):
        return lax.conv_general_dilated(
            x,
            w,
            window.strides,
            window.padding,
            window.input_dilation,
            window.kernel_dilation,
            numbers,
            window.groups,
        )

    shape = jax.eval_shape(convolve, w).shape
    g = random(2, num, *shape)

    @jax.jit
    def run(w, g):
        (gradients,) = jax.vmap(jax.vjp(convolve, w)[1])(g)
        exact = jnp.sum(jnp.square(gradients), axis=range(1, gradients.ndim))
        found = {}
        for block_bytes in (0, 1):
            # A block is at least a row of the output.
            patch.setattr(windows, "BLOCK_BYTES", block_bytes)
            options = {"blocked": block_bytes > 0, "accumulate": jnp.float32}
            norms = squares.of_window(window, x, g, **options)
            found["direct", block_bytes] = norms
        if window.groups == 1:
            found["by pixel", 0] = windows.squared_norms(window, x, g)
        for shifted in (False, True) if images == 1 else (False,):
            options = {"shifted": shifted, "accumulate": jnp.float32}
            doubted = squares.of_window_by_gram(window, x, g, **options)
            # What is doubted is done again, and so no matter here.
            norms = jnp.where(doubted.doubtful, exact, doubted.norms)
            found["gram", shifted] = norms
        return exact, found

    with pytest.MonkeyPatch.context() as patch:
        exact, found = run(w, g)
    for which, norms in found.items():
        np.testing.assert_allclose(norms, exact, rtol=1e-4, err_msg=str(which))


@pytest.mark.parametrize(
    ("block_bytes", "blocks"), [(1, 24), (2 * 864, 12), (5 * 864, 6), (10**9, 2)]
)
def test_products_are_the_gradients_whatever_the_blocks(
    block_bytes, blocks, monkeypatch
):
    # Two images of twelve rows, each with 8 * 9 * 3 * 4 = 864 bytes of patches; the
    # rows of a block divide twelve.
    monkeypatch.setattr(windows, "BLOCK_BYTES", block_bytes)
    x, g = random(0, 2, 12, 8, 3), random(1, 2, 2, 12, 8, 5)
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1))

    def convolve(w):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)

    @jax.jit
    def run(g):
        (wanted,) = jax.vmap(jax.vjp(convolve, jnp.zeros((3, 3, 3, 5)))[1])(g)
        return wanted, windows.products(window, x, g, blocked=True)

    wanted, found = run(g)
    # [K, 1, D, k, C] -> [K, 3, 3, C, D]
    found = np.asarray(found)[:, 0].transpose(0, 2, 3, 1).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    jaxpr = str(jax.make_jaxpr(lambda: windows.products(window, x, g, blocked=True))())
    assert f"length={blocks}\n" in jaxpr


def test_the_way_is_the_cheapest_by_count():
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1))

    def way(size, channels, features, num=1, images=1):
        shapes = (images, size, size, channels), (num, images, size, size, features)
        return squares.route(window, *shapes)

    assert way(64, 16, 16) == "direct"
    assert way(4, 64, 64) == "shifted"
    assert way(2, 8, 8, images=2) == "gram"
    assert way(4, 64, 64, images=2) != "shifted"
    # The Gram of the activations serves all cotangents.
    assert way(6, 16, 16) == "direct" and way(6, 16, 16, num=100) != "direct"


# Any product at all.


@st.composite
def products_of_parameters(draw):
    """(inputs' letters, kernel's, output's, kernel first?, size of each letter)."""
    kinds = {letter: draw(st.sampled_from("bcxw")) for letter in "ijklm"}
    sizes = {letter: draw(st.integers(1, 4)) for letter in kinds}
    parts = [
        [k for k, v in kinds.items() if v in group] for group in ("bcx", "bcw", "bxw")
    ]
    letters = ["".join(draw(st.permutations(part))) for part in parts]
    return *letters, draw(st.booleans()), sizes


@pytest.mark.slow
@settings(max_examples=12)
@given(products_of_parameters())
def test_any_product_is_exact(case):
    # b: in both and in the output; c: summed over; x: of the inputs, w: of the kernel.
    inputs, kernel, output, first, sizes = case
    x = random(0, B, *[sizes[letter] for letter in inputs])
    w = random(1, *[sizes[letter] for letter in kernel])
    terms = (
        f"{kernel},n{inputs}->n{output}" if first else f"n{inputs},{kernel}->n{output}"
    )

    def apply_fn(variables, x):
        operands = (variables["params"]["w"], x)[:: 1 if first else -1]
        return jnp.einsum(terms, *operands)

    variables = {"params": {"w": w}}
    targets = targets_for(apply_fn, variables, x, K)
    ghost, exact = norms_of(("ghost", "exact"), apply_fn, variables, x, targets)
    assert_norms_agree(ghost, exact.by_tensor)
