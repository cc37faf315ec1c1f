"""Depthwise convolutions as sums of shifts: the native ones, and exact norms."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.models.convolution import blocked_convolution
from tests.support.networks import (
    Net,
    assert_norms_agree,
    norms_of,
    random,
    targets_for,
    variables_of,
    ways,
)

CHANNELS = 4
LAYOUTS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC")}
# (sizes of the image, of the kernel, strides, padding, kernel dilation)
GEOMETRIES = {
    "3x3": ((5, 6), (3, 3), (1, 1), "SAME", (1, 1)),
    "5x5 strided": ((7, 8), (5, 5), (2, 2), "SAME", (1, 1)),
    "larger than the image": ((2, 2), (5, 5), (1, 1), "SAME", (1, 1)),
    "uneven, a trous": ((9, 7), (3, 2), (2, 3), ((1, 0), (2, 1)), (2, 1)),
    "1-D": ((9,), (3,), (2,), ((0, 0),), (1,)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_shifts_do_what_the_native_convolution_does(name):
    sizes, kernel, strides, padding, dilation = GEOMETRIES[name]
    x, w = random(0, 2, *sizes, CHANNELS), random(1, *kernel, 1, CHANNELS)

    @jax.jit  # of arguments: of constants it would be computed by the compiler
    def both(x, w):
        def loss(convolve, x, w):
            y = convolve(
                x,
                w,
                strides,
                padding,
                rhs_dilation=dilation,
                dimension_numbers=LAYOUTS[len(sizes)],
                feature_group_count=CHANNELS,
            )
            return jnp.sum(jnp.sin(y)), y

        ways = (blocked_convolution, jax.lax.conv_general_dilated)
        return [
            jax.value_and_grad(functools.partial(loss, way), (0, 1), has_aux=True)(x, w)
            for way in ways
        ]

    found, wanted = both(x, w)
    for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert "conv_general_dilated" not in str(
        jax.make_jaxpr(
            functools.partial(
                blocked_convolution,
                **{
                    "window_strides": strides,
                    "padding": padding,
                    "rhs_dilation": dilation,
                    "feature_group_count": CHANNELS,
                },
            )
        )(x, w)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(6, 3, 1), (7, 5, 2), (2, 5, 1)]
)
@pytest.mark.parametrize("num", [1, 3])
def test_norms_are_exact_without_autodiff(size, kernel, stride, num):
    def body(_, x):
        conv = functools.partial(nn.Conv, use_bias=False)
        x = jnp.sin(conv(CHANNELS, (3, 3), name="before")(x))
        x = conv(
            CHANNELS,
            (kernel, kernel),
            stride,
            feature_group_count=CHANNELS,
            name="depthwise",
        )(x)
        return jnp.sin(x)

    net, x = Net(body), random(2, 3, size, size, 2)
    variables = variables_of(net, x)
    found = ways(net.apply, variables, x)
    assert set(found.values()) <= {"direct", "gram", "shifted"}
    targets = targets_for(net.apply, variables, x, num)
    norms = norms_of(("ghost", "exact"), net.apply, variables, x, targets)
    assert_norms_agree(norms[0], norms[1].by_tensor)
